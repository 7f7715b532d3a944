// SPDX-License-Identifier: LGPL-2.1-or-later
/* Changes that exclude everything else: resize, amend, snapshots, check. Each takes the gate alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/internal.h"

int img_enter(struct img *img, const char *what, struct err *err)
{
	int r;

	if (img->io.caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: %s: opened read-only", img->io.name, what);
	pthread_rwlock_wrlock(&img->gate);
	/* Under the gate: the turn that it was waiting for may have failed. */
	r = img_check_broken(img, err);
	if (r < 0)
		pthread_rwlock_unlock(&img->gate);
	else
		atomic_store(&img->unsettled, true);
	return r;
}

static int leave(struct img *img, int r)
{
	pthread_rwlock_unlock(&img->gate);
	return r;
}

int img_resize(struct img *img, uint64_t size, int prealloc, struct err *err)
{
	int r;

	if (!img->fmt->resize)
		return err_set(err, ENOTSUP, "%s: the format '%s' cannot be resized", img->io.name,
			       img->fmt->name);
	r = img_enter(img, "resize", err);
	if (r < 0)
		return r;
	return leave(img, img->fmt->resize(img, size, prealloc, err));
}

int img_compact(struct img *img, struct compact_result *res, struct job *job, struct err *err)
{
	int r;

	memset(res, 0, sizeof(*res));
	if (!img->fmt->compact)
		return err_set(err, ENOTSUP, "%s: images of the format '%s' cannot be compacted",
			       img->io.name, img->fmt->name);
	r = img_enter(img, "compact", err);
	return r < 0 ? r : leave(img, img->fmt->compact(img, res, job, err));
}

int img_dedup(struct img *img, const struct dedup_args *args, struct dedup_result *res,
	      struct job *job, struct err *err)
{
	int r;

	memset(res, 0, sizeof(*res));
	if (!img->fmt->dedup)
		return err_set(err, ENOTSUP, "%s: images of the format '%s' cannot share data",
			       img->io.name, img->fmt->name);
	r = img_enter(img, "dedup", err);
	return r < 0 ? r : leave(img, img->fmt->dedup(img, args, res, job, err));
}

int img_amend(struct img *img, const struct opts *opts, unsigned flags, struct job *job,
	      struct err *err)
{
	int r;

	if (!img->fmt->amend)
		return err_set(err, ENOTSUP, "Format driver '%s' does not support option amendment",
			       img->fmt->name);
	r = img_enter(img, "amend", err);
	return r < 0 ? r : leave(img, img->fmt->amend(img, opts, flags, job, err));
}

int img_empty(struct img *img, struct err *err)
{
	int r;

	if (!img->fmt->empty)
		return err_set(err, ENOTSUP, "%s: the format '%s' cannot be emptied", img->io.name,
			       img->fmt->name);
	r = img_enter(img, "empty", err);
	return r < 0 ? r : leave(img, img->fmt->empty(img, err));
}

/* What the image now says, in the generic part of it. The strings are taken. */
static void note_backing(struct img *img, char *name, char *format, struct img *backing)
{
	free(img->backing_name);
	free(img->backing_format);
	free(img->backing_path);
	img->backing_name = name;
	img->backing_format = format;
	img->backing_path = NULL;
	if (img->backing)
		io_close(&img->backing->io);
	img->backing = backing;
}

/* Under the gate. */
static int change_backing(struct img *img, const char *name, const char *format,
			  struct img *backing, struct err *err)
{
	CLEANUP_FREE char *new_name = name ? strdup(name) : NULL;
	CLEANUP_FREE char *new_format = format ? strdup(format) : NULL;
	int r;

	if ((name && !new_name) || (format && !new_format))
		return err_nomem(err, 1024, "the backing file name");
	r = img->fmt->set_backing(img, name, format, err);
	if (r == 0)
		note_backing(img, take(new_name), take(new_format), backing);
	return r;
}

int img_set_backing(struct img *img, const char *name, const char *format, struct img *backing,
		    struct err *err)
{
	int r;

