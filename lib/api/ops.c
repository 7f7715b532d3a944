// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: what works on whole images. */
#include "api/api.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/opt.h"
#include "ops/amend.h"
#include "ops/compare.h"
#include "ops/convert.h"
#include "ops/create.h"

int imgkit_create(const char *path, const char *format, uint64_t size,
		  const struct imgkit_create_opts *opts, struct imgkit_err *err)
{
	struct create_request req = {.path = path, .format = format, .size = size};
	struct create_plan plan = {0};
	struct imgkit_create_opts o;
	struct opts values = {0};
	struct err e = {0};
	int r;

	r = api_opts(&o, sizeof(o), opts, err);
	if (r)
		return r;
	if (!path || !format || (o.flags & ~(unsigned)IMGKIT_FORCE))
		return api_invalid(err, "no path, no format, or an unknown flag");
	req.backing = o.backing;
	req.backing_format = o.backing_format;
	req.opts = &values;
	if (o.options)
		r = opts_parse(&values, o.options, &e);
	if (r == 0)
		r = create_prepare(&req, &plan, &e);
	if (r == 0)
		r = create_run(&plan, o.flags & IMGKIT_FORCE ? TARGET_FORCE : 0, &e);
	create_plan_free(&plan);
	opts_free(&values);
	return r ? api_fail(err, r, &e) : 0;
}

static int open_source(const char *path, const struct imgkit_convert_opts *o, unsigned flags,
		       struct img **img, struct err *err)
{
	struct img_open_args args = {
		.path = path,
		.format = o->source_format,
		.flags = flags,
		.snapshot = o->snapshot,
	};

	api_external(o->external, &args);
	return img_open(&args, img, err);
}

/* A target that is there already. */
static int open_target(const char *path, const char *format, struct img **img, struct err *err)
{
	const struct img_open_args args = {.path = path, .format = format, .flags = IMG_RDWR};

	return img_open(&args, img, err);
}

static void fill_convert(const struct imgkit_convert_opts *o, struct convert_request *req)
{
	req->target_flags = TARGET_DURABLE | (o->flags & IMGKIT_CONVERT_FORCE ? TARGET_FORCE : 0);
	req->dst_is_zero = o->flags & IMGKIT_CONVERT_TARGET_ZERO;
	req->backing = o->backing;
	req->backing_format = o->backing_format;
	req->bitmaps = o->flags & IMGKIT_CONVERT_BITMAPS;
	req->snapshots = o->flags & IMGKIT_CONVERT_SNAPSHOTS;
	req->skip_broken_bitmaps = o->flags & IMGKIT_CONVERT_SKIP_BROKEN_BITMAPS;
	req->copy.compress = o->flags & IMGKIT_CONVERT_COMPRESS;
	req->copy.salvage = o->flags & IMGKIT_CONVERT_SALVAGE;
	req->copy.workers = o->workers;
	req->copy.rate = o->rate;
	req->copy.sparse = o->sparse ? o->sparse : 4096;
	if (o->sparse == UINT64_MAX)
		req->copy.sparse = 0;
}

static int check_convert(const struct imgkit_convert_opts *o, struct imgkit_err *err)
{
	const unsigned known = IMGKIT_CONVERT_FORCE | IMGKIT_CONVERT_COMPRESS |
			       IMGKIT_CONVERT_IN_PLACE | IMGKIT_CONVERT_TARGET_ZERO |
			       IMGKIT_CONVERT_SALVAGE | IMGKIT_CONVERT_BITMAPS |
			       IMGKIT_CONVERT_SKIP_BROKEN_BITMAPS | IMGKIT_CONVERT_SNAPSHOTS;

	if (o->flags & ~known)
		return api_invalid(err, "a flag that this version of imgkit does not know");
	if ((o->flags & IMGKIT_CONVERT_TARGET_ZERO) && !(o->flags & IMGKIT_CONVERT_IN_PLACE))
		return api_invalid(err, "TARGET_ZERO is about a target that is there: IN_PLACE");
	if ((o->flags & IMGKIT_CONVERT_SKIP_BROKEN_BITMAPS) && !(o->flags & IMGKIT_CONVERT_BITMAPS))
		return api_invalid(err, "SKIP_BROKEN_BITMAPS goes with BITMAPS only");
	if ((o->flags & IMGKIT_CONVERT_SNAPSHOTS) && o->snapshot)
		return api_invalid(err, "SNAPSHOTS copies all of them, not one");
	if ((o->flags & IMGKIT_CONVERT_BITMAPS) && o->snapshot)
		return api_invalid(err, "the bitmaps are about the disk, not about a snapshot");
	if (o->open_flags & IMGKIT_RDWR)
		return api_invalid(err, "a source is not written to");
	return 0;
}

int imgkit_convert(const char *source, const char *target, const char *format,
		   const struct imgkit_convert_opts *opts, struct imgkit_job *job,
		   struct imgkit_err *err)
{
	struct convert_request req = {.n_src = 1, .format = format};
	struct img *src = NULL, *dst = NULL;
	struct imgkit_convert_opts o;
	struct opts values = {0};
	struct err e = {0};
	unsigned flags;
	int r;

