// SPDX-License-Identifier: GPL-2.0-or-later
/* The public API on backing chains, bitmaps and pictures, in the current directory. */
#include "unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "imgkit.h"

#define SIZE (UINT64_C(1) << 20)

static struct imgkit_err err;

static struct imgkit_image *open_image(const char *path, unsigned flags)
{
	IMGKIT_OPTS(imgkit_open_opts, o);
	struct imgkit_image *image = NULL;

	o.flags = flags;
	ok(imgkit_open(path, &o, &image, &err), &err);
	return image;
}

static void make(const char *path, const char *options, const char *backing)
{
	IMGKIT_OPTS(imgkit_create_opts, o);

	o.flags = IMGKIT_FORCE;
	o.options = options;
	o.backing = backing;
	o.backing_format = backing ? "qcow2" : NULL;
	ok(imgkit_create(path, "qcow2", SIZE, &o, &err), &err);
}

/* A cluster that starts with text. */
static void put(const char *path, const char *text, uint64_t off)
{
	struct imgkit_image *image = open_image(path, IMGKIT_RDWR);
	char buf[65536];

	memset(buf, 'x', sizeof(buf));
	memcpy(buf, text, strlen(text));
	ok(imgkit_pwrite(image, buf, sizeof(buf), off, &err), &err);
	ok(imgkit_flush(image, &err), &err);
	imgkit_close(image);
}

static void expect(const char *path, const char *text, uint64_t off)
{
	struct imgkit_image *image = open_image(path, 0);
	char buf[16] = "";

	ok(imgkit_pread(image, buf, strlen(text), off, &err), &err);
	assert_memory_equal(buf, text, strlen(text));
	imgkit_close(image);
}

/* What of the image is stored in the image itself, in bytes. */
static uint64_t own_data(const char *path)
{
	struct imgkit_image *image = open_image(path, IMGKIT_NO_BACKING);
	struct imgkit_cell cell;
	uint64_t per_cell;
	unsigned n = 1;

	ok(imgkit_map_cells(image, 0, SIZE, &cell, sizeof(cell), &n, &per_cell, &err), &err);
	assert_int_equal(n, 1);
	assert_true(per_cell == SIZE);
	imgkit_close(image);
	return cell.data + cell.compressed;
}

/* base ← middle ← top, each with a word of its own. */
static void make_chain(void)
{
	make("base", NULL, NULL);
	put("base", "base", 0);
	make("middle", NULL, "base");
	put("middle", "middle", 65536);
	make("top", NULL, "middle");
	put("top", "top", 131072);
}

static void expect_chain(void)
{
	expect("top", "base", 0);
	expect("top", "middle", 65536);
	expect("top", "top", 131072);
}

static void test_commit(void **state)
{
	struct imgkit_job *job = imgkit_job_new();
	uint64_t done, total;

	(void)state;
	make_chain();
	ok(imgkit_commit("top", NULL, job, &err), &err);
	imgkit_job_progress(job, &done, &total);
	assert_true(total > 0 && done == total);
	imgkit_job_free(job);
	expect("middle", "top", 131072);
	assert_true(own_data("top") == 0);
	expect_chain();
}

static void test_commit_to_base(void **state)
{
	IMGKIT_OPTS(imgkit_commit_opts, o);

	(void)state;
	make_chain();
	o.base = "base";
	o.workers = 2;
	ok(imgkit_commit("top", &o, NULL, &err), &err);
	expect("base", "middle", 65536);
	expect("base", "top", 131072);
	assert_true(own_data("top") == 65536); /* kept: it is stale for nobody */
	expect_chain();
}