	if (!img->fmt->set_backing)
		return err_set(err, ENOTSUP, "%s: the format '%s' has no backing files",
			       img->io.name, img->fmt->name);
	r = img_enter(img, "change of the backing file", err);
	if (r < 0)
		return r;
	r = leave(img, change_backing(img, name, name ? format : NULL, backing, err));
	/* The path is for people; without memory for it the change stands. */
	if (r == 0)
		img_note_backing_path(img, NULL);
	return r;
}

static int need_snapshots(struct img *img, struct err *err)
{
	if (img->fmt->snapshots)
		return 0;
	return err_set(err, ENOTSUP, "%s: the format '%s' has no internal snapshots", img->io.name,
		       img->fmt->name);
}

int img_snapshot_create(struct img *img, const char *name, const struct snapshot *meta,
			struct err *err)
{
	int r = need_snapshots(img, err);

	if (r == 0)
		r = img_enter(img, "snapshot", err);
	return r < 0 ? r : leave(img, img->fmt->snapshots->create(img, name, meta, err));
}

int img_snapshot_apply(struct img *img, unsigned index, struct err *err)
{
	int r = need_snapshots(img, err);

	if (r == 0)
		r = img_enter(img, "snapshot", err);
	return r < 0 ? r : leave(img, img->fmt->snapshots->apply(img, index, err));
}

int img_snapshot_remove(struct img *img, unsigned index, struct err *err)
{
	int r = need_snapshots(img, err);

	if (r == 0)
		r = img_enter(img, "snapshot", err);
	return r < 0 ? r : leave(img, img->fmt->snapshots->remove(img, index, err));
}

int img_snapshot_view(struct img *img, unsigned index, struct err *err)
{
	int r = need_snapshots(img, err);

	if (r < 0)
		return r;
	if (!(img->io.caps & IO_RDONLY))
		return err_set(err, EINVAL, "%s: a snapshot can be looked at read-only only",
			       img->io.name);
	pthread_rwlock_wrlock(&img->gate);
	return leave(img, img->fmt->snapshots->view(img, index, err));
}

int img_snapshot_reach(struct img *img, uint64_t end, struct err *err)
{
	int r = need_snapshots(img, err);

	if (r == 0 && (img->io.caps & IO_RDONLY))
		pthread_rwlock_wrlock(&img->gate);
	else if (r == 0)
		r = img_enter(img, "snapshot", err);
	return r < 0 ? r : leave(img, img->fmt->snapshots->reach(img, end, err));
}

const struct snapshot *img_snapshots(struct img *img, unsigned *n)
{
	*n = 0;
	return img->fmt->snapshots ? img->fmt->snapshots->list(img, n) : NULL;
}

int img_snapshot_find(struct img *img, const char *text, unsigned *index, struct err *err)
{
	unsigned n;
	const struct snapshot *list = img_snapshots(img, &n);

	for (unsigned i = 0; i < n; i++) {
		if (!strcmp(list[i].id, text)) {
			*index = i;
			return 0;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		if (!strcmp(list[i].name, text)) {
			*index = i;
			return 0;
		}
	}
	return err_set(err, ENOENT, "%s: there is no snapshot '%s'", img->io.name, text);
}

static int settle_for_check(struct img *img, struct err *err)
{
	int r = img_check_broken(img, err);

	if (r < 0 || !img->fmt->settle)
		return r;
	r = img->fmt->settle(img, err);
	img_note_failure(img, r);
	return r;
}

int img_check(struct img *img, unsigned fix, struct check_result *res,
	      const struct check_sink *sink, struct job *job, struct err *err)
{
	int r;

	memset(res, 0, sizeof(*res));
	if (!img->fmt->check)
		return err_set(err, ENOTSUP, "%s: the format '%s' does not support checks",
			       img->io.name, img->fmt->name);
	pthread_rwlock_wrlock(&img->gate);
	/*
	 * The check reads the file: what was changed must be there, lazy refcounts too. An image
	 * that is as it was found stays so: its dirty bit is for the repair to clear.
	 */
	r = atomic_load(&img->unsettled) ? settle_for_check(img, err) : 0;
	if (r == 0)
		r = img->fmt->check(img, fix, res, sink, job, err);
	return leave(img, r);
}
