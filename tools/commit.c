// SPDX-License-Identifier: GPL-2.0-or-later
/* img commit: the changes in an overlay go into its backing file. */
#include "ops/commit.h"

#include <errno.h>
#include <stdio.h>

#include "cli.h"

enum { PARALLEL = 'm', PROGRESS = CLI_LONG, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'b', "base", "BASE", "image of the backing chain to commit to; implies -d"},
	{'d', "drop", NULL, "leave the image as it is, do not empty it"},
	{'t', "cache", "CACHE",
	 "none, writeback (the default), writethrough, directsync or unsafe"},
	{'r', "rate-limit", "RATE", "bytes per second at most"},
	{PARALLEL, "parallel", "N", "number of threads (default: one per CPU)"},
	CLI_OPT_EXTERNAL,
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct commit_cmd {
	struct img_open_args open;
	const char *base;
	struct commit_args args;
	unsigned n; /* file names */
	bool quiet;
	enum progress_mode progress;
};

static bool parse_number(struct cli *cli, struct commit_cmd *c, int id)
{
	uint64_t n;

	if (id == 'r')
		return cli_size(cli, "rate limit", cli->arg, &c->args.rate);
	if (!cli_uint(cli, "number of threads", cli->arg, 1, 256, &n))
		return false;
	c->args.workers = (unsigned)n;
	return true;
}

static bool parse_option(struct cli *cli, struct commit_cmd *c, int id, const char **cache)
{
	switch (id) {
	case CLI_ARG:
		c->open.path = cli->arg;
		c->n++;
		return true;
	case 'f':
		c->open.format = cli->arg;
		return true;
	case 'b':
		c->base = cli->arg;
		c->args.keep = true;
		return true;
	case 'd':
		c->args.keep = true;
		return true;
	case 't':
		*cache = cli->arg;
		return true;
	case UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		return true;
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	case PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	case 'q':
		c->quiet = true;
		return true;
	default:
		return parse_number(cli, c, id);
	}
}

static int commit_opened(const struct cli *cli, const struct commit_cmd *c)
{
	struct progress *progress;
	struct job job = {0};
	struct err err = {0};
	int r, sig;

	progress = progress_start(cli, c->quiet ? PROGRESS_NONE : c->progress, "commit", &job);
	r = commit_run(&c->args, &job, &err);
	sig = progress_stop(progress, r == 0);
	io_close(&c->args.top->io);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	if (r < 0)
		return cli_error(cli, "%s", err.msg);
	if (!c->quiet)
		puts("Image committed.");
	return cli_finish_output(cli, 0);
}

static int run(struct cli *cli)
{
	struct commit_cmd c = {.open = {.flags = IMG_RDWR}, .progress = PROGRESS_NONE};
	const char *cache = NULL;
	struct err err = {0};
	int id;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!parse_option(cli, &c, id, &cache))
			return 1;
	}
	if (c.n != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (cache && !cli_cache(cli, cache, &c.open.flags))
		return 1;
	c.args.change_snapshots = cli->peer;
	c.args.top = cli_open(cli, &c.open);
	if (!c.args.top)
		return 1;
	/* Once more, in the same way: it was taken once. */
	if (!cli_open_args(cli, &c.open)) {
		io_close(&c.args.top->io);
		return 1;
	}
	if (commit_open(&c.open, c.base, &c.args.top, &c.args.base, &err) < 0)
		return cli_error(cli, "%s", err.msg);
	return commit_opened(cli, &c);
}

const struct cmd cmd_commit = {
	.name = "commit",
	.summary = "Move the changes in an image to its backing file",
	.args = "FILE",
	.opts = options,
	.run = run,
};
