// SPDX-License-Identifier: GPL-2.0-or-later
/* img tar: trees of guests as tar streams. The work is done by img-tar, which has libarchive. */
#include "tar.h"

static const struct cmd_opt options[] = {
	{'f', "file", "FILE", "the archive (default: -, standard output or input)"},
	{'H', "archive-format", "FMT", "out: pax (default), gnutar or ustar"},
	{'z', "gzip", NULL, "out: compress with gzip"},
	{TAR_ZSTD, "zstd", NULL, "out: compress with zstd"},
	{TAR_ONE_FS, "one-file-system", NULL, "out: leave out what is mounted below"},
	{TAR_KEEP_LINKS, "keep-directory-symlink", NULL,
	 "in: write through links to directories in the guest"},
	{GUEST_PROGRESS, "progress", "MODE", "show progress: auto, plain, json or none"},
	GUEST_OPT_ADD('a'),
	GUEST_OPT_FORMAT(GUEST_FORMAT),
	GUEST_OPT_MOUNT('m'),
	GUEST_OPT_SHARE,
	GUEST_OPTIONS_CAGE,
	{0},
};

static int run(struct cli *cli)
{
	return cli_run_helper(cli, "img-tar");
}

const struct cmd cmd_tar = {
	.name = "tar",
	.summary = "Write a tree of a guest as a tar stream, or make it of one",
	.args = "out|in IMAGE:/DIR",
	.opts = options,
	.exit_codes = "0 success, 1 error: something is missing",
	.run = run,
};
