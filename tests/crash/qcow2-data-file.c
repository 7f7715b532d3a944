// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Power cuts of a qcow2 image with an external data file: random operations are recorded with every
 * change and every flush of both files, in their common order; then both are put together as a power
 * cut at any moment may leave them, each with everything up to its own last flush and any part of
 * what came later. The image must be sound, and every sector hold what was flushed last, or something
 * that was written to it since.
 *
 * With the raw flag so must the data file by itself.
 *
 * timeout: 200
 * variants: release asan
 *
 * SEED=n runs one workload; SOAK_SECONDS=n new ones for so long.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cells.h"
#include "disk.h"
#include "io/doubles/pass.h"
#include "rng.h"
#include "tell.h"

#define SECTOR    512
#define MAX_SIZE  (256 * KiB)
#define MAX_RECS  4096
#define OPS       60
#define CUTS      6 /* at one point of time */
#define STALE     UINT64_C(0xdead0000)
#define MAX_FILES 2

/* ---- two files that record into one log ---- */

enum kind { WRITE, ZERO, RESIZE, FLUSH, ISSUED, RETURNED, DURABLE };
struct rec {
	enum kind kind;
	unsigned which; /* file; of ISSUED, RETURNED: nothing */
	uint64_t off, len;
	unsigned char *data; /* owned: of WRITE; of ISSUED the values of the sectors (uint64_t) */
};

static struct rec log_[MAX_RECS];
static size_t n_log;

struct recorder {
	struct pass pass; /* first */
	unsigned which;
};

static void record(enum kind kind, unsigned which, uint64_t off, uint64_t len, const void *data,
		   size_t bytes)
{
	struct rec *r = &log_[n_log++];

	expect(n_log < MAX_RECS);
	*r = (struct rec){.kind = kind, .which = which, .off = off, .len = len};
	if (!data)
		return;
	r->data = malloc(bytes ? bytes : 1);
	expect(r->data);
	memcpy(r->data, data, bytes);
}

static unsigned which_of(struct io *io)
{
	return ((struct recorder *)(void *)io)->which;
}

static int rec_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	return io_pread(pass_of(io)->inner, buf, len, off, err);
}

static int rec_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	record(WRITE, which_of(io), off, len, buf, len);
	return io_pwrite(pass_of(io)->inner, buf, len, off, err);
}

static int rec_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	record(ZERO, which_of(io), off, len, NULL, 0);
	return io_zero(pass_of(io)->inner, off, len, flags, err);
}

static int rec_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	record(ZERO, which_of(io), off, len, NULL, 0);
	return io_discard(pass_of(io)->inner, off, len, err);
}

static int rec_flush(struct io *io, struct err *err)
{
	record(FLUSH, which_of(io), 0, 0, NULL, 0);
	return io_flush(pass_of(io)->inner, err);
}

static int rec_resize(struct io *io, uint64_t size, struct err *err)
{
	record(RESIZE, which_of(io), size, 0, NULL, 0);
	return pass_resize(io, size, err);
}

static const struct io_ops rec_ops = {
	.name = "recorder",
	.pread = rec_pread,
	.pwrite = rec_pwrite,
	.zero = rec_zero,
	.discard = rec_discard,
	.flush = rec_flush,
	.resize = rec_resize,
	.map = pass_map,
	.close = pass_close,
};

static struct io *recorded(struct io *inner, unsigned which)
{
	struct recorder *r = calloc(1, sizeof(*r));
	struct err e = {0};

	expect(r);
	must(pass_init(&r->pass, &rec_ops, inner, false, &e), &e);
	r->which = which;
	return &r->pass.io;
}

/* ---- a workload ---- */

struct workload {
	struct rng rng;
	struct io *mem[MAX_FILES], *base[MAX_FILES]; /* owned: now, and as at the beginning */
	struct img *img;
	uint64_t size, cluster, n; /* n: sectors */
	uint64_t number;           /* of the last value */
	bool raw;
};

static struct img *open_files(struct io *const *file, bool record_them, unsigned flags)
{
	struct io *io[MAX_FILES];
	struct err e = {0};
	struct img *img;

	for (unsigned i = 0; i < MAX_FILES; i++)
		io[i] = record_them ? recorded(file[i], i) : disk_borrow(file[i]);
	must(img_open_io(io[0], "qcow2", flags, NULL, &img, &e), &e);
	must(img_set_data_file(img, io[1], &e), &e);
	return img;
}

