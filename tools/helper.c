// SPDX-License-Identifier: GPL-2.0-or-later
/* Starting a program that does the work of a command: what plain img should not be linked with. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "cli.h"

/* Beside img as it was built, or where it was installed. */
static const char *const places[] = {"", "../libexec/imgkit/"};

int cli_run_helper(struct cli *cli, const char *name)
{
	CLEANUP_FREE char **argv = calloc((size_t)cli->argc + 2, sizeof(char *));
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *slash;

	if (!argv)
		return cli_error(cli, "out of memory");
	self[n < 0 ? 0 : n] = '\0';
	slash = strrchr(self, '/');
	/* It is to behave as who we are. */
	argv[0] = (char *)(uintptr_t)(strcmp(cli->prog, "qemu-nbd") == 0 ? cli->prog : name);
	memcpy(argv + 1, cli->argv, (size_t)cli->argc * sizeof(char *));
	fflush(NULL);
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		snprintf(path, sizeof(path), "%.*s/%s%s", slash ? (int)(slash - self) : 0, self,
			 places[i], name);
		execv(path, argv);
		if (errno != ENOENT)
			break;
	}
	return cli_error(cli, "Could not start %s: %s", name, strerror(errno));
}