static void test_commit_errors(void **state)
{
	IMGKIT_OPTS(imgkit_commit_opts, o);
	struct imgkit_job *job = imgkit_job_new();
	struct imgkit_image *image;

	(void)state;
	make_chain();
	imgkit_job_cancel(job);
	assert_int_equal(imgkit_commit("top", NULL, job, &err), -ECANCELED);
	imgkit_job_free(job);
	assert_int_equal(imgkit_commit("base", NULL, NULL, &err), -EINVAL);
	assert_int_equal(imgkit_commit("missing", NULL, NULL, &err), -ENOENT);
	assert_int_equal(imgkit_commit(NULL, NULL, NULL, &err), -EINVAL);
	o.base = "nobody";
	assert_int_equal(imgkit_commit("top", &o, NULL, &err), -ENOENT);
	o.base = NULL;
	o.open_flags = IMGKIT_SHARE;
	assert_int_equal(imgkit_commit("top", &o, NULL, &err), -EINVAL);
	o.open_flags = 0;
	o.flags = 1U << 30;
	assert_int_equal(imgkit_commit("top", &o, NULL, &err), -EINVAL);

	image = open_image("top", IMGKIT_RDWR);
	ok(imgkit_snapshot_create(image, "s", &err), &err);
	imgkit_close(image);
	assert_int_equal(imgkit_commit("top", NULL, NULL, &err), -EPERM);
	assert_true(own_data("middle") == 65536); /* nothing has come */
	o.flags = IMGKIT_COMMIT_KEEP;
	ok(imgkit_commit("top", &o, NULL, &err), &err);
	assert_true(own_data("top") == 65536);
	o.flags = IMGKIT_COMMIT_CHANGE_SNAPSHOTS;
	ok(imgkit_commit("top", &o, NULL, &err), &err);
	assert_true(own_data("top") == 0);
	expect_chain();
}

static void test_rebase(void **state)
{
	IMGKIT_OPTS(imgkit_rebase_opts, o);
	struct imgkit_info info;
	struct imgkit_image *image;

	(void)state;
	make_chain();
	o.backing = "base";
	o.backing_format = "qcow2";
	ok(imgkit_rebase("top", &o, NULL, &err), &err);
	assert_true(own_data("top") == 131072); /* what middle had is there now */
	expect_chain();

	o.backing = "middle";
	o.flags = IMGKIT_REBASE_DROP_EQUAL;
	ok(imgkit_rebase("top", &o, NULL, &err), &err);
	assert_true(own_data("top") == 65536); /* and gone again */
	expect_chain();

	o.backing = o.backing_format = NULL;
	o.flags = IMGKIT_REBASE_COMPRESS;
	ok(imgkit_rebase("top", &o, NULL, &err), &err);
	image = open_image("top", 0);
	ok(imgkit_info(image, &info, sizeof(info), &err), &err);
	assert_null(info.backing);
	assert_null(info.data_file);
	imgkit_close(image);
	expect_chain();
}

static void test_rebase_unsafe(void **state)
{
	IMGKIT_OPTS(imgkit_rebase_opts, o);

	(void)state;
	make_chain();
	o.flags = IMGKIT_REBASE_UNSAFE;
	o.backing = "base";
	o.backing_format = "qcow2";
	ok(imgkit_rebase("top", &o, NULL, &err), &err);
	expect("top", "\0\0\0\0\0\0", 65536); /* middle's word is lost, as was asked for */
	expect("top", "base", 0);
	o.backing = "./top";
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -ELOOP);
	o.flags |= IMGKIT_REBASE_COMPRESS;
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -EINVAL);
	expect("top", "base", 0);
}

static void test_rebase_errors(void **state)
{
	IMGKIT_OPTS(imgkit_rebase_opts, o);
	struct imgkit_job *job = imgkit_job_new();

	(void)state;
	make_chain();
	assert_int_equal(imgkit_rebase("top", NULL, NULL, &err), -EINVAL);
	o.backing = "base";
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -EINVAL); /* of which format? */
	o.backing_format = "none";
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -EINVAL);
	o.backing_format = "qcow2";
	o.backing_flags = IMGKIT_RDWR;
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -EINVAL);
	o.backing_flags = 0;
	o.backing = "missing";
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -ENOENT);
	o.backing = "top";
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -EBUSY);
	o.backing_flags = IMGKIT_SHARE;
	assert_int_equal(imgkit_rebase("top", &o, NULL, &err), -ELOOP);
	o.backing = "base";
	imgkit_job_cancel(job);
	assert_int_equal(imgkit_rebase("top", &o, job, &err), -ECANCELED);
	imgkit_job_free(job);
	expect_chain();
}

