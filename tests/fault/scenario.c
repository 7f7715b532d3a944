// SPDX-License-Identifier: GPL-2.0-or-later
/* See scenario.h. */
#include "scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "mix.h"
#include "ops/bitmap.h"
#include "ops/compact.h"
#include "ops/dedup.h"
#include "ops/sparsify.h"
#include "oracle.h"
#include "tell.h"

#define SECTOR  512
#define SECTORS UINT64_C(512) /* of the disk at the beginning */
#define MOST    UINT64_C(700) /* that it ever has */
#define SHOTS   4
#define INITIAL UINT64_C(0xa000)
#define TWIN    UINT64_C(0xe000)
#define BACKING UINT64_C(0xb000)
#define BELOW   UINT64_C(300) /* sectors of the backing file */

const struct subject subjects[] = {
	{"qcow2", "cluster_size=4096", NULL, false},
	{"qcow2", "cluster_size=512,refcount_bits=64", "qcow2", false},
	{"qcow2", "cluster_size=512,lazy_refcounts=on,refcount_bits=8,compression_type=zstd", NULL,
	 false},
	{"qcow2", "cluster_size=4096,lazy_refcounts=on", "raw", true},
	{"qcow2", "cluster_size=1024,compat=0.10", "raw", false},
	{"qcow2", "cluster_size=512,compat=0.10", NULL, true},
	{"qcow2", "cluster_size=16384,extended_l2=on", "raw", false},
	{"raw", "", NULL, false},
	{NULL, NULL, NULL, false},
};

static const struct step writes[] = {
	{STEP_READ, 0, SECTORS}, {STEP_WRITE, 3, 40},  {STEP_WRITE, 100, 9}, {STEP_FLUSH, 0, 0},
	{STEP_WRITE, 5, 4},      {STEP_ZERO, 8, 17},   {STEP_UNMAP, 32, 24}, {STEP_DISCARD, 96, 40},
	{STEP_WRITE, 9, 2},      {STEP_WRITE, 90, 60}, {STEP_FLUSH, 0, 0},   {STEP_MAP, 0, SECTORS},
	{STEP_WRITE, 200, 70},   {STEP_ZERO, 210, 3},  {STEP_SETTLE, 0, 0},  {STEP_WRITE, 0, 1},
	{STEP_READ, 0, SECTORS}, {STEP_END, 0, 0},
};
static const struct step snapshots[] = {
	{STEP_WRITE, 3, 40}, {STEP_CREATE, 1, 0},     {STEP_WRITE, 10, 30}, {STEP_CREATE, 2, 0},
	{STEP_WRITE, 20, 5}, {STEP_DISCARD, 40, 100}, {STEP_APPLY, 1, 0},   {STEP_WRITE, 0, 16},
	{STEP_REMOVE, 1, 0}, {STEP_WRITE, 8, 24},     {STEP_REMOVE, 2, 0},  {STEP_WRITE, 16, 8},
	{STEP_END, 0, 0},
};
static const struct step sizes[] = {
	{STEP_WRITE, 400, 100},
	{STEP_RESIZE, 333, PREALLOC_OFF},
	{STEP_WRITE, 300, 33},
	{STEP_RESIZE, 600, PREALLOC_OFF},
	{STEP_WRITE, 550, 50},
	{STEP_RESIZE, 200, PREALLOC_OFF},
	{STEP_RESIZE, MOST, PREALLOC_METADATA},
	{STEP_WRITE, 650, 20},
	{STEP_END, 0, 0},
};
static const struct step checks[] = {
	{STEP_CHECK, 0, 0},    {STEP_WRITE, 50, 50}, {STEP_DISCARD, 60, 64}, {STEP_CHECK, 0, 0},
	{STEP_WRITE, 70, 100}, {STEP_REPAIR, 0, 0},  {STEP_WRITE, 0, 64},    {STEP_END, 0, 0},
};
static const struct step compacts[] = {
	{STEP_WRITE, 50, 60}, {STEP_CREATE, 1, 0}, {STEP_WRITE, 300, 40}, {STEP_DISCARD, 0, 64},
	{STEP_WRITE, 90, 20}, {STEP_ZERO, 60, 16}, {STEP_SPARSIFY, 0, 0}, {STEP_COMPACT, 0, 0},
	{STEP_WRITE, 64, 16}, {STEP_REMOVE, 1, 0}, {STEP_COMPACT, 0, 0},  {STEP_WRITE, 200, 9},
	{STEP_END, 0, 0},
};
/* Parsed: what the test allocates would count. */
#define AMENDMENT(compat, lazy, bits)                                                             \
	{                                                                                         \
		{(char *)"compat", (char *)(compat)}, {(char *)"lazy_refcounts", (char *)(lazy)}, \
			{(char *)"refcount_bits", (char *)(bits)},                                \
	}
