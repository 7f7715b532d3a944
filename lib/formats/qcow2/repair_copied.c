// SPDX-License-Identifier: LGPL-2.1-or-later
/* COPIED flags of the active L1 and L2 tables, put right on disk. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/repair.h"

struct fixer {
	struct check *ck;
	enum repair_flags which;
	uint64_t fixed, left;
	unsigned char *table; /* one L2 table */
};

static bool touches(uint64_t off, uint64_t bytes, uint64_t other, uint64_t length)
{
	return length && off < INT64_MAX && other < INT64_MAX &&
	       overlaps(off, bytes, other, length);
}

static bool touches_refcounts(const struct check *ck, uint64_t off, uint64_t bytes)
{
	uint64_t n = ck->plan ? ck->plan->entries : ck->reftable_entries;

	if (touches(off, bytes, ck->h->reftable_offset,
		    (uint64_t)ck->h->reftable_clusters << ck->cluster_bits))
		return true;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t block = ck->plan ? ck->plan->block[i] : check_block_offset(ck, i);

		if (block && touches(off, bytes, block, ck->cluster))
			return true;
	}
	return false;
}

/*
 * Whether a table that shares clusters shares them with what must not change under any
 * circumstances. Sharing with data or other L2 tables does no harm: clearing COPIED ends it.
 */
static bool touches_metadata(const struct check *ck, uint64_t off, uint64_t bytes, bool is_l1)
{
	const struct header *h = ck->h;

	if (off < ck->cluster || touches_refcounts(ck, off, bytes) ||
	    (!is_l1 && touches(off, bytes, h->l1_offset, h->l1_size * UINT64_C(8))) ||
	    touches(off, bytes, h->snapshots_offset, ck->snap_bytes) ||
	    touches(off, bytes, ck->bitmaps.off, ck->bitmaps.bytes) ||
	    touches(off, bytes, ck->crypto_offset, ck->crypto_length))
		return true;
	for (unsigned i = 0; i < ck->n_snap; i++)
		if (check_snap_usable(ck, &ck->snap[i]) &&
		    touches(off, bytes, ck->snap[i].l1_offset, ck->snap[i].l1_size * UINT64_C(8)))
			return true;
	return false;
}

/* Whether the flag of `entry` is wrong, and this pass is the one that mends it. */
static int due(struct fixer *f, uint64_t entry, uint64_t k, bool data, bool *fix, struct err *err)
{
	uint64_t count;
	int r;

	*fix = false;
	if (!check_copied_due(f->ck, k))
		return 0;
	r = check_copied_wrong(f->ck, entry, k, data, fix, &count, err);
	*fix = *fix && (f->which == REPAIR_ALL_FLAGS || (entry & ENTRY_COPIED));
	return r;
}

static int fix_l2(struct fixer *f, uint64_t off, struct err *err)
{
	struct check *ck = f->ck;
	uint64_t changed = 0;
	int r = io_pread_tail(ck->file, f->table, ck->cluster, off, err);

	for (uint64_t i = 0; r == 0 && i < check_l2_entries(ck); i++) {
		be64 *v = (be64 *)(f->table + i * ck->entry_size);
		struct entry e;
		bool fix;

		check_decode(ck, f->table, i, &e);
		if (!e.stored)
			continue;
		r = due(f, e.raw, e.off >> ck->cluster_bits, true, &fix, err);
		if (r < 0 || !fix)
			continue;
		*v = be64_make(e.raw ^ ENTRY_COPIED);
		changed++;
	}
	if (r < 0 || !changed)
		return r;
	if (check_bad_has(&ck->unsafe, off) && touches_metadata(ck, off, ck->cluster, false)) {
		f->left += changed;
		return 0;
	}
	f->fixed += changed;
	return io_pwrite(ck->file, f->table, ck->cluster, off, err);
}

/* Mends n L1 entries in memory; returns how many were wrong, or an error. */
static int64_t fix_l1_entries(struct fixer *f, be64 *v, size_t n, struct err *err)
{
	int64_t changed = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t value = be64_get(v[i]), off = value & ENTRY_OFFSET;
		bool fix = false;
		int r = off ? due(f, value, off >> f->ck->cluster_bits, false, &fix, err) : 0;

		if (r < 0)
			return r;
		if (fix)
			v[i] = be64_make(value ^ ENTRY_COPIED);
		changed += fix;
	}
	return changed;
}

#define L1_BUFFER (64 * KiB)

static int fix_l1(struct fixer *f, struct err *err)
{
	struct check *ck = f->ck;
	uint64_t at = ck->h->l1_offset, left = ck->h->l1_size * UINT64_C(8);
	CLEANUP_FREE be64 *buf = malloc(L1_BUFFER);
	bool keep = ck->l1_shared && touches_metadata(ck, at, left, true);

	if (!buf)
		return err_nomem(err, L1_BUFFER, "an L1 table");
	for (size_t n; left; at += n, left -= n) {
		int r = io_pread_tail(ck->file, buf, n = min_u64(left, L1_BUFFER), at, err);
		int64_t changed = r < 0 ? r : fix_l1_entries(f, buf, n / 8, err);

		if (changed < 0)
			return (int)changed;
		if (keep)
			f->left += (uint64_t)changed;
		else
			f->fixed += (uint64_t)changed;
		r = changed && !keep ? io_pwrite(ck->file, buf, n, at, err) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Each table with a wrong flag once, however many L1 entries point to it. */
static int fix_tables(struct fixer *f, struct err *err)
{
	struct check *ck = f->ck;
	const struct bad_tables *bad = &ck->bad_copied;
	size_t n = bad->all ? ck->n_l2 : bad->n;
	int r = 0;

	if (bad->all && ck->l2_split)
		return err_set(err, EUCLEAN, "%s: too many L2 tables with wrong COPIED flags",
			       ck->file->name);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (job_cancelled(ck->job))
			return err_set(err, ECANCELED, "cancelled");
		r = fix_l2(f, bad->all ? ck->l2[i].off : bad->v[i], err);
	}
	return r;
}

int repair_copied(struct check *ck, enum repair_flags which, uint64_t *fixed, uint64_t *left,
		  struct err *err)
{
	CLEANUP_FREE unsigned char *table = malloc(ck->cluster);
	struct fixer f = {.ck = ck, .which = which, .table = table};
	int r;

	if (!table)
		return err_nomem(err, ck->cluster, "an L2 table");
	r = fix_l1(&f, err);
	if (r == 0)
		r = fix_tables(&f, err);
	*fixed = f.fixed;
	*left = f.left;
	return r;
}
