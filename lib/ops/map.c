// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What of a disk is stored where; see map.h. The states are those of the peer's `map`, also in the
 * finer points: zeros past the end of a short backing file belong to the layer above it, and data
 * of an image that has space set aside is asked for at the file (img_has_file_holes).
 */
#include "ops/map.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"

static struct map_entry describe(const struct extent *ext, unsigned depth)
{
	struct map_entry e = {.start = ext->off, .length = ext->len, .depth = depth};

	switch (ext->kind) {
	case EXT_ABSENT:
	case EXT_ZERO:
		e.zero = true;
		break;
	case EXT_DATA:
		e.data = true;
		break;
	case EXT_CODED:
		e.data = e.compressed = true;
		break;
	}
	e.present = ext->kind != EXT_ABSENT;
	e.has_offset = ext->host != EXT_NO_HOST && !e.compressed;
	if (e.has_offset) {
		e.offset = ext->host;
		e.io = ext->io;
	} else if (e.compressed) {
		e.io = ext->io;
	}
	return e;
}

static int layer_has_holes(struct map_cursor *c, struct img *img, unsigned depth, bool *yes,
			   struct err *err)
{
	int r = 0;

	*yes = c->holes[depth] == MAP_HOLES_YES;
	if (c->holes[depth] == MAP_HOLES_UNKNOWN) {
		r = img_has_file_holes(img, yes, err);
		if (r == 0)
			c->holes[depth] = *yes ? MAP_HOLES_YES : MAP_HOLES_NO;
	}
	return r;
}

/* Makes from, to, zero speak of a range of io that begins at or before off. */
static int ask_file(struct map_cursor *c, struct io *io, uint64_t off, struct err *err)
{
	uint64_t size = io_size(io);
	struct extent ext;
	int r;

	if (c->io == io && off >= c->from && off < c->to)
		return 0;
	c->io = io;
	c->from = off;
	c->to = UINT64_MAX; /* nothing is stored past the end: it reads as zeros */
	c->zero = true;
	if (off >= size)
		return 0;
	r = io_map(io, off, size - off, &ext, err);
	if (r < 0)
		return r;
	c->zero = ext.kind != EXT_DATA;
	if (!c->zero || off + ext.len < size)
		c->to = off + ext.len;
	return 0;
}

int map_next(struct map_cursor *c, struct img *img, uint64_t off, uint64_t len, struct map_entry *e,
	     struct err *err)
{
	unsigned depth = 0;
	struct extent ext;
	bool holes;
	int r;

	for (;; depth++) {
		struct img *below = img->backing;

		r = img_map_layer(img, off, min_u64(len, io_size(&img->io) - off), &ext, err);
		if (r < 0)
			return r;
		len = ext.len;
		if (ext.kind != EXT_ABSENT || !below || off >= io_size(&below->io))
			break;
		img = below;
	}
	*e = describe(&ext, depth);
	if (ext.kind == EXT_ABSENT && img->backing_left) {
		e->unknown = true;
		e->zero = false;
	}
	if (ext.kind != EXT_DATA || !ext.io)
		return 0;
	r = layer_has_holes(c, img, depth, &holes, err);
	if (r < 0 || !holes)
		return r;
	r = ask_file(c, ext.io, ext.host, err);
	if (r < 0)
		return r;
	e->zero = c->zero;
	e->length = min_u64(e->length, c->to - ext.host);
	return 0;
}

static bool continues(const struct map_entry *a, const struct map_entry *b)
{
	return a->length && a->depth == b->depth && a->present == b->present &&
	       a->zero == b->zero && a->data == b->data && a->compressed == b->compressed &&
	       a->unknown == b->unknown && a->has_offset == b->has_offset && a->io == b->io &&
	       (!a->has_offset || a->offset + a->length == b->offset);
}

static int walk(struct map_cursor *c, struct img *img, uint64_t start, uint64_t end, map_emit emit,
		void *ctx, struct err *err)
{
	struct map_entry e = {.start = start}, next;
	int r;

	for (uint64_t at = start; at < end; at += next.length) {
		r = map_next(c, img, at, end - at, &next, err);
		if (r < 0)
			return r;
		if (continues(&e, &next)) {
			e.length += next.length;
			continue;
		}
		r = e.length ? emit(ctx, &e) : 0;
		if (r < 0)
			return r;
		e = next;
	}
	return emit(ctx, &e);
}

size_t map_layers(const struct img *img)
{
	size_t n = 0;

	for (; img; img = img->backing)
		n++;
	return n;
}

int map_walk(struct img *img, uint64_t start, uint64_t end, map_emit emit, void *ctx,
	     struct err *err)
{
	size_t layers = map_layers(img);
	CLEANUP_FREE _Atomic unsigned char *holes = calloc(layers, sizeof(*holes));
	struct map_cursor c = {.holes = holes};

	if (!holes)
		return err_nomem(err, layers, "the backing chain");
	return walk(&c, img, start, min_u64(end, io_size(&img->io)), emit, ctx, err);
}
