// SPDX-License-Identifier: GPL-2.0-or-later
/* See bitmaps.h. */
#include "bitmaps.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "model.h"
#include "ops/bitmap.h"
#include "tell.h"

static atomic_uchar *granules(uint64_t n)
{
	atomic_uchar *p = calloc(n, sizeof(*p));

	expect(p);
	return p;
}

static void mark(struct model_bitmap *b, uint64_t off, uint64_t len, enum granule to)
{
	uint64_t last = (off + len - 1) >> b->granularity_bits;

	for (uint64_t i = off >> b->granularity_bits; i <= last; i++) {
		unsigned char old = atomic_load_explicit(&b->granule[i], memory_order_relaxed);

		/* Nobody makes it less while others write. */
		while (old < to && !atomic_compare_exchange_weak(&b->granule[i], &old, to))
			;
	}
}

void model_bitmaps_changed(struct model *m, uint64_t off, uint64_t len, enum granule to)
{
	for (unsigned i = 0; len && i < m->n_bitmap; i++)
		if (m->bitmap[i].enabled)
			mark(&m->bitmap[i], off, len, to);
}

void model_bitmaps_resized(struct model *m)
{
	for (unsigned i = 0; i < m->n_bitmap; i++) {
		struct model_bitmap *b = &m->bitmap[i];
		uint64_t n = div_up(m->disk.size, UINT64_C(1) << b->granularity_bits);
		atomic_uchar *p = granules(n);

		for (uint64_t g = 0; g < min_u64(n, b->n); g++)
			atomic_store(&p[g], atomic_load(&b->granule[g]));
		free(b->granule);
		b->granule = p;
		b->n = n;
	}
}

/* ---- changes ---- */

void model_bitmap_add(struct model *m, bool enabled)
{
	struct model_bitmap *b = &m->bitmap[m->n_bitmap];
	struct err e = {0};

	expect(m->n_bitmap < MODEL_BITMAPS);
	*b = (struct model_bitmap){.enabled = enabled};
	b->granularity_bits = (unsigned)rng_range(&m->rng, 9, 17);
	snprintf(b->name, sizeof(b->name), "b%u", m->next_bitmap++);
	must(bitmap_add(m->img, b->name, UINT64_C(1) << b->granularity_bits, enabled, &e), &e);
	m->n_bitmap++;
	model_bitmaps_resized(m);
}

static void forget(struct model *m, unsigned i)
{
	free(m->bitmap[i].granule);
	m->n_bitmap--;
	memmove(&m->bitmap[i], &m->bitmap[i + 1], (m->n_bitmap - i) * sizeof(m->bitmap[0]));
}

void model_bitmap_remove(struct model *m, unsigned i)
{
	struct err e = {0};

	must(bitmap_remove(m->img, m->bitmap[i].name, &e), &e);
	forget(m, i);
}

void model_bitmap_clear(struct model *m, unsigned i)
{
	struct model_bitmap *b = &m->bitmap[i];
	struct err e = {0};

	must(bitmap_clear(m->img, b->name, &e), &e);
	for (uint64_t g = 0; g < b->n; g++)
		atomic_store(&b->granule[g], GRANULE_CLEAN);
}

void model_bitmap_enable(struct model *m, unsigned i, bool enable)
{
	struct err e = {0};

	must(bitmap_enable(m->img, m->bitmap[i].name, enable, &e), &e);
	m->bitmap[i].enabled = enable;
}

void model_bitmap_merge(struct model *m, unsigned i, unsigned from)
{
	const struct model_bitmap *b = &m->bitmap[from];
	struct err e = {0};

	must(bitmap_merge(m->img, m->bitmap[i].name, m->img, b->name, NULL, &e), &e);
	for (uint64_t g = 0; i != from && g < b->n; g++) {
		uint64_t off = g << b->granularity_bits;
		unsigned char has = atomic_load(&b->granule[g]);

		if (has)
			mark(&m->bitmap[i], off,
			     min_u64(UINT64_C(1) << b->granularity_bits, m->disk.size - off), has);
	}
}

/* ---- judging ---- */

static void judge_bit(const struct model *m, const struct model_bitmap *b, uint64_t g, bool set)
{
	enum granule want = atomic_load(&b->granule[g]);

	if (want == GRANULE_MAYBE || set == (want == GRANULE_DIRTY))
		return;
	die("after %" PRIu64 " operations: bitmap %s, granularity %u: granule %" PRIu64
	    " of %" PRIu64 " is %s, but was %s",
	    m->ops, b->name, 1u << b->granularity_bits, g, b->n, set ? "set" : "not set",
	    set ? "not written to" : "written to");
}

static void judge_one(const struct model *m, const struct oracle *o, const struct model_bitmap *b)
{
	struct oracle_bitmap d;
	unsigned i = 0;

	do {
		if (!oracle_bitmap(o, i++, &d))
			die("after %" PRIu64 " operations: bitmap %s is gone", m->ops, b->name);
	} while (strcmp(d.name, b->name) != 0);
	if (d.flags != (b->enabled ? 2u : 0) || d.granularity_bits != b->granularity_bits)
		die("after %" PRIu64 " operations: bitmap %s: flags %u, granularity of %u bits",
		    m->ops, b->name, d.flags, d.granularity_bits);
	for (uint64_t g = 0; g < b->n; g++)
		judge_bit(m, b, g, oracle_bit(o, &d, g << b->granularity_bits));
}

void model_bitmaps_judge(const struct model *m, const struct oracle *o)
{
	if (o->n_bitmaps != m->n_bitmap)
		die("after %" PRIu64 " operations: %u bitmaps, not %u", m->ops, o->n_bitmaps,
		    m->n_bitmap);
	for (unsigned i = 0; i < m->n_bitmap; i++)
		judge_one(m, o, &m->bitmap[i]);
}

void model_bitmaps_crashed(struct model *m)
{
	struct err e = {0};

	for (unsigned i = m->n_bitmap, index; i-- > 0;) {
		struct bitmap b;

		must(bitmap_find(m->img, m->bitmap[i].name, &index, &e), &e);
		img_bitmap_get(m->img, index, &b);
		expect(b.inconsistent == b.in_use);
		if (b.inconsistent)
			model_bitmap_remove(m, i);
	}
	must(img_settle(m->img, &e), &e);
}

void model_bitmaps_free(struct model *m)
{
	while (m->n_bitmap)
		forget(m, m->n_bitmap - 1);
}
