// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Compaction: clusters of data and L2 tables. Both move whole; they differ in what points to them:
 * L2 entries, or L1 entries.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/work.h"
#include "formats/qcow2/compact.h"

#define COPY_BYTES   (2 * MiB) /* in one request */
#define COPY_THREADS 4
#define COPY_SMALL   (16 * MiB) /* up to here one thread will do */

/* ---- what is in the window ---- */

static struct slot *slot_of(struct compact *c, uint64_t cluster)
{
	return cluster - c->base < c->end - c->base ? &c->slot[cluster - c->base] : NULL;
}

static struct slot *note(struct compact *c, uint64_t cluster, enum cluster_kind kind)
{
	struct slot *s = slot_of(c, cluster);

	if (!s)
		return NULL;
	s->kind = s->kind == KIND_OTHER || s->kind == kind ? kind : KIND_MIXED;
	s->refs++;
	return s;
}

static int note_table(void *ctx, const be64 *l1, uint32_t n, struct err *err)
{
	struct compact *c = ctx;

	(void)err;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t l2 = be64_get(l1[i]) & ENTRY_OFFSET;

		if (l2)
			note(c, l2 >> c->q->cluster_bits, KIND_TABLE);
	}
	return 0;
}

static int note_entry(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	struct compact *c = ctx;
	uint64_t first = 0, n;
	struct slot *s;

	(void)at;
	(void)err;
	qcow2_entry_clusters(c->q, *e, &first, &n);
	for (uint64_t k = first; k < first + n; k++) {
		s = note(c, k, e->raw & ENTRY_COMPRESSED ? KIND_CODED : KIND_DATA);
		if (s)
			s->filled |= e->alloc != 0;
	}
	return 0;
}

int compact_classify(struct compact *c, struct err *err)
{
	return qcow2_trees_each(c->q, note_table, note_entry, c, err);
}

/* ---- choosing places ---- */

static int movable(struct compact *c, uint64_t cluster, enum cluster_kind kind, struct err *err)
{
	const struct slot *s = slot_of(c, cluster);
	uint64_t count;
	int r;

	if (s->kind != kind || cluster < c->used)
		return 0;
	r = qcow2_refcount_get(c->q, cluster, &count, err);
	return r < 0 ? r : count == s->refs;
}

/* Takes holes for clusters from the end of the window on. Lists them: to[0 … *n), ascending. */
static int take_places(struct compact *c, enum cluster_kind kind, uint64_t *to, size_t *n,
		       struct err *err)
{
	for (uint64_t k = c->end; k > c->base; k--) {
		int r = movable(c, k - 1, kind, err);

		if (r > 0)
			r = qcow2_take_below(c->q, 1, k - 1, &to[*n], err);
		else if (r == 0)
			continue;
		if (r <= 0)
			return r;
		slot_of(c, k - 1)->to = 1; /* chosen */
		++*n;
	}
	return 0;
}

/* Gives back the places of what is not copied, or of all. */
static void give_back(struct compact *c, bool all)
{
	for (uint64_t k = c->base; k < c->end; k++) {
		struct slot *s = slot_of(c, k);

		if (!s->to || (s->copied && !all))
			continue;
		qcow2_unalloc(c->q, s->to, 1);
		s->to = 0;
	}
}

static void forget_moves(struct compact *c)
{
	for (uint64_t k = c->base; k < c->end; k++)
		slot_of(c, k)->to = 0;
}

/* The order of the clusters stays as it is: runs remain runs. *n: how many move. */
static int choose(struct compact *c, enum cluster_kind kind, size_t *n, struct err *err)
{
	CLEANUP_FREE uint64_t *to = malloc((c->end - c->base) * sizeof(*to));
	size_t i = 0;
	int r;

	*n = 0;
	if (!to)
		return err_nomem(err, (c->end - c->base) * sizeof(*to), "the list of clusters");
	r = take_places(c, kind, to, n, err);
	for (uint64_t k = c->base; i < *n; k++) {
		if (!slot_of(c, k)->to)
			continue;
		slot_of(c, k)->to = to[i++];
		slot_of(c, k)->copied = false;
	}
	if (r < 0)
		give_back(c, true);
	return r;
}

