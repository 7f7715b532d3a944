/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every helper program gives to its main(), which is in main.c. */
#ifndef IMGKIT_TOOLS_HELPERS_FRAME_H
#define IMGKIT_TOOLS_HELPERS_FRAME_H

#include "cli.h"

/* The only command of the program: its name, options and help, as img has them. */
extern const struct cmd *const helper_cmd;
/* Does it; the exit code. */
int helper_run(struct cli *cli);

#endif
