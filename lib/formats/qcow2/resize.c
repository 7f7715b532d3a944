// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Resizing a qcow2 disk, under the exclusive gate. The size in the header changes last: growing
 * first makes the new part read as zeros, shrinking first unmaps what goes.
 *
 * Until the size has changed, what goes must not turn into what the backing file holds there. With
 * a backing file its entries become zeros, in tables that stay. Version 2 has no such entries: there
 * the size changes first, and growing looks for what a power cut in between left behind the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"
#include "image/internal.h"
#include "io/file.h"

/* How much is zeroed, unmapped or preallocated between two turns. */
#define PIECE_CLUSTERS 8192

static bool unmaps_late(const struct qcow2 *q)
{
	return q->h.version < 3 && q->img.backing_name;
}

static int turn_if_due(struct qcow2 *q, struct err *err)
{
	return qcow2_pressure(&q->img) ? qcow2_turn(&q->img, err) : 0;
}

/*
 * A larger L1 table in new clusters, switched in the header (I9). The old one is free after the next
 * turn, which makes the switch durable first.
 */
static int grow_l1(struct qcow2 *q, uint64_t need, struct err *err)
{
	uint64_t bytes = need * 8, host, old_host = q->h.l1_offset;
	uint32_t old_n = q->h.l1_size;
	CLEANUP_FREE be64 *l1 = NULL;
	int r;

	if (need <= old_n)
		return 0;
	l1 = calloc(need, 8);
	if (!l1)
		return err_nomem(err, bytes, "the L1 table");
	r = qcow2_alloc_table(q, div_up(bytes, q->cluster), &host, err);
	if (r < 0)
		return r;
	memcpy(l1, q->l1, (uint64_t)old_n * 8);
	r = io_pwrite(q->img.file, l1, bytes, host, err);
	if (r < 0) {
		qcow2_unalloc(q, host >> q->cluster_bits, div_up(bytes, q->cluster));
		return r;
	}
	r = qcow2_quiesce(q, err); /* writes the old table too, in which the same entries stand */
	if (r < 0) {
		qcow2_unalloc(q, host >> q->cluster_bits, div_up(bytes, q->cluster));
		return r;
	}
	q->h.l1_offset = host;
	q->h.l1_size = (uint32_t)need;
	r = header_update(q->img.file, &q->h, err);
	if (r < 0) {
		q->h.l1_offset = old_host;
		q->h.l1_size = old_n;
		atomic_store(&q->img.broken, -r); /* which header is on disk is unknown */
		return r;
	}
	free(q->l1);
	q->l1 = take(l1);
	qcow2_guard_set(q, old_host, (uint64_t)old_n * 8, false);
	if (old_n)
		qcow2_park(q, old_host >> q->cluster_bits, div_up((uint64_t)old_n * 8, q->cluster));
	return 0;
}

/* The new part reads as zeros: what the last cluster held behind the old end, and the backing. */
static int zero_grown(struct qcow2 *q, uint64_t old, uint64_t size, struct err *err)
{
	uint64_t backing = q->img.backing        ? io_size(&q->img.backing->io)
			   : q->img.backing_name ? size
						 : 0;
	uint64_t end = min_u64(size, max_u64(round_up(old, q->cluster), backing));

	while (old < end) {
		uint64_t n = min_u64(end, round_up(old + 1, q->cluster * PIECE_CLUSTERS)) - old;
		int r = img_zero_inner(&q->img, old, n, 0, err);

		if (r == 0)
			r = turn_if_due(q, err);
		if (r < 0)
			return r;
		old += n;
	}
	return 0;
}

/* Whether what is preallocated becomes data, so that the file must hold zeros there. */
static bool prealloc_is_data(const struct qcow2 *q)
{
	return !qcow2_extended(q) || qcow2_keeps_raw(q);
}