/* ---- bitmaps ---- */

struct runs {
	uint64_t first, bytes;
	unsigned n, most;
};

static int add_run(void *ctx, uint64_t off, uint64_t len)
{
	struct runs *r = ctx;

	if (!r->n++)
		r->first = off;
	r->bytes += len;
	return r->n == r->most;
}

static struct runs dirty(struct imgkit_image *image, const char *name)
{
	struct runs runs = {0};

	ok(imgkit_bitmap_each(image, name, add_run, &runs, &err), &err);
	return runs;
}

static void test_bitmap_life(void **state)
{
	struct imgkit_image *image, *reader;
	struct imgkit_bitmap bitmap;
	struct runs runs = {.most = 1};

	(void)state;
	make("life", NULL, NULL);
	image = open_image("life", IMGKIT_RDWR);
	ok(imgkit_bitmap_add(image, "b", 4096, 0, &err), &err);
	ok(imgkit_bitmap_add(image, "off", 0, IMGKIT_BITMAP_DISABLED, &err), &err);
	assert_int_equal(imgkit_bitmap_add(image, "b", 0, 0, &err), -EEXIST);
	ok(imgkit_bitmap_get(image, 0, &bitmap, sizeof(bitmap), &err), &err);
	assert_string_equal(bitmap.name, "b");
	assert_true(bitmap.granularity == 4096 && bitmap.size == SIZE);
	assert_true(bitmap.enabled && !bitmap.inconsistent);
	ok(imgkit_bitmap_get(image, 1, &bitmap, sizeof(bitmap), &err), &err);
	assert_true(bitmap.granularity == 65536 && !bitmap.enabled);
	assert_int_equal(imgkit_bitmap_get(image, 2, &bitmap, sizeof(bitmap), &err), -ENOENT);

	ok(imgkit_pwrite(image, "x", 1, 10000, &err), &err);
	ok(imgkit_pwrite(image, "x", 1, 500000, &err), &err);
	assert_int_equal(dirty(image, "b").n, 2);
	assert_true(dirty(image, "b").first == 8192 && dirty(image, "b").bytes == 8192);
	assert_int_equal(dirty(image, "off").n, 0);
	assert_int_equal(imgkit_bitmap_each(image, "b", add_run, &runs, &err), 1); /* as run says */
	assert_int_equal(runs.n, 1);

	ok(imgkit_bitmap_merge(image, "off", image, "b", &err), &err);
	assert_true(dirty(image, "off").bytes == 131072);
	ok(imgkit_bitmap_enable(image, "b", 0, &err), &err);
	ok(imgkit_pwrite(image, "x", 1, 700000, &err), &err);
	assert_int_equal(dirty(image, "b").n, 2);
	ok(imgkit_bitmap_clear(image, "b", &err), &err);
	assert_int_equal(dirty(image, "b").n, 0);
	ok(imgkit_bitmap_remove(image, "b", &err), &err);
	imgkit_close(image);

	reader = open_image("life", 0);
	assert_true(dirty(reader, "off").bytes == 131072);
	assert_int_equal(imgkit_bitmap_each(reader, "b", add_run, &runs, &err), -ENOENT);
	assert_int_equal(imgkit_bitmap_clear(reader, "off", &err), -EROFS);
	imgkit_close(reader);
}

