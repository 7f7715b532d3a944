// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What `img bitmap` does to an image, with every call of its file, or every allocation, failing, once or
 * from then on: it ends with that error and a text, and every bitmap is as it was, as it was to be, gone
 * or not yet there where that is one of the two, or in use, which makes it void. Of a merge some may be
 * done: then nothing is missing that was there.
 *
 * variants: release asan
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
#include "ops/bitmap.h"
#include "oracle.h"
#include "tell.h"

#define SIZE (5 * MiB) /* several clusters of bits */

static struct fault_plan plan;
static struct io *source; /* an image whose bitmap is merged */

static int add(struct img *img, struct err *err)
{
	return bitmap_add(img, "new", 1024, true, err);
}
static int remove_one(struct img *img, struct err *err)
{
	return bitmap_remove(img, "a", err);
}
static int clear(struct img *img, struct err *err)
{
	return bitmap_clear(img, "a", err);
}
static int enable(struct img *img, struct err *err)
{
	return bitmap_enable(img, "b", true, err);
}
static int disable(struct img *img, struct err *err)
{
	return bitmap_enable(img, "a", false, err);
}
static int merge(struct img *img, struct err *err)
{
	return bitmap_merge(img, "b", img, "a", NULL, err);
}
static int merge_other(struct img *img, struct err *err)
{
	struct io *file;
	struct img *src;
	int r;

	alloc_pause();
	file = disk_borrow(source);
	alloc_resume();
	r = img_open_io(file, "qcow2", 0, NULL, &src, err);
	if (r < 0) {
		io_close(file);
		return r;
	}
	r = bitmap_merge(img, "b", src, "a", NULL, err);
	io_close(&src->io);
	return r;
}

static const struct {
	const char *name;
	int (*run)(struct img *, struct err *);
} ops[] = {
	{"add", add},
	{"remove", remove_one},
	{"clear", clear},
	{"enable", enable},
	{"disable", disable},
	{"merge", merge},
	{"merge from another", merge_other},
};

/* ---- what the file says ---- */

struct said {
	bool there, in_use, enabled;
	unsigned char bit[SIZE / 512];
};
static const char *const names[] = {"a", "b", "new"};

static void read_bitmaps(struct io *file, struct said said[ARRAY_LEN(names)])
{
	struct oracle o = {0};
	struct oracle_bitmap b;
	uint64_t len;
	unsigned char *p = disk_bytes(file, &len);

	memset(said, 0, ARRAY_LEN(names) * sizeof(*said));
	if (!oracle_judge(&o, p, len) || (o.errors && !o.dirty))
		die("the file: %s", o.text);
	for (unsigned i = 0; oracle_bitmap(&o, i, &b); i++) {
		struct said *s = NULL;

		for (size_t k = 0; k < ARRAY_LEN(names); k++)
			if (!strcmp(b.name, names[k]))
				s = &said[k];
		expect(s);
		*s = (struct said){true, b.flags & 1, b.flags & 2, {0}};
		for (uint64_t at = 0; !s->in_use && at < SIZE; at += 512)
			s->bit[at / 512] = oracle_bit(&o, &b, at);
	}
	oracle_free(&o);
	free(p);
}

static bool same(const struct said *a, const struct said *b)
{
	return a->there == b->there &&
	       (!a->there || (a->enabled == b->enabled && !memcmp(a->bit, b->bit, sizeof(a->bit))));
}

/* Bits were only added, and only those that were to be. */
static bool between(const struct said *now, const struct said *before, const struct said *after)
{
	if (!now->there || !before->there || !after->there || now->enabled != after->enabled)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(now->bit); i++)
		if (now->bit[i] < before->bit[i] || now->bit[i] > after->bit[i])
			return false;
	return true;
}

/* ---- trying ---- */

static struct io *make_image(uint64_t from)
{
	struct io *file = disk_new("image");
	unsigned char byte = 1;
	struct err e = {0};
	struct img *img;

	disk_create(file, "qcow2", SIZE, "cluster_size=512", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	must(bitmap_add(img, "a", 512, true, &e), &e);
	must(bitmap_add(img, "b", 512, true, &e), &e);
	for (uint64_t at = from; at < SIZE; at += 500 * KiB)
		must(io_pwrite(&img->io, &byte, 1, at, &e), &e);
	must(bitmap_enable(img, "b", false, &e), &e);
	for (uint64_t at = from; at < SIZE; at += 300 * KiB)
		must(io_pwrite(&img->io, &byte, 1, at + 2048, &e), &e);
	io_close(&img->io);
	return file;
}

static uint64_t try(size_t op, struct io *origin, int code, bool sticky, uint64_t at, int *r)
{
	struct io *mem = disk_copy(origin, "image"), *file;
	struct said before[ARRAY_LEN(names)], after[ARRAY_LEN(names)], now[ARRAY_LEN(names)];
	struct img *img;
	struct err e = {0};
	uint64_t calls;

	read_bitmaps(mem, before);
	img = disk_open(mem, "qcow2", IMG_RDWR, NULL);
	must(ops[op].run(img, &e), &e);
	io_close(&img->io);
	read_bitmaps(mem, after);
	io_close(mem);

	mem = disk_copy(origin, "image");
	must(fault_open(mem, false, &plan, &file, &e), &e);
	must(img_open_io(file, "qcow2", IMG_RDWR, NULL, &img, &e), &e);
	plan.code = code;
	plan.sticky = sticky;
	plan.writes_only = code == ENOSPC;
	atomic_store(&plan.calls, 0);
	if (code == ENOMEM)
		alloc_arm(at, sticky);
	else
		plan.fail_at = at;
	*r = ops[op].run(img, &e);
	if (*r == 0)
		*r = img_settle(img, &e);
	calls = code == ENOMEM ? alloc_calls() : atomic_load(&plan.calls);
	io_close(&img->io);
	alloc_disarm();
	plan.fail_at = 0;
	if (*r < 0 && (*r != -code || !e.msg[0]))
		die("%d: %s", *r, e.msg);
	read_bitmaps(mem, now);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!now[i].in_use && !same(&now[i], &after[i]) &&
		    (*r == 0 ||
		     (!same(&now[i], &before[i]) && !between(&now[i], &before[i], &after[i]))))
			die("bitmap '%s' is neither what it was nor what it was to be", names[i]);
		else if (*r == 0 && now[i].in_use)
			die("bitmap '%s' is void", names[i]);
	io_close(mem);
	return calls;
}

int main(void)
{
	static const struct {
		int code;
		bool sticky;
	} faults[] = {{EIO, false}, {EIO, true}, {ENOSPC, true}, {ENOMEM, false}, {ENOMEM, true}};
	struct io *origin = make_image(100);
	uint64_t runs = 0, calls;
	int r;

	source = make_image(3000);
	for (size_t op = 0; op < ARRAY_LEN(ops); op++)
		for (size_t f = 0; f < ARRAY_LEN(faults); f++)
			for (uint64_t at = 1;; at++) {
				context("%s, call %" PRIu64 "%s: %s", ops[op].name, at,
					faults[f].sticky ? " and on" : "",
					strerror(faults[f].code));
				calls = try(op, origin, faults[f].code, faults[f].sticky, at, &r);
				runs++;
				if (r == 0 && calls < at)
					break;
			}
	printf("%" PRIu64 " runs\n", runs);
	io_close(origin);
	io_close(source);
	return runs < 200;
}
