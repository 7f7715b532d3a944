// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Persistent bitmaps of qcow2 images: what sets their bits, what is on the disk before and after
 * they are stored, and directories and tables that make no sense.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/bitmap.h"
#include "lib/disk.h"
#include "ops/bitmap.h"
#include "ops/snapshot.h"

#define SIZE (UINT64_C(8) << 20)

static struct err e;

static struct img *open_rw(struct io *file)
{
	return disk_open(file, "qcow2", IMG_RDWR | IMG_NO_BACKING, NULL);
}

/* A disk of SIZE with the enabled bitmap "b" of 4 KiB. */
static struct io *new_disk(const char *opts)
{
	struct io *file = disk_new("disk.qcow2");
	struct img *img;

	disk_create(file, "qcow2", SIZE, opts, NULL, NULL);
	img = open_rw(file);
	ok(bitmap_add(img, "b", 4096, true, &e), &e);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	return file;
}

static void close_settled(struct img *img)
{
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
}

static uint64_t dirty(struct img *img, const char *name)
{
	uint64_t bytes;
	unsigned i;

	ok(bitmap_find(img, name, &i, &e), &e);
	ok(bitmap_count(img, i, &bytes, &e), &e);
	return bytes;
}

static bool is_dirty(struct img *img, const char *name, uint64_t off)
{
	struct bitmap b;
	unsigned char byte;
	unsigned i;

	ok(bitmap_find(img, name, &i, &e), &e);
	img_bitmap_get(img, i, &b);
	ok(img_bitmap_read(img, i, off / b.granularity / 8, &byte, 1, &e), &e);
	return byte >> (off / b.granularity % 8) & 1;
}

static bool inconsistent(struct io *file, const char *name)
{
	struct img *img = disk_open(file, "qcow2", IMG_NO_BACKING, NULL);
	struct bitmap b;
	unsigned i;

	ok(bitmap_find(img, name, &i, &e), &e);
	img_bitmap_get(img, i, &b);
	io_close(&img->io);
	return b.inconsistent;
}

static void assert_sound(struct io *file)
{
	struct img *img = disk_open(file, "qcow2", IMG_NO_BACKING, NULL);
	struct check_result res;

	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	assert_int_equal(res.corruptions + res.check_errors + res.leaks, 0);
	io_close(&img->io);
}

static const char *const kinds[] = {
	"cluster_size=64k",
	"cluster_size=512",
	"cluster_size=4k,lazy_refcounts=on",
	"cluster_size=2M,refcount_bits=1",
};

static void writes_zeroes_and_discards_set_bits(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct io *file = new_disk(kinds[i]);
		struct img *img = open_rw(file);

		ok(bitmap_add(img, "off", 0, false, &e), &e);
		ok(io_pwrite(&img->io, "x", 1, 4096 * 5 - 1, &e), &e);
		ok(io_pwrite(&img->io, "xx", 2, 4096 * 9 - 1, &e), &e);
		ok(io_zero(&img->io, 4096 * 20, 4096 * 3 + 1, IO_ZERO_UNMAP, &e), &e);
		ok(io_discard(&img->io, SIZE - 8192, 8192, &e), &e);
		close_settled(img);
		assert_sound(file);
		img = open_rw(file);
		assert_int_equal(dirty(img, "b"), 4096 * (1 + 2 + 4 + 2));
		assert_true(is_dirty(img, "b", 4096 * 4));
		assert_true(is_dirty(img, "b", 4096 * 8));
		assert_true(is_dirty(img, "b", 4096 * 9));
		assert_true(is_dirty(img, "b", 4096 * 23));
		assert_true(is_dirty(img, "b", SIZE - 1));
		assert_int_equal(dirty(img, "off"), 0);
		/* Enabled, it follows; disabled again, it stays. */
		ok(bitmap_enable(img, "off", true, &e), &e);
		ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
		ok(bitmap_enable(img, "off", false, &e), &e);
		ok(io_pwrite(&img->io, "x", 1, SIZE / 2, &e), &e);
		close_settled(img);
		img = open_rw(file);
		assert_true(is_dirty(img, "off", 0));
		assert_false(is_dirty(img, "off", SIZE / 2));
		assert_true(is_dirty(img, "b", SIZE / 2));
		close_settled(img);
		assert_sound(file);
		io_close(file);
	}
}

