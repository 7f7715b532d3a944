// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The directory of persistent bitmaps of an open image: reading it, changing flags where they stand,
 * and replacing it by a new one. See bitmap.h for the order of writing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"

/* ---- reading ---- */

static int read_names(struct qcow2 *q, struct qcow2_bitmap *b, const char **fault, struct err *err)
{
	const struct bitmap_entry *e = &b->e;
	int r = bitmaps_read_name(q->img.file, e, &b->name, fault, err);

	if (r < 0 || *fault || !e->extra_len)
		return r;
	b->extra = malloc(e->extra_len);
	if (!b->extra)
		return err_nomem(err, e->extra_len, "the bitmap directory");
	return io_pread_tail(q->img.file, b->extra, e->extra_len, e->extra_at, err);
}

static int check_unique(const struct qcow2_bitmaps *m, const char **fault, struct err *err)
{
	CLEANUP_FREE char **names = calloc(m->dir.n + 1, sizeof(*names));

	if (!names)
		return err_nomem(err, m->dir.n * sizeof(*names), "the bitmap directory");
	for (uint32_t i = 0; i < m->dir.n; i++)
		names[i] = m->v[i].name;
	return bitmaps_check_names(names, m->dir.n, fault, err);
}

static int read_entries(struct qcow2 *q, const char **fault, uint64_t *at, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	uint64_t next = m->dir.off;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < m->dir.n && !*fault; i++) {
		struct qcow2_bitmap *b = &m->v[i];

		*at = next;
		r = bitmaps_next(q->img.file, &q->h, &m->dir, &next, &b->e, fault, err);
		if (r == 0 && !*fault)
			r = read_names(q, b, fault, err);
		if (r < 0 || *fault)
			break;
		b->enabled = b->e.flags & BITMAP_AUTO;
		/* Extra data that we do not know, and may not ignore, or it was not closed. */
		b->inconsistent = (b->e.flags & BITMAP_IN_USE) ||
				  (b->e.extra_len && !(b->e.flags & BITMAP_EXTRA_COMPAT));
		b->bits = bitmap_bits(q->h.size, b->e.granularity_bits);
	}
	if (r == 0 && !*fault && next != m->dir.off + m->dir.bytes)
		*fault = "more bitmaps than the header says";
	return r < 0 || *fault ? r : check_unique(m, fault, err);
}

static int read_directory(struct qcow2 *q, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	const char *fault = bitmaps_find(&q->h, &m->dir);
	uint64_t at = m->dir.off;
	int r = 0;

	/* Entries have at least 24 bytes, and lie in the file: n costs no more than the file. */
	if (!fault && m->dir.n &&
	    (m->dir.off + m->dir.bytes > round_up(io_size(q->img.file), q->cluster) ||
	     m->dir.n > m->dir.bytes / 24))
		fault = "too short for its bitmaps";
	if (!fault && m->dir.n) {
		m->v = calloc(m->dir.n, sizeof(*m->v));
		r = m->v ? read_entries(q, &fault, &at, err)
			 : err_nomem(err, m->dir.n * sizeof(*m->v), "the bitmap directory");
	}
	if (r == 0 && fault)
		r = io_corrupt(q->img.file, err, at, "bitmap directory: %s", fault);
	return r;
}

void qcow2_bitmaps_count(struct qcow2 *q)
{
	struct qcow2_bitmaps *m = q->bitmaps;

	m->enabled = 0;
	for (uint32_t i = 0; i < m->dir.n; i++)
		m->enabled += m->v[i].enabled;
}

int qcow2_bitmaps_load(struct qcow2 *q, struct err *err)
{
	int r;

	if (q->bitmaps)
		return 0;
	q->bitmaps = calloc(1, sizeof(*q->bitmaps));
	if (!q->bitmaps)
		return err_nomem(err, sizeof(*q->bitmaps), "bitmaps");
	q->bitmaps->size = q->h.size;
	q->bitmaps->bit_budget = BITMAPS_BIT_MEMORY;
	r = read_directory(q, err);
	if (r < 0)
		qcow2_bitmaps_free(q);
	else
		qcow2_bitmaps_count(q);
	return r;
}

