// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Compaction: refcount blocks, and what the header or a snapshot names: refcount table, active L1
 * table, snapshot table, L1 tables of snapshots.
 *
 * Nothing is dirty in memory when one of these is copied, and nothing changes before the pointer to
 * it is durable: the copy is what the next turn goes on with.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/compact.h"

/* Copies [from, from+len) of the file. */
static int copy_bytes(struct qcow2 *q, uint64_t from, uint64_t to, uint64_t len, struct err *err)
{
	CLEANUP_FREE void *buf = malloc(len ? len : 1);
	int r;

	if (!buf)
		return err_nomem(err, len, "a table");
	r = io_pread_tail(q->img.file, buf, len, from, err);
	return r < 0 ? r : io_pwrite(q->img.file, buf, len, to, err);
}

/* ---- refcount blocks ---- */

static uint64_t block_of(const struct qcow2 *q, uint64_t i)
{
	return (be64_get(q->reftable[i]) & REFTABLE_OFFSET) >> q->cluster_bits;
}

/* Places for blocks that lie too far behind. to: cluster for each entry of the table, or 0. */
static int place_blocks(struct compact *c, uint64_t *to, uint64_t *n, struct err *err)
{
	struct qcow2 *q = c->q;

	for (uint64_t i = 0; i < q->reftable_entries; i++) {
		int r;

		if (block_of(q, i) < max_u64(c->used, 1))
			continue;
		r = qcow2_take_below(q, 1, block_of(q, i), &to[i], err);
		if (r < 0)
			return r;
		*n += r > 0;
	}
	return 0;
}

static void give_back(struct compact *c, const uint64_t *to)
{
	for (uint64_t i = 0; i < c->q->reftable_entries; i++)
		if (to[i])
			qcow2_unalloc(c->q, to[i], 1);
}

static int copy_blocks(struct compact *c, const uint64_t *to, struct err *err)
{
	struct qcow2 *q = c->q;
	int r = qcow2_quiesce(q, err);

	for (uint64_t i = 0; r == 0 && i < q->reftable_entries; i++)
		if (to[i])
			r = copy_bytes(q, block_of(q, i) << q->cluster_bits,
				       to[i] << q->cluster_bits, q->cluster, err);
	return r;
}

/* Switches the table's entries; old: the clusters that are free when that is durable. */
static void switch_blocks(struct compact *c, uint64_t *to)
{
	struct qcow2 *q = c->q;

	for (uint64_t i = 0; i < q->reftable_entries; i++) {
		uint64_t old = block_of(q, i), new = to[i];

		if (!new)
			continue;
		mcache_drop(&q->cache, old << q->cluster_bits, q->cluster);
		mcache_drop(&q->cache, new << q->cluster_bits, q->cluster);
		qcow2_set_reftable(q, i, new << q->cluster_bits);
		qcow2_guard_set(q, old << q->cluster_bits, q->cluster, false);
		qcow2_guard_set(q, new << q->cluster_bits, q->cluster, true);
		to[i] = old;
	}
}

int compact_move_blocks(struct compact *c, struct err *err)
{
	struct qcow2 *q = c->q;
	CLEANUP_FREE uint64_t *to = calloc(q->reftable_entries + 1, sizeof(*to));
	uint64_t n = 0;
	int r;

	if (!to)
		return err_nomem(err, q->reftable_entries * sizeof(*to), "refcount blocks");
	r = place_blocks(c, to, &n, err);
	if (r == 0 && n)
		r = copy_blocks(c, to, err);
	if (r < 0)
		give_back(c, to);
	if (r < 0 || !n)
		return r;
	switch_blocks(c, to);
	r = qcow2_quiesce(q, err);
	for (uint64_t i = 0; r == 0 && i < q->reftable_entries; i++)
		if (to[i])
			r = qcow2_refcount_add(q, to[i], -1, err);
	c->res->moved += n << q->cluster_bits;
	return r;
}

/* Whether nothing but the block itself is in use in the stretch that it covers. */
static int stretch_empty(struct qcow2 *q, uint64_t i, struct err *err)
{
	uint64_t per = UINT64_C(1) << q->refblock_bits, count;

	for (uint64_t k = i * per; k < (i + 1) * per; k++) {
		int r = k == block_of(q, i) ? 0 : qcow2_refcount_get(q, k, &count, err);

		if (r < 0 || (k != block_of(q, i) && count))
			return r;
	}
	return 1;
}

