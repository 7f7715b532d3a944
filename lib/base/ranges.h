/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A set of byte ranges: sorted, disjoint, merged where they touch. Not thread-safe. */
#ifndef IMGKIT_BASE_RANGES_H
#define IMGKIT_BASE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t off, len;
};

/* Zero-initialise; free with ranges_free. */
struct ranges {
	struct range *v;
	size_t n, cap;
};

/* 0 or -ENOMEM (then the set is unchanged). Adding what is there already is fine. */
int ranges_add(struct ranges *set, uint64_t off, uint64_t len);
/* Makes sure that the next `extra` single adds or removes cannot fail. */
int ranges_reserve(struct ranges *set, size_t extra);
/* May split a range: -ENOMEM is possible then (not after ranges_reserve). */
int ranges_remove(struct ranges *set, uint64_t off, uint64_t len);
/* The first range that overlaps [off, off+len), or NULL. */
const struct range *ranges_overlap(const struct ranges *set, uint64_t off, uint64_t len);
uint64_t ranges_total(const struct ranges *set);
void ranges_clear(struct ranges *set);
void ranges_free(struct ranges *set);

#define ranges_for_each(r, set) for (const struct range *r = (set)->v; r < (set)->v + (set)->n; r++)

#endif
