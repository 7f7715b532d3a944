/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What names, paths and inodes may be when an agent tells of them. */
#ifndef IMGKIT_APPLIANCE_CHECK_H
#define IMGKIT_APPLIANCE_CHECK_H

#include <stdbool.h>

#include "appliance/wire.h"

/* Of an entry of a directory: not empty, ".", "..", and no slash. */
bool check_name(const char *name);
/* A relative path of such names with single slashes between them, or "". */
bool check_path(const char *path);
/* A type that exists, no more mode than there is, a size that an off_t can say. */
bool check_stat(const struct agent_stat *st);
/* Makes a text safe to be shown: what a terminal could obey becomes '?'. */
void check_plain(char *text);

#endif