/* Takes the entry of an empty stretch out of the table. */
static int drop_block(struct qcow2 *q, uint64_t i, struct err *err)
{
	uint64_t k = block_of(q, i);
	int r = qcow2_quiesce(q, err);

	if (r < 0)
		return r;
	qcow2_set_reftable(q, i, 0);
	mcache_drop(&q->cache, k << q->cluster_bits, q->cluster);
	qcow2_guard_set(q, k << q->cluster_bits, q->cluster, false);
	r = qcow2_quiesce(q, err);
	if (r == 0 && k >> q->refblock_bits != i) /* else its refcount went with it */
		r = qcow2_refcount_add(q, k, -1, err);
	return r;
}

int compact_drop_blocks(struct compact *c, struct err *err)
{
	struct qcow2 *q = c->q;

	for (uint64_t i = q->reftable_entries; i > 0; i--) {
		int r;

		if (!block_of(q, i - 1) || (i - 1) << q->refblock_bits < c->used)
			continue;
		r = stretch_empty(q, i - 1, err);
		if (r > 0)
			r = drop_block(q, i - 1, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- regions ---- */

bool compact_too_far(const struct compact *c, const struct region *r)
{
	return r->len && div_up(r->host + r->len, c->q->cluster) > c->used;
}

int compact_copy_region(struct compact *c, const struct region *old, uint64_t *to, struct err *err)
{
	struct qcow2 *q = c->q;
	uint64_t n = div_up(old->len, q->cluster), first, host;
	int r = qcow2_take_below(q, n, old->host >> q->cluster_bits, &first, err);

	if (r <= 0)
		return r;
	host = first << q->cluster_bits;
	r = copy_bytes(q, old->host, host, old->len, err);
	if (r < 0) {
		qcow2_unalloc(q, first, n);
		return r;
	}
	mcache_drop(&q->cache, host, n << q->cluster_bits);
	qcow2_guard_set(q, host, n << q->cluster_bits, true);
	*to = host;
	return 1;
}

int compact_drop_region(struct compact *c, const struct region *old, struct err *err)
{
	struct qcow2 *q = c->q;
	uint64_t n = div_up(old->len, q->cluster);
	int r = 0;

	qcow2_guard_set(q, old->host, old->len, false);
	for (uint64_t i = 0; r == 0 && i < n; i++)
		r = qcow2_refcount_add(q, (old->host >> q->cluster_bits) + i, -1, err);
	if (r == 0)
		c->res->moved += n << q->cluster_bits;
	return r;
}

/* What is copied and counted becomes durable; then the header, in one sector, names it. */
static int switch_header(struct compact *c, const struct header *new, struct err *err)
{
	struct qcow2 *q = c->q;
	struct header old = q->h;
	int r = qcow2_quiesce(q, err);

	if (r < 0)
		return r;
	q->h.l1_offset = new->l1_offset;
	q->h.reftable_offset = new->reftable_offset;
	q->h.snapshots_offset = new->snapshots_offset;
	r = header_update(q->img.file, &q->h, err);
	if (r < 0) { /* which of the two is on disk is unknown */
		q->h = old;
		atomic_store(&q->img.broken, -r);
		return r;
	}
	return qcow2_flush(q, BARRIER_SNAPSHOTS, err);
}

/* Refcount table and active L1 table. */
static int move_header_tables(struct compact *c, struct err *err)
{
	struct qcow2 *q = c->q;
	struct region l1 = {q->h.l1_offset, (uint64_t)q->h.l1_size * 8};
	struct region table = {q->h.reftable_offset, q->reftable_entries * 8};
	struct header new = q->h;
	int a = 0, b = 0, r = 0;

	if (compact_too_far(c, &l1))
		a = compact_copy_region(c, &l1, &new.l1_offset, err);
	/*
	 * The copy of the table is good only if no entry changes, as taking space may do: then the
	 * next iteration moves it.
	 */
	if (a >= 0 && compact_too_far(c, &table)) {
		b = compact_copy_region(c, &table, &new.reftable_offset, err);
		if (b > 0 && q->reftable_dirty.first < q->reftable_dirty.end) {
			qcow2_unalloc(q, new.reftable_offset >> q->cluster_bits,
				      div_up(table.len, q->cluster));
			new.reftable_offset = table.host;
			b = 0;
		}
	}
	if (a > 0 || b > 0)
		r = switch_header(c, &new, b < 0 ? NULL : err);
	if (r == 0 && a > 0)
		r = compact_drop_region(c, &l1, err);
	if (r == 0 && b > 0)
		r = compact_drop_region(c, &table, err);
	return a < 0 ? a : b < 0 ? b : r;
}

/* ---- snapshots: their table names their L1 tables, so it moves when one of them does ---- */

struct moved_snapshots {
	struct region *old; /* owned: the L1 tables that moved, then the snapshot table */
	unsigned n;
	struct qcow2_snapshot *disk; /* owned: with the new places */
	unsigned char *bytes;        /* owned: the new table */
	struct region table;
};

/* On failure, or when the table finds no place: as if nothing had been taken. */
static void undo_snapshots(struct compact *c, const struct moved_snapshots *m)
{
	struct qcow2 *q = c->q;

	for (unsigned i = 0; i < q->h.nb_snapshots; i++)
		if (m->disk[i].l1_offset != q->snap_disk[i].l1_offset)
			qcow2_unalloc(q, m->disk[i].l1_offset >> q->cluster_bits,
				      div_up((uint64_t)m->disk[i].l1_size * 8, q->cluster));
}

static int copy_snapshot_l1s(struct compact *c, struct moved_snapshots *m, struct err *err)
{
	struct qcow2 *q = c->q;

	for (unsigned i = 0; i < q->h.nb_snapshots; i++) {
		const struct qcow2_snapshot *d = &q->snap_disk[i];
		struct region l1 = {d->l1_offset, (uint64_t)d->l1_size * 8};
		int r = compact_too_far(c, &l1)
				? compact_copy_region(c, &l1, &m->disk[i].l1_offset, err)
				: 0;

		if (r < 0)
			return r;
		if (r > 0)
			m->old[m->n++] = l1;
	}
	return 0;
}

/* A new snapshot table in front of the old one, or, when L1 tables moved, anywhere in front. */
static int write_snapshot_table(struct compact *c, struct moved_snapshots *m, struct err *err)
{
	struct qcow2 *q = c->q;
	uint64_t end = div_up(q->h.snapshots_offset + q->snaptable_bytes, q->cluster), first, n;
	int r = qcow2_snapshots_encode(q->snap, m->disk, q->h.nb_snapshots, &m->bytes,
				       &m->table.len, err);

	n = div_up(m->table.len, q->cluster);
	/* Tables of other programs may be shorter than ours would be. */
	if (r == 0)
		r = qcow2_take_below(q, n, m->n ? max_u64(end, c->used) : end, &first, err);
	if (r <= 0)
		return r;
	m->table.host = first << q->cluster_bits;
	r = io_pwrite(q->img.file, m->bytes, m->table.len, m->table.host, err);
	if (r < 0) {
		qcow2_unalloc(q, first, n);
		return r;
	}
	mcache_drop(&q->cache, m->table.host, n << q->cluster_bits);
	qcow2_guard_set(q, m->table.host, n << q->cluster_bits, true);
	return 1;
}

static int switch_snapshots(struct compact *c, struct moved_snapshots *m, struct err *err)
{
	struct qcow2 *q = c->q;
	struct header new = q->h;
	int r;

	m->old[m->n++] = (struct region){q->h.snapshots_offset, q->snaptable_bytes};
	new.snapshots_offset = m->table.host;
	r = switch_header(c, &new, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < q->h.nb_snapshots; i++)
		q->snap_disk[i].l1_offset = m->disk[i].l1_offset;
	q->snaptable_bytes = m->table.len;
	for (unsigned i = 0; r == 0 && i < m->n; i++)
		r = compact_drop_region(c, &m->old[i], err);
	return r;
}

static int move_snapshots(struct compact *c, struct err *err)
{
	struct qcow2 *q = c->q;
	struct region table = {q->h.snapshots_offset, q->snaptable_bytes};
	CLEANUP_FREE struct qcow2_snapshot *disk = NULL;
	CLEANUP_FREE struct region *old = NULL;
	struct moved_snapshots m = {0};
	int r;

	if (!q->h.nb_snapshots)
		return 0;
	m.disk = disk = malloc(q->h.nb_snapshots * sizeof(*disk));
	m.old = old = malloc((q->h.nb_snapshots + 1) * sizeof(*old));
	if (!disk || !old)
		return err_nomem(err, q->h.nb_snapshots * sizeof(*disk), "the snapshot list");
	memcpy(disk, q->snap_disk, q->h.nb_snapshots * sizeof(*disk));
	r = copy_snapshot_l1s(c, &m, err);
	if (r == 0 && (m.n || compact_too_far(c, &table)))
		r = write_snapshot_table(c, &m, err);
	if (r > 0)
		r = switch_snapshots(c, &m, err);
	else
		undo_snapshots(c, &m);
	free(m.bytes);
	return r;
}

int compact_move_regions(struct compact *c, struct err *err)
{
	int r = qcow2_quiesce(c->q, err);

	if (r == 0)
		r = move_header_tables(c, err);
	if (r == 0)
		r = qcow2_quiesce(c->q, err);
	if (r == 0)
		r = move_snapshots(c, err);
	if (r == 0)
		r = qcow2_quiesce(c->q, err);
	return r < 0 ? r : compact_move_bitmaps(c, err);
}