static struct optval amendments[][3] = {
	AMENDMENT("1.1", "off", "64"),
	AMENDMENT("1.1", "on", "32"),
	AMENDMENT("1.1", "off", "16"),
	AMENDMENT("0.10", "off", "16"),
};
static const struct step amends[] = {
	{STEP_WRITE, 3, 40}, {STEP_AMEND, 0, 0},  {STEP_ZERO, 8, 17},   {STEP_UNMAP, 32, 24},
	{STEP_CREATE, 1, 0}, {STEP_WRITE, 10, 9}, {STEP_AMEND, 1, 0},   {STEP_ZERO, 12, 20},
	{STEP_WRITE, 99, 9}, {STEP_AMEND, 2, 0},  {STEP_DISCARD, 0, 8}, {STEP_AMEND, 3, 0},
	{STEP_WRITE, 16, 8}, {STEP_END, 0, 0},
};
static const struct step dedups[] = {
	{STEP_TWINS, 48, 64}, {STEP_CREATE, 1, 0}, {STEP_TWINS, 104, 24}, {STEP_WRITE, 56, 8},
	{STEP_DEDUP, 0, 0},   {STEP_WRITE, 64, 8}, {STEP_TWINS, 300, 16}, {STEP_REMOVE, 1, 0},
	{STEP_DEDUP, 0, 0},   {STEP_WRITE, 72, 8}, {STEP_END, 0, 0},
};
static const struct step bitmaps[] = {
	{STEP_WRITE, 3, 40},     {STEP_BITMAP_ADD, 0, 0}, {STEP_WRITE, 10, 9},
	{STEP_ZERO, 60, 17},     {STEP_SETTLE, 0, 0},     {STEP_WRITE, 300, 20},
	{STEP_DISCARD, 96, 40},  {STEP_FLUSH, 0, 0},      {STEP_RESIZE, 600, PREALLOC_OFF},
	{STEP_WRITE, 550, 50},   {STEP_SETTLE, 0, 0},     {STEP_BITMAP_CLEAR, 0, 0},
	{STEP_WRITE, 90, 60},    {STEP_CREATE, 1, 0},     {STEP_WRITE, 0, 16},
	{STEP_SETTLE, 0, 0},     {STEP_REMOVE, 1, 0},     {STEP_DISCARD, 0, 80},
	{STEP_COMPACT, 0, 0},    {STEP_WRITE, 7, 30},     {STEP_BITMAP_REMOVE, 0, 0},
	{STEP_BITMAP_ADD, 0, 0}, {STEP_WRITE, 200, 9},    {STEP_END, 0, 0},
};
const struct script scripts[] = {
	{"writes", writes}, {"snapshots", snapshots}, {"sizes", sizes},
	{"checks", checks}, {"compacts", compacts},   {"dedups", dedups},
	{"amends", amends}, {"bitmaps", bitmaps},     {NULL, NULL},
};

/* ---- the subject ---- */

/* The files at the beginning of each run, and what they hold. */
struct image {
	const struct subject *subject;
	unsigned char *bytes, *below; /* owned */
	uint64_t len, below_len;
	uint64_t value[MOST];
};

static enum fill fill_kind(void *ctx, uint64_t cluster)
{
	static const enum fill kinds[] = {FILL_DATA, FILL_NONE, FILL_CODED, FILL_CODED, FILL_NONE};
	struct image *im = ctx;

