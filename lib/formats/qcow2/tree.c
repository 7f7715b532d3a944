// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Walks over an L1 table and all that it refers to, for snapshots: every walk visits L1 entries
 * (tables) and L2 entries (clusters) with one function each. Under the exclusive gate.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/qcow2.h"

/* Write back when this many slices are dirty in a walk, to bound memory. */
#define WALK_DIRTY 1024

struct walk {
	struct qcow2 *q;
	int delta;          /* refcounts */
	bool clear_all;     /* copied */
	qcow2_entry_fn *fn; /* each */
	void *ctx;
	int (*table)(struct walk *, be64 *l1_entry, struct err *);
	int (*entry)(struct walk *, struct l2_entry *, uint64_t at, struct err *);
};

/*
 * A slice is walked as a copy: looking up refcounts may push the cached one out. What changed is
 * put back at the end.
 */
static int walk_slice(struct walk *w, uint64_t host, be64 *copy, struct err *err)
{
	struct qcow2 *q = w->q;
	struct mslice *s;
	int r = mcache_get(&q->cache, host, "L2 table", &s, err);

	if (r < 0)
		return r;
	memcpy(copy, s->data, q->cache.slice);
	for (unsigned i = 0; i < qcow2_slice_entries(q); i++) {
		struct l2_entry e = qcow2_entry_load(q, copy, i), old = e;

		if (!e.raw && !e.zero && !e.alloc)
			continue;
		r = w->entry(w, &e, host + i * qcow2_entry_bytes(q), err);
		if (r < 0)
			return r;
		if (memcmp(&e, &old, sizeof(e)) != 0)
			qcow2_entry_store(q, copy, i, e);
	}
	r = mcache_get(&q->cache, host, "L2 table", &s, err);
	if (r < 0 || !memcmp(copy, s->data, q->cache.slice))
		return r;
	memcpy(s->data, copy, q->cache.slice);
	mcache_mark(&q->cache, s, CLASS_L2);
	return 0;
}

static int walk_bound_memory(struct qcow2 *q, struct err *err)
{
	int r = 0;

	for (int class = 0; r == 0 && class < MCACHE_CLASSES; class ++)
		if (q->cache.n_dirty[class] > WALK_DIRTY)
			r = mcache_write(&q->cache, class, err);
	return r;
}

