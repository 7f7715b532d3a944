// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * measure [-1] PROGRAM ARGUMENTS...: runs a program and prints on descriptor 3 what it cost:
 * "WAIT-STATUS WALL CPU PEAK", in seconds and KiB. With -1 its output is taken, and WALL is the time
 * until the first byte of it.
 *
 * It is a small program because a process that is started inherits the peak memory of the one that
 * starts it: started from an interpreter, every program seems to need what that one needs.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Starts the program; *out: where its output can be read, or -1. */
static int start_program(char **argv, int first, int *out, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int ends[2] = {-1, -1};
	int r;

	if (first && pipe(ends) < 0)
		return errno;
	*out = ends[0];
	posix_spawn_file_actions_init(&actions);
	if (first) {
		posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
		posix_spawn_file_actions_addclose(&actions, ends[0]);
		posix_spawn_file_actions_addclose(&actions, ends[1]);
	}
	r = posix_spawnp(pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (first)
		close(ends[1]);
	return r;
}

/* Reads it all. The time when the first byte came. */
static double drain(int out)
{
	static char buf[1 << 16];
	double first = 0;

	while (read(out, buf, sizeof(buf)) > 0)
		if (first == 0)
			first = now();
	close(out);
	return first;
}

int main(int argc, char **argv)
{
	int first = argc > 1 && !strcmp(argv[1], "-1");
	struct rusage used;
	double start, came = 0, wall;
	int r, status, out;
	pid_t pid;

	argv += 1 + first;
	if (!*argv) {
		fprintf(stderr, "usage: measure [-1] PROGRAM ARGUMENTS... 3>RESULT\n");
		return 2;
	}
	start = now();
	r = start_program(argv, first, &out, &pid);
	if (r) {
		fprintf(stderr, "measure: %s: %s\n", *argv, strerror(r));
		return 1;
	}
	if (first)
		came = drain(out);
	if (wait4(pid, &status, 0, &used) != pid)
		return 1;
	wall = (came > 0 ? came : now()) - start;
	return dprintf(3, "%d %.9f %.6f %ld\n", status, wall,
		       seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss) < 0;
}