	return !strcmp(im->subject->format, "raw") ? FILL_DATA : kinds[cluster % ARRAY_LEN(kinds)];
}

/* Which values the disk has after disk_fill: asks the image, which has no faults yet. */
static void learn_values(struct image *im, struct io *file, struct io *below)
{
	struct img *backing = below ? disk_open(below, im->subject->backing, 0, NULL) : NULL;
	struct img *img = disk_open(file, im->subject->format, 0, backing);
	unsigned char *buf = malloc(SECTORS * SECTOR);
	struct err e = {0};

	expect(buf);
	must(io_pread(&img->io, buf, SECTORS * SECTOR, 0, &e), &e);
	for (uint64_t s = 0; s < SECTORS; s++) {
		im->value[s] = sector_value(buf + s * SECTOR);
		expect(im->value[s] != CELL_UNKNOWN);
	}
	free(buf);
	io_close(&img->io);
}

static struct io *make_below(struct image *im, const unsigned char *data)
{
	struct fill_args args = {
		.size = BELOW * SECTOR, .data = data, .kind = fill_kind, .ctx = im};
	struct io *io;

	if (!strcmp(im->subject->backing, "raw"))
		return disk_from_bytes(data, BELOW * SECTOR, "below");
	io = disk_new("below");
	disk_fill(io, "qcow2", &args);
	return io;
}

/* Leaves it as a crash does: written to, flushed, never settled. */
static void leave_open(struct image *im, struct io *file, struct io *below)
{
	struct img *backing = below ? disk_open(below, im->subject->backing, 0, NULL) : NULL;
	struct img *img = disk_open(file, im->subject->format, IMG_RDWR, backing);
	unsigned char buf[20 * SECTOR];
	struct err e = {0};
	uint64_t value[20];

	for (unsigned i = 0; i < 20; i++)
		value[i] = UINT64_C(0xd000) << 32 | (i + 60);
	sectors_fill(buf, value, 20);
	must(io_pwrite(&img->io, buf, sizeof(buf), 60 * SECTOR, &e), &e);
	must(io_flush(&img->io, &e), &e);
	must(io_discard(&img->io, 70 * SECTOR, 8 * SECTOR, &e), &e);
	must(io_flush(&img->io, &e), &e);
	atomic_store(&img->broken, EIO); /* so that close does not settle */
	io_close(&img->io);
}

static void make_image(struct image *im, const struct subject *subject)
{
	struct fill_args args = {.size = SECTORS * SECTOR, .kind = fill_kind, .ctx = im};
	struct io *file = disk_new("file"), *below = NULL;
	unsigned char *data = malloc(SECTORS * SECTOR);

	*im = (struct image){.subject = subject};
	expect(data);
	for (uint64_t s = 0; s < SECTORS; s++)
		sectors_fill(data + s * SECTOR, &(uint64_t){BACKING << 32 | s}, 1);
	if (subject->backing) {
		below = make_below(im, data);
		args.backing = "below";
		args.backing_format = subject->backing;
	}
	for (uint64_t s = 0; s < SECTORS; s++)
		sectors_fill(data + s * SECTOR, &(uint64_t){INITIAL << 32 | s}, 1);
	args.opts = subject->opts;
	args.data = data;
	disk_fill(file, subject->format, &args);
	if (subject->dirty)
		leave_open(im, file, below);
	learn_values(im, file, below);
	im->bytes = disk_bytes(file, &im->len);
	if (below)
		im->below = disk_bytes(below, &im->below_len);
	free(data);
	io_close(file);
	io_close(below);
}

/* ---- one run ---- */

struct shot {
	uint64_t size, value[MOST];
	bool there, maybe; /* maybe: an operation on it failed */
};

struct run {
	const struct image *im;
	struct faults *f;
	struct io *file, *below; /* owned, in memory */
	struct img *img;         /* NULL: not open */
	struct cells cells;
	uint64_t size[2]; /* sectors; [1]: what it may be instead */
	struct shot shot[SHOTS];
	unsigned stamp;
	bool refused;    /* no more writes */
	bool weakened;   /* a snapshot operation of version 2 failed: COPIED may be missing */
	bool must[MOST]; /* sectors whose bits are set in a bitmap that is not in use */
	unsigned char *buf;
};

