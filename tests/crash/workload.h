/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The recorded half of the crash sweep: random operations on a qcow2 image, with a log of every
 * change of the file, and what each operation means for what may be read after a power cut.
 *
 * The disk is looked at in sectors of 512 bytes. Each write gives each sector a value that exists
 * nowhere else, 64 times in a row, so foreign data is told from old data. A value is 0 (zeros), or
 * (number << 32 | sector); twins, which are all equal, have the sector in their cluster instead.
 */
#ifndef IMGKIT_TESTS_WORKLOAD_H
#define IMGKIT_TESTS_WORKLOAD_H

#include "cells.h"
#include "disk.h"
#include "rng.h"

#define SHOTS 4 /* snapshots at one time */

struct shot {
	char name[16];
	uint64_t size;   /* bytes */
	uint64_t *value; /* of each of n_sectors */
};

struct shots {
	const struct shot *v[SHOTS];
	unsigned n;
};

/* Marks in the log: operation * 2 + (0 issued, 1 returned). */
struct op {
	const char *name;
	uint64_t first, n; /* sectors that it changes */
	uint64_t *value;   /* owned: what they may become from its beginning on */
	uint64_t *after;   /* owned: what they are when it returned */
	uint64_t size;     /* of the disk when it returned */
	struct shots shots;
	bool durable;  /* when it returns, everything is */
	bool snapshot; /* an operation on snapshots */
	bool flags;    /* changes COPIED flags and refcounts all over, as those do */
	bool rare;     /* that, or a resize */
};

/* From operation `from` on: what the disk held when the bitmap was made or cleared. */
struct shade {
	char name[16];
	unsigned from;
	uint64_t *base; /* owned; of each of n_sectors. CELL_UNKNOWN: nobody's business */
};

struct workload {
	/* From the seed. */
	uint64_t seed;
	unsigned version, cluster_bits, refcount_bits;
	bool lazy, coded, near_growth, extended;
	bool autoclear;              /* the header has a bit that the first change must clear */
	uint64_t size, backing_size; /* bytes; backing_size 0: none */
	char backing_name[512];      /* as it stands in the header; "": none */
	unsigned n_ops;
	char text[256];
	/* The beginning. */
	uint64_t n_sectors; /* that the disk ever has */
	uint64_t *initial;  /* value of each, with an empty layer: of the backing */
	uint64_t *backing;  /* value of each */
	struct crash_log log;
	struct io *backing_file; /* owned, NULL: none */
	/* What happened. */
	struct op *ops;
	struct shot **shot; /* owned: all that ever were */
	size_t n_shot;
	struct shade *shade; /* owned: of all bitmaps that ever were, in order of `from` */
	size_t n_shade;
	bool *hot;             /* sectors with a value of their own at some time */
	uint64_t *hot_sectors; /* the same as a list */
	size_t n_hot;
	unsigned n_amended; /* changes of options that were not refused */
};

/* Chooses, makes the image, runs, closes. */
void workload_run(struct workload *w, uint64_t seed);
void workload_free(struct workload *w);

/* Opens the image in a file with its backing. */
struct img *workload_open(const struct workload *w, struct io *file, unsigned flags);

#endif
