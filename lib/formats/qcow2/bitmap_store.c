// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Persistent bitmaps follow the guest's writes: IN_USE and bits before a change, storing when the
 * image is settled, and what a resize does to them. See bitmap.h for the order of writing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"

int qcow2_bitmaps_guard(struct qcow2 *q, struct err *err)
{
	const struct qcow2_bitmaps *m = q->bitmaps;
	uint64_t room = div_up(io_size(q->img.file), q->cluster);
	int r = m->dir.n ? qcow2_guard_claim(q, m->dir.off, m->dir.bytes, "bitmap directory", err)
			 : 0;

	for (uint32_t i = 0; r == 0 && i < m->dir.n; i++) {
		const struct bitmap_entry *e = &m->v[i].e;
		uint64_t n = div_up(e->table_size * UINT64_C(8), q->cluster);

		/* Tables fit into the file all together, which also bounds the work. */
		if (n > room)
			return qcow2_mark_corrupt(q, e->table_offset, err, "bitmap tables overlap");
		room -= n;
		r = qcow2_guard_claim(q, e->table_offset, e->table_size * UINT64_C(8),
				      "bitmap table", err);
	}
	return r;
}

int qcow2_changing(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmaps *m;
	int r;

	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", img->io.name, q->unreadable_why);
	r = q->writing ? 0 : qcow2_begin_write(q, err);
	if (r < 0 || !q->bitmaps->enabled || !len)
		return r;
	m = q->bitmaps;
	r = qcow2_bitmaps_mark(q, bitmap_is_enabled, NULL, err);
	for (uint32_t i = 0; r == 0 && i < m->dir.n; i++) {
		struct qcow2_bitmap *b = &m->v[i];

		if (!b->enabled || b->inconsistent)
			continue;
		r = qcow2_bits_claim(q, b, err);
		if (r == 0)
			r = qcow2_bits_set(q, b, off, len, err);
	}
	return r;
}

/* ---- storing ---- */

static uint64_t table_clusters(const struct qcow2 *q, uint64_t entries)
{
	return div_up(entries * 8, q->cluster);
}

/* Whether the table can be written where it is: it has its size, and belongs to nobody else. */
static int table_stays(struct qcow2 *q, const struct qcow2_bitmap *b, bool *stays, struct err *err)
{
	uint64_t n = table_clusters(q, b->e.table_size), count;
	int r = 0;

	*stays = b->entries == b->e.table_size;
	for (uint64_t i = 0; r == 0 && *stays && i < n; i++) {
		r = qcow2_refcount_get(q, (b->e.table_offset >> q->cluster_bits) + i, &count, err);
		*stays = r == 0 && count == 1;
	}
	return r;
}

/* A place for the table, in e; *moved: it is a new one. */
static int place_table(struct qcow2 *q, const struct qcow2_bitmap *b, struct bitmap_entry *e,
		       bool *moved, struct err *err)
{
	bool stays;
	int r = table_stays(q, b, &stays, err);

	*moved = false;
	if (r < 0 || stays)
		return r;
	r = qcow2_alloc_table(q, table_clusters(q, b->entries), &e->table_offset, err);
	e->table_size = (uint32_t)b->entries;
	*moved = r == 0;
	return r;
}

/* The bitmaps as they will be: clusters of bits written, tables placed. */
static int prepare(struct qcow2 *q, struct qcow2_bitmap *v, bool *moved, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < m->dir.n; i++) {
		struct qcow2_bitmap *b = &m->v[i];

		v[i].e = b->e;
		if (!b->in_use || b->inconsistent)
			continue;
		/* Marked, but not looked at since: its bits are as they were. */
		r = b->table ? qcow2_bits_write(q, b, err) : 0;
		if (r == 0 && b->table)
			r = place_table(q, b, &v[i].e, &moved[i], err);
		v[i].e.flags &= ~(BITMAP_IN_USE | BITMAP_AUTO);
		v[i].e.flags |= b->enabled ? BITMAP_AUTO : 0;
	}
	return r;
}

static int write_tables(struct qcow2 *q, const struct qcow2_bitmap *v, struct err *err)
{
	const struct qcow2_bitmaps *m = q->bitmaps;
	bool wrote = false;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < m->dir.n; i++) {
		const struct qcow2_bitmap *b = &m->v[i];

		if (!b->in_use || b->inconsistent || !b->table)
			continue;
		r = io_pwrite(q->img.file, b->table, b->entries * 8, v[i].e.table_offset, err);
		wrote = true;
	}
	return r < 0 || !wrote ? r : qcow2_flush(q, BARRIER_BITMAP_TABLES, err);
}