	r = api_opts(&o, sizeof(o), opts, err);
	if (r == 0)
		r = check_convert(&o, err);
	if (r == 0)
		r = api_open_flags(o.open_flags, &flags, err);
	if (r)
		return r;
	if (!source || !target || !format)
		return api_invalid(err, "no source, no target, or no format");
	fill_convert(&o, &req);
	if (o.options)
		r = opts_parse(&values, o.options, &e);
	if (r == 0)
		r = open_source(source, &o, flags, &src, &e);
	if (r == 0 && (o.flags & IMGKIT_CONVERT_IN_PLACE))
		r = open_target(target, format, &dst, &e);
	if (r == 0) {
		req.src = &src;
		req.dst = dst;
		req.path = dst ? NULL : target;
		req.opts = &values;
		r = convert(&req, api_job(job), &e);
	}
	io_close(dst ? &dst->io : NULL);
	io_close(src ? &src->io : NULL);
	opts_free(&values);
	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_amend(struct imgkit_image *image, const char *options, unsigned flags,
		 struct imgkit_job *job, struct imgkit_err *err)
{
	struct opts values = {0};
	struct err e = {0};
	int r;

	if (!options || (flags & ~(unsigned)IMGKIT_AMEND_SHRINK))
		return api_invalid(err, "no options, or an unknown flag");
	r = opts_parse(&values, options, &e);
	if (r == 0)
		r = amend(image->img, &values, flags ? AMEND_SHRINK : 0, api_job(job), &e);
	opts_free(&values);
	return r ? api_fail(err, r, &e) : 0;
}

int imgkit_compare(struct imgkit_image *a, struct imgkit_image *b,
		   struct imgkit_compare_result *result, struct imgkit_job *job,
		   struct imgkit_err *err)
{
	const struct compare_args args = {.a = &a->img->io, .b = &b->img->io};
	struct compare_result res = {0};
	struct err e = {0};
	int r = compare_run(&args, api_job(job), &res, &e);

	if (r)
		return api_fail(err, r, &e);
	result->equal = res.kind == COMPARE_SAME;
	result->first_difference = res.offset;
	return 0;
}

static int run_check(const char *path, const struct imgkit_check_opts *o, struct check_result *res,
		     struct job *job, struct err *err)
{
	const struct check_sink sink = {.line = o->finding, .ctx = o->ctx};
	struct img_open_args args = {
		.path = path,
		.format = o->format,
		.flags = IMG_NO_BACKING | IMG_FOR_CHECK,
	};
	struct img *img;
	unsigned fix = 0;
	int r;

	if (o->flags & IMGKIT_FIX_LEAKS)
		fix |= CHECK_FIX_LEAKS;
	if (o->flags & IMGKIT_FIX_ERRORS)
		fix |= CHECK_FIX_LEAKS | CHECK_FIX_ERRORS;
	args.flags |= fix ? IMG_RDWR : 0;
	r = img_open(&args, &img, err);
	if (r)
		return r;
	r = img_check(img, fix, res, o->finding ? &sink : NULL, job, err);
	io_close(&img->io);
	return r;
}

int imgkit_check(const char *path, const struct imgkit_check_opts *opts,
		 struct imgkit_check_result *result, size_t result_size, struct imgkit_job *job,
		 struct imgkit_err *err)
{
	struct imgkit_check_result answer;
	struct imgkit_check_opts o;
	struct check_result res = {0};
	struct err e = {0};
	int r;

	r = api_opts(&o, sizeof(o), opts, err);
	if (r)
		return r;
	if (!path || (o.flags & ~(unsigned)(IMGKIT_FIX_LEAKS | IMGKIT_FIX_ERRORS)))
		return api_invalid(err, "no path, or an unknown flag");
	r = run_check(path, &o, &res, api_job(job), &e);
	if (r)
		return api_fail(err, r, &e);
	answer = (struct imgkit_check_result){
		.corruptions = res.corruptions,
		.leaks = res.leaks,
		.check_errors = res.check_errors,
		.corruptions_fixed = res.corruptions_fixed,
		.leaks_fixed = res.leaks_fixed,
		.total_clusters = res.total_clusters,
		.allocated_clusters = res.allocated_clusters,
		.fragmented_clusters = res.fragmented_clusters,
		.compressed_clusters = res.compressed_clusters,
		.image_end_offset = res.image_end_offset,
	};
	return api_result(result, result_size, &answer, sizeof(answer), err);
}

int imgkit_measure(struct imgkit_image *source, uint64_t size, const char *format,
		   const char *options, struct imgkit_measure_result *result, size_t result_size,
		   struct imgkit_job *job, struct imgkit_err *err)
{
	const struct format *fmt = format ? format_find(format) : NULL;
	struct opts values = {0};
	struct create_args args = {.size = size, .opts = &values};
	struct imgkit_measure_result answer;
	struct measure_result res = {0};
	struct err e = {0};
	int r = 0;

	if (!fmt || !fmt->measure)
		return api_invalid(err, "not a format that can be measured");
	if (source)
		args.size = io_size(&source->img->io);
	if (options)
		r = opts_parse(&values, options, &e);
	if (r == 0)
		r = opts_check(&values, fmt->create_opts, &e);
	if (r == 0)
		r = fmt->measure(&args, source ? &source->img->io : NULL, &res, api_job(job), &e);
	opts_free(&values);
	if (r)
		return api_fail(err, r, &e);
	answer.required = res.required;
	answer.fully_allocated = res.fully_allocated;
	answer.bitmaps = res.bitmaps;
	return api_result(result, result_size, &answer, sizeof(answer), err);
}
