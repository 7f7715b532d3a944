// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Another width of the refcounts. Under the exclusive gate, with nothing dirty and nothing parked.
 *
 * New blocks and a new table are made beside the old ones, in one stretch of clusters that the old
 * refcounts call free: until the header is switched, in one sector, nothing on disk has changed that
 * means anything. The new blocks count themselves, and the old ones too: these are given back by the
 * next turn, which makes the switch durable first (I4, I5).
 *
 *	new blocks, new table - flush - header: place of the table and width
 *	- flush - refcounts of the old blocks and the old table are lowered
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/amend.h"

#define BATCH 4096 /* refcounts that are looked at in one go */

struct rewrite {
	struct qcow2 *q;
	unsigned order, block_bits; /* new */
	struct job *job;
	uint64_t counts[BATCH];
	uint64_t end; /* one more than the last cluster in use */
	bool *used;   /* owned: by new block, whether there has to be one */
	uint64_t n_used;
	/* The stretch of new clusters: blocks, then the table. */
	uint64_t first, blocks, table_clusters;
	be64 *table;          /* owned */
	unsigned char *block; /* owned */
};

uint64_t amend_refcount_work(const struct qcow2 *q)
{
	return round_up(io_size(q->img.file), q->cluster);
}

/* ---- a walk over all refcounts ---- */

/* For counts of BATCH clusters at most, from `base` on. Not 0: ends the walk. */
typedef int (*visit_fn)(struct rewrite *w, uint64_t base, uint64_t n, struct err *err);

static int walk_block(struct rewrite *w, uint64_t first, visit_fn visit, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t end = first + (UINT64_C(1) << q->refblock_bits);
	int r = 0;

	for (uint64_t base = first; r == 0 && base < end; base += BATCH) {
		uint64_t n = min_u64(BATCH, end - base), host = base << q->cluster_bits;

		if (job_cancelled(w->job))
			return err_set(err, ECANCELED, "%s: interrupted", q->img.io.name);
		r = qcow2_refcount_load(q, base, n, w->counts, err);
		if (r == 0)
			r = visit(w, base, n, err);
		if (host < io_size(q->img.file))
			job_advance(w->job,
				    min_u64(n << q->cluster_bits, io_size(q->img.file) - host));
	}
	return r;
}

/* Only what has a block on disk: the length of the file bounds the work. */
static int walk(struct rewrite *w, visit_fn visit, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < w->q->reftable_entries; i++)
		if (be64_get(w->q->reftable[i]) & REFTABLE_OFFSET)
			r = walk_block(w, i << w->q->refblock_bits, visit, err);
	return r;
}

/* ---- does it fit? ---- */

static int visit_fit(struct rewrite *w, uint64_t base, uint64_t n, struct err *err)
{
	for (uint64_t i = 0; i < n; i++)
		if (w->counts[i] > refcount_max(w->order))
			return err_set(err, ERANGE,
				       "Cannot decrease refcount entry width to %u bits: Cluster "
				       "at offset 0x%" PRIx64 " has a refcount of %" PRIu64,
				       1U << w->order, (base + i) << w->q->cluster_bits,
				       w->counts[i]);
	return 0;
}

int amend_refcounts_fit(struct qcow2 *q, unsigned order, struct job *job, struct err *err)
{
	CLEANUP_FREE struct rewrite *w = calloc(1, sizeof(*w));

	if (!w)
		return err_nomem(err, sizeof(*w), "refcounts");
	*w = (struct rewrite){.q = q, .order = order, .job = job};
	return walk(w, visit_fit, err);
}

/* ---- where the new ones go ---- */

static uint64_t max_blocks(void)
{
	return QCOW2_MAX_REFTABLE / 8;
}

static int need_block(struct rewrite *w, uint64_t cluster, struct err *err)
{
	uint64_t i = cluster >> w->block_bits;

	if (i >= max_blocks())
		return err_set(
			err, EFBIG,
			"%s: with %u bits the refcounts would need a table of more than %llu "
			"bytes",
			w->q->img.io.name, 1U << w->order, (unsigned long long)QCOW2_MAX_REFTABLE);
	w->n_used += !w->used[i];
	w->used[i] = true;
	return 0;
}

static int visit_survey(struct rewrite *w, uint64_t base, uint64_t n, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < n; i++) {
		if (!w->counts[i])
			continue;
		w->end = base + i + 1;
		r = need_block(w, base + i, err);
	}
	return r;
}

static uint64_t table_clusters(const struct rewrite *w, uint64_t end)
{
	return div_up((((end - 1) >> w->block_bits) + 1) * 8, w->q->cluster);
}

/*
 * Chooses the stretch, behind everything that is in use. The blocks that count it may have to be in
 * it: the loop ends because a block counts many clusters.
 */
static int place(struct rewrite *w, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t n = 0, need, limit = ENTRY_OFFSET >> q->cluster_bits;
	int r = 0;

	w->first = w->end;
	do {
		for (need = n; r == 0 && n; n--)
			r = need_block(w, w->first + n - 1, err);
		if (r < 0)
			return r;
		w->blocks = w->n_used;
		w->table_clusters = table_clusters(w, w->first + max_u64(need, 1));
		n = w->blocks + w->table_clusters;
	} while (n > need);
	if (w->table_clusters << q->cluster_bits > QCOW2_MAX_REFTABLE || w->first + n > limit)
		return err_set(err, EFBIG, "%s: the refcount table would be too large",
			       q->img.io.name);
	if (!(q->img.file->caps & IO_GROWS) &&
	    (w->first + n) << q->cluster_bits > io_size(q->img.file))
		return err_set(err, ENOSPC, "%s: no space left in %" PRIu64 " bytes",
			       q->img.file->name, io_size(q->img.file));
	return 0;
}

