/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The frame of commands that make one image smaller in place: compact, sparsify, dedup. */
#ifndef IMGKIT_TOOLS_INPLACE_H
#define IMGKIT_TOOLS_INPLACE_H

#include "cli.h"

enum { INPLACE_OUTPUT = CLI_LONG, INPLACE_PROGRESS, INPLACE_UNTRUSTED, INPLACE_NEXT };

/* Their options; those of the command alone have ids from INPLACE_NEXT on, or letters. */
#define INPLACE_OPTIONS                                                                         \
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},    \
		CLI_OPT_IMAGE_OPTS, CLI_OPT_OBJECT,                                             \
		{INPLACE_OUTPUT, "output", "human|json", "how to print the result"},            \
		{'p', "progress-bar", NULL, "show progress"},                                   \
		{INPLACE_PROGRESS, "progress", "MODE",                                          \
		 "the same, in this way: auto, plain, json or none"},                           \
		{'T', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"}, \
		{INPLACE_UNTRUSTED, "untrusted", NULL,                                          \
		 "open no file but those named here; never guess raw"},                         \
		CLI_OPT_EXTERNAL,                                                               \
	{                                                                                       \
		'q', "quiet", NULL, "print errors only"                                         \
	}

struct inplace {
	void *ctx;
	/* An option of the command's own. False: it said what is wrong. NULL: there are none. */
	bool (*option)(struct cli *cli, void *ctx, int id);
	/* Before the image is opened: false, it said what is missing. NULL: nothing can be. */
	bool (*ready)(struct cli *cli, void *ctx);
	int (*work)(struct img *img, void *ctx, struct job *job, struct err *err);
	/* Adds what was done to obj, also after a failure. 0, or not: out of memory. */
	int (*json)(json_t *obj, const void *ctx);
	/* Prints what was done. */
	void (*human)(const void *ctx);
};

int inplace_run(struct cli *cli, const struct inplace *op);

#endif
