/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compaction of a qcow2 file in place; compact.c has the overview. Everything here runs under the
 * exclusive gate, on an image that a check found free of leaks and errors.
 *
 * The tail of the file is worked through in windows, from the end towards the beginning. What a
 * cluster of the window holds is found by a walk over all tables; it is moved only when that walk
 * found as many references as its refcount says, so that all of them can be switched.
 */
#ifndef IMGKIT_QCOW2_COMPACT_H
#define IMGKIT_QCOW2_COMPACT_H

#include "formats/qcow2/qcow2.h"

enum cluster_kind {
	KIND_OTHER, /* free, or metadata that is found in other ways */
	KIND_DATA,
	KIND_CODED, /* compressed streams */
	KIND_TABLE, /* an L2 table */
	KIND_MIXED, /* several of these: never moved */
};

/* A cluster of the window. */
struct slot {
	uint64_t refs; /* that were found */
	uint64_t to;   /* cluster that it moves to; 0: it stays */
	unsigned char kind;
	bool filled; /* of data: an entry says that its content matters, not only its space */
	bool copied;
};

/* A compressed stream, named by its L2 entry. */
struct stream {
	uint64_t entry;
	uint64_t refs;
	uint64_t to; /* byte of the file that it moves to; 0: it stays */
};

struct compact {
	struct qcow2 *q;
	struct job *job;
	struct compact_result *res;
	uint64_t used;      /* clusters in use: where the file could end */
	uint64_t base, end; /* the window: clusters [base, end) */
	struct slot *slot;  /* owned, `room` of them */
	uint64_t room;
	struct stream *stream; /* owned, sorted by entry once collected */
	size_t n_stream, cap_stream;
	int stopped; /* -ECANCELED, -ENOSPC: finish what is begun, then end with it */
};

/* ---- compact.c ---- */
/* Whether no more moves may be begun; notes that the job was cancelled. */
bool compact_stopping(struct compact *c);
/* Adds n to a refcount in memory, or, negative, takes it off. On failure nothing has changed. */
int compact_count(struct qcow2 *q, uint64_t cluster, uint64_t n, bool raise, struct err *err);

/* ---- compact_data.c: clusters of data and L2 tables ---- */
/* Fills the window's slots. */
int compact_classify(struct compact *c, struct err *err);
int compact_move_data(struct compact *c, struct err *err);
int compact_move_tables(struct compact *c, struct err *err);

/* ---- compact_coded.c: compressed streams ---- */
int compact_move_streams(struct compact *c, struct err *err);

/* ---- compact_meta.c: refcount blocks, and tables that the header or a snapshot names ---- */
int compact_move_blocks(struct compact *c, struct err *err);
/* Refcount blocks of stretches in which nothing is in use any more. */
int compact_drop_blocks(struct compact *c, struct err *err);
int compact_move_regions(struct compact *c, struct err *err);

/* Neighbouring clusters that one pointer names. */
struct region {
	uint64_t host, len; /* bytes */
};
/* Whether it has to go for the file to be as short as it can be. */
bool compact_too_far(const struct compact *c, const struct region *r);
/*
 * Copies a region to a place in front of it. 1: it is at *to, not durable yet, with a refcount of 1;
 * 0: there is no place. Unless it returns 1, *to stays as it is.
 */
int compact_copy_region(struct compact *c, const struct region *old, uint64_t *to, struct err *err);
/* Lowers the refcounts of a region that nothing on the disk refers to. */
int compact_drop_region(struct compact *c, const struct region *old, struct err *err);

/* ---- compact_bitmaps.c: clusters of bits, tables and directory of bitmaps ---- */
int compact_move_bitmaps(struct compact *c, struct err *err);

#endif
