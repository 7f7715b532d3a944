// SPDX-License-Identifier: GPL-2.0-or-later
/* Judging the bytes of a file after a power cut; see judge.h. */
#include "judge.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tell.h"

#define SECTOR 512

static bool wrong(struct judge *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool wrong(struct judge *j, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->text, sizeof(j->text), fmt, ap);
	va_end(ap);
	return false;
}

void judge_begin(struct judge *j, const struct workload *w)
{
	*j = (struct judge){.w = w};
	expect(oracle_judge(&j->base, w->log.base, w->log.base_size));
	expect(!j->base.errors && !j->base.leaks);
}

void judge_free(struct judge *j)
{
	oracle_free(&j->oracle);
	oracle_free(&j->base);
}

/* ---- metadata ---- */

static bool judge_metadata(struct judge *j, const struct truth *t)
{
	const struct oracle *o = &j->oracle;

	if (o->corrupt_bit)
		return wrong(j, "marked corrupt");
	j->dirty += o->dirty;
	j->leaking += o->leaks != 0;
	if (o->dirty) /* refcounts and flags are rebuilt by who opens it; pointers cannot be */
		return o->bad_pointers ? wrong(j, "dirty, and: %s", o->pointer_text) : true;
	if (o->errors || o->copied_wrong)
		return wrong(j, "%u errors, %u wrong COPIED flags: %s", o->errors, o->copied_wrong,
			     o->text);
	if (!o->copied_missing)
		return true;
	/* Version 2 has no dirty bit to announce a change of all flags. It is safe: the next write
	 * copies what it need not. */
	j->missing_copied++;
	if (j->mending ||
	    (o->version == 2 && t->running && (t->running->snapshot || t->running->flags)))
		return true;
	return wrong(j, "COPIED is missing %u times: %s", o->copied_missing, o->text);
}

static uint64_t number(const unsigned char *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *p++;
	return v;
}

/* What follows the fixed fields: the list of extensions up to its end, and the backing's name. */
static bool judge_header(struct judge *j)
{
	const struct oracle *o = &j->oracle;
	const char *want = j->w->backing_name;
	uint64_t name = number(o->p + 8, 8), len = number(o->p + 16, 4);
	uint64_t at = o->version < 3 ? 72 : number(o->p + 100, 4), end = name ? name : o->cluster;
	unsigned stored = 0;
	uint32_t type;

	if (!*want != !name || (name && (len != strlen(want) || name + len > o->cluster ||
					 memcmp(o->p + name, want, len) != 0)))
		return wrong(j, "the name of the backing file at %" PRIu64, name);
	for (;; at += 8 + (number(o->p + at + 4, 4) + 7) / 8 * 8) {
		type = at + 8 <= end ? (uint32_t)number(o->p + at, 4) : 1;
		if (type != 0xe2792aca && type != 0x6803f857 && type != 0x23852875)
			break;
		stored += type == 0xe2792aca && !memcmp(o->p + at + 4, "\0\0\0\3raw", 7);
	}
	if (type || stored != (*want != 0))
		return wrong(j, "header extension %" PRIx32 " at %" PRIu64, type, at);
	return true;
}

/* ---- data ---- */

struct tree {
	uint64_t l1, size;
	uint32_t l1_size;
};

/* A compressed cluster is never written, so its stream must be the one of the beginning. */
static uint64_t coded_value(const struct judge *j, uint64_t sector, uint64_t entry)
{
	const struct oracle *b = &j->base, *o = &j->oracle;
	struct place was = oracle_place(b, b->l1, b->l1_size, sector * SECTOR);
	unsigned shift = 62 - (b->cluster_bits - 8);
	uint64_t mask = (UINT64_C(1) << shift) - 1, host = entry & mask, old = was.host & mask, len;

	if (was.kind != PLACE_CODED || (was.host & ~mask) != (entry & ~mask) ||
	    host % 512 != old % 512)
		return CELL_UNKNOWN;
	len = ((entry & ((UINT64_C(1) << 62) - 1)) >> shift) * 512 + 512 - host % 512;
	len = min_u64(len, b->len - old);
	if (host + len > o->len || memcmp(o->p + host, b->p + old, len))
		return CELL_UNKNOWN;
	return j->w->initial[sector];
}