static void test_bitmap_errors(void **state)
{
	IMGKIT_OPTS(imgkit_create_opts, o);
	struct imgkit_image *image;
	struct imgkit_bitmap bitmap;

	(void)state;
	make("errors", NULL, NULL);
	image = open_image("errors", IMGKIT_RDWR);
	assert_int_equal(imgkit_bitmap_add(image, NULL, 0, 0, &err), -EINVAL);
	assert_int_equal(imgkit_bitmap_add(image, "", 0, 0, &err), -EINVAL);
	assert_int_equal(imgkit_bitmap_add(image, "b", 1000, 0, &err), -EINVAL);
	assert_int_equal(imgkit_bitmap_add(image, "b", 0, 8, &err), -EINVAL);
	assert_int_equal(imgkit_bitmap_remove(image, "b", &err), -ENOENT);
	assert_int_equal(imgkit_bitmap_clear(image, "b", &err), -ENOENT);
	assert_int_equal(imgkit_bitmap_enable(image, "b", 1, &err), -ENOENT);
	assert_int_equal(imgkit_bitmap_merge(image, "b", image, "b", &err), -ENOENT);
	assert_int_equal(imgkit_bitmap_merge(image, "b", NULL, "b", &err), -EINVAL);
	assert_int_equal(imgkit_bitmap_each(image, "b", NULL, NULL, &err), -EINVAL);
	imgkit_close(image);

	assert_true(imgkit_format_caps("qcow2") & IMGKIT_CAN_BITMAP);
	assert_false(imgkit_format_caps("raw") & IMGKIT_CAN_BITMAP);
	o.flags = IMGKIT_FORCE;
	ok(imgkit_create("errors.raw", "raw", SIZE, &o, &err), &err);
	image = open_image("errors.raw", IMGKIT_RDWR);
	assert_int_equal(imgkit_bitmap_add(image, "b", 0, 0, &err), -ENOTSUP);
	assert_int_equal(imgkit_bitmap_get(image, 0, &bitmap, sizeof(bitmap), &err), -ENOENT);
	imgkit_close(image);
}

/* Bitmaps go along when they are asked to; measure tells what they take. */
static void test_convert_bitmaps(void **state)
{
	IMGKIT_OPTS(imgkit_convert_opts, o);
	struct imgkit_measure_result m;
	struct imgkit_image *image;

	(void)state;
	make("from", NULL, NULL);
	image = open_image("from", IMGKIT_RDWR);
	ok(imgkit_bitmap_add(image, "b", 0, 0, &err), &err);
	ok(imgkit_pwrite(image, "x", 1, 500000, &err), &err);
	ok(imgkit_measure(image, 0, "qcow2", NULL, &m, sizeof(m), NULL, &err), &err);
	assert_true(m.bitmaps > 0);
	imgkit_close(image);
	o.flags = IMGKIT_CONVERT_FORCE | IMGKIT_CONVERT_BITMAPS;
	ok(imgkit_convert("from", "to", "qcow2", &o, NULL, &err), &err);
	image = open_image("to", 0);
	assert_true(dirty(image, "b").first == 7 * 65536 && dirty(image, "b").bytes == 65536);
	imgkit_close(image);
	assert_int_equal(imgkit_convert("from", "to", "raw", &o, NULL, &err), -ENOTSUP);
	o.snapshot = "s";
	assert_int_equal(imgkit_convert("from", "to", "qcow2", &o, NULL, &err), -EINVAL);
	o.snapshot = NULL;
	o.flags = IMGKIT_CONVERT_FORCE | IMGKIT_CONVERT_SKIP_BROKEN_BITMAPS;
	assert_int_equal(imgkit_convert("from", "to", "qcow2", &o, NULL, &err), -EINVAL);
}

/* And so do snapshots. */
static void test_convert_snapshots(void **state)
{
	IMGKIT_OPTS(imgkit_convert_opts, o);
	struct imgkit_image *image;
	struct imgkit_snapshot s;

	(void)state;
	make("from", NULL, NULL);
	image = open_image("from", IMGKIT_RDWR);
	ok(imgkit_snapshot_create(image, "first", &err), &err);
	ok(imgkit_pwrite(image, "x", 1, 500000, &err), &err);
	ok(imgkit_snapshot_create(image, "second", &err), &err);
	imgkit_close(image);
	o.flags = IMGKIT_CONVERT_FORCE | IMGKIT_CONVERT_SNAPSHOTS;
	ok(imgkit_convert("from", "to", "qcow2", &o, NULL, &err), &err);
	image = open_image("to", 0);
	ok(imgkit_snapshot_get(image, 1, &s, sizeof(s), &err), &err);
	assert_string_equal(s.name, "second");
	assert_int_equal(imgkit_snapshot_get(image, 2, &s, sizeof(s), &err), -ENOENT);
	imgkit_close(image);
	assert_int_equal(imgkit_convert("from", "to", "raw", &o, NULL, &err), -ENOTSUP);
	o.snapshot = "first";
	assert_int_equal(imgkit_convert("from", "to", "qcow2", &o, NULL, &err), -EINVAL);
}

