// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What a check says, in the peer's words and order.
 *
 * Threads only count and note which tables have something wrong; the lines are made afterwards by
 * walking those tables again, one after the other, as the peer would. Lines of a kind are limited
 * (struct check_sink), so that a file full of rubbish gives no book.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/check_impl.h"

static const char *const finding_names[F_KINDS] = {
	[F_L1_RESERVED] = "L1 entries with reserved bits",
	[F_L1_ALIGN] = "misaligned L2 tables",
	[F_REGION] = "references past the end of the file",
	[F_L2_RESERVED] = "L2 entries with reserved bits",
	[F_L2_CODED] = "wrong compressed clusters",
	[F_L2_BITMAP] = "wrong subcluster bitmaps",
	[F_L2_ALIGN] = "misaligned clusters",
	[F_SNAPSHOT] = "wrong snapshot table entries",
	[F_BITMAP] = "wrong bitmap entries",
	[F_OVERFLOW] = "refcount overflows",
	[F_REFTABLE] = "wrong refcount table entries",
	[F_REFBLOCK] = "shared refcount blocks",
	[F_UNREADABLE] = "unreadable refcounts",
	[F_CLUSTER] = "wrong refcounts",
	[F_COPIED] = "wrong COPIED flags",
	[F_NOTE] = "notes",
};

static uint64_t limit(const struct check *ck)
{
	return ck->sink && ck->sink->max_lines ? ck->sink->max_lines : UINT64_MAX;
}

void check_report(struct check *ck, enum finding kind, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!ck->sink || ck->muted || ck->reported[kind]++ >= limit(ck))
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	ck->shown++;
	ck->sink->line(ck->sink->ctx, line);
}

void check_report_end(struct check *ck)
{
	char line[128];

	for (unsigned i = 0; ck->sink && i < F_KINDS; i++) {
		if (ck->reported[i] <= limit(ck))
			continue;
		snprintf(line, sizeof(line), "(only the first %" PRIu64 " are shown: %s)",
			 limit(ck), finding_names[i]);
		ck->sink->line(ck->sink->ctx, line);
	}
}

/* ---- tables to look at again ---- */

#define BAD_TABLES_MAX (UINT64_C(1) << 16)

