/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sharing of equal clusters in a qcow2 file; dedup.c has the overview. */
#ifndef IMGKIT_QCOW2_DEDUP_H
#define IMGKIT_QCOW2_DEDUP_H

#include "base/bits.h"
#include "formats/qcow2/qcow2.h"

#define DEDUP_KEY 16 /* bytes of a hash that are kept */

/* A cluster that goes, and the equal one that stays. */
struct dedup_pair {
	uint64_t gone, kept; /* cluster indices; gone 0: dropped */
	uint64_t refs;       /* to the one that goes, that were found */
};

struct dedup {
	struct qcow2 *q;
	struct job *job;
	const struct checksum_hash *hash;
	struct dedup_result *res;
	uint64_t clusters;       /* of the file */
	unsigned char *data;     /* owned bitmap: clusters that are data and nothing else */
	unsigned char *other;    /* owned bitmap: those that something else refers to */
	unsigned char *active;   /* owned bitmap: those that the disk itself refers to */
	unsigned char *batch;    /* owned bitmap: those that a pair speaks of */
	struct dedup_pair *pair; /* owned, DEDUP_PAIRS of them; sorted by gone while shared */
	size_t n_pair;
	bool within;
	bool changing; /* flags may be missing in the image: see dedup_end_change */
};
#define DEDUP_PAIRS 65536

static inline void dedup_set(unsigned char *map, uint64_t k, bool on)
{
	unsigned char bit = (unsigned char)(1U << (k % 8));

	map[k / 8] = (unsigned char)(on ? map[k / 8] | bit : map[k / 8] & ~bit);
}

/* ---- dedup_share.c ---- */
/* Makes the pairs one cluster each, durably, and forgets them. -EIO and such of reading: nothing. */
int dedup_share(struct dedup *d, struct err *err);
/* Puts right the flags that sharing took off. */
int dedup_end_change(struct dedup *d, struct err *err);

#endif