/* From now on the sectors may be values; when it returned, they are. */
static void change(struct workload *w, uint64_t first, uint64_t n, bool zero, bool discard)
{
	uint64_t *value = calloc(n, 8);
	unsigned char *buf = malloc(n * SECTOR);
	struct err e = {0};

	expect(value && buf);
	for (uint64_t i = 0; i < n && !zero; i++)
		value[i] = ++w->number << 32 | (first + i);
	sectors_fill(buf, value, n);
	record(ISSUED, 0, first, n, value, n * 8);
	if (discard)
		must(io_discard(&w->img->io, first * SECTOR, n * SECTOR, &e), &e);
	else if (zero)
		must(io_zero(&w->img->io, first * SECTOR, n * SECTOR,
			     rng_percent(&w->rng, 50) ? IO_ZERO_UNMAP : 0, &e),
		     &e);
	else
		must(io_pwrite(&w->img->io, buf, n * SECTOR, first * SECTOR, &e), &e);
	/* A discard is a hint, but what it did is done. */
	must(io_pread(&w->img->io, buf, n * SECTOR, first * SECTOR, &e), &e);
	for (uint64_t i = 0; i < n; i++)
		value[i] = sector_value(buf + i * SECTOR);
	record(RETURNED, 0, first, n, value, n * 8);
	free(value);
	free(buf);
}

static void operate(struct workload *w)
{
	uint64_t first = rng_below(&w->rng, w->n), pick = rng_below(&w->rng, 100), n;
	struct err e = {0};

	n = rng_range(&w->rng, 1, 3 * w->cluster / SECTOR);
	if (rng_percent(&w->rng, 40)) {
		first = round_down(first, w->cluster / SECTOR);
		n = round_up(n, w->cluster / SECTOR);
	}
	n = min_u64(n, w->n - first);
	if (pick < 60) {
		change(w, first, n, false, false);
	} else if (pick < 80) {
		change(w, first, n, true, pick < 70);
	} else if (pick < 96) {
		must(io_flush(&w->img->io, &e), &e);
		record(DURABLE, 0, 0, 0, NULL, 0);
	} else {
		must(img_settle(w->img, &e), &e);
		record(DURABLE, 0, 0, 0, NULL, 0);
		io_close(&w->img->io);
		w->img = open_files(w->mem, true, IMG_RDWR);
	}
}

static void make(struct workload *w, uint64_t seed)
{
	uint64_t stale[MAX_SIZE / SECTOR];
	unsigned char *buf = malloc(MAX_SIZE);
	struct err e = {0};
	bool extended = rng_percent(&w->rng, 30);
	char opts[140];

	expect(buf);
	w->cluster = extended ? 16 * KiB : rng_percent(&w->rng, 50) ? 512 : 4096;
	w->n = rng_range(&w->rng, 20, MAX_SIZE / SECTOR);
	w->size = w->n * SECTOR;
	w->raw = rng_percent(&w->rng, 40);
	snprintf(opts, sizeof(opts),
		 "data_file=disk.data,cluster_size=%" PRIu64
		 ",data_file_raw=%s,lazy_refcounts=%s,extended_l2=%s",
		 w->cluster, w->raw ? "on" : "off", rng_percent(&w->rng, 25) ? "on" : "off",
		 extended ? "on" : "off");
	context("SEED=%" PRIu64 " size=%" PRIu64 " %s", seed, w->size, opts);
	w->mem[0] = disk_new("disk.qcow2");
	w->mem[1] = disk_new("disk.data");
	disk_create_data(w->mem[0], w->mem[1], w->size, opts);
	/* What was in the data file before must never be seen. */
	for (uint64_t i = 0; i < w->n; i++)
		stale[i] = STALE << 32 | i;
	sectors_fill(buf, stale, w->n);
	if (!w->raw)
		must(io_pwrite(w->mem[1], buf, w->size, 0, &e), &e);
	for (unsigned i = 0; i < MAX_FILES; i++)
		w->base[i] = disk_copy(w->mem[i], w->mem[i]->name);
	free(buf);
}

/* ---- power cuts ---- */

/* A write of several sectors, of which any may be there. */
static void apply(struct io *file, const struct rec *r, struct rng *rng, bool torn)
{
	struct err e = {0};

	if (r->kind == RESIZE)
		must(io_resize(file, r->off, &e), &e);
	else if (r->kind == ZERO && r->off < io_size(file))
		must(io_zero(file, r->off, min_u64(r->len, io_size(file) - r->off), 0, &e), &e);
	for (uint64_t at = 0, n; r->kind == WRITE && at < r->len; at += n) {
		n = min_u64(SECTOR - (r->off + at) % SECTOR, r->len - at);
		if (!torn || rng_percent(rng, 50))
			must(io_pwrite(file, r->data + at, n, r->off + at, &e), &e);
	}
}

