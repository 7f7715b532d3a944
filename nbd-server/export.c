// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Exports: which part of which image, what can be done with it, and the contexts in which clients
 * ask for the states of its bytes. The states are those of the peer: base:allocation as its block
 * layer sees the chain (NetworkBlockDevice/nbd, doc/proto.md), qemu:dirty-bitmap and
 * qemu:allocation-depth as in QEMU's docs/interop/nbd.txt.
 */
#include "nbd-server/export.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "io/window.h"
#include "nbd-server/partition.h"
#include "ops/bitmap.h"
#include "ops/map.h"

#define PREFERRED_BLOCK 4096u
#define MAX_STEPS       16384u /* of the walk through an image, in one call */
#define BITS_PIECE      4096u  /* bytes of a bitmap that are read at once */
#define MAX_PIECES      256u   /* of them, in one call */

/* ---- opening ---- */

static int check_text(const char *what, const char *text, struct err *err)
{
	if (text && strlen(text) > NBD_MAX_STRING)
		return err_set(err, EINVAL, "The %s of an export is longer than %u bytes", what,
			       NBD_MAX_STRING);
	return 0;
}

static int check_args(const struct export_args *args, struct err *err)
{
	int r = check_text("name", args->name, err);

	if (r == 0)
		r = check_text("description", args->description, err);
	if (r == 0 && args->n_bitmaps > NBD_MAX_CONTEXTS - 2)
		r = err_set(err, EINVAL, "An export can have %u bitmaps, not more",
			    NBD_MAX_CONTEXTS - 2);
	return r;
}

/* To the byte: a raw disk is made whole sectors by zeros that its file does not have. */
static uint64_t true_size(const struct img *img)
{
	uint64_t size = io_size(&img->io);

	return strcmp(img->fmt->name, "raw") == 0 ? min_u64(size, io_size(img->file)) : size;
}

/* The bytes of img that are exported. */
static int choose_part(struct img *img, const struct export_args *args, uint64_t *start,
		       uint64_t *size, struct err *err)
{
	struct partition part = {.size = true_size(img)};

	if (args->partition) {
		int r = partition_find(&img->io, args->partition, &part, err);

		if (r < 0)
			return r;
	}
	if (args->offset > part.size)
		return err_set(err, EINVAL,
			       "%s: offset %" PRIu64 " is past the end (size %" PRIu64 ")",
			       img->io.name, args->offset, part.size);
	if (args->size > part.size - args->offset)
		return err_set(err, EINVAL,
			       "%s: %" PRIu64 " bytes at offset %" PRIu64
			       " are past the end (size %" PRIu64 ")",
			       img->io.name, args->size, args->offset, part.size);
	*start = part.start + args->offset;
	*size = args->size ? args->size : part.size - args->offset;
	return 0;
}

static uint16_t flags_of(const struct io *io, const struct export_args *args)
{
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_SEND_DF | NBD_FLAG_SEND_CACHE | NBD_FLAG_BLOCK_STAT_PAYLOAD;

	if (io->caps & IO_RDONLY)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	/* All connections share one image, so a flush is of what any of them has written. */
	if (args->max_clients != 1)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	return (uint16_t)flags;
}

/* The layer of the chain under img that has a bitmap of this name: the first one, as the peer. */
static int find_bitmap(struct img *img, const char *name, struct export_context *c, struct err *err)
{
	for (c->layer = img; c->layer; c->layer = c->layer->backing) {
		int r = bitmap_find(c->layer, name, &c->bitmap, err);
		struct bitmap b;

		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		img_bitmap_get(c->layer, c->bitmap, &b);
		return bitmap_check_usable(&b, err);
	}
	return err_set(err, ENOENT, "%s: Bitmap '%s' is not found", img->io.name, name);
}

static int add_context(struct nbd_export *e, enum export_context_kind kind, const char *bitmap,
		       struct err *err)
{
	struct export_context *c = &e->context[e->n_contexts];
	int r = 0;

