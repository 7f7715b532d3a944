/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The raw format: the file is the disk. */
#ifndef IMGKIT_FORMATS_RAW_H
#define IMGKIT_FORMATS_RAW_H

#include "image/build.h"

extern const struct format raw_format;

/* raw_build.c */
extern const struct opt raw_create_opts[];
int raw_build(struct io *file, const struct create_args *args, unsigned flags, struct build **out,
	      struct err *err);

/* raw_measure.c */
int raw_measure(const struct create_args *args, struct io *src, struct measure_result *res,
		struct job *job, struct err *err);

#endif
