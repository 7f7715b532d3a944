// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * commit and rebase with every call of a file, or every allocation, failing, once or from then on: they
 * end with that error and a text, what is read through the chain that the header names is as before, and
 * the next try succeeds.
 *
 * timeout: 300
 * variants: release asan tsan
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=strdup,--wrap=strndup
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
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
	COMMIT_CLONES,
	COMMIT_FAR,
	REBASE,
	REBASE_CODED,
	REBASE_DROP,
	REBASE_NONE,
	REBASE_CLONES,
	WHATS,
};
static const char *const whats[] = {
	"commit",
	"commit -d",
	"commit, sharing blocks",
	"commit -b",
	"rebase",
	"rebase -c",
	"rebase --drop-equal",
	"rebase to nothing",
	"rebase, sharing blocks",
};

/* Files in memory that survive a try. */
struct chain {
	struct io *top, *mid, *base, *other; /* other: what rebase goes to */
	unsigned char *content;              /* of the top's disk */
};

/* The at-th call fails (0: none), or all from it on; or the at-th allocation. */
struct fault {
	int code; /* ENOMEM: allocations */
	bool sticky;
	uint64_t at;
};

static struct fault_plan plan;

static void arm(const struct fault *f)
{
	plan.code = f->code;
	plan.sticky = f->sticky;
	plan.writes_only = f->code == ENOSPC;
	atomic_store(&plan.calls, 0);
	if (f->code == ENOMEM)
		alloc_arm(f->at, f->sticky);
	else
		plan.fail_at = f->at;
}

static void disarm(void)
{
	alloc_disarm();
	plan.fail_at = 0;
}

static uint64_t calls_of(const struct fault *f)
{
	return f->code == ENOMEM ? alloc_calls() : atomic_load(&plan.calls);
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

/* What `name` stands for, with what is under it. */
static struct img *open_named(const struct chain *c, const char *name)
{
	if (!name)
		return NULL;
	if (!strcmp(name, "mid"))
		return open_layer(c->mid, 0, open_named(c, "base"), false);
	return open_layer(!strcmp(name, "base") ? c->base : c->other, 0, NULL, false);
}

static void verify(const struct chain *c)
{
	struct img *top = open_layer(c->top, 0, NULL, false), *backing;
	unsigned char *buf = malloc(SIZE);
	struct check_result res;
	struct err e = {0};

	expect(buf);
	backing = open_named(c, top->backing_name);
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
		.top = make_image(1, "mid"),
		.mid = make_image(4, "base"),
		.base = make_image(2, NULL),
		.other = make_image(3, NULL),
		.content = malloc(SIZE),
	};
	struct img *top = open_layer(c.top, 0, open_named(&c, "mid"), false);
	struct err e = {0};

	expect(c.content);
	if (what == COMMIT_CLONES || what == REBASE_CLONES) {
		c.top->caps |= IO_CLONES;
		c.mid->caps |= IO_CLONES;
	}
	must(io_pread(&top->io, c.content, SIZE, 0, &e), &e);
	io_close(&top->io);
	return c;
}

static void free_chain(struct chain *c)
{
	io_close(c->top);
	io_close(c->mid);
	io_close(c->base);
	io_close(c->other);
	free(c->content);
}

static int run(const struct chain *c, enum what what, const struct fault *f, struct err *err)
{
	bool near = what < COMMIT_FAR;
	struct img *base = open_layer(c->base, what == COMMIT_FAR ? IMG_RDWR : 0, NULL, true);
	struct img *mid = open_layer(c->mid, near ? IMG_RDWR : 0, base, true);
	struct img *top = open_layer(c->top, IMG_RDWR, mid, true);
	struct img *other =
		what >= REBASE && what != REBASE_NONE ? open_layer(c->other, 0, NULL, true) : NULL;
	int r;

	arm(f);
	if (what < REBASE) {
		const struct commit_args args = {.top = top,
						 .base = near ? mid : base,
						 .keep = what == COMMIT_KEEP || !near,
						 .workers = 2};

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
	disarm();
	return r;
}

/* One try with a fault; the calls that there were. */
static uint64_t try(enum what what, const struct fault *f, int *r)
{
	static const struct fault none = {0};
	struct chain c = make_chain(what);
	struct err e = {0};
	uint64_t calls;

	context("%s, call %" PRIu64 "%s: %s", whats[what], f->at, f->sticky ? " and on" : "",
		strerror(f->code));
	*r = run(&c, what, f, &e);
	calls = calls_of(f);
	if (*r < 0 && (*r != -f->code || !e.msg[0]))
		die("%d: %s", *r, e.msg);
	verify(&c);
	e = (struct err){0};
	/* Where the name has changed already, there is nothing left to do. */
	if (*r < 0 && what < REBASE) {
		must(run(&c, what, &none, &e), &e);
		verify(&c);
	}
	free_chain(&c);
	return calls;
}

static uint64_t sweep(enum what what, int code, bool sticky, uint64_t stride)
{
	struct fault f = {code, sticky, 1};
	uint64_t calls;
	int r;

	for (;; f.at += stride) {
		calls = try(what, &f, &r);
		if (r == 0 && calls < f.at)
			return f.at;
	}
}

int main(void)
{
	uint64_t stride = SANITIZED ? 11 : 3, runs = 0;

	for (enum what what = 0; what < WHATS; what++) {
		runs += sweep(what, EIO, false, stride);
#ifdef __SANITIZE_THREAD__ /* threads race in the same way whatever fails */
		continue;
#endif
		runs += sweep(what, EIO, true, stride);
		runs += sweep(what, ENOSPC, true, stride);
		runs += sweep(what, ENOMEM, false, stride);
		runs += sweep(what, ENOMEM, true, stride);
	}
	printf("up to %" PRIu64 " calls\n", runs);
	return 0;
}
