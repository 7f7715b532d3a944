// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * qcow2 refcounts and the cluster allocator. QEMU docs/interop/qcow2, "Host cluster management".
 *
 * Space is found in the refcounts alone, never from the file's size. A missing refcount block is
 * made at the first cluster of the range that it covers: that cluster is free by definition, and
 * the block counts itself.
 *
 * A cluster is taken by raising its refcount in memory at once. It is given back by parking: the
 * refcount falls, and the cluster can be taken again, only at the end of the next turn, when the
 * disk has forgotten every pointer to it (I4, I5).
 */
#include "formats/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file.h"

static uint64_t block_entries(const struct qcow2 *q)
{
	return UINT64_C(1) << q->refblock_bits;
}

int qcow2_refcount_block(struct qcow2 *q, uint64_t cluster, uint64_t *host, struct err *err)
{
	uint64_t i = cluster >> q->refblock_bits;

	*host = 0;
	if (i >= q->reftable_entries)
		return 0;
	*host = be64_get(q->reftable[i]) & REFTABLE_OFFSET;
	if (is_aligned(*host, q->cluster))
		return 0;
	return io_corrupt(q->img.file, err, q->h.reftable_offset + i * 8,
			  "refcount block offset 0x%" PRIx64 " is not cluster-aligned", *host);
}

/* The cached slice with a cluster's refcount, and the index in the slice. */
static int count_slice(struct qcow2 *q, uint64_t block, uint64_t cluster, struct mslice **s,
		       uint64_t *index, struct err *err)
{
	uint64_t i = cluster & (block_entries(q) - 1);
	uint64_t per_slice = q->cache.slice * 8 >> q->h.refcount_order;

	*index = i & (per_slice - 1);
	return mcache_get(&q->cache, block + (i / per_slice) * q->cache.slice, "refcount block", s,
			  err);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count, struct err *err)
{
	struct mslice *s;
	uint64_t block, i;
	int r = qcow2_refcount_block(q, cluster, &block, err);

	*count = 0;
	if (r < 0 || !block)
		return r;
	r = count_slice(q, block, cluster, &s, &i, err);
	if (r == 0)
		*count = refcount_load(s->data, q->h.refcount_order, i);
	return r;
}

int qcow2_refcount_load(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *counts,
			struct err *err)
{
	uint64_t per_slice = q->cache.slice * 8 >> q->h.refcount_order;

	while (n) {
		uint64_t block, i = 0, part;
		struct mslice *s;
		int r = qcow2_refcount_block(q, first, &block, err);

		if (r == 0 && block)
			r = count_slice(q, block, first, &s, &i, err);
		if (r < 0)
			return r;
		if (block) {
			part = min_u64(n, per_slice - i);
			for (uint64_t k = 0; k < part; k++)
				counts[k] = refcount_load(s->data, q->h.refcount_order, i + k);
		} else {
			part = min_u64(n, block_entries(q) - (first & (block_entries(q) - 1)));
			memset(counts, 0, part * sizeof(*counts));
		}
		counts += part;
		first += part;
		n -= part;
	}
	return 0;
}

int qcow2_fill_hole(struct qcow2 *q, const void *part, uint64_t len, uint64_t host, struct err *err)
{
	int r;

	if (!bytes_are_zero(part, len))
		return 0;
	r = file_allocate(q->img.file, host, len, err);
	return r == -ENOTSUP ? 0 : r;
}

int qcow2_refcount_add(struct qcow2 *q, uint64_t cluster, int delta, struct err *err)
{
	uint64_t block, i, count, max = refcount_max(q->h.refcount_order);
	struct mslice *s;
	int r = qcow2_refcount_block(q, cluster, &block, err);

	if (r < 0)
		return r;
	if (!block)
		return io_corrupt(q->img.file, err, cluster << q->cluster_bits,
				  "cluster is in use but has no refcount block");
	r = count_slice(q, block, cluster, &s, &i, err);
	if (r < 0)
		return r;
	count = refcount_load(s->data, q->h.refcount_order, i);
	if (delta > 0 && count == max)
		return err_set(err, ERANGE,
			       "%s: at offset %" PRIu64 ": the refcount would exceed %" PRIu64
			       " (refcount_bits=%u)",
			       q->img.io.name, cluster << q->cluster_bits, max,
			       1U << q->h.refcount_order);
	if (delta < 0 && !count)
		return io_corrupt(q->img.file, err, cluster << q->cluster_bits,
				  "refcount of a cluster in use is 0");
	if (!count && !s->dirty)
		r = qcow2_fill_hole(q, s->data, q->cache.slice, s->host, err);
	if (r < 0)
		return r;
	refcount_store(s->data, q->h.refcount_order, i, delta > 0 ? count + 1 : count - 1);
	mcache_mark(&q->cache, s, CLASS_REFCOUNT);
	if (delta < 0 && count == 1) {
		q->free_hint = min_u64(q->free_hint, cluster);
		if (q->coded_at >> q->cluster_bits == cluster)
			q->coded_at = 0; /* its next owner is somebody else */
	}
	return 0;
}

