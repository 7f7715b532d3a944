// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* io/file: O_DIRECT with requests of any alignment, and block devices (a loop device, as root). */
#include "filetest.h"

#include <malloc.h>
#include <sched.h>

#include "base/work.h"

/* ---- O_DIRECT ---- */

/* NULL: not here. */
static struct io *make_direct(const char *path)
{
	struct err e = {0};
	struct io *io = NULL;

	be_honest();
	if (file_open(path, FILE_CREATE | FILE_TRUNC | FILE_DIRECT, &io, &e) < 0)
		assert_string_equal(strstr(e.msg, "filesystem"),
				    "filesystem does not support O_DIRECT");
	return io;
}

static void direct_takes_any_request(void **state)
{
	enum { SIZE = 300000 };
	struct io *io = make_direct("direct");
	unsigned char *model = calloc(1, SIZE), *buf = malloc(SIZE + 4096);
	uint64_t size = 0;
	struct err e = {0};

	(void)state;
	if (!io)
		skip();
	assert_non_null(model);
	assert_non_null(buf);
	assert_true(is_pow2(io->align) && io->align >= 512);
	srand(3);
	for (int i = 0; i < 600; i++) {
		uint64_t off = (uint64_t)rand() % SIZE, len = (uint64_t)rand() % 20000 + 1;
		unsigned char *p = buf + rand() % 4096;

		if (i % 3 == 0) /* aligned in all respects but memory now and then */
			off = round_down(off, 4096), len = round_up(len, 4096);
		if (i % 9 == 0)
			p = (unsigned char *)round_up((uintptr_t)buf, 4096);
		len = min_u64(len, SIZE - off);
		switch (rand() % 4) {
		case 0:
			memset(model + off, 0, len);
			ok(io_zero(io, off, len, IO_ZERO_UNMAP, &e), &e);
			size = max_u64(size, off + len);
			break;
		case 1:
			if (off + len > size)
				break;
			ok(io_pread(io, p, len, off, &e), &e);
			assert_memory_equal(p, model + off, len);
			break;
		default:
			memset(p, rand() % 255 + 1, len);
			memcpy(model + off, p, len);
			ok(io_pwrite(io, p, len, off, &e), &e);
			size = max_u64(size, off + len);
		}
		assert_int_equal(io_size(io), size);
	}
	io_close(io);
	/* And so see others the file. */
	ok(file_open("direct", 0, &io, &e), &e);
	assert_int_equal(io_size(io), size);
	ok(io_pread(io, buf, size, 0, &e), &e);
	assert_memory_equal(buf, model, size);
	io_close(io);
	free(model);
	free(buf);
}

/* The gap between the old end and a write in the same block; fresh memory is not zero here. */
static void direct_gaps_read_as_zeros(void **state)
{
	struct io *io = make_direct("gap");

	(void)state;
	if (!io)
		skip();
	mallopt(M_PERTURB, 0xaa);
	fill(io, 0, 10, 'x');
	fill(io, 300, 10, 'y');
	fill(io, 10000, 10, 'z');
	mallopt(M_PERTURB, 0);
	assert_int_equal(io_size(io), 10010);
	check_bytes(io, 0, 10, 'x');
	check_bytes(io, 10, 290, 0);
	check_bytes(io, 300, 10, 'y');
	check_bytes(io, 310, 9690, 0);
	io_close(io);
}

