// SPDX-License-Identifier: LGPL-2.1-or-later
/* A map summed up in cells; see picture.h. */
#include "ops/picture.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "ops/map.h"

#define SECTOR 512

static enum picture_class class_of(const struct map_entry *e)
{
	if (!e->present)
		return PICTURE_HOLE;
	if (!e->data || e->zero)
		return PICTURE_ZERO;
	if (e->depth)
		return e->depth == 1   ? PICTURE_BACKING1
		       : e->depth == 2 ? PICTURE_BACKING2
				       : PICTURE_BACKING3;
	return e->compressed ? PICTURE_COMPRESSED : PICTURE_DATA;
}

static int add(void *ctx, const struct map_entry *e)
{
	enum picture_class class = class_of(e);
	struct picture *p = ctx;
	uint64_t at = e->start, end = e->start + e->length;

	p->total[class] += e->length;
	while (at < end) {
		uint64_t i = (at - p->start) / p->per_cell;
		uint64_t n = min_u64(end, p->start + (i + 1) * p->per_cell) - at;

		p->cell[i].bytes[class] += n;
		at += n;
	}
	return 0;
}

int picture_take(struct img *img, uint64_t start, uint64_t end, unsigned most, struct picture *p,
		 struct err *err)
{
	p->end = min_u64(end, io_size(&img->io));
	p->start = min_u64(start, p->end);
	p->per_cell = max_u64(round_up(div_up(p->end - p->start, most), SECTOR), SECTOR);
	p->n = (unsigned)div_up(p->end - p->start, p->per_cell);
	p->cell = calloc(p->n + 1, sizeof(*p->cell));
	if (!p->cell)
		return err_nomem(err, p->n * sizeof(*p->cell), "the picture");
	return map_walk(img, p->start, p->end, add, p, err);
}

void picture_free(struct picture *p)
{
	free(p->cell);
	*p = (struct picture){0};
}

static bool is_stored(enum picture_class class)
{
	return class < PICTURE_ZERO;
}

uint64_t picture_stored(const struct picture_cell *cell)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		n += is_stored(i) ? cell->bytes[i] : 0;
	return n;
}

enum picture_class picture_main(const struct picture_cell *cell)
{
	bool stored = picture_stored(cell) != 0;
	unsigned best = stored ? PICTURE_DATA : PICTURE_ZERO;

	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		if (is_stored(i) == stored && cell->bytes[i] > cell->bytes[best])
			best = i;
	return best;
}

double picture_share(const struct picture_cell *cell)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		all += cell->bytes[i];
	return all ? (double)cell->bytes[picture_main(cell)] / (double)all : 0;
}