static struct io *with_faults(struct run *r, struct io *inner)
{
	struct err e = {0};
	struct io *io;

	must(fault_open(inner, false, r->f->io, &io, &e), &e);
	return io;
}

/* Opens what is in memory. plain: without faults. */
static int open_again(struct run *r, unsigned flags, bool plain, struct img **out, struct err *err)
{
	struct io *below = NULL, *file;
	struct img *backing = NULL;
	int code = 0;

	file = plain ? disk_borrow(r->file) : with_faults(r, r->file);
	if (r->below)
		below = plain ? disk_borrow(r->below) : with_faults(r, r->below);
	if (!plain)
		r->f->arm(r->f);
	if (below)
		code = img_open_io(below, r->im->subject->backing, 0, NULL, &backing, err);
	if (code < 0) {
		io_close(below);
		io_close(file);
		return code;
	}
	code = img_open_io(file, r->im->subject->format, flags, backing, out, err);
	if (code == 0)
		return 0;
	io_close(file);
	if (backing)
		io_close(&backing->io);
	return code;
}

static uint64_t count(const struct run *r)
{
	return r->size[0];
}

/* A range cut to the disk. */
static struct step clip(const struct run *r, struct step s)
{
	s.first = min_u64(s.first, count(r));
	s.n = min_u64(s.n, count(r) - s.first);
	return s;
}

static void note_values(struct run *r, const struct step *s, const uint64_t *value, int code)
{
	for (uint64_t i = 0; i < s->n; i++) {
		cells_allow(&r->cells, s->first + i, value[i]);
		cells_set(&r->cells, s->first + i, code == 0 ? value[i] : CELL_UNKNOWN);
	}
}

static int do_write(struct run *r, struct step s, struct err *err)
{
	bool twins = s.kind == STEP_TWINS;
	uint64_t value[MOST];
	int code;

	s = clip(r, s);
	r->stamp++;
	for (uint64_t i = 0; i < s.n; i++)
		value[i] = twins ? TWIN << 32 | (s.first + i) % 8
				 : (uint64_t)r->stamp << 32 | (s.first + i);
	sectors_fill(r->buf, value, s.n);
	code = io_pwrite(&r->img->io, r->buf, s.n * SECTOR, s.first * SECTOR, err);
	note_values(r, &s, value, code);
	return code;
}

static int do_clear(struct run *r, struct step s, struct err *err)
{
	static const uint64_t zeros[MOST];
	unsigned flags = s.kind == STEP_UNMAP ? IO_ZERO_UNMAP : 0;
	int code;

	s = clip(r, s);
	if (s.kind == STEP_DISCARD) {
		code = io_discard(&r->img->io, s.first * SECTOR, s.n * SECTOR, err);
		/* Zeros or not is up to it. */
		note_values(r, &s, zeros, -1);
		return code;
	}
	code = io_zero(&r->img->io, s.first * SECTOR, s.n * SECTOR, flags, err);
	note_values(r, &s, zeros, code);
	return code;
}

static int do_read(struct run *r, struct step s, struct err *err)
{
	int code;

	s = clip(r, s);
	code = io_pread(&r->img->io, r->buf, s.n * SECTOR, s.first * SECTOR, err);
	for (uint64_t i = 0; code == 0 && i < s.n; i++) {
		const struct cell *c = &r->cells.v[s.first + i];
		uint64_t v = sector_value(r->buf + i * SECTOR);

		if (c->current == CELL_UNKNOWN ? !cells_may(&r->cells, s.first + i, v)
					       : v != c->current)
			die("sector %" PRIu64 " reads as %" PRIx64 ", not %" PRIx64, s.first + i, v,
			    c->current);
	}
	return code;
}

static int do_map(struct run *r, struct step s, struct err *err)
{
	struct extent x;
	int code = 0;

	s = clip(r, s);
	for (uint64_t at = s.first * SECTOR, end = at + s.n * SECTOR; at < end; at += x.len) {
		code = io_map(&r->img->io, at, end - at, &x, err);
		if (code < 0)
			return code;
		expect(x.off == at && x.len && x.len <= end - at);
	}
	return code;
}

