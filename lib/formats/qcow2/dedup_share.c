// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Sharing of equal clusters in a qcow2 file: making pairs one.
 *
 * Order on disk, under the dirty bit in version 3 images, as for snapshots (I7, I8):
 *
 *	COPIED is cleared in the entries for the clusters that stay
 *	- flush -
 *	their refcounts are raised by those of the clusters that go
 *	- flush -
 *	entries for what goes point to what stays
 *	- flush -
 *	what went is free
 *	... at the very end: COPIED is set again where the refcount is 1
 *	- flush -
 *	the dirty bit is taken off
 *
 * A version 2 image that crashes in between has leaks, or COPIED flags that are missing, which is
 * safe. Both clusters of a pair are compared byte by byte before.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/dedup.h"

/* ---- are they equal? ---- */

static int compare(struct dedup *d, struct dedup_pair *p, unsigned char *buf, struct err *err)
{
	struct qcow2 *q = d->q;
	int r = io_pread_tail(q->img.file, buf, q->cluster, p->gone << q->cluster_bits, err);

	if (r == 0)
		r = io_pread_tail(q->img.file, buf + q->cluster, q->cluster,
				  p->kept << q->cluster_bits, err);
	if (r == 0 && memcmp(buf, buf + q->cluster, q->cluster) != 0)
		p->gone = 0;
	return r;
}

/* Leaves the pairs that are equal. */
static int compare_all(struct dedup *d, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = malloc(2 * d->q->cluster);
	int r = 0;

	if (!buf)
		return err_nomem(err, 2 * d->q->cluster, "two clusters");
	for (size_t i = 0; r == 0 && i < d->n_pair; i++)
		r = compare(d, &d->pair[i], buf, err);
	return r;
}

/* ---- finding a pair by a cluster ---- */

static int by_gone(const void *a, const void *b)
{
	uint64_t x = ((const struct dedup_pair *)a)->gone, y = ((const struct dedup_pair *)b)->gone;

	return (x > y) - (x < y);
}

/* Sorts the pairs, without those that were dropped, and marks their clusters. */
static void index_pairs(struct dedup *d)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n_pair; i++)
		if (d->pair[i].gone)
			d->pair[n++] = d->pair[i];
	d->n_pair = n;
	if (!n)
		return;
	qsort(d->pair, n, sizeof(*d->pair), by_gone);
	for (size_t i = 0; i < n; i++) {
		dedup_set(d->batch, d->pair[i].gone, true);
		dedup_set(d->batch, d->pair[i].kept, true);
	}
}

static void forget_pairs(struct dedup *d)
{
	for (size_t i = 0; i < d->n_pair; i++) {
		dedup_set(d->batch, d->pair[i].gone, false);
		dedup_set(d->batch, d->pair[i].kept, false);
	}
	d->n_pair = 0;
}

/* The cluster that a plain entry refers to, if a pair speaks of it; else 0. */
static uint64_t concerned(const struct dedup *d, uint64_t entry)
{
	uint64_t k = (entry & ENTRY_OFFSET) >> d->q->cluster_bits;

	return !(entry & ENTRY_COMPRESSED) && k < d->clusters && bit_get(d->batch, k) ? k : 0;
}

static struct dedup_pair *pair_of(const struct dedup *d, uint64_t gone)
{
	const struct dedup_pair key = {.gone = gone};

	return bsearch(&key, d->pair, d->n_pair, sizeof(key), by_gone);
}

/* ---- the walks ---- */

static int clear_copied(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	struct dedup *d = ctx;
	struct dedup_pair *p;
	uint64_t k;

	(void)at;
	(void)err;
	k = concerned(d, e->raw);
	p = k ? pair_of(d, k) : NULL;
	if (p)
		p->refs++;
	else if (k)
		e->raw &= ~ENTRY_COPIED;
	return 0;
}

