// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Write-back of qcow2 metadata in crash order; the phases and invariants are in qcow2.h. Everything
 * here runs under the exclusive gate: no cluster is between place and link.
 */
#include <errno.h>
#include <stdlib.h>

#include "formats/qcow2/bitmap.h"

/* Bounds of what may be dirty before a turn is asked for. */
#define MAX_DIRTY_BYTES (4 * MiB)
#define MAX_PARKED      65536

#define SECTOR_ENTRIES 64 /* be64 in the 512 bytes that a disk writes as one */

#ifdef QCOW2_LEAVE_OUT
/* For the crash sweep, which must notice each flush that is missing. */
unsigned qcow2_left_out;
#define LEFT_OUT(barrier) ((barrier) == qcow2_left_out)
#else
#define LEFT_OUT(barrier) false
#endif

int qcow2_flush(struct qcow2 *q, enum barrier barrier, struct err *err)
{
	struct io *io = barrier == BARRIER_DATA ? q->img.data : q->img.file;
	/* The file may be one that others flush, or nobody: an image that is being made. */
	bool unsafe = q->img.open_flags & IMG_UNSAFE;
	int r = LEFT_OUT(barrier) || unsafe ? 0 : io_flush(io, err);

	if (r < 0)
		atomic_store(&q->img.broken, -r);
	return r;
}

static void note_sector(struct dirty_sectors *d, uint64_t entry)
{
	uint64_t sector = entry / SECTOR_ENTRIES;

	if (d->first >= d->end) {
		*d = (struct dirty_sectors){sector, sector + 1};
		return;
	}
	d->first = min_u64(d->first, sector);
	d->end = max_u64(d->end, sector + 1);
}

void qcow2_set_l1(struct qcow2 *q, uint64_t i, uint64_t value)
{
	uint64_t old = be64_get(q->l1[i]) & ENTRY_OFFSET;

	if (old && old != (value & ENTRY_OFFSET))
		qcow2_guard_set(q, old, q->cluster, false);
	q->l1[i] = be64_make(value);
	note_sector(&q->l1_dirty, i);
}

void qcow2_set_reftable(struct qcow2 *q, uint64_t i, uint64_t value)
{
	q->reftable[i] = be64_make(value);
	note_sector(&q->reftable_dirty, i);
}

static int write_sectors(struct qcow2 *q, const be64 *table, uint64_t entries, uint64_t host,
			 struct dirty_sectors *d, struct err *err)
{
	uint64_t first = d->first * SECTOR_ENTRIES;
	uint64_t end = min_u64(d->end * SECTOR_ENTRIES, entries);
	int r;

	if (d->first >= d->end)
		return 0;
	r = io_pwrite(q->img.file, table + first, (end - first) * 8, host + first * 8, err);
	if (r == 0)
		*d = (struct dirty_sectors){0};
	return r;
}

int qcow2_write_l1(struct qcow2 *q, struct err *err)
{
	return write_sectors(q, q->l1, q->h.l1_size, q->h.l1_offset, &q->l1_dirty, err);
}

bool qcow2_pressure(struct img *img)
{
	const struct qcow2 *q = qcow2_of(img);
	size_t dirty = q->cache.n_dirty[CLASS_L2] + q->cache.n_dirty[CLASS_REFCOUNT];

	return dirty * q->cache.slice > MAX_DIRTY_BYTES || q->n_parked > MAX_PARKED ||
	       q->punches.n > MAX_PARKED;
}

/* Refcount blocks, then the table entries of new ones (I3). */
static int write_refcounts(struct qcow2 *q, struct err *err)
{
	int r = mcache_write(&q->cache, CLASS_REFCOUNT, err);

	if (r < 0 || q->reftable_dirty.first >= q->reftable_dirty.end)
		return r;
	r = qcow2_flush(q, BARRIER_BLOCKS, err);
	if (r < 0)
		return r;
	return write_sectors(q, q->reftable, q->reftable_entries, q->h.reftable_offset,
			     &q->reftable_dirty, err);
}

/* With lazy refcounts the dirty bit is set, so refcounts may stay behind until settle. */
static bool refcounts_may_wait(const struct qcow2 *q)
{
	return (q->h.incompat & INCOMPAT_DIRTY) &&
	       q->cache.n_dirty[CLASS_REFCOUNT] * q->cache.slice < MAX_DIRTY_BYTES / 2;
}

