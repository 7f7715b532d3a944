// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: opened images, their data, their extents, their snapshots. */
#include "api/api.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file.h"
#include "ops/picture.h"
#include "ops/snapshot.h"

int imgkit_open(const char *path, const struct imgkit_open_opts *opts, struct imgkit_image **out,
		struct imgkit_err *err)
{
	struct imgkit_open_opts o;
	struct img_open_args args = {.path = path};
	CLEANUP_FREE struct imgkit_image *image = NULL;
	struct err e = {0};
	int r;

	r = api_opts(&o, sizeof(o), opts, err);
	if (r == 0)
		r = api_open_flags(o.flags, &args.flags, err);
	if (r)
		return r;
	if (!path)
		return api_invalid(err, "no path");
	args.format = o.format;
	args.snapshot = o.snapshot;
	args.max_depth = o.max_depth;
	api_external(o.external, &args);
	image = calloc(1, sizeof(*image));
	if (!image)
		return api_fail(err, err_nomem(&e, sizeof(*image), "the image"), &e);
	r = img_open(&args, &image->img, &e);
	if (r)
		return api_fail(err, r, &e);
	*out = take(image);
	return 0;
}

void imgkit_close(struct imgkit_image *image)
{
	if (!image)
		return;
	json_decref(image->info.specific);
	io_close(&image->img->io);
	free(image);
}

uint64_t imgkit_size(const struct imgkit_image *image)
{
	return io_size(&image->img->io);
}

const char *imgkit_format(const struct imgkit_image *image)
{
	return image->img->fmt->name;
}

int imgkit_pread(struct imgkit_image *image, void *buf, size_t len, uint64_t off,
		 struct imgkit_err *err)
{
	struct err e = {0};
	int r = io_pread(&image->img->io, buf, len, off, &e);

	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_pwrite(struct imgkit_image *image, const void *buf, size_t len, uint64_t off,
		  struct imgkit_err *err)
{
	struct err e = {0};
	int r = io_pwrite(&image->img->io, buf, len, off, &e);

	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_zero(struct imgkit_image *image, uint64_t off, uint64_t len, unsigned flags,
		struct imgkit_err *err)
{
	unsigned io_flags = (flags & IMGKIT_ZERO_UNMAP ? IO_ZERO_UNMAP : 0) |
			    (flags & IMGKIT_ZERO_FAST ? IO_ZERO_FAST : 0);
	struct err e = {0};
	int r;

