// SPDX-License-Identifier: GPL-2.0-or-later
/* img compare: whether two images hold the same disk. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cli.h"
#include "ops/compare.h"

enum { PARALLEL = 'm', PROGRESS = CLI_LONG, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "a-format", "FMT", "format of the first image (default: found out)"},
	{'F', "b-format", "FMT", "format of the second image (default: found out)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'s', "strict", NULL, "size and allocation must be the same too"},
	{'T', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'U', "force-share", NULL, "read images that another process may be writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{PARALLEL, "parallel", "N", "number of threads (default: one per CPU)"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

/* A wrong command line is "differ" to the peer; here it is like an image that cannot be opened. */
enum { EXIT_DIFFER = 1, EXIT_OPEN = 2, EXIT_MAP = 3, EXIT_READ = 4 };

struct compare_cmd {
	struct compare_args args;
	struct img_open_args open[2];
	unsigned n;
	bool quiet;
	enum progress_mode progress;
};

static bool set_flags(struct cli *cli, struct compare_cmd *c, int id)
{
	unsigned flags = c->open[0].flags;

	if (id == 'T' && !cli_source_cache(cli, cli->arg, &flags))
		return false;
	if (id == 'U')
		flags |= IMG_SHARE;
	if (id == UNTRUSTED)
		flags |= IMG_UNTRUSTED;
	c->open[0].flags = c->open[1].flags = flags;
	return true;
}

static bool parse_option(struct cli *cli, struct compare_cmd *c, int id)
{
	uint64_t n;

	switch (id) {
	case CLI_ARG:
		if (c->n < 2)
			c->open[c->n].path = cli->arg;
		c->n++;
		return true;
	case 'f':
		c->open[0].format = cli->arg;
		return true;
	case 'F':
		c->open[1].format = cli->arg;
		return true;
	case 's':
		c->args.strict = true;
		return true;
	case PARALLEL:
		if (!cli_uint(cli, "number of threads", cli->arg, 1, 256, &n))
			return false;
		c->args.workers = (unsigned)n;
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
		return set_flags(cli, c, id);
	}
}

static int compare_failed(const struct cli *cli, int r, const struct compare_result *res,
			  const struct err *err)
{
	cli_error(cli, "%s", err->msg);
	if (r == -ECANCELED)
		return EXIT_READ;
	return res->failed == COMPARE_MAP ? EXIT_MAP : EXIT_READ;
}

static int report(const struct compare_cmd *c, const struct compare_result *res)
{
	if (!c->quiet && res->sizes_differ)
		puts("Warning: Image size mismatch!");
	switch (res->kind) {
	case COMPARE_SAME:
		if (!c->quiet)
			puts("Images are identical.");
		return 0;
	case COMPARE_SIZE:
		if (!c->quiet)
			puts("Strict mode: Image size mismatch!");
		return EXIT_DIFFER;
	case COMPARE_STATUS:
		if (!c->quiet)
			printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n",
			       res->offset);
		return EXIT_DIFFER;
	case COMPARE_CONTENT:
		break;
	}
	if (!c->quiet)
		printf("Content mismatch at offset %" PRIu64 "!\n", res->offset);
	return EXIT_DIFFER;
}

static int compare_opened(const struct cli *cli, struct compare_cmd *c)
{
	struct job job = {0};
	struct compare_result res;
	struct progress *progress;
	struct err err = {0};
	int r, sig;

	progress = progress_start(cli, c->quiet ? PROGRESS_NONE : c->progress, "compare", &job);
	r = compare_run(&c->args, &job, &res, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	return r < 0 ? compare_failed(cli, r, &res, &err) : report(c, &res);
}

static int run(struct cli *cli)
{
	struct compare_cmd c = {.progress = PROGRESS_NONE};
	struct img *a, *b = NULL;
	int id, code = EXIT_OPEN;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli) ? (cli->peer ? 1 : EXIT_OPEN) : 0;
		if (!parse_option(cli, &c, id))
			return EXIT_OPEN;
	}
	if (c.n != 2) {
		cli_usage(cli, "Expecting two image file names");
		return cli->peer ? 1 : EXIT_OPEN;
	}
	a = cli_open(cli, &c.open[0]);
	if (a)
		b = cli_open(cli, &c.open[1]);
	if (b) {
		c.args.a = &a->io;
		c.args.b = &b->io;
		code = compare_opened(cli, &c);
	}
	if (b)
		io_close(&b->io);
	if (a)
		io_close(&a->io);
	/* 1 would say that they differ. */
	return cli_finish_output(cli, 0) ? EXIT_READ : code;
}

const struct cmd cmd_compare = {
	.name = "compare",
	.summary = "Compare the disks in two images",
	.args = "FILE1 FILE2",
	.opts = options,
	.exit_codes = "0 same, 1 different, 2 an image cannot be opened (or wrong usage), "
		      "3 error in its metadata, 4 read error",
	.run = run,
};
