// SPDX-License-Identifier: GPL-2.0-or-later
/* See inside.h. */
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/agent/agent.h"
#include "tell.h"

static const struct fs_driver *const drivers[] = {&ext_driver, NULL};

static struct {
	struct agent agent; /* large */
	bool started;       /* the thread, which serves one agent after the other */
	sem_t begin, ended;
	int mine, its;
	bool writable;
	int result;
	struct err err;
} inside;

void inside_disk(int fd)
{
	if (fd == AGENT_FD_DISK)
		return;
	if (dup2(fd, AGENT_FD_DISK) < 0)
		die("dup2: %s", strerror(errno));
	close(fd);
}

int serve_inside(int fd, bool writable, struct err *err)
{
	struct agent *a = &inside.agent;
	struct disks *d = &a->disks;
	struct stat st;
	int r;

	a->drivers = drivers;
	memset(&a->tree, 0, sizeof(a->tree));
	r = disks_init(d, err);
	if (r < 0 || fstat(AGENT_FD_DISK, &st) < 0)
		die("no disk");
	/* What else this process has open is no disk. */
	d->n = 1;
	d->disk[0].rdonly = !writable;
	r = agent_serve(a, fd, fd, err);
	disks_free(d);
	return r;
}

static void *run(void *arg)
{
	(void)arg;
	for (;;) {
		while (sem_wait(&inside.begin) < 0)
			;
		inside.result = serve_inside(inside.its, inside.writable, &inside.err);
		shutdown(inside.its, SHUT_RDWR);
		sem_post(&inside.ended);
	}
	return NULL;
}

static void begin(void)
{
	pthread_t thread;

	if (!inside.started) {
		sem_init(&inside.begin, 0, 0);
		sem_init(&inside.ended, 0, 0);
		if (pthread_create(&thread, NULL, run, NULL) != 0)
			die("no thread");
		pthread_detach(thread);
		inside.started = true;
	}
	sem_post(&inside.begin);
}

static void join(void)
{
	shutdown(inside.mine, SHUT_RDWR);
	while (sem_wait(&inside.ended) < 0)
		;
	close(inside.mine);
	close(inside.its);
}

static int end_finish(void *arg, struct err *err)
{
	(void)arg;
	/* It is told nothing more, but what it says is still heard. */
	shutdown(inside.mine, SHUT_WR);
	join();
	if (inside.result < 0)
		*err = inside.err;
	return inside.result;
}

static void end_kill(void *arg)
{
	(void)arg;
	join();
}

struct appliance *attach_inside(bool writable)
{
	const struct appliance_end end = {
		.finish = end_finish, .kill = end_kill, .isolation = "none", .fallback = ""};
	struct appliance *a;
	struct err err = {0};
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		die("socketpair: %s", strerror(errno));
	inside.mine = fds[0];
	inside.its = fds[1];
	inside.writable = writable;
	inside.err = (struct err){0};
	begin();
	must(appliance_attach(inside.mine, inside.mine, &end, &a, &err), &err);
	return a;
}
