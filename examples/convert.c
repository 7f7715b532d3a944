// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Converts an image, shows how far it is, and can be interrupted without leaving anything behind:
 *
 *     convert SOURCE TARGET FORMAT
 *
 *     cc convert.c $(pkg-config --cflags --libs imgkit) -pthread -o convert
 */
#include <imgkit.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

static struct imgkit_job *job;
static atomic_bool finished;

/* imgkit_job_cancel may be called in a signal handler. */
static void interrupt(int sig)
{
	(void)sig;
	imgkit_job_cancel(job);
}

static void *watch(void *unused)
{
	const struct timespec tenth = {.tv_nsec = 100000000};
	uint64_t done, total;

	(void)unused;
	while (!finished) {
		imgkit_job_progress(job, &done, &total);
		if (total)
			fprintf(stderr, "\r%3u %%", (unsigned)((double)done / (double)total * 100));
		nanosleep(&tenth, NULL);
	}
	fputc('\n', stderr);
	return NULL;
}

int main(int argc, char **argv)
{
	struct imgkit_err err = {0};
	pthread_t watcher;
	int r;

	if (argc != 4) {
		fprintf(stderr, "usage: convert SOURCE TARGET FORMAT\n");
		return 2;
	}
	job = imgkit_job_new();
	if (!job || pthread_create(&watcher, NULL, watch, NULL)) {
		fprintf(stderr, "convert: out of memory\n");
		return 1;
	}
	signal(SIGINT, interrupt);
	signal(SIGTERM, interrupt);
	r = imgkit_convert(argv[1], argv[2], argv[3], NULL, job, &err);
	finished = true;
	pthread_join(watcher, NULL);
	imgkit_job_free(job);
	if (r)
		fprintf(stderr, "convert: %s\n", err.msg);
	return r ? 1 : 0;
}