int qcow2_used_end(struct qcow2 *q, uint64_t end, uint64_t *used, struct err *err)
{
	uint64_t c = min_u64(end, q->reftable_entries << q->refblock_bits);

	while (c) {
		uint64_t block, count;
		int r = qcow2_refcount_block(q, c - 1, &block, err);

		if (r == 0 && !block) { /* nothing in the whole range of that block */
			c = round_down(c - 1, block_entries(q));
			continue;
		}
		if (r == 0)
			r = qcow2_refcount_get(q, c - 1, &count, err);
		if (r < 0)
			return r;
		if (count)
			break;
		c--;
	}
	*used = c;
	return 0;
}

/* ---- growing the structures ---- */

/* Whether clusters whose refcount is 0 can be used: an offset can name them, nobody is there. */
static int check_growth(struct qcow2 *q, uint64_t first, uint64_t n, struct err *err)
{
	uint64_t limit = ENTRY_OFFSET >> q->cluster_bits, host, len;

	if (first > limit || n > limit - first)
		return err_set(err, EFBIG, "%s: no host offset left", q->img.io.name);
	host = first << q->cluster_bits;
	len = n << q->cluster_bits;
	if (!(q->img.file->caps & IO_GROWS) && host + len > io_size(q->img.file))
		return err_set(err, ENOSPC, "%s: no space left in %" PRIu64 " bytes",
			       q->img.file->name, io_size(q->img.file));
	if (qcow2_guarded(q, host, len))
		return qcow2_mark_corrupt(q, host, err,
					  "refcount of a cluster that holds metadata is 0");
	return 0;
}

/* Blocks needed at the start of a fresh range to count themselves and n clusters behind them. */
static uint64_t blocks_for(const struct qcow2 *q, uint64_t n)
{
	return div_up(n + 1, block_entries(q) - 1) + 1;
}

/*
 * Writes `blocks` refcount blocks at cluster `first`, the start of a range that nothing covers yet:
 * they count themselves and the n clusters behind them.
 */
static int write_blocks(struct qcow2 *q, uint64_t first, uint64_t blocks, uint64_t n,
			struct err *err)
{
	CLEANUP_FREE unsigned char *block = malloc(q->cluster);
	uint64_t used = blocks + n;
	int r = check_growth(q, first, used, err);

	if (r < 0)
		return r;
	if (!block)
		return err_nomem(err, q->cluster, "a refcount block");
	mcache_drop(&q->cache, first << q->cluster_bits, used << q->cluster_bits);
	for (uint64_t b = 0; r == 0 && b < blocks; b++) {
		uint64_t base = b << q->refblock_bits;

		memset(block, 0, q->cluster);
		for (uint64_t i = 0; i < block_entries(q) && base + i < used; i++)
			refcount_store(block, q->h.refcount_order, i, 1);
		r = io_pwrite(q->img.file, block, q->cluster, (first + b) << q->cluster_bits, err);
	}
	if (r < 0)
		q->stale_tail = true;
	return r;
}

/*
 * Writes the new table and then switches the header to it (I9). The next turn makes that durable
 * before anything is built on the new table and before the old one can be used again.
 */
static int switch_reftable(struct qcow2 *q, const be64 *table, uint64_t host, uint64_t clusters,
			   struct err *err)
{
	uint64_t old_host = q->h.reftable_offset;
	uint32_t old_clusters = q->h.reftable_clusters;
	int r = io_pwrite(q->img.file, table, clusters << q->cluster_bits, host, err);

