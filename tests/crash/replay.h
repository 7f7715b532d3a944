/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files as a power cut may leave them: everything up to a flush that completed, and of what came
 * later any subset, a write of several sectors even in parts.
 */
#ifndef IMGKIT_TESTS_REPLAY_H
#define IMGKIT_TESTS_REPLAY_H

#include "io/doubles.h"
#include "rng.h"

/* A file in memory whose changes can be taken back. */
struct replay {
	unsigned char *p; /* owned; zeros from len to cap */
	uint64_t len, cap;
	struct undo *undo; /* owned */
	size_t n_undo, cap_undo;
	unsigned char *saved; /* owned */
	size_t n_saved, cap_saved;
};

void replay_begin(struct replay *r, const struct crash_log *log);
void replay_free(struct replay *r);
/* A change; sectors: NULL, or those of a torn write by their number. */
void replay_apply(struct replay *r, const struct crash_rec *rec, const bool *sectors);
/* Takes back all changes since the last replay_keep. */
void replay_undo(struct replay *r);
void replay_keep(struct replay *r);

/* Which changes of an epoch are there: take[i] for the i-th; torn: one that is there in part. */
#define EPOCH_MAX 512
struct cut {
	const struct crash_rec *rec[EPOCH_MAX];
	unsigned n;
	bool take[EPOCH_MAX];
	int torn; /* -1: none */
	bool sectors[4096];
};

void replay_cut(struct replay *r, const struct cut *c);

/*
 * Calls visit for the cuts of an epoch: all subsets of up to 10 changes, else every prefix, all but
 * one, only one, and random ones; and torn writes. Stops when visit says false, and returns that.
 */
typedef bool cut_fn(void *ctx, const struct cut *c);
bool cuts_visit(struct cut *c, struct rng *rng, cut_fn *visit, void *ctx);

#endif
