// SPDX-License-Identifier: LGPL-2.1-or-later
/* Counters per cluster; see check_map.h. */
#include "formats/qcow2/check_map.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define PAGE      (UINT64_C(1) << REFMAP_PAGE_BITS)
#define PAGE_MASK (PAGE - 1)
#define ONES      UINT64_C(0x5555555555555555) /* 32 two-bit counters of 1 */

struct refpage {
	unsigned width; /* 2, 16, 64 */
	union {
		uint64_t w2[PAGE / 32];
		uint16_t w16[PAGE];
		uint64_t w64[PAGE];
	};
};

static uint64_t page_bytes(unsigned width)
{
	return offsetof(struct refpage, w2) + PAGE * width / 8;
}

static uint64_t page_limit(unsigned width)
{
	return width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
}

int refmap_init(struct refmap *m, uint64_t first, uint64_t n, uint64_t max, uint64_t budget)
{
	uint64_t pages = div_up(n, PAGE);

	memset(m, 0, sizeof(*m));
	if (pages * sizeof(*m->page) > budget)
		return -E2BIG;
	m->page = calloc(pages ? pages : 1, sizeof(*m->page));
	if (!m->page)
		return -ENOMEM;
	m->first = first;
	m->n = n;
	m->max = max;
	m->budget = budget;
	m->used = pages * sizeof(*m->page);
	for (unsigned i = 0; i < REFMAP_LOCKS; i++)
		pthread_mutex_init(&m->lock[i], NULL);
	pthread_mutex_init(&m->over_lock, NULL);
	return 0;
}

void refmap_free(struct refmap *m)
{
	if (!m->page)
		return;
	for (uint64_t i = 0; i < div_up(m->n, PAGE); i++)
		free(m->page[i]);
	for (unsigned i = 0; i < REFMAP_LOCKS; i++)
		pthread_mutex_destroy(&m->lock[i]);
	pthread_mutex_destroy(&m->over_lock);
	free(m->page);
	m->page = NULL;
	m->n = 0;
}

static uint64_t page_get(const struct refpage *p, uint64_t i)
{
	switch (p->width) {
	case 2:
		return p->w2[i / 32] >> (i % 32 * 2) & 3;
	case 16:
		return p->w16[i];
	default:
		return p->w64[i];
	}
}

/* v fits the page's width. */
static void page_put(struct refpage *p, uint64_t i, uint64_t v)
{
	switch (p->width) {
	case 2:
		p->w2[i / 32] &= ~(UINT64_C(3) << (i % 32 * 2));
		p->w2[i / 32] |= v << (i % 32 * 2);
		break;
	case 16:
		p->w16[i] = (uint16_t)v;
		break;
	default:
		p->w64[i] = v;
	}
}

/* Gives the page at *slot room for the value v, with its stripe locked. */
static int page_fit(struct refmap *m, struct refpage **slot, uint64_t v)
{
	struct refpage *old = *slot, *p;
	unsigned width = v <= 3 ? 2 : v <= UINT16_MAX ? 16 : 64;
	uint64_t more;

	if (old && v <= page_limit(old->width))
		return 0;
	more = page_bytes(width) - (old ? page_bytes(old->width) : 0);
	if (atomic_fetch_add(&m->used, more) + more > m->budget) {
		atomic_fetch_sub(&m->used, more);
		return -E2BIG;
	}
	p = calloc(1, page_bytes(width));
	if (!p)
		return -ENOMEM;
	p->width = width;
	for (uint64_t i = 0; old && i < PAGE; i++)
		page_put(p, i, page_get(old, i));
	free(old);
	*slot = p;
	return 0;
}

static void note_over(struct refmap *m, uint64_t k, uint64_t lost)
{
	unsigned i = 0;

	LOCK_SCOPE(&m->over_lock);
	m->excess += lost;
	while (i < m->n_over && m->over[i] != k)
		i++;
	if (i < REFMAP_OVERS)
		m->over[i] = k;
	if (i == m->n_over && i < REFMAP_OVERS)
		m->n_over++;
}

static int add_one(struct refmap *m, uint64_t k, uint64_t times)
{
	struct refpage **slot = &m->page[(k - m->first) / PAGE];
	uint64_t i = (k - m->first) & PAGE_MASK, v = page_get(*slot, i), room = m->max - v;
	int r;

	if (times > room) {
		note_over(m, k, times - room);
		times = room;
	}
	r = page_fit(m, slot, v + times);
	if (r == 0)
		page_put(*slot, i, v + times);
	return r;
}

