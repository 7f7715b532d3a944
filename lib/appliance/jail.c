/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The system calls that a cage's process may make: those of its open files, of KVM's and ptrace's
 * running, and of malloc. It can open nothing, make no process, signal none but its child, and map
 * nothing executable.
 */
#include "appliance/jail.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ptrace.h>

#include "base/bytes.h"
#include "base/sandbox_list.h"

/* clang-format off */
static const struct sandbox_call allowed[] = {
	/* the conversation and the report */
	ANY(read), ANY(write), ANY(poll), ANY(close),
	/* disks */
	ANY(pread64), ANY(pwrite64), ANY(fdatasync), ANY(fsync), ANY(fallocate), ANY(ftruncate),
	ANY(lseek), ANY(fstat),
	/* connections to NBD servers; to nobody else, which sendto could name */
	ANY(recvfrom), ANY(shutdown), {SYS_sendto, 4, UINT64_MAX, 0},
	/* not F_SETOWN: it sends signals */
	ONLY(fcntl, 1, F_GETFL), ONLY(fcntl, 1, F_OFD_GETLK), ONLY(fcntl, 1, F_OFD_SETLK),
	/* as glibc's fstat has it; a path that is not empty tells no more than what files there are */
	ONLY(newfstatat, 3, AT_EMPTY_PATH),
	ONLY(ioctl, 1, BLKDISCARD), ONLY(ioctl, 1, BLKZEROOUT), ONLY(ioctl, 1, BLKGETSIZE64),
	ONLY(ioctl, 1, BLKSSZGET),
	/* the cell */
	ONLY(ioctl, 1, KVM_RUN), ONLY(ioctl, 1, KVM_SET_MSRS), ONLY(ioctl, 1, KVM_GET_SREGS),
	ONLY(ptrace, 0, PTRACE_SYSEMU), ONLY(ptrace, 0, PTRACE_GETREGS),
	ONLY(ptrace, 0, PTRACE_SETREGS), ONLY(ptrace, 0, PTRACE_GETSIGINFO),
	ANY(wait4), ANY(pidfd_send_signal),
	ANY(timer_create), ANY(timer_settime), ANY(timer_delete), ANY(rt_sigaction),
	ANY(rt_sigreturn), ANY(rt_sigprocmask), ANY(gettid), ANY(getpid),
	/* memory, locks, time */
	NOT_EXEC(mmap), NOT_EXEC(mprotect), ANY(munmap), ANY(mremap), ANY(madvise), ANY(brk),
	ANY(futex), ANY(sched_yield), ANY(getrandom), ANY(clock_gettime), ANY(clock_getres), ANY(gettimeofday),
	ANY(restart_syscall), ANY(exit), ANY(exit_group),
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	/* what the sanitizers ask when they report */
	ANY(tgkill), ANY(newfstatat),
	ANY(sigaltstack), ANY(readlink), ANY(open), ANY(openat), ANY(sched_getaffinity),
	ANY(prctl), ANY(getuid), ANY(geteuid), ANY(clone), ANY(mmap), ANY(mprotect), ANY(stat),
	ANY(dup), ANY(uname), ANY(nanosleep), ANY(clock_nanosleep), ANY(getrusage), ANY(prlimit64),
#endif
};
/* clang-format on */

int jail_seal(struct err *err)
{
	return sandbox_seal(allowed, ARRAY_LEN(allowed), err);
}