/* What the file is like if the power is cut now. */
static struct io *cut_power(struct io *file)
{
	return disk_copy(file, "cut.qcow2");
}

static void assert_sound_now(struct io *file)
{
	struct io *cut = cut_power(file);

	assert_sound(cut);
	io_close(cut);
}

static void in_use_until_stored(void **state)
{
	struct io *file = new_disk("cluster_size=4k"), *cut;
	struct img *img = open_rw(file);
	unsigned i;
	(void)state;

	assert_false(inconsistent(file, "b"));
	ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
	cut = cut_power(file);
	assert_true(inconsistent(cut, "b"));
	ok(img_settle(img, &e), &e);
	assert_false(inconsistent(file, "b"));
	/* Once more: settled images are written to again. */
	ok(io_pwrite(&img->io, "x", 1, 4096, &e), &e);
	assert_true(inconsistent(file, "b"));
	close_settled(img);
	assert_false(inconsistent(file, "b"));
	io_close(file);

	/* Void, but no corruption; it can be removed and nothing else. */
	assert_sound(cut);
	img = open_rw(cut);
	fails(bitmap_clear(img, "b", &e), -ESTALE, &e, "Bitmap 'b' is inconsistent");
	fails(bitmap_enable(img, "b", false, &e), -ESTALE, &e, "inconsistent");
	fails(img_resize(img, 2 * SIZE, PREALLOC_OFF, &e), -ESTALE, &e, "inconsistent");
	ok(bitmap_find(img, "b", &i, &e), &e);
	ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
	ok(img_settle(img, &e), &e);
	assert_true(inconsistent(cut, "b"));
	ok(bitmap_remove(img, "b", &e), &e);
	fails(bitmap_find(img, "b", &i, &e), -ENOENT, &e, "Dirty bitmap 'b' not found");
	close_settled(img);
	assert_sound(cut);
	io_close(cut);
}

static void add_and_remove(void **state)
{
	static const char *const names[] = {"one", "two", "three", "four"};
	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		struct io *file = new_disk(kinds[k]);
		struct img *img = open_rw(file);
		unsigned n;

		ok(io_pwrite(&img->io, "x", 1, SIZE / 2, &e), &e);
		for (size_t i = 0; i < ARRAY_LEN(names); i++)
			ok(bitmap_add(img, names[i], UINT64_C(512) << (6 * i), i & 1, &e), &e);
		fails(bitmap_add(img, "two", 0, true, &e), -EEXIST, &e,
		      "Bitmap already exists: two");
		assert_true(is_dirty(img, "b", SIZE / 2));
		assert_false(is_dirty(img, "two", SIZE / 2));
		ok(io_pwrite(&img->io, "x", 1, SIZE / 4, &e), &e);
		ok(bitmap_remove(img, "two", &e), &e);
		ok(bitmap_remove(img, "b", &e), &e);
		close_settled(img);
		assert_sound(file);
		img = open_rw(file);
		ok(img_bitmaps(img, &n, &e), &e);
		assert_int_equal(n, 3);
		assert_true(is_dirty(img, "four", SIZE / 4));
		assert_false(is_dirty(img, "one", SIZE / 4));
		ok(bitmap_remove(img, "one", &e), &e);
		ok(bitmap_remove(img, "four", &e), &e);
		ok(bitmap_remove(img, "three", &e), &e);
		close_settled(img);
		assert_sound(file);
		io_close(file);
	}
}