/* Gives [first, end) back to the file system. A hint: what it answers does not matter. */
static void punch(struct qcow2 *q, uint64_t first, uint64_t end)
{
	uint64_t host = first << q->cluster_bits, size = io_size(q->img.file);

	if (first < end && host < size)
		io_discard(q->img.file, host,
			   min_u64((end - first) << q->cluster_bits, size - host), NULL);
}

void qcow2_punch_later(struct qcow2 *q, uint64_t host, uint64_t len)
{
	ranges_add(&q->punches, host, len); /* without memory the space stays taken */
}

void qcow2_punch_not(struct qcow2 *q, uint64_t host, uint64_t len)
{
	if (ranges_remove(&q->punches, host, len) < 0)
		ranges_clear(&q->punches);
}

static void punch_ranges(struct qcow2 *q)
{
	struct io *io = q->img.data;
	uint64_t size = io_size(io);

	ranges_for_each (f, &q->punches)
		if (f->off < size)
			io_discard(io, f->off, min_u64(f->len, size - f->off), NULL);
	ranges_clear(&q->punches);
}

/* The end of a turn: no pointer on disk leads to these any more (I4, I5). */
static int release_parked(struct qcow2 *q, struct err *err)
{
	uint64_t run = 0, run_end = 0; /* clusters that became free, not punched yet */
	int r = 0;

	for (size_t i = 0; i < q->n_parked; i++) {
		uint64_t c = q->parked[i], count = 1;
		int k = qcow2_refcount_add(q, c, -1, r < 0 ? NULL : err);

		r = r < 0 ? r : k;
		if (k == 0)
			k = qcow2_refcount_get(q, c, &count, NULL);
		if (k < 0 || count)
			continue;
		if (c != run_end) {
			punch(q, run, run_end);
			run = c;
		}
		run_end = c + 1;
	}
	punch(q, run, run_end);
	q->n_parked = 0;
	punch_ranges(q);
	return r;
}

int qcow2_turn(struct img *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	bool pointers = q->cache.n_dirty[CLASS_L2] || q->l1_dirty.first < q->l1_dirty.end;
	int r = 0;

	if (!refcounts_may_wait(q))
		r = write_refcounts(q, err);
	if (r == 0)
		r = qcow2_flush(q, BARRIER_REFCOUNTS, err);
	if (r == 0 && qcow2_has_data_file(q))
		r = qcow2_flush(q, BARRIER_DATA, err);
	if (r < 0)
		return r;
	if (pointers) {
		r = mcache_write(&q->cache, CLASS_L2, err);
		if (r == 0)
			r = qcow2_write_l1(q, err);
		if (r == 0)
			r = qcow2_flush(q, BARRIER_POINTERS, err);
		if (r < 0)
			return r;
	}
	return release_parked(q, err);
}

int qcow2_quiesce(struct qcow2 *q, struct err *err)
{
	int r = qcow2_turn(&q->img, err);

	if (r < 0 ||
	    (!q->cache.n_dirty[CLASS_REFCOUNT] && q->reftable_dirty.first >= q->reftable_dirty.end))
		return r;
	r = write_refcounts(q, err);
	return r < 0 ? r : qcow2_flush(q, BARRIER_SETTLED, err);
}

int qcow2_set_dirty_bit(struct qcow2 *q, bool dirty, struct err *err)
{
	uint64_t old = q->h.incompat;
	int r;

	if (q->h.version < 3 || !(old & INCOMPAT_DIRTY) == !dirty)
		return 0;
	q->h.incompat = dirty ? old | INCOMPAT_DIRTY : old & ~INCOMPAT_DIRTY;
	r = header_update(q->img.file, &q->h, err);
	if (r == 0)
		r = qcow2_flush(q, BARRIER_DIRTY, err);
	if (r < 0)
		q->h.incompat = old;
	return r;
}

/*
 * A write that filled its last cluster only in part left a file that ends there. Our reader and QEMU's
 * take the rest for zeros; others (7-Zip) miss it.
 */
static int complete_last_cluster(struct qcow2 *q, struct err *err)
{
	struct io *file = q->img.file;
	uint64_t size = io_size(file), whole = round_up(size, q->cluster);

	return size == whole || !(file->caps & IO_GROWS) ? 0 : io_resize(file, whole, err);
}

int qcow2_settle(struct img *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int r = complete_last_cluster(q, err);

	if (r == 0)
		r = qcow2_quiesce(q, err);
	if (r == 0)
		r = qcow2_bitmaps_store(q, err);
	if (r == 0)
		r = qcow2_set_dirty_bit(q, false, err);
	/* The next write has to announce itself again. */
	q->writing = false;
	return r;
}
