// SPDX-License-Identifier: GPL-2.0-or-later
/* img compact: gives the free space inside an image back, in place. */
#include "ops/compact.h"

#include <stdio.h>

#include "base/json.h"
#include "base/size.h"
#include "cli.h"

enum { OUTPUT = CLI_LONG, PROGRESS, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	{OUTPUT, "output", "human|json", "how to print the result"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'T', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct compact_cmd {
	struct img_open_args open;
	bool json, quiet;
	enum progress_mode progress;
};

static int print_json(const struct cli *cli, const struct img *img,
		      const struct compact_result *res, bool complete)
{
	json_t *obj = json_object();
	int r = obj ? 0 : -1;

	r |= json_set_text(obj, "filename", img->io.name);
	r |= json_set_text(obj, "format", img->fmt->name);
	r |= json_set_u64(obj, "size-before", res->size_before);
	r |= json_set_u64(obj, "size-after", res->size_after);
	r |= json_set_u64(obj, "moved", res->moved);
	r |= json_set_u64(obj, "left", res->left);
	r |= json_set_bool(obj, "complete", complete);
	if (r != 0) {
		json_decref(obj);
		obj = NULL;
	}
	return cli_print_json(cli, obj);
}

static void print_human(const struct compact_result *res)
{
	char before[32], after[32], moved[32];

	printf("%s -> %s, %s moved\n", size_format(res->size_before, before, sizeof(before)),
	       size_format(res->size_after, after, sizeof(after)),
	       size_format(res->moved, moved, sizeof(moved)));
	if (res->left)
		printf("%s of free space could not be closed\n",
		       size_format(res->left, moved, sizeof(moved)));
}

static int compact(const struct cli *cli, const struct compact_cmd *c, struct img *img)
{
	struct compact_result res;
	struct job job = {0};
	struct err err = {0};
	struct progress *p = progress_start(cli, c->progress, "compact", &job);
	int r = compact_run(img, &res, &job, &err), code = 0;
	int signal = progress_stop(p, r == 0);

	if (!c->quiet && c->json && (r == 0 || res.size_before))
		code = print_json(cli, img, &res, r == 0);
	else if (!c->quiet && r == 0)
		print_human(&res);
	code = cli_finish_output(cli, code);
	if (signal)
		return cli_interrupted(cli, signal);
	return r < 0 ? cli_error(cli, "%s", err.msg) : code;
}

static int run(struct cli *cli)
{
	struct compact_cmd c = {.open = {.flags = IMG_RDWR | IMG_NO_BACKING}};
	unsigned args = 0;
	struct img *img;
	bool ok = true;
	int id, code;

	while ((id = cli_next(cli)) != CLI_END) {
		switch (id) {
		case CLI_EXIT:
			return cli_exit_code(cli);
		case CLI_ARG:
			c.open.path = cli->arg;
			args++;
			break;
		case 'f':
			c.open.format = cli->arg;
			break;
		case OUTPUT:
			ok = cli_output(cli, cli->arg, &c.json);
			break;
		case 'p':
			c.progress = PROGRESS_AUTO;
			break;
		case PROGRESS:
			ok = progress_parse(cli, cli->arg, &c.progress);
			break;
		case 'T':
			ok = cli_cache(cli, cli->arg, &c.open.flags);
			break;
		case UNTRUSTED:
			c.open.flags |= IMG_UNTRUSTED;
			break;
		case 'q':
			c.quiet = true;
			break;
		}
		if (!ok)
			return 1;
	}
	if (args != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (c.quiet)
		c.progress = PROGRESS_NONE;
	cli->stdout_taken = c.json;
	img = cli_open(cli, &c.open);
	if (!img)
		return 1;
	code = compact(cli, &c, img);
	io_close(&img->io);
	return code;
}

const struct cmd cmd_compact = {
	.name = "compact",
	.summary = "Close the holes inside an image, and make its file smaller",
	.args = "FILE",
	.opts = options,
	.run = run,
};
