// SPDX-License-Identifier: LGPL-2.1-or-later
/* See commit.h. The texts are the peer's. */
#include "ops/commit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "io/file.h"
#include "ops/copy.h"

/* ---- the target ---- */

/* Which file an image is in. */
static int identify(const struct img *img, struct file_stat *fs, struct err *err)
{
	struct io *file = img_bottom(img);

	if (!file)
		return err_set(err, ENOTSUP, "%s: is in no file", img->io.name);
	return file_stat(file, fs, err);
}

static bool same_file(const struct img *img, const char *path)
{
	struct file_stat fs;
	struct stat st;

	return identify(img, &fs, NULL) == 0 && stat(path, &st) == 0 && fs.dev == st.st_dev &&
	       fs.ino == st.st_ino;
}

/* Whether `name` means the backing file of img: as it is stored there, or a path to it from there. */
static bool names_backing(const struct img *img, const char *name)
{
	const struct io *file = img_bottom(img);
	CLEANUP_FREE char *path = NULL;

	if (img->backing_name && !strcmp(name, img->backing_name))
		return true;
	return img_resolve_name(file ? file->name : img->io.name, name, &path, NULL) == 0 &&
	       same_file(img->backing, path);
}

static int find_base(struct img *top, const char *name, unsigned *depth, struct img **base,
		     struct err *err)
{
	*depth = 1;
	if (!name && !top->backing)
		return err_set(err, EINVAL, "Image does not have a backing file");
	for (struct img *img = top; img->backing; img = img->backing, ++*depth) {
		if (!name || names_backing(img, name)) {
			*base = img->backing;
			return 0;
		}
	}
	return err_set(err, ENOENT, "Did not find '%s' in the backing chain of '%s'", name,
		       top->io.name);
}

int commit_open(const struct img_open_args *args, const char *name, struct img **top,
		struct img **base, struct err *err)
{
	struct img_open_args again = *args;
	struct file_stat before, now;
	int r = find_base(*top, name, &again.write_depth, base, err);

	if (r == 0)
		r = identify(*base, &before, err);
	/* While it is open for reading nobody may write to it, not even we. */
	io_close(&(*top)->io);
	*top = NULL;
	if (r == 0)
		r = img_open(&again, top, err);
	if (r < 0)
		return r;
	r = find_base(*top, name, &again.write_depth, base, err);
	if (r == 0)
		r = identify(*base, &now, err);
	if (r == 0 && (before.dev != now.dev || before.ino != now.ino))
		r = err_set(err, EBUSY, "%s: the backing chain changes", args->path);
	if (r < 0) {
		io_close(&(*top)->io);
		*top = NULL;
	}
	return r;
}

/* ---- commit ---- */

static int check_snapshots(const struct commit_args *args, struct err *err)
{
	unsigned n;

	img_snapshots(args->top, &n);
	if (!n || args->keep || args->change_snapshots)
		return 0;
	return err_set(err, EPERM,
		       "%s: has internal snapshots, which would show what is committed (-d keeps "
		       "the image as it is)",
		       args->top->io.name);
}

static unsigned depth_of(const struct commit_args *args)
{
	unsigned depth = 0;

	for (struct img *img = args->top; img != args->base; img = img->backing)
		depth++;
	return depth;
}

static int copy_up(const struct commit_args *args, struct job *job, struct err *err)
{
	const struct copy_args copy = {
		.src = &args->top->io,
		.dst = &args->base->io,
		.above = depth_of(args),
		.unordered = true,
		.workers = args->workers,
		.rate = args->rate,
	};

	file_write_behind(args->base->data);
	return copy_run(&copy, job, err);
}

int commit_run(const struct commit_args *args, struct job *job, struct err *err)
{
	uint64_t size = io_size(&args->top->io);
	int r = check_snapshots(args, err);

	if (r == 0 && size > io_size(&args->base->io))
		r = img_resize(args->base, size, PREALLOC_OFF, err);
	if (r == 0)
		r = copy_up(args, job, err);
	if (r == 0)
		r = img_settle(args->base, err);
	if (r < 0 || args->keep)
		return r;
	r = img_empty(args->top, err);
	return r < 0 ? r : img_settle(args->top, err);
}
