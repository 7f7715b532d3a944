// SPDX-License-Identifier: GPL-2.0-or-later
/* How a helper program begins and ends: as img does, with one command. */
#include "frame.h"

#include <stdio.h>
#include <string.h>

/* The help of the whole program: there is one command only. */
void cli_help_all(const struct cli *cli)
{
	struct cli own = *cli;

	own.peer = false; /* whose help is that of its whole program, this one */
	cli_help(&own);
	if (cli->peer)
		puts("By this name it listens on all addresses, serves one client at a time, "
		     "ignores "
		     "trimming and\nends when the last client has left, unless options say "
		     "otherwise.");
}

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	struct job stop = {0};
	struct cli cli = {.prog = "img", .cmd = helper_cmd, .stop = &stop};
	int code;

	/* The one program of the peer that has a helper for itself. */
	if (argc > 0 && strcmp(slash ? slash + 1 : argv[0], "qemu-nbd") == 0) {
		cli.prog = "qemu-nbd";
		cli.peer = true;
	}
	if (!cli_begin(&cli))
		return 1;
	cli.argc = argc > 0 ? argc - 1 : 0;
	cli.argv = argv + 1;
	code = helper_run(&cli);
	secrets_free(&cli.secrets);
	creds_free(&cli.creds);
	return code;
}
