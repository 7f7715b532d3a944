// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Counting what L1 and L2 tables refer to. QEMU docs/interop/qcow2, "Cluster mapping".
 *
 * L1 tables are swept (check_sweep.c) into a list of L2 tables with the number of L1 entries that
 * point to each; then each L2 table is read once, by several threads, in the order of the file,
 * and its entries count as often as L1 entries point to the table. So snapshots that share tables
 * cost nothing, and a table that is named a million times is still read once. The list is bounded:
 * when it is full it is scanned and emptied, which is right since counts only add up.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/work.h"
#include "formats/qcow2/check_impl.h"

#define L2_BATCH       (UINT64_C(1) << 20) /* tables that wait for a scan */
#define MISALIGNED_MAX 1024                /* that are followed: no sane image has any */

bool check_outside(const struct check *ck, uint64_t off, uint64_t bytes)
{
	uint64_t end;

	/* The last cluster may be cut: a reader fills it with zeros. */
	return !add_ok(off, bytes, &end) ||
	       (end > ck->file_size && end - ck->file_size >= ck->cluster);
}

bool check_table_outside(const struct check *ck, uint64_t off, uint64_t bytes)
{
	return off >= ck->file_size || check_outside(ck, off, bytes);
}

void check_note_outside(const struct check *ck, struct tally *tally, uint64_t off)
{
	uint64_t end = div_up(ck->file_size, ck->cluster);

	tally->outside = min_u64(tally->outside, max_u64(off >> ck->cluster_bits, end));
}

int check_map_error(int r, struct err *err)
{
	return r == -ENOMEM ? err_nomem(err, 1 << 16, "reference counts") : r;
}

int check_add_region(struct check *ck, uint64_t off, uint64_t bytes, uint64_t times,
		     struct err *err)
{
	uint64_t first = off >> ck->cluster_bits;

	if (!bytes)
		return 0;
	return check_map_error(refmap_add(&ck->refs, first,
					  ((off + bytes - 1) >> ck->cluster_bits) - first + 1,
					  times),
			       err);
}

uint64_t check_l2_entries(const struct check *ck)
{
	return ck->cluster / ck->entry_size;
}

/* ---- one L2 entry ---- */

static void decode_coded(const struct check *ck, struct entry *e)
{
	unsigned shift = coded_shift(ck->cluster_bits);
	uint64_t sectors = e->raw & ~(ENTRY_COPIED | ENTRY_COMPRESSED);

	e->coded = true;
	e->off = sectors & ((UINT64_C(1) << shift) - 1);
	if (e->raw & ENTRY_COPIED)
		e->bad |= BAD_CODED_COPIED;
	if (ck->data_file)
		e->bad |= BAD_CODED_DATAFILE;
	else if (e->bitmap)
		e->bad |= BAD_CODED_BITMAP;
	else
		e->bytes = e->size = ((sectors >> shift) + 1) * 512 - (e->off & 511);
}

static void decode_stored(const struct check *ck, struct entry *e)
{
	e->stored = true;
	if (!ck->data_file)
		e->bytes = e->size = ck->cluster;
	if (e->bitmap >> 32 & e->bitmap & UINT32_MAX)
		e->bad |= BAD_BITMAP;
	if (!is_aligned(e->off, ck->cluster)) {
		bool data =
			ck->entry_size == 16 ? (uint32_t)e->bitmap != 0 : !(e->raw & ENTRY_ZERO);

		e->bad |= data ? BAD_ALIGN_DATA : BAD_ALIGN_ZERO;
	}
}

