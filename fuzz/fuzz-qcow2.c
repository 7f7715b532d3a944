// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A qcow2 file of any content: open, info, check, map, read, the snapshots and bitmaps; then on copies a
 * repair, after which nothing may be found any more if it said so, and changes of all kinds. An external
 * data file that it names is an empty one, and a small one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/header.h"
#include "image/img.h"
#include "input.h"
#include "ops/bitmap.h"

#define MAX_EXTENTS 2000
#define MAX_READ    (256 * KiB)
#define MAX_VIEWS   4
#define MAX_BITMAPS 4

static void give_data(struct img *img)
{
	struct io *data;

	if (!img->data_name)
		return;
	data = input_file("data", 4, "fuzz.data");
	if (img_set_data_file(img, data, NULL) < 0)
		io_close(data);
}

/* Opens a borrowed file; NULL: refused, and with a text. */
static struct img *open_image(struct io *file, unsigned flags)
{
	struct io *io = input_borrow(file);
	struct err err = {0};
	struct img *img;

	if (img_open_io(io, "qcow2", flags, NULL, &img, &err) == 0) {
		give_data(img);
		return img;
	}
	require(err.msg[0]);
	io_close(io);
	return NULL;
}

/* ---- reading ---- */

static void show_info(struct img *img)
{
	struct img_info info = {0};

	if (img->fmt->info(img, &info, NULL) == 0)
		require(info.specific);
	json_decref(info.specific);
}

/* Along the map, reading some of what is stored. */
static void walk(struct img *img)
{
	uint64_t size = io_size(&img->io), at = 0, read = 0;
	unsigned char *buf = malloc(4096);

	require(buf);
	for (unsigned n = 0; n < MAX_EXTENTS && at < size; n++) {
		struct err err = {0};
		struct extent x;

		if (io_map(&img->io, at, size - at, &x, &err) < 0) {
			require(err.msg[0]);
			at += min_u64(img->unit, size - at);
			continue;
		}
		require(x.off == at && x.len && x.len <= size - at);
		if (read < MAX_READ && x.kind != EXT_ABSENT) {
			if (io_pread(&img->io, buf, min_u64(x.len, 4096), at, &err) < 0)
				require(err.msg[0]);
			read += 4096;
		}
		at += x.len;
	}
	free(buf);
}

static void view_snapshots(struct io *file, unsigned n)
{
	for (unsigned i = 0; i < n && i < MAX_VIEWS; i++) {
		struct img *img = open_image(file, 0);

		if (!img)
			return;
		if (img_snapshot_view(img, i, NULL) == 0)
			walk(img);
		io_close(&img->io);
	}
}

static void look_at_bitmaps(struct img *img)
{
	struct err err = {0};
	uint64_t bytes;
	unsigned n;

	if (img_bitmaps(img, &n, &err) < 0)
		require(err.msg[0]);
	for (unsigned i = 0; i < n && i < MAX_BITMAPS; i++) {
		struct bitmap b;

		img_bitmap_get(img, i, &b);
		require(b.name[0] && b.granularity >= 512);
		if (bitmap_count(img, i, &bytes, &err) == 0)
			require(bytes <= io_size(&img->io));
	}
}

static void read_image(struct io *file)
{
	struct img *img = open_image(file, 0);
	unsigned n;

	if (!img)
		return;
	show_info(img);
	walk(img);
	look_at_bitmaps(img);
	img_snapshots(img, &n);
	io_close(&img->io);
	view_snapshots(file, n);
}

/* ---- checking ---- */

static void ignore_line(void *ctx, const char *text)
{
	(void)ctx;
	require(text[0] && !strchr(text, '\n'));
}

static int check(struct io *file, unsigned fix, struct check_result *res)
{
	static const struct check_sink sink = {.line = ignore_line};
	struct img *img = open_image(file, IMG_FOR_CHECK | (fix ? IMG_RDWR : 0));
	struct err err = {0};
	int r;

	if (!img)
		return -EUCLEAN;
	r = img_check(img, fix, res, &sink, NULL, &err);
	require(r == 0 || err.msg[0]);
	io_close(&img->io);
	return r;
}

/* What says that it mended everything did; an image that is beyond repair may stay so. */
static void repair(struct io *file)
{
	struct check_result first, second;

	if (check(file, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &first) < 0)
		return;
	if (first.corruptions || first.leaks || first.check_errors)
		return;
	require(check(file, 0, &second) == 0);
	require(!second.corruptions && !second.leaks && !second.check_errors);
}

/* ---- changing ---- */

static void change_bitmaps(struct img *img)
{
	char old[BITMAP_NAME_MAX + 1] = "";
	struct bitmap b;
	unsigned n;

	if (img_bitmaps(img, &n, NULL) < 0)
		return;
	if (n) {
		img_bitmap_get(img, 0, &b);
		memcpy(old, b.name, strlen(b.name) + 1);
	}
	bitmap_add(img, "new", 512, true, NULL);
	if (n) {
		bitmap_enable(img, old, true, NULL);
		bitmap_merge(img, "new", img, old, NULL, NULL);
		bitmap_clear(img, old, NULL);
	}
}

static void amend(struct img *img, const char *text)
{
	struct opts opts = {0};
	struct err err = {0};

	require(opts_parse(&opts, text, NULL) == 0);
	if (img_amend(img, &opts, AMEND_SHRINK, NULL, &err) < 0)
		require(err.msg[0]);
	opts_free(&opts);
}

static void change(struct io *file)
{
	struct img *img = open_image(file, IMG_RDWR);
	unsigned char buf[3000];
	uint64_t size;
	unsigned n;

	if (!img)
		return;
	change_bitmaps(img);
	size = io_size(&img->io);
	memset(buf, 0x5a, sizeof(buf));
	for (uint64_t at = 0; at < size && at < 40 * KiB; at += 9 * KiB)
		io_pwrite(&img->io, buf, min_u64(sizeof(buf), size - at), at, NULL);
	io_zero(&img->io, 0, min_u64(size, 4096), IO_ZERO_UNMAP, NULL);
	io_discard(&img->io, 0, min_u64(size, 16 * KiB), NULL);
	io_flush(&img->io, NULL);
	img_snapshot_create(img, "new", NULL, NULL);
	io_pwrite(&img->io, buf, min_u64(sizeof(buf), size), 0, NULL);
	img_snapshots(img, &n);
	if (n > 1)
		img_snapshot_apply(img, 0, NULL);
	if (n > 1)
		img_snapshot_remove(img, 0, NULL);
	if (io_size(&img->io) < 1 * GiB)
		img_resize(img, round_up(io_size(&img->io) + 64 * KiB, 512), PREALLOC_OFF, NULL);
	img_resize(img, 8 * KiB, PREALLOC_OFF, NULL);
	amend(img, "compat=1.1,refcount_bits=64,lazy_refcounts=on,size=16k");
	bitmap_remove(img, "new", NULL);
	amend(img, "compat=0.10,refcount_bits=16,lazy_refcounts=off");
	io_close(&img->io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct io *file = input_file(data, size, "fuzz.qcow2"), *copy;
	struct check_result res;

	read_image(file);
	check(file, 0, &res);
	copy = input_file(data, size, "copy.qcow2");
	change(copy);
	io_close(copy);
	repair(file);
	io_close(file);
	return 0;
}