void qcow2_bitmap_free_one(struct qcow2 *q, struct qcow2_bitmap *b)
{
	qcow2_bits_drop(q, b);
	free(b->name);
	free(b->extra);
	free(b->frees.v);
}

void qcow2_bitmaps_free(struct qcow2 *q)
{
	struct qcow2_bitmaps *m = q->bitmaps;

	if (!m)
		return;
	for (uint32_t i = 0; m->v && i < m->dir.n; i++)
		qcow2_bitmap_free_one(q, &m->v[i]);
	free(m->v);
	free(m->frees.v);
	free(m);
	q->bitmaps = NULL;
}

/* ---- flags ---- */

static uint64_t directory_bytes(const struct qcow2_bitmap *v, uint32_t n)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += bitmaps_entry_bytes(v[i].e.name_len, v[i].e.extra_len);
	return bytes;
}

static int encode(const struct qcow2_bitmap *v, uint32_t n, unsigned char **out, struct err *err)
{
	uint64_t bytes = directory_bytes(v, n), at = 0;

	*out = malloc(bytes ? bytes : 1);
	if (!*out)
		return err_nomem(err, bytes, "the bitmap directory");
	for (uint32_t i = 0; i < n; i++) {
		bitmaps_encode(&v[i].e, v[i].extra, v[i].name, *out + at);
		at += bitmaps_entry_bytes(v[i].e.name_len, v[i].e.extra_len);
	}
	return 0;
}

int qcow2_bitmaps_write_directory(struct qcow2 *q, enum barrier barrier, struct err *err)
{
	const struct qcow2_bitmaps *m = q->bitmaps;
	CLEANUP_FREE unsigned char *buf = NULL;
	int r = encode(m->v, m->dir.n, &buf, err);

	if (r == 0)
		r = io_pwrite(q->img.file, buf, m->dir.bytes, m->dir.off, err);
	return r < 0 ? r : qcow2_flush(q, barrier, err);
}

bool bitmap_is(const struct qcow2_bitmap *b, const struct qcow2_bitmap *arg)
{
	return b == arg;
}

bool bitmap_is_enabled(const struct qcow2_bitmap *b, const struct qcow2_bitmap *arg)
{
	(void)arg;
	return b->enabled;
}

bool bitmap_is_any(const struct qcow2_bitmap *b, const struct qcow2_bitmap *arg)
{
	(void)b;
	(void)arg;
	return true;
}

int qcow2_bitmaps_mark(struct qcow2 *q, bitmap_filter *which, const struct qcow2_bitmap *arg,
		       struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	bool any = false;
	int r;

	for (uint32_t i = 0; i < m->dir.n; i++) {
		struct qcow2_bitmap *b = &m->v[i];

		if ((b->e.flags & BITMAP_IN_USE) || !which(b, arg))
			continue;
		b->e.flags |= BITMAP_IN_USE;
		b->in_use = any = true;
	}
	if (!any)
		return 0;
	r = qcow2_bitmaps_write_directory(q, BARRIER_BITMAP_IN_USE, err);
	/* Which flags are on the disk is unknown: those in memory claim the least. */
	if (r < 0)
		atomic_store(&q->img.broken, -r);
	return r;
}

/* ---- a new directory ---- */

void qcow2_bitmaps_note_free(struct qcow2 *q, struct bitmap_frees *f, uint64_t host, uint64_t bytes)
{
	uint64_t first = host >> q->cluster_bits, n = div_up(bytes, q->cluster);

	if (f->n && f->v[f->n - 1].first + f->v[f->n - 1].n == first) {
		f->v[f->n - 1].n += n;
		return;
	}
	if (f->n == f->cap) {
		size_t cap = f->cap * 2 + 64;
		struct bitmap_run *v = realloc(f->v, cap * sizeof(*v));

		if (!v)
			return; /* the clusters leak, which check repairs */
		f->v = v;
		f->cap = cap;
	}
	f->v[f->n++] = (struct bitmap_run){first, n};
}

