// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Cutting the source into chunks along its map.
 *
 * The map is walked once, in guest order. Holes of whole units are passed over; small ones stay
 * inside a chunk, since one large write is cheaper than two with a gap. Where a format says "data"
 * the file below may still have a hole (preallocated images): it is asked too.
 */
#include "ops/copy_impl.h"

#include <errno.h>

#include "base/bytes.h"
#include "io/stream.h"
#include "ops/extent.h"

#define MAX_ZERO (1 * GiB) /* length of a zero chunk: now and then somebody looks at cancel */

enum class { IS_DATA, IS_ZERO, IS_KEPT }; /* KEPT: stays as the backing file has it */

static enum class classify(const struct plan *p) {
	const struct extent *e = &p->ext;

	if (p->above && e->depth >= p->above) return IS_KEPT;
	if (p->same) return IS_KEPT;
	if (p->layer && e->kind == EXT_ABSENT && e->off < p->below) return IS_KEPT;
	if (p->layer && e->kind != EXT_DATA && e->kind != EXT_CODED &&
	    e->off >= p->backing_size) return IS_KEPT; /* zeros anyway */
	if (p->all_data || extent_is_data(e)) return IS_DATA;
	return IS_ZERO;
}

/* Of an overlay: its kind may change where one of the backing files ends. */
static void cut_at(struct extent *e, uint64_t border)
{
	if (e->off < border && e->len > border - e->off)
		e->len = border - e->off;
}

/* Of two views of one image: whether they have the same there. Cuts e to where that is so. */
static int compare_base(struct plan *p, struct extent *e, bool *same, struct err *err)
{
	uint64_t size = io_size(p->base), end = round_up(size, p->align);
	struct extent b;
	int r;

	cut_at(e, size);
	cut_at(e, end);
	/* The unit in which the base ends may hold anything behind that. */
	*same = e->off >= end && !extent_is_data(e);
	if (e->off >= size)
		return 0;
	r = io_map(p->base, e->off, e->len, &b, err);
	if (r < 0)
		return r;
	e->len = b.len;
	if (extent_is_data(e) || extent_is_data(&b))
		*same = e->kind == b.kind && e->io == b.io && e->host == b.host;
	else
		*same = true;
	return 0;
}

/* What is the same goes on over extents of any kind: units are made of smaller ones. */
static int extend_same(struct plan *p, struct err *err)
{
	uint64_t at = p->ext.off + p->ext.len, most = min_u64(p->size - p->ext.off, 2 * p->chunk);
	int r = 0;

	while (r == 0 && p->ext.len < most) {
		struct extent e;
		bool same = false;

		r = io_map(p->src, at, most - p->ext.len, &e, err);
		if (r == 0)
			r = compare_base(p, &e, &same, err);
		if (!same)
			break;
		p->ext.len += e.len;
		at += e.len;
	}
	return r;
}

/* What is not wanted: ext for all of it. Otherwise *len: of what is wanted. */
static int filter(struct plan *p, uint64_t at, uint64_t *len, struct err *err)
{
	bool wanted;
	int r = p->only->ask(p->only->ctx, at, *len, &wanted, len, err);

	p->same = r == 0 && !wanted;
	if (p->same)
		p->ext = (struct extent){
			.kind = EXT_ABSENT, .off = at, .len = *len, .host = EXT_NO_HOST};
	return r;
}

static int ask_extent(struct plan *p, uint64_t at, struct err *err)
{
	struct extent *e = &p->ext;
	uint64_t len = p->size - at;
	int r = 0;

	p->same = false;
	if (p->only)
		r = filter(p, at, &len, err);
	if (r < 0 || p->same)
		return r;
	r = p->layer ? img_map_layer(p->layer, at, len, e, err) : io_map(p->src, at, len, e, err);
	if (r == 0 && p->base)
		r = compare_base(p, e, &p->same, err);
	if (r == 0 && p->same)
		r = extend_same(p, err);
	return r == 0 && !p->same ? extent_look_below(p->src, e, err) : r;
}

/* Makes ext the extent at `at`. */
static int find_extent(struct plan *p, uint64_t at, struct err *err)
{
	struct extent *e = &p->ext;
	int r;

	if (at >= e->off && at - e->off < e->len)
		return 0;
	r = ask_extent(p, at, err);
	if (r < 0 && p->salvage) {
		p->same = false;
		*e = (struct extent){.kind = EXT_DATA, .off = at};
		e->len = min_u64(p->align, p->size - at);
		return 0;
	}
	if (r < 0) {
		e->len = 0;
		return err_ctx(err, r, "error while reading block status at offset %llu",
			       (unsigned long long)at);
	}
	if (p->layer) {
		cut_at(e, p->below);
		cut_at(e, p->backing_size);
	}
	return 0;
}

/* The end of ext, cut to whole units unless it is the end of the disk. */
static uint64_t end_in_units(const struct plan *p)
{
	uint64_t end = p->ext.off + p->ext.len;

	return end >= p->size ? p->size : round_down(end, p->align);
}

/* How far the data chunk that begins at pos goes. */
static int data_end(struct plan *p, uint64_t *end, struct err *err)
{
	uint64_t limit = min_u64(p->size, p->pos + p->chunk), at = p->pos;

	while (at < limit) {
		enum class what;
		uint64_t start, stop;
		int r = find_extent(p, at, err);

		if (r < 0)
			return r;
		what = classify(p);
		start = round_up(at, p->align);
		stop = end_in_units(p);
		if (what != IS_DATA && start > p->pos && start < limit && stop > start &&
		    (what == IS_KEPT || stop - start >= p->gap)) {
			limit = start;
			break;
		}
		at = p->ext.off + p->ext.len;
	}
	*end = limit;
	return 0;
}

static int read_stream(struct plan *p, struct chunk *c, void *buf, struct err *err)
{
	size_t got;
	int r = stream_read(p->src, buf, p->chunk, &got, err);

	if (r < 0)
		return err_ctx(err, r, "error while reading at byte %llu",
			       (unsigned long long)p->pos);
	if (!got)
		return 0;
	*c = (struct chunk){.ticket = p->tickets++, .off = p->pos, .len = got};
	p->pos += got;
	p->size = p->pos;
	return 1;
}

int plan_next(struct plan *p, struct chunk *c, void *buf, struct err *err)
{
	if (p->stream)
		return read_stream(p, c, buf, err);
	while (p->pos < p->size) {
		uint64_t end;
		enum class what;
		int r = job_cancelled(p->job) ? err_set(err, ECANCELED, "cancelled")
					      : find_extent(p, p->pos, err);

		if (r < 0)
			return r;
		what = classify(p);
		end = end_in_units(p);
		if (what == IS_DATA || end <= p->pos) {
			r = data_end(p, &end, err);
			if (r < 0)
				return r;
			*c = (struct chunk){.ticket = p->tickets++,
					    .off = p->pos,
					    .len = end - p->pos};
			p->pos = end;
			return 1;
		}
		*c = (struct chunk){.off = p->pos, .len = end - p->pos, .zero = true};
		if (what == IS_ZERO && p->want_zeros) {
			c->ticket = p->tickets++;
			c->len = min_u64(c->len, MAX_ZERO);
			p->pos += c->len;
			return 1;
		}
		if (p->count)
			job_advance(p->job, c->len);
		p->pos = end;
	}
	return 0;
}
