// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/*
 * Checksums: against a second way of computing them, and in every form a disk may have.
 *
 * The hash here is a toy (FNV-1a, 64 bits): the tree is what is tested.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "lib/rng.h"
#include "ops/checksum.h"

static struct err e;

/* ---- the toy ---- */

static uint64_t fnv(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t tagged(unsigned char tag, const void *data, size_t len)
{
	return fnv(fnv(UINT64_C(0xcbf29ce484222325), &tag, 1), data, len);
}

static bool out_of_order; /* the hash function reports a failure */

static void *toy_open(const struct checksum_hash *hash)
{
	(void)hash;
	return malloc(1);
}

static void toy_close(void *ctx)
{
	free(ctx);
}

static bool toy_digest(void *ctx, unsigned char tag, const void *data, size_t len,
		       unsigned char *out)
{
	uint64_t h = tagged(tag, data, len);

	(void)ctx;
	memcpy(out, &h, sizeof(h));
	return !out_of_order;
}

static const struct checksum_hash toy = {8, toy_open, toy_close, toy_digest};

/* ---- the second way: the whole disk in memory, leaf by leaf ---- */

static uint64_t reference(const unsigned char *disk, uint64_t size)
{
	uint64_t leaves = 16, sum[2] = {size, 0}, *tree;

	while (leaves * CHECKSUM_BLOCK < size)
		leaves *= 2;
	tree = malloc(leaves * sizeof(*tree));
	for (uint64_t i = 0; i < leaves; i++) {
		unsigned char block[CHECKSUM_BLOCK] = {0};
		uint64_t off = i * CHECKSUM_BLOCK;

		if (off < size)
			memcpy(block, disk + off, min_u64(CHECKSUM_BLOCK, size - off));
		tree[i] = tagged(0, block, sizeof(block));
	}
	for (; leaves > 1; leaves /= 2) {
		for (uint64_t i = 0; i < leaves / 2; i++)
			tree[i] = tagged(1, tree + 2 * i, 16);
	}
	sum[1] = tree[0];
	free(tree);
	return tagged(2, sum, sizeof(sum));
}

static uint64_t sum_of(struct io *io, unsigned workers)
{
	unsigned char out[CHECKSUM_MAX];
	uint64_t h;

	ok(checksum_run(io, &toy, workers, out, NULL, &e), &e);
	memcpy(&h, out, sizeof(h));
	return h;
}

/* Some data, many holes, and zeros that are stored. */
static void fill_disk(struct io *io, uint64_t size, uint64_t seed)
{
	struct rng rng = {.state = seed};
	static unsigned char buf[200000];

	for (int i = 0; size && i < 12; i++) {
		uint64_t off = rng_below(&rng, size);
		uint64_t len = min_u64(rng_range(&rng, 1, sizeof(buf)), size - off);

		rng_fill(&rng, buf, len);
		if (i % 4 == 3)
			memset(buf, 0, len);
		ok(io_pwrite(io, buf, len, off, &e), &e);
	}
}

static void same_as_the_reference(void **state)
{
	static const uint64_t sizes[] = {0,
					 1,
					 512,
					 CHECKSUM_BLOCK - 1,
					 CHECKSUM_BLOCK,
					 CHECKSUM_BLOCK + 1,
					 MiB - 1,
					 MiB,
					 MiB + 1,
					 2 * MiB,
					 5 * MiB + 512,
					 16 * MiB,
					 33 * MiB - 512};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct io *io = disk_new("disk");
		unsigned char *bytes;
		uint64_t len, want;

		ok(io_resize(io, sizes[i], &e), &e);
		fill_disk(io, sizes[i], i);
		bytes = disk_bytes(io, &len);
		want = reference(bytes, len);
		assert_int_equal(sum_of(io, 1), want);
		assert_int_equal(sum_of(io, 3), want);
		free(bytes);
		io_close(io);
	}
}

static enum fill how(void *ctx, uint64_t i)
{
	const unsigned char *disk = ctx;

