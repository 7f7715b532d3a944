// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/*
 * convert with snapshots: the same snapshots, disks and states in images of other kinds; shared data
 * stays shared, the result does not depend on the threads, and what cannot be is refused in time.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "lib/layers.h"
#include "ops/convert.h"

static struct err e;

struct want {
	const char *opts;
	struct copy_args copy;
	bool cancelled;
};

static int run(struct img *src, const struct want *w, const char *path, struct job *job)
{
	struct opts opts = {0};
	struct convert_request req = {
		.src = &src,
		.n_src = 1,
		.path = path,
		.target_flags = TARGET_UNSAFE,
		.format = "qcow2",
		.opts = &opts,
		.snapshots = true,
		.copy = w->copy,
	};
	int r;

	unlink(path);
	if (*w->opts)
		ok(opts_parse(&opts, w->opts, &e), &e);
	atomic_store(&job->cancelled, w->cancelled);
	r = convert(&req, job, &e);
	opts_free(&opts);
	return r;
}

static struct img *open_path(const char *path, unsigned flags)
{
	const struct img_open_args args = {.path = path, .flags = flags};
	struct img *img;

	ok(img_open(&args, &img, &e), &e);
	return img;
}

static void assert_sound(struct img *img)
{
	struct check_sink sink = {0};
	struct check_result res;

	ok(img_check(img, 0, &res, &sink, NULL, &e), &e);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
}

static void test_kinds(void **state)
{
	static const char *const sources[] = {"cluster_size=4k",
					      "cluster_size=512,lazy_refcounts=on",
					      "extended_l2=on,cluster_size=16k"};
	static const struct want wants[] = {
		{"cluster_size=512", {.sparse = 4096}, false},
		{"cluster_size=4k", {.sparse = 4096, .workers = 3}, false},
		{"cluster_size=64k,refcount_bits=8", {.sparse = 512, .unordered = true}, false},
		{"cluster_size=2M,compression_type=zstd",
		 {.sparse = 4096, .compress = true},
		 false},
		{"extended_l2=on", {.sparse = 4096}, false},
		{"cluster_size=4k", {.sparse = 4096, .compress = true, .workers = 2}, false},
		{"preallocation=metadata", {.sparse = 4096}, false},
		{"cluster_size=8k", {.sparse = 0}, false},
	};

	(void)state;
	for (size_t s = 0; s < ARRAY_LEN(sources); s++) {
		struct io *file = disk_new("source");
		struct img *src, *dst;

		layers_make(file, sources[s]);
		src = disk_open(file, "qcow2", 0, NULL);
		for (size_t i = 0; i < ARRAY_LEN(wants); i++) {
			struct job job = {0};

			ok(run(src, &wants[i], "target", &job), &e);
			assert_int_equal(job.done, job.total);
			dst = open_path("target", 0);
			layers_same(src, dst);
			assert_sound(dst);
			io_close(&dst->io);
		}
		io_close(&src->io);
		io_close(file);
	}
}

/* Bytes of the file that a conversion makes; the caller frees them. */
static unsigned char *converted(struct img *src, const struct want *w, uint64_t *len)
{
	struct job job = {0};
	unsigned char *p;
	struct io *io;

	ok(run(src, w, "target", &job), &e);
	io = disk_load("target");
	p = disk_bytes(io, len);
	io_close(io);
	return p;
}

static void test_any_number_of_workers(void **state)
{
	(void)state;
	for (int compress = 0; compress < 2; compress++) {
		struct want w = {"cluster_size=4k",
				 {.sparse = 4096, .workers = 1, .compress = compress},
				 false};
		struct io *file = disk_new("source");
		unsigned char *one, *four;
		struct img *src;
		uint64_t n, m;

		layers_make(file, "cluster_size=4k");
		src = disk_open(file, "qcow2", 0, NULL);
		one = converted(src, &w, &n);
		w.copy.workers = 4;
		four = converted(src, &w, &m);
		assert_int_equal(n, m);
		assert_memory_equal(one, four, n);
		/* Sharing: the disks alone have five times this. */
		assert_true(n < 6 * LAYERS_SIZE / 2);
		free(one);
		free(four);
		io_close(&src->io);
		io_close(file);
	}
}

