// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow2 with an external data file: where things are, what is refused, what the raw flag promises. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/qcow2.h"
#include "io/absent.h"
#include "lib/disk.h"

#define CLUSTER UINT64_C(4096)
#define SIZE    (16 * CLUSTER)

static struct err e;
static struct io *file, *data;
static struct img *img;

static void make(const char *opts)
{
	file = disk_new("disk.qcow2");
	data = disk_new("disk.data");
	disk_create_data(file, data, SIZE, opts);
	img = disk_open_data(file, data, IMG_RDWR, NULL);
}

static void reopen(void)
{
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	img = disk_open_data(file, data, IMG_RDWR, NULL);
}

static void done(void)
{
	struct check_result res;

	ok(img_settle(img, &e), &e);
	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	io_close(&img->io);
	io_close(file);
	io_close(data);
}

static void put(uint64_t off, uint64_t len, int byte)
{
	unsigned char buf[4 * CLUSTER];

	memset(buf, byte, len);
	ok(io_pwrite(&img->io, buf, len, off, &e), &e);
}

static void holds(struct io *io, uint64_t off, uint64_t len, int byte)
{
	unsigned char buf[4 * CLUSTER];

	ok(io_pread(io, buf, len, off, &e), &e);
	for (uint64_t i = 0; i < len; i++)
		assert_int_equal(buf[i], byte);
}

static struct extent extent_at(uint64_t off)
{
	struct extent x;

	ok(io_map(&img->io, off, CLUSTER, &x, &e), &e);
	return x;
}

#define PLAIN "data_file=disk.data,cluster_size=4k"
#define RAW   PLAIN ",data_file_raw=on"

/* Also at offset 0, which elsewhere means nothing. */
static void data_is_at_its_own_offset(void **state)
{
	(void)state;
	make(PLAIN);
	assert_int_equal(io_size(data), SIZE);
	assert_int_equal(extent_at(0).kind, EXT_ABSENT);
	put(100, 50, 7);
	put(5 * CLUSTER, CLUSTER, 8);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(extent_at(0).kind, EXT_DATA);
		assert_int_equal(extent_at(0).host, 0);
		assert_ptr_equal(extent_at(0).io, img->data);
		assert_int_equal(extent_at(5 * CLUSTER + 9).host, 5 * CLUSTER + 9);
		assert_int_equal(extent_at(CLUSTER).kind, EXT_ABSENT);
		holds(data, 100, 50, 7);
		holds(&img->io, 150, CLUSTER - 150, 0);
		holds(data, 5 * CLUSTER, CLUSTER, 8);
		reopen();
	}
	done();
}

/* What the data file held before is not seen, nor after it was discarded. */
static void old_bytes_are_not_seen(void **state)
{
	unsigned char buf[CLUSTER];

	(void)state;
	make(PLAIN);
	memset(buf, 0xee, sizeof(buf));
	ok(io_pwrite(data, buf, CLUSTER, 3 * CLUSTER, &e), &e);
	holds(&img->io, 3 * CLUSTER, CLUSTER, 0);
	put(3 * CLUSTER + 512, 512, 5);
	holds(&img->io, 3 * CLUSTER, 512, 0);
	holds(&img->io, 3 * CLUSTER + 1024, CLUSTER - 1024, 0);
	ok(io_discard(&img->io, 3 * CLUSTER, CLUSTER, &e), &e);
	holds(&img->io, 3 * CLUSTER, CLUSTER, 0);
	done();
}

/* Space is given back when the disk has forgotten it, unless it is in use again by then. */
static void freed_space_is_punched_later(void **state)
{
	(void)state;
	make(PLAIN);
	put(0, 4 * CLUSTER, 9);
	ok(io_flush(&img->io, &e), &e);
	ok(io_discard(&img->io, 0, 4 * CLUSTER, &e), &e);
	holds(data, 0, 4 * CLUSTER, 9);
	put(CLUSTER, CLUSTER, 6);
	ok(io_flush(&img->io, &e), &e);
	holds(data, 0, CLUSTER, 0);
	holds(data, CLUSTER, CLUSTER, 6);
	holds(data, 2 * CLUSTER, 2 * CLUSTER, 0);
	done();
}

static void raw_means_all_is_there(void **state)
{
	(void)state;
	make(RAW);
	assert_int_equal(extent_at(0).kind, EXT_DATA);
	put(0, 4 * CLUSTER, 9);
	ok(io_zero(&img->io, CLUSTER, CLUSTER, 0, &e), &e);
	holds(data, CLUSTER, CLUSTER, 0);
	ok(io_discard(&img->io, 2 * CLUSTER, CLUSTER, &e), &e);
	holds(data, 2 * CLUSTER, CLUSTER, 0);
	ok(io_zero(&img->io, 3 * CLUSTER + 512, 512, IO_ZERO_UNMAP, &e), &e);
	holds(data, 3 * CLUSTER + 512, 512, 0);
	for (uint64_t off = 0; off < SIZE; off += CLUSTER)
		assert_int_equal(extent_at(off).kind, EXT_DATA);
	ok(img_resize(img, 2 * SIZE, PREALLOC_OFF, &e), &e);
	assert_int_equal(io_size(data), 2 * SIZE);
	assert_int_equal(extent_at(2 * SIZE - CLUSTER).kind, EXT_DATA);
	holds(&img->io, 2 * SIZE - CLUSTER, CLUSTER, 0);
	done();
}

