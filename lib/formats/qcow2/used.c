// SPDX-License-Identifier: LGPL-2.1-or-later
/* How many clusters of the file are in use: a walk over the refcount blocks. */
#include "base/cleanup.h"
#include "formats/qcow2/qcow2.h"

/* Clusters in use among the first n of a slice. */
static uint64_t count_slice(const struct qcow2 *q, const struct mslice *s, uint64_t n)
{
	uint64_t used = 0;

	if (q->h.refcount_order == 4) { /* nearly all images: a loop that the compiler vectorises */
		const be16 *count = (const be16 *)(const void *)s->data;

		for (uint64_t i = 0; i < n; i++)
			used += (count[i].b[0] | count[i].b[1]) != 0;
		return used;
	}
	for (uint64_t i = 0; i < n; i++)
		used += refcount_load(s->data, q->h.refcount_order, i) != 0;
	return used;
}

/* The refcount table: a read-only image has not read it yet. *own is to be freed. */
static int get_reftable(struct qcow2 *q, const be64 **table, uint64_t *entries, be64 **own,
			struct err *err)
{
	int r;

	*entries = (uint64_t)q->h.reftable_clusters << q->cluster_bits >> 3;
	if (q->reftable) {
		*table = q->reftable;
		*entries = q->reftable_entries;
		return 0;
	}
	r = qcow2_read_table(q, q->h.reftable_offset, *entries, "refcount table", own, err);
	*table = *own;
	return r;
}

int qcow2_count_used(struct img *img, uint64_t limit, uint64_t *n, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t end = div_up(io_size(img->file), q->cluster), entries;
	uint64_t per_block = UINT64_C(1) << q->refblock_bits;
	uint64_t per_slice = q->cache.slice * 8 >> q->h.refcount_order;
	CLEANUP_FREE be64 *own = NULL;
	const be64 *table;
	int r = get_reftable(q, &table, &entries, &own, err);

	*n = 0;
	for (uint64_t c = 0; r == 0 && c < end && *n < limit;) {
		uint64_t i = c >> q->refblock_bits, in_block = c & (per_block - 1), block;
		struct mslice *s;

		block = i < entries ? be64_get(table[i]) & REFTABLE_OFFSET : 0;
		if (!block || !is_aligned(block, q->cluster)) { /* the rest of it counts as free */
			c += per_block - in_block;
			continue;
		}
		r = mcache_get(&q->cache, block + in_block / per_slice * q->cache.slice,
			       "refcount block", &s, err);
		if (r == 0)
			*n += count_slice(q, s, min_u64(per_slice, end - c));
		c += per_slice;
	}
	return r;
}
