// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * From version 2 to version 3 of the format and back. Under the exclusive gate.
 *
 * Version 2 has no zero flag: before the header changes, each entry that carries one becomes a
 * cluster of zeros, or nothing where there is no backing file to show through. This changes tables in
 * place, those of snapshots too, also where several trees share one: what they say stays the same.
 * An entry in a table with refcount n counts n times, so n is the refcount of its cluster.
 *
 *	zeros are written, refcounts raised - flush - L2 entries - flush - what they pointed to is given
 *	back; then the dirty bit is cleared - flush - the header
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/amend.h"
#include "formats/qcow2/bitmaps.h"

/* ---- upgrade ---- */

int amend_upgrade(struct qcow2 *q, struct err *err)
{
	bool rewrite = false;
	int r = 0;

	for (unsigned i = 0; i < q->h.nb_snapshots; i++)
		rewrite |= q->snap_disk[i].short_extra;
	if (rewrite)
		r = qcow2_snapshots_rewrite(q, err);
	if (r < 0)
		return r;
	q->h.version = 3;
	q->h.has_features = q->cluster_bits > 12;
	r = qcow2_replace_header(q, err);
	if (r < 0) {
		q->h.version = 2;
		q->h.has_features = false;
	}
	return r;
}

/* ---- a walk over all trees ---- */

struct trees {
	struct qcow2 *q;
	struct job *job;
	be64 *slice; /* owned: the entries that are looked at, a copy */
	/* An entry that is not 0, in a table with this refcount; may change it. */
	int (*entry)(struct trees *, struct l2_entry *, bool active, uint64_t refs, struct err *);
	bool changes;
};

uint64_t amend_downgrade_work(const struct qcow2 *q)
{
	uint64_t n = q->h.l1_size;

	for (unsigned i = 0; i < q->h.nb_snapshots; i++)
		n += q->snap_disk[i].l1_size;
	return n << (q->l2_bits + q->cluster_bits);
}

static int walk_slice(struct trees *t, uint64_t host, bool active, uint64_t refs, struct err *err)
{
	struct qcow2 *q = t->q;
	struct mslice *s;
	int r = mcache_get(&q->cache, host, "L2 table", &s, err);

	if (r < 0)
		return r;
	memcpy(t->slice, s->data, q->cache.slice);
	for (unsigned i = 0; r == 0 && i < qcow2_slice_entries(q); i++) {
		struct l2_entry e = qcow2_entry_load(q, t->slice, i);

		if (!e.raw && !e.zero)
			continue;
		r = t->entry(t, &e, active, refs, err);
		qcow2_entry_store(q, t->slice, i, e);
	}
	/* Also after a failure: the entries that were changed are, and what they had is parked. */
	if (t->changes) {
		int k = mcache_get(&q->cache, host, "L2 table", &s, r < 0 ? NULL : err);

		if (k < 0)
			return r < 0 ? r : k;
		if (memcmp(s->data, t->slice, q->cache.slice) != 0) {
			memcpy(s->data, t->slice, q->cache.slice);
			mcache_mark(&q->cache, s, CLASS_L2);
		}
	}
	return r;
}

static int walk_table(struct trees *t, uint64_t l2, bool active, struct err *err)
{
	struct qcow2 *q = t->q;
	uint64_t refs;
	int r = qcow2_refcount_get(q, l2 >> q->cluster_bits, &refs, err);

	for (uint64_t at = 0; r == 0 && at < q->cluster; at += q->cache.slice) {
		r = walk_slice(t, l2 + at, active, refs, err);
		if (r == 0 && qcow2_pressure(&q->img))
			r = qcow2_turn(&q->img, err);
	}
	return r;
}

static int walk_tree(struct trees *t, const be64 *l1, uint32_t n, bool active, struct err *err)
{
	/* Which also says that the tables are sane, and that no two entries share one. */
	int r = qcow2_tree_check(t->q, l1, n, -1, err);

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		uint64_t l2 = be64_get(l1[i]) & ENTRY_OFFSET;

		if (job_cancelled(t->job))
			return err_set(err, ECANCELED, "%s: interrupted", t->q->img.io.name);
		if (l2)
			r = walk_table(t, l2, active, err);
		job_advance(t->job, UINT64_C(1) << (t->q->l2_bits + t->q->cluster_bits));
	}
	return r;
}

static int walk_snapshot(struct trees *t, const struct qcow2_snapshot *d, struct err *err)
{
	CLEANUP_FREE be64 *l1 = NULL;
	uint32_t n;
	int r = qcow2_snapshot_l1(t->q, d, 0, &l1, &n, err);

	return r < 0 ? r : walk_tree(t, l1, n, false, err);
}

static int walk(struct trees *t, struct err *err)
{
	struct qcow2 *q = t->q;
	int r;

	t->slice = malloc(q->cache.slice);
	if (!t->slice)
		return err_nomem(err, q->cache.slice, "a table");
	r = walk_tree(t, q->l1, q->h.l1_size, true, err);
	for (unsigned i = 0; r == 0 && i < q->h.nb_snapshots; i++)
		r = walk_snapshot(t, &q->snap_disk[i], err);
	free(t->slice);
	return r;
}

/* ---- downgrade: is it possible? ---- */