/* Worker w owns pieces w, w+4, … of 100 bytes: neighbours share every block. */
static int write_interleaved(void *ctx, unsigned worker, struct err *err)
{
	struct io *io = ctx;
	char buf[100];

	memset(buf, (int)('a' + worker), sizeof(buf));
	for (unsigned i = 0; i < 400; i++) {
		uint64_t off = (uint64_t)(i * 4 + worker) * 100;
		int r = i % 2 ? io_zero(io, off, 100, 0, err) : io_pwrite(io, buf, 100, off, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static void direct_threads_share_blocks(void **state)
{
	struct io *io = make_direct("shared");
	struct err e = {0};

	(void)state;
	if (!io)
		skip();
	ok(work_run(4, write_interleaved, io, &e), &e);
	assert_int_equal(io_size(io), 160000);
	for (unsigned i = 0; i < 1600; i++)
		check_bytes(io, i * 100, 100, i / 4 % 2 ? 0 : (int)('a' + i % 4));
	io_close(io);
	assert_int_equal(truncate("shared", 1000), 0);
	ok(file_open("shared", FILE_DIRECT, &io, &e), &e);
	assert_int_equal(truncate("shared", 700), 0);
	{
		char buf[200];

		fails(io_pread(io, buf, 200, 600, &e), -EIO, &e, "the file ends before");
	}
	check_bytes(io, 600, 100, 0);
	io_close(io);
}

/* Worker 0 changes bytes 0 … 99 of a block; while it does, worker 1 zeros 100 … 199. */
static int change_one_block(void *ctx, unsigned worker, struct err *err)
{
	char buf[100];

	memset(buf, 'b', sizeof(buf));
	if (worker == 0)
		return io_pwrite(ctx, buf, sizeof(buf), 0, err);
	while (!fake.lingering)
		sched_yield();
	return io_zero(ctx, 100, 100, IO_ZERO_UNMAP, err);
}

static void direct_zero_waits_for_the_block(void **state)
{
	struct io *io = make_direct("waiting");
	struct err e = {0};

	(void)state;
	if (!io)
		skip();
	fill(io, 0, 8192, 'a');
	fake.linger_us = 100000;
	ok(work_run(2, change_one_block, io, &e), &e);
	fake.linger_us = 0;
	check_bytes(io, 0, 100, 'b');
	check_bytes(io, 100, 100, 0);
	check_bytes(io, 200, 7992, 'a');
	io_close(io);
}

/* ---- block devices ---- */

static void block_device(void **state)
{
	char cmd[64], dev[64] = "";
	struct err e = {0};
	struct file_stat st;
	struct io *io;
	FILE *p;

	(void)state;
	be_honest();
	io = make("loopfile", 0);
	ok(io_resize(io, 1 * MiB, &e), &e);
	io_close(io);
	p = geteuid() == 0 ? popen("losetup -f --show loopfile 2>/dev/null", "r") : NULL;
	if (!p)
		skip();
	if (!fgets(dev, sizeof(dev), p) || pclose(p) != 0)
		skip();
	dev[strcspn(dev, "\n")] = '\0';
	fails(file_open(dev, FILE_NO_DEVICE, &io, &e), -EINVAL, &e, "it is a block device");
	ok(file_open(dev, FILE_WRITE, &io, &e), &e);
	assert_int_equal(io_size(io), 1 * MiB);
	ok(file_stat(io, &st, &e), &e);
	assert_true(st.block_device);
	assert_false(io->caps & IO_GROWS);
	fill(io, 0, 1 * MiB, 'x');
	ok(io_zero(io, 1000, 100000, IO_ZERO_UNMAP, &e), &e);
	check_bytes(io, 0, 1000, 'x');
	check_bytes(io, 1000, 100000, 0);
	check_bytes(io, 101000, 1000, 'x');
	ok(io_zero(io, 500001, 100, 0, &e), &e);
	check_bytes(io, 500001, 100, 0);
	check_bytes(io, 500101, 100, 'x');
	ok(io_zero(io, 600001, 100000, 0, &e), &e);
	check_bytes(io, 600001, 100000, 0);
	check_bytes(io, 600000, 1, 'x');
	check_bytes(io, 700001, 1000, 'x');
	ok(io_discard(io, 800001, 10000, &e), &e);
	check_bytes(io, 800000, 1, 'x');
	check_bytes(io, 810001, 1000, 'x');
	assert_string_equal(map_text(io), "D0+1048576");
	fails(io_pwrite(io, "xx", 2, 1 * MiB - 1, &e), -ENOSPC, &e, "past the end");
	fails(io_resize(io, 2 * MiB, &e), -ENOTSUP, &e, "block device cannot be resized");
	ok(io_resize(io, 1 * MiB, &e), &e);
	ok(io_flush(io, &e), &e);
	io_close(io);
	ok(file_open(dev, FILE_WRITE | FILE_DIRECT, &io, &e), &e);
	fill(io, 12345, 100000, 'y');
	check_bytes(io, 12345, 100000, 'y');
	check_bytes(io, 1 * MiB - 100, 100, 'x');
	io_close(io);
	snprintf(cmd, sizeof(cmd), "losetup -d %.40s", dev);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(direct_takes_any_request),
		cmocka_unit_test(direct_gaps_read_as_zeros),
		cmocka_unit_test(direct_threads_share_blocks),
		cmocka_unit_test(direct_zero_waits_for_the_block),
		cmocka_unit_test(block_device),
	};

	return cmocka_run_group_tests_name("direct", tests, NULL, NULL);
}
