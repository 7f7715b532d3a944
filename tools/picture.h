/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Drawing of a picture of a disk, on stdout. */
#ifndef IMGKIT_TOOLS_PICTURE_H
#define IMGKIT_TOOLS_PICTURE_H

#include "cli.h"
#include "ops/picture.h"

#define PICTURE_COLUMNS 64
#define PICTURE_CELLS   (PICTURE_COLUMNS * 64) /* of svg and html */
#define PICTURE_BAR     (PICTURE_COLUMNS * 16) /* of bar */

/* One self-contained file each. */
void picture_svg(const struct cli *cli, const struct img *img, const struct picture *p);
void picture_html(const struct cli *cli, const struct img *img, const struct picture *p);
/* A heat map for a terminal: the darker, the more of a cell is stored. */
void picture_bar(const struct cli *cli, const struct img *img, const struct picture *p);

#endif
