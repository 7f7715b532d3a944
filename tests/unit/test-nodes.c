// SPDX-License-Identifier: GPL-2.0-or-later
/* What a description asks for is done: flags reach the node that they are meant for. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/img.h"
#include "io/file.h"
#include "ops/create.h"
#include "unit.h"

static void make(const char *path, const char *format, const char *options)
{
	struct create_request req = {.path = path, .format = format, .size = 1 << 20};
	struct create_plan plan = {0};
	struct opts opts = {0};
	struct err e = {0};

	if (options)
		ok(opts_parse(&opts, options, &e), &e);
	req.opts = &opts;
	ok(create_prepare(&req, &plan, &e), &e);
	ok(create_run(&plan, TARGET_FORCE, &e), &e);
	create_plan_free(&plan);
	opts_free(&opts);
}

static struct img *open_described(const char *text, unsigned flags)
{
	const struct img_open_args args = {.path = text, .flags = flags | IMG_IMAGE_OPTS};
	struct img *img;
	struct err e = {0};

	ok(img_open(&args, &img, &e), &e);
	return img;
}

static void write_block(struct img *img, unsigned char byte)
{
	unsigned char buf[65536];
	struct err e = {0};

	memset(buf, byte, sizeof(buf));
	ok(io_pwrite(&img->io, buf, sizeof(buf), 0, &e), &e);
	ok(io_flush(&img->io, &e), &e);
}

/* Whether the header in the file has the dirty bit (byte 79 of a version 3 header). */
static bool is_dirty(const char *path)
{
	unsigned char byte = 0;
	int fd = open(path, O_RDONLY);

	assert_int_equal(pread(fd, &byte, 1, 79), 1);
	close(fd);
	return byte & 1;
}

static void test_lazy_refcounts(void **state)
{
	static const struct {
		const char *made, *opened;
		bool dirty;
	} cases[] = {
		{"lazy_refcounts=on", "driver=qcow2,file.filename=l", true},
		{"lazy_refcounts=on", "driver=qcow2,file.filename=l,lazy-refcounts=off", false},
		{"lazy_refcounts=off", "driver=qcow2,file.filename=l,lazy-refcounts=on", true},
		{"lazy_refcounts=off", "driver=qcow2,file.filename=l", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct img *img;

		make("l", "qcow2", cases[i].made);
		img = open_described(cases[i].opened, IMG_RDWR);
		write_block(img, 1);
		assert_int_equal(is_dirty("l"), cases[i].dirty);
		io_close(&img->io);
		assert_false(is_dirty("l"));
	}
}

static unsigned long blocks(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (unsigned long)st.st_blocks;
}

/* Space that was written stays, or goes, as discard says. */
static void test_discard(void **state)
{
	static const struct {
		const char *opened;
		bool frees;
	} cases[] = {
		{"driver=raw,file.filename=d", true},
		{"driver=raw,file.filename=d,discard=unmap", true},
		{"driver=raw,file.filename=d,discard=ignore", false},
		{"driver=raw,file.filename=d,file.discard=ignore", false},
		{"driver=raw,file.filename=d,discard=off", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err e = {0};
		struct img *img;
		unsigned long full;

		make("d", "raw", NULL);
		img = open_described(cases[i].opened, IMG_RDWR);
		write_block(img, 1);
		full = blocks("d");
		ok(io_discard(&img->io, 0, 65536, &e), &e);
		assert_int_equal(blocks("d") < full, cases[i].frees);
		write_block(img, 1);
		ok(io_zero(&img->io, 0, 65536, IO_ZERO_UNMAP, &e), &e);
		assert_int_equal(blocks("d") < full, cases[i].frees);
		io_close(&img->io);
	}
}

static void test_detect_zeroes(void **state)
{
	static const struct {
		const char *opened;
		enum ext_kind kind;
	} cases[] = {
		{"driver=qcow2,file.filename=z", EXT_DATA},
		{"driver=qcow2,file.filename=z,detect-zeroes=off", EXT_DATA},
		{"driver=qcow2,file.filename=z,detect-zeroes=on", EXT_ZERO},
		{"driver=qcow2,file.filename=z,detect-zeroes=unmap,discard=unmap", EXT_ZERO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err e = {0};
		struct extent ext;
		struct img *img;

		make("z", "qcow2", NULL);
		img = open_described(cases[i].opened, IMG_RDWR);
		write_block(img, 1);
		write_block(img, 0);
		ok(io_map(&img->io, 0, 65536, &ext, &e), &e);
		assert_int_equal(ext.kind, cases[i].kind);
		io_close(&img->io);
	}
}

/* cache.no-flush is the image's and its file's; a child may have it otherwise. */
static void test_flags(void **state)
{
	struct img *img;

	(void)state;
	make("f", "qcow2", NULL);
	img = open_described("driver=qcow2,file.filename=f,cache.no-flush=on", IMG_RDWR);
	assert_true(img->open_flags & IMG_UNSAFE);
	io_close(&img->io);
	img = open_described("driver=qcow2,file.filename=f,cache.no-flush=off",
			     IMG_RDWR | IMG_UNSAFE);
	assert_false(img->open_flags & IMG_UNSAFE);
	io_close(&img->io);
	img = open_described("driver=qcow2,file.filename=f,force-share=on", 0);
	assert_true(img->open_flags & IMG_SHARE);
	io_close(&img->io);
}

/* locking=off: neither stopped by a lock nor in the way of one. */
static void test_locking(void **state)
{
	struct img_open_args args = {.path = "k", .format = "qcow2", .flags = IMG_RDWR};
	struct err e = {0};
	struct img *writer, *other;

	(void)state;
	make("k", "qcow2", NULL);
	ok(img_open(&args, &writer, &e), &e);
	args.path = "driver=qcow2,file.filename=k";
	args.format = NULL;
	args.flags = IMG_IMAGE_OPTS;
	fails(img_open(&args, &other, &e), -EBUSY, &e, "lock");
	other = open_described("driver=qcow2,file.filename=k,file.locking=off", 0);
	io_close(&other->io);
	other = open_described("driver=qcow2,file.filename=k,force-share=on", 0);
	io_close(&other->io);
	io_close(&writer->io);
}

/* Without the flags that say so, a path is the path of a file, whatever it looks like. */
static void test_plain_paths(void **state)
{
	static const char *const names[] = {"json:{\"driver\": \"raw\"}", "file:x", "nbd:x",
					    "driver=raw,file.filename=f"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct img_open_args args = {.path = names[i]};
		struct err e = {0};
		struct img *img;

		fails(img_open(&args, &img, &e), -ENOENT, &e, names[i]);
		make(names[i], "qcow2", NULL);
		ok(img_open(&args, &img, &e), &e);
		assert_string_equal(img->io.name, names[i]);
		io_close(&img->io);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lazy_refcounts), cmocka_unit_test(test_discard),
		cmocka_unit_test(test_detect_zeroes),  cmocka_unit_test(test_flags),
		cmocka_unit_test(test_locking),        cmocka_unit_test(test_plain_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