static void test_cells(void **state)
{
	struct {
		struct imgkit_cell c;
		uint64_t guard;
	} cells[4] = {{.guard = 42}, {.guard = 42}, {.guard = 42}, {.guard = 42}};
	struct imgkit_image *image;
	uint64_t per_cell = 0;
	unsigned n = 0;

	(void)state;
	make_chain();
	image = open_image("top", IMGKIT_RDWR);
	ok(imgkit_zero(image, 3 * SIZE / 4, SIZE / 4, 0, &err), &err);
	assert_int_equal(imgkit_map_cells(image, 0, SIZE, &cells[0].c, sizeof(cells[0]), &n,
					  &per_cell, &err),
			 -EINVAL);
	n = 4;
	ok(imgkit_map_cells(image, 0, UINT64_MAX, &cells[0].c, sizeof(cells[0]), &n, &per_cell,
			    &err),
	   &err);
	assert_int_equal(n, 4);
	assert_true(per_cell == SIZE / 4);
	assert_true(cells[0].c.data == 65536 && cells[0].c.backing == 131072);
	assert_true(cells[0].c.hole == 65536 && cells[0].c.zero == 0);
	assert_true(cells[1].c.hole == SIZE / 4 && cells[3].c.zero == SIZE / 4);
	/* A program whose cells are shorter than ours. */
	cells[0].guard = 42;
	n = 1;
	ok(imgkit_map_cells(image, 0, 65536, &cells[0].c, 8, &n, &per_cell, &err), &err);
	assert_true(cells[0].c.data == 0 && cells[0].c.backing == 131072);
	assert_true(cells[0].guard == 42);
	imgkit_close(image);
}

/* A data file elsewhere is opened when it is allowed, and not before. */
static void test_external(void **state)
{
	static const char *const allowed[] = {"outside/data", NULL};
	IMGKIT_OPTS(imgkit_open_opts, o);
	IMGKIT_OPTS(imgkit_convert_opts, c);
	struct imgkit_image *image = NULL;
	struct imgkit_info info;

	(void)state;
	assert_int_equal(mkdir("outside", 0777), 0);
	assert_int_equal(mkdir("inside", 0777), 0);
	make("inside/image", "data_file=../outside/data", NULL);
	assert_true(imgkit_open("inside/image", NULL, &image, &err) < 0);
	o.external = allowed;
	ok(imgkit_open("inside/image", &o, &image, &err), &err);
	ok(imgkit_info(image, &info, sizeof(info), &err), &err);
	assert_string_equal(info.data_file, "../outside/data");
	imgkit_close(image);
	c.flags = IMGKIT_CONVERT_FORCE;
	assert_true(imgkit_convert("inside/image", "copy", "raw", &c, NULL, &err) < 0);
	c.external = allowed;
	ok(imgkit_convert("inside/image", "copy", "raw", &c, NULL, &err), &err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit),          cmocka_unit_test(test_commit_to_base),
		cmocka_unit_test(test_commit_errors),   cmocka_unit_test(test_rebase),
		cmocka_unit_test(test_rebase_unsafe),   cmocka_unit_test(test_rebase_errors),
		cmocka_unit_test(test_bitmap_life),     cmocka_unit_test(test_bitmap_errors),
		cmocka_unit_test(test_convert_bitmaps), cmocka_unit_test(test_convert_snapshots),
		cmocka_unit_test(test_cells),           cmocka_unit_test(test_external),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
