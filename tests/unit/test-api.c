// SPDX-License-Identifier: GPL-2.0-or-later
/* The public API as a program sees it: only imgkit.h, files in the current directory. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "imgkit.h"

#define SIZE (UINT64_C(16) << 20)

static struct imgkit_err err;

static struct imgkit_image *open_rw(const char *path)
{
	IMGKIT_OPTS(imgkit_open_opts, o);
	struct imgkit_image *image = NULL;

	o.flags = IMGKIT_RDWR;
	ok(imgkit_open(path, &o, &image, &err), &err);
	return image;
}

static struct imgkit_image *open_ro(const char *path)
{
	struct imgkit_image *image = NULL;

	ok(imgkit_open(path, NULL, &image, &err), &err);
	return image;
}

static void create_qcow2(const char *path)
{
	IMGKIT_OPTS(imgkit_create_opts, o);

	o.flags = IMGKIT_FORCE;
	ok(imgkit_create(path, "qcow2", SIZE, &o, &err), &err);
}

static void test_version(void **state)
{
	(void)state;
	assert_string_equal(imgkit_version(), IMGKIT_VERSION);
}

static void test_formats(void **state)
{
	unsigned n = 0, found = 0;

	(void)state;
	for (const char *name; (name = imgkit_format_name(n)); n++) {
		assert_non_null(imgkit_format_summary(name));
		assert_true(imgkit_format_caps(name) & IMGKIT_CAN_WRITE);
		found += strcmp(name, "qcow2") == 0 || strcmp(name, "raw") == 0;
	}
	assert_int_equal(found, 2);
	assert_null(imgkit_format_name(n + 1));
	assert_true(imgkit_format_caps("qcow2") & IMGKIT_CAN_SNAPSHOT);
	assert_false(imgkit_format_caps("raw") & IMGKIT_CAN_SNAPSHOT);
	assert_null(imgkit_format_summary("none"));
	assert_int_equal(imgkit_format_caps("none"), 0);
	assert_null(imgkit_format_summary(NULL));
}

static void test_data(void **state)
{
	static unsigned char buf[8192], zeros[8192];
	struct imgkit_image *image;
	struct imgkit_extent ext;

	(void)state;
	create_qcow2("data.qcow2");
	image = open_rw("data.qcow2");
	assert_true(imgkit_size(image) == SIZE);
	assert_string_equal(imgkit_format(image), "qcow2");
	ok(imgkit_pwrite(image, "hello", 5, 1000003, &err), &err);
	ok(imgkit_pread(image, buf, 5, 1000003, &err), &err);
	assert_memory_equal(buf, "hello", 5);

	ok(imgkit_map(image, 1000003, 5, &ext, &err), &err);
	assert_int_equal(ext.kind, IMGKIT_DATA);
	assert_true(ext.off == 1000003 && ext.len == 5 && ext.host != IMGKIT_NO_HOST);
	assert_string_equal(ext.file, "data.qcow2");
	ok(imgkit_map(image, SIZE - 1, 1, &ext, &err), &err);
	assert_int_equal(ext.kind, IMGKIT_ABSENT);
	assert_true(ext.host == IMGKIT_NO_HOST && !ext.file);

	ok(imgkit_zero(image, 1000000, 8192, IMGKIT_ZERO_UNMAP, &err), &err);
	ok(imgkit_pread(image, buf, sizeof(buf), 1000000, &err), &err);
	assert_memory_equal(buf, zeros, sizeof(buf));
	ok(imgkit_discard(image, 0, SIZE, &err), &err);
	ok(imgkit_flush(image, &err), &err);
	imgkit_close(image);
}

static void test_errors(void **state)
{
	struct imgkit_image *image = NULL;
	IMGKIT_OPTS(imgkit_open_opts, o);
	unsigned char byte = 1;

	(void)state;
	assert_int_equal(imgkit_open("missing", NULL, &image, &err), -ENOENT);
	assert_int_equal(err.code, ENOENT);
	assert_non_null(strstr(err.msg, "missing"));
	assert_null(image);
	/* No text wanted. */
	assert_int_equal(imgkit_open("missing", NULL, &image, NULL), -ENOENT);
	assert_int_equal(imgkit_open(NULL, NULL, &image, &err), -EINVAL);

	create_qcow2("errors.qcow2");
	assert_int_equal(imgkit_create("errors.qcow2", "qcow2", SIZE, NULL, &err), -EEXIST);
	assert_int_equal(imgkit_create("new.x", "none", SIZE, NULL, &err), -EINVAL);
	assert_int_equal(access("new.x", F_OK), -1);

	image = open_ro("errors.qcow2");
	assert_int_equal(imgkit_pwrite(image, &byte, 1, 0, &err), -EROFS);
	assert_true(imgkit_pread(image, &byte, 1, SIZE, &err) < 0);
	assert_true(imgkit_pread(image, &byte, 1, UINT64_MAX, &err) < 0);
	assert_int_equal(imgkit_zero(image, 0, 1, 1U << 30, &err), -EINVAL);
	assert_int_equal(imgkit_resize(image, SIZE, (enum imgkit_prealloc)9, &err), -EINVAL);
	assert_int_equal(imgkit_map(image, 0, 0, &(struct imgkit_extent){0}, &err), -EINVAL);
	imgkit_close(image);
	imgkit_close(NULL);

	o.flags = IMGKIT_RDWR | IMGKIT_SHARE;
	assert_int_equal(imgkit_open("errors.qcow2", &o, &image, &err), -EINVAL);
	o.flags = 1U << 30;
	assert_int_equal(imgkit_open("errors.qcow2", &o, &image, &err), -EINVAL);
}