void qcow2_bitmaps_ripen(struct qcow2 *q, struct bitmap_frees *f)
{
	for (size_t i = 0; i < f->n; i++)
		qcow2_bitmaps_note_free(q, &q->bitmaps->frees, f->v[i].first << q->cluster_bits,
					f->v[i].n << q->cluster_bits);
	f->n = 0;
}

int qcow2_bitmaps_release(struct qcow2 *q, struct err *err)
{
	struct bitmap_frees *f = &q->bitmaps->frees;

	if (!f->n)
		return 0;
	for (size_t i = 0; i < f->n; i++) {
		qcow2_guard_set(q, f->v[i].first << q->cluster_bits, f->v[i].n << q->cluster_bits,
				false);
		qcow2_park(q, f->v[i].first, f->v[i].n);
	}
	f->n = 0;
	return qcow2_quiesce(q, err);
}

static int set_header(struct qcow2 *q, const struct bitmap_dir *dir, struct err *err)
{
	unsigned char ext[BITMAPS_EXT_BYTES];

	bitmaps_encode_ext(dir, ext);
	if (dir->n) {
		q->h.autoclear |= AUTOCLEAR_BITMAPS;
		return header_set_ext(&q->h, EXT_TYPE_BITMAPS, ext, sizeof(ext), err);
	}
	q->h.autoclear &= ~AUTOCLEAR_BITMAPS;
	header_drop_ext(&q->h, EXT_TYPE_BITMAPS);
	return 0;
}

/* Names the directory in the header, and if that fails the old one again. */
static int switch_header(struct qcow2 *q, const struct bitmap_dir *dir, struct err *err)
{
	int r = qcow2_quiesce(q, err);

	if (r == 0)
		r = set_header(q, dir, err);
	if (r == 0)
		r = qcow2_replace_header(q, err);
	if (r < 0 && set_header(q, &q->bitmaps->dir, NULL) < 0)
		atomic_store(&q->img.broken, ENOMEM);
	return r;
}

static int write_new_directory(struct qcow2 *q, const struct qcow2_bitmap *v,
			       struct bitmap_dir *dir, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = NULL;
	int r = encode(v, dir->n, &buf, err);

	if (r == 0)
		r = qcow2_alloc_table(q, div_up(dir->bytes, q->cluster), &dir->off, err);
	if (r < 0)
		return r;
	r = io_pwrite(q->img.file, buf, dir->bytes, dir->off, err);
	if (r < 0)
		qcow2_unalloc(q, dir->off >> q->cluster_bits, div_up(dir->bytes, q->cluster));
	return r;
}

int qcow2_bitmaps_switch(struct qcow2 *q, struct qcow2_bitmap *v, uint32_t n, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	struct bitmap_dir dir = {.n = n, .bytes = directory_bytes(v, n)};
	int r = n ? write_new_directory(q, v, &dir, err) : 0;

	if (r < 0)
		return r;
	r = switch_header(q, &dir, err);
	if (r < 0) {
		if (n && !atomic_load(&q->img.broken))
			qcow2_unalloc(q, dir.off >> q->cluster_bits, div_up(dir.bytes, q->cluster));
		return r;
	}
	if (m->dir.n)
		qcow2_bitmaps_note_free(q, &m->frees, m->dir.off, m->dir.bytes);
	m->dir = dir;
	m->v = v;
	qcow2_bitmaps_count(q);
	return 0;
}

int qcow2_bitmaps_move_directory(struct qcow2 *q, uint64_t to, struct err *err)
{
	struct bitmap_dir dir = q->bitmaps->dir;
	int r;

	dir.off = to;
	r = switch_header(q, &dir, err);
	if (r == 0)
		q->bitmaps->dir = dir;
	return r;
}