static void merge_and_clear(void **state)
{
	struct io *file = new_disk("cluster_size=512");
	struct img *img = open_rw(file);
	struct job job = {0};
	(void)state;

	ok(bitmap_add(img, "fine", 512, true, &e), &e);
	ok(bitmap_add(img, "coarse", 1 * MiB, false, &e), &e);
	for (uint64_t off = 0; off < SIZE; off += SIZE / 64)
		ok(io_zero(&img->io, off + 512, 512, 0, &e), &e);
	assert_int_equal(dirty(img, "fine"), 64 * 512);
	ok(bitmap_merge(img, "coarse", img, "fine", NULL, &e), &e);
	assert_int_equal(dirty(img, "coarse"), SIZE);
	ok(bitmap_clear(img, "fine", &e), &e);
	assert_int_equal(dirty(img, "fine"), 0);
	ok(bitmap_merge(img, "fine", img, "b", &job, &e), &e);
	assert_int_equal(dirty(img, "fine"), 64 * 4096);
	ok(bitmap_clear(img, "b", &e), &e);
	/* Its clusters are free only when the table on disk has forgotten them. */
	ok(bitmap_add(img, "more", 512, true, &e), &e);
	assert_sound_now(file);
	close_settled(img);
	assert_sound(file);
	img = open_rw(file);
	assert_int_equal(dirty(img, "b"), 0);
	assert_int_equal(dirty(img, "fine"), 64 * 4096);
	assert_int_equal(job.done, SIZE);
	job.cancelled = true;
	fails(bitmap_merge(img, "fine", img, "more", &job, &e), -ECANCELED, &e, "cancelled");
	fails(bitmap_merge(img, "b", img, "none", NULL, &e), -ENOENT, &e, "'none' not found");
	close_settled(img);
	io_close(file);
}

static void resize_keeps_what_stays(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct io *file = new_disk(kinds[i]);
		struct img *img = open_rw(file);

		ok(bitmap_add(img, "off", 512, false, &e), &e);
		ok(bitmap_merge(img, "off", img, "b", NULL, &e), &e);
		ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
		ok(io_pwrite(&img->io, "x", 1, SIZE - 1, &e), &e);
		ok(img_resize(img, 5 * SIZE + 512, PREALLOC_OFF, &e), &e);
		assert_true(inconsistent(file, "off"));
		assert_int_equal(dirty(img, "b"), 8192);
		ok(io_pwrite(&img->io, "x", 1, 5 * SIZE, &e), &e);
		assert_int_equal(dirty(img, "b"), 8192 + 512);
		close_settled(img);
		assert_sound(file);
		img = open_rw(file);
		assert_int_equal(dirty(img, "b"), 8192 + 512);
		ok(img_resize(img, SIZE - 1024, PREALLOC_OFF, &e), &e);
		assert_int_equal(dirty(img, "b"), 4096 + 3072);
		ok(img_resize(img, SIZE - 4096, PREALLOC_OFF, &e), &e);
		ok(img_resize(img, 2 * SIZE, PREALLOC_OFF, &e), &e);
		assert_int_equal(dirty(img, "b"), 4096);
		close_settled(img);
		assert_sound(file);
		img = open_rw(file);
		assert_int_equal(dirty(img, "b"), 4096);
		fails(img_resize(img, 0, PREALLOC_OFF, &e), -EINVAL, &e, "0 bytes");
		close_settled(img);
		io_close(file);
	}
}

/* What is in memory is bounded: clusters of bits are written ahead, and read again. */
static void bits_are_written_ahead(void **state)
{
	struct io *file = new_disk("cluster_size=512");
	struct img *img = open_rw(file);
	struct qcow2_bitmaps *m;
	(void)state;

	ok(bitmap_add(img, "fine", 512, true, &e), &e);
	m = qcow2_of(img)->bitmaps;
	m->bit_budget = 1024;
	for (uint64_t round = 0; round < 2; round++) {
		for (uint64_t off = 0; off < SIZE; off += SIZE / 256) {
			ok(io_zero(&img->io, off + round * 1024, 512, 0, &e), &e);
			assert_in_range(m->bit_memory, 0, 1024);
		}
	}
	assert_int_equal(dirty(img, "fine"), 2 * 256 * 512);
	assert_sound_now(file);
	assert_true(inconsistent(file, "fine"));
	close_settled(img);
	assert_sound(file);
	img = open_rw(file);
	assert_int_equal(dirty(img, "fine"), 2 * 256 * 512);
	io_close(&img->io);
	io_close(file);
}

