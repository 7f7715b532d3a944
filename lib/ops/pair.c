// SPDX-License-Identifier: LGPL-2.1-or-later
/* See pair.h. */
#include "ops/pair.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "io/file.h"
#include "ops/extent.h"

static int find_extent(struct pair_side *s, uint64_t pos, struct err *err)
{
	struct extent *e = &s->ext;
	int r;

	if (e->len && pos >= e->off && pos - e->off < e->len) {
		uint64_t n = pos - e->off;

		e->off += n;
		e->len -= n;
		if (e->host != EXT_NO_HOST && e->kind != EXT_CODED)
			e->host += n;
		return 0;
	}
	if (!s->io || pos >= io_size(s->io)) {
		*e = (struct extent){.kind = EXT_ABSENT, .off = pos, .host = EXT_NO_HOST};
		e->len = UINT64_MAX - pos;
		s->kind = EXT_ABSENT;
		s->stored = false;
		return 0;
	}
	r = io_map(s->io, pos, io_size(s->io) - pos, e, err);
	s->kind = e->kind == EXT_CODED ? EXT_DATA : e->kind;
	s->stored = e->host != EXT_NO_HOST && e->kind != EXT_CODED;
	if (r == 0)
		r = extent_look_below(s->io, e, err);
	if (r < 0)
		e->len = 0;
	return r;
}

int pair_look(struct pair *p, uint64_t pos, uint64_t end, uint64_t *len, struct err *err)
{
	int r = find_extent(&p->a, pos, err);

	if (r == 0)
		r = find_extent(&p->b, pos, err);
	if (r == 0)
		*len = min_u64(end - pos, min_u64(p->a.ext.len, p->b.ext.len));
	return r;
}

/* Whether two ios are the same file, opened twice perhaps: overlays over one backing file. */
static bool same_file(struct pair *p, struct io *x, struct io *y)
{
	struct file_stat sx, sy;

	if (x == y)
		return true;
	if (p->last[0] != x || p->last[1] != y) {
		p->last[0] = x;
		p->last[1] = y;
		p->last_same = io_is_file(x) && io_is_file(y) && file_stat(x, &sx, NULL) == 0 &&
			       file_stat(y, &sy, NULL) == 0 && sx.dev == sy.dev && sx.ino == sy.ino;
	}
	return p->last_same;
}

static bool same_bytes(struct pair *p)
{
	const struct extent *x = &p->a.ext, *y = &p->b.ext;

	/* Compressed data of one file are at one guest offset only, or are the same. */
	return x->kind == y->kind && x->io && y->io && x->host == y->host &&
	       x->host != EXT_NO_HOST && x->off == y->off && same_file(p, x->io, y->io);
}

enum pair_need pair_need(struct pair *p)
{
	bool a = extent_is_data(&p->a.ext), b = extent_is_data(&p->b.ext);

	if (!a && !b)
		return PAIR_EQUAL;
	if (a && b)
		return same_bytes(p) ? PAIR_EQUAL : PAIR_BOTH;
	return a ? PAIR_ONLY_A : PAIR_ONLY_B;
}

int pair_read(struct io *io, void *buf, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t size = io ? io_size(io) : 0, have = off >= size ? 0 : min_u64(len, size - off);
	int r = have ? io_pread(io, buf, have, off, err) : 0;

	if (r < 0)
		return err_ctx(err, r, "Error while reading offset %" PRIu64 " of %s", off,
			       io->name);
	memset((char *)buf + have, 0, len - have);
	return 0;
}
