// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * check -r: mends what a complete check found.
 *
 * The order makes a crash harmless: at every instant the image is no worse than before, and a second
 * repair finishes the work.
 *
 *	1 bitmaps whose directory makes no sense become void; entries that reserve misaligned
 *	  space become plain zero clusters
 *	2 COPIED flags that must go are cleared			- flush -
 *	3 refcounts that are too low are raised; new blocks, a new refcount table and a new
 *	  snapshot table are written where nothing is	- flush -
 *	4 table entries and the header switch to them		- flush -
 *	5 refcounts that are too high are lowered		- flush -
 *	6 COPIED flags that are still wrong are set (or cleared) - flush -
 *	7 the dirty and the corrupt bit are cleared, if nothing is left
 *
 * Blocks that are sound are corrected in place; only what is missing, misplaced or shared gets a new
 * block. While structures move, and from step 5 on, version 3 images carry the dirty bit.
 */
#include "formats/qcow2/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* ---- step 1 ---- */

static int drop_entries(struct check *ck, unsigned char *table, uint64_t off, struct err *err)
{
	bool changed = false;

	for (uint64_t i = 0; i < check_l2_entries(ck); i++) {
		be64 *v = (be64 *)(table + i * ck->entry_size);
		struct entry e;

		check_decode(ck, table, i, &e);
		if (!check_drops(ck, off, &e))
			continue;
		v[0] = be64_make(ck->entry_size == 8 ? ENTRY_ZERO : 0);
		if (ck->entry_size == 16)
			v[1] = be64_make((e.bitmap | e.bitmap << 32) & ~UINT64_C(0xffffffff));
		changed = true;
		ck->res->corruptions_fixed++;
	}
	return changed ? io_pwrite(ck->file, table, ck->cluster, off, err) : 0;
}

/* Whether a table with such entries may not be written to. */
static bool drops_in_unsafe(struct check *ck)
{
	if (ck->bad.all || ck->l2_split)
		ck->unsafe.all = true;
	for (size_t i = 0; i < ck->bad.n; i++)
		if (check_bad_has(&ck->unsafe, ck->bad.v[i]))
			return true;
	return ck->unsafe.all;
}

/* Checks again, silently, with entries of those tables counted as what they are. */
static int check_without_drops(struct check *ck, struct err *err)
{
	int r;

	check_report(ck, F_NOTE,
		     "ERROR L2 tables share clusters with something else: their "
		     "entries are not repaired");
	ck->unsafe_known = ck->muted = true;
	ck->sum = ck->base;
	r = check_all(ck, err);
	ck->muted = false;
	return r;
}

static int repair_zero_entries(struct check *ck, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = malloc(ck->cluster);
	int r = 0;

	if (!buf)
		return err_nomem(err, ck->cluster, "an L2 table");
	if (ck->sum.zero_fixes && drops_in_unsafe(ck))
		r = check_without_drops(ck, err);
	for (size_t i = 0; r == 0 && ck->sum.zero_fixes && i < ck->bad.n; i++) {
		r = io_pread_tail(ck->file, buf, ck->cluster, ck->bad.v[i], err);
		if (r == 0)
			r = drop_entries(ck, buf, ck->bad.v[i], err);
	}
	return r;
}

/* Their clusters leak now, until step 5. The header extension is the driver's to remove. */
static int drop_bitmaps(struct check *ck, struct err *err)
{
	int r;

	if (!ck->drop_bitmaps)
		return 0;
	ck->h->autoclear &= ~AUTOCLEAR_BITMAPS;
	r = header_update(ck->file, ck->h, err);
	return r < 0 ? r : io_flush(ck->file, err);
}

/* ---- steps 3 and 5: blocks ---- */

/* New value of a counter that is `old` on disk; lower: step 5, else step 3. */
static uint64_t mend(const struct check *ck, uint64_t k, uint64_t old, bool lower)
{
	uint64_t final;

	if (k >= ck->clusters) /* behind the file: nobody counts these until it grows */
		return lower && (ck->fix & CHECK_FIX_ERRORS) && ck->outside == UINT64_MAX ? 0 : old;
	if (!refmap_has(&ck->refs, k))
		return old;
	final = refmap_get(&ck->refs, k);
	if (!lower)
		return final;
	return ck->fix & CHECK_FIX_ERRORS ? final : min_u64(old, final);
}

/* Corrects the counters of block i in buf; fresh: buf is zeros. Returns whether one changed. */
static bool mend_block(const struct check *ck, uint64_t i, unsigned char *buf, bool lower)
{
	uint64_t k = i << ck->refblock_bits, n = UINT64_C(1) << ck->refblock_bits;
	unsigned order = ck->h->refcount_order;
	bool changed = false;

	for (uint64_t j = 0; j < n; j++) {
		uint64_t old = refcount_load(buf, order, j), v = mend(ck, k + j, old, lower);

		if (v == old)
			continue;
		refcount_store(buf, order, j, v);
		changed = true;
	}
	return changed;
}

