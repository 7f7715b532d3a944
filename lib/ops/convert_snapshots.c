// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The internal snapshots that a conversion takes along; see convert_snapshots.h.
 *
 * The source is looked at through two views, that of the layer being copied and that of the one
 * before: second images over the same open file, so that equal places can be told. A state of a
 * machine lies behind its disk, in source and target each where the clusters' size puts it; it is
 * written there, goes into the snapshot, and is dropped.
 */
#include "ops/convert_snapshots.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "io/window.h"

static int refuse(int code, const char *text, struct err *err)
{
	return err_set(err, code, "%s", text);
}

int convert_snapshots_find(const struct convert_request *req, struct convert_snapshots *s,
			   struct err *err)
{
	const struct format *fmt = req->dst ? req->dst->fmt : format_find(req->format);

	if (req->stream)
		return refuse(ENOTSUP, "A pipe as source has no snapshots", err);
	if (req->n_src != 1)
		return refuse(EINVAL, "Copying snapshots only possible with single source", err);
	if (req->part)
		return refuse(EINVAL, "Copying snapshots only possible with the whole disk", err);
	if (req->backing)
		return refuse(EINVAL,
			      "Copying snapshots makes no sense when only the top layer is copied, "
			      "over a backing file",
			      err);
	s->src = req->src[0];
	if (!s->src->fmt->snapshots)
		return err_set(err, ENOTSUP, "Source lacks snapshot support: its format is %s",
			       s->src->fmt->name);
	if (fmt && !fmt->snapshots)
		return err_set(err, ENOTSUP, "Format driver '%s' does not support snapshots",
			       fmt->name);
	if (!(s->src->io.caps & IO_RDONLY))
		return err_set(err, EINVAL, "%s: must be opened read-only to copy its snapshots",
			       s->src->io.name);
	s->list = img_snapshots(s->src, &s->n);
	return 0;
}

int convert_snapshots_check(const struct convert_snapshots *s, struct img *dst, struct err *err)
{
	uint64_t size = io_size(&s->src->io);
	unsigned n;
	int r;

	img_snapshots(dst, &n);
	if (n)
		return err_set(err, EEXIST, "%s: has snapshots already, %u of them", dst->io.name,
			       n);
	if (dst->backing_name)
		return err_set(err, EINVAL,
			       "%s: has a backing file, but copied snapshots stand alone",
			       dst->io.name);
	if (io_size(&dst->io) != size)
		return err_set(err, EINVAL,
			       "%s: has %" PRIu64 " bytes, for copying snapshots it needs %" PRIu64
			       " as the source",
			       dst->io.name, io_size(&dst->io), size);
	if (dst->fmt->bitmaps) {
		r = img_bitmaps(dst, &n, err);
		if (r < 0)
			return r;
		if (n)
			return err_set(err, EINVAL,
				       "%s: has bitmaps, which cannot follow what snapshots hold",
				       dst->io.name);
	}
	return dst->fmt->snapshots->acceptable(dst, s->list, s->n, err);
}

uint64_t convert_snapshots_total(const struct convert_snapshots *s)
{
	uint64_t total = io_size(&s->src->io);

	for (unsigned i = 0; i < s->n; i++) {
		if (!add_ok(total, s->list[i].disk_size, &total) ||
		    !add_ok(total, s->list[i].vm_state_size, &total))
			return UINT64_MAX;
	}
	return total;
}

int convert_snapshots_context(const struct convert_snapshots *s, unsigned index, int r,
			      struct err *err)
{
	return err_ctx(err, r, "snapshot '%s'", s->list[index].name);
}

/* ---- layers: snapshot 0 … n-1, and the disk as it is now, n ---- */

static uint64_t layer_size(const struct convert_snapshots *s, unsigned i)
{
	return i < s->n ? s->list[i].disk_size : io_size(&s->src->io);
}

static struct img *layer_img(const struct convert_snapshots *s, unsigned i)
{
	return i < s->n ? s->view[i % 2] : s->src;
}

/* Turns one of the views to layer i. */
static int show_layer(struct convert_snapshots *s, unsigned i, struct err *err)
{
	struct img **view = &s->view[i % 2];
	int r = 0;

	if (i == s->n)
		return 0;
	if (!*view)
		r = img_open_io(s->src->file, s->src->fmt->name, s->src->open_flags | IMG_BORROWED,
				s->src->backing, view, err);
	return r < 0 ? r : img_snapshot_view(*view, i, err);
}