	if (r == 0)
		r = qcow2_flush(q, BARRIER_REFTABLE, err);
	if (r < 0) {
		q->stale_tail = true;
		return r;
	}
	q->h.reftable_offset = host;
	q->h.reftable_clusters = (uint32_t)clusters;
	r = header_update(q->img.file, &q->h, err);
	if (r < 0) {
		/* Which of the two headers is on disk is unknown: nothing may build on either. */
		q->h.reftable_offset = old_host;
		q->h.reftable_clusters = old_clusters;
		atomic_store(&q->img.broken, -r);
	}
	return r;
}

/* A refcount table of at least `need` entries, placed in the first range the old cannot reach. */
static int grow_reftable(struct qcow2 *q, uint64_t need, struct err *err)
{
	uint64_t first = q->reftable_entries << q->refblock_bits, blocks, clusters, host;
	uint64_t old_host = q->h.reftable_offset, old_clusters = q->h.reftable_clusters;
	CLEANUP_FREE be64 *table = NULL;
	int r;

	clusters = div_up((need + need / 2) * 8, q->cluster);
	blocks = blocks_for(q, clusters);
	clusters = max_u64(clusters, div_up((q->reftable_entries + blocks) * 8, q->cluster));
	clusters = min_u64(clusters, QCOW2_MAX_REFTABLE >> q->cluster_bits);
	if (clusters << q->cluster_bits < (max_u64(need, q->reftable_entries + blocks)) * 8)
		return err_set(err, EFBIG, "%s: the file is too large for its refcount table",
			       q->img.io.name);
	table = calloc(clusters, q->cluster);
	if (!table)
		return err_nomem(err, clusters << q->cluster_bits, "the refcount table");
	memcpy(table, q->reftable, q->reftable_entries * 8);
	r = write_blocks(q, first, blocks, clusters, err);
	for (uint64_t b = 0; b < blocks; b++)
		table[q->reftable_entries + b] = be64_make((first + b) << q->cluster_bits);
	host = (first + blocks) << q->cluster_bits;
	if (r == 0)
		r = switch_reftable(q, table, host, clusters, err);
	if (r < 0)
		return r;
	free(q->reftable);
	q->reftable = take(table);
	q->reftable_entries = (clusters << q->cluster_bits) / 8;
	q->reftable_dirty = (struct dirty_sectors){0};
	qcow2_guard_set(q, first << q->cluster_bits, (blocks + clusters) << q->cluster_bits, true);
	qcow2_guard_set(q, old_host, old_clusters << q->cluster_bits, false);
	qcow2_park(q, old_host >> q->cluster_bits, old_clusters);
	return 0;
}

/*
 * A table of more clusters than fit between two refcount blocks: behind all ranges that have a
 * block, with its own blocks in front.
 */
static int alloc_far(struct qcow2 *q, uint64_t n, uint64_t *host, struct err *err)
{
	uint64_t range = q->reftable_entries, blocks = blocks_for(q, n), first;
	int r;

	while (range && !(be64_get(q->reftable[range - 1]) & REFTABLE_OFFSET))
		range--;
	if (range + blocks > q->reftable_entries) {
		r = grow_reftable(q, q->reftable_entries + blocks_for(q, n) + 2, err);
		return r < 0 ? r : alloc_far(q, n, host, err);
	}
	first = range << q->refblock_bits;
	r = write_blocks(q, first, blocks, n, err);
	if (r < 0)
		return r;
	for (uint64_t b = 0; b < blocks; b++)
		qcow2_set_reftable(q, range + b, (first + b) << q->cluster_bits);
	*host = (first + blocks) << q->cluster_bits;
	qcow2_guard_set(q, first << q->cluster_bits, (blocks + n) << q->cluster_bits, true);
	return 0;
}

/* Makes the refcount block that covers `cluster`, which has none. */
static int new_block(struct qcow2 *q, uint64_t cluster, struct err *err)
{
	uint64_t i = cluster >> q->refblock_bits, host;
	CLEANUP_FREE unsigned char *block = NULL;
	int r;

	if (i >= q->reftable_entries)
		return grow_reftable(q, i + 2, err);
	r = check_growth(q, i << q->refblock_bits, 1, err);
	if (r < 0)
		return r;
	host = i << q->refblock_bits << q->cluster_bits;
	block = calloc(1, q->cluster);
	if (!block)
		return err_nomem(err, q->cluster, "a refcount block");
	refcount_store(block, q->h.refcount_order, 0, 1);
	mcache_drop(&q->cache, host, q->cluster);
	r = io_pwrite(q->img.file, block, q->cluster, host, err);
	if (r < 0) {
		q->stale_tail = true;
		return r;
	}
	qcow2_guard_set(q, host, q->cluster, true);
	qcow2_set_reftable(q, i, host);
	return 0;
}

