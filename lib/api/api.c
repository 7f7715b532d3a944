// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: versions, errors, option structs, formats and jobs. */
#include "api/api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

const char *imgkit_version(void)
{
	return IMGKIT_VERSION;
}

int api_fail(struct imgkit_err *err, int r, const struct err *from)
{
	_Static_assert(sizeof(err->msg) == sizeof(from->msg), "no text is cut");
	if (err) {
		err->code = -r;
		memcpy(err->msg, from->msg, sizeof(err->msg));
	}
	return r;
}

int api_invalid(struct imgkit_err *err, const char *what)
{
	struct err e;

	return api_fail(err, err_set(&e, EINVAL, "%s", what), &e);
}

int api_opts(void *to, size_t size, const void *from, struct imgkit_err *err)
{
	size_t given = 0;

	memset(to, 0, size);
	if (!from)
		return 0;
	memcpy(&given, from, sizeof(given));
	if (given < sizeof(given))
		return api_invalid(err, "an option struct without its size in struct_size");
	if (given > size && !bytes_are_zero((const char *)from + size, given - size))
		return api_invalid(err, "an option that this version of imgkit does not know");
	memcpy(to, from, given < size ? given : size);
	return 0;
}

int api_result(void *to, size_t room, const void *from, size_t size, struct imgkit_err *err)
{
	if (room == 0)
		return api_invalid(err, "no room for the result");
	memset(to, 0, room);
	memcpy(to, from, room < size ? room : size);
	return 0;
}

int api_open_flags(unsigned flags, unsigned *out, struct imgkit_err *err)
{
	static const struct {
		unsigned api, img;
	} map[] = {
		{IMGKIT_RDWR, IMG_RDWR},     {IMGKIT_NO_BACKING, IMG_NO_BACKING},
		{IMGKIT_SHARE, IMG_SHARE},   {IMGKIT_UNTRUSTED, IMG_UNTRUSTED},
		{IMGKIT_UNSAFE, IMG_UNSAFE}, {IMGKIT_DIRECT, IMG_DIRECT},
		{IMGKIT_SYNC, IMG_SYNC},
	};

	*out = 0;
	for (size_t i = 0; i < ARRAY_LEN(map); i++) {
		if (flags & map[i].api)
			*out |= map[i].img;
		flags &= ~map[i].api;
	}
	if (flags)
		return api_invalid(err, "an open flag that this version of imgkit does not know");
	if ((*out & IMG_RDWR) && (*out & IMG_SHARE))
		return api_invalid(err, "an image cannot be written without locks");
	return 0;
}

void api_external(const char *const *external, struct img_open_args *args)
{
	args->allowed = external;
	while (external && external[args->n_allowed])
		args->n_allowed++;
}

const char *imgkit_format_name(unsigned n)
{
	for (unsigned i = 0; formats[i]; i++) {
		if (i == n)
			return formats[i]->name;
	}
	return NULL;
}

const char *imgkit_format_summary(const char *format)
{
	const struct format *fmt = format ? format_find(format) : NULL;

	return fmt ? fmt->summary : NULL;
}

unsigned imgkit_format_caps(const char *format)
{
	const struct format *fmt = format ? format_find(format) : NULL;
	unsigned caps = 0;

	if (!fmt)
		return 0;
	if (fmt->caps & FMT_WRITE)
		caps |= IMGKIT_CAN_WRITE;
	if (fmt->caps & FMT_CREATE)
		caps |= IMGKIT_CAN_CREATE;
	if (fmt->caps & FMT_BACKING)
		caps |= IMGKIT_CAN_BACK;
	if (fmt->caps & FMT_CODED)
		caps |= IMGKIT_CAN_COMPRESS;
	if (fmt->caps & FMT_CHECK)
		caps |= IMGKIT_CAN_CHECK;
	if (fmt->snapshots)
		caps |= IMGKIT_CAN_SNAPSHOT;
	if (fmt->bitmaps)
		caps |= IMGKIT_CAN_BITMAP;
	return caps;
}

struct imgkit_job *imgkit_job_new(void)
{
	return calloc(1, sizeof(struct imgkit_job));
}

void imgkit_job_free(struct imgkit_job *job)
{
	free(job);
}

void imgkit_job_cancel(struct imgkit_job *job)
{
	atomic_store_explicit(&job->job.cancelled, true, memory_order_relaxed);
}

void imgkit_job_progress(const struct imgkit_job *job, uint64_t *done, uint64_t *total)
{
	*done = atomic_load_explicit(&job->job.done, memory_order_relaxed);
	*total = atomic_load_explicit(&job->job.total, memory_order_relaxed);
}
