// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Refcounts on disk: loading them, and comparing them with the references. QEMU
 * docs/interop/qcow2, "Host cluster management".
 *
 * Loaded counts are kept in 2 bits each; 3 means "3 or more, look at the block". Most clusters of
 * most images are 0 or 1, so the comparison goes 32 clusters at a time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/work.h"
#include "formats/qcow2/check_impl.h"

#define LOW UINT64_C(0x5555555555555555)

/* ---- refcount table ---- */

uint64_t check_block_offset(const struct check *ck, uint64_t i)
{
	return i < ck->reftable_entries ? be64_get(ck->reftable[i]) & REFTABLE_OFFSET : 0;
}

enum block_state check_block_state(const struct check *ck, uint64_t i)
{
	uint64_t value = i < ck->reftable_entries ? be64_get(ck->reftable[i]) : 0;

	if (!value)
		return BLOCK_NONE;
	if (value & REFTABLE_RESERVED)
		return BLOCK_RESERVED;
	if (!is_aligned(value, ck->cluster))
		return BLOCK_MISALIGNED;
	return value < ck->file_size ? BLOCK_FINE : BLOCK_OUTSIDE;
}

bool check_block_readable(const struct check *ck, uint64_t i)
{
	uint64_t off = check_block_offset(ck, i);

	return is_aligned(off, ck->cluster) && off <= INT64_MAX - ck->cluster;
}

int check_read_reftable(struct check *ck, struct err *err)
{
	uint64_t bytes = (uint64_t)ck->h->reftable_clusters << ck->cluster_bits;
	int r;

	if (!bytes)
		return 0;
	ck->reftable = malloc(bytes);
	if (!ck->reftable)
		return err_nomem(err, bytes, "the refcount table");
	r = io_pread_tail(ck->file, ck->reftable, bytes, ck->h->reftable_offset, err);
	if (r < 0)
		return r;
	ck->reftable_entries = bytes / 8;
	for (uint64_t i = 0; i < ck->reftable_entries; i++)
		ck->bad_blocks += !check_block_readable(ck, i);
	return 0;
}

int check_stored_exact(struct check *ck, uint64_t k, uint64_t *count, struct err *err)
{
	uint64_t i = k >> ck->refblock_bits, n = k & ((UINT64_C(1) << ck->refblock_bits) - 1);
	uint64_t off = check_block_offset(ck, i), bit = n << ck->h->refcount_order;
	unsigned char buf[8];
	unsigned width = ck->h->refcount_order > 3 ? 1U << (ck->h->refcount_order - 3) : 1;
	int r;

	*count = 0;
	if (!off)
		return 0;
	if (!check_block_readable(ck, i))
		return -EIO;
	r = io_pread_tail(ck->file, buf, width, off + bit / 8, err);
	if (r == 0)
		*count = refcount_load(buf, ck->h->refcount_order,
				       width > 1 ? 0 : (bit & 7) >> ck->h->refcount_order);
	return r;
}

/* ---- loading a window ---- */

struct load {
	struct check *ck;
	_Atomic uint64_t next; /* refcount table index */
	uint64_t end;
};

/* Whether 32 refcounts of 16 bits are all 1. */
static bool all_one_16(const unsigned char *p)
{
	uint64_t differ = 0, four;

	for (unsigned i = 0; i < 64; i += 8) {
		memcpy(&four, p + i, 8);
		differ |= four ^ htobe64(UINT64_C(0x0001000100010001));
	}
	return !differ;
}

/* 32 refcounts from index i of a block on, as 2-bit fields. */
static uint64_t block_word(const unsigned char *block, unsigned order, uint64_t i)
{
	uint64_t w = 0;

	if (order == 4 && all_one_16(block + i * 2))
		return LOW;
	for (unsigned j = 0; j < 32; j++)
		w |= min_u64(refcount_load(block, order, i + j), 3) << (j * 2);
	return w;
}