/* The files after a cut behind the first `end` records. */
static void cut(struct workload *w, size_t end, struct io **file)
{
	unsigned percent = (unsigned)rng_below(&w->rng, 4) * 33;

	for (unsigned i = 0; i < MAX_FILES; i++) {
		size_t flushed = end;

		file[i] = disk_copy(w->base[i], w->base[i]->name);
		while (flushed &&
		       !(log_[flushed - 1].kind == FLUSH && log_[flushed - 1].which == i))
			flushed--;
		for (size_t k = 0; k < end; k++) {
			const struct rec *r = &log_[k];

			if (r->which != i || r->kind > RESIZE)
				continue;
			if (k < flushed || r->kind == RESIZE || rng_percent(&w->rng, percent))
				apply(file[i], r, &w->rng,
				      k >= flushed && rng_percent(&w->rng, 20));
		}
		percent = (unsigned)rng_below(&w->rng, 4) * 33;
	}
}

static void judge_sectors(const struct workload *w, const struct cells *cells, struct io *io,
			  const char *what)
{
	unsigned char *buf = malloc(w->size);
	struct err e = {0};

	expect(buf);
	must(io_pread_tail(io, buf, w->size, 0, &e), &e);
	for (uint64_t i = 0; i < w->n; i++)
		if (!cells_may(cells, i, sector_value(buf + i * SECTOR)))
			die("%s: sector %" PRIu64 " is %" PRIx64, what, i,
			    sector_value(buf + i * SECTOR));
	free(buf);
}

static void judge(struct workload *w, const struct cells *cells, size_t end)
{
	struct io *file[MAX_FILES];
	struct check_result res;
	struct err e = {0};
	struct img *img;

	cut(w, end, file);
	/* Lazy refcounts are put right by opening for writing. */
	img = open_files(file, false, IMG_RDWR);
	must(img_check(img, 0, &res, NULL, NULL, &e), &e);
	if (res.corruptions || res.check_errors)
		die("check: %" PRIu64 " corruptions", res.corruptions);
	judge_sectors(w, cells, &img->io, "the disk");
	if (w->raw)
		judge_sectors(w, cells, file[1], "the data file");
	io_close(&img->io);
	for (unsigned i = 0; i < MAX_FILES; i++)
		io_close(file[i]);
}

static uint64_t sweep(struct workload *w)
{
	uint64_t *zeros = calloc(w->n, 8), states = 0;
	struct cells cells;

	expect(zeros);
	cells_init(&cells, zeros, w->n);
	for (size_t end = 0; end < n_log; end++) {
		const struct rec *r = &log_[end];
		const uint64_t *value = (const uint64_t *)(const void *)r->data;
		bool look = r->kind <= FLUSH && rng_percent(&w->rng, 50);

		for (uint64_t i = 0; i < r->len && r->kind == ISSUED; i++)
			cells_allow(&cells, r->off + i, value[i]);
		for (uint64_t i = 0; i < r->len && r->kind == RETURNED; i++)
			cells_set(&cells, r->off + i, value[i]);
		if (r->kind == DURABLE)
			cells_durable(&cells);
		for (unsigned i = 0; i < CUTS && look; i++) {
			judge(w, &cells, end + 1);
			states++;
		}
	}
	cells_free(&cells);
	free(zeros);
	return states;
}

static uint64_t run(uint64_t seed)
{
	struct workload w = {.rng = {seed * 77}};
	uint64_t states;

	make(&w, seed);
	w.img = open_files(w.mem, true, IMG_RDWR);
	for (unsigned i = 0; i < OPS; i++)
		operate(&w);
	io_close(&w.img->io);
	states = sweep(&w);
	for (unsigned i = 0; i < MAX_FILES; i++) {
		io_close(w.mem[i]);
		io_close(w.base[i]);
	}
	while (n_log)
		free(log_[--n_log].data);
	return states;
}

/* Defined when the driver was built with QCOW2_LEAVE_OUT: the flush that it leaves out. */
extern unsigned qcow2_left_out __attribute__((weak));

int main(void)
{
	uint64_t workloads = 0, states = 0;
	struct seeds seeds;

	if (&qcow2_left_out)
		qcow2_left_out = (unsigned)env_u64("LEAVE_OUT", 0);
	seeds_init(&seeds, 1, SANITIZED ? 10 : 40);
	while (seeds_next(&seeds)) {
		states += run(seeds.seed);
		workloads++;
	}
	printf("%" PRIu64 " workloads, %" PRIu64 " states\n", workloads, states);
	return !states;
}