void check_decode(const struct check *ck, const void *table, uint64_t i, struct entry *e)
{
	const be64 *v = (const be64 *)((const unsigned char *)table + i * ck->entry_size);
	bool zero_flag;

	*e = (struct entry){.raw = be64_get(v[0])};
	if (ck->entry_size == 16)
		e->bitmap = be64_get(v[1]);
	if (e->raw & ENTRY_COMPRESSED) {
		decode_coded(ck, e);
	} else {
		if (e->raw & L2_RESERVED)
			e->bad |= BAD_RESERVED;
		e->off = e->raw & ENTRY_OFFSET;
		zero_flag = ck->entry_size == 8 && (e->raw & ENTRY_ZERO);
		if (e->off || (ck->data_file && !zero_flag && (e->raw & ENTRY_COPIED)))
			decode_stored(ck, e);
		else if (!zero_flag && (uint32_t)e->bitmap)
			e->bad |= BAD_UNALLOC_BITMAP;
	}
	if (e->bytes && check_outside(ck, e->off, e->bytes)) {
		e->bad |= BAD_REGION;
		e->bytes = 0;
	}
}

bool check_drops(const struct check *ck, uint64_t table, const struct entry *e)
{
	return (e->bad & BAD_ALIGN_ZERO) && (ck->fix & CHECK_FIX_ERRORS) &&
	       !(ck->unsafe_known && check_bad_has(&ck->unsafe, table));
}

/* ---- a scan of L2 tables by several threads ---- */

struct scan {
	struct check *ck;
	_Atomic size_t next; /* index into ck->l2 */
	size_t misaligned;   /* of those in the list that are followed */
	pthread_mutex_t lock;
};

/* One thread, and the table that it is in. */
struct scanner {
	struct scan *scan;
	struct check *ck;
	unsigned char *buf;
	struct extent seen;
	struct tally tally;
	const struct l2_ref *ref;
	bool copied;         /* it is an active table: its flags are looked at */
	uint64_t contiguous; /* where the next cluster would be if not fragmented; 0: any */
	bool bad, bad_copied;
};

static int scan_copied(struct scanner *s, const struct entry *e, struct err *err)
{
	uint64_t k = e->off >> s->ck->cluster_bits, count;
	bool wrong = false;
	int r;

	if (!e->stored || !s->copied || !check_copied_due(s->ck, k))
		return 0;
	r = check_copied_wrong(s->ck, e->raw, k, true, &wrong, &count, err);
	if (wrong) {
		s->tally.copied += s->ref->active;
		s->bad_copied = true;
	}
	return r;
}

static void scan_fragments(struct scanner *s, uint64_t off, uint64_t n)
{
	s->tally.allocated += n * s->ref->active;
	if (s->contiguous && off != s->contiguous)
		s->tally.fragmented += s->ref->active;
	s->contiguous = off + (n << s->ck->cluster_bits);
}

static int scan_entry(struct scanner *s, uint64_t i, struct err *err)
{
	struct check *ck = s->ck;
	struct entry e;
	int r = 0;

	check_decode(ck, s->buf, i, &e);
	if (e.bad) {
		bool drop = check_drops(ck, s->ref->off, &e);

		s->bad = true;
		s->tally.zero_fixes += drop;
		if (drop) /* the repair makes a plain zero cluster of it */
			return 0;
		if (e.bad & BAD_REGION)
			check_note_outside(ck, &s->tally, e.off);
		s->tally.corruptions += (unsigned)__builtin_popcount(e.bad) * s->ref->total;
	}
	if (e.stored)
		scan_fragments(s, e.off, 1);
	if (e.coded && !(e.bad & (BAD_CODED_DATAFILE | BAD_CODED_BITMAP))) {
		s->tally.allocated += s->ref->active;
		s->tally.compressed += s->ref->active;
		s->tally.fragmented += s->ref->active;
	}
	if (e.bytes && ck->counting)
		r = check_add_region(ck, e.off, e.bytes, s->ref->total, err);
	return r < 0 ? r : scan_copied(s, &e, err);
}

/*
 * The common case, fast: how many entries from i on are plain clusters of this file, with the same
 * flags, that follow each other in the file. 0: the entry is something else.
 */