/* Autoclear: what we keep up to date stays, what nobody here knows goes with the first write. */
static void raw_flag_stays(void **state)
{
	be64 bits = be64_make(UINT64_C(1) << 40 | AUTOCLEAR_RAW_DATA | AUTOCLEAR_BITMAPS);

	(void)state;
	make(RAW);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	ok(io_pwrite(file, &bits, 8, 88, &e), &e);
	img = disk_open_data(file, data, IMG_RDWR, NULL);
	ok(io_pread(file, &bits, 8, 88, &e), &e);
	assert_true(be64_get(bits) >> 40 & 1);
	put(0, 512, 1);
	ok(io_pread(file, &bits, 8, 88, &e), &e);
	assert_int_equal(be64_get(bits), AUTOCLEAR_RAW_DATA);
	done();
}

/* Without the incompatible bit the flag means nothing. */
static void raw_flag_needs_a_data_file(void **state)
{
	be64 bits = be64_make(AUTOCLEAR_RAW_DATA);

	(void)state;
	file = disk_new("disk.qcow2");
	data = disk_new("unused");
	disk_create(file, "qcow2", SIZE, "", NULL, NULL);
	ok(io_pwrite(file, &bits, 8, 88, &e), &e);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	put(0, 512, 1);
	ok(io_pread(file, &bits, 8, 88, &e), &e);
	assert_int_equal(be64_get(bits), 0);
	fails(img_set_data_file(img, data, &e), -EINVAL, &e, "no external data file");
	done();
}

static void what_is_refused(void **state)
{
	(void)state;
	make(PLAIN);
	fails(img_snapshot_create(img, "s", NULL, &e), -ENOTSUP, &e, "internal snapshots");
	done();
	/* Not opened: places are known, the bytes are not. */
	make(PLAIN);
	put(0, CLUSTER, 1);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	img = disk_open(file, "qcow2", 0, NULL);
	assert_int_equal(extent_at(0).kind, EXT_DATA);
	assert_true(absent_is(extent_at(0).io));
	assert_string_equal(extent_at(0).io->name, "disk.data");
	fails(io_pread(&img->io, &e, 1, 0, &e), -ENOENT, &e, "was not opened");
	io_close(&img->io);
	/* Shorter than the disk, although it should not be. */
	ok(io_resize(data, 100, &e), &e);
	img = disk_open_data(file, data, IMG_RDWR, NULL);
	holds(&img->io, 0, 100, 1);
	holds(&img->io, 100, 100, 0);
	ok(io_resize(data, 0, &e), &e);
	io_close(&img->io);
	img = disk_open_data(file, data, IMG_RDWR, NULL);
	fails(io_pread(&img->io, &e, 1, 0, &e), -EUCLEAN, &e, "disk.data: at offset 0: data of");
	done();
}

static void entry(uint64_t i, uint64_t value)
{
	struct qcow2 *q = qcow2_of(img);
	be64 v = be64_make(value);
	uint64_t l2 = be64_get(q->l1[0]) & ENTRY_OFFSET;

	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	ok(io_pwrite(file, &v, 8, l2 + i * 8, &e), &e);
	img = disk_open_data(file, data, IMG_RDWR, NULL);
}

static void wrong_entries(void **state)
{
	static const struct {
		uint64_t value;
		const char *says;
	} wrong[] = {
		{ENTRY_COPIED | 3 * CLUSTER, "puts guest offset 8192 at offset 12288"},
		{ENTRY_COPIED, "puts guest offset 8192 at offset 0"},
		{ENTRY_COPIED | 3 * CLUSTER | ENTRY_ZERO, "puts guest offset 8192"},
		{ENTRY_COMPRESSED | CLUSTER, "compressed cluster"},
	};
	unsigned char buf[CLUSTER] = {0};
	struct extent x;

	(void)state;
	make(PLAIN);
	put(0, 4 * CLUSTER, 4);
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		entry(2, wrong[i].value);
		fails(io_map(&img->io, 2 * CLUSTER, CLUSTER, &x, &e), -EUCLEAN, &e, wrong[i].says);
		fails(io_pwrite(&img->io, buf, CLUSTER, 2 * CLUSTER, &e), -EUCLEAN, &e,
		      wrong[i].says);
		holds(&img->io, CLUSTER, CLUSTER, 4);
	}
	entry(2, ENTRY_COPIED | 2 * CLUSTER);
	holds(&img->io, 0, 4 * CLUSTER, 4);
	done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_is_at_its_own_offset),
		cmocka_unit_test(old_bytes_are_not_seen),
		cmocka_unit_test(freed_space_is_punched_later),
		cmocka_unit_test(raw_means_all_is_there),
		cmocka_unit_test(raw_flag_stays),
		cmocka_unit_test(raw_flag_needs_a_data_file),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(wrong_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