/* Adds 1 to 32 counters at once where none of them can overflow its two bits. */
static bool add_word(struct refmap *m, struct refpage *p, uint64_t i)
{
	uint64_t *w = &p->w2[i / 32];

	if (p->width != 2 || m->max < 3 || (*w & (*w >> 1) & ONES))
		return false;
	*w += ONES;
	return true;
}

/* Clusters [k, k+n) of one page, with its stripe locked. */
static int page_add(struct refmap *m, uint64_t k, uint64_t n, uint64_t times)
{
	struct refpage **slot = &m->page[(k - m->first) / PAGE];
	uint64_t end = k + n;
	int r = page_fit(m, slot, 0);

	while (r == 0 && k < end) {
		uint64_t i = (k - m->first) & PAGE_MASK;

		if (times == 1 && i % 32 == 0 && end - k >= 32 && add_word(m, *slot, i)) {
			k += 32;
			continue;
		}
		r = add_one(m, k, times);
		k++;
	}
	return r;
}

int refmap_add(struct refmap *m, uint64_t k, uint64_t n, uint64_t times)
{
	uint64_t end;

	if (!add_ok(k, n, &end))
		end = UINT64_MAX;
	k = max_u64(k, m->first);
	end = min_u64(end, m->first + m->n);
	while (k < end) {
		uint64_t i = k - m->first, part = min_u64(end - k, PAGE - (i & PAGE_MASK));
		uint64_t page = i / PAGE;
		int r;

		LOCK_SCOPE(&m->lock[page % REFMAP_LOCKS]);
		r = page_add(m, k, part, times);
		if (r < 0)
			return r;
		k += part;
	}
	return 0;
}

uint64_t refmap_get(const struct refmap *m, uint64_t k)
{
	uint64_t i = k - m->first;
	const struct refpage *p = m->page[i / PAGE];

	return p ? page_get(p, i & PAGE_MASK) : 0;
}

int refmap_set(struct refmap *m, uint64_t k, uint64_t v)
{
	uint64_t i = k - m->first;
	int r;

	v = min_u64(v, m->max);
	r = page_fit(m, &m->page[i / PAGE], v);
	if (r == 0)
		page_put(m->page[i / PAGE], i & PAGE_MASK, v);
	return r;
}

/* The low bit of each 2-bit counter that is 1. */
static uint64_t word_ones(uint64_t w)
{
	return w & ~(w >> 1) & ONES;
}

bool refmap_ones(const struct refmap *m, uint64_t k, uint64_t n, bool one)
{
	uint64_t i = k - m->first, end = i + n;

	while (i < end) {
		const struct refpage *p = m->page[i / PAGE];
		uint64_t at = i & PAGE_MASK;

		if (!p && one)
			return false;
		if (!p) {
			i += PAGE - at;
			continue;
		}
		if (p->width == 2 && at % 32 == 0 && end - i >= 32) {
			if (word_ones(p->w2[at / 32]) != (one ? ONES : 0))
				return false;
			i += 32;
			continue;
		}
		if ((page_get(p, at) == 1) != one)
			return false;
		i++;
	}
	return true;
}

uint64_t refmap_word(const struct refmap *m, uint64_t k)
{
	uint64_t i = k - m->first, at = i & PAGE_MASK, w = 0;
	const struct refpage *p = m->page[i / PAGE];

	if (!p)
		return 0;
	if (p->width == 2)
		return p->w2[at / 32];
	for (unsigned j = 0; j < 32; j++)
		w |= min_u64(page_get(p, at + j), 3) << (j * 2);
	return w;
}

int refmap_set_word(struct refmap *m, uint64_t k, uint64_t word)
{
	uint64_t i = k - m->first, page = i / PAGE;
	int r;

	LOCK_SCOPE(&m->lock[page % REFMAP_LOCKS]);
	r = page_fit(m, &m->page[page], 0);
	if (r == 0)
		m->page[page]->w2[(i & PAGE_MASK) / 32] = word;
	return r;
}

bool refmap_page_empty(const struct refmap *m, uint64_t k)
{
	return !m->page[(k - m->first) / PAGE];
}
