// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * convert; see convert.h.
 *
 *	file    target_open → fmt->build → copy_run → target_commit
 *	pipe    fmt->build (two passes over the source) → copy_run; where two passes cannot be made
 *	        (compression: lengths are not known before, a pipe as source) a temporary file is
 *	        made first and then sent
 *	dst     copy_run → img_settle
 *
 * With snapshots the builder makes what the first one holds; then the new image is opened, and the
 * others, and the disk as it is now, are written as to one that was there before.
 */
#include "ops/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file.h"
#include "io/window.h"
#include "ops/convert_bitmaps.h"
#include "ops/convert_resume.h"
#include "ops/convert_snapshots.h"

struct conversion {
	const struct convert_request *req;
	struct job *job;
	struct copy_args copy;
	struct io *joined; /* owned: several sources as one */
	struct io *window; /* owned: a part of that */
	struct create_plan plan;
	bool planned;
	struct convert_bitmaps bitmaps;
	struct convert_snapshots snapshots; /* n = 0: none are to be copied */
	struct convert_resume resume;
};

/* ---- sources ---- */

static int join_sources(struct conversion *c, struct err *err)
{
	const struct convert_request *req = c->req;
	CLEANUP_FREE struct io **parts = NULL;
	int r;

	if (req->stream) {
		c->copy.src = req->stream;
		return 0;
	}
	if (req->n_src == 1) {
		c->copy.src = &req->src[0]->io;
		return 0;
	}
	parts = calloc(req->n_src, sizeof(struct io *));
	if (!parts)
		return err_nomem(err, req->n_src * sizeof(struct io *), "the list of sources");
	for (unsigned i = 0; i < req->n_src; i++)
		parts[i] = &req->src[i]->io;
	r = concat_open(parts, req->n_src, false, &c->joined, err);
	c->copy.src = c->joined;
	return r;
}

static int cut_sources(struct conversion *c, struct err *err)
{
	int r;

	if (!c->req->part)
		return 0;
	r = window_open(c->copy.src, c->req->offset, c->req->length, false, &c->window, err);
	if (r == 0)
		c->copy.src = c->window;
	return r;
}

static bool reads_file(const struct convert_request *req, dev_t dev, ino_t ino)
{
	for (unsigned i = 0; i < req->n_src; i++)
		if (img_uses_file(req->src[i], dev, ino))
			return true;
	return false;
}

/* A target that is a source, or below one, would be destroyed while it is read. */
static int check_target(const struct convert_request *req, dev_t dev, ino_t ino, const char *name,
			struct err *err)
{
	if (!reads_file(req, dev, ino))
		return 0;
	return err_set(err, EINVAL, "'%s' is a source of this conversion, it cannot be its target",
		       name);
}

static int check_path(const struct convert_request *req, const char *path, struct err *err)
{
	struct stat st;

	return path && stat(path, &st) == 0 ? check_target(req, st.st_dev, st.st_ino, path, err)
					    : 0;
}

static int check_io(const struct convert_request *req, struct io *io, struct err *err)
{
	struct file_stat fs;

	return io && io_is_file(io) && file_stat(io, &fs, NULL) == 0
		       ? check_target(req, fs.dev, fs.ino, io->name, err)
		       : 0;
}

static int check_same(const struct convert_request *req, struct err *err)
{
	int r = check_path(req, req->path, err);

	if (r == 0 && req->dst)
		r = check_io(req, img_bottom(req->dst), err);
	if (r == 0 && req->dst)
		r = check_io(req, req->dst->data, err);
	return r;
}

/* ---- new images ---- */

/* Options of the new image without its size, which is the source's. */
static int options_without_size(const struct opts *opts, struct opts *out, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && opts && i < opts->n; i++) {
		if (strcmp(opts->v[i].name, "size") != 0)
			r = opts_set(out, opts->v[i].name, opts->v[i].value, err);
	}
	return r;
}

