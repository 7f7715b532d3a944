// SPDX-License-Identifier: GPL-2.0-or-later
/* The feature name table of qcow2: in new images, in messages, and kept when the header is rewritten. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/qcow2.h"
#include "lib/disk.h"

static struct err e;

/* The first extension of this type: its data in buf, its length, or -1. */
static int find_ext(struct io *file, uint32_t type, unsigned char *buf, size_t room, uint64_t *at)
{
	uint64_t off = 112;

	for (;;) {
		be32 d[2];
		uint32_t len;

		ok(io_pread(file, d, 8, off, &e), &e);
		len = be32_get(d[1]);
		if (be32_get(d[0]) == type) {
			assert_true(len <= room);
			ok(io_pread(file, buf, len, off + 8, &e), &e);
			*at = off + 8;
			return (int)len;
		}
		if (!be32_get(d[0]))
			return -1;
		off += 8 + round_up(len, 8);
	}
}

static void new_images_have_it(void **state)
{
	struct io *file = disk_new("disk.qcow2");
	unsigned char buf[1024];
	uint64_t at;

	(void)state;
	disk_create(file, "qcow2", MiB, "", NULL, NULL);
	assert_int_equal(find_ext(file, EXT_TYPE_FEATURES, buf, sizeof(buf), &at), 8 * 48);
	assert_memory_equal(buf, "\0\0dirty bit", 12);
	assert_memory_equal(buf + 2 * 48, "\0\2external data file", 21);
	assert_memory_equal(buf + 7 * 48, "\2\1raw external data", 20);
	io_close(file);
	/* Where the peer leaves it out: there is no room for it beside a long name. */
	file = disk_new("disk.qcow2");
	disk_create(file, "qcow2", MiB, "cluster_size=4k", NULL, NULL);
	assert_int_equal(find_ext(file, EXT_TYPE_FEATURES, buf, sizeof(buf), &at), -1);
	io_close(file);
}

static void open_fails(struct io *file, uint64_t incompatible, const char *says)
{
	be64 bits = be64_make(incompatible);
	struct img *img;

	ok(io_pwrite(file, &bits, 8, 72, &e), &e);
	fails(img_open_io(file, "qcow2", 0, NULL, &img, &e), -ENOTSUP, &e, says);
}

static void unknown_features_are_named(void **state)
{
	struct io *file = disk_new("disk.qcow2");
	unsigned char buf[1024];
	uint64_t at;

	(void)state;
	disk_create(file, "qcow2", MiB, "", NULL, NULL);
	assert_true(find_ext(file, EXT_TYPE_FEATURES, buf, sizeof(buf), &at) > 0);
	/* "dirty bit" becomes the name of bit 60, "lazy refcounts" of the compatible bit 61. */
	ok(io_pwrite(file, "\0\x3cshiny things", 15, at, &e), &e);
	ok(io_pwrite(file, "\1\x3d", 2, at + UINT64_C(5) * 48, &e), &e);
	open_fails(file, UINT64_C(1) << 60, "Unsupported qcow2 feature(s): shiny things");
	open_fails(file, UINT64_C(3) << 60,
		   "shiny things, Unknown incompatible feature: 2000000000000000");
	/* A name without an end, and one of control characters, do no harm. */
	memset(buf, 'x', 48);
	buf[0] = 0;
	buf[1] = 60;
	ok(io_pwrite(file, buf, 48, at, &e), &e);
	open_fails(file, UINT64_C(1) << 60, "xxxxxxxxxx");
	assert_int_equal(strlen(strstr(e.msg, "xx")), 46);
	io_close(file);
}

static void names_are_kept(void **state)
{
	struct io *file = disk_new("disk.qcow2");
	unsigned char before[1024], after[1024];
	be64 compatible = be64_make(UINT64_C(1) << 61);
	struct img *img;
	uint64_t at;
	int len;

	(void)state;
	disk_create(file, "qcow2", MiB, "", NULL, NULL);
	assert_true(find_ext(file, EXT_TYPE_FEATURES, before, sizeof(before), &at) > 0);
	ok(io_pwrite(file, "\1\x3dnobody knows", 15, at + UINT64_C(5) * 48, &e), &e);
	ok(io_pwrite(file, &compatible, 8, 80, &e), &e);
	len = find_ext(file, EXT_TYPE_FEATURES, before, sizeof(before), &at);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(io_pwrite(&img->io, "data", 4, 0, &e), &e);
	ok(img_settle(img, &e), &e);
	ok(qcow2_replace_header(qcow2_of(img), &e), &e);
	io_close(&img->io);
	assert_int_equal(find_ext(file, EXT_TYPE_FEATURES, after, sizeof(after), &at), len);
	assert_memory_equal(before, after, (size_t)len);
	ok(io_pread(file, &compatible, 8, 80, &e), &e);
	assert_true(be64_get(compatible) >> 61 & 1);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_images_have_it),
		cmocka_unit_test(unknown_features_are_named),
		cmocka_unit_test(names_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