static int refuse_coded(struct trees *t, struct l2_entry *e, bool active, uint64_t refs,
			struct err *err)
{
	(void)t;
	(void)active;
	(void)refs;
	if (!(e->raw & ENTRY_COMPRESSED))
		return 0;
	return err_set(err, ENOTSUP,
		       "Cannot downgrade an image with zstd compression type and existing "
		       "compressed clusters");
}

static int check_features(struct qcow2 *q, struct err *err)
{
	uint64_t bits = q->h.incompat & ~(INCOMPAT_DIRTY | INCOMPAT_COMPRESSION);
	struct trees t = {.q = q, .entry = refuse_coded};
	struct bitmap_dir bitmaps;

	if (bits)
		return err_set(err, ENOTSUP,
			       "Cannot downgrade an image with incompatible features 0x%" PRIx64
			       " set",
			       bits);
	if (bitmaps_find(&q->h, &bitmaps) || bitmaps.n)
		return err_set(err, ENOTSUP,
			       "Cannot downgrade an image with persistent bitmaps; remove them "
			       "first");
	if (q->h.unknown)
		for (uint32_t i = sizeof(struct disk_header); i < q->h.header_length; i++)
			if (q->h.unknown[i - sizeof(struct disk_header)])
				return err_set(err, ENOTSUP,
					       "Cannot downgrade an image whose header has fields "
					       "that are not known");
	return q->h.incompat & INCOMPAT_COMPRESSION ? walk(&t, err) : 0;
}

int amend_may_downgrade(struct qcow2 *q, uint64_t size, unsigned order, struct err *err)
{
	if (order != 4)
		return err_set(err, ENOTSUP, "compat=0.10 requires refcount_bits=16");
	if (q->h.incompat & INCOMPAT_DATA_FILE)
		return err_set(err, ENOTSUP, "Cannot downgrade an image with a data file");
	for (unsigned i = 0; i < q->h.nb_snapshots; i++)
		if (q->snap[i].vm_state_size > UINT32_MAX || q->snap[i].disk_size != size)
			return err_set(err, ENOTSUP,
				       "Internal snapshots prevent downgrade of image");
	return check_features(q, err);
}

/* ---- downgrade: zero clusters ---- */

/* A new cluster of zeros with this refcount. */
static int zero_cluster(struct qcow2 *q, uint64_t refs, uint64_t *host, struct err *err)
{
	uint64_t first, got, count = 1;
	bool zeroed;
	int r = qcow2_alloc(q, 1, &first, &got, &zeroed, err);

	if (r < 0)
		return r;
	*host = first << q->cluster_bits;
	for (; r == 0 && count < refs; count += r == 0)
		r = qcow2_refcount_add(q, first, +1, err);
	if (r == 0)
		r = io_zero(q->img.file, *host, q->cluster, 0, err);
	if (r < 0)
		while (count--)
			qcow2_unalloc(q, first, 1);
	return r;
}

static void park_entry(struct qcow2 *q, struct l2_entry e, uint64_t refs)
{
	while (refs--)
		qcow2_park_entry(q, e);
}

static int expand_entry(struct trees *t, struct l2_entry *e, bool active, uint64_t refs,
			struct err *err)
{
	struct qcow2 *q = t->q;
	uint64_t host = e->raw & ENTRY_OFFSET, count = 0;
	int r = 0;

	if (!e->zero)
		return 0;
	if (host)
		r = qcow2_refcount_get(q, host >> q->cluster_bits, &count, err);
	if (r < 0)
		return r;
	if (count && count == refs) { /* nobody else's: it stays, with zeros in it */
		r = io_zero(q->img.file, host, q->cluster, 0, err);
	} else {
		if (q->h.backing_name)
			r = zero_cluster(q, refs, &host, err);
		else
			host = 0;
		if (r == 0)
			park_entry(q, *e, refs);
	}
	if (r == 0)
		*e = (struct l2_entry){
			.raw = host && active && refs == 1 ? host | ENTRY_COPIED : host,
			.alloc = host != 0,
		};
	return r;
}

/* ---- downgrade: the header ---- */

/* What version 2 has no place for. Bitmaps are void by now, their space was given back or leaked. */
static void drop_exts(struct header *h)
{
	unsigned n = 0;

	for (unsigned i = 0; i < h->n_ext; i++) {
		if (h->ext[i].type == EXT_TYPE_BITMAPS)
			free(h->ext[i].data);
		else
			h->ext[n++] = h->ext[i];
	}
	h->n_ext = n;
}

int amend_downgrade(struct qcow2 *q, struct job *job, struct err *err)
{
	struct trees t = {.q = q, .job = job, .entry = expand_entry, .changes = true};
	struct header *h = &q->h;
	int r = qcow2_quiesce(q, err);

	if (r == 0)
		r = walk(&t, err);
	if (r == 0)
		r = qcow2_settle(&q->img, err);
	if (r < 0)
		return r;
	drop_exts(h);
	free(take(h->unknown));
	h->version = 2;
	h->incompat = h->compat = h->autoclear = 0;
	h->compression = COMPRESSION_ZLIB;
	h->has_features = false;
	r = qcow2_replace_header(q, err);
	if (r < 0) /* it asks for less than the one on disk: this is no lack of space */
		atomic_store(&q->img.broken, -r);
	return r;
}