/* What the sector at `where` of the file holds. Bytes that the file has not read as zeros. */
static uint64_t data_value(const struct oracle *o, uint64_t where, bool thorough)
{
	unsigned char sector[SECTOR] = {0};
	uint64_t v[3];

	if (where + SECTOR > o->len) {
		if (where < o->len)
			memcpy(sector, o->p + where, o->len - where);
		return sector_value(sector);
	}
	if (thorough)
		return sector_value(o->p + where);
	/* Sectors do not tear: a few words tell. */
	for (unsigned i = 0; i < 3; i++)
		memcpy(&v[i], o->p + where + i * (SECTOR / 2 - 4) / 8 * 8, 8);
	return v[0] == v[1] && v[0] == v[2] ? v[0] : CELL_UNKNOWN;
}

/* A cursor over a tree: neighbours at one place share a look-up. */
struct reader {
	const struct judge *j;
	const struct tree *tree;
	bool thorough;
	uint64_t grain; /* of `place` */
	struct place place;
};

static struct reader reader_of(const struct judge *j, const struct tree *tree, bool thorough)
{
	return (struct reader){.j = j, .tree = tree, .thorough = thorough, .grain = UINT64_MAX};
}

static uint64_t read_sector(struct reader *r, uint64_t s)
{
	const struct oracle *o = &r->j->oracle;
	uint64_t grain = s * SECTOR / o->grain;

	if (grain != r->grain) {
		r->grain = grain;
		r->place = oracle_place(o, r->tree->l1, r->tree->l1_size, grain * o->grain);
	}
	switch (r->place.kind) {
	case PLACE_DATA:
		return data_value(o, r->place.host + s * SECTOR % o->grain, r->thorough);
	case PLACE_CODED:
		return coded_value(r->j, s, r->place.host);
	case PLACE_NONE:
		return r->j->w->backing[s];
	default:
		return 0;
	}
}

/*
 * Calls fn for the sectors below `end` whose value matters: those that ever had one, or all. Stops
 * when fn says false.
 */
typedef bool sector_fn(struct judge *j, const void *ctx, uint64_t s, uint64_t value);

static bool each_sector(struct judge *j, const struct tree *tree, bool thorough, sector_fn *fn,
			const void *ctx)
{
	struct reader r = reader_of(j, tree, thorough);
	size_t n = thorough ? tree->size / SECTOR : j->w->n_hot;

	for (size_t i = 0; i < n; i++) {
		uint64_t s = thorough ? i : j->w->hot_sectors[i];

		if (s * SECTOR >= tree->size)
			break;
		if (!fn(j, ctx, s, read_sector(&r, s)))
			return false;
	}
	return true;
}

static bool judge_sector(struct judge *j, const void *ctx, uint64_t s, uint64_t v)
{
	const struct truth *t = ctx;
	const struct cell *c = &t->cells.v[s];

	j->changed |= v != t->w->initial[s];
	return cells_may(&t->cells, s, v) || wrong(j,
						   "sector %" PRIu64 " is %" PRIx64
						   ", may be %" PRIx64 " … %" PRIx64 " (%u values)",
						   s, v, c->may[0], c->may[c->n - 1], c->n);
}

/* ---- snapshots ---- */

static bool judge_shot_sector(struct judge *j, const void *ctx, uint64_t s, uint64_t v)
{
	const struct shot *shot = ctx;

	return v == shot->value[s] ||
	       wrong(j, "snapshot %s: sector %" PRIu64 " is %" PRIx64 ", not %" PRIx64, shot->name,
		     s, v, shot->value[s]);
}

static bool judge_shot(struct judge *j, const struct shot *shot, const struct oracle_snapshot *s,
		       bool thorough)
{
	struct tree tree = {s->l1, s->disk_size, s->l1_size};

	if (s->disk_size != shot->size)
		return wrong(j, "snapshot %s: size %" PRIu64 ", not %" PRIu64, shot->name,
			     s->disk_size, shot->size);
	return each_sector(j, &tree, thorough, judge_shot_sector, shot);
}

