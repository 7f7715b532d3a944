// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random operations on a qcow2 image with an external data file and on a copy in plain memory: both
 * must always say the same; with data_file_raw so must the data file by itself. The table of the image
 * is sound whenever it is settled, for us and for qemu-img. In one image of three some I/O fails, and
 * then what was flushed is there.
 *
 * SEED=n runs one image; SOAK_SECONDS=n new ones for so long.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk.h"
#include "peer.h"
#include "rng.h"
#include "tell.h"

#define MAX_SIZE (3 * MiB)
#define OPS      250

struct subject {
	struct rng rng;
	struct io *file, *data, *below; /* owned; below: raw backing file, or NULL */
	struct fault_plan plan[2];      /* of the image's file, of the data file */
	struct img *img;
	unsigned char *bytes; /* MAX_SIZE: what the disk holds */
	unsigned char *buf;
	uint64_t size, cluster;
	bool raw;
};

static void open_subject(struct subject *s, unsigned flags)
{
	struct img *backing = s->below ? disk_open(s->below, "raw", 0, NULL) : NULL;
	struct err e = {0};
	struct io *file, *data;

	must(fault_open(s->file, false, &s->plan[0], &file, &e), &e);
	must(fault_open(s->data, false, &s->plan[1], &data, &e), &e);
	must(img_open_io(file, "qcow2", flags, backing, &s->img, &e), &e);
	must(img_set_data_file(s->img, data, &e), &e);
}

static void compare(struct subject *s, struct io *io, const char *what)
{
	struct err e = {0};

	must(io_pread(io, s->buf, s->size, 0, &e), &e);
	for (uint64_t i = 0; i < s->size; i++)
		if (s->buf[i] != s->bytes[i])
			die("%s: byte %" PRIu64 " is %02x, not %02x", what, i, s->buf[i],
			    s->bytes[i]);
}

static void check(struct subject *s)
{
	struct check_result res;
	struct err e = {0};

	must(img_check(s->img, 0, &res, NULL, NULL, &e), &e);
	if (res.corruptions || res.leaks || res.check_errors)
		die("check: %" PRIu64 " corruptions, %" PRIu64 " leaks", res.corruptions,
		    res.leaks);
}

static void some_range(struct subject *s, uint64_t *off, uint64_t *len)
{
	*off = rng_below(&s->rng,
			 rng_percent(&s->rng, 50) ? s->size : min_u64(s->size, 9 * s->cluster));
	*len = rng_range(&s->rng, 1, 4 * s->cluster);
	if (rng_percent(&s->rng, 40)) {
		*off = round_down(*off, s->cluster);
		*len = round_up(*len, s->cluster);
	}
	*len = min_u64(*len, s->size - *off);
}

static void do_change(struct subject *s)
{
	uint64_t off, len, pick = rng_below(&s->rng, 10);
	struct err e = {0};

	some_range(s, &off, &len);
	if (pick < 6) {
		rng_fill(&s->rng, s->bytes + off, len);
		must(io_pwrite(&s->img->io, s->bytes + off, len, off, &e), &e);
	} else if (pick < 8) {
		memset(s->bytes + off, 0, len);
		must(io_zero(&s->img->io, off, len, pick == 6 ? IO_ZERO_UNMAP : 0, &e), &e);
	} else {
		must(io_discard(&s->img->io, off, len, &e), &e);
		/* Whole clusters read as zeros or as they did. */
		must(io_pread(&s->img->io, s->buf, len, off, &e), &e);
		for (uint64_t i = 0; i < len; i++)
			expect(!s->buf[i] || s->buf[i] == s->bytes[off + i]);
		memcpy(s->bytes + off, s->buf, len);
	}
}

static void do_resize(struct subject *s)
{
	uint64_t size = rng_range(&s->rng, 1, MAX_SIZE / 512) * 512;
	int mode = size > s->size && rng_percent(&s->rng, 30) ? (int)rng_below(&s->rng, 4)
							      : PREALLOC_OFF;
	struct err e = {0};

	must(img_resize(s->img, size, mode, &e), &e);
	if (size > s->size)
		memset(s->bytes + s->size, 0, size - s->size);
	s->size = size;
	expect(io_size(s->data) == size);
}

static void do_reopen(struct subject *s)
{
	struct err e = {0};

	must(img_settle(s->img, &e), &e);
	check(s);
	io_close(&s->img->io);
	open_subject(s, IMG_RDWR);
}

static void do_one(struct subject *s)
{
	uint64_t pick = rng_below(&s->rng, 100);
	struct err e = {0};

	if (pick < 80)
		do_change(s);
	else if (pick < 90)
		must(io_flush(&s->img->io, &e), &e);
	else if (pick < 95)
		do_resize(s);
	else
		do_reopen(s);
}

