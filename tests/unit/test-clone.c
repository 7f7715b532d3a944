// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sharing blocks instead of copying bytes: io_clone, img_write_from, and commit and rebase with files
 * that can. The kernel's part is played by copying, so that it runs on every file system. (Power cuts
 * and failing calls: tests/crash, tests/fault.)
 * threads
 */
#include "unit.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk.h"
#include "io/file.h"
#include "io/window.h"
#include "ops/commit.h"
#include "ops/rebase.h"

#define CLUSTER (64 * KiB)
#define SIZE    (16 * CLUSTER)

static struct err e;
static unsigned char buf[2 * CLUSTER];

static int clone_error; /* errno, always */

int ioctl(int fd, unsigned long request, ...)
{
	const struct file_clone_range *range;
	unsigned char copy[4096];
	va_list args;

	va_start(args, request);
	range = va_arg(args, void *);
	va_end(args);
	if (request != FICLONERANGE)
		return (int)syscall(SYS_ioctl, fd, request, range);
	errno = clone_error;
	if (clone_error)
		return -1;
	for (uint64_t at = 0; at < range->src_length; at += sizeof(copy)) {
		assert_int_equal(pread((int)range->src_fd, copy, sizeof(copy),
				       (off_t)(range->src_offset + at)),
				 sizeof(copy));
		assert_int_equal(pwrite(fd, copy, sizeof(copy), (off_t)(range->dest_offset + at)),
				 sizeof(copy));
	}
	return 0;
}

/* ---- io ---- */

static struct io *new_mem(const char *name, int byte, unsigned caps)
{
	struct io *io = disk_new(name);

	io->caps |= caps;
	memset(buf, byte, sizeof(buf));
	if (byte)
		ok(io_pwrite(io, buf, sizeof(buf), 0, &e), &e);
	return io;
}

static void check_byte(struct io *io, uint64_t off, uint64_t len, int byte)
{
	unsigned char *p = malloc(len);

	assert_non_null(p);
	ok(io_pread(io, p, len, off, &e), &e);
	for (uint64_t i = 0; i < len; i++)
		assert_int_equal(p[i], byte);
	free(p);
}

static void refuses_what_cannot_be_shared(void **state)
{
	struct io *src = new_mem("src", 'a', 0), *dst = new_mem("dst", 0, 0);

	(void)state;
	assert_int_equal(io_clone(dst, 0, src, 0, 4096, &e), -ENOTSUP);
	dst->caps |= IO_CLONES;
	assert_int_equal(io_clone(dst, 0, src, 0, 4095, &e), -ENOTSUP);
	assert_int_equal(io_clone(dst, 0, src, 2 * CLUSTER - 4096, 8192, &e), -ENOTSUP);
	assert_int_equal(io_clone(dst, UINT64_MAX - 4095, src, 0, 4096, &e), -ENOTSUP);
	assert_int_equal(io_clone(dst, INT64_MAX - 4095, src, 0, 4096, &e), -ENOTSUP);
	assert_int_equal(io_size(dst), 0);
	ok(io_clone(dst, 4096, src, 0, 0, &e), &e);
	assert_int_equal(io_size(dst), 0);
	ok(io_clone(dst, 4096, src, 8192, 4096, &e), &e);
	assert_int_equal(io_size(dst), 8192);
	check_byte(dst, 0, 4096, 0);
	check_byte(dst, 4096, 4096, 'a');
	dst->caps |= IO_RDONLY;
	fails(io_clone(dst, 0, src, 0, 4096, &e), -EROFS, &e, "dst: clone: opened read-only");
	io_close(src);
	io_close(dst);
}

static void window_does_not_grow(void **state)
{
	struct io *src = new_mem("src", 'a', 0), *inner = new_mem("dst", 'b', IO_CLONES), *window;

	(void)state;
	ok(window_open(inner, 4096, 8192, true, &window, &e), &e);
	ok(io_clone(window, 4096, src, 0, 4096, &e), &e);
	assert_int_equal(io_clone(window, 8192, src, 0, 4096, &e), -ENOTSUP);
	check_byte(inner, 0, 8192, 'b');
	check_byte(inner, 8192, 4096, 'a');
	check_byte(inner, 12288, CLUSTER, 'b');
	io_close(window);
	io_close(src);
}

