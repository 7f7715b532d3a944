// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* io/file: holes, zeros with and without the help of fallocate, allocation, files that grow. */
#include "filetest.h"

#include <linux/falloc.h>

#include "base/work.h"

static void holes_are_mapped(void **state)
{
	struct io *io = make("holes", 0);
	struct err e = {0};
	struct extent x;

	(void)state;
	ok(io_resize(io, 1 * MiB, &e), &e);
	if (strcmp(map_text(io), "Z0+1048576") != 0)
		skip(); /* no holes here */
	fill(io, 128 * KiB, 64 * KiB, 'x');
	assert_string_equal(map_text(io), "Z0+131072 D131072+65536 Z196608+851968");
	/* A run of data asked for in pieces is looked up once. */
	fake.seeks = 0;
	for (uint64_t off = 128 * KiB; off < 192 * KiB; off += 4096) {
		ok(io_map(io, off, 4096, &x, &e), &e);
		assert_true(x.kind == EXT_DATA && x.len == 4096);
	}
	assert_true(fake.seeks <= 2);
	assert_string_equal(map_text(io), "Z0+131072 D131072+65536 Z196608+851968");
	/* What is remembered ends with the data. */
	ok(io_map(io, 128 * KiB, 4096, &x, &e), &e);
	ok(io_discard(io, 128 * KiB, 32 * KiB, &e), &e);
	ok(io_map(io, 128 * KiB, 4096, &x, &e), &e);
	assert_int_equal(x.kind, EXT_ZERO);
	assert_string_equal(map_text(io), "Z0+163840 D163840+32768 Z196608+851968");
	ok(io_map(io, 160 * KiB, 4096, &x, &e), &e);
	ok(io_zero(io, 160 * KiB, 32 * KiB, IO_ZERO_UNMAP, &e), &e);
	ok(io_map(io, 160 * KiB, 4096, &x, &e), &e);
	assert_int_equal(x.kind, EXT_ZERO);
	assert_string_equal(map_text(io), "Z0+1048576");
	fill(io, 0, 4096, 'x');
	assert_string_equal(map_text(io), "D0+4096 Z4096+1044480");
	ok(io_map(io, 0, 4096, &x, &e), &e);
	ok(io_resize(io, 0, &e), &e);
	ok(io_resize(io, 4096, &e), &e);
	assert_string_equal(map_text(io), "Z0+4096");
	io_close(io);
}

static void without_seek_all_is_data(void **state)
{
	struct io *io = make("noseek", 0);
	struct err e = {0};

	(void)state;
	ok(io_resize(io, 1 * MiB, &e), &e);
	fake.seek_error = EINVAL;
	assert_string_equal(map_text(io), "D0+1048576");
	assert_int_equal(fake.seeks, 1);
	assert_string_equal(map_text(io), "D0+1048576");
	assert_int_equal(fake.seeks, 1);
	io_close(io);
}

static void zero_frees_or_keeps_space(void **state)
{
	struct io *io = make("zero", 0);
	struct err e = {0};

	(void)state;
	fill(io, 0, 1 * MiB, 'x');
	ok(io_flush(io, &e), &e);
	ok(io_zero(io, 256 * KiB, 256 * KiB, IO_ZERO_UNMAP, &e), &e);
	ok(io_zero(io, 768 * KiB + 5, 1000, 0, &e), &e);
	check_bytes(io, 0, 256 * KiB, 'x');
	check_bytes(io, 256 * KiB, 256 * KiB, 0);
	check_bytes(io, 512 * KiB, 256 * KiB + 5, 'x');
	check_bytes(io, 768 * KiB + 5, 1000, 0);
	check_bytes(io, 768 * KiB + 1005, 1000, 'x');
	assert_true(allocated(io) <= 768 * KiB + 16 * KiB);
	ok(io_zero(io, 0, 1 * MiB, 0, &e), &e);
	check_bytes(io, 0, 1 * MiB, 0);
	assert_true(allocated(io) >= 1 * MiB);
	ok(io_zero(io, 0, 1 * MiB, IO_ZERO_UNMAP, &e), &e);
	assert_true(allocated(io) <= 16 * KiB);
	io_close(io);
}

static void zero_extends_the_file(void **state)
{
	static const unsigned kinds[] = {0, IO_ZERO_UNMAP};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct io *io = make("extend", 0);
		struct err e = {0};

		fill(io, 0, 1000, 'x');
		ok(io_zero(io, 500, 10000, kinds[i], &e), &e);
		assert_int_equal(io_size(io), 10500);
		check_bytes(io, 0, 500, 'x');
		check_bytes(io, 500, 10000, 0);
		ok(io_zero(io, 1 * MiB, 1 * MiB, kinds[i], &e), &e);
		assert_int_equal(io_size(io), 2 * MiB);
		check_bytes(io, 10000, 2 * MiB - 10000, 0);
		if (kinds[i])
			assert_true(allocated(io) <= 64 * KiB);
		else
			assert_true(allocated(io) >= 1 * MiB);
		io_close(io);
	}
}

