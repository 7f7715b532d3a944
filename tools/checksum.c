// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img checksum: one sum for the same disk in any format.
 *
 * The work is done by img-checksum, a program of its own: the crypto library costs each start of a
 * program that is linked with it as much again as `img info` takes in all.
 */
#include "checksum.h"

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'a', "algorithm", "NAME", "hash function: sha256 (default), sha512, blake2b512, …"},
	{'l', "snapshot", "SNAPSHOT", "of an internal snapshot (id or name)"},
	{CHECKSUM_OUTPUT, "output", "human|json", "how to print the result"},
	{'m', "parallel", "N", "number of threads (default: one per CPU)"},
	{'T', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'U', "force-share", NULL, "read an image that another process may be writing"},
	{CHECKSUM_UNTRUSTED, "untrusted", NULL,
	 "open no file but the one named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{'p', "progress-bar", NULL, "show progress"},
	{CHECKSUM_PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{0},
};

static int run(struct cli *cli)
{
	return cli_run_helper(cli, "img-checksum");
}

const struct cmd cmd_checksum = {
	.name = "checksum",
	.summary = "Print a checksum that is the same for the same disk in any format",
	.args = "FILE",
	.opts = options,
	.run = run,
};
