// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Consistency check of a qcow2 file: counts what refers to each cluster, and compares that with the
 * refcounts on disk and with the COPIED flags. Counters and words are those of `qemu-img check`.
 *
 *	check_meta.c	snapshot table, bitmaps, encryption header
 *	check_sweep.c	tables of pointers, each stretch of the file read once
 *	check_scan.c	L1 and L2 tables, by several threads
 *	check_refs.c	refcount table and blocks, the comparison
 *	check_copied.c	COPIED flags
 *	check_report.c	what is said, in which order
 *	check_map.c	the counters in memory
 *	repair.c …	what -r does about it
 *
 * Memory is bounded whatever the file says: counters are sized by the file, never by an offset in
 * it; an entry that points past the end is a finding. Files with more clusters than a window has,
 * or with counters that need more than the budget, are counted window by window, with one pass over
 * the tables for each.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "base/work.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/repair.h"

#define THREADS_MAX  8
#define THREADS_MIN  4 /* waiting for a disk helps even on one CPU */
#define ITEMS_THREAD 16

unsigned check_threads(uint64_t items)
{
	uint64_t n = min_u64(max_u64(work_cpus(), THREADS_MIN), THREADS_MAX);

	return (unsigned)max_u64(1, min_u64(n, items / ITEMS_THREAD));
}

/* ---- one window ---- */

static int window_maps(struct check *ck, uint64_t first, struct err *err)
{
	uint64_t n = min_u64(ck->window, ck->span - first);
	uint64_t max = refcount_max(ck->h->refcount_order);
	int r;

	refmap_free(&ck->refs);
	refmap_free(&ck->stored);
	r = refmap_init(&ck->refs, first, n, max, ck->bounds->budget);
	if (r == 0)
		r = refmap_init(&ck->stored, first, n, 3, ck->bounds->budget);
	return check_map_error(r, err);
}

/* Tables whose clusters something else refers to: a repair must not write to them. */
static int note_unsafe(struct check *ck)
{
	uint64_t l1 = ck->h->l1_offset >> ck->cluster_bits;
	uint64_t n = div_up(ck->h->l1_size * UINT64_C(8), ck->cluster);

	for (uint64_t k = l1; ck->fix && k < l1 + n; k++)
		if (refmap_has(&ck->refs, k) && refmap_get(&ck->refs, k) != 1)
			ck->l1_shared = true;
	for (size_t i = 0; ck->fix && !ck->l2_split && i < ck->n_l2; i++) {
		const struct l2_ref *l2 = &ck->l2[i];
		uint64_t k = l2->off >> ck->cluster_bits;
		bool whole = is_aligned(l2->off, ck->cluster) && l2->off < ck->file_size;

		if (whole && (!refmap_has(&ck->refs, k) ||
			      refmap_get(&ck->refs, k) == min_u64(l2->total, ck->refs.max)))
			continue;
		if (check_bad_add(&ck->unsafe, l2->off) < 0)
			return -ENOMEM;
	}
	check_bad_sort(&ck->unsafe);
	return 0;
}

/* The window holds the cluster after the last one of the file: does anything reach into it? */
static void note_tail(struct check *ck)
{
	uint64_t k = div_up(ck->file_size, ck->cluster);

	if (refmap_has(&ck->refs, k) && refmap_get(&ck->refs, k))
		ck->clusters = max_u64(ck->clusters, k + 1);
}

static int count_window(struct check *ck, uint64_t first, struct err *err)
{
	int r = window_maps(ck, first, err);

	ck->tally = (struct tally){.outside = UINT64_MAX};
	ck->first_pass = first == 0;
	ck->bad.n = ck->bad_copied.n = 0;
	ck->bad.all = ck->bad_copied.all = false;
	if (r == 0)
		r = check_load_stored(ck, err);
	if (r == 0)
		r = check_add_region(ck, 0, ck->cluster, 1, err);
	if (r == 0)
		r = check_count_tables(ck, err);
	if (r == 0 && ck->first_pass)
		r = check_report_tables(ck, err);
	if (r == 0)
		r = check_count_meta(ck, err);
	if (r == 0)
		note_tail(ck);
	if (r == 0)
		r = check_count_blocks(ck, err);
	if (r == 0 && !ck->muted && note_unsafe(ck) < 0)
		r = err_nomem(err, ck->n_l2 * sizeof(*ck->l2), "the list of L2 tables");
	return r;
}

