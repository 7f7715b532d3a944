// SPDX-License-Identifier: GPL-2.0-or-later
/* base/ranges: merging and splitting, and a random run against a bitmap. */
#include "unit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/ranges.h"

/* The set as "off+len off+len". */
static const char *text(const struct ranges *set)
{
	static char buf[512];
	size_t n = 0;

	buf[0] = '\0';
	ranges_for_each (r, set)
		n += (size_t)snprintf(buf + n, sizeof(buf) - n, "%s%llu+%llu", n ? " " : "",
				      (unsigned long long)r->off, (unsigned long long)r->len);
	return buf;
}

static void add_merges_what_touches(void **state)
{
	struct ranges set = {0};

	(void)state;
	assert_int_equal(ranges_add(&set, 10, 5), 0);
	assert_int_equal(ranges_add(&set, 30, 5), 0);
	assert_int_equal(ranges_add(&set, 20, 5), 0);
	assert_string_equal(text(&set), "10+5 20+5 30+5");
	assert_int_equal(ranges_add(&set, 15, 5), 0);
	assert_string_equal(text(&set), "10+15 30+5");
	assert_int_equal(ranges_add(&set, 12, 2), 0);
	assert_string_equal(text(&set), "10+15 30+5");
	assert_int_equal(ranges_add(&set, 0, 100), 0);
	assert_string_equal(text(&set), "0+100");
	assert_int_equal(ranges_add(&set, 50, 0), 0);
	assert_string_equal(text(&set), "0+100");
	assert_int_equal(ranges_total(&set), 100);
	ranges_free(&set);
	assert_string_equal(text(&set), "");
}

static void remove_splits_and_trims(void **state)
{
	struct ranges set = {0};

	(void)state;
	ranges_add(&set, 0, 100);
	assert_int_equal(ranges_remove(&set, 40, 10), 0);
	assert_string_equal(text(&set), "0+40 50+50");
	assert_int_equal(ranges_remove(&set, 30, 40), 0);
	assert_string_equal(text(&set), "0+30 70+30");
	assert_int_equal(ranges_remove(&set, 30, 40), 0);
	assert_string_equal(text(&set), "0+30 70+30");
	assert_int_equal(ranges_remove(&set, 70, 10), 0);
	assert_int_equal(ranges_remove(&set, 95, 50), 0);
	assert_string_equal(text(&set), "0+30 80+15");
	assert_int_equal(ranges_remove(&set, 5, 0), 0);
	assert_int_equal(ranges_remove(&set, 0, 200), 0);
	assert_string_equal(text(&set), "");
	assert_int_equal(ranges_remove(&set, 0, 200), 0);
	ranges_free(&set);
}

static void overlap_finds_the_first(void **state)
{
	struct ranges set = {0};

	(void)state;
	assert_null(ranges_overlap(&set, 0, 100));
	ranges_add(&set, 10, 10);
	ranges_add(&set, 30, 10);
	assert_null(ranges_overlap(&set, 0, 10));
	assert_null(ranges_overlap(&set, 20, 10));
	assert_null(ranges_overlap(&set, 40, 10));
	assert_null(ranges_overlap(&set, 15, 0));
	assert_int_equal(ranges_overlap(&set, 0, 11)->off, 10);
	assert_int_equal(ranges_overlap(&set, 19, 100)->off, 10);
	assert_int_equal(ranges_overlap(&set, 20, 100)->off, 30);
	assert_int_equal(ranges_overlap(&set, 39, 1)->off, 30);
	ranges_free(&set);
}

static void offsets_near_the_top(void **state)
{
	struct ranges set = {0};

	(void)state;
	assert_int_equal(ranges_add(&set, UINT64_MAX - 10, 10), 0);
	assert_int_equal(ranges_add(&set, 0, 1), 0);
	assert_int_equal(ranges_overlap(&set, UINT64_MAX - 1, 1)->len, 10);
	assert_int_equal(ranges_remove(&set, UINT64_MAX - 5, 1), 0);
	assert_int_equal(ranges_total(&set), 10);
	assert_int_equal(set.n, 3);
	ranges_free(&set);
}

/* After ranges_reserve the next changes may not move the vector. */
static void reserve_makes_room(void **state)
{
	struct ranges set = {0};
	const struct range *v;

	(void)state;
	assert_int_equal(ranges_reserve(&set, 20), 0);
	v = set.v;
	for (uint64_t i = 0; i < 20; i++)
		ranges_add(&set, i * 10, 5);
	assert_ptr_equal(set.v, v);
	assert_int_equal(ranges_reserve(&set, SIZE_MAX), -ENOMEM);
	assert_int_equal(set.n, 20);
	ranges_clear(&set);
	assert_int_equal(set.n, 0);
	assert_null(ranges_overlap(&set, 0, 1000));
	ranges_free(&set);
}

/* Sorted, not empty, not touching; and exactly the bytes of the bitmap. */
static void check(const struct ranges *set, const bool *bit, size_t n)
{
	size_t at = 0;

	ranges_for_each (r, set) {
		assert_true(r->len > 0);
		assert_true(r == set->v || r->off > r[-1].off + r[-1].len);
		for (; at < r->off; at++)
			assert_false(bit[at]);
		for (; at < r->off + r->len; at++)
			assert_true(bit[at]);
	}
	for (; at < n; at++)
		assert_false(bit[at]);
}

static void random_run_equals_a_bitmap(void **state)
{
	enum { N = 200 };
	bool bit[N] = {false};
	struct ranges set = {0};

	(void)state;
	srand(1);
	for (int round = 0; round < 20000; round++) {
		uint64_t off = (uint64_t)rand() % N, len = (uint64_t)rand() % 20;
		bool add = rand() & 1;
		const struct range *hit;
		uint64_t first;

		if (len > N - off)
			len = N - off;
		hit = ranges_overlap(&set, off, len);
		for (first = off; first < off + len && !bit[first]; first++)
			;
		assert_int_equal(hit != NULL, first < off + len);
		if (hit)
			assert_true(hit->off <= first && first < hit->off + hit->len);
		assert_int_equal(add ? ranges_add(&set, off, len) : ranges_remove(&set, off, len),
				 0);
		for (uint64_t i = off; i < off + len; i++)
			bit[i] = add;
		check(&set, bit, N);
	}
	ranges_free(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add_merges_what_touches),
		cmocka_unit_test(remove_splits_and_trims),
		cmocka_unit_test(overlap_finds_the_first),
		cmocka_unit_test(offsets_near_the_top),
		cmocka_unit_test(reserve_makes_room),
		cmocka_unit_test(random_run_equals_a_bitmap),
	};

	return cmocka_run_group_tests_name("ranges", tests, NULL, NULL);
}
