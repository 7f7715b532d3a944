// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Exports: which bytes they are of, what they say that they can do, and the states of their bytes
 * in each context (interop/serve-status.py asks the peer).
 */
#include "unit.h"

#include <errno.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "nbd-server/export.h"
#include "ops/bitmap.h"

#define CLUSTER (64 * KiB)
#define SIZE    (2 * MiB)

static struct err e;

/* ---- images ---- */

/* Clusters by the letters: D data, Z zeros, C coded, others nothing. */
static enum fill by_letter(void *ctx, uint64_t cluster)
{
	const char *letters = ctx;

	switch (cluster < strlen(letters) ? letters[cluster] : ' ') {
	case 'D':
		return FILL_DATA;
	case 'Z':
		return FILL_ZERO;
	case 'C':
		return FILL_CODED;
	default:
		return FILL_NONE;
	}
}

static struct io *qcow2(const char *letters, uint64_t size)
{
	struct io *file = disk_new("disk.qcow2");
	unsigned char *data = calloc(1, size);

	assert_non_null(data);
	for (uint64_t i = 0; i < size; i++) {
		if (by_letter((void *)(uintptr_t)letters, i / CLUSTER) >= FILL_DATA)
			data[i] = (unsigned char)(i >> 12 | 1);
	}
	disk_fill(file, "qcow2",
		  &(struct fill_args){.size = size,
				      .opts = "cluster_size=64k",
				      .data = data,
				      .kind = by_letter,
				      .ctx = (void *)(uintptr_t)letters});
	free(data);
	return file;
}

static struct nbd_export *export_of(struct img *img, const struct export_args *args)
{
	struct nbd_export *x;

	ok(export_open(img, args, &x, &e), &e);
	return x;
}

/* ---- states as text ---- */

static const struct export_context *context(const struct nbd_export *x, const char *name)
{
	for (unsigned i = 0; i < x->n_contexts; i++) {
		if (strcmp(x->context[i].name, name) == 0)
			return &x->context[i];
	}
	fail_msg("there is no context %s", name);
	return NULL;
}

/* "0+2 3+30": flags and length in units, of the whole export, asked for with room for max. */
static const char *states(struct nbd_export *x, const char *name, uint64_t unit, unsigned max)
{
	const struct export_context *c = context(x, name);
	struct export_extent v[64], last = {0};
	static char text[1024];
	size_t n = 0;

	text[0] = '\0';
	for (uint64_t off = 0; off < io_size(x->io);) {
		unsigned got;

		ok(export_status(x, c, off, io_size(x->io) - off, v, max, &got, &e), &e);
		assert_in_range(got, 1, max);
		for (unsigned i = 0; i < got; i++) {
			assert_true(v[i].len > 0 && v[i].len <= io_size(x->io) - off);
			assert_true(i == 0 || v[i].flags != v[i - 1].flags);
			off += v[i].len;
			if (last.len && last.flags == v[i].flags) {
				last.len += v[i].len;
				continue;
			}
			if (last.len)
				n += (size_t)snprintf(text + n, sizeof(text) - n, "%d+%d ",
						      (int)last.flags, (int)(last.len / unit));
			last = v[i];
		}
	}
	snprintf(text + n, sizeof(text) - n, "%d+%d", (int)last.flags, (int)(last.len / unit));
	return text;
}

static void are(struct nbd_export *x, const char *name, uint64_t unit, const char *expected)
{
	assert_string_equal(states(x, name, unit, 64), expected);
	assert_string_equal(states(x, name, unit, 2), expected);
	assert_string_equal(states(x, name, unit, 1), expected);
}

/* ---- tests ---- */

static void what_can_be_done(void **state)
{
	const unsigned both = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			      NBD_FLAG_SEND_DF | NBD_FLAG_SEND_CACHE | NBD_FLAG_BLOCK_STAT_PAYLOAD;
	const unsigned writable =
		NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	struct io *file = qcow2("D", SIZE);
	struct nbd_export *x;

	(void)state;
	x = export_of(disk_open(file, "qcow2", IMG_RDWR, NULL), &(struct export_args){0});
	assert_int_equal(x->flags, both | writable | NBD_FLAG_CAN_MULTI_CONN);
	assert_string_equal(x->name, "");
	assert_null(x->description);
	assert_int_equal(x->min_block, 1);
	assert_int_equal(x->preferred_block, 4096);
	assert_int_equal(x->max_block, 32 * MiB);
	assert_int_equal(io_size(x->io), SIZE);
	ok(export_settle(x, &e), &e);
	export_close(x);
	x = export_of(disk_open(file, "qcow2", 0, NULL),
		      &(struct export_args){.name = "n", .description = "d", .max_clients = 1});
	assert_int_equal(x->flags, both | NBD_FLAG_READ_ONLY);
	assert_string_equal(x->name, "n");
	assert_string_equal(x->description, "d");
	assert_int_equal(x->max_clients, 1);
	ok(export_settle(x, &e), &e);
	export_close(x);
	io_close(file);
}

