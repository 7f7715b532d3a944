/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of `img tar`, shared by img and img-tar. */
#ifndef IMGKIT_TOOLS_TAR_H
#define IMGKIT_TOOLS_TAR_H

#include "guest.h"

enum { TAR_ZSTD = GUEST_NEXT, TAR_KEEP_LINKS, TAR_ONE_FS };

extern const struct cmd cmd_tar;

#endif
