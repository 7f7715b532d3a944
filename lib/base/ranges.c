// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A sorted vector of ranges; see ranges.h.
 *
 * Invariant: for every i, v[i].len > 0 and v[i].off + v[i].len < v[i+1].off (ranges that touch are
 * merged), so both lookups are one binary search. The sets in use hold few ranges (clusters being
 * written, clusters parked until the next flush): a vector beats any tree here.
 */
#include "base/ranges.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t range_end(const struct range *r)
{
	return r->off + r->len;
}

/* Index of the first range that ends at or after `off`; n when there is none. */
static size_t first_ending_at(const struct ranges *set, uint64_t off)
{
	size_t lo = 0, hi = set->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (range_end(&set->v[mid]) < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int ranges_reserve(struct ranges *set, size_t extra)
{
	size_t cap = set->cap ? set->cap : 8;
	struct range *v;

	if (extra > SIZE_MAX / 2 / sizeof(*v) - set->n)
		return -ENOMEM;
	if (set->n + extra <= set->cap)
		return 0;
	while (cap < set->n + extra)
		cap *= 2;
	v = reallocarray(set->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	set->v = v;
	set->cap = cap;
	return 0;
}

/* Replaces `old` ranges from index i by the `n` ranges at r; room was reserved. */
static void splice(struct ranges *set, size_t i, size_t old, const struct range *r, size_t n)
{
	memmove(set->v + i + n, set->v + i + old, (set->n - i - old) * sizeof(*set->v));
	for (size_t k = 0; k < n; k++)
		set->v[i + k] = r[k];
	set->n += n - old;
}

int ranges_add(struct ranges *set, uint64_t off, uint64_t len)
{
	struct range r = {off, len};
	size_t i, last;

	if (!len)
		return 0;
	assert(off + len > off);
	if (ranges_reserve(set, 1) < 0)
		return -ENOMEM;
	i = first_ending_at(set, off);
	for (last = i; last < set->n && set->v[last].off <= off + len; last++) {
		uint64_t end = range_end(&r) > range_end(&set->v[last]) ? range_end(&r)
									: range_end(&set->v[last]);

		r.off = r.off < set->v[last].off ? r.off : set->v[last].off;
		r.len = end - r.off;
	}
	splice(set, i, last - i, &r, 1);
	return 0;
}

int ranges_remove(struct ranges *set, uint64_t off, uint64_t len)
{
	struct range keep[2];
	size_t i, last, n = 0;

	if (!len)
		return 0;
	assert(off + len > off);
	i = first_ending_at(set, off);
	/* One that only touches from the left is not affected. */
	if (i < set->n && range_end(&set->v[i]) == off)
		i++;
	for (last = i; last < set->n && set->v[last].off < off + len; last++)
		;
	if (i == last)
		return 0;
	if (set->v[i].off < off)
		keep[n++] = (struct range){set->v[i].off, off - set->v[i].off};
	if (range_end(&set->v[last - 1]) > off + len)
		keep[n++] = (struct range){off + len, range_end(&set->v[last - 1]) - (off + len)};
	if (n > last - i && ranges_reserve(set, 1) < 0)
		return -ENOMEM;
	splice(set, i, last - i, keep, n);
	return 0;
}

const struct range *ranges_overlap(const struct ranges *set, uint64_t off, uint64_t len)
{
	size_t i;

	if (!len)
		return NULL;
	i = first_ending_at(set, off);
	if (i < set->n && range_end(&set->v[i]) == off)
		i++;
	return i < set->n && set->v[i].off < off + len ? &set->v[i] : NULL;
}

uint64_t ranges_total(const struct ranges *set)
{
	uint64_t sum = 0;

	ranges_for_each (r, set)
		sum += r->len;
	return sum;
}

void ranges_clear(struct ranges *set)
{
	set->n = 0;
}

void ranges_free(struct ranges *set)
{
	free(set->v);
	*set = (struct ranges){0};
}