	if (bytes_are_zero(disk + i * 65536, 65536))
		return i & 1 ? FILL_ZERO : FILL_NONE;
	return i & 2 ? FILL_CODED : FILL_DATA;
}

static void the_form_does_not_matter(void **state)
{
	struct io *raw = disk_new("raw"), *file = disk_new("qcow2");
	struct fill_args fill = {.size = 8 * MiB, .kind = how};
	unsigned char *bytes;
	struct img *img;
	uint64_t len;

	(void)state;
	ok(io_resize(raw, 8 * MiB, &e), &e);
	fill_disk(raw, 8 * MiB, 99);
	bytes = disk_bytes(raw, &len);
	fill.data = bytes;
	fill.ctx = bytes;
	disk_fill(file, "qcow2", &fill);
	img = disk_open(file, "qcow2", 0, NULL);
	assert_int_equal(sum_of(&img->io, 2), sum_of(raw, 2));
	io_close(&img->io);
	free(bytes);
	io_close(file);
	io_close(raw);
}

static void one_bit_and_the_size_matter(void **state)
{
	struct io *io = disk_new("disk");
	uint64_t first, second;

	(void)state;
	ok(io_resize(io, 3 * MiB, &e), &e);
	first = sum_of(io, 2);
	ok(io_pwrite(io, "\1", 1, 3 * MiB - 1, &e), &e);
	second = sum_of(io, 2);
	assert_int_not_equal(first, second);
	ok(io_pwrite(io, "\0", 1, 3 * MiB - 1, &e), &e);
	assert_int_equal(sum_of(io, 2), first);
	ok(io_resize(io, 3 * MiB + 512, &e), &e);
	assert_int_not_equal(sum_of(io, 2), first);
	io_close(io);
}

/* A petabyte of nothing takes no time, and no memory. */
static void holes_cost_nothing(void **state)
{
	struct io *file = disk_new("huge");
	struct img *img;

	(void)state;
	disk_create(file, "qcow2", 1024 * TiB, "cluster_size=2M", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(io_pwrite(&img->io, "x", 1, 700 * TiB + 12345, &e), &e);
	assert_int_not_equal(sum_of(&img->io, 2), 0);
	io_close(&img->io);
	io_close(file);
}

static void errors_are_reported(void **state)
{
	struct job job = {0};
	unsigned char out[CHECKSUM_MAX];
	struct fault_plan plan = {.code = EIO};
	struct io *mem = disk_new("disk"), *io;
	bool done = false;

	(void)state;
	ok(io_resize(mem, 9 * MiB, &e), &e);
	fill_disk(mem, 9 * MiB, 5);
	ok(fault_open(mem, false, &plan, &io, &e), &e);
	for (uint64_t n = 1; !done; n++) {
		int r;

		plan.fail_at = n;
		plan.calls = 0;
		r = checksum_run(io, &toy, 3, out, NULL, &e);
		done = plan.calls < n;
		assert_int_equal(r, done ? 0 : -EIO);
	}
	out_of_order = true;
	fails(checksum_run(io, &toy, 2, out, NULL, &e), -EIO, &e, "hash function failed");
	out_of_order = false;
	atomic_store(&job.cancelled, true);
	fails(checksum_run(io, &toy, 2, out, &job, &e), -ECANCELED, &e, "cancelled");
	io_close(io);
	io_close(mem);
}

static void progress_reaches_the_end(void **state)
{
	struct io *io = disk_new("disk");
	unsigned char out[CHECKSUM_MAX];
	struct job job = {0};

	(void)state;
	ok(io_resize(io, 20 * MiB + 512, &e), &e);
	fill_disk(io, 20 * MiB, 3);
	ok(checksum_run(io, &toy, 2, out, &job, &e), &e);
	assert_int_equal(job.done, job.total);
	assert_int_equal(job.total, 20 * MiB + 512);
	io_close(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_as_the_reference),
		cmocka_unit_test(the_form_does_not_matter),
		cmocka_unit_test(one_bit_and_the_size_matter),
		cmocka_unit_test(holes_cost_nothing),
		cmocka_unit_test(errors_are_reported),
		cmocka_unit_test(progress_reaches_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
