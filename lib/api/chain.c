// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: what changes backing chains. */
#include "api/api.h"
#include "ops/commit.h"
#include "ops/rebase.h"

/* How the image that changes is opened. */
static int writable_flags(unsigned given, unsigned *flags, struct imgkit_err *err)
{
	if (given & ~(unsigned)(IMGKIT_UNSAFE | IMGKIT_DIRECT | IMGKIT_SYNC))
		return api_invalid(err, "an open flag that does not go with this operation");
	return api_open_flags(given | IMGKIT_RDWR, flags, err);
}

int imgkit_commit(const char *path, const struct imgkit_commit_opts *opts, struct imgkit_job *job,
		  struct imgkit_err *err)
{
	struct img_open_args open = {.path = path};
	struct commit_args args = {0};
	struct imgkit_commit_opts o;
	struct err e = {0};
	int r;

	r = api_opts(&o, sizeof(o), opts, err);
	if (r == 0)
		r = writable_flags(o.open_flags, &open.flags, err);
	if (r)
		return r;
	if (!path || (o.flags & ~(unsigned)(IMGKIT_COMMIT_KEEP | IMGKIT_COMMIT_CHANGE_SNAPSHOTS)))
		return api_invalid(err, "no path, or an unknown flag");
	open.format = o.format;
	api_external(o.external, &open);
	args.keep = (o.flags & IMGKIT_COMMIT_KEEP) || o.base;
	args.change_snapshots = o.flags & IMGKIT_COMMIT_CHANGE_SNAPSHOTS;
	args.workers = o.workers;
	args.rate = o.rate;
	r = img_open(&open, &args.top, &e);
	if (r == 0)
		r = commit_open(&open, o.base, &args.top, &args.base, &e);
	if (r == 0)
		r = commit_run(&args, api_job(job), &e);
	io_close(args.top ? &args.top->io : NULL);
	return r ? api_fail(err, r, &e) : 0;
}

static int check_rebase(const char *path, const struct imgkit_rebase_opts *o,
			struct imgkit_err *err)
{
	const unsigned known = IMGKIT_REBASE_UNSAFE | IMGKIT_REBASE_COMPRESS |
			       IMGKIT_REBASE_DROP_EQUAL | IMGKIT_REBASE_CHANGE_SNAPSHOTS;
	const unsigned backing = IMGKIT_SHARE | IMGKIT_UNTRUSTED | IMGKIT_DIRECT;

	if (!path || (o->flags & ~known))
		return api_invalid(err, "no path, or an unknown flag");
	if (o->backing_flags & ~backing)
		return api_invalid(err, "an open flag that does not go with a backing file");
	if (!o->backing != !o->backing_format)
		return api_invalid(err, "a backing file and its format go together");
	if ((o->flags & IMGKIT_REBASE_UNSAFE) &&
	    (o->flags & (IMGKIT_REBASE_COMPRESS | IMGKIT_REBASE_DROP_EQUAL)))
		return api_invalid(err, "UNSAFE only changes the name");
	if (o->backing_format && !format_find(o->backing_format))
		return api_invalid(err, "the backing file's format is not known");
	return 0;
}

static int rebase_unsafe(struct img *img, const struct imgkit_rebase_opts *o, struct err *e)
{
	int r = rebase_check_name(img, o->backing, e);

	if (r == 0)
		r = rebase_set_backing(img, o->backing, o->backing_format, NULL, e);
	return r ? r : img_settle(img, e);
}

static int rebase_safe(struct img *img, const struct imgkit_rebase_opts *o, unsigned backing_flags,
		       struct job *job, struct err *e)
{
	struct rebase_args args = {
		.overlay = img,
		.name = o->backing,
		.format = o->backing_format,
		.change_snapshots = o->flags & IMGKIT_REBASE_CHANGE_SNAPSHOTS,
		.compress = o->flags & IMGKIT_REBASE_COMPRESS,
		.drop_equal = o->flags & IMGKIT_REBASE_DROP_EQUAL,
		.workers = o->workers,
	};
	int r = 0;

	if (o->backing)
		r = rebase_open_backing(img, o->backing, o->backing_format, backing_flags,
					&args.backing, e);
	return r ? r : rebase_run(&args, job, e);
}

int imgkit_rebase(const char *path, const struct imgkit_rebase_opts *opts, struct imgkit_job *job,
		  struct imgkit_err *err)
{
	struct img_open_args open = {.path = path};
	struct imgkit_rebase_opts o;
	struct img *img = NULL;
	struct err e = {0};
	unsigned backing_flags;
	int r;

	if (!opts)
		return api_invalid(err, "no options: they say what the new backing file is");
	r = api_opts(&o, sizeof(o), opts, err);
	if (r == 0)
		r = check_rebase(path, &o, err);
	if (r == 0)
		r = writable_flags(o.open_flags, &open.flags, err);
	if (r == 0)
		r = api_open_flags(o.backing_flags, &backing_flags, err);
	if (r)
		return r;
	open.format = o.format;
	open.flags |= o.flags & IMGKIT_REBASE_UNSAFE ? IMG_NO_BACKING : 0;
	api_external(o.external, &open);
	r = img_open(&open, &img, &e);
	if (r == 0 && (o.flags & IMGKIT_REBASE_UNSAFE))
		r = rebase_unsafe(img, &o, &e);
	else if (r == 0)
		r = rebase_safe(img, &o, backing_flags, api_job(job), &e);
	io_close(img ? &img->io : NULL);
	return r ? api_fail(err, r, &e) : 0;
}
