// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Making a new image; see create.h. The order of the checks and their texts are the peer's
 * (qemu-img 7.2), since scripts look at them.
 */
#include "ops/create.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/build.h"
#include "io/file.h"

static bool in_table(const struct opt *table, const char *name)
{
	for (; table && table->name; table++) {
		if (strcmp(table->name, name) == 0)
			return true;
	}
	return false;
}

/* Options that are fields of create_args, or the target's. */
static bool is_own_option(const char *name)
{
	return strcmp(name, "size") == 0 || strcmp(name, "backing_file") == 0 ||
	       strcmp(name, "backing_fmt") == 0 || in_table(target_create_opts, name);
}

static int copy_opts(const struct opts *from, struct opts *to, bool for_format, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && from && i < from->n; i++) {
		if (!for_format || !is_own_option(from->v[i].name))
			r = opts_set(to, from->v[i].name, from->v[i].value, err);
	}
	return r;
}

/* Names and values: the format's options, and those that any file has. */
static int check_opts(const struct format *fmt, const struct opts *opts, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && opts && i < opts->n; i++) {
		const struct opts one = {.v = &opts->v[i], .n = 1};
		bool target = in_table(target_create_opts, one.v->name);

		r = opts_check(&one, target ? target_create_opts : fmt->create_opts, err);
	}
	return r;
}

static int set_size(struct opts *opts, uint64_t size, struct err *err)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, size);
	return opts_set(opts, "size", text, err);
}

/* Merges what the request says twice: once as an option and once in a field. */
static int merge(const struct create_request *req, struct create_plan *plan, struct err *err)
{
	const struct opt *table = plan->fmt->create_opts;
	int r = check_opts(plan->fmt, req->opts, err);

	if (r == 0)
		r = copy_opts(req->opts, &plan->all, false, err);
	if (r < 0)
		return r;
	plan->size = req->size;
	if (opts_get(&plan->all, "size")) {
		if (req->size != CREATE_NO_SIZE)
			return err_set(err, EINVAL, "The image size must be specified only once");
		r = opts_size(&plan->all, "size", &plan->size, err);
	}
	if (r == 0 && req->backing) {
		if (!in_table(table, "backing_file"))
			return err_set(err, EINVAL,
				       "Backing file not supported for file format '%s'",
				       plan->fmt->name);
		r = opts_set(&plan->all, "backing_file", req->backing, err);
	}
	if (r == 0 && req->backing_format) {
		if (!in_table(table, "backing_fmt"))
			return err_set(err, EINVAL,
				       "Backing file format not supported for file format '%s'",
				       plan->fmt->name);
		r = opts_set(&plan->all, "backing_fmt", req->backing_format, err);
	}
	return r;
}

/* Whether path is one of the files of the chain: it would be overwritten. */
static bool in_chain(const char *path, struct img *img)
{
	struct stat st;

	return path && stat(path, &st) == 0 && img_uses_file(img, st.st_dev, st.st_ino);
}

static int same_name(struct err *err)
{
	return err_set(err, EINVAL,
		       "Error: Trying to create an image with the same filename as the backing "
		       "file");
}

static int open_backing(struct create_plan *plan, unsigned flags, struct img **out, struct err *err)
{
	CLEANUP_FREE char *path = NULL;
	struct img_open_args args = {.format = plan->backing_format, .flags = flags | IMG_NO_DATA};
	int r;

	if (args.format && !format_find(args.format))
		r = err_set(err, EINVAL, "Unknown driver '%s'", args.format);
	else
		r = img_resolve_name(plan->path, plan->backing, &path, err);
	if (r == 0) {
		args.path = path;
		r = img_open(&args, out, err);
	}
	if (r)
		plan->hint = "Could not open backing image.";
	return r;
}

/* Looks into the backing file: that it is there, its format, its size. */
static int consult_backing(struct create_plan *plan, unsigned flags, struct err *err)
{
	struct img *img = NULL;
	int r = open_backing(plan, flags, &img, err);

	if (r)
		return r;
	if (!plan->backing_format) {
		snprintf(plan->detail, sizeof(plan->detail), "Detected format of %s.",
			 img->fmt->name);
		plan->hint = plan->detail;
		r = err_set(err, EINVAL, "Backing file specified without backing format");
	} else if (in_chain(plan->path, img) || in_chain(plan->data_path, img)) {
		r = same_name(err);
	} else if (plan->size == CREATE_NO_SIZE) {
		plan->size = io_size(&img->io);
	}
	io_close(&img->io);
	return r;
}

static int check_backing(const struct create_request *req, struct create_plan *plan,
			 struct err *err)
{
	plan->backing = opts_get(&plan->all, "backing_file");
	plan->backing_format = opts_get(&plan->all, "backing_fmt");
	if (!plan->backing)
		return 0;
	if (strcmp(plan->backing, plan->path) == 0)
		return same_name(err);
	if (!plan->backing[0])
		return err_set(err, EINVAL, "Expected backing file name, got empty string");
	if (!req->unchecked_backing)
		return consult_backing(plan, req->backing_flags, err);
	if (!plan->backing_format)
		return err_set(err, EINVAL, "Backing file specified without backing format");
	return 0;
}