/* One change of many fails at some I/O; nothing that was there before is lost by it. */
static void fail_once(struct subject *s)
{
	struct fault_plan *plan = &s->plan[rng_below(&s->rng, 2)];
	unsigned char *before = malloc(s->size), *after = malloc(s->size);
	struct check_result res;
	struct err e = {0};
	int r = 0;

	expect(before && after);
	must(img_settle(s->img, &e), &e);
	memcpy(before, s->bytes, s->size);
	memcpy(after, s->bytes, s->size);
	plan->code = rng_percent(&s->rng, 50) ? EIO : ENOSPC;
	plan->writes_only = true;
	plan->sticky = true;
	plan->fail_at = atomic_load(&plan->calls) + rng_range(&s->rng, 1, 6);
	for (unsigned i = 0; r == 0 && i < 4; i++) {
		uint64_t off, len;

		some_range(s, &off, &len);
		rng_fill(&s->rng, after + off, len);
		r = io_pwrite(&s->img->io, after + off, len, off, &e);
		if (r == 0 && rng_percent(&s->rng, 30))
			r = io_flush(&s->img->io, &e);
	}
	io_close(&s->img->io);
	plan->fail_at = 0;
	open_subject(s, IMG_RDWR | IMG_FOR_CHECK);
	must(img_check(s->img, CHECK_FIX_LEAKS, &res, NULL, NULL, &e), &e);
	expect(!res.corruptions && !res.check_errors);
	io_close(&s->img->io);
	open_subject(s, IMG_RDWR);
	must(io_pread(&s->img->io, s->buf, s->size, 0, &e), &e);
	for (uint64_t i = 0; i < s->size; i++) {
		uint64_t at = round_down(i, 512);

		/* Sectors that no write touched are as they were. */
		if (memcmp(after + at, before + at, min_u64(512, s->size - at)) == 0)
			expect(s->buf[i] == before[i]);
	}
	memcpy(s->bytes, s->buf, s->size);
	free(before);
	free(after);
}

static void ask_peer(struct subject *s)
{
	disk_save(s->file, "disk.qcow2");
	disk_save(s->data, "disk.data");
	if (s->below)
		disk_save(s->below, "base.raw");
	bytes_save(s->bytes, s->size, "truth.raw");
	if (peer("check -q -f qcow2 disk.qcow2") ||
	    peer("compare -q -f qcow2 -F raw disk.qcow2 truth.raw"))
		die("qemu-img: %.300s", peer_log());
}

static enum fill nothing(void *ctx, uint64_t cluster)
{
	(void)ctx, (void)cluster;
	return FILL_NONE;
}

static void make(struct subject *s, uint64_t seed)
{
	static const unsigned bits[] = {9, 12, 14, 16};
	unsigned cluster_bits = bits[rng_below(&s->rng, ARRAY_LEN(bits))];
	bool extended = cluster_bits >= 14 && rng_percent(&s->rng, 70);
	char opts[160];

	s->cluster = UINT64_C(1) << cluster_bits;
	s->size = rng_range(&s->rng, 1, MAX_SIZE / 1024) * 512;
	s->raw = rng_percent(&s->rng, 50);
	s->bytes = calloc(1, MAX_SIZE);
	s->buf = malloc(MAX_SIZE);
	expect(s->bytes && s->buf);
	s->file = disk_new("disk.qcow2");
	s->data = disk_new("disk.data");
	snprintf(opts, sizeof(opts),
		 "data_file=disk.data,data_file_raw=%s,cluster_size=%" PRIu64
		 ",lazy_refcounts=%s,extended_l2=%s",
		 s->raw ? "on" : "off", s->cluster, rng_percent(&s->rng, 30) ? "on" : "off",
		 extended ? "on" : "off");
	context("SEED=%" PRIu64 " size=%" PRIu64 " %s", seed, s->size, opts);
	if (!s->raw && rng_percent(&s->rng, 40)) {
		struct fill_args args = {.size = s->size,
					 .opts = opts,
					 .external = s->data,
					 .backing = "base.raw",
					 .backing_format = "raw"};
		uint64_t n = rng_range(&s->rng, 1, s->size);

		rng_fill(&s->rng, s->bytes, n);
		s->below = disk_from_bytes(s->bytes, n, "base.raw");
		args.kind = nothing;
		args.data = s->bytes;
		disk_fill(s->file, "qcow2", &args);
	} else {
		disk_create_data(s->file, s->data, s->size, opts);
	}
	expect(io_size(s->data) == s->size);
}

static void run(uint64_t seed, bool ask)
{
	struct subject s = {.rng = {seed}};
	bool faults = seed % 3 == 0;
	struct err e = {0};

	make(&s, seed);
	open_subject(&s, IMG_RDWR);
	for (unsigned i = 1; i <= OPS; i++) {
		do_one(&s);
		if (faults && i % 25 == 0)
			fail_once(&s);
		if (i % 10 == 0)
			compare(&s, &s.img->io, "the disk");
		if (i % 10 == 0 && s.raw && !faults)
			compare(&s, s.data, "the data file");
	}
	must(img_settle(s.img, &e), &e);
	check(&s);
	io_close(&s.img->io);
	if (ask)
		ask_peer(&s);
	io_close(s.file);
	io_close(s.data);
	io_close(s.below);
	free(s.bytes);
	free(s.buf);
}

int main(void)
{
	uint64_t images = 0, asked = 0;
	struct seeds seeds;

	seeds_init(&seeds, 1, SANITIZED ? 20 : 60);
	while (seeds_next(&seeds)) {
		bool ask = peer_here() && (images % 4 == 0 || getenv("SEED"));

		run(seeds.seed, ask);
		images++;
		asked += ask;
	}
	printf("%" PRIu64 " images, %" PRIu64 " operations; qemu-img agreed on %" PRIu64 "\n",
	       images, images * OPS, asked);
	return !images;
}
