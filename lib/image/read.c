// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Reading an image: the format says where, this file walks the backing chain, fills zeros and moves
 * the bytes. See img.h for the locks.
 */
#include "image/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

int img_check_inside(struct img *img, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t size = io_size(&img->io);

	if (off <= size && len <= size - off)
		return 0;
	return err_set(err, EINVAL,
		       "%s: %" PRIu64 " bytes at offset %" PRIu64 " are past the end (size %" PRIu64
		       ")",
		       img->io.name, len, off, size);
}

static int map_layer(struct img *img, uint64_t off, uint64_t len, struct extent *ext,
		     struct err *err)
{
	LOCK_SCOPE(&img->meta);

	return img->fmt->map(img, off, len, ext, err);
}

/*
 * A part that is stored in the file. The last unit may be cut short by the end of the file and
 * reads as zeros from there; a unit that begins behind the end is an error, never zeros.
 */
static int read_data(struct img *img, const struct extent *ext, void *buf, size_t len,
		     struct err *err)
{
	uint64_t first_unit = round_down(ext->off, img->unit);
	uint64_t last_unit = round_down(ext->off + len - 1, img->unit);
	uint64_t last = ext->host - (ext->off - first_unit) + (last_unit - first_unit);

	if (last >= io_size(ext->io))
		return io_corrupt(ext->io, err, last,
				  "data of guest offset %" PRIu64
				  " lies beyond the end of the file (%" PRIu64 " bytes)",
				  ext->off, io_size(ext->io));
	return io_pread_tail(ext->io, buf, len, ext->host, err);
}

static int read_backing(struct img *img, void *buf, size_t len, uint64_t off, struct err *err)
{
	uint64_t size = img->backing ? io_size(&img->backing->io) : 0;
	size_t have = off >= size ? 0 : (size_t)min_u64(len, size - off);
	int r = have ? io_pread(&img->backing->io, buf, have, off, err) : 0;

	if (r == 0)
		memset((char *)buf + have, 0, len - have);
	return r;
}

int img_read_inner(struct img *img, void *buf, size_t len, uint64_t off, struct err *err)
{
	while (len) {
		struct extent ext;
		size_t n;
		int r = map_layer(img, off, len, &ext, err);

		if (r < 0)
			return r;
		n = (size_t)ext.len;
		switch (ext.kind) {
		case EXT_DATA:
			r = read_data(img, &ext, buf, n, err);
			break;
		case EXT_CODED:
			r = img->fmt->decode(img, &ext, buf, n, off, err);
			break;
		case EXT_ABSENT:
			r = read_backing(img, buf, n, off, err);
			break;
		case EXT_ZERO:
			memset(buf, 0, n);
			break;
		}
		if (r < 0)
			return r;
		buf = (char *)buf + n;
		off += n;
		len -= n;
	}
	return 0;
}

int img_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct img *img = io_img(io);
	int r;

	pthread_rwlock_rdlock(&img->gate);
	r = img_check_inside(img, off, len, err);
	if (r == 0)
		r = img_read_inner(img, buf, len, off, err);
	pthread_rwlock_unlock(&img->gate);
	return r;
}

int img_map_inner(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	uint64_t below;
	int r = map_layer(img, off, len, ext, err);

	if (r < 0 || ext->kind != EXT_ABSENT)
		return r;
	below = img->backing ? io_size(&img->backing->io) : 0;
	if (off >= below) { /* nothing below: zeros that no layer stores */
		ext->kind = EXT_ABSENT;
		ext->io = NULL;
		ext->host = EXT_NO_HOST;
		return 0;
	}
	r = io_map(&img->backing->io, off, min_u64(ext->len, below - off), ext, err);
	if (r == 0)
		ext->depth++;
	return r;
}

int img_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	struct img *img = io_img(io);
	int r;

	pthread_rwlock_rdlock(&img->gate);
	r = img_check_inside(img, off, len, err);
	if (r == 0)
		r = img_map_inner(img, off, len, ext, err);
	pthread_rwlock_unlock(&img->gate);
	return r;
}

int img_map_layer(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	int r;

	pthread_rwlock_rdlock(&img->gate);
	r = img_check_inside(img, off, len, err);
	if (r == 0)
		r = map_layer(img, off, len, ext, err);
	pthread_rwlock_unlock(&img->gate);
	return r;
}