	c->kind = kind;
	if (kind == CONTEXT_BITMAP) {
		r = find_bitmap(e->img, bitmap, c, err);
		if (r == 0 && asprintf(&c->name, "qemu:dirty-bitmap:%s", bitmap) < 0)
			c->name = NULL;
	} else {
		c->name =
			strdup(kind == CONTEXT_DEPTH ? "qemu:allocation-depth" : "base:allocation");
	}
	if (r < 0)
		return r;
	if (!c->name)
		return err_nomem(err, 64, "an export");
	e->n_contexts++; /* now its name is to be freed */
	for (unsigned i = 0; i + 1 < e->n_contexts; i++) {
		if (strcmp(e->context[i].name, c->name) == 0)
			return err_set(err, EINVAL, "Bitmap '%s' is named twice", bitmap);
	}
	return 0;
}

static int add_contexts(struct nbd_export *e, const struct export_args *args, struct err *err)
{
	int r;

	e->context = calloc(args->n_bitmaps + 2, sizeof(*e->context));
	if (!e->context)
		return err_nomem(err, args->n_bitmaps * sizeof(*e->context), "an export");
	r = add_context(e, CONTEXT_ALLOCATION, NULL, err);
	if (r == 0 && args->allocation_depth)
		r = add_context(e, CONTEXT_DEPTH, NULL, err);
	for (unsigned i = 0; r == 0 && i < args->n_bitmaps; i++)
		r = add_context(e, CONTEXT_BITMAP, args->bitmaps[i], err);
	return r;
}

static int set_texts(struct nbd_export *e, const struct export_args *args, struct err *err)
{
	e->name = strdup(args->name ? args->name : "");
	e->description = args->description ? strdup(args->description) : NULL;
	e->holes = calloc(map_layers(e->img), sizeof(*e->holes));
	if (!e->name || (args->description && !e->description) || !e->holes)
		return err_nomem(err, 64, "an export");
	return 0;
}

static int open_export(struct nbd_export *e, const struct export_args *args, struct err *err)
{
	uint64_t size = 0;
	int r = check_args(args, err);

	if (r == 0)
		r = set_texts(e, args, err);
	if (r == 0)
		r = choose_part(e->img, args, &e->start, &size, err);
	if (r == 0)
		r = add_contexts(e, args, err);
	if (r < 0)
		return r;
	e->flags = flags_of(&e->img->io, args);
	e->max_clients = args->max_clients;
	e->min_block = 1;
	e->preferred_block = PREFERRED_BLOCK;
	e->max_block = NBD_MAX_PAYLOAD;
	if (e->img->io.align > PREFERRED_BLOCK && is_pow2(e->img->io.align) &&
	    e->img->io.align <= NBD_MAX_PAYLOAD)
		e->preferred_block = e->img->io.align;
	/* The last step: it takes the image. */
	if (e->start == 0 && size == io_size(&e->img->io))
		e->io = &e->img->io;
	else
		r = window_open(&e->img->io, e->start, size, true, &e->io, err);
	return r;
}

int export_open(struct img *img, const struct export_args *args, struct nbd_export **out,
		struct err *err)
{
	struct nbd_export *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_nomem(err, sizeof(*e), "an export");
	e->img = img;
	r = open_export(e, args, err);
	if (r < 0) {
		export_close(e);
		return r;
	}
	*out = e;
	return 0;
}

int export_settle(struct nbd_export *e, struct err *err)
{
	return e->io->caps & IO_RDONLY ? 0 : img_settle(e->img, err);
}

void export_close(struct nbd_export *e)
{
	if (!e)
		return;
	io_close(e->io);
	for (unsigned i = 0; i < e->n_contexts; i++)
		free(e->context[i].name);
	free(e->context);
	free(e->holes);
	free(e->description);
	free(e->name);
	free(e);
}

/* ---- states ---- */