static void files_are_cloned_by_the_kernel(void **state)
{
	struct io *mem = new_mem("mem", 'm', 0), *src, *dst;

	(void)state;
	disk_save(mem, "src");
	ok(file_open("src", 0, &src, &e), &e);
	ok(file_open("dst", FILE_CREATE, &dst, &e), &e);
	dst->caps |= IO_CLONES;
	assert_int_equal(io_clone(dst, 0, mem, 0, 4096, &e), -ENOTSUP);
	clone_error = EOPNOTSUPP;
	assert_int_equal(io_clone(dst, 0, src, 0, 4096, &e), -ENOTSUP);
	assert_int_equal(io_size(dst), 0);
	clone_error = 0;
	ok(io_clone(dst, 8192, src, CLUSTER, 4096, &e), &e);
	assert_int_equal(io_size(dst), 12288);
	check_byte(dst, 0, 8192, 0);
	check_byte(dst, 8192, 4096, 'm');
	io_close(src);
	io_close(dst);
	io_close(mem);
}

/* ---- an image ---- */

struct traced {
	struct trace_stats stats;
	struct io *file; /* in memory */
	struct img *img;
};

static void open_traced(struct traced *t, struct io *file, unsigned flags, struct img *backing)
{
	struct io *io;

	t->file = file;
	memset(&t->stats, 0, sizeof(t->stats));
	ok(trace_open(file, false, &t->stats, &io, &e), &e);
	ok(img_open_io(io, "qcow2", flags, backing, &t->img, &e), &e);
}

/* Whether the bytes were read, to write them. */
static bool was_read(void)
{
	bool read = buf[0] != 'u';

	memset(buf, 'u', sizeof(buf));
	return read;
}

static void only_new_clusters_are_shared(void **state)
{
	struct io *file = new_mem("image", 0, IO_CLONES), *from = new_mem("src", 's', 0);
	struct img_source src = {.io = from, .mem = buf};
	struct traced t;

	(void)state;
	disk_create(file, "qcow2", SIZE, NULL, NULL, NULL);
	open_traced(&t, file, IMG_RDWR, NULL);
	memset(buf, 'u', sizeof(buf));
	ok(img_write_from(t.img, &src, CLUSTER, CLUSTER, &e), &e);
	assert_true(t.stats.clones == 1 && !was_read());
	ok(img_write_from(t.img, &src, 2 * CLUSTER, 4 * CLUSTER, &e), &e);
	assert_true(t.stats.clones == 2 && !was_read());
	/* A part of a cluster, and one that is there. */
	ok(img_write_from(t.img, &src, 4096, 8 * CLUSTER, &e), &e);
	assert_true(t.stats.clones == 2 && was_read());
	src.at = CLUSTER;
	ok(img_write_from(t.img, &src, CLUSTER, 4 * CLUSTER, &e), &e);
	assert_true(t.stats.clones == 2 && was_read());
	/* Bounds that cannot be cloned: what is loaded is not read again. */
	src.at = 512;
	ok(img_write_from(t.img, &src, CLUSTER, 10 * CLUSTER, &e), &e);
	assert_true(t.stats.clones == 2 && was_read());
	src.loaded = true;
	ok(img_write_from(t.img, &src, CLUSTER, 12 * CLUSTER, &e), &e);
	assert_true(t.stats.clones == 2 && !was_read());
	check_byte(&t.img->io, 0, CLUSTER, 0);
	check_byte(&t.img->io, CLUSTER, CLUSTER, 's');
	check_byte(&t.img->io, 4 * CLUSTER, 2 * CLUSTER, 's');
	check_byte(&t.img->io, 8 * CLUSTER, 4096, 's');
	check_byte(&t.img->io, 8 * CLUSTER + 4096, CLUSTER - 4096, 0);
	check_byte(&t.img->io, 10 * CLUSTER, CLUSTER, 's');
	check_byte(&t.img->io, 12 * CLUSTER, CLUSTER, 'u');
	io_close(&t.img->io);
	open_traced(&t, file, 0, NULL);
	fails(img_write_from(t.img, &src, CLUSTER, 0, &e), -EROFS, &e, "opened read-only");
	io_close(&t.img->io);
	io_close(file);
	io_close(from);
}