/* ---- copying ---- */

struct copier {
	struct compact *c;
	pthread_mutex_t lock;
	uint64_t next;      /* cluster to look at */
	_Atomic bool ended; /* somebody failed */
};

/* The next run of clusters that are neighbours, before and after. */
static uint64_t next_run(struct copier *co, uint64_t *first)
{
	struct compact *c = co->c;
	uint64_t n = 0, most = max_u64(COPY_BYTES >> c->q->cluster_bits, 1), k;

	pthread_mutex_lock(&co->lock);
	if (compact_stopping(c) || atomic_load(&co->ended))
		co->next = c->end;
	while (co->next < c->end && !slot_of(c, co->next)->to)
		co->next++;
	*first = k = co->next;
	for (; n < most && k + n < c->end && slot_of(c, k + n)->to == slot_of(c, k)->to + n; n++)
		if (!slot_of(c, k)->to || slot_of(c, k + n)->filled != slot_of(c, k)->filled)
			break;
	co->next = k + n;
	pthread_mutex_unlock(&co->lock);
	return n;
}

/* Holes stay holes. */
static int copy_run(struct compact *c, uint64_t first, uint64_t n, void *buf, struct err *err)
{
	struct qcow2 *q = c->q;
	size_t len = n << q->cluster_bits;
	uint64_t to = slot_of(c, first)->to << q->cluster_bits;
	int r = 0;

	if (slot_of(c, first)->filled || slot_of(c, first)->kind == KIND_TABLE)
		r = io_pread_tail(q->img.file, buf, len, first << q->cluster_bits, err);
	else
		return 0; /* nobody reads it */
	if (r < 0)
		return r;
	if ((q->img.file->caps & IO_SPARSE) && bytes_are_zero(buf, len))
		return io_zero(q->img.file, to, len, IO_ZERO_UNMAP, err);
	return io_pwrite(q->img.file, buf, len, to, err);
}

static int copy_some(void *ctx, unsigned worker, struct err *err)
{
	struct copier *co = ctx;
	struct compact *c = co->c;
	uint64_t most = max_u64(COPY_BYTES, c->q->cluster), first, n;
	CLEANUP_FREE void *buf = malloc(most);

	(void)worker;
	if (!buf)
		return err_nomem(err, most, "copies");
	while ((n = next_run(co, &first)) > 0) {
		int r = copy_run(c, first, n, buf, err);

		if (r < 0) {
			atomic_store(&co->ended, true);
			return r;
		}
		for (uint64_t k = first; k < first + n; k++)
			slot_of(c, k)->copied = true;
		job_advance(c->job, n << c->q->cluster_bits);
	}
	return 0;
}

/*
 * Copies what was chosen, as far as it gets. When there is no space for more copies, what is copied
 * is still moved: that makes space.
 */
static int copy(struct compact *c, size_t n, struct err *err)
{
	struct copier co = {.c = c, .next = c->base, .lock = PTHREAD_MUTEX_INITIALIZER};
	unsigned threads = n << c->q->cluster_bits > COPY_SMALL ? COPY_THREADS : 1;
	int r = work_run(threads, copy_some, &co, err);

	if (r == -ENOSPC && !c->stopped) {
		c->stopped = r;
		r = 0;
	}
	give_back(c, r < 0);
	return r;
}

/* ---- counting ---- */

/* The new places count as many references as the old ones. On failure they leak, no more. */
static int raise_counts(struct compact *c, struct err *err)
{
	int r = 0;

	for (uint64_t k = c->base; r == 0 && k < c->end; k++) {
		const struct slot *s = slot_of(c, k);

		if (s->to)
			r = compact_count(c->q, s->to, s->refs - 1, true, err);
	}
	return r < 0 ? r : qcow2_quiesce(c->q, err);
}

