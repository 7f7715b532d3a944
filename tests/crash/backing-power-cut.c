// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Power cuts in commit and rebase: random overlays and backing files, every change of the files that
 * are written to is recorded, in one log, and then put together as a power cut at any moment may leave
 * it. What is read through the chain that the header names is the same in every state; the header
 * names the old backing file or the new one, with its format, and when the command has returned the
 * new one.
 *
 * timeout: 300
 * variants: release asan
 *
 * SEED=n runs one; SOAK_SECONDS=n new ones for so long.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk.h"
#include "io/window.h"
#include "ops/commit.h"
#include "ops/rebase.h"
#include "replay.h"
#include "tell.h"

/* The device that is recorded: the overlay, and behind it, for commit, the backing file. */
#define AREA (2 * MiB)

struct backing {
	char name[1024]; /* "": none */
	const char *format;
	struct io *file; /* NULL: none, or on the device */
};

struct scene {
	struct rng rng;
	bool commit, qcow2_base; /* qcow2_base: of commit */
	bool unsafe;             /* the two backing files are the same, only the name changes */
	bool clones;             /* the device can share blocks */
	uint64_t cluster, size;  /* bytes */
	char options[100];
	unsigned char *content; /* of the overlay's disk */
	struct backing old, new;
	struct crash_log log;
	struct replay replay;
	bool returned;
	uint64_t states;
};

/* ---- the beginning ---- */

static enum fill some_kind(void *ctx, uint64_t cluster)
{
	static const enum fill kinds[] = {FILL_NONE, FILL_NONE, FILL_DATA, FILL_DATA, FILL_ZERO};
	struct scene *s = ctx;

	(void)cluster;
	return kinds[rng_below(&s->rng, strstr(s->options, "0.10") ? 4 : ARRAY_LEN(kinds))];
}

/* Bytes that are the same in all images at some places: rebase has something to drop. */
static unsigned char *some_bytes(struct scene *s)
{
	unsigned char *p = malloc(s->size);

	expect(p);
	for (uint64_t at = 0; at < s->size; at += 512)
		memset(p + at, rng_percent(&s->rng, 50) ? 7 : (int)rng_below(&s->rng, 256), 512);
	return p;
}

static struct io *some_image(struct scene *s, const char *format, const struct backing *below)
{
	struct io *file = disk_new("image");
	unsigned char *bytes = some_bytes(s);
	struct fill_args args = {.size = s->size, .data = bytes, .kind = some_kind, .ctx = s};

	if (!strcmp(format, "raw")) {
		io_close(file);
		file = disk_from_bytes(bytes, s->size, "base");
	} else {
		args.opts = s->options;
		args.backing = below && below->name[0] ? below->name : NULL;
		args.backing_format = args.backing ? below->format : NULL;
		disk_fill(file, format, &args);
	}
	free(bytes);
	return file;
}

static void some_backing(struct scene *s, struct backing *b, char letter)
{
	/* What fits into a header of one sector, or any length. */
	uint64_t most = s->cluster == 512 ? 40 : s->cluster == 1024 ? 200 : 1000;

	if (rng_percent(&s->rng, 15))
		return;
	memset(b->name, letter, rng_range(&s->rng, 1, rng_percent(&s->rng, 50) ? 20 : most));
	b->format = "raw";
	b->file = some_image(s, "raw", NULL);
}

