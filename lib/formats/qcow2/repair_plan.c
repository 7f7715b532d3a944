// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * New refcount blocks, a new refcount table, a new snapshot table: where they go, and the switch.
 *
 * They go past the last cluster that has a reference or a refcount, in one stretch, which counts
 * itself: placing them may make more blocks necessary, until it does not.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "formats/qcow2/repair.h"

void repair_plan_free(struct plan *plan)
{
	if (!plan)
		return;
	free(plan->block);
	free(plan);
}

/* Whether the block of entry i can stay where it is. */
static bool block_stays(const struct check *ck, uint64_t i)
{
	return check_block_state(ck, i) == BLOCK_FINE && !bit_get(ck->shared, i);
}

/* Whether something in the range of entry i needs a refcount: old references or new clusters. */
static bool block_needed(const struct check *ck, const struct plan *p, uint64_t i)
{
	uint64_t first = p->first >> ck->refblock_bits;
	uint64_t last = (p->first + p->n - 1) >> ck->refblock_bits;

	if (p->n && i >= first && i <= last)
		return true;
	return i <= ck->span >> ck->refblock_bits && bit_get(ck->need, i);
}

bool repair_block_new(const struct plan *plan, uint64_t i)
{
	uint64_t off = plan->block[i];

	return plan->new_blocks && off >= plan->first_offset &&
	       off < plan->first_offset + plan->new_bytes;
}

/* Sizes everything for the range of new clusters in p; returns how many it needs then. */
static uint64_t plan_size(const struct check *ck, struct plan *p)
{
	uint64_t last = 0;
	bool changes = false;

	p->new_blocks = 0;
	for (uint64_t i = 0; i <= ck->span >> ck->refblock_bits; i++) {
		bool needed = block_needed(ck, p, i);

		if (needed)
			last = i;
		if (needed && !block_stays(ck, i))
			p->new_blocks++;
	}
	p->entries = max_u64(ck->reftable_entries, last + 1);
	for (uint64_t i = 0; i < ck->reftable_entries && !changes; i++)
		changes = !block_stays(ck, i) && check_block_state(ck, i) != BLOCK_NONE;
	p->move_table = p->entries > ck->reftable_entries ||
			(ck->table_shared && (changes || p->new_blocks));
	p->table_clusters = p->move_table ? div_up(p->entries * 8, ck->cluster) : 0;
	if (p->move_table)
		p->entries = p->table_clusters * ck->cluster / 8;
	return p->new_blocks + p->table_clusters + div_up(p->snaps_bytes, ck->cluster);
}

/* Sizes it for new clusters from `first` on, until that makes no more of them necessary. */
static void plan_at(const struct check *ck, struct plan *p, uint64_t first)
{
	uint64_t n;

	p->first = first;
	p->n = 0;
	for (n = plan_size(ck, p); n > p->n; n = plan_size(ck, p))
		p->n = n;
}

/* Whether nothing refers to the new clusters, and the file can hold them. */
static bool place_fits(const struct check *ck, const struct plan *p)
{
	uint64_t end = p->first + p->n;

	return end <= ck->span && end <= ck->outside &&
	       (end << ck->cluster_bits <= ck->file_size || (ck->file->caps & IO_GROWS));
}

/* A run of free clusters inside the file; false: there is none that is long enough. */
static bool plan_gap(const struct check *ck, struct plan *p)
{
	uint64_t run = 0, want = p->n;

	if (ck->refs.first || ck->clusters > ck->refs.n)
		return false; /* too large for one look */
	for (uint64_t k = 1; k <= ck->highest; k++) {
		run = refmap_get(&ck->refs, k) || refmap_get(&ck->stored, k) ? 0 : run + 1;
		if (run < want)
			continue;
		plan_at(ck, p, k + 1 - run);
		if (p->n <= run)
			return true;
		want = p->n;
	}
	return false;
}

static int plan_place(struct check *ck, struct plan *p, struct err *err)
{
	plan_at(ck, p, ck->highest + 1);
	if (p->entries * 8 > QCOW2_MAX_REFTABLE)
		return err_set(err, EFBIG, "%s: the refcount table would be too large",
			       ck->file->name);
	if (!p->n || place_fits(ck, p) || plan_gap(ck, p))
		return 0;
	return err_set(err, ENOSPC,
		       "%s: there is no place for %" PRIu64 " clusters of new refcounts that "
		       "nothing refers to",
		       ck->file->name, p->n);
}

