// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Refcounts that are too narrow for one more reference: the snapshot is refused, going back to one is,
 * and not a byte of the image changes; it goes on as it was, and can share no more than fits.
 */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "lib/mix.h"
#include "ops/dedup.h"

#define CLUSTER UINT64_C(4096)
#define SIZE    (64 * CLUSTER)

static struct err e;
static unsigned char content[SIZE];

struct width {
	unsigned bits;
	unsigned snapshots; /* that fit beside the disk */
};
static const struct width widths[] = {{1, 0}, {2, 2}, {4, 14}, {8, 254}};

static enum fill all_data(void *ctx, uint64_t cluster)
{
	(void)ctx;
	return cluster < 48 ? FILL_DATA : FILL_NONE;
}

static struct io *new_image(unsigned bits)
{
	struct io *file = disk_new("disk.qcow2");
	char opts[64];
	struct fill_args args = {.size = SIZE, .opts = opts, .data = content, .kind = all_data};

	/* Groups of three clusters that are equal. */
	for (uint64_t c = 0; c < 48; c++)
		memset(content + c * CLUSTER, (int)(c / 3 + 1), CLUSTER);
	snprintf(opts, sizeof(opts), "cluster_size=%u,refcount_bits=%u", (unsigned)CLUSTER, bits);
	disk_fill(file, "qcow2", &args);
	return file;
}

static void assert_sound(struct io *file)
{
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	struct check_sink sink = {0};
	static unsigned char buf[SIZE];
	struct check_result res;
	unsigned n;

	ok(img_check(img, 0, &res, &sink, NULL, &e), &e);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	ok(io_pread(&img->io, buf, SIZE, 0, &e), &e);
	assert_memory_equal(buf, content, SIZE);
	img_snapshots(img, &n);
	for (unsigned i = 0; i < n; i += 1 + n / 4)
		ok(img_snapshot_view(img, i, &e), &e);
	io_close(&img->io);
}

enum change { TAKE, GO_BACK };

/* The change is refused, and the file is what it was. */
static void assert_refused(struct io *file, enum change change)
{
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	unsigned char *before, *after;
	uint64_t n, m;

	before = disk_bytes(file, &n);
	if (change == TAKE)
		fails(img_snapshot_create(img, "one more", NULL, &e), -EINVAL, &e,
		      "cannot go above");
	else
		fails(img_snapshot_apply(img, 0, &e), -EINVAL, &e, "cannot go above");
	io_close(&img->io);
	after = disk_bytes(file, &m);
	assert_int_equal(n, m);
	assert_memory_equal(before, after, n);
	free(before);
	free(after);
	assert_sound(file);
}

static void take(struct io *file, unsigned n)
{
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);

	for (unsigned i = 0; i < n; i++)
		ok(img_snapshot_create(img, "fits", NULL, &e), &e);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
}

/* At the maximum: writes copy, and what was dropped can be taken again. */
static void go_on(struct io *file, const struct width *w)
{
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);

	memset(content + 5 * CLUSTER, 0xee, CLUSTER + 100);
	ok(io_pwrite(&img->io, content + 5 * CLUSTER, CLUSTER + 100, 5 * CLUSTER, &e), &e);
	ok(io_zero(&img->io, 20 * CLUSTER, 3 * CLUSTER, IO_ZERO_UNMAP, &e), &e);
	memset(content + 20 * CLUSTER, 0, 3 * CLUSTER);
	if (w->snapshots) {
		ok(img_snapshot_remove(img, w->snapshots / 2, &e), &e);
		ok(img_snapshot_create(img, "instead", NULL, &e), &e);
	}
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	assert_sound(file);
}

static void test_snapshots(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
		struct io *file = new_image(widths[i].bits);

		take(file, widths[i].snapshots);
		assert_sound(file);
		assert_refused(file, TAKE);
		if (widths[i].snapshots)
			assert_refused(file, GO_BACK);
		go_on(file, &widths[i]);
		assert_refused(file, TAKE);
		io_close(file);
	}
}

/* Equal clusters, all in snapshots already: sharing ends where the refcount does. */
static void test_dedup(void **state)
{
	const struct dedup_args args = {.hash = &mix_hash, .within = true};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
		for (unsigned n = 0; n <= widths[i].snapshots && n < 20; n += 1 + n / 3) {
			struct io *file = new_image(widths[i].bits);
			struct img *img;
			struct dedup_result res;

			take(file, n);
			img = disk_open(file, "qcow2", IMG_RDWR, NULL);
			ok(dedup_run(img, &args, &res, NULL, &e), &e);
			if (n == 0) /* all three of a group fit into 2 bits */
				assert_int_equal(res.freed, widths[i].bits == 1 ? 0 : 32 * CLUSTER);
			ok(img_settle(img, &e), &e);
			io_close(&img->io);
			assert_sound(file);
			io_close(file);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_dedup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