/* The directory says the new flags and places; on return the bitmaps are whole again. */
static int publish(struct qcow2 *q, const struct qcow2_bitmap *v, const bool *moved,
		   struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	struct bitmap_entry *old = calloc(m->dir.n, sizeof(*old));
	bool any = false;
	int r;

	if (!old)
		return err_nomem(err, m->dir.n * sizeof(*old), "bitmaps");
	for (uint32_t i = 0; i < m->dir.n; i++) {
		old[i] = m->v[i].e;
		m->v[i].e = v[i].e;
		any |= moved[i];
	}
	r = any ? qcow2_bitmaps_switch(q, m->v, m->dir.n, err)
		: qcow2_bitmaps_write_directory(q, BARRIER_BITMAP_STORED, err);
	for (uint32_t i = 0; i < m->dir.n; i++) {
		struct qcow2_bitmap *b = &m->v[i];

		if (r < 0)
			b->e = old[i];
		else if (moved[i])
			qcow2_bitmaps_note_free(q, &m->frees, old[i].table_offset,
						old[i].table_size * UINT64_C(8));
		if (r < 0 || !b->in_use || b->inconsistent)
			continue;
		b->in_use = false;
		qcow2_bitmaps_ripen(q, &b->frees);
	}
	free(old);
	return r;
}

/* Places that were taken and are not used after all. */
static void unplace(struct qcow2 *q, const struct qcow2_bitmap *v, const bool *moved)
{
	for (uint32_t i = 0; i < q->bitmaps->dir.n; i++)
		if (moved[i])
			qcow2_unalloc(q, v[i].e.table_offset >> q->cluster_bits,
				      table_clusters(q, v[i].e.table_size));
}

static bool any_in_use(const struct qcow2_bitmaps *m)
{
	for (uint32_t i = 0; i < m->dir.n; i++)
		if (m->v[i].in_use && !m->v[i].inconsistent)
			return true;
	return false;
}

int qcow2_bitmaps_store(struct qcow2 *q, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	CLEANUP_FREE struct qcow2_bitmap *v = NULL;
	CLEANUP_FREE bool *moved = NULL;
	int r;

	if (!m || !any_in_use(m))
		return 0;
	v = calloc(m->dir.n, sizeof(*v));
	moved = calloc(m->dir.n, sizeof(*moved));
	if (!v || !moved)
		return err_nomem(err, m->dir.n * sizeof(*v), "bitmaps");
	r = prepare(q, v, moved, err);
	if (r == 0)
		r = qcow2_quiesce(q, err);
	if (r == 0)
		r = write_tables(q, v, err);
	if (r == 0)
		r = publish(q, v, moved, err);
	if (r < 0) {
		if (!atomic_load(&q->img.broken))
			unplace(q, v, moved);
		return r;
	}
	return qcow2_bitmaps_release(q, err);
}

/* ---- resize ---- */

static int follows(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t size, struct err *err)
{
	uint64_t n = bitmap_entries(size, b->e.granularity_bits, q->cluster);
	int r;

	if (b->inconsistent)
		return err_set(err, ESTALE, "Bitmap '%s' is inconsistent and cannot be used",
			       b->name);
	if (n << q->cluster_bits > BITMAP_MAX_DATA)
		return err_set(err, EFBIG,
			       "%s: bitmap '%s' would become too large for its granularity",
			       q->img.io.name, b->name);
	r = qcow2_bits_claim(q, b, err);
	return r < 0 ? r : qcow2_bits_prepare(q, b, size, err);
}

int qcow2_bitmaps_begin_resize(struct qcow2 *q, uint64_t size, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	int r = 0;

	if (m->dir.n && !size)
		return err_set(err, EINVAL, "%s: a disk of 0 bytes cannot have bitmaps",
			       q->img.io.name);
	for (uint32_t i = 0; r == 0 && i < m->dir.n; i++)
		r = follows(q, &m->v[i], size, err);
	return r < 0 ? r : qcow2_bitmaps_mark(q, bitmap_is_any, NULL, err);
}

int qcow2_bitmaps_end_resize(struct qcow2 *q, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	bool changed = m->size != q->h.size;
	int r = 0;

	m->size = q->h.size;
	for (uint32_t i = 0; i < m->dir.n; i++) {
		struct qcow2_bitmap *b = &m->v[i];
		int k = changed ? qcow2_bits_resize(q, b, q->h.size, r < 0 ? NULL : err) : 0;

		/* One that could not follow stays in use on the disk, where it is void so. */
		if (k < 0)
			b->inconsistent = true;
		qcow2_bits_cancel(q, b);
		r = r < 0 ? r : k;
	}
	return r;
}