static uint64_t plain_run(const struct check *ck, const be64 *v, uint64_t i, uint64_t n)
{
	uint64_t first = be64_get(v[i]), off = first & ENTRY_OFFSET, expect = first, run = 0;
	uint64_t room = off < ck->file_size ? div_up(ck->file_size - off, ck->cluster) : 0;

	if (!off || (first & ~(ENTRY_COPIED | ENTRY_OFFSET)) || !is_aligned(off, ck->cluster))
		return 0;
	n = min_u64(n - i, room);
	while (run < n && be64_get(v[i + run]) == expect) {
		run++;
		expect += ck->cluster;
	}
	return run;
}

static int scan_run(struct scanner *s, uint64_t i, uint64_t n, struct err *err)
{
	struct check *ck = s->ck;
	uint64_t raw = be64_get(((const be64 *)s->buf)[i]), off = raw & ENTRY_OFFSET;
	uint64_t k = off >> ck->cluster_bits;
	int r = 0;

	if (ck->counting)
		r = check_add_region(ck, off, n << ck->cluster_bits, s->ref->total, err);
	scan_fragments(s, off, n);
	if (!ck->check_copied || !s->copied || check_copied_run_fine(ck, raw & ENTRY_COPIED, k, n))
		return r;
	for (uint64_t j = 0; r == 0 && j < n; j++) {
		struct entry e;

		check_decode(ck, s->buf, i + j, &e);
		r = scan_copied(s, &e, err);
	}
	return r;
}

static int scan_table(struct scanner *s, struct err *err)
{
	uint64_t n = check_l2_entries(s->ck), i = 0;
	bool simple = s->ck->entry_size == 8 && !s->ck->data_file;
	const be64 *v = (const be64 *)s->buf;
	int r = 0;

	s->contiguous = 0;
	s->bad = s->bad_copied = false;
	while (r == 0 && i < n) {
		uint64_t run = simple ? plain_run(s->ck, v, i, n) : 0;

		if (run) {
			r = scan_run(s, i, run, err);
			i += run;
		} else if (i % 8 == 0 && i + 8 <= n &&
			   bytes_are_zero(s->buf + i * s->ck->entry_size, 64)) {
			i += 64 / s->ck->entry_size;
		} else {
			r = scan_entry(s, i, err);
			i++;
		}
	}
	return r;
}

static int scan_l2(struct scanner *s, const struct l2_ref *ref, struct err *err)
{
	struct check *ck = s->ck;
	int r;

	if (job_cancelled(ck->job))
		return err_set(err, ECANCELED, "cancelled");
	s->ref = ref;
	s->copied = ref->active && ref->off &&
		    ((ck->settled & CHECK_FIX_ERRORS) ||
		     check_block_readable(ck, ref->off >> ck->cluster_bits >> ck->refblock_bits));
	job_advance(ck->job, ck->cluster);
	if (check_hole(ck, &s->seen, ref->off, ck->cluster))
		return 0;
	r = io_pread_tail(ck->file, s->buf, ck->cluster, ref->off, err);
	if (r == 0)
		r = scan_table(s, err);
	if (s->bad || s->bad_copied) {
		LOCK_SCOPE(&s->scan->lock);
		if (s->bad && check_bad_add(&ck->bad, ref->off) < 0)
			ck->bad.all = true;
		if (s->bad_copied && check_bad_add(&ck->bad_copied, ref->off) < 0)
			ck->bad_copied.all = true;
		s->bad = s->bad_copied = false;
	}
	return r;
}

static void tally_add(struct tally *sum, const struct tally *t)
{
	sum->corruptions += t->corruptions;
	sum->copied += t->copied;
	sum->zero_fixes += t->zero_fixes;
	sum->allocated += t->allocated;
	sum->compressed += t->compressed;
	sum->fragmented += t->fragmented;
	sum->outside = min_u64(sum->outside, t->outside);
}

#define SCAN_STEP 8

