/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refmap: a counter per cluster, for a window of clusters, in as little memory as the counts need.
 *
 * Counters live in pages that appear when something in them is first counted. A page has 2 bits
 * per cluster and grows to 16 and 64 bits when one of its counters needs it. Counters saturate at
 * `max`; what did not fit is added up in `excess`. Pages together stay within `budget` bytes; a map
 * that would need more fails with -E2BIG, and the caller tries again with a smaller window.
 *
 * refmap_add may be called from several threads at once; everything else may not run beside it.
 */
#ifndef IMGKIT_QCOW2_CHECK_MAP_H
#define IMGKIT_QCOW2_CHECK_MAP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define REFMAP_PAGE_BITS 14 /* clusters per page */
#define REFMAP_LOCKS     16

struct refpage;

#define REFMAP_OVERS 32 /* clusters that are remembered when their counters overflow */

struct refmap {
	uint64_t first, n; /* the window: clusters [first, first + n) */
	uint64_t max;      /* largest value of a counter */
	uint64_t budget;   /* bytes */
	_Atomic uint64_t used;
	uint64_t excess;             /* sum of what did not fit */
	uint64_t over[REFMAP_OVERS]; /* the first clusters of which something did not */
	unsigned n_over;
	struct refpage **page;              /* owned, one per 1 << REFMAP_PAGE_BITS clusters */
	pthread_mutex_t lock[REFMAP_LOCKS]; /* pages, striped */
	pthread_mutex_t over_lock;          /* excess, over; after a stripe */
};

/* All counters are 0. 0, -ENOMEM, -E2BIG (the page table alone is over the budget). */
int refmap_init(struct refmap *m, uint64_t first, uint64_t n, uint64_t max, uint64_t budget);
/* Fine on a zeroed map and twice. */
void refmap_free(struct refmap *m);

/* Adds `times` to the clusters [k, k+n); those outside the window are ignored. -ENOMEM, -E2BIG. */
int refmap_add(struct refmap *m, uint64_t k, uint64_t n, uint64_t times);

/* Counters of clusters inside the window; set saturates. */
uint64_t refmap_get(const struct refmap *m, uint64_t k);
int refmap_set(struct refmap *m, uint64_t k, uint64_t v);

static inline bool refmap_has(const struct refmap *m, uint64_t k)
{
	return k - m->first < m->n;
}

/* Whether all (one) or none of the counters of [k, k+n), which lies in the window, is exactly 1. */
bool refmap_ones(const struct refmap *m, uint64_t k, uint64_t n, bool one);

/* 32 counters from k on (a multiple of 32) as 2-bit fields, values above 3 as 3. */
uint64_t refmap_word(const struct refmap *m, uint64_t k);
/* Sets 32 counters of up to 3 each; several threads may do it for different words. */
int refmap_set_word(struct refmap *m, uint64_t k, uint64_t word);
/* Whether nothing was ever counted in the page that holds k. */
bool refmap_page_empty(const struct refmap *m, uint64_t k);

#endif
