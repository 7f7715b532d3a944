// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The guard: a bitmap of the host clusters that hold metadata in use, so that a pointer to them in
 * a damaged or hostile table is noticed before guest data overwrites them, or before they are given
 * back as if they had been data. It knows the header, the refcount table and its blocks, the active
 * L1 table, its L2 tables, the snapshot table and the L1 tables of snapshots; not the L2 tables of
 * snapshots alone, whose number has no bound. Of bitmaps it knows the directory and the tables, and the
 * clusters of bits of those that are to be changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"

/* Clusters above are not guarded: 64 TiB of 64 KiB clusters. It bounds what a sparse file costs. */
#define GUARD_MAX (UINT64_C(1) << 30)

bool qcow2_guarded(const struct qcow2 *q, uint64_t host, uint64_t len)
{
	uint64_t c = host >> q->cluster_bits, end = (host + len - 1) >> q->cluster_bits;

	for (; c <= end && c < q->guard_clusters; c++)
		if (bit_get(q->guard, c))
			return true;
	return false;
}

/* Grows the bitmap to hold cluster `last`. Without memory the guard just does not see it. */
static bool reach(struct qcow2 *q, uint64_t last)
{
	uint64_t n = round_up(last + 1 + last / 8, 4096);
	unsigned char *p;

	if (last < q->guard_clusters)
		return true;
	/* New pages of zeros take memory only where a bit is set. */
	p = last < GUARD_MAX ? calloc(1, n / 8) : NULL;
	if (!p)
		return false;
	if (q->guard)
		memcpy(p, q->guard, q->guard_clusters / 8);
	free(q->guard);
	q->guard = p;
	q->guard_clusters = n;
	return true;
}

void qcow2_guard_set(struct qcow2 *q, uint64_t host, uint64_t len, bool metadata)
{
	uint64_t c = host >> q->cluster_bits, end = (host + len - 1) >> q->cluster_bits;

	/* An offset beyond the file is corrupt and never written to; it must not cost memory. */
	if (!len || (end << q->cluster_bits) > io_size(q->img.file) + 64 * q->cluster)
		return;
	if (metadata && !reach(q, end))
		return;
	for (; c <= end && c < q->guard_clusters; c++) {
		unsigned char bit = (unsigned char)(1U << (c % 8));

		if (metadata)
			q->guard[c / 8] |= bit;
		else
			q->guard[c / 8] &= (unsigned char)~bit;
	}
}

int qcow2_guard_claim(struct qcow2 *q, uint64_t host, uint64_t len, const char *what,
		      struct err *err)
{
	if (len && qcow2_guarded(q, host, len))
		return qcow2_mark_corrupt(q, host, err, "%s overlaps other metadata", what);
	qcow2_guard_set(q, host, len, true);
	return 0;
}

/* A cluster for each entry of a table. Misaligned ones are refused where they are used. */
static int claim_all(struct qcow2 *q, const be64 *table, uint64_t n, uint64_t mask,
		     const char *what, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < n; i++) {
		uint64_t host = be64_get(table[i]) & mask;

		if (host && is_aligned(host, q->cluster))
			r = qcow2_guard_claim(q, host, q->cluster, what, err);
	}
	return r;
}

/*
 * L1 tables of snapshots. One that makes no sense concerns its snapshot only, see snapshot.c. But
 * they must fit into the file all together, which also bounds the work.
 */
static int note_snapshots(struct qcow2 *q, struct err *err)
{
	uint64_t room = div_up(io_size(q->img.file), q->cluster);

	for (unsigned i = 0; q->snap_disk && i < q->h.nb_snapshots; i++) {
		const struct qcow2_snapshot *d = &q->snap_disk[i];
		uint64_t len = (uint64_t)d->l1_size * 8, n = div_up(len, q->cluster);

		if (len > QCOW2_MAX_L1_BYTES || !is_aligned(d->l1_offset, q->cluster) ||
		    d->l1_offset >= io_size(q->img.file))
			continue;
		if (n > room)
			return qcow2_mark_corrupt(q, d->l1_offset, err,
						  "L1 tables of snapshots overlap");
		room -= n;
		qcow2_guard_set(q, d->l1_offset, len, true);
	}
	return 0;
}

int qcow2_guard_build(struct qcow2 *q, struct err *err)
{
	int r;

	qcow2_guard_set(q, 0, q->cluster, true);
	r = qcow2_guard_claim(q, q->h.l1_offset, (uint64_t)q->h.l1_size * 8, "active L1 table",
			      err);
	if (r == 0)
		r = qcow2_guard_claim(q, q->h.reftable_offset, q->reftable_entries * 8,
				      "refcount table", err);
	if (r == 0)
		r = qcow2_guard_claim(q, q->h.snapshots_offset, q->snaptable_bytes,
				      "snapshot table", err);
	if (r == 0)
		r = claim_all(q, q->reftable, q->reftable_entries, REFTABLE_OFFSET,
			      "refcount block", err);
	if (r == 0)
		r = claim_all(q, q->l1, q->h.l1_size, ENTRY_OFFSET, "L2 table", err);
	if (r == 0)
		r = note_snapshots(q, err);
	if (r == 0)
		r = qcow2_bitmaps_guard(q, err);
	if (r < 0) {
		free(take(q->guard));
		q->guard_clusters = 0;
	}
	return r;
}

int qcow2_guard_entry(struct qcow2 *q, struct l2_entry e, uint64_t at, struct err *err)
{
	uint64_t first = 0, n;
	int r = qcow2_check_entry(q, e, at, err);

	if (r < 0)
		return r;
	qcow2_entry_clusters(q, e, &first, &n);
	if (!n || !qcow2_guarded(q, first << q->cluster_bits, n << q->cluster_bits))
		return 0;
	return qcow2_mark_corrupt(q, at, err, "L2 entry 0x%016" PRIx64 " points to metadata",
				  e.raw);
}
