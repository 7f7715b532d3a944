// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The raw format: guest offset = file offset. The disk ends on a 512-byte sector: a file whose size
 * is not a multiple of that is extended by zeros for the reader, and for real by the first write
 * there. A block device or a file keeps its own holes, which map reports.
 */
#include "formats/raw.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "io/file.h"
#include "io/window.h"

#define SECTOR 512

static int raw_probe(const struct probe *probe)
{
	(void)probe;
	return 1; /* fits everything, worse than any magic */
}

static const struct opt raw_open_opts[] = {
	{.name = "offset", .type = OPT_SIZE, .help = "First byte of the disk in the file"},
	{.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"},
	{.name = NULL},
};

/* A part of the file, in whole sectors. */
static int open_part(struct img *img, uint64_t off, uint64_t size, bool sized, struct err *err)
{
	uint64_t real = io_size(img->file);

	if (off > real)
		return err_set(err, EINVAL,
			       "Offset (%" PRIu64
			       ") cannot be greater than size of the containing file (%" PRIu64 ")",
			       off, real);
	if (!sized)
		size = real - off;
	else if (size > real - off)
		return err_set(err, EINVAL,
			       "The sum of offset (%" PRIu64 ") and size (%" PRIu64
			       ") has to be smaller or equal to the  actual size of the containing "
			       "file (%" PRIu64 ")",
			       off, size, real);
	if (!is_aligned(size, SECTOR))
		return err_set(err, EINVAL, "Specified size is not multiple of %d", SECTOR);
	return window_open(img->file, off, size, true, &img->file, err);
}

static int choose_part(struct img *img, const struct opts *opts, struct err *err)
{
	bool sized = opts_get(opts, "size");
	uint64_t off = 0, size = 0;
	int r = opts_size(opts, "offset", &off, err);

	if (r == 0)
		r = opts_size(opts, "size", &size, err);
	return r < 0 || (off == 0 && !sized) ? r : open_part(img, off, size, sized, err);
}

static int raw_open(struct img *img, const struct opts *opts, struct err *err)
{
	int r;

	if (io_size(img->file) > INT64_MAX - SECTOR)
		return err_set(err, EFBIG, "%s: file too large", img->io.name);
	r = choose_part(img, opts, err);
	if (r < 0)
		return r;
	img->io.size = round_up(io_size(img->file), SECTOR);
	img->io.align = img->file->align;
	img->io.caps |= img->file->caps & (IO_SPARSE | IO_FASTZERO | IO_STREAM);
	return 0;
}

static void raw_close(struct img *img)
{
	(void)img;
}

static bool holds_image(struct io *io)
{
	for (; io; io = window_inner(io)) {
		if (io_is_img(io))
			return true;
	}
	return false;
}

/* Where an image has its bytes is its own business, and may change: they are read through it. */
static void through_image(struct io *file, struct extent *ext)
{
	bool zero = ext->kind == EXT_ABSENT || ext->kind == EXT_ZERO;

	ext->kind = zero ? EXT_ZERO : EXT_DATA;
	ext->host = ext->off;
	ext->io = file;
	ext->depth = 0;
}

static int raw_map(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	uint64_t size = io_size(img->file);

	if (off < size) {
		int r = io_map(img->file, off, min_u64(len, size - off), ext, err);

		if (r == 0 && holds_image(img->file))
			through_image(img->file, ext);
		return r;
	}
	*ext = (struct extent){
		.kind = EXT_ZERO, .off = off, .len = len, .host = off, .io = img->file};
	return 0;
}

static int preallocate(struct img *img, uint64_t from, uint64_t to, int mode, struct err *err)
{
	switch (mode) {
	case PREALLOC_OFF:
		return 0;
	case PREALLOC_FALLOC:
		if (!io_is_file(img->file))
			return err_set(err, ENOTSUP, "%s: space cannot be reserved here",
				       img->io.name);
		return file_allocate(img->file, from, to - from, err);
	case PREALLOC_FULL:
		while (from < to) {
			uint64_t n = min_u64(to - from, ZERO_BUF_SIZE);
			int r = io_pwrite(img->file, zero_buf, n, from, err);

			if (r < 0)
				return r;
			from += n;
		}
		return 0;
	default:
		return err_set(err, EINVAL, "%s: raw images have no metadata to preallocate",
			       img->io.name);
	}
}

static int raw_resize(struct img *img, uint64_t size, int prealloc, struct err *err)
{
	uint64_t old = io_size(img->file);
	bool first = !old && size && prealloc != PREALLOC_FULL; /* sector is whole, as the peer's */
	int r;

	if (prealloc != PREALLOC_OFF && size < old)
		return err_set(err, EINVAL,
			       "%s: preallocation can't be used for shrinking an image",
			       img->io.name);
	if (prealloc == PREALLOC_METADATA)
		return preallocate(img, old, size, prealloc, err);
	r = io_resize(img->file, first ? max_u64(size, SECTOR) : size, err);
	if (r < 0)
		return r;
	img->io.size = round_up(size, SECTOR); /* whatever becomes of the rest */
	if (size > old)
		r = preallocate(img, old, size, prealloc, err);
	if (r < 0)
		return r;
	r = io_flush(img->file, err);
	if (r < 0)
		atomic_store(&img->broken, -r);
	return r;
}

static int raw_info(struct img *img, struct img_info *info, struct err *err)
{
	(void)img;
	(void)info;
	(void)err;
	return 0;
}

const struct format raw_format = {
	.name = "raw",
	.summary = "the disk's bytes and nothing else",
	.caps = FMT_WRITE | FMT_CREATE,
	.img_size = sizeof(struct img),
	.create_opts = raw_create_opts,
	.open_opts = raw_open_opts,
	.probe = raw_probe,
	.open = raw_open,
	.close = raw_close,
	.map = raw_map,
	.resize = raw_resize,
	.info = raw_info,
	.measure = raw_measure,
	.build = raw_build,
};
