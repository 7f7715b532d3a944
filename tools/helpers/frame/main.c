// SPDX-License-Identifier: GPL-2.0-or-later
/* How a helper program begins and ends: as img does, with one command. */
#include "frame.h"

/* The help of the whole program: there is one command only. */
void cli_help_all(const struct cli *cli)
{
	cli_help(cli);
}

int main(int argc, char **argv)
{
	struct cli cli = {.prog = "img", .cmd = helper_cmd};
	int code;

	if (!cli_begin(&cli))
		return 1;
	cli.argc = argc > 0 ? argc - 1 : 0;
	cli.argv = argv + 1;
	code = helper_run(&cli);
	secrets_free(&cli.secrets);
	return code;
}
