/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An io for a file that is known by name only: extents may point into it, nothing can be read. */
#ifndef IMGKIT_IO_ABSENT_H
#define IMGKIT_IO_ABSENT_H

#include "io/io.h"

/* Every transfer fails with -ENOENT: "NAME: WHY". why is a string literal. */
int absent_open(const char *name, const char *why, struct io **out, struct err *err);

/* Whether io was made by absent_open. */
bool absent_is(const struct io *io);

#endif
