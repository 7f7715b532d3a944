// SPDX-License-Identifier: GPL-2.0-or-later
/* See replay.h. */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tell.h"

#define SECTOR      512
#define ALL_SUBSETS 10
#define RANDOM_CUTS 256
#define TEARS       3

/* The length before a change, and the bytes that it went over: `len` at saved + at. */
struct undo {
	uint64_t file_len, off, len;
	size_t at;
};

void replay_begin(struct replay *r, const struct crash_log *log)
{
	uint64_t cap = log->base_size;

	for (size_t i = 0; i < log->n; i++) {
		const struct crash_rec *rec = &log->rec[i];

		if (rec->kind == CRASH_WRITE || rec->kind == CRASH_ZERO)
			cap = max_u64(cap, rec->off + rec->len);
		if (rec->kind == CRASH_RESIZE)
			cap = max_u64(cap, rec->off);
	}
	*r = (struct replay){.p = calloc(1, cap), .len = log->base_size, .cap = cap};
	expect(r->p);
	memcpy(r->p, log->base, log->base_size);
}

void replay_free(struct replay *r)
{
	free(r->p);
	free(r->undo);
	free(r->saved);
}

static void save(struct replay *r, uint64_t off, uint64_t len)
{
	if (r->n_undo == r->cap_undo) {
		r->cap_undo = r->cap_undo * 2 + 64;
		r->undo = realloc(r->undo, r->cap_undo * sizeof(*r->undo));
		expect(r->undo);
	}
	if (r->n_saved + len > r->cap_saved) {
		r->cap_saved = (r->cap_saved + len) * 2;
		r->saved = realloc(r->saved, r->cap_saved);
		expect(r->saved);
	}
	if (len)
		memcpy(r->saved + r->n_saved, r->p + off, len);
	r->undo[r->n_undo++] = (struct undo){r->len, off, len, r->n_saved};
	r->n_saved += len;
}

void replay_apply(struct replay *r, const struct crash_rec *rec, const bool *sectors)
{
	switch (rec->kind) {
	case CRASH_WRITE:
		save(r, rec->off, rec->len);
		for (uint64_t at = 0, n; at < rec->len; at += n) {
			n = min_u64(rec->len - at, SECTOR - (rec->off + at) % SECTOR);
			if (!sectors || sectors[(rec->off + at) / SECTOR - rec->off / SECTOR]) {
				memcpy(r->p + rec->off + at, rec->data + at, n);
				r->len = max_u64(r->len, rec->off + at + n);
			}
		}
		break;
	case CRASH_ZERO:
		save(r, rec->off, rec->len);
		memset(r->p + rec->off, 0, rec->len);
		r->len = max_u64(r->len, rec->off + rec->len);
		break;
	case CRASH_RESIZE:
		save(r, min_u64(rec->off, r->len), rec->off < r->len ? r->len - rec->off : 0);
		if (rec->off < r->len)
			memset(r->p + rec->off, 0, r->len - rec->off);
		r->len = rec->off;
		break;
	default:
		break;
	}
}

void replay_undo(struct replay *r)
{
	while (r->n_undo) {
		const struct undo *u = &r->undo[--r->n_undo];

		memcpy(r->p + u->off, r->saved + u->at, u->len);
		r->len = u->file_len;
	}
	r->n_saved = 0;
}

void replay_keep(struct replay *r)
{
	r->n_undo = r->n_saved = 0;
}

void replay_cut(struct replay *r, const struct cut *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		if ((int)i == c->torn)
			replay_apply(r, c->rec[i], c->sectors);
		else if (c->take[i])
			replay_apply(r, c->rec[i], NULL);
	}
}

/* ---- choosing ---- */

static void take_all(struct cut *c, bool take)
{
	memset(c->take, take, c->n * sizeof(*c->take));
}

static void take_random(struct cut *c, struct rng *rng)
{
	/* Not only halves: nearly all and nearly none as well. */
	unsigned percent = (unsigned)rng_below(rng, 101);

	for (unsigned i = 0; i < c->n; i++)
		c->take[i] = rng_percent(rng, percent);
}

static bool visit_subsets(struct cut *c, cut_fn *visit, void *ctx)
{
	for (unsigned mask = 0; mask < 1u << c->n; mask++) {
		for (unsigned i = 0; i < c->n; i++)
			c->take[i] = mask >> i & 1;
		if (!visit(ctx, c))
			return false;
	}
	return true;
}

static bool visit_some(struct cut *c, struct rng *rng, cut_fn *visit, void *ctx)
{
	for (unsigned i = 0; i <= c->n; i++) { /* prefixes */
		take_all(c, false);
		memset(c->take, true, i * sizeof(*c->take));
		if (!visit(ctx, c))
			return false;
	}
	for (unsigned i = 0; i < c->n; i++) {
		take_all(c, true);
		c->take[i] = false;
		if (!visit(ctx, c))
			return false;
		take_all(c, false);
		c->take[i] = true;
		if (!visit(ctx, c))
			return false;
	}
	for (unsigned i = 0; i < RANDOM_CUTS; i++) {
		take_random(c, rng);
		if (!visit(ctx, c))
			return false;
	}
	return true;
}

static bool visit_torn(struct cut *c, struct rng *rng, cut_fn *visit, void *ctx)
{
	for (unsigned i = 0; i < c->n; i++) {
		uint64_t sectors = c->rec[i]->len / SECTOR + 2;

		if (c->rec[i]->kind != CRASH_WRITE || c->rec[i]->len <= SECTOR ||
		    sectors > ARRAY_LEN(c->sectors))
			continue;
		c->torn = (int)i;
		for (unsigned k = 0; k < TEARS; k++) {
			if (k == 0)
				take_all(c, true);
			else
				take_random(c, rng);
			for (uint64_t s = 0; s < sectors; s++)
				c->sectors[s] = rng_percent(rng, 50);
			if (!visit(ctx, c))
				return false;
		}
	}
	c->torn = -1;
	return true;
}

bool cuts_visit(struct cut *c, struct rng *rng, cut_fn *visit, void *ctx)
{
	c->torn = -1;
	if (!(c->n <= ALL_SUBSETS ? visit_subsets(c, visit, ctx) : visit_some(c, rng, visit, ctx)))
		return false;
	return visit_torn(c, rng, visit, ctx);
}
