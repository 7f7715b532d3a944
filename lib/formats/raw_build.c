// SPDX-License-Identifier: LGPL-2.1-or-later
/* The builder of raw images: every byte has its place already. See image/build.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "formats/raw.h"
#include "io/file.h"

#define SECTOR 512

const struct opt raw_create_opts[] = {
	{.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"},
	{.name = "preallocation",
	 .type = OPT_STRING,
	 .help = "Preallocation mode (allowed values: off, falloc, full)"},
	{.name = NULL},
};

static int raw_reserve(struct build *b, uint64_t off, uint64_t len, uint64_t *host, struct err *err)
{
	(void)b;
	(void)len;
	(void)err;
	*host = off;
	return 0;
}

static int raw_set_size(struct build *b, uint64_t size, struct err *err)
{
	(void)err;
	b->size = round_up(size, SECTOR);
	return 0;
}

static int check_room(const struct build *b, struct err *err)
{
	struct io *file = b->file;

	if (b->size <= io_size(file) || (file->caps & IO_GROWS))
		return 0;
	return err_set(err, ENOSPC,
		       "%s: the image needs %" PRIu64 " bytes, the device has %" PRIu64, file->name,
		       b->size, io_size(file));
}

static int raw_finish(struct build *b, struct err *err)
{
	int r = check_room(b, err);

	if (r == 0 && (b->file->caps & IO_GROWS) && io_size(b->file) != b->size)
		r = io_resize(b->file, b->size, err);
	return r;
}

static void raw_close_build(struct build *b)
{
	free(b);
}

static const struct build_ops raw_build_ops = {
	.reserve = raw_reserve,
	.set_size = raw_set_size,
	.finish = raw_finish,
	.close = raw_close_build,
};

static int parse_mode(const struct opts *opts, int *mode, struct err *err)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};

	*mode = PREALLOC_OFF;
	if (opts_enum(opts, "preallocation", modes, mode, NULL) < 0)
		return err_set(err, EINVAL, "invalid parameter value: %s",
			       opts_get(opts, "preallocation"));
	if (*mode == PREALLOC_METADATA)
		return err_set(err, EINVAL, "Unsupported preallocation mode: metadata");
	return 0;
}

static int write_zeros(struct build *b, struct err *err)
{
	int r = 0;

	for (uint64_t off = 0, n; r == 0 && off < b->size; off += n) {
		n = min_u64(b->size - off, ZERO_BUF_SIZE);
		r = io_pwrite(b->file, zero_buf, n, off, err);
	}
	return r;
}

static int preallocate(struct build *b, int mode, struct err *err)
{
	int r = -ENOTSUP;

	if (mode == PREALLOC_OFF)
		return 0;
	b->preallocated = true;
	if (mode == PREALLOC_FALLOC)
		r = file_allocate(b->file, 0, b->size, err);
	/* "full", and what cannot reserve space otherwise. */
	return r == -ENOTSUP ? write_zeros(b, err) : r;
}

int raw_build(struct io *file, const struct create_args *args, unsigned flags, struct build **out,
	      struct err *err)
{
	struct build *b;
	int mode, r;

	(void)flags; /* a stream is as good as a file */
	if (args->backing)
		return err_set(err, EINVAL, "Backing file not supported for file format 'raw'");
	if (args->size > INT64_MAX - SECTOR)
		return err_set(err, EFBIG, "The image size is too large for file format 'raw'");
	r = parse_mode(args->opts, &mode, err);
	if (r < 0)
		return r;
	if (mode != PREALLOC_OFF && (file->caps & IO_STREAM))
		return err_set(err, ENOTSUP, "%s: a stream cannot be preallocated", file->name);
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_nomem(err, sizeof(*b), "a new image");
	build_init(b, &raw_build_ops, file, round_up(args->size, SECTOR), 1);
	b->max_size = INT64_MAX - SECTOR;
	b->identity = true;
	r = check_room(b, err);
	/* Not longer and longer with each write: that would make writers wait for each other. */
	if (r == 0 && (file->caps & IO_GROWS) && !(file->caps & IO_STREAM))
		r = io_resize(file, b->size, err);
	if (r == 0)
		r = preallocate(b, mode, err);
	if (r < 0) {
		build_close(b);
		return r;
	}
	*out = b;
	return 0;
}
