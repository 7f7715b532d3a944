// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: what the server's process gives up before the first client. What remains: its open
 * files, sockets and memory. It can open or name no file, make no socket and no process, signal
 * nobody, and map nothing executable; it has no capability, also when root started it.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/sandbox_list.h"
#include "helpers/serve/parts.h"

/* clang-format off */
static const struct sandbox_call allowed[] = {
	/* clients: they come, and say who they are (a Unix socket's credentials, an address) */
	ANY(accept4), ANY(getsockname), ANY(getpeername), ANY(getsockopt), ANY(setsockopt),
	/* they talk, over sockets or pipes, and go */
	ANY(recvfrom), ANY(recvmsg), ANY(sendto), ANY(sendmsg), ANY(shutdown),
	ANY(read), ANY(readv), ANY(write), ANY(writev), ANY(close),
	/* waiting for them, for the order to stop, for time limits */
	ANY(epoll_ctl), ANY(epoll_wait), ANY(epoll_pwait), ANY(poll), ANY(timerfd_settime),
	/* whether a thread had to wait for storage, or for a CPU */
	ONLY(getrusage, 0, RUSAGE_THREAD),
	/* disks: files and block devices that are open */
	ANY(pread64), ANY(pwrite64), ANY(fdatasync), ANY(fallocate), ANY(ftruncate), ANY(lseek),
	ANY(fstat), ANY(fstatfs),
	ONLY(ioctl, 1, BLKDISCARD), ONLY(ioctl, 1, BLKZEROOUT), ONLY(ioctl, 1, BLKGETSIZE64),
	ONLY(ioctl, 1, BLKSSZGET),
	/* as glibc's fstat has it; a path that is not empty tells no more than what files there are */
	ONLY(newfstatat, 3, AT_EMPTY_PATH),
	/* non-blocking, image locks; not F_SETOWN: it sends signals */
	ONLY(fcntl, 1, F_GETFL), ONLY(fcntl, 1, F_SETFL), ONLY(fcntl, 1, F_GETFD), ONLY(fcntl, 1, F_SETFD),
	ONLY(fcntl, 1, F_OFD_GETLK), ONLY(fcntl, 1, F_OFD_SETLK),
	/* workers; clone3 hides its flags, and glibc takes clone where it is not there */
	{SYS_clone, 0, CLONE_VM | CLONE_THREAD, CLONE_VM | CLONE_THREAD},
	{SYS_clone3, SANDBOX_FAILS, 0, ENOSYS},
	ANY(set_robust_list), ANY(rseq), ANY(sched_getaffinity), ANY(exit),
	/* signals that come; abort(3) */
	ANY(rt_sigaction), ANY(rt_sigreturn), ANY(rt_sigprocmask), ANY(gettid), ANY(getpid),
	{SYS_tgkill, 0, UINT32_MAX, 0 /* our PID: see serve_seal */},
	/* keys of TLS are freed */
	ANY(munlock),
	/* memory, locks, time, random numbers of TLS */
	NOT_EXEC(mmap), NOT_EXEC(mprotect), ANY(munmap), ANY(mremap), ANY(madvise), ANY(brk),
	ANY(futex), ANY(sched_yield), ANY(getrandom), ANY(clock_gettime), ANY(gettimeofday),
	ANY(restart_syscall), ANY(exit_group),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* free(3) asks for vm.overcommit_memory when it gives memory back, and can do without */
	{SYS_openat, SANDBOX_FAILS, 0, EACCES},
#else
	/* what the sanitizers ask when they report */
	ANY(open), ANY(openat), ANY(readlink), ANY(stat), ANY(newfstatat), ANY(dup), ANY(uname), ANY(getrusage),
	ANY(prlimit64), ANY(prctl), ANY(mmap), ANY(mprotect), ANY(clone), ANY(sigaltstack), ANY(ioctl),
	ANY(getuid), ANY(geteuid), ANY(clock_getres), ANY(nanosleep),
#endif
};
/* clang-format on */

/* As far as we may: who has no capability at all has none to leave out of the bounds. */
static void drop_bounds(void)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap);
}

static int drop_capabilities(struct err *err)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

	return syscall(SYS_capset, &head, none) < 0 ? err_sys(err, errno, "capabilities") : 0;
}

int serve_become(const char *user, struct err *err)
{
	const struct passwd *pw;

	drop_bounds();
	if (!user)
		return drop_capabilities(err);
	errno = 0;
	pw = getpwnam(user);
	if (!pw)
		return err_set(err, ENOENT, "--user %s: %s", user,
			       errno ? strerror(errno) : "there is no such user");
	if (setgroups(0, NULL) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return err_sys(err, errno, "--user %s", user);
	return drop_capabilities(err);
}

int serve_seal(struct err *err)
{
	struct sandbox_call calls[ARRAY_LEN(allowed)];

	memcpy(calls, allowed, sizeof(calls));
	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		if (calls[i].nr == SYS_tgkill)
			calls[i].value = (uint64_t)getpid(); /* signals go to nobody else */
	}
	return sandbox_seal(calls, ARRAY_LEN(calls), err);
}