struct list {
	struct export_extent *v;
	unsigned n, max;
};

/* False: there is no room for it. */
static bool list_add(struct list *l, uint64_t len, uint64_t flags)
{
	if (l->n && l->v[l->n - 1].flags == flags) {
		l->v[l->n - 1].len += len;
		return true;
	}
	if (l->n == l->max)
		return false;
	l->v[l->n++] = (struct export_extent){.len = len, .flags = flags};
	return true;
}

static uint64_t allocation_of(const struct map_entry *m)
{
	return (m->data ? 0 : NBD_STATE_HOLE) | (m->zero ? NBD_STATE_ZERO : 0);
}

/* 1: the top layer has it; 0: none has. What lies behind the end of a backing file is its zeros. */
static uint64_t depth_of(const struct img *img, const struct map_entry *m)
{
	if (m->present)
		return (uint64_t)m->depth + 1;
	for (unsigned i = 0; i < m->depth; i++)
		img = img->backing;
	return img->backing ? (uint64_t)m->depth + 2 : 0;
}

static int chain_status(struct nbd_export *e, bool depth, uint64_t off, uint64_t len,
			struct list *list, struct err *err)
{
	struct map_cursor cursor = {.holes = e->holes};

	for (unsigned step = 0; len && step < MAX_STEPS; step++) {
		struct map_entry m;
		int r = map_next(&cursor, e->img, e->start + off, len, &m, err);

		if (r < 0)
			return r;
		if (!list_add(list, m.length, depth ? depth_of(e->img, &m) : allocation_of(&m)))
			return 0;
		off += m.length;
		len -= m.length;
	}
	return 0;
}

/* Bytes [off, end) of the disk whose bits begin with byte `at` of the bitmap, in buf. */
static bool list_bits(struct list *list, const unsigned char *buf, uint64_t at,
		      const struct bitmap *b, uint64_t off, uint64_t end)
{
	uint64_t base = at * 8;

	while (off < end) {
		uint64_t bit = off / b->granularity - base;
		uint64_t last = div_up(end, b->granularity) - base, to;
		bool set = bit_get(buf, bit);

		to = bits_run_end(buf, bit, last, set) + base;
		to = min_u64(to * b->granularity, end);
		if (!list_add(list, to - off, set ? NBD_STATE_DIRTY : 0))
			return false;
		off = to;
	}
	return true;
}

/* Behind the end of the layer's disk there is nothing that could have been written. */
static int bitmap_status(const struct export_context *c, uint64_t off, uint64_t end,
			 struct list *list, struct err *err)
{
	unsigned char buf[BITS_PIECE];
	struct bitmap b;

	img_bitmap_get(c->layer, c->bitmap, &b);
	for (unsigned piece = 0; off < end && piece < MAX_PIECES; piece++) {
		uint64_t at, n, to;
		int r;

		if (off >= b.size) {
			list_add(list, end - off, 0);
			return 0;
		}
		at = off / b.granularity / 8;
		n = min_u64(sizeof(buf),
			    div_up(div_up(min_u64(end, b.size), b.granularity), 8) - at);
		r = img_bitmap_read(c->layer, c->bitmap, at, buf, n, err);
		if (r < 0)
			return r;
		to = min_u64(min_u64(end, b.size), (at + n) * 8 * b.granularity);
		if (!list_bits(list, buf, at, &b, off, to))
			return 0;
		off = to;
	}
	return 0;
}

int export_status(struct nbd_export *e, const struct export_context *context, uint64_t off,
		  uint64_t len, struct export_extent *extents, unsigned max, unsigned *n,
		  struct err *err)
{
	struct list list = {.v = extents, .max = max};
	int r;

	if (context->kind == CONTEXT_BITMAP)
		r = bitmap_status(context, e->start + off, e->start + off + len, &list, err);
	else
		r = chain_status(e, context->kind == CONTEXT_DEPTH, off, len, &list, err);
	*n = list.n;
	return r;
}
