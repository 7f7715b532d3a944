// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Compaction: compressed streams. They lie anywhere in their clusters, cross from one into the next,
 * and share clusters, whose refcount is the sum over the streams that touch them. So it is streams
 * that move, packed into new clusters; a cluster is free when its last stream is gone.
 *
 * Where a stream ends is known to a sector only. It keeps its place in the sector, so that its entry
 * keeps its length, and neighbours that share a sector move together or the sector is copied twice.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/compact.h"

#define SECTOR      512
#define COPY_BYTES  (2 * MiB)
#define MAX_STREAMS (UINT64_C(1) << 20) /* in one window */

static uint64_t stream_offset(const struct compact *c, const struct stream *s)
{
	return coded_offset(s->entry, c->q->cluster_bits);
}

static uint64_t stream_end(const struct compact *c, const struct stream *s)
{
	return stream_offset(c, s) + coded_length(s->entry, c->q->cluster_bits);
}

/* ---- collecting ---- */

static uint64_t offset_mask(const struct compact *c)
{
	return (UINT64_C(1) << coded_shift(c->q->cluster_bits)) - 1;
}

/* By offset, then by length. */
static int by_place(const void *a, const void *b, void *ctx)
{
	uint64_t mask = offset_mask(ctx);
	uint64_t x = ((const struct stream *)a)->entry, y = ((const struct stream *)b)->entry;

	if ((x & mask) != (y & mask))
		return (x & mask) > (y & mask) ? 1 : -1;
	return (x > y) - (x < y);
}

/* One stream for all entries that are equal. */
static void merge(struct compact *c)
{
	size_t n = 0;

	if (!c->n_stream)
		return;
	qsort_r(c->stream, c->n_stream, sizeof(*c->stream), by_place, c);
	for (size_t i = 0; i < c->n_stream; i++) {
		if (n && c->stream[n - 1].entry == c->stream[i].entry)
			c->stream[n - 1].refs += c->stream[i].refs;
		else
			c->stream[n++] = c->stream[i];
	}
	c->n_stream = n;
}

static int make_room(struct compact *c, struct err *err)
{
	size_t cap = c->cap_stream * 2 + 1024;
	struct stream *p;

	merge(c);
	if (c->n_stream < c->cap_stream - c->cap_stream / 4)
		return 0;
	if (cap > 2 * MAX_STREAMS)
		return -E2BIG;
	p = realloc(c->stream, cap * sizeof(*p));
	if (!p)
		return err_nomem(err, cap * sizeof(*p), "compressed clusters");
	c->stream = p;
	c->cap_stream = cap;
	return 0;
}

/* Entries whose stream ends in the window, behind where the file could end. */
static int collect_entry(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	uint64_t first = 0, n, last;
	struct compact *c = ctx;
	int r = 0;

	(void)at;
	if (!(e->raw & ENTRY_COMPRESSED))
		return 0;
	qcow2_entry_clusters(c->q, *e, &first, &n);
	last = first + n - 1;
	if (last < c->base || last >= c->end || last < c->used)
		return 0;
	if (c->n_stream == c->cap_stream)
		r = make_room(c, err);
	if (r == 0)
		c->stream[c->n_stream++] = (struct stream){.entry = e->raw, .refs = 1};
	return r;
}

/* Fewer clusters when their streams are too many to list; none when one cluster has that many. */
static int collect(struct compact *c, struct err *err)
{
	uint64_t base = c->base;
	int r;

	do {
		c->n_stream = 0;
		r = qcow2_trees_each(c->q, NULL, collect_entry, c, err);
		if (r == -E2BIG)
			c->base += (c->end - c->base + 1) / 2;
	} while (r == -E2BIG && c->base < c->end);
	c->base = base;
	if (r == -E2BIG)
		c->n_stream = 0;
	merge(c);
	return r == -E2BIG ? 0 : r;
}

/* ---- choosing places ---- */

