// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changing options: what is refused changes no byte; what the header carries survives another
 * version; clusters that a snapshot shares keep their data when zeros are spelled out.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/qcow2.h"
#include "io/window.h"
#include "lib/disk.h"
#include "ops/amend.h"

#define SIZE (2 * MiB)

static struct err e;

static int run(struct img *img, const char *text, unsigned flags, struct job *job)
{
	struct opts opts = {0};
	int r;

	e = (struct err){0};
	ok(opts_parse(&opts, text, &e), &e);
	r = amend(img, &opts, flags, job, &e);
	opts_free(&opts);
	return r;
}

static void check_clean(struct img *img)
{
	struct check_result res;

	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	if (res.corruptions + res.leaks + res.check_errors)
		print_message("check: %d corruptions, %d leaks\n", (int)res.corruptions,
			      (int)res.leaks);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
}

static void write_byte(struct img *img, int byte, uint64_t off, size_t len)
{
	unsigned char buf[65536];

	memset(buf, byte, sizeof(buf));
	ok(io_pwrite(&img->io, buf, len, off, &e), &e);
}

static void assert_byte(struct img *img, int byte, uint64_t off)
{
	unsigned char c;

	ok(io_pread(&img->io, &c, 1, off, &e), &e);
	assert_int_equal(c, byte);
}

/* ---- what is refused ---- */

static void refuse(struct io *file, const char *text, int code, const char *why)
{
	uint64_t before_len, after_len;
	unsigned char *before = disk_bytes(file, &before_len), *after;
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);

	assert_int_equal(run(img, text, 0, NULL), code);
	assert_non_null(strstr(e.msg, why));
	io_close(&img->io);
	after = disk_bytes(file, &after_len);
	assert_int_equal(before_len, after_len);
	assert_memory_equal(before, after, after_len);
	free(before);
	free(after);
}