static void snapshots_beside_bitmaps(void **state)
{
	struct io *file = new_disk("cluster_size=4k");
	struct img *img = open_rw(file);
	(void)state;

	ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
	ok(snapshot_take(img, "s", &e), &e);
	ok(io_pwrite(&img->io, "y", 1, 8192, &e), &e);
	fails(img_snapshot_apply(img, 0, &e), -EBUSY, &e, "Device has active dirty bitmaps");
	ok(img_snapshot_remove(img, 0, &e), &e);
	assert_int_equal(dirty(img, "b"), 8192);
	close_settled(img);
	assert_sound(file);
	img = open_rw(file);
	assert_int_equal(dirty(img, "b"), 8192);
	io_close(&img->io);
	io_close(file);
}

/* ---- what makes no sense ---- */

static uint64_t get64(struct io *file, uint64_t at)
{
	be64 v;

	ok(io_pread(file, &v, sizeof(v), at, &e), &e);
	return be64_get(v);
}

/* The header extension's data: the first in the file that we make. */
static uint64_t find_ext(struct io *file)
{
	unsigned char head[512];

	ok(io_pread(file, head, sizeof(head), 0, &e), &e);
	for (size_t i = 104; i + 8 <= sizeof(head); i += 8)
		if (!memcmp(head + i, "\x23\x85\x28\x75", 4))
			return i + 8;
	fail_msg("no bitmaps extension");
	return 0;
}

enum where { EXT, DIRECTORY, TABLE };

static const struct {
	enum where where;
	unsigned at, len;
	const char *bytes, *text;
} damages[] = {
	{EXT, 0, 4, "\0\0\0\0", "invalid number of bitmaps"},
	{EXT, 0, 4, "\0\1\0\0", "invalid number of bitmaps"},
	{EXT, 0, 4, "\0\0\0\2", "too short for its bitmaps"},
	{EXT, 4, 4, "\0\0\0\1", "reserved field"},
	{EXT, 8, 4, "\1\0\0\0", "invalid place or size"},
	{EXT, 14, 2, "\0\x28", "more bitmaps than"},
	{EXT, 16, 4, "\x7f\0\0\0", "too short for its bitmaps"},
	{EXT, 16, 4, "\xff\xff\xff\xff", "invalid place or size"},
	{EXT, 23, 1, "\1", "invalid place or size"},
	{DIRECTORY, 7, 1, "\1", "invalid offset of a bitmap table"},
	{DIRECTORY, 0, 8, "\0\0\0\0\0\0\0\0", "invalid offset of a bitmap table"},
	{DIRECTORY, 8, 4, "\0\0\0\0", "invalid size of a bitmap table"},
	{DIRECTORY, 8, 4, "\xff\0\0\0", "invalid size of a bitmap table"},
	{DIRECTORY, 12, 4, "\0\0\0\x08", "unknown flags or type"},
	{DIRECTORY, 16, 1, "\2", "unknown flags or type"},
	{DIRECTORY, 17, 1, "\x08", "invalid granularity"},
	{DIRECTORY, 17, 1, "\x20", "invalid granularity"},
	{DIRECTORY, 17, 1, "\x09", NULL}, /* twice the bits still fit the cluster: another bitmap */
	{DIRECTORY, 18, 2, "\4\0", "too short for its bitmaps"},
	{DIRECTORY, 18, 2, "\0\0", "bitmap without a name"},
	{DIRECTORY, 18, 2, "\0\2", "zero byte"},
	{DIRECTORY, 25, 1, "x", "padding"},
	{DIRECTORY, 20, 4, "\xff\xff\xff\xff", "too short for its bitmaps"},
	{TABLE, 0, 1, "\1", "table of bitmap 'b' is invalid"},
	{TABLE, 7, 1, "\2", "table of bitmap 'b' is invalid"},
	{TABLE, 7, 1, "\1", "table of bitmap 'b' is invalid"},
	{TABLE, 1, 1, "\x7f", "table of bitmap 'b' is invalid"},
};

static int look(struct img *img)
{
	unsigned n;
	uint64_t bytes;
	int r = img_bitmaps(img, &n, &e);

	for (unsigned i = 0; r == 0 && i < n; i++)
		r = bitmap_count(img, i, &bytes, &e);
	return r;
}

