/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The judging half of the crash sweep: what the disk may hold after a power cut, and whether the
 * bytes of a file keep to it.
 */
#ifndef IMGKIT_TESTS_JUDGE_H
#define IMGKIT_TESTS_JUDGE_H

#include "cells.h"
#include "oracle.h"
#include "workload.h"

/* What may be true at a moment of the log. */
struct truth {
	const struct workload *w;
	struct cells cells;               /* of each sector */
	uint64_t size_before, size_after; /* bytes */
	struct shots shots_before, shots_after;
	const struct op *running; /* issued, not returned */
	unsigned last;            /* number of the last one that was issued */
};

void truth_begin(struct truth *t, const struct workload *w);
void truth_free(struct truth *t);
/* A mark of the log. */
void truth_mark(struct truth *t, uint64_t mark);

struct judge {
	const struct workload *w;
	struct oracle oracle;
	struct oracle base; /* of the file at the beginning, for what is compressed there */
	uint64_t states, dirty, leaking, missing_copied;
	uint64_t bitmaps; /* that were not in use, and judged */
	bool mending;     /* a repair runs: COPIED may be missing, which is safe */
	bool changed;     /* a sector is not what it was at the beginning */
	char text[400];   /* what is wrong */
};

void judge_begin(struct judge *j, const struct workload *w);
void judge_free(struct judge *j);

/* False: this state must not be; text says why. thorough: untouched sectors as well. */
bool judge_state(struct judge *j, const struct truth *t, const unsigned char *p, uint64_t len,
		 bool thorough);

/* The image was settled: no bitmap is in use. */
bool judge_settled(struct judge *j, const unsigned char *p, uint64_t len);

/* The same state through the driver: our check, opening it both ways, repair, writing on. */
bool judge_driver(struct judge *j, const struct truth *t, const unsigned char *p, uint64_t len,
		  struct rng *rng);

/* And through qemu-img. */
bool judge_peer(struct judge *j, const struct truth *t, const unsigned char *p, uint64_t len);

#endif