static void parts_of_a_disk(void **state)
{
	struct io *file = qcow2("D D", SIZE);
	struct nbd_export *x;
	struct img *img;

	(void)state;
	x = export_of(disk_open(file, "qcow2", 0, NULL), &(struct export_args){.offset = CLUSTER});
	assert_int_equal(io_size(x->io), SIZE - CLUSTER);
	are(x, "base:allocation", CLUSTER, "3+1 0+1 3+29");
	export_close(x);
	x = export_of(disk_open(file, "qcow2", 0, NULL),
		      &(struct export_args){.offset = 3 * CLUSTER / 2, .size = CLUSTER});
	are(x, "base:allocation", CLUSTER / 2, "3+1 0+1");
	export_close(x);
	x = export_of(disk_open(file, "qcow2", 0, NULL), &(struct export_args){.offset = SIZE});
	assert_int_equal(io_size(x->io), 0);
	export_close(x);
	img = disk_open(file, "qcow2", 0, NULL);
	fails(export_open(img, &(struct export_args){.offset = SIZE + 1}, &x, &e), -EINVAL, &e,
	      "offset 2097153 is past the end (size 2097152)");
	fails(export_open(img, &(struct export_args){.offset = 1, .size = SIZE}, &x, &e), -EINVAL,
	      &e, "2097152 bytes at offset 1");
	fails(export_open(img, &(struct export_args){.size = UINT64_MAX}, &x, &e), -EINVAL, &e,
	      "past the end");
	fails(export_open(img, &(struct export_args){.partition = 1}, &x, &e), -ENOENT, &e,
	      "no partition table");
	io_close(&img->io);
	io_close(file);
}

/* A partition of a disk in an image: what lies around it cannot be reached. */
static void a_partition(void **state)
{
	struct io *file = qcow2("", SIZE);
	unsigned char mbr[512] = {[446 + 4] = 0x83, [510] = 0x55, [511] = 0xaa};
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	struct nbd_export *x;

	(void)state;
	mbr[446 + 8] = 128;    /* first sector */
	mbr[446 + 12 + 1] = 2; /* 512 of them */
	ok(io_pwrite(&img->io, mbr, sizeof(mbr), 0, &e), &e);
	x = export_of(img, &(struct export_args){.partition = 1, .offset = CLUSTER});
	assert_int_equal(x->start, 2 * CLUSTER);
	assert_int_equal(io_size(x->io), 3 * CLUSTER);
	ok(io_pwrite(x->io, "x", 1, 0, &e), &e);
	fails(io_pwrite(x->io, "x", 1, 3 * CLUSTER, &e), -ENOSPC, &e, "past the end");
	are(x, "base:allocation", CLUSTER, "0+1 3+2");
	ok(export_settle(x, &e), &e);
	export_close(x);
	io_close(file);
}

static void allocation_and_depth(void **state)
{
	const struct export_args args = {.allocation_depth = true};
	struct io *base = qcow2("DDDDZZ", SIZE), *top = qcow2(" DZC Z", 2 * SIZE);
	struct img *below = disk_open(base, "qcow2", 0, NULL);
	struct nbd_export *x = export_of(disk_open(top, "qcow2", 0, below), &args);

	(void)state;
	are(x, "base:allocation", CLUSTER, "0+2 3+1 0+1 3+60");
	/* Behind the end of the backing file, its zeros. */
	are(x, "qemu:allocation-depth", CLUSTER, "2+1 1+3 2+1 1+1 0+26 2+32");
	export_close(x);
	io_close(top);
	x = export_of(disk_open(base, "raw", 0, NULL), &args);
	are(x, "qemu:allocation-depth", io_size(base), "1+1");
	export_close(x);
	io_close(base);
}

static void the_end_of_a_range(void **state)
{
	struct io *file = qcow2("D D D", SIZE);
	struct nbd_export *x =
		export_of(disk_open(file, "qcow2", 0, NULL), &(struct export_args){0});
	struct export_extent v[8];
	unsigned n;

	(void)state;
	ok(export_status(x, &x->context[0], CLUSTER - 1, 3, v, 8, &n, &e), &e);
	assert_int_equal(n, 2);
	assert_true(v[0].len == 1 && v[0].flags == 0 && v[1].len == 2 && v[1].flags == 3);
	ok(export_status(x, &x->context[0], SIZE - 1, 1, v, 8, &n, &e), &e);
	assert_true(n == 1 && v[0].len == 1 && v[0].flags == 3);
	export_close(x);
	io_close(file);
}