	if (flags & ~(unsigned)(IMGKIT_ZERO_UNMAP | IMGKIT_ZERO_FAST))
		return api_invalid(err, "a flag that this version of imgkit does not know");
	r = io_zero(&image->img->io, off, len, io_flags, &e);
	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_discard(struct imgkit_image *image, uint64_t off, uint64_t len, struct imgkit_err *err)
{
	struct err e = {0};
	int r = io_discard(&image->img->io, off, len, &e);

	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_flush(struct imgkit_image *image, struct imgkit_err *err)
{
	struct err e = {0};
	int r = io_flush(&image->img->io, &e);

	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_resize(struct imgkit_image *image, uint64_t size, enum imgkit_prealloc prealloc,
		  struct imgkit_err *err)
{
	static const int modes[] = {
		[IMGKIT_PREALLOC_OFF] = PREALLOC_OFF,
		[IMGKIT_PREALLOC_METADATA] = PREALLOC_METADATA,
		[IMGKIT_PREALLOC_FALLOC] = PREALLOC_FALLOC,
		[IMGKIT_PREALLOC_FULL] = PREALLOC_FULL,
	};
	struct err e = {0};
	int r;

	if ((unsigned)prealloc >= ARRAY_LEN(modes))
		return api_invalid(err,
				   "a preallocation that this version of imgkit does not know");
	r = img_resize(image->img, size, modes[prealloc], &e);
	return r ? api_fail(err, r, &e) : 0;
}

static enum imgkit_extent_kind extent_kind(enum ext_kind kind)
{
	switch (kind) {
	case EXT_ABSENT:
		return IMGKIT_ABSENT;
	case EXT_ZERO:
		return IMGKIT_ZERO;
	case EXT_DATA:
		return IMGKIT_DATA;
	case EXT_CODED:
		break;
	}
	return IMGKIT_COMPRESSED;
}

int imgkit_map(struct imgkit_image *image, uint64_t off, uint64_t len, struct imgkit_extent *extent,
	       struct imgkit_err *err)
{
	struct extent ext = {0};
	struct err e = {0};
	int r;

	if (len == 0)
		return api_invalid(err, "an extent of no bytes");
	r = io_map(&image->img->io, off, len, &ext, &e);
	if (r)
		return api_fail(err, r, &e);
	*extent = (struct imgkit_extent){
		.off = ext.off,
		.len = ext.len,
		.kind = extent_kind(ext.kind),
		.depth = ext.depth,
		.host = IMGKIT_NO_HOST,
	};
	/* What host means for a compressed extent is the driver's business. */
	if (ext.io && ext.kind != EXT_CODED) {
		extent->host = ext.host;
		extent->file = ext.io->name;
	}
	return 0;
}

int imgkit_map_cells(struct imgkit_image *image, uint64_t off, uint64_t len,
		     struct imgkit_cell *cells, size_t cell_size, unsigned *n, uint64_t *per_cell,
		     struct imgkit_err *err)
{
	uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;
	struct picture p = {0};
	struct err e = {0};
	int r;

	if (!*n || !cell_size)
		return api_invalid(err, "no room for cells");
	r = picture_take(image->img, off, end, *n, &p, &e);
	for (unsigned i = 0; r == 0 && i < p.n; i++) {
		const uint64_t *b = p.cell[i].bytes;
		const struct imgkit_cell cell = {
			.data = b[PICTURE_DATA],
			.compressed = b[PICTURE_COMPRESSED],
			.backing = b[PICTURE_BACKING1] + b[PICTURE_BACKING2] + b[PICTURE_BACKING3],
			.zero = b[PICTURE_ZERO],
			.hole = b[PICTURE_HOLE],
		};

		api_result((char *)cells + i * cell_size, cell_size, &cell, sizeof(cell), NULL);
	}
	if (r == 0) {
		*n = p.n;
		*per_cell = p.per_cell;
	}
	picture_free(&p);
	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_info(struct imgkit_image *image, struct imgkit_info *info, size_t info_size,
		struct imgkit_err *err)
{
	struct img *img = image->img;
	struct img_info more = {0};
	struct imgkit_info answer = {
		.size = io_size(&img->io),
		.format = img->fmt->name,
		.backing = img->backing_name,
		.backing_format = img->backing_format,
		.data_file = img->data_name,
	};
	struct file_stat st;
	struct err e = {0};
	int r = 0;

	if (img->fmt->info)
		r = img->fmt->info(img, &more, &e);
	if (r)
		return api_fail(err, r, &e);
	json_decref(image->info.specific);
	image->info = more;
	if (io_is_file(img->file)) {
		r = file_stat(img->file, &st, &e);
		if (r)
			return api_fail(err, r, &e);
		answer.allocated = st.allocated;
	}
	img_snapshots(img, &answer.snapshots);
	answer.cluster_size = more.cluster_size;
	answer.dirty = more.dirty;
	answer.encrypted = more.encrypted;
	return api_result(info, info_size, &answer, sizeof(answer), err);
}

int imgkit_snapshot_get(struct imgkit_image *image, unsigned n, struct imgkit_snapshot *snapshot,
			size_t snapshot_size, struct imgkit_err *err)
{
	unsigned count = 0;
	const struct snapshot *list = img_snapshots(image->img, &count);
	struct imgkit_snapshot answer;
	struct err e = {0};

	if (n >= count)
		return api_fail(err, err_set(&e, ENOENT, "there are %u snapshots", count), &e);
	answer = (struct imgkit_snapshot){
		.id = list[n].id,
		.name = list[n].name,
		.disk_size = list[n].disk_size,
		.vm_state_size = list[n].vm_state_size,
		.vm_clock_ns = list[n].vm_clock_ns,
		.date_sec = list[n].date_sec,
		.date_nsec = list[n].date_nsec,
	};
	return api_result(snapshot, snapshot_size, &answer, sizeof(answer), err);
}

int imgkit_snapshot_create(struct imgkit_image *image, const char *name, struct imgkit_err *err)
{
	struct snapshot meta = {.icount = UINT64_MAX};
	struct timespec now;
	struct err e = {0};
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	meta.date_sec = (uint32_t)now.tv_sec;
	meta.date_nsec = (uint32_t)now.tv_nsec;
	r = img_snapshot_create(image->img, name, &meta, &e);
	return r ? api_fail(err, r, &e) : 0;
}

/* Both of the calls that name a snapshot. */
static int with_snapshot(struct imgkit_image *image, const char *id_or_name,
			 int (*fn)(struct img *, unsigned, struct err *), struct imgkit_err *err)
{
	struct err e = {0};
	unsigned index;
	int r = snapshot_find(image->img, id_or_name, &index, &e);

	if (r == 0)
		r = fn(image->img, index, &e);
	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_snapshot_apply(struct imgkit_image *image, const char *id_or_name,
			  struct imgkit_err *err)
{
	return with_snapshot(image, id_or_name, img_snapshot_apply, err);
}

int imgkit_snapshot_remove(struct imgkit_image *image, const char *id_or_name,
			   struct imgkit_err *err)
{
	return with_snapshot(image, id_or_name, img_snapshot_remove, err);
}