static bool is_same(const char *a, const char *b)
{
	struct stat x, y;

	return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
				     x.st_ino == y.st_ino);
}

/* Beside the image; the peer makes it in the working directory. */
static int plan_data(const struct create_request *req, struct create_plan *plan, struct err *err)
{
	const char *name = opts_get(&plan->all, "data_file");
	int r = 0;

	if (!name)
		return 0;
	if (!name[0])
		return err_set(err, ENOENT, "Could not create '': No such file or directory");
	if (req->backing_flags & IMG_PEER_NAMES)
		plan->data_path = strdup(name);
	else
		r = img_resolve_name(plan->path, name, &plan->data_path, err);
	if (r == 0 && !plan->data_path)
		r = err_nomem(err, strlen(name), "a file name");
	if (r == 0 && is_same(plan->path, plan->data_path))
		r = err_set(err, EINVAL, "The image cannot be its own data file");
	return r;
}

int create_prepare(const struct create_request *req, struct create_plan *plan, struct err *err)
{
	int r;

	plan->path = req->path;
	plan->fmt = format_find(req->format);
	if (!plan->fmt)
		return err_set(err, EINVAL, "Unknown file format '%s'", req->format);
	if (!plan->fmt->build)
		return err_set(err, ENOTSUP, "Format driver '%s' does not support image creation",
			       req->format);
	r = merge(req, plan, err);
	if (r == 0)
		r = plan_data(req, plan, err);
	if (r == 0)
		r = check_backing(req, plan, err);
	if (r < 0)
		return r;
	if (plan->size == CREATE_NO_SIZE)
		return err_set(err, EINVAL, "Image creation needs a size parameter");
	r = set_size(&plan->all, plan->size, err);
	if (r == 0)
		r = copy_opts(&plan->all, &plan->format_opts, true, err);
	/* The list may have moved in memory. */
	plan->backing = opts_get(&plan->all, "backing_file");
	plan->backing_format = opts_get(&plan->all, "backing_fmt");
	return r;
}

static int build_empty(const struct create_plan *plan, struct io *file, struct err *err)
{
	const struct create_args args = {
		.size = plan->size,
		.backing = plan->backing,
		.backing_format = plan->backing_format,
		.opts = &plan->format_opts,
		.data = plan->data ? target_io(plan->data) : NULL,
	};
	struct build *build = NULL;
	int r = plan->fmt->build(file, &args, 0, &build, err);

	if (r == 0) {
		r = build_finish(build, err);
		build_close(build);
	}
	if (r == -EFBIG)
		r = err_set(err, EFBIG, "The image size is too large for file format '%s'%s",
			    plan->fmt->name,
			    in_table(plan->fmt->create_opts, "cluster_size")
				    ? " (try using a larger cluster size)"
				    : "");
	return r;
}

int create_open(struct create_plan *plan, unsigned flags, struct target **target, struct err *err)
{
	int r;

	/* An image without metadata (raw) is only a new file, which a crash may lose as any other. */
	if (!plan->fmt->place)
		flags |= TARGET_UNSAFE;
	r = create_open_target(plan, flags, target, err);
	return r < 0 ? r : create_open_data(plan, flags, err);
}

int create_open_target(struct create_plan *plan, unsigned flags, struct target **target,
		       struct err *err)
{
	if (flags & TARGET_REMOTE)
		return target_open_remote(plan->path, flags, plan->job, target, err);
	return target_open(plan->path, flags, &plan->all, target, err);
}

int create_open_data(struct create_plan *plan, unsigned flags, struct err *err)
{
	flags &= ~(unsigned)TARGET_REMOTE;
	return plan->data_path ? target_open(plan->data_path, flags, NULL, &plan->data, err) : 0;
}

int create_commit(struct create_plan *plan, struct target *target, struct err *err)
{
	int r = plan->data ? target_commit(plan->data, err) : 0;

	if (r < 0)
		return r;
	r = target_commit(target, err);
	if (r < 0 && plan->data)
		target_withdraw(plan->data);
	return r;
}

int create_finish(struct create_plan *plan, struct target *target, struct err *err)
{
	int r = build_empty(plan, target_io(target), err);

	return r < 0 ? r : create_commit(plan, target, err);
}

int create_run(struct create_plan *plan, unsigned flags, struct err *err)
{
	struct target *target = NULL;
	int r = create_open(plan, flags, &target, err);

	if (r == 0)
		r = create_finish(plan, target, err);
	target_close(target);
	return r;
}

void create_plan_free(struct create_plan *plan)
{
	target_close(plan->data);
	free(plan->data_path);
	opts_free(&plan->all);
	opts_free(&plan->format_opts);
}
