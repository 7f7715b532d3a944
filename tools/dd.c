// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img dd: a part of a disk to a new image, in blocks that are counted as dd(1) does.
 *
 * The peer counts `count` from the beginning of the disk, not from `skip` on: so does its
 * personality. And there a disk of raw data gets whole sectors.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "cli.h"
#include "ops/convert.h"

enum { FORCE = CLI_LONG, PROGRESS, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the input (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'O', "output-format", "FMT", "format of the output (default: raw)"},
	{FORCE, "force", NULL, "replace an output that exists and is not empty"},
	{'U', "force-share", NULL, "read an input that another process may be writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{0},
};

struct dd_cmd {
	struct img_open_args open;
	const char *of, *format;
	uint64_t bs, count, skip; /* bytes, blocks, blocks */
	bool counted, force;
	unsigned target_flags; /* TARGET_REMOTE, or 0 */
	enum progress_mode progress;
};

static bool parse_bs(const struct cli *cli, const char *text, uint64_t *bs)
{
	if (!cli_size(cli, "bs", text, bs))
		return false;
	if (*bs >= 1 && *bs <= INT32_MAX)
		return true;
	cli_error(cli, "Invalid bs specified. Must be between 1 and %" PRId32 ".", INT32_MAX);
	return false;
}

static bool take_operand(const struct cli *cli, struct dd_cmd *c, char *text)
{
	char *value = strchr(text, '=');

	if (value)
		*value++ = '\0';
	if (value && strcmp(text, "if") == 0) {
		c->open.path = value;
	} else if (value && strcmp(text, "of") == 0) {
		c->of = value;
	} else if (value && strcmp(text, "bs") == 0) {
		return parse_bs(cli, value, &c->bs);
	} else if (value && strcmp(text, "count") == 0) {
		c->counted = true;
		return cli_size(cli, "count", value, &c->count);
	} else if (value && strcmp(text, "skip") == 0) {
		return cli_size(cli, "skip", value, &c->skip);
	} else {
		cli_error(cli, "unrecognized operand %s", text);
		return false;
	}
	return true;
}

static uint64_t blocks(uint64_t n, uint64_t bs)
{
	uint64_t bytes;

	return mul_ok(n, bs, &bytes) ? bytes : UINT64_MAX;
}

/* What is to be copied of a disk of `size` bytes. */
static void cut(const struct cli *cli, const struct dd_cmd *c, uint64_t size,
		struct convert_request *req)
{
	uint64_t skip = blocks(c->skip, c->bs), n = c->counted ? blocks(c->count, c->bs) : size;
	uint64_t end = cli->peer ? min_u64(size, n) : size;

	if (skip > end) {
		if (cli->peer)
			cli_error(cli, "%s: cannot skip to specified offset", c->open.path);
		else
			cli_warn(cli, "%s: cannot skip to specified offset", c->open.path);
	}
	req->part = true;
	req->offset = min_u64(skip, end);
	req->length = min_u64(n, end - req->offset);
}

static int copy(const struct cli *cli, const struct dd_cmd *c, struct img *src)
{
	struct convert_request req = {
		.src = &src,
		.n_src = 1,
		.path = c->of,
		.target_flags = c->target_flags |
				(cli->peer  ? TARGET_IN_PLACE
				 : c->force ? TARGET_FORCE
					    : 0) |
				TARGET_DURABLE,
		.format = c->format,
		.not_made = "error while creating output image",
		.copy = {.sparse = 4096},
	};
	struct progress *progress;
	struct job job = {0};
	struct err err = {0};
	int r, sig;

	cut(cli, c, io_size(&src->io), &req);
	progress = progress_start(cli, c->progress, "dd", &job);
	r = convert(&req, &job, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	return r < 0 ? cli_error(cli, "%s", err.msg) : cli_finish_output(cli, 0);
}

static bool check_output(const struct cli *cli, struct dd_cmd *c)
{
	const struct format *fmt = format_find(c->format);

	if (!fmt)
		cli_error(cli, cli->peer ? "Unknown file format" : "Unknown file format '%s'",
			  c->format);
	else if (!fmt->build)
		cli_error(cli, "Format driver '%s' does not support image creation", fmt->name);
	else
		c->of = cli_new_path(cli, c->of, &c->target_flags);
	return fmt && fmt->build && c->of;
}

static int run_parsed(const struct cli *cli, struct dd_cmd *c)
{
	struct img *src;
	int code = 1;

	if (!c->open.path || !c->of)
		return cli->peer ? cli_error(cli, "Must specify both input and output files")
				 : cli_usage(cli, "Must specify both input and output files");
	if (cli->image_opts && c->open.format)
		return cli_error(cli, "--image-opts and --format are mutually exclusive");
	src = cli_open(cli, &c->open);
	if (!src)
		return 1;
	if (check_output(cli, c))
		code = copy(cli, c, src);
	io_close(&src->io);
	return code;
}

static int run(struct cli *cli)
{
	struct dd_cmd c = {.format = "raw", .bs = 512};
	bool ok = true;
	int id;

	while (ok && (id = cli_next(cli)) != CLI_END) {
		switch (id) {
		case CLI_EXIT:
			return cli_exit_code(cli);
		case CLI_ARG:
			ok = take_operand(cli, &c, cli->arg);
			break;
		case 'f':
			c.open.format = cli->arg;
			break;
		case 'O':
			c.format = cli->arg;
			break;
		case FORCE:
			c.force = true;
			break;
		case 'U':
			c.open.flags |= IMG_SHARE;
			break;
		case UNTRUSTED:
			c.open.flags |= IMG_UNTRUSTED;
			break;
		case 'p':
			c.progress = PROGRESS_AUTO;
			break;
		case PROGRESS:
			ok = progress_parse(cli, cli->arg, &c.progress);
			break;
		}
	}
	return ok ? run_parsed(cli, &c) : 1;
}

const struct cmd cmd_dd = {
	.name = "dd",
	.summary = "Copy a part of a disk, counted in blocks",
	.args = "[bs=SIZE] [count=N] [skip=N] if=FILE of=FILE",
	.opts = options,
	.run = run,
};
