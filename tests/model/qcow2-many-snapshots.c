// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An image with 1000 snapshots: each shows the disk as it was, before and after others are deleted and
 * gone back to; no check finds a fault, ours or the peer's; and 200 of them are copied with the disk.
 *
 * variants: release asan
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk.h"
#include "layers.h"
#include "ops/convert.h"
#include "peer.h"
#include "rng.h"
#include "tell.h"

#define COUNT    1000
#define CLUSTER  4096
#define CLUSTERS 64
#define SIZE     (CLUSTERS * CLUSTER)

static struct err e;
static unsigned char model[COUNT][CLUSTERS]; /* by snapshot: what each cluster is filled with */
static unsigned char now[CLUSTERS];

static void write_some(struct img *img, struct rng *rng)
{
	unsigned char buf[CLUSTER];

	for (int i = 0; i < 2; i++) {
		uint64_t c = rng_below(rng, CLUSTERS);

		now[c] = (unsigned char)rng_range(rng, 1, 256);
		memset(buf, now[c], sizeof(buf));
		must(io_pwrite(&img->io, buf, sizeof(buf), c * CLUSTER, &e), &e);
	}
}

static void must_hold(struct img *img, const unsigned char *want)
{
	static unsigned char buf[SIZE];

	expect(io_size(&img->io) == SIZE);
	must(io_pread(&img->io, buf, SIZE, 0, &e), &e);
	for (unsigned i = 0; i < SIZE; i++)
		if (buf[i] != want[i / CLUSTER])
			die("byte %u is %u, not %u", i, buf[i], want[i / CLUSTER]);
}

static void must_be_sound(struct io *file)
{
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	struct check_sink sink = {0};
	struct check_result res;

	must(img_check(img, 0, &res, &sink, NULL, &e), &e);
	expect(res.corruptions + res.leaks + res.check_errors == 0);
	io_close(&img->io);
}

/* Every so manieth of the snapshots that are there; ids are counted from 1. */
static void must_show_all(struct io *file, unsigned step)
{
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	unsigned n;
	const struct snapshot *list = img_snapshots(img, &n);

	for (unsigned i = 0; i < n; i += step) {
		char name[16];

		context("snapshot %u", i);
		must(img_snapshot_view(img, i, &e), &e);
		snprintf(name, sizeof(name), "number %s", list[i].id);
		expect(!strcmp(list[i].name, name));
		must_hold(img, model[strtol(list[i].id, NULL, 10) - 1]);
	}
	io_close(&img->io);
}

static void take_all(struct img *img, struct rng *rng)
{
	for (unsigned i = 0; i < COUNT; i++) {
		char name[16];

		context("taking snapshot %u", i);
		write_some(img, rng);
		snprintf(name, sizeof(name), "number %u", i + 1);
		must(img_snapshot_create(img, name, NULL, &e), &e);
		memcpy(model[i], now, sizeof(now));
	}
}

static void go_back(struct img *img, struct rng *rng)
{
	static const unsigned where[] = {0, COUNT - 1, 517, 64};

	for (size_t i = 0; i < ARRAY_LEN(where); i++) {
		context("going back to snapshot %u", where[i]);
		must(img_snapshot_apply(img, where[i], &e), &e);
		memcpy(now, model[where[i]], sizeof(now));
		must_hold(img, now);
		write_some(img, rng);
	}
}

/* At places all over the table, until so many are left. */
static void delete_to(struct img *img, struct rng *rng, unsigned left)
{
	unsigned n;

	for (img_snapshots(img, &n); n > left; n--) {
		context("deleting one of %u snapshots", n);
		must(img_snapshot_remove(img, (unsigned)rng_below(rng, n), &e), &e);
	}
}

static void copy_all(struct io *file)
{
	struct img *src = disk_open(file, "qcow2", 0, NULL), *dst;
	const struct img_open_args args = {.path = "copy.qcow2"};
	const struct convert_request req = {
		.src = &src,
		.n_src = 1,
		.path = args.path,
		.target_flags = TARGET_UNSAFE,
		.format = "qcow2",
		.snapshots = true,
		.copy = {.sparse = 4096, .compress = true},
	};

	context("converting");
	must(convert(&req, NULL, &e), &e);
	must(img_open(&args, &dst, &e), &e);
	layers_same(src, dst);
	io_close(&dst->io);
	io_close(&src->io);
}

/* The peer's opinion of a file, and how many snapshots it sees. */
static void ask_peer(const char *path, unsigned count)
{
	if (!peer_here())
		return;
	context("asking the peer about %s", path);
	if (peer("check %s", path))
		die("%s", peer_log());
	/* Below two lines of heading. */
	if (peer("snapshot -l %s | tail -n +3 | wc -l", path) ||
	    strtoul(peer_log(), NULL, 10) != count)
		die("%s snapshots instead of %u", peer_log(), count);
}

int main(void)
{
	struct io *file = disk_new("disk.qcow2");
	struct rng rng = {.state = 5};
	struct img *img;

	disk_create(file, "qcow2", SIZE, "cluster_size=4096", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	take_all(img, &rng);
	io_close(&img->io);
	must_be_sound(file);
	must_show_all(file, 37);
	disk_save(file, "thousand.qcow2");
	ask_peer("thousand.qcow2", COUNT);

	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	go_back(img, &rng);
	delete_to(img, &rng, 200);
	must_hold(img, now);
	io_close(&img->io);
	must_be_sound(file);
	must_show_all(file, 1);
	disk_save(file, "some.qcow2");
	ask_peer("some.qcow2", 200);
	copy_all(file);
	ask_peer("copy.qcow2", 200);

	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	delete_to(img, &rng, 0);
	must_hold(img, now);
	io_close(&img->io);
	must_be_sound(file);
	io_close(file);
	return 0;
}