static void damage_is_told(void **state)
{
	struct io *sound = new_disk("cluster_size=4k");
	struct img *img = open_rw(sound);
	(void)state;

	ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
	close_settled(img);
	for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
		struct io *file = disk_copy(sound, "damaged.qcow2");
		uint64_t at = find_ext(file), before;

		if (damages[i].where >= DIRECTORY)
			at = get64(file, at + 16);
		if (damages[i].where == TABLE)
			at = get64(file, at);
		ok(io_pwrite(file, damages[i].bytes, damages[i].len, at + damages[i].at, &e), &e);
		before = io_size(file);
		img = open_rw(file);
		if (damages[i].text) {
			fails(look(img), -EUCLEAN, &e, damages[i].text);
			/* Nothing is written that the bitmap would have to follow. */
			fails(io_pwrite(&img->io, "x", 1, 64 * KiB, &e), -EUCLEAN, &e,
			      damages[i].text);
			assert_int_equal(io_size(file), before);
		} else {
			ok(look(img), &e);
		}
		io_close(&img->io);
		io_close(file);
	}
	io_close(sound);
}

/* Clusters of bits that are something else's are neither written to nor given back. */
static void foreign_clusters(void **state)
{
	struct io *file = new_disk("cluster_size=4k");
	struct img *img = open_rw(file);
	uint64_t table, l1 = get64(file, 40), old;
	be64 entry;
	(void)state;

	ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
	close_settled(img);
	table = get64(file, get64(file, find_ext(file) + 16));
	old = get64(file, l1);
	entry = be64_make(l1);
	ok(io_pwrite(file, &entry, sizeof(entry), table, &e), &e);
	img = open_rw(file);
	fails(io_pwrite(&img->io, "x", 1, 4096, &e), -EUCLEAN, &e, "other metadata too");
	fails(bitmap_clear(img, "b", &e), -EUCLEAN, &e, "other metadata too");
	/* It can be removed: what was its is left to the check. */
	ok(bitmap_remove(img, "b", &e), &e);
	ok(io_pwrite(&img->io, "x", 1, 4096, &e), &e);
	close_settled(img);
	assert_int_equal(get64(file, l1), old);
	img = open_rw(file);
	io_close(&img->io);
	io_close(file);
}

/* Extra data that says it may be ignored is kept; with other extra data a bitmap is void. */
static void extra_data(void **state)
{
	static const unsigned char extra[8] = "unknown";
	(void)state;

	for (unsigned compatible = 0; compatible < 2; compatible++) {
		struct io *file = new_disk("cluster_size=4k");
		uint64_t ext = find_ext(file), dir = get64(file, ext + 16);
		unsigned char buf[40] = {0};
		struct img *img;

		ok(io_pread(file, buf, 32, dir, &e), &e);
		buf[15] = (unsigned char)(2 | compatible << 2);
		buf[23] = 8;
		memcpy(buf + 24, extra, 8);
		memcpy(buf + 32, "b\0\0\0\0\0\0", 8);
		ok(io_pwrite(file, buf, sizeof(buf), dir, &e), &e);
		ok(io_pwrite(file, "\x28", 1, ext + 15, &e), &e);
		img = open_rw(file);
		ok(io_pwrite(&img->io, "x", 1, 0, &e), &e);
		ok(bitmap_add(img, "other", 0, true, &e), &e);
		close_settled(img);
		dir = get64(file, find_ext(file) + 16);
		ok(io_pread(file, buf, sizeof(buf), dir, &e), &e);
		assert_memory_equal(buf + 24, extra, 8);
		assert_int_equal(buf[15] & 1, !compatible);
		assert_int_equal(inconsistent(file, "b"), !compatible);
		assert_sound(file);
		io_close(file);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_zeroes_and_discards_set_bits),
		cmocka_unit_test(in_use_until_stored),
		cmocka_unit_test(add_and_remove),
		cmocka_unit_test(merge_and_clear),
		cmocka_unit_test(resize_keeps_what_stays),
		cmocka_unit_test(bits_are_written_ahead),
		cmocka_unit_test(snapshots_beside_bitmaps),
		cmocka_unit_test(damage_is_told),
		cmocka_unit_test(foreign_clusters),
		cmocka_unit_test(extra_data),
	};

	return cmocka_run_group_tests_name("persistent bitmaps", tests, NULL, NULL);
}