static void report_overflows(struct check *ck)
{
	for (unsigned i = 0; i < ck->refs.n_over; i++) {
		check_report(ck, F_OVERFLOW, "ERROR: overflow cluster offset=0x%" PRIx64,
			     ck->refs.over[i] << ck->cluster_bits);
		check_report(ck, F_OVERFLOW,
			     "Use img amend to increase the refcount entry "
			     "width or img convert to create a clean copy if the image cannot "
			     "be opened for writing");
	}
}

/* Adds up what the pass over a window found. */
static void sum_window(struct check *ck)
{
	struct check_result *res = ck->res;

	ck->sum.copied += ck->tally.copied;
	ck->sum.corruptions += ck->refs.excess;
	if (!ck->first_pass)
		return;
	ck->sum.corruptions += ck->tally.corruptions;
	ck->sum.zero_fixes = ck->tally.zero_fixes;
	ck->outside = ck->tally.outside;
	res->allocated_clusters = ck->tally.allocated;
	res->compressed_clusters = ck->tally.compressed;
	res->fragmented_clusters = ck->tally.fragmented;
}

/* Counts, compares and reports one window; a smaller one when memory does not do. */
static int check_one(struct check *ck, uint64_t first, struct err *err)
{
	int r;

	for (;;) {
		struct counts saved = ck->sum;

		r = count_window(ck, first, err);
		if (r != -E2BIG)
			break;
		if (ck->window <= ck->bounds->min_window)
			return err_nomem(err, ck->bounds->budget, "reference counts");
		ck->sum = saved;
		ck->window /= 2;
	}
	if (r < 0)
		return r;
	sum_window(ck);
	report_overflows(ck);
	r = check_compare(ck, 0, err);
	return r < 0 ? r : check_report_copied(ck, "ERROR", err);
}

int check_all(struct check *ck, struct err *err)
{
	int r = 0;

	for (uint64_t first = 0; r == 0 && first < ck->clusters; first += ck->window)
		r = check_one(ck, first, err);
	return r;
}

int check_window(struct check *ck, uint64_t first, struct err *err)
{
	struct counts saved = ck->sum;
	struct tally tally = ck->tally;
	int r;

	if (ck->refs.page && ck->refs.first == first)
		return 0;
	ck->muted = true;
	r = count_window(ck, first, err);
	ck->muted = false;
	ck->sum = saved;
	ck->tally = tally;
	if (r == -E2BIG)
		return err_nomem(err, ck->bounds->budget, "reference counts");
	return r == 0 && ck->plan ? repair_plan_apply(ck, err) : r;
}

/* ---- the whole ---- */

/* Room in the maps past the file, for what a repair adds: blocks, their table, snapshots. */
static uint64_t repair_room(const struct check *ck)
{
	uint64_t per_block = UINT64_C(1) << ck->refblock_bits;
	uint64_t tables = (QCOW2_MAX_REFTABLE + QCOW2_MAX_SNAPTABLE) >> ck->cluster_bits;

	return 2 * (ck->clusters / per_block + 2 * tables + 8);
}

static int check_begin(struct check *ck, struct err *err)
{
	struct header *h = ck->h;
	uint64_t blocks;

	ck->file_size = io_size(ck->file);
	ck->cluster_bits = h->cluster_bits;
	ck->cluster = UINT64_C(1) << h->cluster_bits;
	ck->entry_size = h->incompat & INCOMPAT_EXTL2 ? 16 : 8;
	ck->data_file = h->incompat & INCOMPAT_DATA_FILE;
	ck->refblock_bits = h->cluster_bits + 3 - h->refcount_order;
	ck->clusters = div_up(ck->file_size, ck->cluster);
	if (ck->clusters > INT_MAX) {
		ck->sum.check_errors++;
		return err_set(err, EFBIG, "%s: too many clusters to check: %" PRIu64,
			       ck->file->name, ck->clusters);
	}
	ck->span = ck->clusters + 1 + (ck->fix ? repair_room(ck) : 0);
	ck->window = ck->bounds->window;
	ck->check_copied = !ck->fix;
	blocks = (ck->span >> ck->refblock_bits) + 1;
	ck->need = calloc(1, blocks / 8 + 1);
	ck->shared = calloc(1, QCOW2_MAX_REFTABLE / 8 / 8);
	if (!ck->need || !ck->shared)
		return err_nomem(err, blocks / 8, "refcount blocks");
	return 0;
}