static int switch_entry(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	struct dedup *d = ctx;
	struct dedup_pair *p;
	uint64_t k;

	(void)at;
	(void)err;
	k = concerned(d, e->raw);
	p = k ? pair_of(d, k) : NULL;
	if (p && p->refs)
		e->raw = (e->raw & ~(ENTRY_OFFSET | ENTRY_COPIED)) | p->kept << d->q->cluster_bits;
	return 0;
}

static int write_pointers(struct qcow2 *q, struct err *err)
{
	int r = mcache_write(&q->cache, CLASS_L2, err);

	if (r == 0)
		r = qcow2_write_l1(q, err);
	return r < 0 ? r : qcow2_flush(q, BARRIER_COPIED, err);
}

/* What goes counts for what stays. A pair that cannot be: refs becomes 0. */
static int raise_counts(struct dedup *d, struct err *err)
{
	struct qcow2 *q = d->q;
	uint64_t max = refcount_max(q->h.refcount_order), gone, kept;

	for (size_t i = 0; i < d->n_pair; i++) {
		struct dedup_pair *p = &d->pair[i];
		int r = qcow2_refcount_get(q, p->gone, &gone, err);

		if (r == 0)
			r = qcow2_refcount_get(q, p->kept, &kept, err);
		if (r < 0)
			return r;
		/* Something that the walk does not know of refers to it, or it would be too much. */
		if (gone != p->refs || gone > max - kept)
			p->refs = 0;
		for (uint64_t k = 0; k < p->refs; k++) {
			r = qcow2_refcount_add(q, p->kept, +1, err);
			if (r < 0)
				return r;
		}
	}
	return qcow2_quiesce(q, err);
}

static void free_gone(struct dedup *d)
{
	for (size_t i = 0; i < d->n_pair; i++) {
		const struct dedup_pair *p = &d->pair[i];

		for (uint64_t k = 0; k < p->refs; k++)
			qcow2_park(d->q, p->gone, 1);
		if (!p->refs)
			continue;
		dedup_set(d->data, p->gone, false);
		d->res->freed += d->q->cluster;
	}
}

static int share_steps(struct dedup *d, struct err *err)
{
	struct qcow2 *q = d->q;
	int r = qcow2_set_dirty_bit(q, true, err);

	d->changing = true;
	if (r == 0)
		r = qcow2_trees_each(q, NULL, clear_copied, d, err);
	if (r == 0)
		r = write_pointers(q, err);
	if (r == 0)
		r = raise_counts(d, err);
	if (r == 0)
		r = qcow2_trees_each(q, NULL, switch_entry, d, err);
	if (r < 0)
		return r;
	free_gone(d);
	return qcow2_turn(&q->img, err);
}

int dedup_share(struct dedup *d, struct err *err)
{
	int r = compare_all(d, err);

	if (r < 0)
		return r;
	index_pairs(d);
	if (d->n_pair)
		r = share_steps(d, err);
	forget_pairs(d);
	/* In the middle of a change nothing may be written any more: the next opening repairs. */
	if (r < 0)
		atomic_store(&d->q->img.broken, -r);
	return r;
}

int dedup_end_change(struct dedup *d, struct err *err)
{
	struct qcow2 *q = d->q;
	int r = 0;

	if (!d->changing || atomic_load(&q->img.broken))
		return 0;
	r = qcow2_quiesce(q, err);
	if (r == 0)
		r = qcow2_tree_copied(q, q->l1, q->h.l1_size, false, err);
	q->l1_dirty = (struct dirty_sectors){0, div_up(q->h.l1_size, 64)};
	if (r == 0)
		r = write_pointers(q, err);
	if (r == 0)
		r = qcow2_set_dirty_bit(q, false, err);
	if (r < 0)
		atomic_store(&q->img.broken, -r);
	q->writing = false; /* lazy refcounts: the next write sets the dirty bit again */
	return r < 0 ? r : qcow2_truncate_file(q, err);
}