static int check_plan(const struct conversion *c, struct err *err)
{
	const char *prealloc = opts_get(&c->plan.format_opts, "preallocation");

	if (c->plan.data_path && c->req->pipe)
		return err_set(err, ENOTSUP, "A stream cannot have an external data file");
	if (c->plan.data_path && c->snapshots.n)
		return err_set(err, ENOTSUP,
			       "Snapshots and an external data file are not supported at the same "
			       "time");
	if (!c->copy.compress)
		return 0;
	if (c->plan.data_path)
		return err_set(err, ENOTSUP,
			       "Compression and an external data file are not supported at the "
			       "same time");
	if (!(c->plan.fmt->caps & FMT_CODED))
		return err_set(err, ENOTSUP, "Compression not supported for this file format");
	if (prealloc && strcmp(prealloc, "off") != 0)
		return err_set(err, EINVAL,
			       "Compression and preallocation not supported at the same time");
	return 0;
}

static int plan_image(struct conversion *c, struct opts *opts, struct err *err)
{
	const struct convert_request *req = c->req;
	const struct create_request create = {
		.path = req->path ? req->path : "",
		.format = req->format,
		.size = req->stream ? 0 : io_size(c->copy.src),
		.backing = req->backing,
		.backing_format = req->backing_format,
		.backing_flags = req->backing_flags,
		.opts = opts,
	};
	int r = options_without_size(req->opts, opts, err);

	if (r < 0)
		return r;
	c->planned = true;
	r = create_prepare(&create, &c->plan, err);
	if (r == 0)
		r = check_path(req, c->plan.data_path, err);
	return r < 0 ? r : check_plan(c, err);
}

/* With a backing file only the top layer is copied. */
static int plan_layer(struct conversion *c, struct err *err)
{
	CLEANUP_FREE char *path = NULL;
	struct img_open_args args = {
		.format = c->plan.backing_format,
		.flags = c->req->backing_flags | IMG_NO_BACKING | IMG_NO_DATA,
	};
	struct img *backing;
	int r;

	if (!c->plan.backing)
		return 0;
	if (c->req->n_src != 1)
		return err_set(err, EINVAL,
			       "Having a backing file for the target makes no sense when "
			       "concatenating multiple input images");
	r = img_resolve_name(c->plan.path, c->plan.backing, &path, err);
	if (r < 0)
		return r;
	args.path = path;
	r = img_open(&args, &backing, err);
	if (r < 0)
		return r;
	c->copy.layer = c->req->src[0];
	c->copy.backing_size = io_size(&backing->io);
	io_close(&backing->io);
	return 0;
}

static struct create_args build_args(const struct conversion *c)
{
	struct create_args args = {
		.size = c->plan.size,
		.backing = c->plan.backing,
		.backing_format = c->plan.backing_format,
		.opts = &c->plan.format_opts,
		.data = c->plan.data ? target_io(c->plan.data) : NULL,
	};

	if (c->snapshots.n) /* they would follow what is written for snapshots: added last */
		return args;
	args.bitmaps = c->bitmaps.v;
	args.n_bitmaps = c->bitmaps.n;
	return args;
}

static int begin_build(struct conversion *c, struct io *file, unsigned flags, struct build **b,
		       struct err *err)
{
	const struct create_args args = build_args(c);

	return c->plan.fmt->build(file, &args, flags, b, err);
}

/* What the builder writes of an image with snapshots: the first one's disk, or nothing. */
static int copy_first(struct conversion *c, struct build *b, struct err *err)
{
	struct copy_args copy = c->copy;
	int r;

	job_total(c->job, convert_snapshots_total(&c->snapshots));
	r = convert_snapshots_first(&c->snapshots, c->plan.size, &copy.src, err);
	if (r < 0)
		return r;
	copy.part = true;
	if (!copy.src)
		return build_finish(b, err);
	r = copy_run(&copy, c->job, err);
	return r < 0 && r != -ECANCELED ? convert_snapshots_context(&c->snapshots, 0, r, err) : r;
}

/* Owns b. */
static int copy_to(struct conversion *c, struct build *b, struct err *err)
{
	int r;

	c->copy.build = b;
	r = c->snapshots.n ? copy_first(c, b, err) : copy_run(&c->copy, c->job, err);
	c->copy.build = NULL;
	build_close(b);
	return r;
}

