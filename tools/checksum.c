// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img checksum: one sum for the same disk in any format.
 *
 * The work is done by img-checksum, a program of its own: the crypto library costs each start of a
 * program that is linked with it as much again as `img info` takes in all.
 */
#include "checksum.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

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

/* Beside img as it was built, or where it was installed. */
static const char *const places[] = {"img-checksum", "../libexec/imgkit/img-checksum"};

static int run(struct cli *cli)
{
	CLEANUP_FREE char **argv = calloc((size_t)cli->argc + 2, sizeof(char *));
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *slash;

	if (!argv)
		return cli_error(cli, "out of memory");
	self[n < 0 ? 0 : n] = '\0';
	slash = strrchr(self, '/');
	argv[0] = (char *)(uintptr_t) "img-checksum";
	memcpy(argv + 1, cli->argv, (size_t)cli->argc * sizeof(char *));
	fflush(NULL);
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		snprintf(path, sizeof(path), "%.*s/%s", slash ? (int)(slash - self) : 0, self,
			 places[i]);
		execv(path, argv);
		if (errno != ENOENT)
			break;
	}
	return cli_error(cli, "Could not start %s: %s", places[0], strerror(errno));
}

const struct cmd cmd_checksum = {
	.name = "checksum",
	.summary = "Print a checksum that is the same for the same disk in any format",
	.args = "FILE",
	.opts = options,
	.run = run,
};