/* Host space of one placement, as the mode asks. */
static int fill_space(struct qcow2 *q, const struct placement *p, int mode, struct err *err)
{
	bool clean = p->zeroed || !prealloc_is_data(q);
	struct io *file = q->img.data;
	int r;

	if (mode != PREALLOC_FULL && !clean && qcow2_has_data_file(q))
		return io_zero(file, p->host, p->span,
			       mode == PREALLOC_METADATA ? IO_ZERO_UNMAP : 0, err);
	if (mode == PREALLOC_FULL || !clean) {
		for (uint64_t at = 0; at < p->span; at += ZERO_BUF_SIZE) {
			r = io_pwrite(file, zero_buf, min_u64(ZERO_BUF_SIZE, p->span - at),
				      p->host + at, err);
			if (r < 0)
				return r;
		}
		return 0;
	}
	if (mode == PREALLOC_FALLOC && io_is_file(file))
		return file_allocate(file, p->host, p->span, err);
	if (p->host + p->span > io_size(file))
		return io_resize(file, p->host + p->span, err);
	return 0;
}

static int preallocate(struct qcow2 *q, uint64_t off, uint64_t size, int mode, struct err *err)
{
	while (off < size) {
		uint64_t len = min_u64(size - off, q->cluster * PIECE_CLUSTERS);
		struct placement p;
		int r = qcow2_place(&q->img, off, len, &p, err);

		if (r == 0 && p.fresh) {
			r = fill_space(q, &p, mode, err);
			if (r == 0)
				r = prealloc_is_data(q) ? qcow2_link(&q->img, &p, err)
							: qcow2_link_space(q, &p, err);
			if (r < 0)
				qcow2_unplace(&q->img, &p);
		}
		if (r == 0)
			r = turn_if_due(q, err);
		if (r < 0)
			return r;
		off += p.len;
	}
	return 0;
}

/* Frees the L2 table of [start, …), which by now is ours alone and holds nothing. */
static void free_table(struct qcow2 *q, uint64_t start)
{
	uint64_t i = start >> (q->l2_bits + q->cluster_bits);
	uint64_t l2 = be64_get(q->l1[i]) & ENTRY_OFFSET;

	if (!l2 || (q->img.backing_name && !unmaps_late(q)))
		return;
	mcache_drop(&q->cache, l2, q->cluster);
	qcow2_set_l1(q, i, 0);
	qcow2_park(q, l2 >> q->cluster_bits, 1);
}

