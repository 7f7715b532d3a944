// SPDX-License-Identifier: GPL-2.0-or-later
/* img rebase: another backing file for an overlay. */
#include "ops/rebase.h"

#include <stdio.h>

#include "cli.h"

enum { PARALLEL = 'm', PROGRESS = CLI_LONG, DROP_EQUAL, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'b', "backing", "FILE", "the new backing file; \"\" for none"},
	{'F', "backing-format", "FMT", "format of the new backing file"},
	{'B', NULL, "FMT", "the same as -F"},
	{'u', "backing-unsafe", NULL, "change the name only: the content has to be the same"},
	{'c', "compress", NULL, "compress what has to be copied into the image"},
	{DROP_EQUAL, "drop-equal", NULL,
	 "then drop what the image holds just as the new backing file does"},
	{'t', "cache", "CACHE",
	 "none, writeback (the default), writethrough, directsync or unsafe"},
	{'T', "backing-cache", "CACHE", "the same, for the new backing file"},
	{'U', "force-share", NULL, "a backing file that another process may be writing"},
	{PARALLEL, "parallel", "N", "number of threads (default: one per CPU)"},
	CLI_OPT_EXTERNAL,
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct rebase_cmd {
	struct img_open_args open;
	struct rebase_args args;
	const char *backing; /* as given: NULL: not, "": none */
	const char *cache, *backing_cache;
	unsigned backing_flags;
	unsigned n; /* file names */
	bool unsafe, quiet;
	enum progress_mode progress;
};

static bool parse_mode(struct cli *cli, struct rebase_cmd *c, int id)
{
	uint64_t n;

	switch (id) {
	case 'u':
		c->unsafe = true;
		return true;
	case 'c':
		c->args.compress = true;
		return true;
	case DROP_EQUAL:
		c->args.drop_equal = true;
		return true;
	case 'U':
		c->backing_flags |= IMG_SHARE;
		return true;
	case UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		c->backing_flags |= IMG_UNTRUSTED;
		return true;
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	case 'q':
		c->quiet = true;
		return true;
	case PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	default:
		if (!cli_uint(cli, "number of threads", cli->arg, 1, 256, &n))
			return false;
		c->args.workers = (unsigned)n;
		return true;
	}
}

static bool parse_option(struct cli *cli, struct rebase_cmd *c, int id)
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
		c->backing = cli->arg;
		return true;
	case 'F':
	case 'B':
		c->args.format = cli->arg;
		return true;
	case 't':
		c->cache = cli->arg;
		return true;
	case 'T':
		c->backing_cache = cli->arg;
		return true;
	default:
		return parse_mode(cli, c, id);
	}
}

static bool parse_caches(const struct cli *cli, struct rebase_cmd *c)
{
	if (c->cache && !cli_cache(cli, c->cache, &c->open.flags))
		return false;
	return !c->backing_cache || cli_source_cache(cli, c->backing_cache, &c->backing_flags);
}

/* This and the next one close the image. */
static int rebase_unsafe(const struct cli *cli, const struct rebase_cmd *c, struct img *img)
{
	const struct rebase_args *a = &c->args;
	struct progress *progress;
	struct job job = {0};
	struct err err = {0};
	int r = 0;

	progress = progress_start(cli, c->quiet ? PROGRESS_NONE : c->progress, "rebase", &job);
	if (!cli->peer) /* which writes it all the same */
		r = rebase_check_name(img, a->name, &err);
	if (r == 0)
		r = rebase_set_backing(img, a->name, a->format, NULL, &err);
	if (r == 0)
		r = img_settle(img, &err);
	progress_stop(progress, r == 0); /* too short to be interrupted */
	io_close(&img->io);
	return r < 0 ? cli_error(cli, "%s", err.msg) : 0;
}

static int rebase_safe(const struct cli *cli, struct rebase_cmd *c, struct img *img)
{
	struct progress *progress;
	struct job job = {0};
	struct err err = {0};
	int r, sig;

	c->args.overlay = img;
	if (c->args.name && rebase_open_backing(img, c->args.name, c->args.format, c->backing_flags,
						&c->args.backing, &err) < 0) {
		io_close(&img->io);
		return cli_error(cli, "Could not open new backing file '%s': %s", c->args.name,
				 err.msg);
	}
	progress = progress_start(cli, c->quiet ? PROGRESS_NONE : c->progress, "rebase", &job);
	r = rebase_run(&c->args, &job, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && sig) {
		io_close(&img->io); /* before we die: what was allocated would leak */
		return cli_interrupted(cli, sig);
	}
	io_close(&img->io);
	return r < 0 ? cli_error(cli, "%s", err.msg) : 0;
}

static int check_usage(const struct cli *cli, const struct rebase_cmd *c)
{
	if (c->n != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (!c->unsafe && !c->backing)
		return cli_usage(cli, "Must specify backing file (-b) or use unsafe mode (-u)");
	if (c->unsafe && (c->args.compress || c->args.drop_equal))
		return cli_usage(cli, "-u only changes the name, -c and --drop-equal do not go "
				      "with it");
	return 0;
}

static int run(struct cli *cli)
{
	struct rebase_cmd c = {.open = {.flags = IMG_RDWR}, .progress = PROGRESS_NONE};
	struct img *img;
	int id, code;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!parse_option(cli, &c, id))
			return 1;
	}
	code = check_usage(cli, &c);
	if (code)
		return code;
	if (!parse_caches(cli, &c))
		return 1;
	c.open.flags |= c.unsafe ? IMG_NO_BACKING : 0;
	c.args.change_snapshots = cli->peer;
	c.args.name = c.backing && *c.backing ? c.backing : NULL;
	if (cli->peer)
		c.backing_flags |= IMG_NAMED_DEVICES;
	img = cli_open(cli, &c.open);
	if (!img)
		return 1;
	if (c.args.format && !format_find(c.args.format)) {
		io_close(&img->io);
		return cli_error(cli, "Invalid format name: '%s'", c.args.format);
	}
	code = c.unsafe ? rebase_unsafe(cli, &c, img) : rebase_safe(cli, &c, img);
	return cli_finish_output(cli, code);
}

const struct cmd cmd_rebase = {
	.name = "rebase",
	.summary = "Give an image another backing file",
	.args = "FILE",
	.opts = options,
	.run = run,
};