/* The state of a machine, from where it is in the view to where it has to be in dst. */
static int copy_state(struct convert_snapshots *s, unsigned i, const struct copy_args *how,
		      struct img *dst, struct job *job, struct err *err)
{
	const struct snapshot *snap = &s->list[i];
	struct img *view = layer_img(s, i);
	uint64_t len = snap->vm_state_size;
	uint64_t from = view->fmt->snapshots->state_at(view, snap->disk_size);
	uint64_t to = dst->fmt->snapshots->state_at(dst, snap->disk_size);
	struct copy_args copy = *how;
	int r = 0;

	if (len > UINT64_MAX - from)
		r = io_corrupt(view->file, err, 0,
			       "the state of a machine of %" PRIu64 " bytes is too large", len);
	if (r == 0)
		r = img_snapshot_reach(view, from + len, err);
	if (r == 0)
		r = img_snapshot_reach(dst, to + len, err);
	copy.src = copy.dst = NULL;
	if (r == 0)
		r = window_open(&view->io, from, len, false, &copy.src, err);
	if (r == 0)
		r = window_open(&dst->io, to, len, false, &copy.dst, err);
	/* Through a window the engine does not know the clusters: in order, and whole ones. */
	copy.workers = 1;
	copy.compress = copy.offload = copy.unordered = false;
	copy.sparse = how->sparse ? max_u64(how->sparse, dst->unit) : 0;
	copy.dst_zero = true;
	copy.base = NULL;
	if (r == 0)
		r = copy_run(&copy, job, err);
	io_close(copy.dst);
	io_close(copy.src);
	/* The next layer is compared with the disk alone. */
	return r < 0 ? r : img_snapshot_reach(view, snap->disk_size, err);
}

static int copy_disk(struct convert_snapshots *s, unsigned i, const struct copy_args *how,
		     struct img *dst, struct job *job, struct err *err)
{
	struct copy_args copy = *how;

	if (i == 0 && s->first_done)
		return 0;
	copy.src = &layer_img(s, i)->io;
	copy.dst = &dst->io;
	copy.dst_zero = i == 0;
	copy.base = i ? &layer_img(s, i - 1)->io : NULL;
	return copy_run(&copy, job, err);
}

static int take_snapshot(struct convert_snapshots *s, unsigned i, const struct copy_args *how,
			 struct img *dst, struct job *job, struct err *err)
{
	const struct snapshot *snap = &s->list[i];
	int r = snap->vm_state_size ? copy_state(s, i, how, dst, job, err) : 0;

	if (r == 0)
		r = img_snapshot_create(dst, snap->name, snap, err);
	/* Before the disk grows over it. */
	return r < 0 ? r : img_snapshot_reach(dst, snap->disk_size, err);
}

static int copy_layer(struct convert_snapshots *s, unsigned i, const struct copy_args *how,
		      struct img *dst, struct job *job, struct err *err)
{
	int r = show_layer(s, i, err);

	if (r == 0)
		r = img_snapshot_reach(dst, layer_size(s, i), err);
	if (r == 0)
		r = copy_disk(s, i, how, dst, job, err);
	if (r == 0 && i < s->n)
		r = take_snapshot(s, i, how, dst, job, err);
	if (r < 0 && r != -ECANCELED && i < s->n)
		return convert_snapshots_context(s, i, r, err);
	return r;
}

int convert_snapshots_first(struct convert_snapshots *s, uint64_t size, struct io **first,
			    struct err *err)
{
	int r;

	*first = NULL;
	if (s->list[0].disk_size > size)
		return 0;
	r = show_layer(s, 0, err);
	if (r < 0)
		return convert_snapshots_context(s, 0, r, err);
	s->first_done = true;
	*first = &s->view[0]->io;
	return 0;
}

int convert_snapshots_copy(struct convert_snapshots *s, const struct copy_args *how,
			   struct img *dst, struct job *job, struct err *err)
{
	struct copy_args copy = *how;
	int r = s->first_done ? 0 : img_snapshot_reach(dst, 0, err);

	copy.build = NULL;
	copy.part = true;
	for (unsigned i = 0; r == 0 && i <= s->n; i++) {
		r = job_cancelled(job) ? err_set(err, ECANCELED, "cancelled")
				       : copy_layer(s, i, &copy, dst, job, err);
	}
	return r;
}

void convert_snapshots_free(struct convert_snapshots *s)
{
	for (unsigned i = 0; i < 2; i++)
		io_close(s->view[i] ? &s->view[i]->io : NULL);
}
