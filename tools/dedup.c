// SPDX-License-Identifier: GPL-2.0-or-later
/* img dedup: equal clusters of an image become one. img-dedup does the work, see checksum.c for why. */
#include "dedup.h"

static const struct cmd_opt options[] = {
	{DEDUP_WITHIN, "within-disk", NULL, "share clusters inside the disk itself, too"},
	INPLACE_OPTIONS,
	{0},
};

static int run(struct cli *cli)
{
	return cli_run_helper(cli, "img-dedup");
}

const struct cmd cmd_dedup = {
	.name = "dedup",
	.summary = "Store equal clusters inside an image once",
	.args = "FILE",
	.opts = options,
	.run = run,
};
