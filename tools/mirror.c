// SPDX-License-Identifier: GPL-2.0-or-later
/* img mirror: makes another disk equal to this one, and keeps it so by copying what changed. */
#include "ops/mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "cli.h"
#include "image/describe.h"

enum { OUTPUT = CLI_LONG, BITMAP, FULL, VERIFY, TARGET_ZERO, TARGET_OPTS, PROGRESS, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the source (default: found out from its content)"},
	{'O', "target-format", "FMT", "format of the target (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	{TARGET_OPTS, "target-image-opts", NULL, "TARGET is driver=…,file.filename=…"},
	CLI_OPT_OBJECT,
	{BITMAP, "bitmap", "NAME", "copy only what this bitmap of SOURCE has, and clear it"},
	{FULL, "full", NULL, "copy everything again, and begin the bitmap anew"},
	{VERIFY, "verify", NULL, "compare both disks when they should be equal"},
	{TARGET_ZERO, "target-is-zero", NULL, "TARGET reads as zeros now"},
	{'T', "source-cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'t', "cache", "CACHE", "the same for the target"},
	{'m', "parallel", "N", "number of threads (default: one per CPU)"},
	{'r', "rate-limit", "RATE", "bytes per second at most"},
	CLI_OPT_EXTERNAL,
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{OUTPUT, "output", "human|json", "how to print the result"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct mirror_cmd {
	struct img_open_args src, dst;
	bool target_opts;
	struct mirror_args args;
	struct mirror_result res;
	unsigned n; /* file names */
	bool quiet, json;
	enum progress_mode progress;
};

static bool set_flag(struct mirror_cmd *c, int id)
{
	switch (id) {
	case FULL:
		return c->args.full = true;
	case VERIFY:
		return c->args.verify = true;
	case TARGET_ZERO:
		return c->args.dst_zero = true;
	case TARGET_OPTS:
		return c->target_opts = true;
	case UNTRUSTED:
		c->dst.flags |= IMG_UNTRUSTED;
		c->src.flags |= IMG_UNTRUSTED;
		return true;
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	case 'q':
		return c->quiet = true;
	default:
		return false;
	}
}

static bool set_number(const struct cli *cli, struct mirror_cmd *c, int id)
{
	uint64_t n;

	if (id == 'r')
		return cli_size(cli, "rate limit", cli->arg, &c->args.rate);
	if (!cli_uint(cli, "number of threads", cli->arg, 1, 256, &n))
		return false;
	c->args.workers = (unsigned)n;
	return true;
}

static bool parse_option(struct cli *cli, struct mirror_cmd *c, int id)
{
	switch (id) {
	case CLI_ARG:
		if (c->n < 2)
			*(c->n ? &c->dst.path : &c->src.path) = cli->arg;
		c->n++;
		return true;
	case 'f':
		c->src.format = cli->arg;
		return true;
	case 'O':
		c->dst.format = cli->arg;
		return cli_format(cli, cli->arg);
	case BITMAP:
		c->args.bitmap = cli->arg;
		return true;
	case 'T':
		return cli_source_cache(cli, cli->arg, &c->src.flags);
	case 't':
		return cli_cache(cli, cli->arg, &c->dst.flags);
	case OUTPUT:
		return cli_output(cli, cli->arg, &c->json);
	case PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	default:
		return set_flag(c, id) || set_number(cli, c, id);
	}
}

/* ---- result ---- */

static int print_json(const struct cli *cli, const struct mirror_cmd *c)
{
	const struct mirror_result *res = &c->res;
	json_t *obj = json_object();
	int r = json_set_text(obj, "mode", res->full ? "full" : "incremental");

	r |= json_set_u64(obj, "virtual-size", res->size);
	r |= json_set_u64(obj, "copied", res->dirty);
	r |= json_set_text(obj, "bitmap", c->args.bitmap);
	if (c->args.bitmap) {
		r |= json_set_bool(obj, "bitmap-added", res->added);
		r |= json_set_bool(obj, "bitmap-cleared", res->cleared);
	}
	r |= json_set_bool(obj, "verified", c->args.verify);
	if (r) {
		json_decref(obj);
		obj = NULL;
	}
	return cli_print_json(cli, obj);
}

static void print_human(const struct cli *cli, const struct mirror_cmd *c)
{
	char a[32], b[32];

	if (c->res.full)
		printf("%s copied, all of it", size_format(c->res.dirty, a, sizeof(a)));
	else
		printf("%s of %s copied", size_format(c->res.dirty, a, sizeof(a)),
		       size_format(c->res.size, b, sizeof(b)));
	if (c->args.verify)
		printf("; both disks are equal");
	if (c->res.cleared) {
		printf("; bitmap '");
		cli_put_text(cli, c->args.bitmap);
		printf("' %s",
		       c->res.added ? "added: from now on it has what is written" : "cleared");
	}
	putchar('\n');
}

/* ---- the work ---- */

static int mirror_opened(const struct cli *cli, struct mirror_cmd *c)
{
	struct job job = {0};
	struct progress *progress;
	struct err err = {0};
	int r, sig;

	progress = progress_start(cli, c->quiet ? PROGRESS_NONE : c->progress, "mirror", &job);
	r = mirror_run(&c->args, &c->res, &job, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	if (r < 0)
		return cli_error(cli, "%s", err.msg);
	if (c->json)
		return print_json(cli, c);
	if (!c->quiet)
		print_human(cli, c);
	return 0;
}

/* A bitmap of a file is cleared, one that a server exports is read. */
static struct img *open_source(const struct cli *cli, struct mirror_cmd *c)
{
	char *context = NULL;
	struct img *img;
	const char *path;

	if (!c->args.bitmap)
		return cli_open(cli, &c->src);
	if (cli->image_opts || describe_name(c->src.path, &path) != NAME_NBD) {
		c->src.flags |= IMG_RDWR;
	} else {
		context = mirror_context(c->args.bitmap);
		c->src.contexts = (const char *const *)&context;
		c->src.n_contexts = context != NULL;
	}
	img = cli_open(cli, &c->src);
	free(context);
	return img;
}

static bool open_both(const struct cli *cli, struct mirror_cmd *c)
{
	struct cli target = *cli;

	c->dst.flags |= IMG_RDWR;
	target.image_opts = c->target_opts;
	c->args.src = open_source(cli, c);
	if (c->args.src)
		c->args.dst = cli_open(&target, &c->dst);
	return c->args.dst != NULL;
}

static int run(struct cli *cli)
{
	struct mirror_cmd c = {.progress = PROGRESS_NONE};
	int id, code = 1;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!parse_option(cli, &c, id))
			return 1;
	}
	if (c.n != 2)
		return cli_usage(cli, "Expecting a source and a target");
	cli->stdout_taken = c.json;
	if (open_both(cli, &c))
		code = mirror_opened(cli, &c);
	if (c.args.dst)
		io_close(&c.args.dst->io);
	if (c.args.src)
		io_close(&c.args.src->io);
	return cli_finish_output(cli, code);
}

const struct cmd cmd_mirror = {
	.name = "mirror",
	.summary = "Make another disk equal to this one, again and again",
	.args = "SOURCE TARGET",
	.opts = options,
	.run = run,
};