/* Snapshots, the disk as it is now, and bitmaps. */
static int copy_layers(struct conversion *c, struct img *dst, struct err *err)
{
	int r = convert_snapshots_copy(&c->snapshots, &c->copy, dst, c->job, err);

	if (r == 0)
		r = convert_bitmaps_add(&c->bitmaps, c->req->src[0], dst, err);
	return r < 0 ? r : img_settle(dst, err);
}

/* The rest of what copy_to began. */
static int copy_on(struct conversion *c, struct io *file, struct err *err)
{
	struct img *dst;
	int r;

	if (!c->snapshots.n)
		return 0;
	/* Nobody can see the file yet: it is flushed once, when it is whole. */
	r = img_open_io(file, c->plan.fmt->name, IMG_RDWR | IMG_UNSAFE | IMG_BORROWED, NULL, &dst,
			err);
	if (r < 0)
		return r;
	r = copy_layers(c, dst, err);
	io_close(&dst->io);
	return r;
}

/* Errors of making the new image, as against those of copying. */
static int not_made(const struct conversion *c, int r, struct err *err)
{
	if (r == -EEXIST) /* its text is complete */
		return r;
	if (c->req->not_made)
		return err_ctx(err, r, "%s: %s", c->req->path, c->req->not_made);
	return err_ctx(err, r, "%s: error while converting %s", c->req->path, c->plan.fmt->name);
}

static int open_target(struct conversion *c, struct target **target, struct build **b,
		       struct err *err)
{
	unsigned flags = c->req->target_flags | (c->req->resume ? TARGET_PARTIAL : 0);
	int r;

	c->plan.job = c->job;
	r = create_open_target(&c->plan, flags, target, err);
	c->resume.opened = c->req->resume && r == 0;
	if (r == 0)
		r = create_open_data(&c->plan, c->req->target_flags, err);
	if (r == 0)
		r = begin_build(c, target_io(*target), 0, b, err);
	return r < 0 ? not_made(c, r, err) : 0;
}

static int to_file(struct conversion *c, struct err *err)
{
	struct target *target = NULL;
	struct build *b = NULL;
	int r = 0;

	if (c->req->resume && (c->req->target_flags & TARGET_REMOTE))
		return err_set(err, ENOTSUP,
			       "'%s' is an NBD export: a copy to it cannot be resumed",
			       c->req->path);
	if (c->req->resume)
		r = convert_resume_begin(&c->resume, c->req, &c->plan, err);
	c->copy.journal = c->resume.journal;
	if (r == 0)
		r = open_target(c, &target, &b, err);
	if (r == 0)
		r = copy_to(c, b, err);
	if (r == 0)
		r = copy_on(c, target_io(target), err);
	if (r == 0) {
		r = create_commit(&c->plan, target, err);
		if (r < 0)
			not_made(c, r, err);
	}
	target_close(target);
	convert_resume_end(&c->resume, c->req, r);
	return r;
}

/* ---- pipes ---- */

#define SEND_BUFFER (1 * MiB)

/* Everything of file, holes as zeros. */
static int send_file(struct conversion *c, struct io *file, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = malloc(SEND_BUFFER);
	uint64_t size = io_size(file);
	int r = 0;

	if (!buf)
		return err_nomem(err, SEND_BUFFER, "a copy buffer");
	for (uint64_t off = 0, n; r == 0 && off < size; off += n) {
		n = min_u64(size - off, SEND_BUFFER);
		if (job_cancelled(c->job))
			return err_set(err, ECANCELED, "cancelled");
		r = io_pread(file, buf, n, off, err);
		if (r == 0)
			r = io_pwrite(c->req->pipe, buf, n, off, err);
	}
	return r;
}

/*
 * A file without a name, or with one that nobody can have put there before us: the directory is
 * everybody's. Nobody else may read it either.
 */
static int open_spool(struct target **target, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	CLEANUP_FREE char *path = NULL;
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return err_sys(err, errno, "Could not make a name for a temporary file");
	if (asprintf(&path, "%s/imgkit-%016" PRIx64, dir && *dir ? dir : "/var/tmp", id) < 0)
		return err_nomem(err, 0, "a file name");
	return target_open(path, TARGET_UNSAFE | TARGET_PRIVATE, NULL, target, err);
}

