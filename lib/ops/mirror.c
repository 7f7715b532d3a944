// SPDX-License-Identifier: LGPL-2.1-or-later
/* See mirror.h. */
#include "ops/mirror.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "io/window.h"
#include "ops/bitmap.h"
#include "ops/compare.h"
#include "ops/mirror_impl.h"

/* ---- mark ---- */

/* Whether it has every change since it was cleared: one that does not would leave some out in silence. */
static int check_bitmap(const struct bitmap *b, struct err *err)
{
	if (b->inconsistent)
		return err_set(
			err, ESTALE,
			"Bitmap '%s' is inconsistent: only a full copy begins it anew (--full)",
			b->name);
	if (!b->enabled)
		return err_set(err, ESTALE,
			       "Bitmap '%s' is disabled and has not seen every change: only a full "
			       "copy begins it anew (--full)",
			       b->name);
	return 0;
}

/* Removes a void bitmap. *missing: there is none (any more). */
static int remove_void(const struct mirror_args *args, bool *missing, struct err *err)
{
	struct bitmap b;
	unsigned index;
	int r = bitmap_find(args->src, args->bitmap, &index, err);

	*missing = r == -ENOENT;
	if (r < 0)
		return *missing ? 0 : r;
	img_bitmap_get(args->src, index, &b);
	if (!b.inconsistent)
		return 0;
	*missing = true;
	return bitmap_remove(args->src, args->bitmap, err);
}

/*
 * All bits of the bitmap, which is made where there is none. It is enabled last: in between it is
 * one that no later run would trust.
 */
static int mark_all(const struct mirror_args *args, struct mirror_result *res, struct err *err)
{
	struct img *src = args->src;
	unsigned index;
	int r = remove_void(args, &res->added, err);

	if (r == 0 && res->added)
		r = bitmap_add(src, args->bitmap, 0, false, err);
	if (r == 0)
		r = bitmap_find(src, args->bitmap, &index, err);
	if (r == 0)
		r = img_bitmap_set(src, index, 0, res->size, err);
	if (r == 0)
		r = img_settle(src, err);
	return r < 0 ? r : bitmap_enable(src, args->bitmap, true, err);
}

/* Afterwards the bitmap has all that has to be copied, also when this ends before it was. */
static int mark(const struct mirror_args *args, struct mirror_result *res, unsigned *index,
		struct err *err)
{
	struct bitmap b;
	int r = bitmap_find(args->src, args->bitmap, index, err);

	res->full = args->full || r == -ENOENT;
	if (res->full)
		r = mark_all(args, res, err);
	if (r == 0)
		r = bitmap_find(args->src, args->bitmap, index, err);
	if (r < 0)
		return r;
	img_bitmap_get(args->src, *index, &b);
	r = check_bitmap(&b, err);
	return r < 0 || res->full ? r : bitmap_count(args->src, *index, &res->dirty, err);
}

/* ---- copy ---- */

static int ask_bitmap(void *ctx, uint64_t off, uint64_t len, bool *wanted, uint64_t *run,
		      struct err *err)
{
	return bitmap_cursor_run(ctx, off, len, wanted, run, err);
}

static int copy(const struct mirror_args *args, const struct copy_filter *only, struct job *job,
		struct err *err)
{
	const struct copy_args copy = {
		.src = &args->src->io,
		.dst = &args->dst->io,
		.only = only,
		.dst_zero = args->dst_zero && !only,
		.sparse = 4 * KiB,
		.unordered = true,
		.workers = args->workers,
		.rate = args->rate,
	};
	int r = copy_run(&copy, job, err);

	return r < 0 ? r : img_settle(args->dst, err);
}

static int copy_dirty(const struct mirror_args *args, unsigned index, struct job *job,
		      struct err *err)
{
	struct bitmap_cursor cursor;
	const struct copy_filter only = {.ask = ask_bitmap, .ctx = &cursor};
	int r = bitmap_cursor_open(&cursor, args->src, index, err);

	if (r == 0)
		r = copy(args, &only, job, err);
	bitmap_cursor_close(&cursor);
	return r;
}

static int verify(const struct mirror_args *args, struct job *job, struct err *err)
{
	const struct compare_args compare = {.a = &args->src->io,
					     .b = &args->dst->io,
					     .workers = args->workers};
	struct compare_result res;
	int r;

	if (job) /* a second time from the beginning */
		atomic_store(&job->done, 0);
	r = compare_run(&compare, job, &res, err);
	if (r < 0 || res.kind == COMPARE_SAME)
		return r;
	return err_set(err, EILSEQ, "%s: differs from %s at offset %" PRIu64, args->dst->io.name,
		       args->src->io.name, res.offset);
}

/* ---- runs ---- */

char *mirror_context(const char *bitmap)
{
	char *context;

	return asprintf(&context, "qemu:dirty-bitmap:%s", bitmap) < 0 ? NULL : context;
}

static bool is_export(const struct img *img)
{
	return io_is_nbd(img->file) && strcmp(img->fmt->name, "raw") == 0;
}

static int ask_remote(void *ctx, uint64_t off, uint64_t len, bool *wanted, uint64_t *run,
		      struct err *err)
{
	return remote_bitmap_run(ctx, off, len, wanted, run, err);
}

/* With a bitmap that is the server's. */
static int copy_export(const struct mirror_args *args, struct mirror_result *res, struct job *job,
		       struct err *err)
{
	struct remote_bitmap bitmap;
	const struct copy_filter only = {.ask = ask_remote, .ctx = &bitmap};
	int r = remote_bitmap_open(&bitmap, args->src->file, args->bitmap, err);

	res->full = args->full;
	if (r == 0 && !res->full)
		r = remote_bitmap_count(&bitmap, &res->dirty, err);
	if (r == 0)
		r = copy(args, res->full ? NULL : &only, job, err);
	remote_bitmap_close(&bitmap);
	return r;
}

/* With a bitmap of the source, or none. */
static int copy_image(const struct mirror_args *args, struct mirror_result *res, unsigned *index,
		      struct job *job, struct err *err)
{
	int r = args->bitmap ? mark(args, res, index, err) : 0;

	if (r < 0)
		return r;
	return res->full ? copy(args, NULL, job, err) : copy_dirty(args, *index, job, err);
}

int mirror_run(const struct mirror_args *args, struct mirror_result *res, struct job *job,
	       struct err *err)
{
	uint64_t size = io_size(&args->src->io), room = io_size(&args->dst->io);
	bool theirs = args->bitmap && is_export(args->src);
	unsigned index = 0;
	int r;

	*res = (struct mirror_result){.full = true, .size = size, .dirty = size};
	if (room < size)
		return err_set(err, ENOSPC,
			       "%s: has %" PRIu64 " bytes, which are too few for the %" PRIu64
			       " of %s",
			       args->dst->io.name, room, size, args->src->io.name);
	if (theirs)
		r = copy_export(args, res, job, err);
	else
		r = copy_image(args, res, &index, job, err);
	if (r == 0 && args->verify)
		r = verify(args, job, err);
	if (r < 0 || !args->bitmap || theirs)
		return r;
	r = img_bitmap_clear(args->src, index, err);
	res->cleared = r == 0;
	return r < 0 ? r : img_settle(args->src, err);
}