static int scan_worker(void *ctx, unsigned worker, struct err *err)
{
	struct scan *scan = ctx;
	struct check *ck = scan->ck;
	CLEANUP_FREE unsigned char *buf = malloc(ck->cluster);
	struct scanner s = {.scan = scan, .ck = ck, .buf = buf, .tally.outside = UINT64_MAX};
	int r = 0;

	(void)worker;
	if (!buf)
		return err_nomem(err, ck->cluster, "an L2 table");
	while (r == 0) {
		size_t i = atomic_fetch_add(&scan->next, SCAN_STEP);
		size_t end = min_u64(i + SCAN_STEP, ck->n_l2);

		if (i >= ck->n_l2)
			break;
		for (; r == 0 && i < end; i++)
			r = scan_l2(&s, &ck->l2[i], err);
	}
	if (r < 0)
		atomic_store(&scan->next, ck->n_l2);
	LOCK_SCOPE(&scan->lock);
	tally_add(&ck->tally, &s.tally);
	return r;
}

static int l2_order(const void *a, const void *b)
{
	const struct l2_ref *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

static void l2_merge(struct check *ck)
{
	size_t n = 0;

	if (ck->n_l2)
		qsort(ck->l2, ck->n_l2, sizeof(*ck->l2), l2_order);
	for (size_t i = 0; i < ck->n_l2; i++) {
		if (n && ck->l2[n - 1].off == ck->l2[i].off) {
			ck->l2[n - 1].active += ck->l2[i].active;
			ck->l2[n - 1].total += ck->l2[i].total;
		} else {
			ck->l2[n++] = ck->l2[i];
		}
	}
	ck->n_l2 = n;
}

/* Forgets tables at odd places above the limit: hostile ones overlap in any number of ways. */
static void drop_misaligned(struct check *ck)
{
	size_t n = 0, seen = 0;

	for (size_t i = 0; i < ck->n_l2; i++)
		if (is_aligned(ck->l2[i].off, ck->cluster) || seen++ < MISALIGNED_MAX)
			ck->l2[n++] = ck->l2[i];
	if (n < ck->n_l2 && ck->first_pass)
		check_report(ck, F_NOTE, "%zu misaligned L2 tables were not looked into",
			     ck->n_l2 - n);
	ck->n_l2 = n;
}

static int scan_list(struct check *ck, struct err *err)
{
	struct scan scan = {.ck = ck, .lock = PTHREAD_MUTEX_INITIALIZER};
	int r;

	drop_misaligned(ck);
	ck->work += ck->n_l2 << ck->cluster_bits;
	job_total(ck->job, ck->work);
	r = work_run(check_threads(ck->n_l2), scan_worker, &scan, err);
	pthread_mutex_destroy(&scan.lock);
	return r;
}

/* The list is full: merges it, and if that makes little room scans and empties it. */
static int l2_flush(struct check *ck, struct err *err)
{
	int r;

	l2_merge(ck);
	if (ck->n_l2 < L2_BATCH / 2)
		return 0;
	r = scan_list(ck, err);
	ck->n_l2 = 0;
	ck->l2_split = true;
	return r;
}

static int l2_push(struct check *ck, uint64_t off, uint64_t active, uint64_t total, struct err *err)
{
	if (ck->n_l2 == ck->cap_l2) {
		size_t cap = ck->cap_l2 ? ck->cap_l2 * 2 : 256;
		struct l2_ref *v;

		if (ck->n_l2 == L2_BATCH) {
			int r = l2_flush(ck, err);

			if (r < 0)
				return r;
		} else {
			v = realloc(ck->l2, cap * sizeof(*v));
			if (!v)
				return err_nomem(err, cap * sizeof(*v), "the list of L2 tables");
			ck->l2 = v;
			ck->cap_l2 = cap;
		}
	}
	ck->l2[ck->n_l2++] = (struct l2_ref){off, active, total};
	return 0;
}

/* ---- L1 ---- */

static int l1_entry(void *ctx, uint64_t at, uint64_t value, struct err *err)
{
	struct stretch *p = ctx;
	struct check *ck = p->ck;
	uint64_t off = value & ENTRY_OFFSET, k = off >> ck->cluster_bits, count;
	bool wrong = false;
	int r = 0;

	(void)at;
	if (value & L1_RESERVED)
		ck->tally.corruptions += p->total;
	if (!is_aligned(off, ck->cluster))
		ck->tally.corruptions += p->total;
	if (check_outside(ck, off, ck->cluster)) {
		ck->tally.corruptions += p->total;
		check_note_outside(ck, &ck->tally, off);
	} else if (ck->counting) {
		r = check_add_region(ck, off, ck->cluster, p->total, err);
	}
	if (r == 0 && p->active && off && check_copied_due(ck, k))
		r = check_copied_wrong(ck, value, k, false, &wrong, &count, err);
	ck->tally.copied += wrong;
	return r < 0 ? r : l2_push(ck, off, p->active, p->total, err);
}

static int l1_stretch(void *ctx, uint64_t off, uint64_t bytes, uint64_t active, uint64_t total,
		      struct err *err)
{
	struct stretch p = {ctx, active, total};

	return check_each_entry(ctx, off, bytes, l1_entry, &p, err);
}

int check_stretch_clusters(void *ctx, uint64_t off, uint64_t bytes, uint64_t active, uint64_t total,
			   struct err *err)
{
	(void)active;
	return check_add_region(ctx, off, bytes, total, err);
}

/* Lists one L1 table: its entries, and the clusters that it lies in. */
static int list_l1(struct check *ck, uint64_t off, uint64_t bytes, bool active,
		   struct table_refs *entries, struct table_refs *clusters)
{
	int r = 0;

	if (!bytes)
		return 0;
	if (check_table_outside(ck, off, bytes)) {
		ck->tally.corruptions++;
		check_note_outside(ck, &ck->tally, off);
	} else {
		r = check_refs_push(clusters, off, round_up(bytes, ck->cluster), active);
	}
	if (r == 0 && off < ck->file_size)
		r = check_refs_push(entries, off, bytes, active);
	return r;
}

static int list_l1s(struct check *ck, struct table_refs *entries, struct table_refs *clusters)
{
	struct header *h = ck->h;
	int r = list_l1(ck, h->l1_offset, h->l1_size * UINT64_C(8), true, entries, clusters);

	if (!ck->counting)
		return r;
	ck->tally.corruptions += ck->data_file && ck->n_snap;
	for (unsigned i = 0; r == 0 && i < ck->n_snap; i++) {
		const struct snap_ref *s = &ck->snap[i];

		if (check_snap_usable(ck, s))
			r = list_l1(ck, s->l1_offset, s->l1_size * UINT64_C(8), false, entries,
				    clusters);
		else
			ck->tally.corruptions++;
	}
	return r;
}

static int scan_tables(struct check *ck, struct err *err)
{
	struct table_refs entries = {0}, clusters = {0};
	int r = list_l1s(ck, &entries, &clusters);

	ck->n_l2 = 0;
	ck->l2_split = false;
	if (r < 0)
		err_nomem(err, entries.n * sizeof(*entries.v), "the list of L1 tables");
	if (r == 0 && ck->counting)
		r = check_sweep(&clusters, check_stretch_clusters, ck, err);
	if (r == 0)
		r = check_sweep(&entries, l1_stretch, ck, err);
	free(entries.v);
	free(clusters.v);
	if (r < 0)
		return r;
	l2_merge(ck);
	r = scan_list(ck, err);
	check_bad_sort(&ck->bad);
	check_bad_sort(&ck->bad_copied);
	return r;
}

int check_count_tables(struct check *ck, struct err *err)
{
	ck->counting = true;
	return scan_tables(ck, err);
}

int check_scan_copied(struct check *ck, struct err *err)
{
	struct tally saved = ck->tally;
	int r;

	ck->counting = false;
	memset(&ck->tally, 0, sizeof(ck->tally));
	ck->bad.n = ck->bad_copied.n = 0;
	ck->bad.all = ck->bad_copied.all = false;
	r = scan_tables(ck, err);
	saved.copied = ck->tally.copied;
	ck->tally = saved;
	return r;
}