/* Whether the file has exactly these snapshots. */
static bool same_shots(const struct oracle *o, const struct shots *list)
{
	struct oracle_snapshot s;

	if (o->n_snapshots != list->n)
		return false;
	for (unsigned i = 0; i < list->n; i++)
		if (!oracle_snapshot(o, i, &s) || strcmp(s.name, list->v[i]->name))
			return false;
	return true;
}

static bool judge_shots(struct judge *j, const struct truth *t, bool thorough)
{
	const struct oracle *o = &j->oracle;
	const struct shots *list = NULL;
	struct oracle_snapshot s;

	if (same_shots(o, &t->shots_before))
		list = &t->shots_before;
	else if (same_shots(o, &t->shots_after))
		list = &t->shots_after;
	else
		return wrong(j, "%u snapshots, neither those before nor those after",
			     o->n_snapshots);
	for (unsigned i = 0; i < list->n; i++)
		if (!oracle_snapshot(o, i, &s) || !judge_shot(j, list->v[i], &s, thorough))
			return false;
	return true;
}

/* ---- bitmaps ---- */

struct shading {
	struct oracle_bitmap b;
	const struct shade *shade;
};

static bool judge_bit(struct judge *j, const void *ctx, uint64_t s, uint64_t v)
{
	const struct shading *x = ctx;
	uint64_t base = x->shade->base[s];

	return v == base || base == CELL_UNKNOWN || oracle_bit(&j->oracle, &x->b, s * SECTOR) ||
	       wrong(j, "bitmap %s misses sector %" PRIu64 ", which is %" PRIx64 ", was %" PRIx64,
		     x->b.name, s, v, base);
}

/* A bitmap that is not in use has the bit of every sector that is not what it was. */
static bool judge_bitmaps(struct judge *j, const struct truth *t, bool thorough)
{
	const struct oracle *o = &j->oracle;
	struct tree active = {o->l1, o->size, o->l1_size};
	struct shading x = {.shade = NULL};

	for (uint32_t i = 0; i < o->n_bitmaps; i++) {
		if (!oracle_bitmap(o, i, &x.b))
			return wrong(j, "bitmap %" PRIu32 " cannot be read", i);
		for (size_t k = 0; k < j->w->n_shade; k++)
			if (j->w->shade[k].from <= t->last &&
			    !strcmp(j->w->shade[k].name, x.b.name))
				x.shade = &j->w->shade[k];
		if (!x.shade)
			return wrong(j, "bitmap %s is not one that was made", x.b.name);
		if (x.b.flags != 2)
			continue;
		j->bitmaps++;
		if (!each_sector(j, &active, thorough, judge_bit, &x))
			return false;
	}
	return true;
}

bool judge_settled(struct judge *j, const unsigned char *p, uint64_t len)
{
	struct oracle_bitmap b = {0};

	if (!oracle_judge(&j->oracle, p, len))
		return wrong(j, "%s", j->oracle.text);
	for (uint32_t i = 0; i < j->oracle.n_bitmaps; i++)
		if (!oracle_bitmap(&j->oracle, i, &b) || b.flags & 1)
			return wrong(j, "settled, and bitmap %s is in use", b.name);
	return true;
}

bool judge_state(struct judge *j, const struct truth *t, const unsigned char *p, uint64_t len,
		 bool thorough)
{
	const struct oracle *o = &j->oracle;
	struct tree active;

	j->states++;
	if (!oracle_judge(&j->oracle, p, len))
		return wrong(j, "%s", o->text);
	if (!judge_header(j) || !judge_metadata(j, t))
		return false;
	if (o->size != t->size_before && o->size != t->size_after)
		return wrong(j, "disk of %" PRIu64 " bytes", o->size);
	j->changed = false;
	active = (struct tree){o->l1, o->size, o->l1_size};
	if (!each_sector(j, &active, thorough, judge_sector, t) || !judge_shots(j, t, thorough))
		return false;
	if (!judge_bitmaps(j, t, thorough))
		return false;
	return !j->changed || !(o->autoclear & ~UINT64_C(1)) ||
	       wrong(j, "data changed, autoclear bits %" PRIx64, o->autoclear);
}