/* Gives each entry its block, and the tables their places. */
static int plan_blocks(struct check *ck, struct plan *p, struct err *err)
{
	uint64_t next = p->first << ck->cluster_bits;

	p->block = calloc(p->entries ? p->entries : 1, sizeof(*p->block));
	if (!p->block)
		return err_nomem(err, p->entries * sizeof(*p->block), "the refcount table");
	p->first_offset = next;
	for (uint64_t i = 0; i < p->entries; i++) {
		if (block_stays(ck, i)) {
			p->block[i] = check_block_offset(ck, i);
		} else if (block_needed(ck, p, i)) {
			p->block[i] = next;
			next += ck->cluster;
		}
	}
	p->new_bytes = next - p->first_offset;
	p->table_offset = next;
	p->snaps_offset = next + (p->table_clusters << ck->cluster_bits);
	return 0;
}

int repair_plan(struct check *ck, struct err *err)
{
	struct plan *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_nomem(err, sizeof(*p), "a plan");
	ck->plan = p;
	p->move_snaps = ck->snap_cut || ck->snap_incomplete;
	if (p->move_snaps)
		p->snaps_bytes = repair_snaps_bytes(ck);
	if (p->snaps_bytes > QCOW2_MAX_SNAPTABLE)
		return err_set(err, EFBIG, "%s: the snapshot table would be too large",
			       ck->file->name);
	r = plan_place(ck, p, err);
	if (r == 0)
		r = plan_blocks(ck, p, err);
	if (r == 0)
		ck->clusters = max_u64(ck->clusters, p->first + p->n);
	return r;
}

/* Takes back one reference of each cluster of an old structure, where it was counted. */
static int forget(struct check *ck, uint64_t off, uint64_t bytes)
{
	uint64_t k = off >> ck->cluster_bits, end = k + div_up(bytes, ck->cluster);
	int r = 0;

	if (!bytes || check_table_outside(ck, off, bytes))
		return 0;
	for (; r == 0 && k < end; k++)
		if (refmap_has(&ck->refs, k) && refmap_get(&ck->refs, k))
			r = refmap_set(&ck->refs, k, refmap_get(&ck->refs, k) - 1);
	return r;
}

int repair_plan_apply(struct check *ck, struct err *err)
{
	const struct plan *p = ck->plan;
	int r = refmap_add(&ck->refs, p->first, p->n, 1);

	for (uint64_t i = 0; r == 0 && i < ck->reftable_entries; i++)
		if (check_block_state(ck, i) == BLOCK_FINE && !block_stays(ck, i))
			r = forget(ck, check_block_offset(ck, i), ck->cluster);
	if (r == 0 && p->move_table)
		r = forget(ck, ck->h->reftable_offset, ck->reftable_entries * 8);
	if (r == 0 && p->move_snaps)
		r = forget(ck, ck->h->snapshots_offset, ck->snap_bytes);
	return check_map_error(r, err);
}

static int write_reftable(struct check *ck, struct err *err)
{
	const struct plan *p = ck->plan;
	uint64_t bytes = p->table_clusters << ck->cluster_bits;
	CLEANUP_FREE be64 *t = calloc(1, bytes);

	if (!t)
		return err_nomem(err, bytes, "the refcount table");
	for (uint64_t i = 0; i < p->entries; i++)
		t[i] = be64_make(p->block[i]);
	return io_pwrite(ck->file, t, bytes, p->table_offset, err);
}

int repair_write_tables(struct check *ck, struct err *err)
{
	const struct plan *p = ck->plan;
	int r = p->move_table ? write_reftable(ck, err) : 0;

	if (r == 0 && p->move_snaps)
		r = repair_write_snaps(ck, p->snaps_offset, err);
	return r;
}

/* Entries that change in a table that stays: eight bytes each, which are never torn. */
static int switch_entries(struct check *ck, struct err *err)
{
	const struct plan *p = ck->plan;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < ck->reftable_entries; i++) {
		be64 v = be64_make(p->block[i]);

		if (memcmp(&v, &ck->reftable[i], sizeof(v)) != 0)
			r = io_pwrite(ck->file, &v, sizeof(v), ck->h->reftable_offset + i * 8, err);
	}
	return r < 0 ? r : io_flush(ck->file, err);
}

int repair_switch(struct check *ck, struct err *err)
{
	const struct plan *p = ck->plan;
	struct header *h = ck->h;
	int r = 0;

	if (!p->move_table)
		r = switch_entries(ck, err);
	if (r < 0)
		return r;
	if (p->move_table) {
		h->reftable_offset = p->table_offset;
		h->reftable_clusters = (uint32_t)p->table_clusters;
	}
	if (p->move_snaps)
		h->snapshots_offset = p->snaps_offset;
	h->nb_snapshots = ck->n_snap;
	r = header_update(ck->file, h, err);
	return r < 0 ? r : io_flush(ck->file, err);
}
