// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * base/bytes: on-disk integers, alignment, checked arithmetic, zero detection at every position;
 * base/bits: runs from every bit to every other.
 */
#include "unit.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/bytes.h"

static void disk_integers_have_their_byte_order(void **state)
{
	static const unsigned char bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	be16 b16;
	be32 b32;
	be64 b64;
	le16 l16;
	le32 l32;
	le64 l64;

	(void)state;
	memcpy(&b16, bytes, sizeof(b16));
	memcpy(&b32, bytes, sizeof(b32));
	memcpy(&b64, bytes, sizeof(b64));
	memcpy(&l16, bytes, sizeof(l16));
	memcpy(&l32, bytes, sizeof(l32));
	memcpy(&l64, bytes, sizeof(l64));
	assert_int_equal(be16_get(b16), 0x0102);
	assert_int_equal(be32_get(b32), 0x01020304);
	assert_true(be64_get(b64) == UINT64_C(0x0102030405060708));
	assert_int_equal(le16_get(l16), 0x0201);
	assert_int_equal(le32_get(l32), 0x04030201);
	assert_true(le64_get(l64) == UINT64_C(0x0807060504030201));
	b64 = be64_make(UINT64_C(0x0102030405060708));
	assert_memory_equal(&b64, bytes, 8);
	l32 = le32_make(0x04030201);
	assert_memory_equal(&l32, bytes, 4);
	assert_int_equal(sizeof(struct {
				 be16 a;
				 be64 b;
				 le32 c;
			 }),
			 14);
}

static void rounding(void **state)
{
	(void)state;
	assert_int_equal(round_up(0, 512), 0);
	assert_int_equal(round_up(1, 512), 512);
	assert_int_equal(round_up(512, 512), 512);
	assert_int_equal(round_down(1023, 512), 512);
	assert_int_equal(div_up(0, 3), 0);
	assert_int_equal(div_up(7, 3), 3);
	assert_true(div_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
	assert_true(is_aligned(1024, 512) && !is_aligned(1025, 512));
	assert_true(is_pow2(1) && is_pow2(UINT64_C(1) << 63) && !is_pow2(0) && !is_pow2(6));
	assert_int_equal(log2_u64(UINT64_C(1) << 40), 40);
}

static void arithmetic_that_wraps_is_seen(void **state)
{
	uint64_t v;

	(void)state;
	assert_true(add_ok(UINT64_MAX, 0, &v) && v == UINT64_MAX);
	assert_false(add_ok(UINT64_MAX, 1, &v));
	assert_true(mul_ok(UINT64_C(1) << 32, UINT32_MAX, &v));
	assert_false(mul_ok(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
	assert_true(overlaps(0, 10, 9, 1));
	assert_false(overlaps(0, 10, 10, 5));
	assert_false(overlaps(5, 0, 5, 0));
}

/* Every length around the steps of the loops, every position of the one byte that is not zero. */
static void zero_detection_sees_every_byte(void **state)
{
	enum { MAX = 1100 };
	unsigned char *page = calloc(1, MAX + 1);

	(void)state;
	assert_non_null(page);
	for (size_t n = 0; n <= MAX; n++) {
		/* Starting off alignment, with a byte behind the end that must not count. */
		unsigned char *p = page + (n & 1);

		if (n < MAX)
			p[n] = 1;
		assert_true(bytes_are_zero(p, n));
		if (n < MAX)
			p[n] = 0;
		for (size_t at = 0; at<n; at += n> 300 ? 7 : 1) {
			p[at] = 0x80;
			assert_false(bytes_are_zero(p, n));
			p[at] = 0;
		}
		if (n) {
			p[n - 1] = 1;
			assert_false(bytes_are_zero(p, n));
			p[n - 1] = 0;
		}
	}
	free(page);
}

static void zero_buffer_is_zero(void **state)
{
	(void)state;
	for (size_t i = 0; i < ZERO_BUF_SIZE; i++)
		assert_int_equal(zero_buf[i], 0);
	assert_true(is_aligned((uintptr_t)zero_buf, 4096));
}

/* In a map of one value but for one bit, wherever that is. */
static void a_run_of_bits_ends_at_the_other_bit(void **state)
{
	enum { BITS = 3 * 64 + 8 };
	unsigned char map[BITS / 8];

	(void)state;
	for (unsigned odd = 0; odd < BITS; odd++) {
		for (unsigned set = 0; set < 2; set++) {
			memset(map, set ? 0xff : 0, sizeof(map));
			map[odd / 8] ^= (unsigned char)(1U << (odd % 8));
			for (unsigned i = 0; i < BITS; i++)
				assert_int_equal(bit_get(map, i), i == odd ? !set : set);
			for (unsigned from = 0; from <= BITS; from++)
				for (unsigned to = from; to <= BITS; to += 1 + to % 7)
					assert_int_equal(bits_run_end(map, from, to, set),
							 odd >= from && odd < to ? odd : to);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(disk_integers_have_their_byte_order),
		cmocka_unit_test(rounding),
		cmocka_unit_test(arithmetic_that_wraps_is_seen),
		cmocka_unit_test(zero_detection_sees_every_byte),
		cmocka_unit_test(zero_buffer_is_zero),
		cmocka_unit_test(a_run_of_bits_ends_at_the_other_bit),
	};

	return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
