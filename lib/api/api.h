/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the facade share. The public types are kept apart from the internal ones, and
 * values are translated one by one: so the inside can change without breaking programs.
 */
#ifndef IMGKIT_API_API_H
#define IMGKIT_API_API_H

#include <stdbool.h>
#include <stddef.h>

#include "base/job.h"
#include "image/img.h"
#include "imgkit.h"

struct imgkit_image {
	struct img *img;
	struct img_info info; /* the last answer of imgkit_info; holds what it lent out */
};

struct imgkit_job {
	struct job job;
};

/* Hands an internal error to the caller. Returns r. */
int api_fail(struct imgkit_err *err, int r, const struct err *from);

/* -EINVAL with a text. */
int api_invalid(struct imgkit_err *err, const char *what);

/*
 * Takes an option struct of any version: copies the caller's (NULL: nothing) over zeros. What it
 * sets beyond our size is something that we cannot do: -EINVAL.
 */
int api_opts(void *to, size_t size, const void *from, struct imgkit_err *err);

/* Gives the first `room` bytes of a result, as the caller's header knows it. -EINVAL for 0. */
int api_result(void *to, size_t room, const void *from, size_t size, struct imgkit_err *err);

/* IMG_… flags of IMGKIT_… ones. -EINVAL for unknown ones. */
int api_open_flags(unsigned flags, unsigned *out, struct imgkit_err *err);

/* The external data files that the caller allowed: paths up to a NULL, or NULL. */
void api_external(const char *const *external, struct img_open_args *args);

static inline struct job *api_job(struct imgkit_job *job)
{
	return job ? &job->job : NULL;
}

#endif