static int repair_block(struct check *ck, uint64_t i, unsigned char *buf, bool lower,
			struct err *err)
{
	bool fresh = ck->plan && repair_block_new(ck->plan, i);
	uint64_t off = ck->plan ? ck->plan->block[i] : check_block_offset(ck, i);
	int r;

	if (!off || (fresh && lower) || (!ck->plan && check_block_state(ck, i) != BLOCK_FINE))
		return 0;
	if (fresh) {
		memset(buf, 0, ck->cluster);
		mend_block(ck, i, buf, false);
		return io_pwrite(ck->file, buf, ck->cluster, off, err);
	}
	r = io_pread_tail(ck->file, buf, ck->cluster, off, err);
	if (r == 0 && mend_block(ck, i, buf, lower))
		r = io_pwrite(ck->file, buf, ck->cluster, off, err);
	return r;
}

static int repair_blocks(struct check *ck, bool lower, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = malloc(ck->cluster);
	uint64_t end = ck->plan ? ck->plan->entries : ck->reftable_entries;
	uint64_t i = ck->refs.first >> ck->refblock_bits;
	int r = 0;

	if (!buf)
		return err_nomem(err, ck->cluster, "a refcount block");
	if (ck->refs.first + ck->refs.n < ck->clusters) /* the last window has all the rest */
		end = min_u64(end, (ck->refs.first + ck->refs.n) >> ck->refblock_bits);
	for (; r == 0 && i < end; i++) {
		if (job_cancelled(ck->job))
			return err_set(err, ECANCELED, "cancelled");
		r = repair_block(ck, i, buf, lower, err);
	}
	return r;
}

/* ---- all windows ---- */

typedef int step_fn(struct check *ck, struct err *err);

/* Runs a step for each window, with the references as they are in the end, then a flush. */
static int each_window(struct check *ck, step_fn *step, struct err *err)
{
	int r = 0;

	for (uint64_t first = 0; r == 0 && first < ck->clusters; first += ck->window) {
		r = check_window(ck, first, err);
		if (r == 0)
			r = step(ck, err);
	}
	return r < 0 ? r : io_flush(ck->file, err);
}

static int step_clear(struct check *ck, struct err *err)
{
	uint64_t fixed, left;
	int r = check_scan_copied(ck, err);

	if (r < 0 || !ck->tally.copied)
		return r;
	ck->sum.copied += ck->tally.copied;
	if (!ck->mend_copied)
		return check_report_copied(ck, "ERROR", err);
	r = check_report_copied(ck, "Repairing", err);
	if (r == 0)
		r = repair_copied(ck, REPAIR_CLEAR_FLAGS, &fixed, &left, err);
	if (r == 0)
		ck->res->corruptions_fixed += fixed;
	return r;
}

static int step_flags(struct check *ck, struct err *err)
{
	uint64_t fixed, left;
	int r = ck->sum.copied ? check_scan_copied(ck, err) : 0;

	if (r < 0 || !ck->sum.copied || !ck->tally.copied)
		return r;
	r = repair_copied(ck, REPAIR_ALL_FLAGS, &fixed, &left, err);
	if (r == 0) {
		ck->res->corruptions_fixed += fixed;
		ck->copied_left += left;
	}
	return r;
}

static int step_raise(struct check *ck, struct err *err)
{
	return repair_blocks(ck, false, err);
}

static int step_lower(struct check *ck, struct err *err)
{
	return repair_blocks(ck, true, err);
}

static int step_report(struct check *ck, struct err *err)
{
	return check_compare(ck, ck->fix, err);
}

/* ---- the order ---- */

static int repair_errors(struct check *ck, struct err *err)
{
	int r = each_window(ck, step_raise, err);

	if (r == 0 && ck->plan)
		r = repair_write_tables(ck, err);
	if (r == 0 && ck->plan)
		r = io_flush(ck->file, err);
	if (r == 0 && ck->plan)
		r = repair_switch(ck, err);
	return r;
}

static int repair_counts(struct check *ck, bool was_dirty, struct err *err)
{
	bool counts = ck->sum.too_low || ck->sum.too_high || ck->plan || was_dirty;
	int r = each_window(ck, step_clear, err);

	if (r == 0 && counts && (ck->fix & CHECK_FIX_ERRORS))
		r = repair_errors(ck, err);
	if (r == 0 && counts)
		r = each_window(ck, step_lower, err);
	if (r == 0 && ck->mend_copied && ck->sum.copied)
		r = each_window(ck, step_flags, err);
	return r;
}

