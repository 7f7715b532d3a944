// SPDX-License-Identifier: GPL-2.0-or-later
/* img resize: another virtual size. */
#include "ops/resize.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "bitmap.h"

enum { SHRINK = CLI_LONG, PREALLOCATION, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{SHRINK, "shrink", NULL, "permit a smaller size: what lies beyond is lost"},
	{PREALLOCATION, "preallocation", "MODE",
	 "space for what is added: off (the default), metadata, falloc or full"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct resize_cmd {
	struct img_open_args open;
	struct resize_request req;
	char *size;        /* [+-]SIZE */
	bool quiet, extra; /* extra: more arguments than these two */
};

static bool parse_preallocation(const struct cli *cli, const char *text, int *mode)
{
	static const char *const modes[] = {
		[PREALLOC_OFF] = "off",
		[PREALLOC_METADATA] = "metadata",
		[PREALLOC_FALLOC] = "falloc",
		[PREALLOC_FULL] = "full",
	};

	for (int i = 0; i < (int)(sizeof(modes) / sizeof(modes[0])); i++) {
		if (strcmp(modes[i], text) == 0) {
			*mode = i;
			return true;
		}
	}
	cli_error(cli, "Invalid preallocation mode '%s'", text);
	return false;
}

/* The peer takes this size for an option's value, and its messages with it. */
static bool parse_size(const struct cli *cli, const char *text, struct resize_request *req)
{
	struct opts opts = {0};
	struct err err = {0};
	int r;

	req->mode = *text == '+' ? RESIZE_GROW_BY : *text == '-' ? RESIZE_SHRINK_BY : RESIZE_TO;
	r = opts_set(&opts, "size", text + (req->mode != RESIZE_TO), &err);
	if (r == 0)
		r = opts_size(&opts, "size", &req->n, &err);
	opts_free(&opts);
	if (r < 0)
		cli_error(cli, "%s", err.msg);
	return r == 0;
}

static void take_argument(struct resize_cmd *c, char *arg)
{
	if (!c->open.path)
		c->open.path = arg;
	else if (!c->size)
		c->size = arg;
	else
		c->extra = true;
}

static bool parse(struct cli *cli, struct resize_cmd *c, int *code)
{
	int id;

	*code = 1;
	/* "-1G" at the end is a size, not options. */
	if (cli->argc > 0) {
		char *last = cli->argv[cli->argc - 1];

		if (last[0] == '-' && isdigit((unsigned char)last[1])) {
			c->size = last;
			cli->argc--;
		}
	}
	while ((id = cli_next(cli)) != CLI_END) {
		bool ok = true;

		switch (id) {
		case CLI_EXIT:
			*code = cli_exit_code(cli);
			return false;
		case CLI_ARG:
			take_argument(c, cli->arg);
			break;
		case 'f':
			c->open.format = cli->arg;
			break;
		case SHRINK:
			c->req.shrink = true;
			break;
		case PREALLOCATION:
			ok = parse_preallocation(cli, cli->arg, &c->req.prealloc);
			break;
		case UNTRUSTED:
			c->open.flags |= IMG_UNTRUSTED;
			break;
		case 'q':
			c->quiet = true;
			break;
		}
		if (!ok)
			return false;
	}
	return true;
}

static int resize(const struct cli *cli, const struct resize_cmd *c, struct img *img)
{
	struct err err = {0};
	uint64_t size;
	bool cuts;
	int r;

	if (resize_plan(img, &c->req, &size, &cuts, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		if (cuts)
			cli_warn(cli, "Shrinking an image will delete all data beyond the shrunken "
				      "image's end. Before performing such an operation, make sure "
				      "there is no important data there.");
		return 1;
	}
	r = resize_run(img, &c->req, size, &err);
	if (r < 0) {
		cli_error(cli, "%s", err.msg);
		bitmap_hint(cli, r);
		return 1;
	}
	if (!c->quiet)
		puts("Image resized.");
	return cli_finish_output(cli, 0);
}

static int run(struct cli *cli)
{
	struct resize_cmd c = {.open = {.flags = IMG_RDWR}};
	struct img *img;
	int code;

	if (cli->peer && cli->argc < 2) /* before anything is looked at */
		return cli_usage(cli, "Not enough arguments");
	if (!parse(cli, &c, &code))
		return code;
	if (!c.open.path || !c.size)
		return cli_usage(cli, "Not enough arguments");
	if (c.extra)
		return cli_usage(cli, "Expecting image file name and size");
	if (!parse_size(cli, c.size, &c.req))
		return 1;
	img = cli_open(cli, &c.open);
	if (!img)
		return 1;
	code = resize(cli, &c, img);
	io_close(&img->io);
	return code;
}

const struct cmd cmd_resize = {
	.name = "resize",
	.summary = "Change the virtual size of an image",
	.args = "FILE [+|-]SIZE",
	.opts = options,
	.run = run,
};
