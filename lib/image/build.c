// SPDX-License-Identifier: LGPL-2.1-or-later
/* The wrappers around every struct build_ops callback; see build.h. */
#include "image/build.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/cleanup.h"

void build_init(struct build *b, const struct build_ops *ops, struct io *file, uint64_t size,
		uint64_t unit)
{
	b->ops = ops;
	b->file = b->data = file;
	b->size = size;
	b->unit = b->grain = unit;
	b->max_size = INT64_MAX;
	pthread_mutex_init(&b->lock, NULL);
}

static int check_units(const struct build *b, uint64_t off, uint64_t len, struct err *err)
{
	uint64_t end;

	if (is_aligned(off, b->unit) && is_aligned(len, b->unit) && add_ok(off, len, &end) &&
	    end <= round_up(b->size, b->unit))
		return 0;
	return err_set(err, EINVAL,
		       "%s: %" PRIu64 " bytes at offset %" PRIu64 " are not whole units of %" PRIu64
		       " bytes inside the disk (size %" PRIu64 ")",
		       b->file->name, len, off, b->unit, b->size);
}

int build_reserve(struct build *b, uint64_t off, uint64_t len, uint64_t *host, struct err *err)
{
	LOCK_SCOPE(&b->lock);
	int r = check_units(b, off, len, err);

	return r < 0 ? r : b->ops->reserve(b, off, len, host, err);
}

int build_reserve_coded(struct build *b, uint64_t off, size_t len, uint64_t *host, struct err *err)
{
	LOCK_SCOPE(&b->lock);
	int r = check_units(b, off, b->unit, err);

	if (r < 0)
		return r;
	if (!b->ops->reserve_coded)
		return err_set(err, ENOTSUP, "%s: the format has no compression", b->file->name);
	return b->ops->reserve_coded(b, off, len, host, err);
}

int build_zero(struct build *b, uint64_t off, uint64_t len, struct err *err)
{
	LOCK_SCOPE(&b->lock);
	int r = check_units(b, off, len, err);

	if (r < 0)
		return r;
	return b->ops->zero ? b->ops->zero(b, off, len, err) : -ENOTSUP;
}

void build_hole(struct build *b, uint64_t off, uint64_t len)
{
	uint64_t end = round_down(off + len, b->grain);

	off = round_up(off, b->grain);
	if (!b->ops->hole || b->grain == b->unit || off >= end)
		return;
	pthread_mutex_lock(&b->lock);
	b->ops->hole(b, off, end - off);
	pthread_mutex_unlock(&b->lock);
}

bool build_can_code(const struct build *b)
{
	return b->ops->reserve_coded != NULL;
}

int build_set_size(struct build *b, uint64_t size, struct err *err)
{
	LOCK_SCOPE(&b->lock);

	if (size <= b->size)
		return 0;
	if (size > b->max_size)
		return err_set(err, EFBIG, "%s: the image size is too large", b->file->name);
	return b->ops->set_size(b, size, err);
}

int build_finish(struct build *b, struct err *err)
{
	return b->ops->finish(b, err);
}

void build_close(struct build *b)
{
	if (!b)
		return;
	pthread_mutex_destroy(&b->lock);
	b->ops->close(b);
}
