// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * commit and rebase with every call of a file failing, once or from then on: they end with that error
 * and a text, what is read through the chain that the header names is as before, and the next try
 * succeeds.
 *
 * timeout: 300
 * variants: release asan
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "disk.h"
#include "ops/commit.h"
#include "ops/rebase.h"
#include "rng.h"
#include "tell.h"

#define SIZE (384 * KiB + 512)

enum what {
	COMMIT,
	COMMIT_KEEP,
	REBASE,
	REBASE_CODED,
	REBASE_DROP,
	REBASE_NONE,
	COMMIT_CLONES,
	REBASE_CLONES,
	WHATS,
};
static const char *const whats[] = {
	"commit",
	"commit -d",
	"rebase",
	"rebase -c",
	"rebase --drop-equal",
	"rebase to nothing",
	"commit, sharing blocks",
	"rebase, sharing blocks",
};

/* Files in memory that survive a try. */
struct chain {
	struct io *top, *base, *other; /* other: what rebase goes to */
	unsigned char *content;        /* of the top's disk */
};

static struct fault_plan plan;

static bool is_commit(enum what what)
{
	return what == COMMIT || what == COMMIT_KEEP || what == COMMIT_CLONES;
}

static enum fill some_kind(void *ctx, uint64_t cluster)
{
	static const enum fill kinds[] = {FILL_NONE, FILL_DATA, FILL_CODED, FILL_ZERO, FILL_NONE};

	return kinds[(cluster * 7 + *(unsigned *)ctx) % ARRAY_LEN(kinds)];
}

static struct io *make_image(unsigned seed, const char *backing)
{
	struct io *file = disk_new(backing ? "top" : "base");
	struct rng rng = {seed};
	unsigned char *bytes = malloc(SIZE);
	struct fill_args args = {
		.size = SIZE,
		.opts = "cluster_size=4096",
		.backing = backing,
		.backing_format = backing ? "qcow2" : NULL,
		.data = bytes,
		.kind = some_kind,
		.ctx = &seed,
	};

	expect(bytes);
	for (uint64_t at = 0; at < SIZE; at += 512)
		memset(bytes + at, (int)rng_below(&rng, 3), 512);
	disk_fill(file, "qcow2", &args);
	free(bytes);
	return file;
}

static struct img *open_layer(struct io *mem, unsigned flags, struct img *backing, bool faults)
{
	struct io *file = faults ? NULL : disk_borrow(mem);
	struct img *img;
	struct err e = {0};

	if (faults)
		must(fault_open(mem, false, &plan, &file, &e), &e);
	must(img_open_io(file, "qcow2", flags, backing, &img, &e), &e);
	return img;
}

static void verify(const struct chain *c)
{
	struct img *top = open_layer(c->top, 0, NULL, false), *backing = NULL;
	unsigned char *buf = malloc(SIZE);
	struct check_result res;
	struct err e = {0};

	expect(buf);
	if (top->backing_name)
		backing = open_layer(!strcmp(top->backing_name, "base") ? c->base : c->other, 0,
				     NULL, false);
	io_close(&top->io);
	top = open_layer(c->top, 0, backing, false);
	must(io_pread(&top->io, buf, SIZE, 0, &e), &e);
	expect(!memcmp(buf, c->content, SIZE));
	must(img_check(top, 0, &res, NULL, NULL, &e), &e);
	expect(!res.corruptions && !res.check_errors);
	io_close(&top->io);
	free(buf);
}

static struct chain make_chain(enum what what)
{
	struct chain c = {
		.top = make_image(1, "base"),
		.base = make_image(2, NULL),
		.other = make_image(3, NULL),
		.content = malloc(SIZE),
	};
	struct img *top = open_layer(c.top, 0, open_layer(c.base, 0, NULL, false), false);
	struct err e = {0};

	expect(c.content);
	if (what >= COMMIT_CLONES) {
		c.top->caps |= IO_CLONES;
		c.base->caps |= IO_CLONES;
	}
	must(io_pread(&top->io, c.content, SIZE, 0, &e), &e);
	io_close(&top->io);
	return c;
}

static void free_chain(struct chain *c)
{
	io_close(c->top);
	io_close(c->base);
	io_close(c->other);
	free(c->content);
}

static int run(const struct chain *c, enum what what, uint64_t fail_at, struct err *err)
{
	struct img *base = open_layer(c->base, is_commit(what) ? IMG_RDWR : 0, NULL, true);
	struct img *top = open_layer(c->top, IMG_RDWR, base, true);
	struct img *other = !is_commit(what) && what != REBASE_NONE
				    ? open_layer(c->other, 0, NULL, true)
				    : NULL;
	int r;

	atomic_store(&plan.calls, 0);
	plan.fail_at = fail_at;
	if (is_commit(what)) {
		const struct commit_args args = {
			.top = top, .base = base, .keep = what == COMMIT_KEEP, .workers = 2};

		r = commit_run(&args, NULL, err);
	} else {
		const struct rebase_args args = {
			.overlay = top,
			.backing = other,
			.name = other ? "other" : NULL,
			.format = other ? "qcow2" : NULL,
			.compress = what == REBASE_CODED,
			.drop_equal = what == REBASE_DROP,
			.workers = 2,
		};

		r = rebase_run(&args, NULL, err);
	}
	io_close(&top->io);
	plan.fail_at = 0;
	return r;
}

static uint64_t sweep(enum what what, int code, bool sticky, uint64_t stride)
{
	uint64_t at;

	plan.code = code;
	plan.sticky = sticky;
	plan.writes_only = code == ENOSPC;
	for (at = 1;; at += stride) {
		struct chain c = make_chain(what);
		struct err e = {0};
		uint64_t calls;
		int r;

		context("%s, call %" PRIu64 "%s: %s", whats[what], at, sticky ? " and on" : "",
			strerror(code));
		r = run(&c, what, at, &e);
		calls = atomic_load(&plan.calls);
		if (r < 0 && (r != -code || !e.msg[0]))
			die("%d: %s", r, e.msg);
		verify(&c);
		e = (struct err){0};
		/* Where the name has changed already, there is nothing left to do. */
		if (r < 0 && is_commit(what)) {
			must(run(&c, what, 0, &e), &e);
			verify(&c);
		}
		free_chain(&c);
		if (r == 0 && calls < at)
			return at;
	}
}

int main(void)
{
	uint64_t stride = SANITIZED ? 7 : 2, runs = 0;

	for (enum what what = 0; what < WHATS; what++) {
		runs += sweep(what, EIO, false, stride);
		runs += sweep(what, EIO, true, stride);
		runs += sweep(what, ENOSPC, true, stride);
	}
	printf("up to %" PRIu64 " calls\n", runs);
	return 0;
}
