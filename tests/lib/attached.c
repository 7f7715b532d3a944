// SPDX-License-Identifier: GPL-2.0-or-later
/* See attached.h. */
#include "attached.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tell.h"

struct other_end {
	pid_t pid;
	int fd;
};

static int reap(struct other_end *o)
{
	int status;

	close(o->fd);
	while (waitpid(o->pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid: no such agent");
	free(o);
	return status;
}

static int end_finish(void *arg, struct err *err)
{
	int status = reap(arg);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return err_set(err, EFAULT, "the agent ended with status 0x%x", (unsigned)status);
}

static void end_kill(void *arg)
{
	struct other_end *o = arg;
	int status;

	kill(o->pid, SIGKILL);
	status = reap(o);
	/* What a sanitizer has to say counts, whatever the test expected. */
	if (WIFEXITED(status) && WEXITSTATUS(status) > 1)
		die("the agent ended with status 0x%x", (unsigned)status);
}

static int converse(pid_t pid, int fd, struct appliance **a, struct err *err)
{
	struct other_end *o = malloc(sizeof(*o));
	const struct appliance_end end = {.finish = end_finish, .kill = end_kill, .arg = o};

	if (!o || pid < 0)
		die("fork");
	*o = (struct other_end){pid, fd};
	return appliance_attach(fd, fd, &end, a, err);
}

static void make_pair(int fds[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		die("socketpair");
	fflush(NULL);
}

int try_attach_fork(int (*main_fn)(int fd, void *arg), void *arg, struct appliance **a,
		    struct err *err)
{
	int fds[2];
	pid_t pid;

	make_pair(fds);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		exit(main_fn(fds[1], arg));
	}
	close(fds[1]);
	return converse(pid, fds[0], a, err);
}

struct appliance *attach_fork(int (*main_fn)(int fd, void *arg), void *arg)
{
	struct appliance *a;
	struct err e = {0};

	must(try_attach_fork(main_fn, arg, &a, &e), &e);
	return a;
}

static _Noreturn void run_native(int fd, const char *const *disks, bool writable)
{
	const char *build = getenv("BUILD");
	char path[4096];
	int to = AGENT_FD_DISK;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(path, sizeof(path), "%s/agent-native", build ? build : ".");
	dup2(fd, AGENT_FD_IN);
	dup2(fd, AGENT_FD_OUT);
	for (; *disks; disks++, to++) {
		int disk = open(*disks, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);

		if (disk < 0 || dup2(disk, to) < 0)
			_exit(127);
		/* The same number: dup2 has left the flag as it is. */
		fcntl(to, F_SETFD, 0);
	}
	close_range((unsigned)to, ~0U, 0);
	execl(path, path, (char *)NULL);
	_exit(127);
}

struct appliance *attach_native(const char *const *disks, bool writable)
{
	struct appliance *a;
	struct err e = {0};
	int fds[2];
	pid_t pid;

	make_pair(fds);
	pid = fork();
	if (!pid)
		run_native(fds[1], disks, writable);
	close(fds[1]);
	must(converse(pid, fds[0], &a, &e), &e);
	return a;
}