/* Free clusters in [from, to). */
static int count_free(struct compact *c, uint64_t from, uint64_t to, uint64_t *n, struct err *err)
{
	uint64_t count;
	int r = 0;

	for (uint64_t k = from; r == 0 && k < to; k++) {
		r = qcow2_refcount_get(c->q, k, &count, err);
		*n += r == 0 && !count;
	}
	return r;
}

/* The first stream that can go: from it on, all of them fit into the free space below it. */
static int choose(struct compact *c, size_t *start, struct err *err)
{
	unsigned bits = c->q->cluster_bits;
	uint64_t need = 0, limit, free = 0;
	int r;

	*start = c->n_stream;
	if (!c->n_stream)
		return 0;
	limit = stream_offset(c, &c->stream[c->n_stream - 1]) >> bits;
	r = count_free(c, c->q->free_hint, limit, &free, err);
	while (r == 0 && *start) {
		const struct stream *s = &c->stream[*start - 1];
		uint64_t first = stream_offset(c, s) >> bits, above = 0;

		r = count_free(c, max_u64(first, c->q->free_hint), limit, &above, err);
		free -= min_u64(above, free);
		limit = first;
		need += stream_end(c, s) - stream_offset(c, s) + SECTOR;
		if ((need >> bits) + 2 > free)
			break;
		--*start;
	}
	return r;
}

/* Clusters that were taken, and the end of what is placed in them. */
struct packer {
	uint64_t *taken; /* owned: clusters, each with one reference of ours */
	size_t n, cap;
	uint64_t limit;      /* clusters below may be taken */
	uint64_t at, end;    /* bytes: free space of the last run of neighbours */
	uint64_t from, upto; /* of the stream placed last, where it was */
	uint64_t to;         /* and where it goes */
};

/* One more cluster. 0: there is none. */
static int take_cluster(struct compact *c, struct packer *p, struct err *err)
{
	uint64_t k, *v = p->taken;
	int r;

	if (p->n == p->cap) {
		v = realloc(v, (p->cap * 2 + 64) * sizeof(*v));
		if (!v)
			return err_nomem(err, (p->cap * 2 + 64) * sizeof(*v), "a list");
		p->taken = v;
		p->cap = p->cap * 2 + 64;
	}
	r = qcow2_take_below(c->q, 1, p->limit, &k, err);
	if (r <= 0)
		return r;
	v[p->n++] = k;
	if (k << c->q->cluster_bits != p->end) {
		p->at = k << c->q->cluster_bits;
		p->upto = 0; /* what comes does not follow the one before */
	}
	p->end = (k + 1) << c->q->cluster_bits;
	return 1;
}

/* Finds a place for s. 0: there is none any more. */
static int place(struct compact *c, struct packer *p, struct stream *s, struct err *err)
{
	uint64_t off = stream_offset(c, s), len = stream_end(c, s) - off;
	int r;

	for (;;) {
		uint64_t to = round_up(p->at, SECTOR) + off % SECTOR;

		if (off >= p->from && off < p->upto)
			to = p->to + (off - p->from);
		if (to + len <= p->end) {
			s->to = p->to = to;
			p->from = off;
			p->upto = off + len;
			p->at = max_u64(p->at, to + len);
			return 1;
		}
		r = take_cluster(c, p, err);
		if (r <= 0)
			return r;
	}
}

/* ---- moving ---- */

static int each_cluster(struct compact *c, uint64_t off, uint64_t len, uint64_t n, struct err *err)
{
	unsigned bits = c->q->cluster_bits;
	int r = 0;

	for (uint64_t k = off >> bits; r == 0 && k <= (off + len - 1) >> bits; k++)
		r = compact_count(c->q, k, n, true, err);
	return r;
}

/* Places count what moves to them, and no longer our own reference. */
static int count_places(struct compact *c, struct packer *p, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->n_stream; i++) {
		const struct stream *s = &c->stream[i];

		if (s->to)
			r = each_cluster(c, s->to, stream_end(c, s) - stream_offset(c, s), s->refs,
					 err);
	}
	for (size_t i = 0; i < p->n; i++)
		qcow2_unalloc(c->q, p->taken[i], 1);
	p->n = 0;
	return r < 0 ? r : qcow2_quiesce(c->q, err);
}