static int check_run(struct check *ck, struct err *err)
{
	int r = check_begin(ck, err);

	if (r == 0)
		r = check_read_meta(ck, err);
	if (r == 0)
		r = check_read_reftable(ck, err);
	ck->base = ck->sum;
	if (r == 0)
		r = check_all(ck, err);
	if (r == 0 && ck->fix)
		r = check_repair(ck, err);
	check_report_end(ck);
	return r;
}

static void check_results(struct check *ck)
{
	struct check_result *res = ck->res;
	const struct counts *sum = &ck->sum;

	res->corruptions = sum->corruptions + sum->blocks + sum->too_low + sum->copied;
	res->leaks = sum->too_high;
	res->check_errors = sum->check_errors;
	res->image_end_offset = (ck->highest_said + 1) << ck->cluster_bits;
	res->total_clusters = div_up(round_down(ck->h->size, 512), ck->cluster);
}

static void check_free(struct check *ck)
{
	refmap_free(&ck->refs);
	refmap_free(&ck->stored);
	free(ck->reftable);
	free(ck->shared);
	free(ck->snap);
	free(ck->bitmap_tables.v);
	free(ck->bad.v);
	free(ck->bad_copied.v);
	free(ck->unsafe.v);
	free(ck->l2);
	free(ck->need);
}

/* 8 TiB at 64 KiB clusters in one pass; the smallest window holds what any refcount block covers. */
static const struct check_bounds default_bounds = {
	.window = UINT64_C(1) << 27,
	.min_window = UINT64_C(1) << 24,
	.budget = 128 * MiB,
};

int qcow2_check_file(struct io *file, struct header *h, unsigned fix, struct check_result *res,
		     const struct check_sink *sink, struct job *job, struct err *err)
{
	return check_file_bounded(&default_bounds, file, h, fix, res, sink, job, err);
}

int check_file_bounded(const struct check_bounds *bounds, struct io *file, struct header *h,
		       unsigned fix, struct check_result *res, const struct check_sink *sink,
		       struct job *job, struct err *err)
{
	struct check ck = {
		.bounds = bounds,
		.file = file,
		.h = h,
		.fix = fix & CHECK_FIX_ERRORS ? fix | CHECK_FIX_LEAKS : fix,
		.res = res,
		.sink = sink,
		.job = job,
	};
	int r;

	memset(res, 0, sizeof(*res));
	r = check_run(&ck, err);
	check_results(&ck);
	check_free(&ck);
	return r;
}

/*
 * Bitmaps that are void, by this repair or another program, leave the header; unless it has no room for
 * its own replacement.
 */
static int drop_void_bitmaps(struct qcow2 *q, struct err *err)
{
	unsigned before = q->h.n_ext;
	int r;

	if (q->h.version < 3 || (q->h.autoclear & AUTOCLEAR_BITMAPS))
		return 0;
	header_drop_ext(&q->h, EXT_TYPE_BITMAPS);
	if (q->h.n_ext == before)
		return 0;
	r = qcow2_replace_header(q, err);
	return r == -ENOSPC ? 0 : r;
}

int qcow2_check(struct img *img, unsigned fix, struct check_result *res,
		const struct check_sink *sink, struct job *job, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int r, reload;

	if (fix && !(img->open_flags & IMG_RDWR))
		return err_set(err, EROFS, "%s: repair: opened read-only", img->io.name);
	if (fix & CHECK_FIX_ERRORS)
		fix |= CHECK_DROP_BITMAPS;
	r = qcow2_check_file(img->file, &q->h, fix, res, sink, job, err);
	if (!fix)
		return r;
	reload = qcow2_reload(q, r < 0 ? NULL : err);
	if (r == 0 && reload == 0 && (fix & CHECK_FIX_ERRORS))
		r = drop_void_bitmaps(q, err);
	return r < 0 ? r : reload;
}
