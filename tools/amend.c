// SPDX-License-Identifier: GPL-2.0-or-later
/* img amend: other options for an image that exists. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "ops/amend.h"

enum { PROGRESS = CLI_LONG, FORCE, SHRINK, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'o', "options", "OPTS", "what to change, key=value,…; 'help' lists it; may be repeated"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "auto, plain, json or none; -p is auto"},
	{'t', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{FORCE, "force", NULL, "also change what may make the image unreadable: permits --shrink"},
	{SHRINK, "shrink", NULL, "permit a smaller size: what lies beyond is lost"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct amend_cmd {
	struct img_open_args open;
	struct opts opts;
	const char *cache;
	unsigned flags; /* AMEND_… */
	unsigned args;
	bool given, help, quiet;
	enum progress_mode progress;
};

static bool take_options(const struct cli *cli, struct amend_cmd *c)
{
	struct err err = {0};

	c->given = true;
	if (opts_parse(&c->opts, cli->arg, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		return false;
	}
	c->help = c->help || opts_get(&c->opts, "help") || opts_get(&c->opts, "?");
	return true;
}

static int no_options(const struct cli *cli, const struct format *fmt)
{
	return cli_error(cli, "Format driver '%s' does not support option amendment", fmt->name);
}

static int print_help(const struct cli *cli, const struct format *fmt)
{
	if (!fmt->amend)
		return no_options(cli, fmt);
	cli_amend_help(cli, fmt);
	return cli_finish_output(cli, 0);
}

static int amend_image(const struct cli *cli, const struct amend_cmd *c, struct img *img)
{
	struct job job = {0};
	struct err err = {0};
	struct progress *p;
	int r, sig;

	if (c->help)
		return print_help(cli, img->fmt);
	if (!img->fmt->amend)
		return no_options(cli, img->fmt);
	p = progress_start(cli, c->progress, "amend", &job);
	r = amend(img, &c->opts, c->flags, &job, &err);
	sig = progress_stop(p, r == 0);
	if (r < 0 && sig) {
		img_settle(img, NULL); /* before we die: clusters would leak, bitmaps be void */
		return cli_interrupted(cli, sig);
	}
	if (r < 0)
		return cli_error(cli, "%s", err.msg);
	return cli_finish_output(cli, 0);
}

static int run_parsed(const struct cli *cli, struct amend_cmd *c)
{
	const struct format *fmt = c->open.format ? format_find(c->open.format) : NULL;
	struct img *img;
	int code;

	if (!c->given)
		return cli_usage(cli, "Must specify options (-o)");
	if (c->help && c->open.format && !fmt)
		return cli_error(cli, "Unknown file format '%s'", c->open.format);
	if (c->help && fmt)
		return print_help(cli, fmt);
	if (c->args != 1)
		return cli->peer ? cli_error(cli, "Expecting one image file name")
				 : cli_usage(cli, "Expecting one image file name");
	if (c->cache && !cli_cache(cli, c->cache, &c->open.flags))
		return 1;
	img = cli_open(cli, &c->open);
	if (!img)
		return 1;
	code = amend_image(cli, c, img);
	io_close(&img->io);
	return code;
}

static bool take(struct cli *cli, struct amend_cmd *c, int id)
{
	switch (id) {
	case CLI_ARG:
		c->open.path = cli->arg;
		c->args++;
		break;
	case 'f':
		c->open.format = cli->arg;
		break;
	case 'o':
		return take_options(cli, c);
	case 'p':
		c->progress = PROGRESS_AUTO;
		break;
	case PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	case 't':
		c->cache = cli->arg;
		break;
	case FORCE:
	case SHRINK:
		c->flags |= AMEND_SHRINK;
		break;
	case UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		break;
	case 'q':
		c->quiet = true;
		break;
	}
	return true;
}

static int run(struct cli *cli)
{
	struct amend_cmd c = {.open = {.flags = IMG_RDWR}, .flags = cli->peer ? AMEND_SHRINK : 0};
	int id, code;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT || !take(cli, &c, id)) {
			opts_free(&c.opts);
			return id == CLI_EXIT ? cli_exit_code(cli) : 1;
		}
	}
	if (c.quiet)
		c.progress = PROGRESS_NONE;
	code = run_parsed(cli, &c);
	opts_free(&c.opts);
	return code;
}

const struct cmd cmd_amend = {
	.name = "amend",
	.summary = "Change the options of an image: version, refcounts, size",
	.args = "FILE",
	.opts = options,
	.run = run,
};