static int by_spool(struct conversion *c, struct err *err)
{
	struct target *target = NULL;
	struct build *b = NULL;
	int r = open_spool(&target, err);

	if (r == 0)
		r = begin_build(c, target_io(target), 0, &b, err);
	if (r == 0)
		r = copy_to(c, b, err);
	if (r == 0)
		r = copy_on(c, target_io(target), err);
	if (r == 0)
		r = send_file(c, target_io(target), err);
	target_close(target); /* never committed */
	return r;
}

static int to_pipe(struct conversion *c, struct err *err)
{
	struct build *b = NULL;
	int r;

	if (c->snapshots.n)
		return by_spool(c, err);
	r = begin_build(c, c->req->pipe, BUILD_STREAM, &b, err);
	if (r < 0)
		return r;
	if (b->two_pass && (c->copy.compress || c->req->stream)) {
		build_close(b);
		return by_spool(c, err);
	}
	return copy_to(c, b, err);
}

static int no_bitmaps(const struct format *fmt, struct err *err)
{
	return err_set(err, ENOTSUP, "Format driver '%s' does not support bitmaps", fmt->name);
}

static int check_snapshots(const struct conversion *c, struct err *err)
{
	const struct convert_snapshots *s = &c->snapshots;
	const struct create_args args = build_args(c);

	return s->n ? c->plan.fmt->snapshots->creatable(&args, s->list, s->n, err) : 0;
}

static int to_new_image(struct conversion *c, struct err *err)
{
	struct opts opts = {0};
	int r = plan_image(c, &opts, err);
	const struct format *fmt = c->plan.fmt;

	if (r == 0 && c->req->bitmaps &&
	    (!fmt->bitmaps || !fmt->bitmaps->creatable(&c->plan.format_opts)))
		r = no_bitmaps(fmt, err);
	if (r == 0)
		r = check_snapshots(c, err);
	if (r == 0)
		r = plan_layer(c, err);
	if (r == 0)
		r = c->req->path ? to_file(c, err) : to_pipe(c, err);
	opts_free(&opts);
	return r;
}

/* ---- an existing image ---- */

static int to_existing(struct conversion *c, struct err *err)
{
	struct img *dst = c->req->dst;
	int r;

	if (c->copy.compress)
		return err_set(err, ENOTSUP,
			       "%s: compressed data cannot be written into an existing image",
			       dst->io.name);
	if (!c->req->stream && io_size(&dst->io) < io_size(c->copy.src))
		return err_set(err, EINVAL, "output file is smaller than input file");
	c->copy.dst = &dst->io;
	c->copy.dst_zero = c->req->dst_is_zero;
	if (c->req->bitmaps && !img_has_bitmaps(dst))
		return no_bitmaps(dst->fmt, err);
	if (c->snapshots.n) {
		r = convert_snapshots_check(&c->snapshots, dst, err);
		job_total(c->job, convert_snapshots_total(&c->snapshots));
		return r < 0 ? r : copy_layers(c, dst, err);
	}
	r = copy_run(&c->copy, c->job, err);
	if (r == 0 && c->req->bitmaps)
		r = convert_bitmaps_add(&c->bitmaps, c->req->src[0], dst, err);
	return r < 0 ? r : img_settle(dst, err);
}

int convert(const struct convert_request *req, struct job *job, struct err *err)
{
	struct conversion c = {.req = req, .job = job, .copy = req->copy};
	int r = check_same(req, err);

	if (r == 0)
		r = join_sources(&c, err);
	if (r == 0 && req->bitmaps)
		r = convert_bitmaps_find(req, &c.bitmaps, err);
	if (r == 0 && req->snapshots)
		r = convert_snapshots_find(req, &c.snapshots, err);
	if (r == 0)
		r = cut_sources(&c, err);
	if (r == 0)
		r = req->dst ? to_existing(&c, err) : to_new_image(&c, err);
	if (c.planned)
		create_plan_free(&c.plan);
	io_close(c.window);
	io_close(c.joined);
	convert_bitmaps_free(&c.bitmaps);
	convert_snapshots_free(&c.snapshots);
	return r;
}
