/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of internal snapshots, as `snapshot -l` and `info` print it. */
#ifndef IMGKIT_TOOLS_SNAPSHOT_H
#define IMGKIT_TOOLS_SNAPSHOT_H

#include "cli.h"

/* "Snapshot list:", a heading and a line for each; nothing when there is none. */
void snapshot_print_list(const struct cli *cli, const struct snapshot *snaps, unsigned n);

#endif