/* The findings that a finished repair has mended. */
static void settle_counts(struct check *ck)
{
	struct check_result *res = ck->res;
	struct counts *sum = &ck->sum;

	res->leaks_fixed += sum->too_high;
	sum->too_high = 0;
	if (ck->mend_copied)
		sum->copied = ck->copied_left;
	sum->check_errors += ck->mend_copied && ck->copied_left;
	if (!(ck->fix & CHECK_FIX_ERRORS))
		return;
	res->corruptions_fixed += sum->too_low + sum->blocks;
	res->corruptions_fixed += ck->drop_bitmaps;
	res->corruptions_fixed += ck->snap_dropped + ck->snap_cut + ck->snap_incomplete;
	sum->check_errors -= sum->unreadable;
	sum->too_low = sum->blocks = sum->unreadable = 0;
}

/* Step 7, and the end of the dirty bit that the repair itself has set. */
static int clear_bits(struct check *ck, bool was_dirty, struct err *err)
{
	const struct counts *sum = &ck->sum;
	uint64_t bits = was_dirty ? 0 : INCOMPAT_DIRTY;
	int r;

	if (!sum->check_errors && !sum->corruptions && !sum->blocks && !sum->too_low &&
	    !sum->copied)
		bits = INCOMPAT_DIRTY | INCOMPAT_CORRUPT;
	if (!(ck->h->incompat & bits))
		return 0;
	ck->h->incompat &= ~bits;
	r = header_update(ck->file, ck->h, err);
	return r < 0 ? r : io_flush(ck->file, err);
}

static int refuse_rebuild(struct check *ck, struct err *err)
{
	check_report(ck, F_NOTE, "ERROR need to rebuild refcount structures");
	ck->sum.check_errors++;
	return err_set(err, EIO, "%s: refcount structures must be rebuilt: use check -r all",
		       ck->file->name);
}

static int mark_dirty(struct check *ck, struct err *err)
{
	int r;

	if (ck->h->version < 3 || (ck->h->incompat & INCOMPAT_DIRTY))
		return 0;
	ck->h->incompat |= INCOMPAT_DIRTY;
	r = header_update(ck->file, ck->h, err);
	return r < 0 ? r : io_flush(ck->file, err);
}

/* Plans, and says what is going to be done. */
static int prepare(struct check *ck, struct err *err)
{
	bool errors = ck->fix & CHECK_FIX_ERRORS;
	int r = 0;

	if (ck->sum.rebuild)
		check_report(ck, F_NOTE, "Rebuilding refcount structure");
	else if (ck->sum.too_low || ck->sum.too_high)
		r = each_window(ck, step_report, err);
	if (r == 0 && errors &&
	    (ck->sum.rebuild || ck->snap_cut || ck->snap_incomplete || ck->snap_dropped))
		r = repair_plan(ck, err);
	if (r == 0 && ck->plan)
		r = mark_dirty(ck, err);
	if (r == 0 && ck->plan && ck->refs.page)
		r = repair_plan_apply(ck, err);
	return r;
}

int check_repair(struct check *ck, struct err *err)
{
	bool errors = ck->fix & CHECK_FIX_ERRORS, was_dirty = ck->h->incompat & INCOMPAT_DIRTY;
	int r;

	if (ck->sum.rebuild && !errors)
		return refuse_rebuild(ck, err);
	r = io_flush(ck->file, err);
	if (r == 0)
		r = drop_bitmaps(ck, err);
	if (r == 0)
		r = repair_zero_entries(ck, err);
	if (r == 0)
		r = prepare(ck, err);
	if (r == 0) {
		ck->settled = ck->fix;
		ck->check_copied = true;
		ck->mend_copied = errors || (!ck->sum.check_errors && !ck->sum.corruptions &&
					     !ck->sum.blocks && !ck->sum.too_low);
		/* Between steps 5 and 6 a cluster that is not shared any more lacks its flag. */
		if (ck->mend_copied && ck->sum.too_high)
			r = mark_dirty(ck, err);
	}
	if (r == 0) {
		r = repair_counts(ck, was_dirty, err);
	}
	if (r == 0) {
		settle_counts(ck);
		r = clear_bits(ck, was_dirty, err);
	}
	repair_plan_free(ck->plan);
	ck->plan = NULL;
	return r;
}

int qcow2_repair_dirty(struct io *file, struct header *h, struct err *err)
{
	struct check_result res;
	int r = qcow2_check_file(file, h, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &res, NULL, NULL,
				 err);

	if (r == 0 && (res.corruptions || res.check_errors))
		r = err_set(err, EUCLEAN,
			    "%s: the image was not closed cleanly and has %" PRIu64
			    " errors that cannot be repaired automatically (see check)",
			    file->name, res.corruptions + res.check_errors);
	return err_ctx(err, r, "could not repair dirty image");
}