static void test_cancel(void **state)
{
	const struct want w = {"", {.sparse = 4096}, true};
	struct io *file = disk_new("source");
	struct job job = {0};
	struct img *src;

	(void)state;
	layers_make(file, "");
	src = disk_open(file, "qcow2", 0, NULL);
	assert_int_equal(run(src, &w, "target", &job), -ECANCELED);
	assert_int_equal(access("target", F_OK), -1);
	io_close(&src->io);
	io_close(file);
}

static void test_refused(void **state)
{
	struct io *file = disk_new("source");
	struct img *src, *two[2];
	struct convert_request req = {
		.src = two, .n_src = 1, .path = "target", .format = "qcow2", .snapshots = true};

	(void)state;
	layers_make(file, "");
	two[0] = two[1] = src = disk_open(file, "qcow2", IMG_RDWR, NULL);
	fails(convert(&req, NULL, &e), -EINVAL, &e, "read-only");
	io_close(&src->io);
	two[0] = two[1] = src = disk_open(file, "qcow2", 0, NULL);
	req.n_src = 2;
	fails(convert(&req, NULL, &e), -EINVAL, &e, "single source");
	req.n_src = 1;
	req.part = true;
	req.length = 512;
	fails(convert(&req, NULL, &e), -EINVAL, &e, "whole disk");
	req.part = false;
	req.backing = "base";
	fails(convert(&req, NULL, &e), -EINVAL, &e, "backing file");
	req.backing = NULL;
	req.format = "raw";
	fails(convert(&req, NULL, &e), -ENOTSUP, &e, "'raw' does not support snapshots");
	assert_int_equal(access("target", F_OK), -1);
	io_close(&src->io);
	io_close(file);
}

/* Of the first snapshot's entry: `bytes` at off become value, big endian. */
static void patch_entry(struct io *file, uint64_t off, unsigned bytes, uint64_t value)
{
	be64 at, v = be64_make(value << (64 - 8 * bytes));

	ok(io_pread(file, &at, 8, 64, &e), &e);
	ok(io_pwrite(file, &v, bytes, be64_get(at) + off, &e), &e);
}

static void test_hostile_tables(void **state)
{
	static const struct {
		uint64_t off, value;
		unsigned bytes;
		int code;
		const char *text;
	} cases[] = {
		{40, UINT64_MAX, 8, -EFBIG, "too large"},               /* state */
		{40, UINT64_C(1) << 40, 8, -EUCLEAN, "are needed"},     /* beyond the L1 table */
		{48, UINT64_C(1) << 62, 8, -EFBIG, "too large"},        /* disk */
		{0, UINT64_C(1) << 40, 8, -EUCLEAN, "end of the file"}, /* L1 table */
		{0, 513, 8, -EUCLEAN, "aligned"},
		{8, UINT32_MAX, 4, -EUCLEAN, "too large"},
	};
	const struct want w = {"", {.sparse = 4096}, false};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct io *file = disk_new("source");
		struct job job = {0};
		struct img *src;

		layers_make(file, "");
		patch_entry(file, cases[i].off, cases[i].bytes, cases[i].value);
		src = disk_open(file, "qcow2", 0, NULL);
		fails(run(src, &w, "target", &job), cases[i].code, &e, cases[i].text);
		assert_non_null(strstr(e.msg, "plain"));
		assert_int_equal(access("target", F_OK), -1);
		io_close(&src->io);
		io_close(file);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),          cmocka_unit_test(test_any_number_of_workers),
		cmocka_unit_test(test_cancel),         cmocka_unit_test(test_refused),
		cmocka_unit_test(test_hostile_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