/* Whatever fallocate refuses, the zeros get there, and it is not asked for ever. */
static void zero_without_fallocate(void **state)
{
	static const int errors[] = {EOPNOTSUPP, ENOSYS, EINVAL};
	static const unsigned kinds[] = {0, IO_ZERO_UNMAP};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(errors) * 2; i++) {
		struct io *io = make("refused", 0);
		struct err e = {0};
		int calls;

		fill(io, 0, 300000, 'x');
		fake.fallocate_error = errors[i / 2];
		fails(io_zero(io, 0, 10, kinds[i % 2] | IO_ZERO_FAST, &e), -ENOTSUP, &e, "");
		check_bytes(io, 0, 10, 'x');
		ok(io_zero(io, 100, 200000, kinds[i % 2], &e), &e);
		check_bytes(io, 0, 100, 'x');
		check_bytes(io, 100, 200000, 0);
		check_bytes(io, 200100, 99900, 'x');
		ok(io_zero(io, 299000, 2000, kinds[i % 2], &e), &e);
		assert_int_equal(io_size(io), 301000);
		check_bytes(io, 299000, 2000, 0);
		calls = fake.fallocates;
		ok(io_zero(io, 0, 10, kinds[i % 2], &e), &e);
		if (errors[i / 2] != EINVAL)
			assert_int_equal(fake.fallocates, calls);
		assert_int_equal(file_allocate(io, 0, 4096, &e), -ENOTSUP);
		io_close(io);
	}
}

/* tmpfs has no ZERO_RANGE: a hole is punched and filled. */
static void zero_without_zero_range(void **state)
{
	struct io *io = make("range", 0);
	struct err e = {0};

	(void)state;
	fill(io, 0, 1 * MiB, 'x');
	fake.fallocate_error = EOPNOTSUPP;
	fake.fallocate_except = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	ok(io_zero(io, 0, 4096, IO_ZERO_UNMAP, &e), &e);
	check_bytes(io, 0, 4096, 0);
	check_bytes(io, 4096, 4096, 'x');
	ok(io_zero(io, 0, 8192, 0, &e), &e);
	check_bytes(io, 0, 8192, 0);
	io_close(io);
}

static void zero_errors_are_told(void **state)
{
	struct io *io = make("full", 0);
	struct err e = {0};

	(void)state;
	fill(io, 0, 8192, 'x');
	fake.fallocate_error = ENOSPC;
	fails(io_zero(io, 0, 4096, 0, &e), -ENOSPC, &e,
	      "full: cannot zero 4096 bytes at offset 0: No space left on device");
	fails(file_allocate(io, 0, 4096, &e), -ENOSPC, &e, "full: cannot allocate 4096 bytes");
	fails(io_discard(io, 0, 4096, &e), -ENOSPC, &e, "cannot discard");
	io_close(io);
}

static void allocate_reserves_space(void **state)
{
	struct io *io = make("allocate", 0);
	struct err e = {0};

	(void)state;
	ok(file_allocate(io, 1 * MiB, 1 * MiB, &e), &e);
	assert_int_equal(io_size(io), 2 * MiB);
	assert_true(allocated(io) >= 1 * MiB);
	check_bytes(io, 0, 2 * MiB, 0);
	ok(file_allocate(io, 0, 0, &e), &e);
	fails(file_allocate(io, UINT64_MAX, 2, &e), -EFBIG, &e, "out of range");
	io_close(io);
	ok(file_open("allocate", 0, &io, &e), &e);
	fails(file_allocate(io, 0, 4096, &e), -EROFS, &e, "read-only");
	io_close(io);
}

struct race {
	struct io *io;
	atomic_int round;
};

/* One thread appends data, one makes the file longer with holes, one with reserved space. */
static int extend_in_turn(void *ctx, unsigned worker, struct err *err)
{
	struct race *race = ctx;
	char buf[512];

	memset(buf, 'x', sizeof(buf));
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t at = (uint64_t)atomic_fetch_add(&race->round, 1) * 1024;
		int r;

		if (worker == 0)
			r = io_pwrite(race->io, buf, sizeof(buf), at, err);
		else
			r = io_zero(race->io, at, 512, worker == 1 ? IO_ZERO_UNMAP : 0, err);
		if (r < 0)
			return r;
		if (lseek(file_fd(race->io), 0, SEEK_END) < (off_t)at + 512)
			return err_set(err, EIO, "what worker %u added is cut off", worker);
		/* The mark tells who was here. */
		buf[0] = (char)('0' + worker);
		r = io_pwrite(race->io, buf, 1, at + 512, err);
		if (r < 0)
			return r;
		buf[0] = 'x';
	}
	return 0;
}

static void extending_threads_lose_nothing(void **state)
{
	static const unsigned flags[] = {0, FILE_DIRECT};
	const unsigned workers = 3;

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(flags); k++) {
		struct err e = {0};
		struct race race = {0};
		unsigned data = 0;

		be_honest();
		if (file_open("race", FILE_CREATE | FILE_TRUNC | flags[k], &race.io, &e) < 0)
			skip(); /* no O_DIRECT here */
		ok(work_run(workers, extend_in_turn, &race, &e), &e);
		for (unsigned i = 0; i < workers * 1000; i++) {
			char mark;

			ok(io_pread(race.io, &mark, 1, i * 1024 + 512, &e), &e);
			assert_true(mark >= '0' && mark < (char)('0' + workers));
			check_bytes(race.io, i * 1024, 512, mark == '0' ? 'x' : 0);
			data += mark == '0';
		}
		assert_int_equal(data, 1000);
		io_close(race.io);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holes_are_mapped),
		cmocka_unit_test(without_seek_all_is_data),
		cmocka_unit_test(zero_frees_or_keeps_space),
		cmocka_unit_test(zero_extends_the_file),
		cmocka_unit_test(zero_without_fallocate),
		cmocka_unit_test(zero_without_zero_range),
		cmocka_unit_test(zero_errors_are_told),
		cmocka_unit_test(allocate_reserves_space),
		cmocka_unit_test(extending_threads_lose_nothing),
	};

	return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
