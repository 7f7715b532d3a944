/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent bitmaps of a model: beside each, in plain memory, the granules that were written to while
 * it was enabled. Whenever the image is settled, the file must say exactly the same.
 */
#ifndef IMGKIT_TESTS_MODEL_BITMAPS_H
#define IMGKIT_TESTS_MODEL_BITMAPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MODEL_BITMAPS 4

struct model;
struct oracle;

/* Of a granule. MAYBE: what touched it may have failed, or had nothing to do. */
enum granule { GRANULE_CLEAN, GRANULE_MAYBE, GRANULE_DIRTY };

struct model_bitmap {
	char name[16];
	unsigned granularity_bits;
	bool enabled;
	atomic_uchar *granule; /* owned: enum granule; writers may share one */
	uint64_t n;
};

/* A change of these bytes of the disk. From any thread. */
void model_bitmaps_changed(struct model *m, uint64_t off, uint64_t len, enum granule to);
/* The disk has the size m->disk.size now. */
void model_bitmaps_resized(struct model *m);
/* After an opening without a settle before: what is void is removed, the rest must be right. */
void model_bitmaps_crashed(struct model *m);
/* The file, which is settled: the bitmaps that it has, their flags, and every bit. */
void model_bitmaps_judge(const struct model *m, const struct oracle *o);
void model_bitmaps_free(struct model *m);

void model_bitmap_add(struct model *m, bool enabled);
void model_bitmap_remove(struct model *m, unsigned i);
void model_bitmap_clear(struct model *m, unsigned i);
void model_bitmap_enable(struct model *m, unsigned i, bool enable);
/* The bits of bitmap `from` are set in bitmap i, too. */
void model_bitmap_merge(struct model *m, unsigned i, unsigned from);

#endif