/* Copies streams from i on that keep their distance, in one request. *n: how many. */
static int copy_streams(struct compact *c, size_t i, size_t *n, void *buf, struct err *err)
{
	const struct stream *s = &c->stream[i];
	uint64_t off = stream_offset(c, s), end = stream_end(c, s);
	int r;

	for (*n = 1; i + *n < c->n_stream; ++*n) {
		const struct stream *t = &c->stream[i + *n];

		if (t->to - s->to != stream_offset(c, t) - off || stream_offset(c, t) > end ||
		    stream_end(c, t) - off > COPY_BYTES)
			break;
		end = max_u64(end, stream_end(c, t));
	}
	r = io_pread_tail(c->q->img.file, buf, end - off, off, err);
	if (r == 0)
		r = io_pwrite(c->q->img.file, buf, end - off, s->to, err);
	if (r == 0)
		job_advance(c->job, end - off);
	return r;
}

static int copy(struct compact *c, struct err *err)
{
	CLEANUP_FREE void *buf = malloc(2 * COPY_BYTES + 2 * c->q->cluster);
	size_t n;
	int r = 0;

	if (!buf)
		return err_nomem(err, 2 * COPY_BYTES, "copies");
	for (size_t i = 0; r == 0 && i < c->n_stream; i += n) {
		n = 1;
		if (!c->stream[i].to)
			continue;
		if (compact_stopping(c))
			return -ECANCELED;
		r = copy_streams(c, i, &n, buf, err);
	}
	return r;
}

static int switch_entry(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	struct stream key = {.entry = e->raw};
	struct compact *c = ctx;
	size_t low = 0, high = c->n_stream;

	(void)at;
	(void)err;
	if (!(key.entry & ENTRY_COMPRESSED))
		return 0;
	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct stream *s = &c->stream[mid];
		int d = by_place(&key, s, c);

		if (d == 0 && s->to)
			e->raw = (key.entry & ~offset_mask(c)) | s->to;
		if (d == 0)
			break;
		if (d < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return 0;
}

static void free_old(struct compact *c)
{
	for (size_t i = 0; i < c->n_stream; i++) {
		const struct stream *s = &c->stream[i];

		for (uint64_t k = 0; s->to && k < s->refs; k++)
			qcow2_park_entry(c->q, (struct l2_entry){.raw = s->entry});
		if (s->to)
			c->res->moved += stream_end(c, s) - stream_offset(c, s);
	}
}

static int place_all(struct compact *c, struct packer *p, struct err *err)
{
	size_t start;
	int r = choose(c, &start, err);

	if (r < 0 || start == c->n_stream)
		return r;
	p->limit = stream_offset(c, &c->stream[start]) >> c->q->cluster_bits;
	for (size_t i = start; i < c->n_stream; i++) {
		r = place(c, p, &c->stream[i], err);
		if (r <= 0)
			break;
	}
	return r < 0 ? r : p->n != 0;
}

static void give_back(struct compact *c, struct packer *p)
{
	for (size_t i = 0; i < p->n; i++)
		qcow2_unalloc(c->q, p->taken[i], 1);
}

int compact_move_streams(struct compact *c, struct err *err)
{
	struct packer p = {0};
	int r = collect(c, err);

	if (r == 0)
		r = place_all(c, &p, err);
	if (r > 0) {
		r = copy(c, err);
		if (r == 0)
			r = count_places(c, &p, err);
		if (r == 0)
			r = qcow2_trees_each(c->q, NULL, switch_entry, c, err);
		if (r == 0) {
			free_old(c);
			r = qcow2_turn(&c->q->img, err);
		}
	}
	give_back(c, &p);
	free(p.taken);
	if (r == -ENOSPC && !c->stopped)
		c->stopped = r;
	return r == c->stopped ? 0 : r;
}
