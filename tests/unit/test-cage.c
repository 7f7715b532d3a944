// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * lib/appliance: a cage ends whatever its program does and whoever dies, its process can do nothing
 * that it does not need, and the caller does not wait for ever for an agent that says nothing, or
 * never stops talking.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "appliance/appliance.h"
#include "appliance/cage.h"
#include "appliance/jail.h"
#include "base/bytes.h"

#define SHORT UINT64_C(150000000) /* ns of CPU time */

static const void *guest;
static size_t guest_size;

static const enum cell_isolation both[] = {CELL_PROCESS, CELL_VM};

static bool can(enum cell_isolation how)
{
	return how != CELL_VM || access("/dev/kvm", R_OK | W_OK) == 0;
}

static struct cage_config config_of(enum cell_isolation how, const char *const *argv)
{
	return (struct cage_config){
		.program = guest, .program_size = guest_size, .argv = argv, .isolation = how};
}

/* ---- the end ---- */

/* The limit is a signal: it works in a caller that blocks all of them. */
static void limit_with_blocked_signals(void **state)
{
	const char *const argv[] = {"guest", "loop", NULL};
	sigset_t all, old;

	(void)state;
	sigfillset(&all);
	assert_int_equal(sigprocmask(SIG_SETMASK, &all, &old), 0);
	for (size_t i = 0; i < ARRAY_LEN(both); i++) {
		struct cage_config config = config_of(both[i], argv);
		struct err e = {0};
		struct cage cage;
		int status;

		if (!can(both[i]))
			continue;
		config.cpu_limit = SHORT;
		ok(cage_start(&cage, &config, &e), &e);
		assert_int_equal(cage_wait(&cage, &status, &e), -EFAULT);
		if (!strstr(e.msg, "limit of CPU time"))
			fail_msg("%s", e.msg);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
}

/* The caller dies; the program never would. Its cage becomes our child, and ends. */
static void caller_dies(void **state)
{
	const char *const argv[] = {"guest", "loop", NULL};

	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	for (size_t i = 0; i < ARRAY_LEN(both); i++) {
		struct cage_config config = config_of(both[i], argv);
		int fds[2], status;
		pid_t caller, cage_pid = 0;

		if (!can(both[i]))
			continue;
		assert_int_equal(pipe(fds), 0);
		caller = fork();
		if (caller == 0) {
			struct cage cage;

			if (cage_start(&cage, &config, NULL) < 0 ||
			    write(fds[1], &cage.pid, sizeof(cage.pid)) < 0)
				_exit(1);
			_exit(0);
		}
		assert_int_equal(waitpid(caller, &status, 0), caller);
		assert_int_equal(status, 0);
		assert_int_equal(read(fds[0], &cage_pid, sizeof(cage_pid)), sizeof(cage_pid));
		assert_int_equal(waitpid(cage_pid, &status, 0), cage_pid);
		assert_true(WIFEXITED(status));
		close(fds[0]);
		close(fds[1]);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

/* A program that does not end when its input does. */
static void patience_with_the_end(void **state)
{
	const char *const argv[] = {"guest", "loop", NULL};
	struct cage_config config = config_of(CELL_PROCESS, argv);
	struct err e = {0};
	struct cage cage;
	int status;

	(void)state;
	config.patience = 50;
	ok(cage_start(&cage, &config, &e), &e);
	assert_int_equal(cage_wait(&cage, &status, &e), -ETIMEDOUT);
	assert_int_equal(waitpid(cage.pid, &status, 0), -1);
}

/* ---- the jail ---- */

static long set_owner(void)
{
	return fcntl(0, F_SETOWN, getppid());
}

static long signal_parent(void)
{
	return syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static long look_at_file(void)
{
	struct stat st;

	return fstatat(AT_FDCWD, "/etc/passwd", &st, 0);
}

static long open_file(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static long make_code(void)
{
	return syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
}

static long allow_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return syscall(SYS_mprotect, p, 4096, PROT_READ | PROT_EXEC);
}

static long make_process(void)
{
	return syscall(SYS_fork);
}

static long make_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static long attach(void)
{
	return syscall(SYS_ptrace, 16, getppid(), 0, 0);
}

static long old_call(void)
{
	long r = 20;

	__asm__ volatile("int $0x80" : "+a"(r) : : "memory");
	return r;
}

static long nothing(void)
{
	return getpid();
}

static void jail(void **state)
{
	static const struct {
		const char *name;
		long (*run)(void);
		bool sanitized; /* also in the jail of the sanitizers, which is wider */
	} tries[] = {
		{"fcntl", set_owner, true},       {"tgkill", signal_parent, false},
		{"fstatat", look_at_file, false}, {"openat", open_file, false},
		{"mmap", make_code, false},       {"mprotect", allow_code, false},
		{"fork", make_process, true},     {"socket", make_socket, true},
		{"ptrace", attach, true},         {"int 0x80", old_call, true},
	};
	int status;

	(void)state;
	for (size_t i = 0; i <= ARRAY_LEN(tries); i++) {
		const char *name = i < ARRAY_LEN(tries) ? tries[i].name : "nothing";
		pid_t pid;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
		if (i < ARRAY_LEN(tries) && !tries[i].sanitized)
			continue;
#endif
		pid = fork();
		if (pid == 0) {
			if (jail_seal(NULL) < 0)
				_exit(1);
			if (i < ARRAY_LEN(tries))
				tries[i].run();
			else
				nothing();
			syscall(SYS_exit_group, 0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (i == ARRAY_LEN(tries) ? status != 0 : WTERMSIG(status) != SIGSYS)
			fail_msg("%s: status 0x%x", name, status);
	}
}

/* ---- agents that keep the caller waiting ---- */

/* An agent that said hello, and then says frames of one type for ever. */
struct talker {
	int fd;
	uint16_t type; /* 0: it is silent */
	atomic_bool killed;
};

static int talker_finish(void *arg, struct err *err)
{
	(void)arg;
	(void)err;
	return 0;
}

static void talker_kill(void *arg)
{
	struct talker *t = arg;

	atomic_store(&t->killed, true);
	shutdown(t->fd, SHUT_RDWR);
}

struct words {
	struct frame_header head;
	le32 w[4];
};

static void *talk(void *arg)
{
	struct talker *t = arg;
	const struct words f = {.head = {.length = le32_make(16),
					 .type = le16_make(t->type),
					 .call = le32_make(1)}};

	while (t->type && send(t->fd, &f, 32, MSG_NOSIGNAL) == 32)
		;
	return NULL;
}

static int count(void *arg, const void *bytes, size_t n, struct err *err)
{
	uint64_t *calls = arg;

	(void)bytes;
	(void)n;
	/* Enough to see that it came. */
	return ++*calls < 100 ? 0 : err_set(err, EFBIG, "enough");
}

/* What a read of all of a file says to such an agent. */
static int read_from(uint16_t type, struct job *job, struct err *err)
{
	struct talker t = {.type = type};
	const struct appliance_end end = {
		.finish = talker_finish, .kill = talker_kill, .arg = &t, .patience = 50};
	const struct words hello = {
		.head = {.length = le32_make(8), .type = le16_make(FRAME_HELLO)},
		.w[0] = le32_make(AGENT_PROTOCOL),
	};
	struct appliance *a;
	uint64_t calls = 0;
	pthread_t thread;
	int fds[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	t.fd = fds[1];
	assert_int_equal(write(t.fd, &hello, 24), 24);
	ok(appliance_attach(fds[0], fds[0], &end, &a, err), err);
	assert_int_equal(pthread_create(&thread, NULL, talk, &t), 0);
	appliance_watch(a, job);
	r = appliance_read(a, "/x", 0, UINT64_MAX, count, &calls, err);
	assert_true(atomic_load(&t.killed));
	assert_int_equal(appliance_sync(a, NULL), -EPIPE);
	appliance_close(a);
	pthread_join(thread, NULL);
	close(fds[0]);
	close(fds[1]);
	return r;
}

static void silent_agent(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(read_from(0, NULL, &e), -ETIMEDOUT);
}

/* Neither who is told to stop by the user, nor by what takes the data. */
static void agent_that_never_stops(void **state)
{
	struct job job = {.cancelled = true};
	struct err e = {0};

	(void)state;
	assert_int_equal(read_from(FRAME_PROGRESS, &job, &e), -ETIMEDOUT);
	assert_int_equal(read_from(FRAME_DATA, &job, &e), -ETIMEDOUT);
	assert_int_equal(read_from(FRAME_DATA, NULL, &e), -EFBIG);
}

static int setup(void **state)
{
	const char *top = getenv("TOP");
	char path[4096];
	struct stat st;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/build/agent/guest-attack", top ? top : ".");
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	guest_size = (size_t)st.st_size;
	guest = mmap(NULL, guest_size, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(guest, MAP_FAILED);
	close(fd);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limit_with_blocked_signals),
		cmocka_unit_test(caller_dies),
		cmocka_unit_test(patience_with_the_end),
		cmocka_unit_test(jail),
		cmocka_unit_test(silent_agent),
		cmocka_unit_test(agent_that_never_stops),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
