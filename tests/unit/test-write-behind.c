// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io/file: space that is reserved before much is written, and writing that the disk begins before the
 * flush; and that images, commit and rebase make use of both.
 */
#include "filetest.h"

#include <linux/magic.h>

#include "disk.h"
#include "ops/commit.h"
#include "ops/rebase.h"

#define DATA (20 * MiB)

static struct err e;

/* As on this file system. */
static struct io *make_on(uint32_t fs_type, const char *path, unsigned flags)
{
	struct io *io;

	be_honest();
	fake.fs_type = fs_type;
	ok(file_open(path, FILE_CREATE | FILE_TRUNC | flags, &io, &e), &e);
	return io;
}

static void reserves_where_it_pays(void **state)
{
	struct io *io = make_on(TMPFS_MAGIC, "tmpfs", 0);

	(void)state;
	ok(file_reserve(io, 0, 1 * MiB, &e), &e);
	assert_int_equal(fake.fallocates, 0);
	io_close(io);
	io = make_on(EXT4_SUPER_MAGIC, "ext4", 0);
	ok(file_reserve(io, 0, 64 * KiB, &e), &e);
	assert_int_equal(fake.fallocates, 0);
	ok(file_reserve(io, 1 * MiB, 1 * MiB, &e), &e);
	assert_int_equal(fake.fallocates, 1);
	assert_int_equal(io_size(io), 2 * MiB);
	fake.fallocate_error = ENOSPC;
	fails(file_reserve(io, 2 * MiB, 1 * MiB, &e), -ENOSPC, &e, "ext4: cannot allocate");
	/* Of an inode without extents. */
	fake.fallocate_error = EOPNOTSUPP;
	ok(file_reserve(io, 2 * MiB, 1 * MiB, &e), &e);
	ok(file_reserve(io, 2 * MiB, 1 * MiB, &e), &e);
	assert_int_equal(fake.fallocates, 3);
	io_close(io);
	io = disk_new("memory");
	ok(file_reserve(io, 0, 1 * MiB, &e), &e);
	file_write_behind(io);
	assert_int_equal(io_size(io), 0);
	io_close(io);
}

static void write_mib(struct io *io, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fill(io, i * MiB, 1 * MiB, 'x');
}

static void sends_what_was_written(void **state)
{
	static const unsigned without[] = {FILE_UNSAFE, FILE_DIRECT};
	struct io *io = make("behind", 0);

	(void)state;
	write_mib(io, 20);
	assert_int_equal(fake.sends, 0);
	file_write_behind(io);
	write_mib(io, 20);
	assert_int_equal(fake.sends, 2);
	io_close(io);
	for (size_t i = 0; i < ARRAY_LEN(without); i++) {
		be_honest();
		if (file_open("without", FILE_CREATE | FILE_TRUNC | without[i], &io, &e) < 0)
			continue; /* no O_DIRECT here */
		file_write_behind(io);
		write_mib(io, 20);
		assert_int_equal(fake.sends, 0);
		io_close(io);
	}
}

/* The kernel tells some errors once only. */
static void lost_data_fail_the_flush(void **state)
{
	struct io *io = make("lost", 0);

	(void)state;
	file_write_behind(io);
	fake.send_error = EIO;
	write_mib(io, 8);
	fake.send_error = 0;
	write_mib(io, 8);
	fails(io_flush(io, &e), -EIO, &e, "lost: cannot flush: an earlier flush failed");
	fails(io_flush(io, &e), -EIO, &e, "lost: cannot flush");
	io_close(io);
	io = make("none", 0);
	file_write_behind(io);
	fake.send_error = ENOSYS;
	write_mib(io, 8);
	assert_int_equal(fake.sends, 1);
	ok(io_flush(io, &e), &e);
	io_close(io);
}

/* ---- images ---- */

static struct img *image_on(uint32_t fs_type, const char *path, struct img *backing)
{
	struct io *file = make_on(fs_type, path, 0);
	struct img *img;

	disk_create(file, "qcow2", DATA, NULL, backing ? "below" : NULL, backing ? "qcow2" : NULL);
	ok(img_open_io(file, "qcow2", IMG_RDWR, backing, &img, &e), &e);
	return img;
}

static void new_clusters_are_reserved(void **state)
{
	struct img *img = image_on(EXT4_SUPER_MAGIC, "image", NULL);
	unsigned char *data = calloc(1, 1 * MiB);

	(void)state;
	assert_non_null(data);
	fill(&img->io, 0, 64 * KiB, 'a'); /* the first table */
	fake.fallocates = 0;
	fill(&img->io, 64 * KiB, 64 * KiB, 'b');
	assert_int_equal(fake.fallocates, 0);
	fill(&img->io, 1 * MiB, 1 * MiB, 'c');
	assert_int_equal(fake.fallocates, 1);
	fill(&img->io, 1 * MiB, 1 * MiB, 'd'); /* in place */
	assert_int_equal(fake.fallocates, 1);
	check_bytes(&img->io, 1 * MiB, 1 * MiB, 'd');
	/* Nothing is written that has no place. */
	fake.fallocate_error = ENOSPC;
	fails(io_pwrite(&img->io, data, 1 * MiB, 4 * MiB, &e), -ENOSPC, &e, "image: ");
	free(data);
	fake.fallocate_error = 0;
	check_bytes(&img->io, 4 * MiB, 1 * MiB, 0);
	io_close(&img->io);
}

static void commit_writes_behind(void **state)
{
	struct img *base = image_on(TMPFS_MAGIC, "base", NULL);
	struct img *top = image_on(TMPFS_MAGIC, "top", base);
	const struct commit_args args = {.top = top, .base = base, .workers = 1};

	(void)state;
	write_mib(&top->io, 20);
	assert_int_equal(fake.sends, 0);
	ok(commit_run(&args, NULL, &e), &e);
	assert_int_equal(fake.sends, 2);
	check_bytes(&base->io, 0, DATA, 'x');
	io_close(&top->io);
}

static void rebase_writes_behind(void **state)
{
	struct img *old = image_on(TMPFS_MAGIC, "old", NULL), *top;
	struct rebase_args args = {.workers = 1};

	(void)state;
	write_mib(&old->io, 20);
	top = args.overlay = image_on(TMPFS_MAGIC, "top", old);
	ok(rebase_run(&args, NULL, &e), &e);
	assert_int_equal(fake.sends, 2);
	assert_null(top->backing);
	check_bytes(&top->io, 0, DATA, 'x');
	io_close(&top->io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reserves_where_it_pays),
		cmocka_unit_test(sends_what_was_written),
		cmocka_unit_test(lost_data_fail_the_flush),
		cmocka_unit_test(new_clusters_are_reserved),
		cmocka_unit_test(commit_writes_behind),
		cmocka_unit_test(rebase_writes_behind),
	};

	return cmocka_run_group_tests_name("write-behind", tests, NULL, NULL);
}