static int load_block(struct check *ck, uint64_t i, const unsigned char *block)
{
	uint64_t k = i << ck->refblock_bits, n = UINT64_C(1) << ck->refblock_bits;

	for (uint64_t j = 0; j < n && refmap_has(&ck->stored, k + j); j += 32) {
		uint64_t w = block_word(block, ck->h->refcount_order, j);
		int r = w ? refmap_set_word(&ck->stored, k + j, w) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int load_worker(void *ctx, unsigned worker, struct err *err)
{
	struct load *load = ctx;
	struct check *ck = load->ck;
	CLEANUP_FREE unsigned char *buf = malloc(ck->cluster);
	struct extent seen = {0};
	int r = 0;

	(void)worker;
	if (!buf)
		return err_nomem(err, ck->cluster, "a refcount block");
	while (r == 0) {
		uint64_t i = atomic_fetch_add(&load->next, 1);
		uint64_t off = check_block_offset(ck, i);

		if (i >= load->end)
			break;
		if (!off || !check_block_readable(ck, i) || check_hole(ck, &seen, off, ck->cluster))
			continue;
		if (job_cancelled(ck->job))
			return err_set(err, ECANCELED, "cancelled");
		r = io_pread_tail(ck->file, buf, ck->cluster, off, err);
		if (r == 0)
			r = check_map_error(load_block(ck, i, buf), err);
	}
	return r;
}

int check_load_stored(struct check *ck, struct err *err)
{
	struct load load = {.ck = ck, .next = ck->stored.first >> ck->refblock_bits};
	uint64_t last = ck->stored.first + ck->stored.n - 1;

	load.end = min_u64((last >> ck->refblock_bits) + 1, ck->reftable_entries);
	if (load.next >= load.end)
		return 0;
	return work_run(check_threads(load.end - load.next), load_worker, &load, err);
}

/* ---- references of the blocks themselves ---- */

static void report_block(struct check *ck, uint64_t i, enum block_state state)
{
	switch (state) {
	case BLOCK_RESERVED:
		check_report(ck, F_REFTABLE,
			     "ERROR refcount table entry %" PRIu64 " has reserved bits set", i);
		break;
	case BLOCK_MISALIGNED:
		check_report(ck, F_REFTABLE,
			     "ERROR refcount block %" PRIu64
			     " is not cluster aligned; refcount table entry corrupted",
			     i);
		break;
	default:
		check_report(ck, F_REFTABLE, "%s refcount block %" PRIu64 " is outside image",
			     ck->fix & CHECK_FIX_ERRORS ? "Repairing" : "ERROR", i);
	}
	ck->sum.blocks++;
	ck->sum.rebuild |= state != BLOCK_OUTSIDE || (ck->fix & CHECK_FIX_ERRORS);
}

static int count_block(struct check *ck, uint64_t i, struct err *err)
{
	uint64_t k = check_block_offset(ck, i) >> ck->cluster_bits, count;
	int r;

	if (!refmap_has(&ck->refs, k))
		return 0;
	r = check_add_region(ck, k << ck->cluster_bits, ck->cluster, 1, err);
	if (r < 0)
		return r;
	count = refmap_get(&ck->refs, k);
	if (count == 1)
		return 0;
	check_report(ck, F_REFBLOCK, "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, i,
		     count);
	ck->sum.blocks++;
	ck->sum.rebuild = true;
	return 0;
}

/* Remembers which blocks, and whether the table, share their cluster with something else. */
static void note_shared(struct check *ck)
{
	uint64_t first = ck->h->reftable_offset >> ck->cluster_bits;

	for (uint64_t i = 0; i < ck->reftable_entries; i++) {
		uint64_t k = check_block_offset(ck, i) >> ck->cluster_bits;

		if (k && refmap_has(&ck->refs, k) && refmap_get(&ck->refs, k) != 1)
			ck->shared[i / 8] |= (unsigned char)(1U << (i % 8));
	}
	for (uint64_t k = first; k < first + ck->h->reftable_clusters; k++)
		if (!refmap_has(&ck->refs, k) ? k >= ck->span : refmap_get(&ck->refs, k) != 1)
			ck->table_shared = true;
}

int check_count_blocks(struct check *ck, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < ck->reftable_entries; i++) {
		enum block_state state = check_block_state(ck, i);

		if (state == BLOCK_FINE)
			r = count_block(ck, i, err);
		else if (state != BLOCK_NONE && ck->first_pass)
			report_block(ck, i, state);
	}
	if (r == 0 && ck->fix)
		note_shared(ck);
	return r;
}

/* ---- comparison ---- */

struct compare {
	struct check *ck;
	unsigned fix;
	unsigned char *block; /* owned: the block that was last read */
	uint64_t index;       /* of that block */
	struct err *err;
};

/* Refcounts above 2 are in the block only. */
static int wide_count(struct compare *c, uint64_t k, uint64_t *count)
{
	struct check *ck = c->ck;
	uint64_t i = k >> ck->refblock_bits;
	int r = 0;

	if (i != c->index) {
		c->index = UINT64_MAX;
		r = io_pread_tail(ck->file, c->block, ck->cluster, check_block_offset(ck, i),
				  c->err);
		if (r < 0)
			return r;
		c->index = i;
	}
	*count = refcount_load(c->block, ck->h->refcount_order,
			       k & ((UINT64_C(1) << ck->refblock_bits) - 1));
	return 0;
}

static void mismatch(struct compare *c, uint64_t k, uint64_t stored, uint64_t refs)
{
	struct check *ck = c->ck;
	const char *verb = stored < refs ? "ERROR" : "Leaked";

	if (stored < refs ? c->fix & CHECK_FIX_ERRORS : c->fix & CHECK_FIX_LEAKS)
		verb = "Repairing";
	check_report(ck, F_CLUSTER,
		     "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, verb, k,
		     stored, refs);
	if (c->fix)
		return;
	ck->sum.rebuild |= !stored;
	if (stored < refs)
		ck->sum.too_low++;
	else
		ck->sum.too_high++;
}

static int compare_word(struct compare *c, uint64_t k, uint64_t refs, uint64_t stored, unsigned n)
{
	for (unsigned j = 0; j < n; j++) {
		uint64_t a = stored >> (j * 2) & 3, b = refs >> (j * 2) & 3;

		if (a == 3) {
			int r = wide_count(c, k + j, &a);

			if (r < 0)
				return r;
		}
		if (b == 3)
			b = refmap_get(&c->ck->refs, k + j);
		if (a != b)
			mismatch(c, k + j, a, b);
	}
	return 0;
}

/* The clusters of a block that cannot be read, n of them from k on. */
static void unreadable(struct compare *c, uint64_t k, unsigned n)
{
	if (c->fix)
		return;
	c->ck->sum.check_errors += n;
	c->ck->sum.unreadable += n;
	if (!c->ck->sum.unreadable_said) {
		uint64_t i = k >> c->ck->refblock_bits;

		c->ck->sum.unreadable_said = true;
		check_report(c->ck, F_NOTE,
			     "qcow2: Image is corrupt: Refblock offset %#" PRIx64 " unaligned "
			     "(reftable index: %#" PRIx64 "); further non-fatal corruption events "
			     "will be suppressed",
			     check_block_offset(c->ck, i), i);
	}
	for (unsigned j = 0; j < n; j++)
		check_report(c->ck, F_UNREADABLE,
			     "Can't get refcount for cluster %" PRIu64 ": Input/output error",
			     k + j);
}

static int compare_32(struct compare *c, uint64_t k, uint64_t end)
{
	struct check *ck = c->ck;
	unsigned n = (unsigned)min_u64(end - k, 32);
	uint64_t mask = n < 32 ? (UINT64_C(1) << (n * 2)) - 1 : UINT64_MAX;
	uint64_t refs = refmap_word(&ck->refs, k) & mask;
	uint64_t stored = refmap_word(&ck->stored, k) & mask;
	uint64_t block = k >> ck->refblock_bits;

	bool readable = !ck->bad_blocks || check_block_readable(ck, block);

	if (refs | stored) {
		uint64_t last = k + (63 - (unsigned)__builtin_clzll(refs | stored)) / 2;

		ck->highest = max_u64(ck->highest, last);
		if (readable) /* the peer does not see the others */
			ck->highest_said = max_u64(ck->highest_said, last);
	}
	if (refs && ck->need)
		ck->need[block / 8] |= (unsigned char)(1U << (block % 8));
	if (!readable) {
		unreadable(c, k, n);
		return 0;
	}
	if (refs == stored && !(refs & refs >> 1 & LOW))
		return 0;
	return compare_word(c, k, refs, stored, n);
}

int check_compare(struct check *ck, unsigned fix, struct err *err)
{
	CLEANUP_FREE unsigned char *block = malloc(ck->cluster);
	struct compare c = {.ck = ck, .fix = fix, .block = block, .index = UINT64_MAX, .err = err};
	uint64_t k = ck->refs.first, end = min_u64(ck->clusters, k + ck->refs.n);
	int r = 0;

	if (!block)
		return err_nomem(err, ck->cluster, "a refcount block");
	while (r == 0 && k < end) {
		uint64_t page_end = min_u64(end, k + (UINT64_C(1) << REFMAP_PAGE_BITS));

		if (job_cancelled(ck->job))
			return err_set(err, ECANCELED, "cancelled");
		if (!ck->bad_blocks && refmap_page_empty(&ck->refs, k) &&
		    refmap_page_empty(&ck->stored, k)) {
			k = page_end;
			continue;
		}
		for (; r == 0 && k < page_end; k += 32)
			r = compare_32(&c, k, end);
		k = min_u64(k, page_end);
	}
	return r;
}
