/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the options that an image was made with. */
#ifndef IMGKIT_OPS_AMEND_H
#define IMGKIT_OPS_AMEND_H

#include "image/img.h"

/*
 * Gives img, open for writing, the options in opts; what they do not name stays. flags: AMEND_….
 * Durable on return. -ENOTSUP: the format has no options to change. -EINVAL, -ENOTSUP, -ERANGE: it
 * cannot be, and nothing has changed. -ECANCELED.
 */
int amend(struct img *img, const struct opts *opts, unsigned flags, struct job *job,
	  struct err *err);

#endif
