// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Compaction: persistent bitmaps. Clusters of bits, which a bitmap's table names; tables, which the
 * directory names; the directory, which the header names.
 *
 * What they say is about the guest's data, and stays as it is: so none of them becomes "in use". Both
 * places of whatever moves hold the same, and count, when pointers are switched where they stand: each
 * lies in one sector, so any of them may be on the disk after a power cut.
 *
 * Of one bitmap at a time the table is in memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "formats/qcow2/bitmap.h"
#include "formats/qcow2/compact.h"

/* What was copied. */
struct moves {
	struct move {
		struct region old;
		uint64_t to;
	} * v; /* owned */
	size_t n, cap;
};

/* Copies a region if it lies too far behind. 1: it goes to *to; 0: it stays. */
static int move_region(struct compact *c, struct moves *m, uint64_t host, uint64_t len,
		       uint64_t *to, struct err *err)
{
	struct region old = {host, len};
	int r;

	if (!compact_too_far(c, &old))
		return 0;
	if (m->n == m->cap) {
		size_t cap = m->cap * 2 + 64;
		struct move *v = realloc(m->v, cap * sizeof(*v));

		if (!v)
			return err_nomem(err, cap * sizeof(*v), "a list");
		m->v = v;
		m->cap = cap;
	}
	r = compact_copy_region(c, &old, to, err);
	if (r > 0)
		m->v[m->n++] = (struct move){old, *to};
	return r;
}

/* Nothing points to the new places. */
static void undo(struct compact *c, const struct moves *m)
{
	struct qcow2 *q = c->q;

	for (size_t i = 0; i < m->n; i++)
		qcow2_unalloc(q, m->v[i].to >> q->cluster_bits,
			      div_up(m->v[i].old.len, q->cluster));
}

/* Nothing on the disk points to the old places. */
static int drop_old(struct compact *c, const struct moves *m, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->n; i++)
		r = compact_drop_region(c, &m->v[i].old, err);
	return r;
}

/* ---- clusters of bits ---- */

static int copy_bits(struct compact *c, struct moves *m, struct qcow2_bitmap *b, struct err *err)
{
	int r = qcow2_bits_claim(c->q, b, err);

	for (uint64_t i = 0; r == 0 && i < b->entries && !compact_stopping(c); i++) {
		uint64_t host = be64_get(b->table[i]) & ENTRY_OFFSET, to, count = 0;

		if (host)
			r = qcow2_refcount_get(c->q, host >> c->q->cluster_bits, &count, err);
		if (r == 0 && count == 1)
			r = move_region(c, m, host, c->q->cluster, &to, err);
		if (r <= 0)
			continue;
		b->table[i] = be64_make(to);
		r = 0;
	}
	return r;
}

/* The table, which is that of the disk but for what moved, where it is. */
static int write_table(struct qcow2 *q, const struct qcow2_bitmap *b, struct err *err)
{
	int r = io_pwrite(q->img.file, b->table, b->entries * sizeof(be64), b->e.table_offset, err);

	return r < 0 ? r : qcow2_flush(q, BARRIER_POINTERS, err);
}

static int move_bits(struct compact *c, struct qcow2_bitmap *b, struct err *err)
{
	struct moves m = {0};
	int r = copy_bits(c, &m, b, err);

	if (r == 0 && m.n)
		r = qcow2_quiesce(c->q, err);
	if (r < 0) {
		undo(c, &m);
	} else if (m.n) {
		/* If this fails, either place may be the one in use: the other one leaks. */
		r = write_table(c->q, b, err);
		if (r == 0)
			r = drop_old(c, &m, err);
	}
	qcow2_bits_drop(c->q, b);
	free(m.v);
	return r;
}

/* ---- tables ---- */

static int copy_tables(struct compact *c, struct moves *m, struct err *err)
{
	struct qcow2_bitmaps *list = c->q->bitmaps;
	int r = 0;

	for (uint32_t i = 0; r >= 0 && i < list->dir.n; i++) {
		struct bitmap_entry *e = &list->v[i].e;

		r = move_region(c, m, e->table_offset, e->table_size * UINT64_C(8),
				&e->table_offset, err);
	}
	return r < 0 ? r : m->n ? qcow2_quiesce(c->q, err) : 0;
}

/* The directory in memory is that of the disk again. */
static void restore_places(struct compact *c, const struct moves *m)
{
	struct qcow2_bitmaps *list = c->q->bitmaps;
	size_t k = 0;

	for (uint32_t i = 0; k < m->n && i < list->dir.n; i++)
		if (list->v[i].e.table_offset == m->v[k].to)
			list->v[i].e.table_offset = m->v[k++].old.host;
}

static int move_tables(struct compact *c, struct err *err)
{
	struct moves m = {0};
	int r = copy_tables(c, &m, err);

	if (r < 0) {
		restore_places(c, &m);
		undo(c, &m);
	} else if (m.n) {
		r = qcow2_bitmaps_write_directory(c->q, BARRIER_POINTERS, err);
		if (r < 0) /* which of the places is on disk is unknown */
			atomic_store(&c->q->img.broken, -r);
		else
			r = drop_old(c, &m, err);
	}
	free(m.v);
	return r;
}

/* ---- the directory ---- */

static int move_directory(struct compact *c, struct err *err)
{
	const struct bitmap_dir *dir = &c->q->bitmaps->dir;
	struct region old = {dir->off, dir->bytes};
	uint64_t to;
	int r = compact_too_far(c, &old) ? compact_copy_region(c, &old, &to, err) : 0;

	if (r <= 0)
		return r;
	r = qcow2_bitmaps_move_directory(c->q, to, err);
	if (r == 0)
		return compact_drop_region(c, &old, err);
	if (!atomic_load(&c->q->img.broken))
		qcow2_unalloc(c->q, to >> c->q->cluster_bits, div_up(old.len, c->q->cluster));
	/* A header without room for the switch: the directory stays. */
	return r == -ENOSPC ? 0 : r;
}

int compact_move_bitmaps(struct compact *c, struct err *err)
{
	struct qcow2_bitmaps *list = c->q->bitmaps;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < list->dir.n && !compact_stopping(c); i++)
		r = move_bits(c, &list->v[i], err);
	if (r == 0 && list->dir.n)
		r = move_tables(c, err);
	if (r == 0 && list->dir.n)
		r = move_directory(c, err);
	return r;
}
