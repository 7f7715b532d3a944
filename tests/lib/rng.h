/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random numbers that one seed decides (splitmix64); a generator belongs to one thread. */
#ifndef IMGKIT_TESTS_RNG_H
#define IMGKIT_TESTS_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline uint64_t rng_next(struct rng *r)
{
	return rng_mix(r->state += UINT64_C(0x9e3779b97f4a7c15));
}

/* 0 … n-1; n > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

/* lo … hi, both included. */
static inline uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi)
{
	return lo + rng_below(r, hi - lo + 1);
}

static inline bool rng_percent(struct rng *r, unsigned percent)
{
	return rng_below(r, 100) < percent;
}

/* Bytes that do not compress well and differ from call to call. */
static inline void rng_fill(struct rng *r, void *buf, size_t len)
{
	unsigned char *p = buf;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v = rng_next(r);

		memcpy(p, &v, 8);
	}
	while (len--)
		*p++ = (unsigned char)rng_next(r);
}

#endif
