// SPDX-License-Identifier: GPL-2.0-or-later
/* img create: a new, empty image, or an overlay over a backing file. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli.h"
#include "ops/create.h"

enum { FORCE = CLI_LONG, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the new image (default: raw)"},
	{'o', "options", "OPTS", "format options, key=value,…; 'help' lists them; may be repeated"},
	{'b', "backing", "FILE", "make an overlay over this backing file"},
	{'B', "backing-format", "FMT", "format of the backing file; needed with -b"},
	{'F', NULL, "FMT", "the same as -B"},
	CLI_OPT_OBJECT,
	{'u', "backing-unsafe", NULL, "do not open the backing file to check it"},
	{FORCE, "force", NULL, "overwrite FILE when it exists and is not empty"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

struct create_cmd {
	struct create_request req;
	struct opts opts;
	const char *size;
	bool help, force, quiet;
	unsigned target_flags; /* TARGET_REMOTE, or 0 */
	unsigned args;
};

/* ---- the line that says what is made ---- */

/* A comma in a value is doubled, as it would be typed. */
static void print_value(const struct cli *cli, const char *value)
{
	CLEANUP_FREE char *doubled = malloc(2 * strlen(value) + 1);
	char *out = doubled;

	if (!doubled)
		return;
	for (; *value; value++) {
		*out++ = *value;
		if (*value == ',')
			*out++ = ',';
	}
	*out = '\0';
	cli_put_text(cli, doubled);
}

static void print_options(const struct cli *cli, const struct opt *table, const struct opts *opts)
{
	for (; table && table->name; table++) {
		const char *value = opts_get(opts, table->name);
		uint64_t n;

		value = value ? value : table->def;
		if (!value)
			continue;
		printf(" %s=", table->name);
		if (table->type == OPT_SIZE && size_parse(value, &n, NULL) == 0)
			printf("%" PRIu64, n);
		else if (table->type == OPT_UINT)
			printf("%" PRIu64, (uint64_t)strtoull(value, NULL, 0));
		else
			print_value(cli, value);
	}
}

static void print_plan(const struct cli *cli, const struct create_plan *plan)
{
	printf("Formatting '");
	cli_put_text(cli, plan->path);
	printf("', fmt=%s", plan->fmt->name);
	print_options(cli, plan->fmt->create_opts, &plan->all);
	print_options(cli, target_create_opts, &plan->all);
	putchar('\n');
	fflush(stdout);
}

/* ---- the command ---- */

static bool parse_options_arg(struct cli *cli, struct create_cmd *c)
{
	struct err err = {0};

	if (opts_parse(&c->opts, cli->arg, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		return false;
	}
	c->help = c->help || opts_get(&c->opts, "help") || opts_get(&c->opts, "?");
	return true;
}

static bool take_argument(struct cli *cli, struct create_cmd *c)
{
	switch (c->args++) {
	case 0:
		c->req.path = cli_new_path(cli, cli->arg, &c->target_flags);
		return c->req.path != NULL;
	case 1:
		c->size = cli->arg;
		return true;
	default:
		cli_usage(cli, "Unexpected argument: %s", cli->arg);
		return false;
	}
}

/* False: the exit code is cli_exit_code's or 1. */
static bool parse(struct cli *cli, struct create_cmd *c, int *code)
{
	int id;

	*code = 1;
	while ((id = cli_next(cli)) != CLI_END) {
		bool ok = true;

		switch (id) {
		case CLI_EXIT:
			*code = cli_exit_code(cli);
			return false;
		case CLI_ARG:
			ok = take_argument(cli, c);
			break;
		case 'f':
			c->req.format = cli->arg;
			break;
		case 'o':
			ok = parse_options_arg(cli, c);
			break;
		case 'b':
			c->req.backing = cli->arg;
			break;
		case 'B':
		case 'F':
			c->req.backing_format = cli->arg;
			break;
		case 'u':
			c->req.unchecked_backing = true;
			break;
		case FORCE:
			c->force = true;
			break;
		case UNTRUSTED:
			c->req.backing_flags |= IMG_UNTRUSTED;
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

static int give_options_help(const struct cli *cli, const struct create_cmd *c)
{
	const struct format *fmt = format_find(c->req.format);

	if (!fmt)
		return cli_error(cli, "Unknown file format '%s'", c->req.format);
	if (!fmt->build)
		return cli_error(cli, "Format driver '%s' does not support image creation",
				 fmt->name);
	cli_options_help(cli, fmt, c->req.path != NULL);
	return cli_finish_output(cli, 0);
}

/* Whether a text names the file already. */
static bool names(const char *text, const char *path)
{
	CLEANUP_FREE char *quoted = NULL;

	return asprintf(&quoted, "'%s'", path) > 0 && strstr(text, quoted);
}

static int fail(const struct cli *cli, const struct create_plan *plan, const struct err *err)
{
	const char *newline = plan->hint ? "\n" : "", *hint = plan->hint ? plan->hint : "";

	if (!cli->peer && names(err->msg, plan->path))
		return cli_error(cli, "%s%s%s", err->msg, newline, hint);
	return cli_error(cli, "%s: %s%s%s", plan->path, err->msg, newline, hint);
}

/* The peer says what it will do, and then finds out whether it can. */
static int execute(const struct cli *cli, const struct create_cmd *c, struct create_plan *plan,
		   struct err *err)
{
	unsigned flags = c->target_flags | (cli->peer  ? TARGET_IN_PLACE
					    : c->force ? TARGET_FORCE
						       : 0);
	struct target *target = NULL;
	int r;

	if (cli->peer && !c->quiet)
		print_plan(cli, plan);
	r = create_open(plan, flags, &target, err);
	if (r == 0) {
		if (!cli->peer && !c->quiet)
			print_plan(cli, plan);
		if (target_note(target))
			cli_warn(cli, "%s", target_note(target));
		r = create_finish(plan, target, err);
	}
	target_close(target);
	return r;
}

static int make(const struct cli *cli, const struct create_cmd *c)
{
	struct create_plan plan = {0};
	struct err err = {0};
	int code = 0;

	if (create_prepare(&c->req, &plan, &err) < 0 || execute(cli, c, &plan, &err) < 0)
		code = fail(cli, &plan, &err);
	create_plan_free(&plan);
	return cli_finish_output(cli, code);
}

static int run(struct cli *cli)
{
	struct create_cmd c = {.req = {.format = "raw", .size = CREATE_NO_SIZE}};
	int code;

	if (parse(cli, &c, &code)) {
		c.req.opts = &c.opts;
		/* as cli_open */
		c.req.backing_flags |= cli->peer ? IMG_NAMED_DEVICES | IMG_PEER_NAMES : 0;
		if (c.help)
			code = give_options_help(cli, &c);
		else if (!c.req.path)
			code = cli_usage(cli, "Expecting image file name");
		else if (!c.size || cli_size(cli, "image size", c.size, &c.req.size))
			code = make(cli, &c);
		else
			code = 1;
	}
	opts_free(&c.opts);
	return code;
}

const struct cmd cmd_create = {
	.name = "create",
	.summary = "Make a new image",
	.args = "FILE [SIZE]",
	.opts = options,
	.run = run,
};
