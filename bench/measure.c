// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * measure PROGRAM ARGUMENTS...: runs a program and prints on descriptor 3 what it cost:
 * "WAIT-STATUS WALL CPU PEAK", in seconds and KiB.
 *
 * It is a small program because a process that is started inherits the peak memory of the one that
 * starts it: started from an interpreter, every program seems to need what that one needs.
 */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

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

int main(int argc, char **argv)
{
	struct rusage used;
	double start, wall;
	int r, status;
	pid_t pid;

	if (argc < 2) {
		fprintf(stderr, "usage: measure PROGRAM ARGUMENTS... 3>RESULT\n");
		return 2;
	}
	start = now();
	r = posix_spawnp(&pid, argv[1], NULL, NULL, argv + 1, environ);
	if (r) {
		fprintf(stderr, "measure: %s: %s\n", argv[1], strerror(r));
		return 1;
	}
	if (wait4(pid, &status, 0, &used) != pid)
		return 1;
	wall = now() - start;
	return dprintf(3, "%d %.9f %.6f %ld\n", status, wall,
		       seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss) < 0;
}
