// SPDX-License-Identifier: GPL-2.0-or-later
/* Payloads of the appliance's protocol: both ways, and what is cut off, too long or not text. */
#include "unit.h"

#include <stdlib.h>

#include "appliance/wire.h"
#include "base/bytes.h"
#include "rng.h"

static void values_come_back(void **state)
{
	unsigned char buf[64];
	struct wire_out w = wire_out(buf, sizeof(buf));
	struct wire_in r;
	char text[8];
	const void *p;
	size_t n;

	(void)state;
	put_u8(&w, 200);
	put_u32(&w, 0xdeadbeef);
	put_u64(&w, UINT64_C(0x0123456789abcdef));
	put_text(&w, "text");
	put_bytes(&w, "a\0b", 3);
	put_text(&w, "");
	assert_false(w.full);
	assert_int_equal(w.len, 1 + 4 + 8 + 8 + 7 + 4);
	/* Little-endian, whatever this machine is. */
	assert_memory_equal(buf + 1, "\xef\xbe\xad\xde", 4);
	r = wire_in(buf, w.len);
	assert_int_equal(get_u8(&r), 200);
	assert_int_equal(get_u32(&r), 0xdeadbeef);
	assert_true(get_u64(&r) == UINT64_C(0x0123456789abcdef));
	get_text(&r, text, sizeof(text));
	assert_string_equal(text, "text");
	p = get_bytes(&r, 3, &n);
	assert_int_equal(n, 3);
	assert_memory_equal(p, "a\0b", 3);
	assert_false(wire_done(&r));
	get_text(&r, text, 1);
	assert_string_equal(text, "");
	assert_true(wire_done(&r));
}

static struct agent_volume a_volume(struct rng *rng)
{
	struct agent_volume v = {.disk = 3, .part = 7, .table = "gpt", .usage = "filesystem"};

	v.offset = rng_next(rng);
	v.size = rng_next(rng);
	v.fs_size = rng_next(rng);
	v.fs_block = 4096;
	v.part_flags = 1;
	v.sector = 512;
	memset(v.label, 'l', sizeof(v.label) - 1);
	memset(v.part_name, 'n', sizeof(v.part_name) - 1);
	memset(v.uuid, 'u', sizeof(v.uuid) - 1);
	memset(v.part_uuid, 'p', sizeof(v.part_uuid) - 1);
	return v;
}

static struct agent_stat a_stat(struct rng *rng)
{
	return (struct agent_stat){.dev = 1,
				   .ino = rng_next(rng),
				   .mode = 0100644,
				   .nlink = 2,
				   .uid = 3,
				   .gid = UINT32_MAX,
				   .rdev_major = 5,
				   .rdev_minor = 6,
				   .size = rng_next(rng),
				   .allocated = 8,
				   .atime = {-1, 999999999},
				   .mtime = {INT64_MAX, 0},
				   .ctime = {INT64_MIN, 1},
				   .btime = {9, 10},
				   .flags = 11};
}

static void structs_come_back(void **state)
{
	struct rng rng = {1};
	unsigned char buf[2048];
	struct wire_out w = wire_out(buf, sizeof(buf));
	struct agent_volume v = a_volume(&rng), v2;
	struct agent_stat st = a_stat(&rng), st2;
	struct wire_in r;

	(void)state;
	memset(&v2, 0, sizeof(v2));
	memset(&st2, 0, sizeof(st2));
	put_volume(&w, &v);
	put_stat(&w, &st);
	r = wire_in(buf, w.len);
	get_volume(&r, &v2);
	get_stat(&r, &st2);
	assert_true(wire_done(&r));
	assert_string_equal(v2.label, v.label);
	assert_string_equal(v2.part_name, v.part_name);
	assert_true(v2.offset == v.offset && v2.size == v.size && v2.fs_size == v.fs_size);
	assert_int_equal(v2.fs_block, 4096);
	assert_true(st2.ino == st.ino && st2.size == st.size);
	assert_true(st2.ctime.sec == INT64_MIN && st2.atime.sec == -1);
	assert_int_equal(st2.gid, UINT32_MAX);
	assert_int_equal(st2.flags, 11);
}

/* Any prefix is bad, and nothing behind its end is read: the buffer has no more. */
static void what_is_cut_off_is_bad(void **state)
{
	struct rng rng = {2};
	unsigned char buf[2048];
	struct wire_out w = wire_out(buf, sizeof(buf));
	struct agent_volume v = a_volume(&rng);
	struct agent_stat st = a_stat(&rng);

	(void)state;
	put_volume(&w, &v);
	put_stat(&w, &st);
	for (size_t n = 0; n < w.len; n++) {
		unsigned char *part = malloc(n + !n);
		struct wire_in r = wire_in(memcpy(part, buf, n), n);

		get_volume(&r, &v);
		get_stat(&r, &st);
		assert_true(r.bad);
		assert_int_equal(get_u64(&r), 0);
		free(part);
	}
}

/* What does not fit is left out whole, and all that follows. */
static void what_does_not_fit_is_remembered(void **state)
{
	unsigned char buf[10] = {0};
	struct wire_out w = wire_out(buf, 9);

	(void)state;
	put_u32(&w, 1);
	put_text(&w, "12");
	assert_true(w.full);
	assert_int_equal(w.len, 4);
	put_u8(&w, 1);
	assert_int_equal(w.len, 4);
	assert_int_equal(buf[9], 0);
}

static void texts_are_checked(void **state)
{
	unsigned char buf[64];
	struct wire_out w = wire_out(buf, sizeof(buf));
	struct wire_in r;
	char text[5];

	(void)state;
	put_text(&w, "12345");
	r = wire_in(buf, w.len);
	get_text(&r, text, sizeof(text));
	assert_true(r.bad);
	assert_string_equal(text, "");
	w = wire_out(buf, sizeof(buf));
	put_bytes(&w, "1\0002", 3);
	r = wire_in(buf, w.len);
	get_text(&r, text, sizeof(text));
	assert_true(r.bad);
	/* A length that would wrap. */
	r = wire_in("\xff\xff\xff\xff"
		    "1234",
		    8);
	get_text(&r, text, sizeof(text));
	assert_true(r.bad);
	/* A nanosecond too much: in the first time of a STAT. */
	{
		struct agent_stat st = {.atime = {0, 1000000000}}, back;
		unsigned char all[256];

		w = wire_out(all, sizeof(all));
		put_stat(&w, &st);
		r = wire_in(all, w.len);
		get_stat(&r, &back);
		assert_true(r.bad);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_come_back),
		cmocka_unit_test(structs_come_back),
		cmocka_unit_test(what_is_cut_off_is_bad),
		cmocka_unit_test(what_does_not_fit_is_remembered),
		cmocka_unit_test(texts_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
