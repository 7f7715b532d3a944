// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ops/convert on files: a target is whole or not there, and never one of the sources.
 *
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=posix_memalign,--wrap=strdup
 */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/stream.h"
#include "lib/disk.h"
#include "lib/rng.h"
#include "ops/compare.h"
#include "ops/convert.h"

static struct err e;

/* ---- memory that runs out ---- */

static uint64_t allocations, fail_allocation; /* fail_allocation 0: never */

static int no_memory(void)
{
	return fail_allocation && ++allocations == fail_allocation;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
int __real_posix_memalign(void **p, size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n)
{
	return no_memory() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return no_memory() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return no_memory() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return no_memory() ? NULL : __real_reallocarray(p, n, size);
}

int __wrap_posix_memalign(void **p, size_t align, size_t n)
{
	return no_memory() ? ENOMEM : __real_posix_memalign(p, align, n);
}

char *__wrap_strdup(const char *s)
{
	return no_memory() ? NULL : __real_strdup(s);
}

/* ---- files ---- */

#define SIZE (3 * MiB + 512)

/* Every test begins with one file, source.raw, in an empty directory. */
static int setup(void **state)
{
	static unsigned char buf[100000];
	struct rng rng = {.state = 1};
	int fd;

	(void)state;
	e = (struct err){0};
	assert_int_equal(system("rm -rf dir && mkdir dir"), 0);
	assert_int_equal(chdir("dir"), 0);
	fd = open("source.raw", O_RDWR | O_CREAT, 0644);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	for (off_t off = 0; off < 3 * (off_t)MiB; off += 700000) {
		rng_fill(&rng, buf, sizeof(buf));
		assert_int_equal(pwrite(fd, buf, sizeof(buf), off), sizeof(buf));
	}
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(pwrite(fd, buf, sizeof(buf), 200000), sizeof(buf));
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return chdir("..");
}

static unsigned files_here(void)
{
	DIR *d = opendir(".");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static struct img *open_image(const char *path, unsigned flags)
{
	const struct img_open_args args = {.path = path, .flags = flags};
	struct img *img;

	ok(img_open(&args, &img, &e), &e);
	return img;
}

static void assert_same_disk(const char *a, const char *b)
{
	struct img *x = open_image(a, 0), *y = open_image(b, 0);
	const struct compare_args args = {.a = &x->io, .b = &y->io, .workers = 2};
	struct compare_result res;

	ok(compare_run(&args, NULL, &res, &e), &e);
	assert_int_equal(res.kind, COMPARE_SAME);
	assert_false(res.sizes_differ);
	io_close(&x->io);
	io_close(&y->io);
}

/* ---- running it ---- */

struct want {
	const char *from[2], *to, *format, *opts;
	const char *backing;
	unsigned flags; /* TARGET_… */
	bool compress, cancelled;
	unsigned workers;
};

static int open_sources(const struct want *w, struct img **src, struct err *err)
{
	int r = 0;

	for (int i = 0; r == 0 && i < 2 && w->from[i]; i++) {
		const struct img_open_args args = {.path = w->from[i]};

		r = img_open(&args, &src[i], err);
	}
	return r;
}

static int run(const struct want *w, struct err *err)
{
	struct img *src[2] = {NULL, NULL};
	struct opts opts = {0};
	struct job job = {0};
	struct convert_request req = {
		.src = src,
		.n_src = w->from[1] ? 2 : 1,
		.path = w->to,
		.target_flags = w->flags,
		.format = w->format,
		.opts = &opts,
		.backing = w->backing,
		.backing_format = w->backing ? "raw" : NULL,
		.copy = {.sparse = 4096, .compress = w->compress, .workers = w->workers},
	};
	int r = open_sources(w, src, err);

	if (w->cancelled)
		atomic_store(&job.cancelled, true);
	if (r == 0 && w->opts)
		r = opts_parse(&opts, w->opts, err);
	if (r == 0)
		r = convert(&req, &job, err);
	for (int i = 0; i < 2; i++) {
		if (src[i])
			io_close(&src[i]->io);
	}
	opts_free(&opts);
	return r;
}

static void targets_appear(void **state)
{
	const struct want to[] = {
		{.from = {"source.raw"}, .to = "a.qcow2", .format = "qcow2"},
		{.from = {"a.qcow2"}, .to = "b.qcow2", .format = "qcow2", .compress = true},
		{.from = {"b.qcow2"}, .to = "c.raw", .format = "raw", .opts = "size=7G"},
		{.from = {"c.raw"}, .to = "d.qcow2", .format = "qcow2", .backing = "source.raw"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(to); i++) {
		ok(run(&to[i], &e), &e);
		assert_same_disk("source.raw", to[i].to);
		assert_int_equal(files_here(), i + 2);
	}
}

static void sources_are_joined(void **state)
{
	const struct want w = {.from = {"source.raw", "source.raw"},
			       .to = "both.raw",
			       .format = "raw"};
	struct stat st;

	(void)state;
	ok(run(&w, &e), &e);
	assert_int_equal(stat("both.raw", &st), 0);
	assert_int_equal(st.st_size, 2 * SIZE);
	assert_int_equal(system("cat source.raw source.raw | cmp - both.raw"), 0);
}

static void existing_targets_need_force(void **state)
{
	struct want w = {.from = {"source.raw"}, .to = "there.raw", .format = "raw"};

	(void)state;
	assert_int_equal(system("echo precious > there.raw"), 0);
	fails(run(&w, &e), -EEXIST, &e, "'there.raw' exists already");
	assert_int_equal(system("grep -q precious there.raw"), 0);
	w.flags = TARGET_FORCE;
	w.cancelled = true;
	fails(run(&w, &e), -ECANCELED, &e, "cancelled");
	assert_int_equal(system("grep -q precious there.raw"), 0);
	assert_int_equal(files_here(), 2);
	w.cancelled = false;
	ok(run(&w, &e), &e);
	assert_same_disk("source.raw", "there.raw");
	assert_int_equal(files_here(), 2);
}

static void a_source_is_no_target(void **state)
{
	struct want w = {.from = {"source.raw"},
			 .to = "source.raw",
			 .format = "qcow2",
			 .flags = TARGET_FORCE};
	const struct want overlay = {.from = {"source.raw"},
				     .to = "top.qcow2",
				     .format = "qcow2",
				     .backing = "source.raw"};

	(void)state;
	fails(run(&w, &e), -EINVAL, &e, "cannot be its target");
	w.flags = TARGET_IN_PLACE;
	fails(run(&w, &e), -EINVAL, &e, "cannot be its target");
	assert_int_equal(link("source.raw", "other-name.raw"), 0);
	w.to = "other-name.raw";
	fails(run(&w, &e), -EINVAL, &e, "cannot be its target");
	assert_int_equal(symlink("source.raw", "link.raw"), 0);
	w.to = "link.raw";
	fails(run(&w, &e), -EINVAL, &e, "cannot be its target");
	/* Nor what is below a source. */
	ok(run(&overlay, &e), &e);
	w.from[0] = "top.qcow2";
	w.to = "source.raw";
	fails(run(&w, &e), -EINVAL, &e, "cannot be its target");
}

/* A full disk, as far as a test may have one. */
static void no_space_leaves_nothing(void **state)
{
	const struct want t[] = {
		{.from = {"source.raw"}, .to = "t.raw", .format = "raw", .workers = 3},
		{.from = {"source.raw"}, .to = "t.qcow2", .format = "qcow2", .workers = 3},
		{.from = {"source.raw"},
		 .to = "t.qcow2",
		 .format = "qcow2",
		 .opts = "preallocation=full"},
	};
	struct rlimit old, small;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 300 * KiB;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		int r;

		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		e = (struct err){0};
		r = run(&t[i], &e);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		assert_int_equal(r, -EFBIG);
		assert_non_null(strstr(e.msg, "File too large"));
		assert_int_equal(files_here(), 1);
	}
}

static void what_does_not_fit_together(void **state)
{
	struct want w = {.from = {"source.raw"}, .to = "t", .format = "raw", .compress = true};

	(void)state;
	fails(run(&w, &e), -ENOTSUP, &e, "Compression not supported for this file format");
	w.format = "qcow2";
	w.opts = "preallocation=falloc";
	fails(run(&w, &e), -EINVAL, &e, "Compression and preallocation");
	w = (struct want){.from = {"source.raw"}, .to = "t", .format = "vhs"};
	fails(run(&w, &e), -EINVAL, &e, "Unknown file format 'vhs'");
	w.format = "qcow2";
	w.opts = "colour=red";
	fails(run(&w, &e), -EINVAL, &e, "Invalid parameter 'colour'");
	w.opts = "cluster_size=1M,refcount_bits=5";
	fails(run(&w, &e), -EINVAL, &e, "t: error while converting qcow2: Refcount width");
	w = (struct want){.from = {"source.raw", "source.raw"},
			  .to = "t",
			  .format = "qcow2",
			  .backing = "source.raw"};
	fails(run(&w, &e), -EINVAL, &e, "makes no sense when concatenating");
	w = (struct want){.from = {"source.raw"}, .to = "no-dir/t", .format = "raw"};
	fails(run(&w, &e), -ENOENT, &e, "no-dir/t: error while converting raw: Could not create");
	assert_int_equal(files_here(), 1);
}

/* Compressed data to a pipe goes by way of a file without a name. */
static void pipes_may_need_a_file(void **state)
{
	struct img *src = open_image("source.raw", 0);
	struct convert_request req = {.src = &src,
				      .n_src = 1,
				      .format = "qcow2",
				      .copy = {.sparse = 4096, .compress = true}};
	int fd = open("out.qcow2", O_WRONLY | O_CREAT | O_APPEND, 0644);

	(void)state;
	assert_true(fd >= 0);
	ok(stream_open(fd, "out", true, NULL, &req.pipe, &e), &e);
	setenv("TMPDIR", ".", 1);
	ok(convert(&req, NULL, &e), &e);
	unsetenv("TMPDIR");
	io_close(req.pipe);
	close(fd);
	io_close(&src->io);
	assert_same_disk("source.raw", "out.qcow2");
	assert_int_equal(files_here(), 2);
}

static void existing_images(void **state)
{
	const struct want make = {.from = {"source.raw"}, .to = "t.qcow2", .format = "qcow2"};
	struct img *src = open_image("source.raw", 0), *dst;
	struct convert_request req = {.src = &src, .n_src = 1, .copy = {.sparse = 4096}};

	(void)state;
	ok(run(&make, &e), &e);
	dst = open_image("t.qcow2", IMG_RDWR);
	req.dst = dst;
	ok(io_zero(&dst->io, 0, SIZE, IO_ZERO_UNMAP, &e), &e);
	ok(convert(&req, NULL, &e), &e);
	req.copy.compress = true;
	fails(convert(&req, NULL, &e), -ENOTSUP, &e, "existing image");
	req.copy.compress = false;
	ok(img_resize(dst, MiB, PREALLOC_OFF, &e), &e);
	fails(convert(&req, NULL, &e), -EINVAL, &e, "output file is smaller than input file");
	ok(img_resize(dst, SIZE, PREALLOC_OFF, &e), &e);
	ok(convert(&req, NULL, &e), &e);
	io_close(&dst->io);
	io_close(&src->io);
	assert_same_disk("source.raw", "t.qcow2");
}

static void every_allocation_may_fail(void **state)
{
	const struct want make = {
		.from = {"source.raw"}, .to = "s.qcow2", .format = "qcow2", .compress = true};
	const struct want w = {.from = {"s.qcow2", "source.raw"},
			       .to = "t.qcow2",
			       .format = "qcow2",
			       .opts = "compression_type=zstd",
			       .compress = true,
			       .workers = 1};
	uint64_t n;
	int r = -1;

	(void)state;
	ok(run(&make, &e), &e);
	for (n = 1; r < 0; n++) {
		e = (struct err){0};
		allocations = 0;
		fail_allocation = n;
		r = run(&w, &e);
		if (r < 0) {
			fail_allocation = 0;
			assert_int_equal(r, -ENOMEM);
			assert_true(e.msg[0]);
			assert_int_equal(files_here(), 2);
		}
		assert_true(n < 5000);
	}
	assert_true(allocations < fail_allocation);
	fail_allocation = 0;
	assert_true(n > 30);
	assert_int_equal(files_here(), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(targets_appear, setup, teardown),
		cmocka_unit_test_setup_teardown(sources_are_joined, setup, teardown),
		cmocka_unit_test_setup_teardown(existing_targets_need_force, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_is_no_target, setup, teardown),
		cmocka_unit_test_setup_teardown(no_space_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(what_does_not_fit_together, setup, teardown),
		cmocka_unit_test_setup_teardown(pipes_may_need_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(existing_images, setup, teardown),
		cmocka_unit_test_setup_teardown(every_allocation_may_fail, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
