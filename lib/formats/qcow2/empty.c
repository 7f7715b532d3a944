// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Emptying a layer, when its data has gone to its backing file: no table, no cluster, a short file.
 * Under the exclusive gate.
 *
 * At every step the disk reads the same, as long as the backing file holds what the layer held: an L1
 * entry either leads to the old table, or to nothing. Snapshots keep what they refer to.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/qcow2.h"
#include "image/internal.h"

/*
 * Gives up what the entries of one slice, from guest offset `guest` on, refer to. The slice itself
 * stays as it is.
 */
static int free_slice(struct qcow2 *q, uint64_t host, uint64_t guest, be64 *copy, struct err *err)
{
	struct mslice *s;
	int r = mcache_get(&q->cache, host, "L2 table", &s, err);

	if (r < 0)
		return r;
	/* Looking at entries may push the slice out of the cache. */
	memcpy(copy, s->data, q->cache.slice);
	for (unsigned i = 0; r == 0 && i < qcow2_slice_entries(q); i++) {
		struct l2_entry e = qcow2_entry_load(q, copy, i);

		if (!e.raw && !e.zero && !e.alloc)
			continue;
		r = qcow2_guard_entry(q, e, host + (uint64_t)i * qcow2_entry_bytes(q), err);
		if (r == 0)
			qcow2_free_entry(q, e, guest + ((uint64_t)i << q->cluster_bits));
	}
	return r;
}

/* Removes table i from the tree. A table that a snapshot refers to as well only loses a reference. */
static int drop_table(struct qcow2 *q, uint64_t i, be64 *copy, struct err *err)
{
	bool own = be64_get(q->l1[i]) & ENTRY_COPIED;
	uint64_t guest = i << (q->l2_bits + q->cluster_bits);
	uint64_t l2;
	int r = qcow2_l2_offset(q, i, &l2, err);

	if (r < 0 || !l2)
		return r;
	for (uint64_t at = 0; r == 0 && at < q->cluster; at += q->cache.slice)
		r = free_slice(q, l2 + at, guest + (at / qcow2_entry_bytes(q) << q->cluster_bits),
			       copy, err);
	if (r < 0)
		return r;
	if (own)
		mcache_drop(&q->cache, l2, q->cluster);
	qcow2_set_l1(q, i, 0);
	if (!own)
		qcow2_guard_set(q, l2, q->cluster, true);
	qcow2_park(q, l2 >> q->cluster_bits, 1);
	return 0;
}

static int drop_tables(struct qcow2 *q, struct err *err)
{
	CLEANUP_FREE be64 *copy = malloc(q->cache.slice);

	if (!copy)
		return err_nomem(err, q->cache.slice, "a table");
	for (uint64_t i = 0; i < q->h.l1_size; i++) {
		int r = drop_table(q, i, copy, err);

		if (r == 0 && qcow2_pressure(&q->img))
			r = qcow2_turn(&q->img, err);
		if (r < 0)
			return r;
	}
	return qcow2_quiesce(q, err);
}

/*
 * Refcount blocks that lie at the end of the file and count nothing but themselves hold it at its
 * length. The cluster of such a block is free as soon as the table does not name it.
 */
static int drop_last_blocks(struct qcow2 *q, struct err *err)
{
	uint64_t end = div_up(io_size(q->img.file), q->cluster), before;

	for (;;) {
		uint64_t i, block;
		int r = qcow2_used_end(q, end, &end, err);

		if (r < 0 || !end)
			return r;
		i = (end - 1) >> q->refblock_bits;
		block = be64_get(q->reftable[i]) & REFTABLE_OFFSET;
		r = qcow2_used_end(q, end - 1, &before, err);
		if (r < 0)
			return r;
		if (block >> q->cluster_bits != end - 1 || before > i << q->refblock_bits)
			return 0;
		qcow2_set_reftable(q, i, 0);
		mcache_drop(&q->cache, block, q->cluster);
		qcow2_guard_set(q, block, q->cluster, false);
		end = before;
	}
}

int qcow2_empty(struct img *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int r = 0;

	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", img->io.name, q->unreadable_why);
	if (!q->writing)
		r = qcow2_begin_write(q, err);
	if (r == 0)
		r = drop_tables(q, err);
	if (r == 0)
		r = drop_last_blocks(q, err);
	if (r == 0)
		r = qcow2_quiesce(q, err);
	if (r == 0)
		r = qcow2_truncate_file(q, err);
	if (r < 0)
		img_note_failure(img, r);
	return r;
}
