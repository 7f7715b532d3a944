// SPDX-License-Identifier: LGPL-2.1-or-later
/* Runs of equal bits in a persistent bitmap; see bitmap.h. Memory does not grow with the bitmap. */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "ops/bitmap.h"

#define PIECE (64 * KiB) /* bytes of a bitmap that are read at once */

int bitmap_cursor_open(struct bitmap_cursor *c, struct img *img, unsigned index, struct err *err)
{
	*c = (struct bitmap_cursor){.img = img, .index = index, .buf = malloc(PIECE)};
	if (!c->buf)
		return err_nomem(err, PIECE, "a bitmap");
	img_bitmap_get(img, index, &c->bitmap);
	return 0;
}

void bitmap_cursor_close(struct bitmap_cursor *c)
{
	free(c->buf);
	c->buf = NULL;
}

/* Makes buf the piece that bit is in. */
static int load(struct bitmap_cursor *c, uint64_t bit, struct err *err)
{
	uint64_t bits = div_up(c->bitmap.size, c->bitmap.granularity), at;
	size_t len;
	int r;

	if (bit >= c->first && bit - c->first < c->n_bits)
		return 0;
	at = round_down(bit / 8, PIECE);
	len = (size_t)min_u64(PIECE, div_up(bits, 8) - at);
	c->n_bits = 0;
	r = img_bitmap_read(c->img, c->index, at, c->buf, len, err);
	if (r < 0)
		return r;
	c->first = at * 8;
	c->n_bits = min_u64((uint64_t)len * 8, bits - c->first);
	return 0;
}

int bitmap_cursor_run(struct bitmap_cursor *c, uint64_t off, uint64_t len, bool *set, uint64_t *run,
		      struct err *err)
{
	uint64_t granularity = c->bitmap.granularity, at = off / granularity;
	uint64_t last = div_up(off + len, granularity), stop;
	int r = load(c, at, err);

	if (r < 0)
		return r;
	*set = bit_get(c->buf, at - c->first);
	do {
		stop = min_u64(last, c->first + c->n_bits);
		at = c->first + bits_run_end(c->buf, at - c->first, stop - c->first, *set);
		r = at == stop && at < last ? load(c, at, err) : 0;
	} while (r == 0 && at == stop && at < last);
	*run = min_u64(at * granularity, off + len) - off;
	return r;
}

int bitmap_each_run(struct img *img, unsigned index, bitmap_run_fn *fn, void *ctx, struct job *job,
		    struct err *err)
{
	struct bitmap_cursor c;
	uint64_t from = 0, step;
	bool open = false; /* the run that begins at from is */
	int r = bitmap_cursor_open(&c, img, index, err);

	if (r < 0)
		return r;
	step = PIECE * 8 * c.bitmap.granularity; /* so often somebody looks at cancel */
	for (uint64_t off = 0, run = 0; r == 0 && off < c.bitmap.size; off += run) {
		uint64_t end = min_u64(c.bitmap.size, round_up(off + 1, step));
		bool set = false;

		r = job_cancelled(job) ? err_set(err, ECANCELED, "cancelled")
				       : bitmap_cursor_run(&c, off, end - off, &set, &run, err);
		if (r == 0 && open && !set)
			r = fn(ctx, from, off - from, err);
		if (set && !open)
			from = off;
		open = set;
		job_advance(job, r == 0 ? run : 0);
	}
	if (r == 0 && open)
		r = fn(ctx, from, c.bitmap.size - from, err);
	bitmap_cursor_close(&c);
	return r;
}

static int count_run(void *ctx, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t *bytes = ctx;

	(void)off;
	(void)err;
	*bytes += len;
	return 0;
}

int bitmap_count(struct img *img, unsigned index, uint64_t *bytes, struct err *err)
{
	*bytes = 0;
	return bitmap_each_run(img, index, count_run, bytes, NULL, err);
}
