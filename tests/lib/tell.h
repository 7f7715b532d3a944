/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For random tests and sweeps: a failure ends the program with a line that says how to get it again.
 * Also what decides how long such a program runs.
 */
#ifndef IMGKIT_TESTS_TELL_H
#define IMGKIT_TESTS_TELL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* What is being tested, printed in front of a failure. Thread-safe against die only. */
void context(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints context and text, exits with 1. From any thread. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A call that must succeed. */
#define must(call, e)                                               \
	do {                                                        \
		int must_ = (call);                                 \
		if (must_ < 0)                                      \
			die("%s: %s (%d)", #call, (e)->msg, must_); \
	} while (0)

#define expect(cond)                                                           \
	do {                                                                   \
		if (!(cond))                                                   \
			die("%s:%d: not true: %s", __FILE__, __LINE__, #cond); \
	} while (0)

/* The number in an environment variable. */
uint64_t env_u64(const char *name, uint64_t def);

/*
 * Seeds to run: SEED=n exactly that one; SOAK_SECONDS=n new ones for so long; else first … first+n-1.
 * `while (seeds_next(&s)) run(s.seed);`
 */
struct seeds {
	uint64_t seed;
	uint64_t left;
	double until;
	bool soak;
};
void seeds_init(struct seeds *s, uint64_t first, uint64_t n);
bool seeds_next(struct seeds *s);

/* Seconds of a clock that only goes forward. */
double seconds(void);

/* Sanitizers cost a lot of time: how much less a test should do. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#endif