/* What a program that was built with another version of the header hands in. */
static void test_struct_sizes(void **state)
{
	struct {
		struct imgkit_open_opts o;
		uint64_t future;
	} newer = {.o.struct_size = sizeof(newer)};
	struct imgkit_open_opts older = {.struct_size = offsetof(struct imgkit_open_opts, snapshot),
					 .snapshot = (const char *)8 /* not looked at */};
	struct imgkit_image *image = NULL;
	struct {
		uint64_t size, guard;
	} result = {.guard = 42};
	IMGKIT_OPTS(imgkit_open_opts, none);

	(void)state;
	create_qcow2("sizes.qcow2");
	ok(imgkit_open("sizes.qcow2", &newer.o, &image, &err), &err);
	imgkit_close(image);
	newer.future = 1;
	assert_int_equal(imgkit_open("sizes.qcow2", &newer.o, &image, &err), -EINVAL);
	none.struct_size = 0;
	assert_int_equal(imgkit_open("sizes.qcow2", &none, &image, &err), -EINVAL);

	ok(imgkit_open("sizes.qcow2", &older, &image, &err), &err);
	ok(imgkit_info(image, (struct imgkit_info *)(void *)&result, sizeof(result.size), &err),
	   &err);
	assert_true(result.size == SIZE && result.guard == 42);
	assert_int_equal(imgkit_info(image, (struct imgkit_info *)(void *)&result, 0, &err),
			 -EINVAL);
	imgkit_close(image);
}

static void test_info(void **state)
{
	IMGKIT_OPTS(imgkit_create_opts, o);
	struct imgkit_info info;
	struct imgkit_image *image;
	struct stat st;

	(void)state;
	create_qcow2("base.qcow2");
	o.flags = IMGKIT_FORCE;
	o.backing = "base.qcow2";
	o.backing_format = "qcow2";
	o.options = "cluster_size=4096";
	ok(imgkit_create("overlay.qcow2", "qcow2", UINT64_MAX, &o, &err), &err);
	image = open_ro("overlay.qcow2");
	ok(imgkit_info(image, &info, sizeof(info), &err), &err);
	assert_int_equal(stat("overlay.qcow2", &st), 0);
	assert_true(info.size == SIZE);
	assert_true(info.allocated == (uint64_t)st.st_blocks * 512);
	assert_true(info.cluster_size == 4096);
	assert_false(info.dirty || info.encrypted || info.snapshots);
	assert_string_equal(info.format, "qcow2");
	assert_string_equal(info.backing, "base.qcow2");
	assert_string_equal(info.backing_format, "qcow2");
	/* Asking again is fine: what the first answer held is freed. */
	ok(imgkit_info(image, &info, sizeof(info), &err), &err);
	imgkit_close(image);
}