static int walk_tree(struct walk *w, be64 *l1, uint32_t n, struct err *err)
{
	struct qcow2 *q = w->q;
	CLEANUP_FREE be64 *copy = malloc(q->cache.slice);

	if (!copy)
		return err_nomem(err, q->cache.slice, "a table");
	for (uint32_t i = 0; i < n; i++) {
		uint64_t l2 = be64_get(l1[i]) & ENTRY_OFFSET;
		int r = 0;

		if (!l2)
			continue;
		if (!is_aligned(l2, q->cluster))
			return io_corrupt(q->img.file, err, l2,
					  "L1 entry %" PRIu32 ": L2 table is not cluster-aligned",
					  i);
		for (uint64_t at = 0; r == 0 && at < q->cluster; at += q->cache.slice)
			r = walk_slice(w, l2 + at, copy, err);
		if (r == 0)
			r = w->table(w, &l1[i], err);
		if (r == 0)
			r = walk_bound_memory(q, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- can all refcounts be raised, or lowered? ---- */

/*
 * shared: the cluster holds several compressed streams, so this tree may refer to it more than
 * once. Where refcounts are narrow, assume that all its references are ours.
 */
static int check_raise(struct qcow2 *q, uint64_t cluster, uint64_t count, bool shared,
		       struct err *err)
{
	uint64_t max = refcount_max(q->h.refcount_order);
	uint64_t more = shared && max < UINT16_MAX ? count : 1;

	if (more <= max && count <= max - more)
		return 0;
	return err_set(err, EINVAL,
		       "%s: the refcount of the cluster at offset %" PRIu64
		       " cannot go above %" PRIu64 " (refcount_bits=%u)",
		       q->img.io.name, cluster << q->cluster_bits, max, 1U << q->h.refcount_order);
}

static int check_count(struct walk *w, uint64_t cluster, bool shared, uint64_t at, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t count;
	int r;

	if (w->delta > 0 && cluster << q->cluster_bits >= io_size(q->img.file))
		return io_corrupt(q->img.file, err, at,
				  "refers to offset %" PRIu64 " beyond the end of the file",
				  cluster << q->cluster_bits);
	r = qcow2_refcount_get(q, cluster, &count, err);
	if (r < 0)
		return r;
	if (!count)
		return io_corrupt(q->img.file, err, at,
				  "refers to offset %" PRIu64 ", whose refcount is 0",
				  cluster << q->cluster_bits);
	return w->delta > 0 ? check_raise(q, cluster, count, shared, err) : 0;
}

static int check_table(struct walk *w, be64 *l1_entry, struct err *err)
{
	uint64_t host = be64_get(*l1_entry) & ENTRY_OFFSET;

	return check_count(w, host >> w->q->cluster_bits, false, host, err);
}

static int check_entry(struct walk *w, struct l2_entry *e, uint64_t at, struct err *err)
{
	uint64_t first = 0, n;
	int r = qcow2_guard_entry(w->q, *e, at, err);

	qcow2_entry_clusters(w->q, *e, &first, &n);
	for (uint64_t i = 0; r == 0 && i < n; i++)
		r = check_count(w, first + i, e->raw & ENTRY_COMPRESSED, at, err);
	return r;
}

static int by_offset(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* A table that stands in millions of entries would be walked as often: the file bounds the work. */
static int check_distinct(struct qcow2 *q, const be64 *l1, uint32_t n, struct err *err)
{
	CLEANUP_FREE uint64_t *v = malloc((n + UINT64_C(1)) * sizeof(*v));
	uint32_t used = 0;

	if (!v)
		return err_nomem(err, n * sizeof(*v), "a table");
	for (uint32_t i = 0; i < n; i++) {
		v[used] = be64_get(l1[i]) & ENTRY_OFFSET;
		used += v[used] != 0;
	}
	qsort(v, used, sizeof(*v), by_offset);
	for (uint32_t i = 1; i < used; i++)
		if (v[i] == v[i - 1])
			return io_corrupt(q->img.file, err, v[i],
					  "two L1 entries refer to this L2 table");
	return 0;
}

int qcow2_tree_check(struct qcow2 *q, const be64 *l1, uint32_t n, int delta, struct err *err)
{
	struct walk w = {.q = q, .delta = delta, .table = check_table, .entry = check_entry};
	int r = check_distinct(q, l1, n, err);

	return r < 0 ? r : walk_tree(&w, (be64 *)l1, n, err); /* these callbacks change nothing */
}

/* ---- refcounts ---- */

static int count_table(struct walk *w, be64 *l1_entry, struct err *err)
{
	uint64_t host = be64_get(*l1_entry) & ENTRY_OFFSET, count = 1;
	int r = qcow2_refcount_add(w->q, host >> w->q->cluster_bits, w->delta, err);

	if (r == 0)
		r = qcow2_refcount_get(w->q, host >> w->q->cluster_bits, &count, err);
	if (r == 0 && !count) { /* the last one that knew it as a table */
		qcow2_guard_set(w->q, host, w->q->cluster, false);
		mcache_drop(&w->q->cache, host, w->q->cluster);
	}
	return r;
}

static int count_entry(struct walk *w, struct l2_entry *e, uint64_t at, struct err *err)
{
	uint64_t first = 0, n;
	int r = 0;

	(void)at;
	qcow2_entry_clusters(w->q, *e, &first, &n);
	for (uint64_t i = 0; r == 0 && i < n; i++)
		r = qcow2_refcount_add(w->q, first + i, w->delta, err);
	return r;
}

int qcow2_tree_refcounts(struct qcow2 *q, const be64 *l1, uint32_t n, int delta, struct err *err)
{
	struct walk w = {.q = q, .delta = delta, .table = count_table, .entry = count_entry};

	return walk_tree(&w, (be64 *)l1, n, err); /* these callbacks change nothing */
}

/* ---- COPIED ---- */

static int set_copied(struct walk *w, uint64_t *entry, struct err *err)
{
	uint64_t host = *entry & ENTRY_OFFSET, count = 0;
	int r = 0;

	if (host && !w->clear_all)
		r = qcow2_refcount_get(w->q, host >> w->q->cluster_bits, &count, err);
	if (r == 0)
		*entry = (*entry & ~ENTRY_COPIED) | (count == 1 ? ENTRY_COPIED : 0);
	return r;
}

static int copied_table(struct walk *w, be64 *l1_entry, struct err *err)
{
	uint64_t entry = be64_get(*l1_entry);
	int r = set_copied(w, &entry, err);

	*l1_entry = be64_make(entry);
	return r;
}

static int copied_entry(struct walk *w, struct l2_entry *e, uint64_t at, struct err *err)
{
	(void)at;
	if (!(e->raw & ENTRY_COMPRESSED))
		return set_copied(w, &e->raw, err);
	e->raw &= ~ENTRY_COPIED; /* never for compressed clusters */
	return 0;
}

int qcow2_tree_copied(struct qcow2 *q, be64 *l1, uint32_t n, bool clear_all, struct err *err)
{
	struct walk w = {
		.q = q, .clear_all = clear_all, .table = copied_table, .entry = copied_entry};

	return walk_tree(&w, l1, n, err);
}

/* ---- whatever a caller does with entries ---- */

static int each_table(struct walk *w, be64 *l1_entry, struct err *err)
{
	(void)w;
	(void)l1_entry;
	(void)err;
	return 0;
}

static int each_entry(struct walk *w, struct l2_entry *e, uint64_t at, struct err *err)
{
	return w->fn(w->ctx, e, at, err);
}

int qcow2_tree_each(struct qcow2 *q, const be64 *l1, uint32_t n, qcow2_entry_fn *fn, void *ctx,
		    struct err *err)
{
	struct walk w = {.q = q, .fn = fn, .ctx = ctx, .table = each_table, .entry = each_entry};

	return walk_tree(&w, (be64 *)l1, n, err); /* these callbacks change nothing in it */
}

static int each_of(struct qcow2 *q, const be64 *l1, uint32_t n, qcow2_l1_fn *table,
		   qcow2_entry_fn *entry, void *ctx, struct err *err)
{
	int r = table ? table(ctx, l1, n, err) : 0;

	return r < 0 ? r : qcow2_tree_each(q, l1, n, entry, ctx, err);
}

int qcow2_trees_each(struct qcow2 *q, qcow2_l1_fn *table, qcow2_entry_fn *entry, void *ctx,
		     struct err *err)
{
	int r = each_of(q, q->l1, q->h.l1_size, table, entry, ctx, err);

	for (unsigned i = 0; r == 0 && i < q->h.nb_snapshots; i++) {
		CLEANUP_FREE be64 *l1 = NULL;
		uint32_t n;

		r = qcow2_snapshot_l1(q, &q->snap_disk[i], 0, &l1, &n, err);
		if (r == 0)
			r = each_of(q, l1, n, table, entry, ctx, err);
	}
	return r;
}
