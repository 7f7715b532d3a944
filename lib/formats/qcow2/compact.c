// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Compaction of a qcow2 file in place: what lies at the end of the file moves into the holes, and
 * the file is cut.
 *
 * Order on disk, for whatever is moved; a batch of moves shares each flush:
 *
 *	the new place is taken and filled, its refcount is that of the old one
 *	- flush -
 *	pointers, one after the other, in any order: both places hold the same and count enough
 *	- flush -
 *	the old place's refcount falls to 0
 *	- flush -
 *	the file is cut
 *
 * So a power cut at any moment leaves leaks and nothing else (I1, I2, I5), also where a cluster is
 * shared by several tables and snapshots; COPIED flags stay right because refcounts move with the
 * clusters (I7). Nobody has to remember anything: the next compaction begins with the repair of
 * leaks and goes on.
 *
 *	compact_data.c	data, L2 tables
 *	compact_coded.c	compressed streams, packed anew
 *	compact_meta.c	refcount blocks and table, L1 tables, snapshots
 *	compact_bitmaps.c	persistent bitmaps
 *
 * What nothing known refers to stays where it is.
 */
#include "formats/qcow2/compact.h"
#include "formats/qcow2/bitmap.h"

#include <errno.h>
#include <stdlib.h>

/* A window is a 16th of the file, so that tables are walked that often, but within these bounds. */
#define WINDOW_PART    16
#define WINDOW_BYTES   (256 * MiB) /* at least: each window costs some flushes */
#define WINDOW_MIN     1024        /* clusters */
#define WINDOW_MAX     (UINT64_C(1) << 20)
#define MAX_ITERATIONS 8

bool compact_stopping(struct compact *c)
{
	if (!c->stopped && job_cancelled(c->job))
		c->stopped = -ECANCELED;
	return c->stopped != 0;
}

int compact_count(struct qcow2 *q, uint64_t cluster, uint64_t n, bool raise, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < n; i++) {
		r = qcow2_refcount_add(q, cluster, raise ? +1 : -1, err);
		while (r < 0 && i--)
			qcow2_refcount_add(q, cluster, raise ? -1 : +1, NULL);
	}
	return r;
}

/* ---- windows ---- */

static int move_window(struct compact *c, struct err *err)
{
	int r = compact_classify(c, err);

	if (r == 0)
		r = compact_move_data(c, err);
	if (r == 0)
		r = compact_move_streams(c, err);
	if (r == 0)
		r = compact_move_tables(c, err);
	if (r == 0)
		r = qcow2_quiesce(c->q, err);
	return r < 0 ? r : qcow2_truncate_file(c->q, err);
}

static int open_window(struct compact *c, uint64_t end, struct err *err)
{
	uint64_t n = min_u64(end, c->room);

	if (!c->slot)
		c->slot = malloc(c->room * sizeof(*c->slot));
	if (!c->slot)
		return err_nomem(err, c->room * sizeof(*c->slot), "the list of clusters");
	c->base = end - n;
	c->end = end;
	memset(c->slot, 0, n * sizeof(*c->slot));
	return 0;
}

/* From the end of the file down to the lowest cluster that has to go. */
static int move_windows(struct compact *c, uint64_t end, struct err *err)
{
	int r = 0;

	while (r == 0 && end > c->used && end > c->q->free_hint && !compact_stopping(c)) {
		r = open_window(c, end, err);
		if (r == 0)
			r = move_window(c, err);
		end = c->base;
	}
	return r;
}

/* ---- the whole ---- */

static int measure(struct compact *c, uint64_t *end, struct err *err)
{
	uint64_t size = div_up(io_size(c->q->img.file), c->q->cluster);
	int r = qcow2_count_used(&c->q->img, UINT64_MAX, &c->used, err);

	return r < 0 ? r : qcow2_used_end(c->q, size, end, err);
}

/* The work: bytes in use behind where the file could end. */
static int plan(struct compact *c, uint64_t end, struct err *err)
{
	uint64_t n = 0, count;

	for (uint64_t k = c->used; k < end; k++) {
		int r = qcow2_refcount_get(c->q, k, &count, err);

		if (r < 0)
			return r;
		n += count != 0;
	}
	if (c->job)
		job_total(c->job, atomic_load(&c->job->total) + (n << c->q->cluster_bits));
	return 0;
}

/* One iteration: everything that can move moves once. */
static int iterate(struct compact *c, uint64_t end, struct err *err)
{
	int r = move_windows(c, end, err);

	if (r == 0 && !compact_stopping(c))
		r = compact_move_blocks(c, err);
	if (r == 0 && !compact_stopping(c))
		r = compact_move_regions(c, err);
	if (r == 0)
		r = compact_drop_blocks(c, err);
	if (r == 0)
		r = qcow2_quiesce(c->q, err);
	return r < 0 ? r : qcow2_truncate_file(c->q, err);
}

/* What moved makes room for what could not: again, until the end stays where it is. */
static int run(struct compact *c, struct err *err)
{
	uint64_t end, before;
	int r = measure(c, &end, err);

	if (r == 0)
		r = plan(c, end, err);
	for (unsigned i = 0; r == 0 && i < MAX_ITERATIONS && end > c->used; i++) {
		before = end;
		r = iterate(c, end, err);
		if (r == 0)
			r = measure(c, &end, err);
		if (end >= before || compact_stopping(c))
			break;
	}
	c->res->left = r == 0 && end > c->used ? (end - c->used) << c->q->cluster_bits : 0;
	return r;
}

static int may_compact(struct qcow2 *q, struct err *err)
{
	return q->unreadable ? err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why)
			     : 0;
}

int qcow2_compact(struct img *img, struct compact_result *res, struct job *job, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct compact c = {.q = q, .job = job, .res = res};
	uint64_t clusters = div_up(io_size(img->file), q->cluster);
	int r = may_compact(q, err);

	res->size_before = res->size_after = io_size(img->file);
	if (r == 0 && !q->writing)
		r = qcow2_begin_write(q, err);
	if (r == 0)
		r = qcow2_quiesce(q, err);
	/* Their tables are copied as the disk has them. */
	if (r == 0)
		r = qcow2_bitmaps_store(q, err);
	if (r < 0)
		return r;
	c.room = max_u64(clusters / WINDOW_PART, WINDOW_BYTES >> q->cluster_bits);
	c.room = min_u64(max_u64(c.room, WINDOW_MIN), WINDOW_MAX);
	c.room = min_u64(c.room, max_u64(clusters, 1));
	r = run(&c, err);
	free(c.slot);
	free(c.stream);
	res->size_after = io_size(img->file);
	if (r == 0 && c.stopped == -ECANCELED)
		return err_set(err, ECANCELED, "%s: cancelled", img->io.name);
	if (r == 0 && c.stopped)
		return err_set(err, -c.stopped, "%s: no space left for copies", img->io.name);
	return r;
}