static void test_resize(void **state)
{
	unsigned char buf[16], zeros[16] = {0};
	struct imgkit_image *image;

	(void)state;
	create_qcow2("resize.qcow2");
	image = open_rw("resize.qcow2");
	ok(imgkit_resize(image, 2 * SIZE, IMGKIT_PREALLOC_METADATA, &err), &err);
	assert_true(imgkit_size(image) == 2 * SIZE);
	ok(imgkit_pread(image, buf, sizeof(buf), 2 * SIZE - sizeof(buf), &err), &err);
	assert_memory_equal(buf, zeros, sizeof(buf));
	ok(imgkit_resize(image, SIZE / 2, IMGKIT_PREALLOC_OFF, &err), &err);
	imgkit_close(image);
	image = open_ro("resize.qcow2");
	assert_true(imgkit_size(image) == SIZE / 2);
	imgkit_close(image);
}

static void test_amend(void **state)
{
	struct imgkit_image *image;

	(void)state;
	create_qcow2("amend.qcow2");
	image = open_rw("amend.qcow2");
	ok(imgkit_pwrite(image, "a", 1, SIZE / 4, &err), &err);
	assert_int_equal(imgkit_amend(image, NULL, 0, NULL, &err), -EINVAL);
	assert_int_equal(imgkit_amend(image, "size=1M", 8, NULL, &err), -EINVAL);
	assert_int_equal(imgkit_amend(image, "refcount_bits=3", 0, NULL, &err), -EINVAL);
	ok(imgkit_amend(image, "refcount_bits=8,size=2M", IMGKIT_AMEND_SHRINK, NULL, &err), &err);
	imgkit_close(image);
	image = open_ro("amend.qcow2");
	assert_true(imgkit_size(image) == 2 << 20);
	imgkit_close(image);
}

static void test_snapshots(void **state)
{
	struct imgkit_snapshot snap;
	struct imgkit_image *image;
	char c;

	(void)state;
	create_qcow2("snap.qcow2");
	image = open_rw("snap.qcow2");
	ok(imgkit_pwrite(image, "a", 1, 0, &err), &err);
	ok(imgkit_snapshot_create(image, "first", &err), &err);
	ok(imgkit_pwrite(image, "b", 1, 0, &err), &err);
	ok(imgkit_snapshot_get(image, 0, &snap, sizeof(snap), &err), &err);
	assert_string_equal(snap.name, "first");
	assert_string_equal(snap.id, "1");
	assert_true(snap.disk_size == SIZE);
	assert_true(snap.vm_state_size == 0);
	assert_true(snap.date_sec > 1600000000);
	assert_int_equal(imgkit_snapshot_get(image, 1, &snap, sizeof(snap), &err), -ENOENT);
	ok(imgkit_snapshot_apply(image, "first", &err), &err);
	ok(imgkit_pread(image, &c, 1, 0, &err), &err);
	assert_int_equal(c, 'a');
	assert_int_equal(imgkit_snapshot_remove(image, "second", &err), -ENOENT);
	ok(imgkit_snapshot_remove(image, "1", &err), &err);
	assert_int_equal(imgkit_snapshot_get(image, 0, &snap, sizeof(snap), &err), -ENOENT);
	imgkit_close(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version),      cmocka_unit_test(test_formats),
		cmocka_unit_test(test_data),         cmocka_unit_test(test_errors),
		cmocka_unit_test(test_struct_sizes), cmocka_unit_test(test_info),
		cmocka_unit_test(test_resize),       cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_amend),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