/* ---- writing ---- */

/* The block of the new width that counts clusters from `first` on. */
static int fill_block(struct rewrite *w, uint64_t first, struct err *err)
{
	uint64_t entries = UINT64_C(1) << w->block_bits;
	uint64_t new_end = w->first + w->blocks + w->table_clusters;

	memset(w->block, 0, w->q->cluster);
	for (uint64_t at = 0; at < entries; at += BATCH) {
		uint64_t n = min_u64(BATCH, entries - at);
		int r = first + at < w->end
				? qcow2_refcount_load(w->q, first + at, n, w->counts, err)
				: 0;

		if (r < 0)
			return r;
		for (uint64_t i = 0; i < n; i++) {
			uint64_t c = first + at + i;
			uint64_t count = c < w->end ? w->counts[i] : 0;

			if (c >= w->first && c < new_end)
				count = 1;
			refcount_store(w->block, w->order, at + i, count);
		}
	}
	return 0;
}

static int write_new(struct rewrite *w, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t host = w->first << q->cluster_bits, covers = q->cluster << w->block_bits;
	uint64_t entries = (w->table_clusters << q->cluster_bits) / 8;
	int r = 0;

	mcache_drop(&q->cache, host, (w->blocks + w->table_clusters) << q->cluster_bits);
	for (uint64_t i = 0; r == 0 && i < entries && i < max_blocks(); i++) {
		if (!w->used[i])
			continue;
		if (job_cancelled(w->job))
			return err_set(err, ECANCELED, "%s: interrupted", q->img.io.name);
		r = fill_block(w, i << w->block_bits, err);
		if (r == 0)
			r = io_pwrite(q->img.file, w->block, q->cluster, host, err);
		w->table[i] = be64_make(host);
		host += q->cluster;
		job_advance(w->job, min_u64(covers, amend_refcount_work(q)));
	}
	if (r == 0)
		r = io_pwrite(q->img.file, w->table, w->table_clusters << q->cluster_bits, host,
			      err);
	return r < 0 ? r : qcow2_flush(q, BARRIER_REFTABLE, err);
}

/* Nothing refers to what was written so far. */
static void take_back(struct qcow2 *q, uint64_t size)
{
	q->stale_tail = true;
	if ((q->img.file->caps & IO_GROWS) && io_size(q->img.file) > size)
		io_resize(q->img.file, size, NULL); /* a file that is longer does no harm */
}

static void park_old(struct qcow2 *q, const be64 *table, uint64_t entries, uint64_t host)
{
	uint64_t clusters = entries * 8 >> q->cluster_bits;

	for (uint64_t i = 0; i < entries; i++) {
		uint64_t block = be64_get(table[i]) & REFTABLE_OFFSET;

		if (!block)
			continue;
		mcache_drop(&q->cache, block, q->cluster);
		qcow2_guard_set(q, block, q->cluster, false);
		qcow2_park(q, block >> q->cluster_bits, 1);
	}
	qcow2_guard_set(q, host, clusters << q->cluster_bits, false);
	qcow2_park(q, host >> q->cluster_bits, clusters);
}

/* Makes the image use what was written. */
static int switch_width(struct rewrite *w, struct err *err)
{
	struct qcow2 *q = w->q;
	const struct header old = q->h;
	CLEANUP_FREE be64 *old_table = q->reftable;
	uint64_t old_entries = q->reftable_entries, n = w->blocks + w->table_clusters;
	int r;

	q->h.reftable_offset = (w->first + w->blocks) << q->cluster_bits;
	q->h.reftable_clusters = (uint32_t)w->table_clusters;
	q->h.refcount_order = w->order;
	q->reftable = take(w->table);
	q->reftable_entries = (w->table_clusters << q->cluster_bits) / 8;
	q->refblock_bits = w->block_bits;
	r = header_update(q->img.file, &q->h, err);
	if (r < 0) {
		atomic_store(&q->img.broken, -r); /* which header is on disk is unknown */
		return r;
	}
	qcow2_guard_set(q, w->first << q->cluster_bits, n << q->cluster_bits, true);
	park_old(q, old_table, old_entries, old.reftable_offset);
	return qcow2_quiesce(q, err);
}

static int run(struct rewrite *w, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t size = io_size(q->img.file);
	int r = walk(w, visit_survey, err);

	if (r == 0)
		r = place(w, err);
	if (r < 0)
		return r;
	w->block = malloc(q->cluster);
	w->table = calloc(w->table_clusters, q->cluster);
	if (!w->block || !w->table)
		return err_nomem(err, (w->table_clusters + 1) << q->cluster_bits,
				 "the refcount table");
	r = write_new(w, err);
	if (r < 0) {
		take_back(q, size);
		return r;
	}
	return switch_width(w, err);
}

int amend_refcount_width(struct qcow2 *q, unsigned order, struct job *job, struct err *err)
{
	struct rewrite *w = calloc(1, sizeof(*w));
	int r = 0;

	if (!w)
		return err_nomem(err, sizeof(*w), "refcounts");
	w->q = q;
	w->order = order;
	w->block_bits = q->cluster_bits + 3 - order;
	w->job = job;
	w->used = calloc(max_blocks(), sizeof(*w->used));
	if (!w->used)
		r = err_nomem(err, max_blocks(), "refcounts");
	if (r == 0)
		r = qcow2_quiesce(q, err); /* an upgrade may have gone before */
	if (r == 0)
		r = run(w, err);
	free(w->used);
	free(w->block);
	free(w->table);
	free(w);
	return r;
}