static void test_refused(void **state)
{
	struct io *file = disk_new("refused.qcow2");
	struct img *img;

	(void)state;
	disk_create(file, "qcow2", SIZE, "lazy_refcounts=on", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	write_byte(img, 1, 0, 512);
	for (int i = 0; i < 4; i++)
		ok(img_snapshot_create(img, "s", NULL, &e), &e);
	io_close(&img->io);
	refuse(file, "refcount_bits=2", -ERANGE, "has a refcount of 5");
	refuse(file, "refcount_bits=2,compat=1.1,size=4M", -ERANGE, "has a refcount of 5");
	refuse(file, "refcount_bits=8,compat=0.10", -EINVAL, "Refcount widths other than 16");
	refuse(file, "size=1M", -EINVAL, "--shrink");
	refuse(file, "compat=0.10,size=4M", -ENOTSUP, "Internal snapshots prevent");
	refuse(file, "refcount_bits=32,backing_file=x", -EINVAL, "Cannot amend the backing file");
	refuse(file, "refcount_bits=32,size=1000", -EINVAL, "--shrink");
	refuse(file, "refcount_bits=32,cluster_size=512", -EINVAL,
	       "only supported for image creation");
	io_close(file);
}

static void test_others(void **state)
{
	struct io *file = disk_new("a.raw");
	struct img *img;

	(void)state;
	ok(io_resize(file, SIZE, &e), &e);
	img = disk_open(file, "raw", IMG_RDWR, NULL);
	assert_int_equal(run(img, "size=4M", 0, NULL), -ENOTSUP);
	assert_string_equal(e.msg, "Format driver 'raw' does not support option amendment");
	io_close(&img->io);
	io_close(file);
	file = disk_new("a.qcow2");
	disk_create(file, "qcow2", SIZE, "", NULL, NULL);
	img = disk_open(file, "qcow2", 0, NULL);
	assert_int_equal(run(img, "size=4M", 0, NULL), -EROFS);
	io_close(&img->io);
	io_close(file);
}

/* A cancelled job, and a device without room: as it was, and good for the next try. */
static void test_stopped(void **state)
{
	struct io *mem = disk_new("device"), *device;
	struct job job = {.cancelled = true};
	struct img *img;

	(void)state;
	ok(io_resize(mem, 1 * MiB, &e), &e);
	ok(window_open(mem, 0, io_size(mem), false, &device, &e), &e);
	disk_create(device, "qcow2", SIZE, "cluster_size=4096", NULL, NULL);
	img = disk_open(device, "qcow2", IMG_RDWR, NULL);
	write_byte(img, 7, 0, 65536);
	ok(io_zero(&img->io, 0, 8192, 0, &e), &e);
	assert_int_equal(run(img, "refcount_bits=32", 0, &job), -ECANCELED);
	assert_int_equal(run(img, "refcount_bits=8", 0, &job), -ECANCELED);
	assert_int_equal(run(img, "compat=0.10", 0, &job), -ECANCELED);
	for (uint64_t at = 65536; at < SIZE; at += 4096)
		if (io_pwrite(&img->io, "full", 4, at, &e) < 0)
			break;
	assert_int_equal(run(img, "refcount_bits=64", 0, NULL), -ENOSPC);
	check_clean(img);
	ok(io_discard(&img->io, 0, SIZE, &e), &e);
	ok(img_settle(img, &e), &e);
	ok(run(img, "refcount_bits=64,lazy_refcounts=on", 0, NULL), &e);
	write_byte(img, 3, 0, 65536);
	ok(img_settle(img, &e), &e);
	check_clean(img);
	io_close(&img->io);
	io_close(device);
	io_close(mem);
}

/* ---- the header ---- */

static void test_header(void **state)
{
	static const char *const versions[] = {"compat=1.1", "compat=0.10", "compat=v3"};
	struct io *file = disk_new("header.qcow2"), *base = disk_new("base");
	char name[QCOW2_MAX_BACKING_NAME + 1];
	struct header h = {0};
	unsigned char *cluster = malloc(65536);
	struct img *img;

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	disk_create(file, "qcow2", SIZE, "compat=0.10", name, "raw");
	ok(header_read(file, &h, &e), &e);
	h.ext = calloc(1, sizeof(*h.ext));
	h.ext[0] = (struct header_ext){.type = 0x12345678, .len = 300, .data = malloc(300)};
	h.n_ext = 1;
	memset(h.ext[0].data, 0x5a, 300);
	ok(header_encode(&h, cluster, &e), &e);
	ok(io_pwrite(file, cluster, 65536, 0, &e), &e);
	for (unsigned i = 0; i < ARRAY_LEN(versions); i++) {
		img = disk_open(file, "qcow2", IMG_RDWR, disk_open(base, "raw", 0, NULL));
		ok(run(img, versions[i], 0, NULL), &e);
		ok(run(img, "size=4M", 0, NULL), &e);
		check_clean(img);
		io_close(&img->io);
		header_free(&h);
		ok(header_read(file, &h, &e), &e);
		assert_int_equal(h.version, i == 1 ? 2 : 3);
		assert_string_equal(h.backing_name, name);
		assert_string_equal(h.backing_format, "raw");
		assert_true(h.has_features == (i != 1));
		assert_int_equal(h.n_ext, 1);
		assert_int_equal(h.ext[0].type, 0x12345678);
		assert_int_equal(h.ext[0].len, 300);
		assert_int_equal(h.ext[0].data[299], 0x5a);
	}
	header_free(&h);
	free(cluster);
	io_close(file);
	io_close(base);
}

/* ---- zeros ---- */

/* An entry of the active disk says zeros, and its cluster is the data of a snapshot. */
static void test_shared_zeros(void **state)
{
	struct io *file = disk_new("zeros.qcow2");
	struct img *img;

	(void)state;
	disk_create(file, "qcow2", SIZE, "", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	write_byte(img, 9, 0, 65536);
	write_byte(img, 8, 65536, 65536);
	ok(img_snapshot_create(img, "s", NULL, &e), &e);
	ok(io_zero(&img->io, 0, 65536, 0, &e), &e);
	ok(io_zero(&img->io, MiB, 65536, 0, &e), &e);
	ok(img_snapshot_create(img, "t", NULL, &e), &e);
	ok(io_zero(&img->io, 65536, 65536, 0, &e), &e);
	ok(run(img, "compat=0.10", 0, NULL), &e);
	check_clean(img);
	assert_byte(img, 0, 0);
	assert_byte(img, 0, 65536);
	ok(img_snapshot_apply(img, 0, &e), &e);
	assert_byte(img, 9, 0);
	assert_byte(img, 8, 65536);
	ok(img_snapshot_apply(img, 1, &e), &e);
	assert_byte(img, 0, 0);
	assert_byte(img, 8, 65536);
	check_clean(img);
	io_close(&img->io);
	io_close(file);
}

/* Many refcount blocks of the narrowest and the widest kind, there and back. */
static void test_widths(void **state)
{
	static const char *const widths[] = {"refcount_bits=64", "refcount_bits=1",
					     "refcount_bits=32", "refcount_bits=4"};
	struct io *file = disk_new("widths.qcow2");
	struct img *img;

	(void)state;
	disk_create(file, "qcow2", 8 * MiB, "cluster_size=512,preallocation=metadata", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	for (uint64_t at = 0; at < 8 * MiB; at += MiB)
		write_byte(img, 5, at, 4096);
	for (unsigned i = 0; i < ARRAY_LEN(widths); i++) {
		struct job job = {0};

		ok(run(img, widths[i], 0, &job), &e);
		assert_true(job.total && job.done >= job.total / 2);
		check_clean(img);
		write_byte(img, 6, 8 * MiB - 65536, 65536);
		ok(img_settle(img, &e), &e);
		check_clean(img);
		for (uint64_t at = 0; at < 8 * MiB; at += MiB)
			assert_byte(img, 5, at);
	}
	io_close(&img->io);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),      cmocka_unit_test(test_others),
		cmocka_unit_test(test_stopped),      cmocka_unit_test(test_header),
		cmocka_unit_test(test_shared_zeros), cmocka_unit_test(test_widths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