int check_bad_add(struct bad_tables *bad, uint64_t off)
{
	if (bad->all)
		return 0;
	if (bad->n == BAD_TABLES_MAX) {
		bad->all = true;
		return 0;
	}
	if (bad->n == bad->cap) {
		size_t cap = bad->cap ? bad->cap * 2 : 64;
		uint64_t *v = realloc(bad->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		bad->v = v;
		bad->cap = cap;
	}
	bad->v[bad->n++] = off;
	return 0;
}

static int offset_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void check_bad_sort(struct bad_tables *bad)
{
	if (bad->n)
		qsort(bad->v, bad->n, sizeof(*bad->v), offset_order);
}

bool check_bad_has(const struct bad_tables *bad, uint64_t off)
{
	return bad->all ||
	       (bad->n && bsearch(&off, bad->v, bad->n, sizeof(off), offset_order) != NULL);
}

/* ---- walks for the report ---- */

struct walk {
	struct check *ck;
	uint64_t l1_offset;           /* of the table that is walked */
	const struct bad_tables *bad; /* L2 tables that have something to report */
	uint64_t table;               /* offset of the L2 table that is walked */
	const char *verb;             /* of COPIED lines */
	uint64_t left;                /* L2 tables that will still be read */
	uint64_t l1_left;             /* bytes of L1 tables: hostile ones overlap */
	unsigned char *buf;           /* one L2 table */
	void (*entry)(struct walk *w, const struct entry *e, uint64_t i);
};

#define PATIENCE 64 /* tables that are still read after one with nothing new to say */

/* Reads an L2 table and gives its entries to w->entry. */
static int walk_l2(struct walk *w, uint64_t off, struct err *err)
{
	struct check *ck = w->ck;
	uint64_t shown = ck->shown;
	int r;

	if (!w->left || !check_bad_has(w->bad, off))
		return 0;
	if (job_cancelled(ck->job))
		return err_set(err, ECANCELED, "cancelled");
	w->left--;
	w->table = off;
	r = io_pread_tail(ck->file, w->buf, ck->cluster, off, err);
	for (uint64_t i = 0; r == 0 && i < check_l2_entries(ck); i++) {
		struct entry e;

		check_decode(ck, w->buf, i, &e);
		w->entry(w, &e, i);
	}
	/* Nothing new was said: the limits are reached, probably of all that is to come. */
	if (ck->shown == shown)
		w->left = min_u64(w->left, PATIENCE);
	return r;
}

static void say_misaligned(struct walk *w, const struct entry *e)
{
	struct check *ck = w->ck;

	if (e->bad & BAD_ALIGN_ZERO)
		check_report(ck, F_L2_ALIGN,
			     "%s offset=%" PRIx64 ": Preallocated cluster is not "
			     "properly aligned; L2 entry corrupted.",
			     check_drops(ck, w->table, e) ? "Repairing" : "ERROR", e->off);
	if (e->bad & BAD_ALIGN_DATA)
		check_report(ck, F_L2_ALIGN,
			     "ERROR offset=%" PRIx64 ": Data cluster is not properly "
			     "aligned; L2 entry corrupted.",
			     e->off);
}

static void say_entry(struct walk *w, const struct entry *e, uint64_t i)
{
	struct check *ck = w->ck;
	uint64_t raw = e->raw & ~ENTRY_COPIED;

	if (e->bad & BAD_RESERVED)
		check_report(ck, F_L2_RESERVED,
			     "ERROR found l2 entry with reserved bits set: "
			     "%" PRIx64,
			     e->raw);
	if (e->bad & BAD_CODED_COPIED)
		check_report(ck, F_L2_CODED,
			     "ERROR: coffset=0x%" PRIx64 ": copied flag must never "
			     "be set for compressed clusters",
			     e->off);
	if (e->bad & BAD_CODED_DATAFILE)
		check_report(ck, F_L2_CODED,
			     "ERROR compressed cluster %" PRIu64 " with data file, "
			     "entry=0x%" PRIx64,
			     i, raw);
	if (e->bad & BAD_CODED_BITMAP)
		check_report(ck, F_L2_CODED,
			     "ERROR compressed cluster %" PRIu64 " with non-zero "
			     "subcluster allocation bitmap, entry=0x%" PRIx64,
			     i, raw);
	if (e->bad & BAD_BITMAP)
		check_report(ck, F_L2_BITMAP,
			     "ERROR offset=%" PRIx64 ": Allocated cluster has "
			     "corrupted subcluster allocation bitmap",
			     e->off);
	say_misaligned(w, e);
	if ((e->bad & BAD_REGION) && !check_drops(ck, w->table, e))
		check_report_region(ck, e->off, e->size);
	if (e->bad & BAD_UNALLOC_BITMAP)
		check_report(ck, F_L2_BITMAP,
			     "ERROR: Unallocated cluster has non-zero subcluster "
			     "allocation map");
}

static int say_l1_entry(void *ctx, uint64_t at, uint64_t value, struct err *err)
{
	struct walk *w = ctx;
	struct check *ck = w->ck;
	uint64_t off = value & ENTRY_OFFSET;

	(void)at;
	if (value & L1_RESERVED)
		check_report(ck, F_L1_RESERVED,
			     "ERROR found L1 entry with reserved bits set: "
			     "%" PRIx64,
			     value);
	if (check_outside(ck, off, ck->cluster))
		check_report_region(ck, off, ck->cluster);
	if (!is_aligned(off, ck->cluster))
		check_report(ck, F_L1_ALIGN,
			     "ERROR l2_offset=%" PRIx64 ": Table is not cluster "
			     "aligned; L1 entry corrupted",
			     off);
	return walk_l2(w, off, err);
}

static int say_l1(struct walk *w, uint64_t off, uint64_t entries, struct err *err)
{
	struct check *ck = w->ck;

	if (!entries || entries * 8 > w->l1_left)
		return 0;
	w->l1_left -= entries * 8;
	if (check_table_outside(ck, off, entries * 8))
		check_report_region(ck, off, entries * 8);
	w->l1_offset = off;
	return check_each_entry(ck, off, entries * 8, say_l1_entry, w, err);
}

/* How many tables a report reads at most: one may be named a million times. */
static uint64_t report_reads(const struct check *ck)
{
	return 4096 + min_u64(limit(ck), 1 << 20) / 8;
}

int check_report_tables(struct check *ck, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = NULL;
	struct walk w = {.ck = ck, .bad = &ck->bad, .left = report_reads(ck), .entry = say_entry};
	int r;

	if (!ck->sink || (!ck->tally.corruptions && !ck->tally.zero_fixes))
		return 0;
	w.l1_left = ck->file_size + QCOW2_MAX_L1_BYTES;
	w.buf = buf = malloc(ck->cluster);
	if (!buf)
		return err_nomem(err, ck->cluster, "an L2 table");
	r = say_l1(&w, ck->h->l1_offset, ck->h->l1_size, err);
	if (ck->data_file && ck->n_snap)
		check_report(ck, F_SNAPSHOT, "ERROR %u snapshots in image with data file",
			     ck->n_snap);
	for (unsigned i = 0; r == 0 && i < ck->n_snap; i++) {
		if (!check_snap_usable(ck, &ck->snap[i]))
			check_report_snapshot(ck, &ck->snap[i]);
		else
			r = say_l1(&w, ck->snap[i].l1_offset, ck->snap[i].l1_size, err);
	}
	return r;
}

/* ---- COPIED ---- */

static void say_copied(struct walk *w, const struct entry *e, uint64_t i)
{
	struct check *ck = w->ck;
	uint64_t k = e->off >> ck->cluster_bits, count;
	bool wrong;

	(void)i;
	if (!e->stored || !check_copied_due(ck, k) ||
	    check_copied_wrong(ck, e->raw, k, true, &wrong, &count, NULL) < 0 || !wrong)
		return;
	check_report(ck, F_COPIED,
		     "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
		     w->verb, e->raw, count);
}

static int say_l1_copied(void *ctx, uint64_t at, uint64_t value, struct err *err)
{
	struct walk *w = ctx;
	struct check *ck = w->ck;
	uint64_t off = value & ENTRY_OFFSET, k = off >> ck->cluster_bits, count;
	bool wrong = false;

	if (!off)
		return 0;
	if (check_copied_due(ck, k) &&
	    check_copied_wrong(ck, value, k, false, &wrong, &count, err) < 0)
		return -EIO;
	if (wrong)
		check_report(ck, F_COPIED,
			     "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
			     " refcount=%" PRIu64,
			     w->verb, (at - w->l1_offset) / 8, value, count);
	return walk_l2(w, off, err);
}

int check_report_copied(struct check *ck, const char *verb, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = NULL;
	struct walk w = {.ck = ck,
			 .bad = &ck->bad_copied,
			 .verb = verb,
			 .left = report_reads(ck),
			 .entry = say_copied,
			 .l1_offset = ck->h->l1_offset};

	if (!ck->sink || !ck->tally.copied)
		return 0;
	w.buf = buf = malloc(ck->cluster);
	if (!buf)
		return err_nomem(err, ck->cluster, "an L2 table");
	return check_each_entry(ck, ck->h->l1_offset, ck->h->l1_size * UINT64_C(8), say_l1_copied,
				&w, err);
}
