// SPDX-License-Identifier: LGPL-2.1-or-later
/* Changing the options of an image; see amend.h. The texts are the peer's. */
#include "ops/amend.h"

#include <errno.h>
#include <string.h>

static bool has_option(const struct opt *table, const char *name)
{
	for (const struct opt *o = table; o && o->name; o++)
		if (strcmp(o->name, name) == 0)
			return true;
	return false;
}

/* An option for new images is known, but too late now. */
static int check_names(const struct format *fmt, const struct opts *opts, struct err *err)
{
	for (unsigned i = 0; i < opts->n; i++) {
		const char *name = opts->v[i].name;

		if (!has_option(fmt->amend_opts, name) && has_option(fmt->create_opts, name))
			return err_set(err, EINVAL,
				       "Invalid parameter '%s'\n"
				       "This option is only supported for image creation",
				       name);
	}
	return opts_check(opts, fmt->amend_opts, err);
}

int amend(struct img *img, const struct opts *opts, unsigned flags, struct job *job,
	  struct err *err)
{
	int r = img->fmt->amend ? check_names(img->fmt, opts, err) : 0;

	if (r == 0)
		r = img_amend(img, opts, flags, job, err);
	return r < 0 ? r : img_settle(img, err);
}