/* Unmaps the clusters and whole tables behind the new end. */
static int unmap_tail(struct qcow2 *q, uint64_t size, uint64_t old, struct err *err)
{
	uint64_t covers = UINT64_C(1) << (q->l2_bits + q->cluster_bits);
	uint64_t from = round_up(size, q->cluster), end = round_up(old, q->cluster), did;

	for (uint64_t off = from; off < end; off += did) {
		uint64_t start = round_down(off, covers);
		int r = qcow2_unmap(&q->img, off, end - off, &did, err);

		if (r == 0 && start >= from && (off + did == end || off + did == start + covers))
			free_table(q, start);
		if (r == 0)
			r = turn_if_due(q, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int set_size(struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t old = q->h.size;
	int r = qcow2_quiesce(q, err);

	if (r < 0)
		return r;
	q->h.size = size;
	r = header_update(q->img.file, &q->h, err);
	if (r == 0)
		r = qcow2_flush(q, BARRIER_SIZE, err);
	if (r < 0) {
		q->h.size = old;
		return r;
	}
	q->img.io.size = size;
	return 0;
}

static int grow(struct qcow2 *q, uint64_t size, int mode, struct err *err)
{
	uint64_t old = q->h.size;
	int r = grow_l1(q, header_l1_entries(&q->h, size), err);

	if (r < 0)
		return r;
	/* Then the file by itself reads as the disk does: all of it is mapped. */
	if (qcow2_keeps_raw(q) && mode == PREALLOC_OFF)
		mode = PREALLOC_METADATA;
	q->img.io.size = size; /* in memory: zeroing and placing look at it */
	if (unmaps_late(q))
		r = unmap_tail(q, old, size, err);
	if (r == 0)
		r = zero_grown(q, old, size, err);
	if (r == 0 && mode != PREALLOC_OFF)
		r = preallocate(q, round_up(old, q->cluster), size, mode, err);
	if (r == 0 && qcow2_has_data_file(q))
		r = qcow2_data_resize(q, size, err);
	if (r == 0)
		r = set_size(q, size, err);
	if (r < 0)
		q->img.io.size = old;
	return r;
}

int qcow2_reach(struct img *img, uint64_t end, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t need = header_l1_entries(&q->h, end), old = io_size(&img->io);
	int r = 0;

	if (end > header_max_size(&q->h))
		return err_set(err, EFBIG,
			       "%s: clusters of %" PRIu64 " bytes cannot reach %" PRIu64 " bytes",
			       img->io.name, q->cluster, end);
	if ((img->io.caps & IO_RDONLY) && need > q->h.l1_size)
		return io_corrupt(img->file, err, q->h.snapshots_offset,
				  "a snapshot's L1 table has %" PRIu32 " entries, %" PRIu64
				  " are needed",
				  q->h.l1_size, need);
	if (!(img->io.caps & IO_RDONLY)) {
		r = q->writing ? 0 : qcow2_begin_write(q, err);
		if (r == 0 && end < old)
			r = unmap_tail(q, end, old, err);
		if (r == 0)
			r = grow_l1(q, need, err);
	}
	if (r == 0)
		img->io.size = end;
	return r;
}

int qcow2_truncate_file(struct qcow2 *q, struct err *err)
{
	uint64_t size = io_size(q->img.file), end;
	int r;

	if (!(q->img.file->caps & IO_GROWS))
		return 0;
	r = qcow2_used_end(q, div_up(size, q->cluster), &end, err);
	if (r < 0 || end << q->cluster_bits >= size)
		return r;
	return io_resize(q->img.file, end << q->cluster_bits, err);
}

static int shrink(struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t old = q->h.size;
	int r = unmaps_late(q) ? set_size(q, size, err) : 0;

	if (r == 0)
		r = unmap_tail(q, size, old, err);
	if (r == 0)
		r = unmaps_late(q) ? qcow2_quiesce(q, err) : set_size(q, size, err);
	if (r == 0 && qcow2_has_data_file(q))
		r = qcow2_data_resize(q, size, err);
	return r < 0 ? r : qcow2_truncate_file(q, err);
}

int qcow2_may_resize(struct qcow2 *q, uint64_t size, unsigned version, int mode, struct err *err)
{
	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why);
	if (size % 512)
		return err_set(err, EINVAL, "The new size must be a multiple of 512");
	if (q->h.nb_snapshots && version < 3)
		return err_set(err, ENOTSUP, "Can't resize a v2 image which has snapshots");
	if (mode != PREALLOC_OFF && size < q->h.size)
		return err_set(err, EINVAL, "Preallocation can't be used for shrinking an image");
	if (size > header_max_size(&q->h))
		return err_set(err, EFBIG,
			       "%s: %" PRIu64 " bytes are too large for clusters of %" PRIu64
			       " bytes",
			       q->img.io.name, size, q->cluster);
	return 0;
}

int qcow2_resize(struct img *img, uint64_t size, int prealloc, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = q->h.size;
	int r = qcow2_may_resize(q, size, q->h.version, prealloc, err), bitmaps;

	if (r == 0 && !q->writing)
		r = qcow2_begin_write(q, err);
	if (r < 0 || size == old)
		return r;
	r = qcow2_bitmaps_begin_resize(q, size, err);
	if (r < 0)
		return r;
	r = size > old ? grow(q, size, prealloc, err) : shrink(q, size, err);
	bitmaps = qcow2_bitmaps_end_resize(q, r < 0 ? NULL : err);
	r = r < 0 ? r : bitmaps;
	if (r < 0 && r != -ENOSPC && r != -ENOMEM)
		img_note_failure(img, r);
	return r;
}