static int do_create(struct run *r, struct step s, struct err *err)
{
	struct shot *shot = &r->shot[s.first];
	char name[8];
	int code;

	snprintf(name, sizeof(name), "s%u", (unsigned)s.first);
	code = img_snapshot_create(r->img, name, NULL, err);
	shot->size = count(r);
	for (uint64_t i = 0; i < MOST; i++)
		shot->value[i] = r->cells.v[i].current;
	shot->there = code == 0;
	shot->maybe = code < 0;
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int find_shot(struct run *r, uint64_t number, unsigned *index, struct err *err)
{
	char name[8];

	snprintf(name, sizeof(name), "s%u", (unsigned)number);
	return img_snapshot_find(r->img, name, index, err);
}

/* A change of the size that failed may be done all the same, but for its last steps. */
static void note_size(struct run *r, uint64_t wanted, int code)
{
	uint64_t now = io_size(&r->img->io) / SECTOR;

	if (now != wanted && (code == 0 || now != r->size[0]))
		die("a disk of %" PRIu64 " sectors", now);
	r->size[1] = code == 0 ? now : now == wanted ? r->size[0] : wanted;
	r->size[0] = now;
}

static int do_apply(struct run *r, struct step s, struct err *err)
{
	struct shot *shot = &r->shot[s.first];
	struct step all = {STEP_APPLY, 0, MOST};
	unsigned index;
	int code = find_shot(r, s.first, &index, err);

	if (code < 0)
		return code;
	code = img_snapshot_apply(r->img, index, err);
	note_values(r, &all, shot->value, code);
	note_size(r, shot->size, code);
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_remove(struct run *r, struct step s, struct err *err)
{
	struct shot *shot = &r->shot[s.first];
	unsigned index;
	int code = find_shot(r, s.first, &index, err);

	if (code == -ENOENT && shot->maybe) { /* failed, but only after it was gone */
		shot->there = shot->maybe = false;
		return 0;
	}
	if (code < 0)
		return code;
	code = img_snapshot_remove(r->img, index, err);
	shot->maybe = code < 0;
	shot->there = false;
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_resize(struct run *r, struct step s, struct err *err)
{
	static const uint64_t zeros[MOST];
	struct step changed = {STEP_RESIZE, min_u64(s.first, count(r)), 0};
	int mode = (int)s.n, code;

	if (mode == PREALLOC_METADATA && !strcmp(r->im->subject->format, "raw"))
		mode = PREALLOC_FULL;
	changed.n = max_u64(s.first, count(r)) - changed.first;
	code = img_resize(r->img, s.first * SECTOR, mode, err);
	note_values(r, &changed, zeros, code);
	note_size(r, s.first, code);
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_amend(struct run *r, struct step s, struct err *err)
{
	const struct opts opts = {amendments[s.first], ARRAY_LEN(amendments[0])};
	int code;

	/* Compressed clusters of Zstandard and subclusters are not for version 2. */
	if (!strcmp(opts.v[0].value, "0.10") &&
	    (strstr(r->im->subject->opts, "zstd") || strstr(r->im->subject->opts, "extended_l2")))
		return 0;
	code = img_amend(r->img, &opts, 0, NULL, err);
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_check(struct run *r, struct step s, struct err *err)
{
	struct check_result res;
	int code = img_check(r->img, s.kind == STEP_REPAIR ? CHECK_FIX_LEAKS | CHECK_FIX_ERRORS : 0,
			     &res, NULL, NULL, err);

	if (code == -ENOTSUP && !strcmp(r->im->subject->format, "raw"))
		return 0;
	if (code == 0 && (res.corruptions || res.check_errors) && !r->weakened)
		die("check: %" PRIu64 " corruptions, %" PRIu64 " errors", res.corruptions,
		    res.check_errors);
	return code;
}

/* Changes nothing that can be read. Flags that a failed snapshot left missing stop it. */
static int do_compact(struct run *r, struct step s, struct err *err)
{
	struct compact_result res;
	int code = compact_run(r->img, &res, NULL, err);

	(void)s;
	if (code == -ENOTSUP && !strcmp(r->im->subject->format, "raw"))
		return 0;
	if (code == -EUCLEAN && r->weakened && strstr(err->msg, "check -r all"))
		return 0;
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_dedup(struct run *r, struct step s, struct err *err)
{
	struct dedup_result res;
	int code = dedup_run(r->img, &(struct dedup_args){.hash = &mix_hash}, &res, NULL, err);

	(void)s;
	if (code == -ENOTSUP && !strcmp(r->im->subject->format, "raw"))
		return 0;
	if (code == -EUCLEAN && r->weakened && strstr(err->msg, "check -r all"))
		return 0;
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_sparsify(struct run *r, struct step s, struct err *err)
{
	struct sparsify_result res;
	int code = sparsify_run(r->img, 1, &res, NULL, err);

	(void)s;
	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

static int do_flush(struct run *r, struct step s, struct err *err)
{
	int code = s.kind == STEP_SETTLE ? img_settle(r->img, err) : io_flush(&r->img->io, err);

	if (code == 0)
		cells_durable(&r->cells);
	return code;
}

/* What a failure leaves of these is one of two things, so trying again may find it done. */
static int do_bitmap(struct run *r, struct step s, struct err *err)
{
	unsigned index;
	int code = bitmap_find(r->img, "b", &index, err);
	bool there = code == 0;

	if (code < 0 && code != -ENOENT)
		return code;
	*err = (struct err){0};
	/* From now on, whatever becomes of it. */
	memset(r->must, 0, sizeof(r->must));
	if (s.kind == STEP_BITMAP_ADD)
		return there ? 0 : bitmap_add(r->img, "b", 1024, true, err);
	if (s.kind == STEP_BITMAP_REMOVE)
		return there ? bitmap_remove(r->img, "b", err) : 0;
	return there ? bitmap_clear(r->img, "b", err) : 0;
}

static int do_step(struct run *r, const struct step *s, struct err *err)
{
	static int (*const run[])(struct run *, struct step, struct err *) = {
		[STEP_WRITE] = do_write,         [STEP_ZERO] = do_clear,
		[STEP_UNMAP] = do_clear,         [STEP_DISCARD] = do_clear,
		[STEP_READ] = do_read,           [STEP_MAP] = do_map,
		[STEP_FLUSH] = do_flush,         [STEP_SETTLE] = do_flush,
		[STEP_CREATE] = do_create,       [STEP_APPLY] = do_apply,
		[STEP_REMOVE] = do_remove,       [STEP_RESIZE] = do_resize,
		[STEP_CHECK] = do_check,         [STEP_REPAIR] = do_check,
		[STEP_COMPACT] = do_compact,     [STEP_SPARSIFY] = do_sparsify,
		[STEP_AMEND] = do_amend,         [STEP_DEDUP] = do_dedup,
		[STEP_TWINS] = do_write,         [STEP_BITMAP_ADD] = do_bitmap,
		[STEP_BITMAP_CLEAR] = do_bitmap, [STEP_BITMAP_REMOVE] = do_bitmap,
	};

	return run[s->kind](r, *s, err);
}

/* ---- what must hold ---- */

static void judge_error(struct run *r, const struct step *s, int code, const struct err *e)
{
	if (code != -r->f->code)
		die("step %d: %d (%s), not %d", s->kind, code, e->msg, -r->f->code);
	if (!e->msg[0] || e->code != -code)
		die("step %d: error %d without a text", s->kind, code);
}

/* An image that refuses writes says why, and leaves the file alone. */
static void judge_refusal(struct run *r)
{
	unsigned char sector[SECTOR] = {0};
	struct err e = {0};
	int code = io_pwrite(&r->img->io, sector, SECTOR, 0, &e);

	if (code >= 0 || !strstr(e.msg, "an earlier write-back failed"))
		die("a write after a failed write-back: %d %s", code, e.msg);
	r->refused = true;
}

static bool on_snapshots(const struct step *s)
{
	return s->kind == STEP_CREATE || s->kind == STEP_APPLY || s->kind == STEP_REMOVE;
}

/* What failed half-way is something that may be; then try again. */
static int judge_and_retry(struct run *r, const struct step *s, int code, struct err *e)
{
	judge_error(r, s, code, e);
	r->weakened |= (on_snapshots(s) || s->kind == STEP_DEDUP) &&
		       strstr(r->im->subject->opts, "compat=0.10");
	if (atomic_load(&r->img->broken)) {
		judge_refusal(r);
		return code;
	}
	if (r->f->sticky)
		return code;
	*e = (struct err){0};
	code = do_step(r, s, e);
	if (code < 0)
		die("step %d, tried again: %d %s", s->kind, code, e->msg);
	return 0;
}

static bool on_bitmaps(const struct step *s)
{
	return s->kind == STEP_BITMAP_ADD || s->kind == STEP_BITMAP_CLEAR ||
	       s->kind == STEP_BITMAP_REMOVE;
}

/* Sectors whose bits a bitmap that is there has to have. */
static void note_must(struct run *r, const struct step *s)
{
	uint64_t end = s->first + s->n;

	if (s->kind == STEP_RESIZE)
		memset(r->must + min_u64(s->first, MOST), 0, MOST - min_u64(s->first, MOST));
	if (s->kind == STEP_WRITE || s->kind == STEP_ZERO || s->kind == STEP_UNMAP ||
	    s->kind == STEP_DISCARD)
		for (uint64_t i = s->first; i < end && i < MOST; i++)
			r->must[i] = true;
}

static void run_steps(struct run *r, const struct step *s)
{
	for (; s->kind != STEP_END && !r->refused; s++) {
		struct err e = {0};
		int code;

		if (!r->img->fmt->snapshots && on_snapshots(s))
			continue;
		if (!r->img->fmt->amend && s->kind == STEP_AMEND)
			continue;
		if (on_bitmaps(s) && !img_has_bitmaps(r->img))
			continue;
		if (s->kind == STEP_APPLY && !r->shot[s->first].there)
			continue;
		if (s->kind == STEP_REMOVE && !r->shot[s->first].there && !r->shot[s->first].maybe)
			continue;
		code = do_step(r, s, &e);
		if (code < 0)
			code = judge_and_retry(r, s, code, &e);
		if (code == 0)
			note_must(r, s);
	}
}

static void judge_bits(const struct run *r, const struct oracle *o)
{
	struct oracle_bitmap b;

	for (uint32_t i = 0; i < o->n_bitmaps; i++) {
		expect(oracle_bitmap(o, i, &b));
		for (uint64_t s = 0; s < min_u64(MOST, o->size / SECTOR) && b.flags == 2; s++)
			if (r->must[s] && !oracle_bit(o, &b, s * SECTOR))
				die("bitmap %s misses sector %" PRIu64, b.name, s);
	}
}

/* The file as bytes. Returns whether it is marked dirty. */
static bool judge_file(struct run *r)
{
	struct oracle o = {0};
	uint64_t len;
	unsigned char *p = disk_bytes(r->file, &len);
	bool dirty;

	if (!oracle_judge(&o, p, len) || o.corrupt_bit || o.bad_pointers)
		die("the file: %s", o.text);
	dirty = o.dirty;
	judge_bits(r, &o);
	if (!dirty && (o.errors || o.copied_wrong || (o.copied_missing && !r->weakened)))
		die("the file: %u errors, COPIED: %u wrong, %u missing: %s", o.errors,
		    o.copied_wrong, o.copied_missing, o.text);
	oracle_free(&o);
	free(p);
	return dirty;
}

static void judge_values(struct run *r, struct img *img)
{
	uint64_t n = io_size(&img->io) / SECTOR;
	struct err e = {0};

	if (n != r->size[0] && n != r->size[1])
		die("the disk has %" PRIu64 " sectors, not %" PRIu64 " or %" PRIu64, n, r->size[0],
		    r->size[1]);
	must(io_pread(&img->io, r->buf, n * SECTOR, 0, &e), &e);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t v = sector_value(r->buf + i * SECTOR);

		if (!cells_may(&r->cells, i, v))
			die("sector %" PRIu64 " is %" PRIx64 ", may be %" PRIx64 " … %" PRIx64, i,
			    v, r->cells.v[i].may[0], r->cells.v[i].may[r->cells.v[i].n - 1]);
	}
}

static void judge_shots(struct run *r)
{
	struct err e = {0};

	for (unsigned k = 0; k < SHOTS; k++) {
		const struct shot *shot = &r->shot[k];
		struct img *img;
		unsigned index;
		char name[8];

		if (!shot->there && !shot->maybe)
			continue;
		snprintf(name, sizeof(name), "s%u", k);
		must(open_again(r, 0, true, &img, &e), &e);
		if (img_snapshot_find(img, name, &index, &e) < 0) {
			expect(shot->maybe);
		} else {
			must(img_snapshot_view(img, index, &e), &e);
			must(io_pread(&img->io, r->buf, shot->size * SECTOR, 0, &e), &e);
			for (uint64_t i = 0; i < shot->size; i++)
				if (shot->value[i] != CELL_UNKNOWN &&
				    shot->value[i] != sector_value(r->buf + i * SECTOR))
					die("snapshot %s: sector %" PRIu64, name, i);
		}
		io_close(&img->io);
	}
}

/* Whoever opens it next can go on. */
static void judge_next(struct run *r)
{
	bool qcow2 = !strcmp(r->im->subject->format, "qcow2");
	struct check_result res;
	struct err e = {0};
	struct img *img;
	uint64_t n;

	if (qcow2)
		judge_file(r);
	must(open_again(r, IMG_RDWR, true, &img, &e), &e);
	judge_values(r, img);
	judge_shots(r);
	n = io_size(&img->io);
	memset(r->buf, 0x55, n);
	must(io_pwrite(&img->io, r->buf, n, 0, &e), &e);
	must(img_settle(img, &e), &e);
	if (qcow2) {
		must(img_check(img, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &res, NULL, NULL, &e), &e);
		expect(!res.corruptions && !res.leaks && !res.check_errors);
	}
	io_close(&img->io);
	r->weakened = false;
	if (qcow2)
		expect(!judge_file(r));
}

static void run_once(const struct image *im, const struct script *script, struct faults *f,
		     struct sweep_totals *sum)
{
	struct run r = {.im = im, .f = f, .size = {SECTORS, SECTORS}};
	struct err e = {0};
	int code;

	r.file = disk_from_bytes(im->bytes, im->len, "file");
	if (im->below)
		r.below = disk_from_bytes(im->below, im->below_len, "below");
	r.buf = malloc((MOST + 8) * SECTOR);
	expect(r.buf);
	cells_init(&r.cells, im->value, MOST);
	code = open_again(&r, IMG_RDWR, false, &r.img, &e);
	if (code < 0) {
		judge_error(&r, &(struct step){.kind = STEP_END}, code, &e);
	} else {
		run_steps(&r, script->steps);
		io_close(&r.img->io);
	}
	f->disarm(f);
	sum->refused += r.refused;
	sum->runs++;
	judge_next(&r);
	io_close(r.file);
	io_close(r.below);
	cells_free(&r.cells);
	free(r.buf);
}

void scenario_sweep(const struct subject *subject, const struct script *script, struct faults *f,
		    struct sweep_totals *sum)
{
	struct image im;

	context("%s %s, backing %s: %s", subject->format, subject->opts,
		subject->backing ? subject->backing : "none", script->name);
	make_image(&im, subject);
	for (f->at = 1;; f->at += max_u64(1, f->stride)) {
		context("%s %s, backing %s: %s, %s%s at %" PRIu64, subject->format, subject->opts,
			subject->backing ? subject->backing : "none", script->name, f->name,
			f->sticky ? " and on" : "", f->at);
		run_once(&im, script, f, sum);
		if (f->calls(f) < f->at)
			break;
	}
	/* A script without a call that can fail would prove nothing. */
	expect(f->at > 1);
	free(im.bytes);
	free(im.below);
}
