/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A limit on bytes per second, for all connections together. */
#ifndef IMGKIT_NBD_LIMIT_H
#define IMGKIT_NBD_LIMIT_H

#include <stdatomic.h>
#include <stdint.h>

/* Zero-initialise; rate 0: no limit. Thread-safe. */
struct limit {
	uint64_t rate;            /* bytes per second */
	_Atomic uint64_t free_at; /* ns: when all that was taken will have been earned */
};

/*
 * Takes bytes (up to 2^33), which is always granted; the result is for how many ns nothing more should
 * be taken. now: ns of a monotonic clock.
 */
uint64_t limit_take(struct limit *l, uint64_t bytes, uint64_t now);

#endif