/* Bits at the edges of bytes and of the pieces that are read. */
static void dirty_bitmaps(void **state)
{
	static const char *const names[] = {"a", "b"};
	const uint64_t size = 64 * MiB, piece = 4096 * 8;
	const struct export_args args = {.bitmaps = names, .n_bitmaps = 2};
	struct io *file = disk_new("disk.qcow2");
	struct nbd_export *x;
	struct img *img;
	unsigned i;

	(void)state;
	disk_create(file, "qcow2", size + 512, NULL, NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(bitmap_add(img, "b", 512, false, &e), &e);
	ok(bitmap_add(img, "a", 64 * KiB, true, &e), &e);
	ok(bitmap_find(img, "b", &i, &e), &e);
	ok(img_bitmap_set(img, i, 512 * 7, 512 * 2, &e), &e);
	ok(img_bitmap_set(img, i, 512 * (piece - 1), 512 * 2, &e), &e);
	ok(img_bitmap_set(img, i, size, 512, &e), &e);
	x = export_of(img, &args);
	are(x, "qemu:dirty-bitmap:b", 512, "0+7 1+2 0+32758 1+2 0+98303 1+1");
	are(x, "qemu:dirty-bitmap:a", 512, "0+131073");
	/* An enabled one follows what clients write. */
	ok(io_pwrite(x->io, "x", 1, 128 * KiB, &e), &e);
	are(x, "qemu:dirty-bitmap:a", 64 * KiB, "0+2 1+1 0+1021");
	ok(export_settle(x, &e), &e);
	export_close(x);
	/* A part of the disk sees its part of the bits. */
	x = export_of(disk_open(file, "qcow2", 0, NULL),
		      &(struct export_args){.bitmaps = names + 1, .n_bitmaps = 1, .offset = 256});
	are(x, "qemu:dirty-bitmap:b", 256, "0+13 1+4 0+65516 1+4 0+196606 1+2");
	export_close(x);
	io_close(file);
}

static void bitmaps_below(void **state)
{
	static const char *const names[] = {"b", "c"}, *const twice[] = {"b", "b"};
	struct io *base = qcow2("", SIZE), *top = qcow2("", 2 * SIZE);
	struct img *img = disk_open(base, "qcow2", IMG_RDWR, NULL);
	struct nbd_export *x;
	unsigned i;

	(void)state;
	ok(bitmap_add(img, "b", CLUSTER, true, &e), &e);
	ok(bitmap_find(img, "b", &i, &e), &e);
	ok(img_bitmap_set(img, i, SIZE - CLUSTER, CLUSTER, &e), &e);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	img = disk_open(top, "qcow2", 0, disk_open(base, "qcow2", 0, NULL));
	fails(export_open(img, &(struct export_args){.bitmaps = names, .n_bitmaps = 2}, &x, &e),
	      -ENOENT, &e, "Bitmap 'c' is not found");
	fails(export_open(img, &(struct export_args){.bitmaps = names, .n_bitmaps = 63}, &x, &e),
	      -EINVAL, &e, "62 bitmaps");
	fails(export_open(img, &(struct export_args){.bitmaps = twice, .n_bitmaps = 2}, &x, &e),
	      -EINVAL, &e, "named twice");
	x = export_of(img, &(struct export_args){.bitmaps = names, .n_bitmaps = 1});
	are(x, "qemu:dirty-bitmap:b", CLUSTER, "0+31 1+1 0+32");
	export_close(x);
	io_close(top);
	io_close(base);
}

static void void_bitmaps(void **state)
{
	static const char *const name = "b";
	struct io *file = qcow2("", SIZE), *crashed;
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	struct nbd_export *x;

	(void)state;
	ok(bitmap_add(img, name, 0, true, &e), &e);
	ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
	ok(io_flush(&img->io, &e), &e);
	crashed = disk_copy(file, "crashed.qcow2");
	io_close(&img->io);
	img = disk_open(crashed, "qcow2", 0, NULL);
	fails(export_open(img, &(struct export_args){.bitmaps = &name, .n_bitmaps = 1}, &x, &e),
	      -ESTALE, &e, "inconsistent");
	io_close(&img->io);
	io_close(crashed);
	io_close(file);
}

static void long_texts(void **state)
{
	static char text[NBD_MAX_STRING + 2];
	struct io *file = qcow2("", SIZE);
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	struct nbd_export *x;

	(void)state;
	memset(text, 'n', NBD_MAX_STRING + 1);
	fails(export_open(img, &(struct export_args){.name = text}, &x, &e), -EINVAL, &e,
	      "The name of an export is longer than 4096 bytes");
	fails(export_open(img, &(struct export_args){.description = text}, &x, &e), -EINVAL, &e,
	      "The description");
	x = export_of(img, &(struct export_args){.name = text + 1, .description = text + 1});
	export_close(x);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_can_be_done),   cmocka_unit_test(parts_of_a_disk),
		cmocka_unit_test(a_partition),        cmocka_unit_test(allocation_and_depth),
		cmocka_unit_test(the_end_of_a_range), cmocka_unit_test(dirty_bitmaps),
		cmocka_unit_test(bitmaps_below),      cmocka_unit_test(void_bitmaps),
		cmocka_unit_test(long_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
