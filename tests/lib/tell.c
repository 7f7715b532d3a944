// SPDX-License-Identifier: GPL-2.0-or-later
/* See tell.h. */
#include "tell.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char where[512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void context(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lock);
	va_start(ap, fmt);
	vsnprintf(where, sizeof(where), fmt, ap);
	va_end(ap);
	pthread_mutex_unlock(&lock);
}

void die(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lock); /* for good: one thread tells, the others wait for the end */
	fflush(stdout);
	fprintf(stderr, "FAILED: %s\n  ", where);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	fflush(stderr);
	/* A stack and the leaks of a test that stops in the middle say nothing. */
	_exit(1);
}

uint64_t env_u64(const char *name, uint64_t def)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : def;
}

double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void seeds_init(struct seeds *s, uint64_t first, uint64_t n)
{
	uint64_t soak = env_u64("SOAK_SECONDS", 0);

	*s = (struct seeds){.seed = first, .left = n};
	if (getenv("SEED")) {
		s->seed = env_u64("SEED", 0);
		s->left = env_u64("ROUNDS", 1);
	} else if (soak) {
		s->soak = true;
		s->until = seconds() + (double)soak;
		s->seed = ((uint64_t)time(NULL) << 20) + ((uint64_t)getpid() << 40);
	}
	s->seed--;
}

bool seeds_next(struct seeds *s)
{
	s->seed++;
	if (s->soak)
		return seconds() < s->until;
	return s->left && s->left--;
}
