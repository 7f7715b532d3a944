// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * qcow2 on something that cannot grow and is full: an error that leaves the image whole, and the
 * space of what was discarded is used again by the next change, without a flush in between.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/qcow2.h"
#include "io/window.h"
#include "lib/disk.h"

#define CLUSTER  UINT64_C(4096)
#define CLUSTERS 64 /* of the disk, and of the device that is to hold it */

static struct err e;

struct full {
	struct io *base_file, *mem, *device;
	struct img *img;
	uint64_t n; /* guest clusters that the device took */
};

/* An overlay over a disk of 0x11, with 0x22 in as many clusters as there is space for. */
static void fill(struct full *f, const char *opts)
{
	static unsigned char base[CLUSTERS * CLUSTER], cluster[CLUSTER];
	int r = 0;

	memset(base, 0x11, sizeof(base));
	memset(cluster, 0x22, sizeof(cluster));
	f->base_file = disk_from_bytes(base, sizeof(base), "base.raw");
	f->mem = disk_from_bytes(base, CLUSTERS * CLUSTER, "device");
	ok(window_open(f->mem, 0, io_size(f->mem), false, &f->device, &e), &e);
	disk_create(f->device, "qcow2", sizeof(base), opts, "base.raw", "raw");
	f->img = disk_open(f->device, "qcow2", IMG_RDWR, disk_open(f->base_file, "raw", 0, NULL));
	for (f->n = 0; r == 0 && f->n < CLUSTERS; f->n += r == 0)
		r = io_pwrite(&f->img->io, cluster, CLUSTER, f->n * CLUSTER, &e);
	assert_int_equal(r, -ENOSPC);
	assert_in_range(f->n, CLUSTERS - 10, CLUSTERS - 4);
}

static void done(struct full *f)
{
	struct check_result res;

	ok(img_settle(f->img, &e), &e);
	ok(img_check(f->img, 0, &res, NULL, NULL, &e), &e);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	io_close(&f->img->io);
	io_close(f->device);
	io_close(f->mem);
	io_close(f->base_file);
}

static void reads(struct full *f, uint64_t off, uint64_t len, int byte)
{
	unsigned char buf[CLUSTER];

	ok(io_pread(&f->img->io, buf, len, off, &e), &e);
	for (uint64_t i = 0; i < len; i++)
		assert_int_equal(buf[i], byte);
}

static const char *const kinds[] = {"cluster_size=4096", "cluster_size=4096,lazy_refcounts=on"};

static void an_error_changes_nothing(void **state)
{
	unsigned char cluster[CLUSTER] = {0};
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct full f;

		fill(&f, kinds[i]);
		fails(io_pwrite(&f.img->io, cluster, CLUSTER, f.n * CLUSTER, &e), -ENOSPC, &e,
		      "no space left");
		fails(io_zero(&f.img->io, f.n * CLUSTER + 100, 200, 0, &e), -ENOSPC, &e,
		      "no space left");
		reads(&f, f.n * CLUSTER, CLUSTER, 0x11);
		reads(&f, 0, CLUSTER, 0x22);
		/* What has its place can be written. */
		ok(io_pwrite(&f.img->io, cluster, CLUSTER, 0, &e), &e);
		reads(&f, 0, CLUSTER, 0);
		done(&f);
	}
}

static void freed_space_is_used(void **state)
{
	unsigned char cluster[CLUSTER] = {0};
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct full f;

		fill(&f, kinds[i]);
		ok(io_discard(&f.img->io, 0, CLUSTER, &e), &e);
		ok(io_pwrite(&f.img->io, cluster, CLUSTER, f.n * CLUSTER, &e), &e);
		ok(io_discard(&f.img->io, CLUSTER, CLUSTER, &e), &e);
		ok(io_zero(&f.img->io, (f.n + 1) * CLUSTER + 100, 200, 0, &e), &e);
		reads(&f, (f.n + 1) * CLUSTER, 100, 0x11);
		reads(&f, (f.n + 1) * CLUSTER + 100, 200, 0);
		reads(&f, (f.n + 1) * CLUSTER + 300, 100, 0x11);
		done(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_changes_nothing),
		cmocka_unit_test(freed_space_is_used),
	};

	return cmocka_run_group_tests_name("qcow2 that is full", tests, NULL, NULL);
}
