/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What other commands say about bitmaps. */
#ifndef IMGKIT_TOOLS_BITMAP_H
#define IMGKIT_TOOLS_BITMAP_H

#include "cli.h"

/* After the message of an error r: what to do about an inconsistent bitmap, if it was that. */
void bitmap_hint(const struct cli *cli, int r);

#endif
