// SPDX-License-Identifier: GPL-2.0-or-later
/* base/size: what is a size and what is not, as `qemu-img create` of 7.2 sees it; and the way back. */
#include "unit.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/size.h"

static void sizes_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"1", 1},
		{"010", 10}, /* not octal */
		{"1b", 1},
		{"1B", 1},
		{"10k", 10 * KiB},
		{"10K", 10 * KiB},
		{"3m", 3 * MiB},
		{"2G", 2 * GiB},
		{"5t", 5 * TiB},
		{"5P", 5 * 1024 * TiB},
		{"7e", 7 * 1024 * 1024 * TiB},
		{"1.5G", 3 * GiB / 2},
		{"0.3k", 307},
		{"0.0005k", 1}, /* 0.512: half a byte or more rounds up */
		{"0.0004k", 0},
		{"1.k", KiB},
		{"1.", 1},
		{"1.0", 1},
		{"1.0b", 1},
		{"0.0000000001T", 110},
		{"0x10", 16},
		{"0XfF", 255},
		{"0x10k", 16 * KiB},
		{" 5k", 5 * KiB},
		{"\t+5k", 5 * KiB},
		{"9223372036854775807", INT64_MAX},
		{"7.9999999999999999E", UINT64_C(9223372036854775680)},
		{"1.0000000000000000000000001", 1},
	};
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint64_t v = 12345;

		if (size_parse(good[i].text, &v, &e) < 0)
			fail_msg("'%s': %s", good[i].text, e.msg);
		if (v != good[i].bytes)
			fail_msg("'%s' is %llu, not %llu", good[i].text, (unsigned long long)v,
				 (unsigned long long)good[i].bytes);
	}
}

static void garbage_is_refused(void **state)
{
	static const char *const bad[] = {
		"",       " ",      "k",     ".5k",   "1.5",  "1.5b", "-1",   "-5k",
		"+-5",    "++5",    "5kk",   "5kB",   "5KiB", "1e3",  "1s",   "0x",
		"0xk",    "0x1.8k", "1,5k",  "5 k",   "5k ",  "inf",  "nan",  "1x",
		"1.5e3k", "00x10",  "1..5k", "1.5G2", "G1",   "\xff", "0x-1", "1.-5k",
	};
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint64_t v = 12345;

		if (size_parse(bad[i], &v, &e) != -EINVAL)
			fail_msg("'%s' was taken as %llu", bad[i], (unsigned long long)v);
		assert_int_equal(v, 12345);
	}
}

static void overflow_is_refused(void **state)
{
	static const char *const large[] = {
		"8E",
		"8192P",
		"9223372036854775808",
		"18446744073709551616",
		"340282366920938463463374607431768211456",
		"99999999999999999999999999999999999999999999999999999999999E",
		"0x8000000000000000",
		"0xffffffffffffffffffffffff",
		"20E",
		"7.99999999999999999E",
	};
	struct err e;
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(large); i++)
		fails(size_parse(large[i], &v, &e), -ERANGE, &e, large[i]);
}

static void sizes_are_written(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1, "1 B"},
		{512, "512 B"},
		{999, "999 B"},
		{1000, "0.977 KiB"},
		{1023, "0.999 KiB"},
		{1024, "1 KiB"},
		{1536, "1.5 KiB"},
		{196624, "192 KiB"},
		{999 * KiB, "999 KiB"},
		{1000 * KiB, "0.977 MiB"},
		{10 * MiB, "10 MiB"},
		{9728 * MiB, "9.5 GiB"},
		{TiB + TiB / 4, "1.25 TiB"},
		{UINT64_MAX, "16 EiB"},
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(size_format(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
	assert_string_equal(size_format(1536, buf, 4), "1.5");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read),
		cmocka_unit_test(garbage_is_refused),
		cmocka_unit_test(overflow_is_refused),
		cmocka_unit_test(sizes_are_written),
	};

	return cmocka_run_group_tests_name("size", tests, NULL, NULL);
}