static void choose(struct scene *s, uint64_t seed)
{
	static const uint64_t clusters[] = {512, 1024, 4096, 16384, 65536};
	bool old, extended;

	*s = (struct scene){.rng = {seed * 7919}, .clones = seed % 2};
	s->commit = rng_percent(&s->rng, 40);
	s->cluster = clusters[rng_below(&s->rng, ARRAY_LEN(clusters))];
	s->size = s->cluster * (s->cluster >= 16384 ? 8 : 40) - 512 * rng_below(&s->rng, 2);
	old = rng_percent(&s->rng, 25);
	extended = !old && s->cluster == 16384; /* subclusters of a sector */
	snprintf(s->options, sizeof(s->options), "%scluster_size=%" PRIu64 "%s",
		 old ? "compat=0.10," : "", s->cluster, extended ? ",extended_l2=on" : "");
	if (!s->commit) {
		some_backing(s, &s->old, 'o');
		some_backing(s, &s->new, 'n');
		s->unsafe = s->old.file && s->new.file &&rng_percent(&s->rng, 25);
		if (s->unsafe) {
			io_close(s->new.file);
			s->new.file = disk_copy(s->old.file, "copy");
		}
		return;
	}
	s->qcow2_base = rng_percent(&s->rng, 50);
	strcpy(s->old.name, "base");
	s->old.format = s->qcow2_base ? "qcow2" : "raw";
}

/* The device with its images. */
static struct io *make_device(struct scene *s)
{
	struct io *device = disk_new("device"), *image;
	struct err e = {0};

	device->caps |= s->clones ? IO_CLONES : 0;
	must(io_resize(device, s->commit ? 2 * AREA : AREA, &e), &e);
	for (int i = 0; i <= s->commit; i++) {
		unsigned char *p;
		uint64_t len;

		image = i ? some_image(s, s->old.format, NULL) : some_image(s, "qcow2", &s->old);
		p = disk_bytes(image, &len);
		expect(len <= AREA);
		must(io_pwrite(device, p, len, i ? AREA : 0, &e), &e);
		free(p);
		io_close(image);
	}
	return device;
}

/* ---- opening ---- */

static struct io *part(struct io *device, uint64_t off, uint64_t len)
{
	struct err e = {0};
	struct io *io;

	must(window_open(device, off, len, false, &io, &e), &e);
	return io;
}

/* The overlay on the device, and the chain below it. */
static struct img *open_top(const struct scene *s, struct io *device, const struct backing *below,
			    unsigned flags)
{
	struct io *top = part(device, 0, AREA), *base;
	struct img *backing = NULL, *img;
	struct err e = {0};

	if (s->commit) {
		base = part(device, AREA, s->qcow2_base ? AREA : s->size);
		must(img_open_io(base, s->old.format, flags, NULL, &backing, &e), &e);
	} else if (below->file) {
		backing = disk_open(below->file, "raw", 0, NULL);
	}
	must(img_open_io(top, "qcow2", flags, backing, &img, &e), &e);
	return img;
}

static unsigned char *read_all(const struct scene *s, struct img *img)
{
	unsigned char *p = malloc(s->size);
	struct err e = {0};

	expect(p);
	must(io_pread(&img->io, p, s->size, 0, &e), &e);
	return p;
}

/* ---- judging ---- */

static bool names(const struct img *img, const struct backing *b)
{
	if (!b->name[0])
		return !img->backing_name;
	return img->backing_name && !strcmp(img->backing_name, b->name) && img->backing_format &&
	       !strcmp(img->backing_format, b->format);
}

static const struct backing *named(const struct scene *s, struct io *device)
{
	struct io *top = part(device, 0, AREA);
	const struct backing *b;
	struct err e = {0};
	struct img *img;

	must(img_open_io(top, "qcow2", 0, NULL, &img, &e), &e);
	b = names(img, &s->old) ? &s->old : &s->new;
	if (!s->commit && s->returned && !names(img, &s->new))
		die("rebase has returned, and the header still has '%s'",
		    img->backing_name ? img->backing_name : "");
	if (!names(img, b))
		die("the header has the backing file '%s' (%s)",
		    img->backing_name ? img->backing_name : "",
		    img->backing_format ? img->backing_format : "no format");
	io_close(&img->io);
	return b;
}

static void check(struct img *img)
{
	struct check_result res;
	struct err e = {0};

	must(img_check(img, 0, &res, NULL, NULL, &e), &e);
	if (res.corruptions || res.check_errors)
		die("%s: %" PRIu64 " corruptions", img->io.name, res.corruptions);
}