static void raw_images_are_written(void **state)
{
	struct io *file = new_mem("raw", 'r', IO_CLONES), *from = new_mem("src", 's', 0);
	struct img_source src = {.io = from, .mem = buf};
	struct img *img = disk_open(file, "raw", IMG_RDWR, NULL);

	(void)state;
	ok(img_write_from(img, &src, CLUSTER, CLUSTER, &e), &e);
	check_byte(file, 0, CLUSTER, 'r');
	check_byte(file, CLUSTER, CLUSTER, 's');
	io_close(&img->io);
	io_close(file);
	io_close(from);
}

/* ---- commit and rebase ---- */

/* Clusters that are compressed, zeros, data and nothing. */
static enum fill some_kind(void *ctx, uint64_t cluster)
{
	return (enum fill)((cluster + *(unsigned *)ctx) / 2 % 4);
}

static struct io *some_image(const char *name, unsigned shift, const char *backing)
{
	struct io *file = new_mem(name, 0, IO_CLONES);
	unsigned char *data = malloc(SIZE);
	struct fill_args args = {
		.size = SIZE,
		.backing = backing,
		.backing_format = backing ? "qcow2" : NULL,
		.data = data,
		.kind = some_kind,
		.ctx = &shift,
	};

	assert_non_null(data);
	memset(data, 'a' + (int)shift, SIZE);
	disk_fill(file, "qcow2", &args);
	free(data);
	return file;
}

static unsigned char *content(struct io *top, struct io *below)
{
	struct img *backing = below ? disk_open(below, "qcow2", 0, NULL) : NULL;
	struct img *img = disk_open(top, "qcow2", 0, backing);
	struct check_result res;
	unsigned char *p = malloc(SIZE);

	assert_non_null(p);
	ok(io_pread(&img->io, p, SIZE, 0, &e), &e);
	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	assert_true(!res.corruptions && !res.leaks && !res.check_errors);
	io_close(&img->io);
	return p;
}

static void commit_shares(void **state)
{
	struct io *top = some_image("top", 0, "base"), *base = some_image("base", 2, NULL);
	unsigned char *before = content(top, base), *after;
	struct traced t, b;

	(void)state;
	open_traced(&b, base, IMG_RDWR, NULL);
	open_traced(&t, top, IMG_RDWR, b.img);
	const struct commit_args args = {.top = t.img, .base = b.img, .workers = 2};
	ok(commit_run(&args, NULL, &e), &e);
	io_close(&t.img->io);
	/* Data of the top lies on zeros of the base. */
	assert_true(b.stats.clones > 0);
	after = content(base, NULL);
	assert_memory_equal(before, after, SIZE);
	free(before);
	free(after);
	io_close(top);
	io_close(base);
}

static void rebase_shares(void **state)
{
	struct io *top = some_image("top", 0, "old"), *old = some_image("old", 4, NULL);
	struct io *other = some_image("new", 6, NULL);
	unsigned char *before = content(top, old), *after;
	struct traced t, o, n;

	(void)state;
	open_traced(&o, old, 0, NULL);
	open_traced(&n, other, 0, NULL);
	open_traced(&t, top, IMG_RDWR, o.img);
	const struct rebase_args args = {
		.overlay = t.img,
		.backing = n.img,
		.name = "new",
		.format = "qcow2",
		.workers = 2,
	};
	ok(rebase_run(&args, NULL, &e), &e);
	io_close(&t.img->io);
	assert_true(t.stats.clones > 0);
	after = content(top, other);
	assert_memory_equal(before, after, SIZE);
	free(before);
	free(after);
	io_close(top);
	io_close(old);
	io_close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_what_cannot_be_shared),
		cmocka_unit_test(window_does_not_grow),
		cmocka_unit_test(files_are_cloned_by_the_kernel),
		cmocka_unit_test(only_new_clusters_are_shared),
		cmocka_unit_test(raw_images_are_written),
		cmocka_unit_test(commit_shares),
		cmocka_unit_test(rebase_shares),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