/* ---- allocation ---- */

/*
 * Looks in one slice, from cluster *c on, for a run of up to n free clusters. Leaves *c at the
 * start of the run, or at the first cluster of the next slice when there is none. Returns the
 * length of the run.
 */
static int free_run(struct qcow2 *q, uint64_t block, uint64_t *c, uint64_t n, uint64_t *run,
		    struct err *err)
{
	uint64_t per_slice = q->cache.slice * 8 >> q->h.refcount_order, i;
	struct mslice *s;
	int r = count_slice(q, block, *c, &s, &i, err);

	if (r < 0)
		return r;
	*c -= i;
	while (i < per_slice && refcount_load(s->data, q->h.refcount_order, i))
		i++;
	*c += i;
	for (*run = 0; i + *run < per_slice && *run < n; ++*run)
		if (refcount_load(s->data, q->h.refcount_order, i + *run))
			break;
	return 0;
}

/* The first free cluster at or after *c and the length (up to n) of the run that it begins. */
static int find_free(struct qcow2 *q, uint64_t *c, uint64_t n, uint64_t *run, struct err *err)
{
	for (;;) {
		uint64_t block;
		int r = qcow2_refcount_block(q, *c, &block, err);

		if (r < 0)
			return r;
		if (!block) {
			r = new_block(q, *c, err);
			if (r < 0)
				return r;
			continue;
		}
		r = free_run(q, block, c, n, run, err);
		if (r < 0 || *run)
			return r;
	}
}

int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *first, uint64_t *got, bool *zeroed,
		struct err *err)
{
	uint64_t c = q->free_hint, run;
	int r = find_free(q, &c, n, &run, err);

	if (r < 0)
		return r;
	r = check_growth(q, c, run, err);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < run; i++) {
		r = qcow2_refcount_add(q, c + i, +1, err);
		if (r < 0) {
			qcow2_unalloc(q, c, i);
			return r;
		}
	}
	/* Only now: what is below c is in use. */
	q->free_hint = c + run;
	*first = c;
	*got = run;
	*zeroed = (q->img.file->caps & IO_GROWS) && !q->stale_tail &&
		  c << q->cluster_bits >= io_size(q->img.file);
	return 0;
}

/* Looks for n free neighbours below limit. Returns 1 and the first; 0: there are none. */
static int run_below(struct qcow2 *q, uint64_t n, uint64_t limit, uint64_t *first, struct err *err)
{
	uint64_t c = q->free_hint, have = 0, block, run;
	bool any = false;
	int r;

	while (c < limit && have < n) {
		r = qcow2_refcount_block(q, c, &block, err);
		if (r == 0 && !block) {
			if (round_up(c + 1, block_entries(q)) > limit)
				return 0; /* a block would take more than it brings */
			r = new_block(q, c, err);
			if (r < 0)
				return r;
			continue;
		}
		if (r == 0)
			r = free_run(q, block, &c, n - have, &run, err);
		if (r < 0)
			return r;
		if (!any)
			q->free_hint = c; /* below it nothing is free */
		any |= run != 0;
		if (run && (!have || c != *first + have)) {
			*first = c;
			have = 0;
		}
		have += run;
		c += run;
	}
	return have == n && *first + n <= limit;
}

int qcow2_take_below(struct qcow2 *q, uint64_t n, uint64_t limit, uint64_t *first, struct err *err)
{
	int r = run_below(q, n, limit, first, err);

	if (r <= 0)
		return r;
	r = check_growth(q, *first, n, err);
	for (uint64_t i = 0; r == 0 && i < n; i++) {
		r = qcow2_refcount_add(q, *first + i, +1, err);
		if (r < 0)
			qcow2_unalloc(q, *first, i);
	}
	if (r < 0)
		return r;
	if (*first == q->free_hint)
		q->free_hint = *first + n;
	return 1;
}