static bool visit(void *ctx, const struct cut *c)
{
	struct scene *s = ctx;
	unsigned char *p;
	struct io *device;
	struct img *img;

	replay_cut(&s->replay, c);
	device = disk_from_bytes(s->replay.p, s->replay.len, "state");
	img = open_top(s, device, named(s, device), 0);
	p = read_all(s, img);
	for (uint64_t at = 0; at < s->size; at += 512) {
		if (memcmp(p + at, s->content + at, 512))
			die("the disk has changed at offset %" PRIu64, at);
	}
	free(p);
	if (s->states++ % 16 == 0)
		check(img);
	io_close(&img->io);
	io_close(device);
	replay_undo(&s->replay);
	return true;
}

/* ---- one scene ---- */

static void run_command(struct scene *s, struct io *device)
{
	struct img *img = open_top(s, device, &s->old, IMG_RDWR);
	struct err e = {0};

	s->content = read_all(s, img);
	if (s->commit) {
		const struct commit_args args = {.top = img, .base = img->backing, .workers = 1};

		must(commit_run(&args, NULL, &e), &e);
	} else if (s->unsafe) {
		must(img_set_backing(img, s->new.name, s->new.format, NULL, &e), &e);
	} else {
		const struct rebase_args args = {
			.overlay = img,
			.backing = s->new.file ? disk_open(s->new.file, "raw", 0, NULL) : NULL,
			.name = s->new.name[0] ? s->new.name : NULL,
			.format = s->new.format,
			.compress = rng_percent(&s->rng, 30),
			.drop_equal = rng_percent(&s->rng, 60),
			.workers = 1,
		};

		must(rebase_run(&args, NULL, &e), &e);
	}
	expect(!crash_mark(device, 1));
	io_close(&img->io);
}

static void sweep_epoch(struct scene *s, struct cut *c)
{
	cuts_visit(c, &s->rng, visit, s);
	for (unsigned i = 0; i < c->n; i++)
		replay_apply(&s->replay, c->rec[i], NULL);
	replay_keep(&s->replay);
	c->n = 0;
}

static void sweep(struct scene *s)
{
	static struct cut c;

	c.n = 0;
	for (size_t i = 0; i < s->log.n; i++) {
		switch (s->log.rec[i].kind) {
		case CRASH_MARK:
			/* What is not flushed now was not durable when the command returned. */
			s->returned = true;
			break;
		case CRASH_FLUSH:
			sweep_epoch(s, &c);
			break;
		default:
			expect(c.n < EPOCH_MAX);
			c.rec[c.n++] = &s->log.rec[i];
			break;
		}
	}
	sweep_epoch(s, &c);
}

static uint64_t run(uint64_t seed)
{
	struct io *device, *recorded;
	struct err e = {0};
	struct scene s;

	choose(&s, seed);
	context("SEED=%" PRIu64 " %s %s size=%" PRIu64 " '%s' → '%s'", seed,
		s.commit ? "commit" : "rebase", s.options, s.size, s.old.name, s.new.name);
	device = make_device(&s);
	must(crash_open(device, true, &s.log, &recorded, &e), &e);
	run_command(&s, recorded);
	replay_begin(&s.replay, &s.log);
	sweep(&s);
	replay_free(&s.replay);
	io_close(recorded);
	crash_log_free(&s.log);
	io_close(s.old.file);
	io_close(s.new.file);
	free(s.content);
	return s.states;
}

/* Defined when the driver was built with QCOW2_LEAVE_OUT: the flush that it leaves out. */
extern unsigned qcow2_left_out __attribute__((weak));

int main(void)
{
	struct seeds seeds;
	uint64_t states = 0;

	if (&qcow2_left_out)
		qcow2_left_out = (unsigned)env_u64("LEAVE_OUT", 0);
	seeds_init(&seeds, 1, SANITIZED ? 20 : 150);
	while (seeds_next(&seeds))
		states += run(seeds.seed);
	printf("%" PRIu64 " states\n", states);
	return !states;
}
