// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A mirror with every call of the source's or of the target's file failing, once or from then on: it
 * ends with that error and a text, and whatever the source's bitmap does not have is equal on both
 * sides: so one more run, with nothing failing, makes the disks equal. First runs, which make the
 * bitmap, and later ones.
 *
 * variants: release asan
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk.h"
#include "ops/bitmap.h"
#include "ops/mirror.h"
#include "tell.h"

#define SIZE (2 * MiB)

static struct fault_plan plan;

struct pair {
	struct io *src, *dst; /* files in memory */
};

static void write_some(struct img *img, unsigned char byte, uint64_t step)
{
	unsigned char buf[700];
	struct err e = {0};

	memset(buf, byte, sizeof(buf));
	for (uint64_t at = step / 2; at < SIZE - sizeof(buf); at += step)
		must(io_pwrite(&img->io, buf, sizeof(buf), at, &e), &e);
	must(io_zero(&img->io, step, 8 * KiB, IO_ZERO_UNMAP, &e), &e);
}

/* Opens both over fault, runs a mirror, and closes them. */
static int mirror(const struct pair *p, bool fail_src, bool full, uint64_t at, struct err *err)
{
	struct io *file[2] = {p->src, p->dst}, *faulty;
	struct img *img[2];
	struct err e = {0};
	struct mirror_result res;
	int r;

	for (int i = 0; i < 2; i++) {
		if ((i == 0) == fail_src)
			must(fault_open(file[i], false, &plan, &faulty, &e), &e);
		else
			faulty = disk_borrow(file[i]);
		must(img_open_io(faulty, "qcow2", IMG_RDWR, NULL, &img[i], &e), &e);
	}
	const struct mirror_args args = {
		.src = img[0], .dst = img[1], .bitmap = "m", .full = full, .workers = 1};
	atomic_store(&plan.calls, 0);
	plan.fail_at = at;
	r = mirror_run(&args, &res, NULL, err);
	plan.fail_at = 0;
	io_close(&img[1]->io);
	io_close(&img[0]->io);
	return r;
}

/* Bytes that differ, though the bitmap does not have them; SIZE where there is no bitmap. */
static void judge(const struct pair *p, bool after)
{
	struct img *src = disk_open(p->src, "qcow2", 0, NULL);
	struct img *dst = disk_open(p->dst, "qcow2", 0, NULL);
	unsigned char *a = malloc(SIZE), *b = malloc(SIZE);
	struct bitmap_cursor c = {0};
	struct bitmap bitmap = {0};
	struct err e = {0};
	unsigned index;
	bool there = bitmap_find(src, "m", &index, NULL) == 0;

	expect(a && b);
	must(io_pread(&src->io, a, SIZE, 0, &e), &e);
	must(io_pread(&dst->io, b, SIZE, 0, &e), &e);
	if (there)
		img_bitmap_get(src, index, &bitmap);
	if (after && (!there || bitmap.inconsistent || memcmp(a, b, SIZE)))
		die("after a run that succeeded the disks differ");
	if (there && !bitmap.inconsistent && bitmap.enabled) {
		must(bitmap_cursor_open(&c, src, index, &e), &e);
		for (uint64_t at = 0, run; at < SIZE; at += run) {
			bool dirty;

			must(bitmap_cursor_run(&c, at, SIZE - at, &dirty, &run, &e), &e);
			if (!dirty && memcmp(a + at, b + at, run))
				die("the bitmap does not have what differs behind %" PRIu64, at);
		}
		bitmap_cursor_close(&c);
	}
	free(a);
	free(b);
	io_close(&src->io);
	io_close(&dst->io);
}

static struct pair make_pair(bool mirrored)
{
	struct pair p = {disk_new("source"), disk_new("target")};
	struct err e = {0};
	struct img *img;

	disk_create(p.src, "qcow2", SIZE, "cluster_size=4k", NULL, NULL);
	disk_create(p.dst, "qcow2", SIZE, "cluster_size=16k", NULL, NULL);
	img = disk_open(p.dst, "qcow2", IMG_RDWR, NULL);
	write_some(img, 9, 300 * KiB);
	io_close(&img->io);
	img = disk_open(p.src, "qcow2", IMG_RDWR, NULL);
	write_some(img, 1, 200 * KiB);
	io_close(&img->io);
	if (!mirrored)
		return p;
	must(mirror(&p, true, false, 0, &e), &e);
	img = disk_open(p.src, "qcow2", IMG_RDWR, NULL);
	write_some(img, 2, 350 * KiB);
	io_close(&img->io);
	return p;
}

static bool try(const struct pair *origin, bool fail_src, bool full, uint64_t at)
{
	struct pair p = {disk_copy(origin->src, "source"), disk_copy(origin->dst, "target")};
	struct err e = {0};
	bool failed;
	int r;

	r = mirror(&p, fail_src, full, at, &e);
	failed = atomic_load(&plan.calls) >= at;
	if (r < 0 && (r != -plan.code || !e.msg[0]))
		die("%d: %s", r, e.msg);
	judge(&p, r == 0);
	/* A bitmap that was left in use, or disabled, is void: only a full copy helps, and it says so. */
	if (r < 0) {
		r = mirror(&p, fail_src, false, 0, &e);
		if (r == -ESTALE)
			r = mirror(&p, fail_src, true, 0, &e);
		must(r, &e);
		judge(&p, true);
	}
	io_close(p.src);
	io_close(p.dst);
	return failed;
}

int main(void)
{
	static const struct {
		int code;
		bool sticky;
	} faults[] = {{EIO, false}, {EIO, true}, {ENOSPC, true}};
	uint64_t runs = 0;

	for (int kind = 0; kind < 3; kind++) { /* first, incremental, full once more */
		struct pair origin = make_pair(kind > 0);

		for (size_t f = 0; f < ARRAY_LEN(faults) * 2; f++) {
			bool more = true;

			plan.code = faults[f / 2].code;
			plan.sticky = faults[f / 2].sticky;
			plan.writes_only = plan.code == ENOSPC;
			for (uint64_t at = 1; more; at++, runs++) {
				context("kind %d, %s, call %" PRIu64 "%s: %s", kind,
					f % 2 ? "source" : "target", at,
					plan.sticky ? " and on" : "", strerror(plan.code));
				more = try(&origin, f % 2, kind == 2, at);
			}
		}
		io_close(origin.src);
		io_close(origin.dst);
	}
	printf("%" PRIu64 " runs\n", runs);
	return runs < 200;
}