int qcow2_alloc_bytes(struct qcow2 *q, size_t len, uint64_t *host, struct err *err)
{
	uint64_t at = q->coded_at, last = at >> q->cluster_bits, first, got;
	uint64_t room = at ? q->cluster - (at & (q->cluster - 1)) : 0;
	bool zeroed, goes_on = room;
	int r = 0;

	if (len > room) {
		r = qcow2_alloc(q, 1, &first, &got, &zeroed, err);
		if (r < 0)
			return r;
		goes_on = room && first == last + 1;
		*host = first << q->cluster_bits;
	}
	/* The cluster that the last unit ended in; its refcount may be as high as it can be. */
	if (goes_on && qcow2_refcount_add(q, last, +1, NULL) == 0)
		*host = at;
	else if (len <= room) {
		q->coded_at = 0;
		return qcow2_alloc_bytes(q, len, host, err);
	}
	at = *host + len;
	q->coded_at = is_aligned(at, q->cluster) ? 0 : at;
	return 0;
}

/* The first run of exactly n free clusters; n fits between two refcount blocks. */
static int find_run(struct qcow2 *q, uint64_t n, uint64_t *first, struct err *err)
{
	uint64_t have = 0, at = q->free_hint;

	/* What find_free gives ends with its slice: join neighbours. */
	while (have < n) {
		uint64_t c = at, run;
		int r = find_free(q, &c, n - have, &run, err);

		if (r < 0)
			return r;
		if (!have || c != *first + have) {
			*first = c;
			have = 0;
			run = min_u64(run, n);
		}
		have += run;
		at = c + run;
	}
	return 0;
}

int qcow2_alloc_table(struct qcow2 *q, uint64_t n, uint64_t *host, struct err *err)
{
	uint64_t first = 0;
	int r;

	if (n >= block_entries(q) / 2)
		return alloc_far(q, n, host, err);
	r = find_run(q, n, &first, err);
	if (r == 0)
		r = check_growth(q, first, n, err);
	for (uint64_t i = 0; r == 0 && i < n; i++) {
		r = qcow2_refcount_add(q, first + i, +1, err);
		if (r < 0)
			qcow2_unalloc(q, first, i);
	}
	if (r < 0)
		return r;
	if (first == q->free_hint)
		q->free_hint = first + n;
	*host = first << q->cluster_bits;
	mcache_drop(&q->cache, *host, n << q->cluster_bits);
	qcow2_guard_set(q, *host, n << q->cluster_bits, true);
	return 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n)
{
	/* A write that failed half-way may have left bytes past what we take for the end. */
	q->stale_tail = true;
	qcow2_guard_set(q, first << q->cluster_bits, n << q->cluster_bits, false);
	for (uint64_t i = 0; i < n; i++)
		qcow2_refcount_add(q, first + i, -1, NULL); /* failing leaks the cluster */
}

void qcow2_park(struct qcow2 *q, uint64_t first, uint64_t n)
{
	if (q->n_parked + n > q->cap_parked) {
		size_t cap = q->cap_parked * 2 + n + 64;
		uint64_t *p = realloc(q->parked, cap * sizeof(*p));

		if (!p)
			return; /* the clusters leak, which check repairs */
		q->parked = p;
		q->cap_parked = cap;
	}
	while (n--)
		q->parked[q->n_parked++] = first++;
}

void qcow2_entry_clusters(const struct qcow2 *q, struct l2_entry e, uint64_t *first, uint64_t *n)
{
	uint64_t host, len;

	*n = 0;
	if (qcow2_has_data_file(q))
		return;
	if (e.raw & ENTRY_COMPRESSED) {
		host = coded_offset(e.raw, q->cluster_bits);
		len = coded_length(e.raw, q->cluster_bits);
		*first = host >> q->cluster_bits;
		*n = ((host + len - 1) >> q->cluster_bits) - *first + 1;
	} else if (e.raw & ENTRY_OFFSET) {
		*first = (e.raw & ENTRY_OFFSET) >> q->cluster_bits;
		*n = 1;
	}
}

void qcow2_park_entry(struct qcow2 *q, struct l2_entry e)
{
	uint64_t first = 0, n;

	qcow2_entry_clusters(q, e, &first, &n);
	if (n)
		qcow2_park(q, first, n);
}
