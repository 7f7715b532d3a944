// SPDX-License-Identifier: LGPL-2.1-or-later
/* The public API: what works on whole images. */
#include "api/api.h"

#include "base/opt.h"
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
		r = create_run(&plan, o.flags & IMGKIT_FORCE ? TARGET_FORCE : 0, NULL, 0, &e);
	create_plan_free(&plan);
	opts_free(&values);
	return r ? api_fail(err, r, &e) : 0;
}