/* Nothing in memory points to the old places: after the next turn they are free. */
static void free_old(struct compact *c)
{
	for (uint64_t k = c->base; k < c->end; k++) {
		struct slot *s = slot_of(c, k);

		if (!s->to)
			continue;
		for (uint64_t i = 0; i < s->refs; i++)
			qcow2_park(c->q, k, 1);
		c->res->moved += c->q->cluster;
	}
}

/* Chooses, copies, counts. *n: what is to be switched now. */
static int prepare(struct compact *c, enum cluster_kind kind, size_t *n, struct err *err)
{
	int r = choose(c, kind, n, err);

	if (r < 0 || !*n)
		return r;
	r = copy(c, *n, err);
	return r < 0 ? r : raise_counts(c, err);
}

/* ---- data ---- */

static int switch_entry(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	struct compact *c = ctx;
	uint64_t first = 0, n;
	const struct slot *s;

	(void)at;
	(void)err;
	qcow2_entry_clusters(c->q, *e, &first, &n);
	s = n && !(e->raw & ENTRY_COMPRESSED) ? slot_of(c, first) : NULL;
	if (s && s->to)
		e->raw = (e->raw & ~ENTRY_OFFSET) | s->to << c->q->cluster_bits;
	return 0;
}

int compact_move_data(struct compact *c, struct err *err)
{
	size_t n;
	int r = prepare(c, KIND_DATA, &n, err);

	if (r < 0 || !n)
		return r;
	r = qcow2_trees_each(c->q, NULL, switch_entry, c, err);
	if (r < 0)
		return r;
	free_old(c);
	forget_moves(c);
	return qcow2_turn(&c->q->img, err);
}

/* ---- L2 tables ---- */

/* The new place of an L1 entry's table; 0: it did not move. */
static uint64_t moved_table(struct compact *c, be64 entry)
{
	const struct slot *s = slot_of(c, (be64_get(entry) & ENTRY_OFFSET) >> c->q->cluster_bits);

	return s && s->to ? s->to << c->q->cluster_bits : 0;
}

static void switch_active(struct compact *c)
{
	struct qcow2 *q = c->q;

	for (uint32_t i = 0; i < q->h.l1_size; i++) {
		uint64_t to = moved_table(c, q->l1[i]);

		if (!to)
			continue;
		qcow2_set_l1(q, i, to | (be64_get(q->l1[i]) & ~ENTRY_OFFSET));
		qcow2_guard_set(q, to, q->cluster, true);
	}
}

/* In place: entries do not depend on each other, and a sector is written whole. */
static int switch_snapshot(struct compact *c, const struct qcow2_snapshot *d, struct err *err)
{
	CLEANUP_FREE be64 *l1 = NULL;
	bool changed = false;
	uint32_t n;
	int r = qcow2_snapshot_l1(c->q, d, 0, &l1, &n, err);

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		uint64_t to = moved_table(c, l1[i]);

		if (!to)
			continue;
		l1[i] = be64_make(to | (be64_get(l1[i]) & ~ENTRY_OFFSET));
		changed = true;
	}
	return r < 0 || !changed
		       ? r
		       : io_pwrite(c->q->img.file, l1, n * sizeof(*l1), d->l1_offset, err);
}

int compact_move_tables(struct compact *c, struct err *err)
{
	struct qcow2 *q = c->q;
	size_t n;
	int r = prepare(c, KIND_TABLE, &n, err);

	if (r < 0 || !n)
		return r;
	for (uint64_t k = c->base; k < c->end; k++) {
		if (!slot_of(c, k)->to)
			continue;
		mcache_drop(&q->cache, k << q->cluster_bits, q->cluster);
		mcache_drop(&q->cache, slot_of(c, k)->to << q->cluster_bits, q->cluster);
	}
	switch_active(c);
	for (unsigned i = 0; r == 0 && i < q->h.nb_snapshots; i++)
		r = switch_snapshot(c, &q->snap_disk[i], err);
	if (r < 0)
		return r;
	free_old(c);
	forget_moves(c);
	return qcow2_turn(&q->img, err);
}
