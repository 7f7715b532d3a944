// SPDX-License-Identifier: GPL-2.0-or-later
/* img measure: how much space a new image will need. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli.h"
#include "ops/target.h"

enum { OUTPUT = CLI_LONG, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of FILE (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'O', "target-format", "FMT", "format of the new image (default: raw)"},
	{'o', "options", "OPTS", "its options, key=value,…; 'help' lists them; may be repeated"},
	{'s', "size", "SIZE", "measure an empty disk of this size, in place of FILE"},
	{'l', "snapshot", "SNAPSHOT", "measure this internal snapshot of FILE"},
	{OUTPUT, "output", "human|json", "how to print the result"},
	{'U', "force-share", NULL, "measure an image that another process has open for writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'f', "source-format", "FMT", NULL},
	{CLI_IMAGE_OPTS, "source-image-opts", NULL, NULL},
	{'o', "target-format-options", "OPTS", NULL},
	{0},
};

struct measure_cmd {
	struct img_open_args open; /* path NULL: none was given */
	const char *target;
	const char *snapshot;
	const char *size_text;
	struct opts opts;
	bool json, help;
	unsigned args;
};

static int print_result(const struct cli *cli, const struct measure_cmd *c,
			const struct measure_result *res)
{
	json_t *obj;
	int r;

	if (!c->json) {
		printf("required size: %" PRIu64 "\n", res->required);
		printf("fully allocated size: %" PRIu64 "\n", res->fully_allocated);
		if (res->has_bitmaps)
			printf("bitmaps size: %" PRIu64 "\n", res->bitmaps);
		return 0;
	}
	obj = json_object();
	r = obj ? 0 : -1;
	if (res->has_bitmaps)
		r |= json_set_u64(obj, "bitmaps", res->bitmaps);
	r |= json_set_u64(obj, "required", res->required);
	r |= json_set_u64(obj, "fully-allocated", res->fully_allocated);
	if (r != 0) {
		json_decref(obj);
		obj = NULL;
	}
	return cli_print_json(cli, obj);
}

/* ---- options of the new image ---- */

static bool in_table(const struct opt *table, const char *name)
{
	for (; table && table->name; table++)
		if (strcmp(table->name, name) == 0)
			return true;
	return false;
}

/* Every option is one of the format or of the file that holds it. */
static bool check_options(const struct cli *cli, const struct measure_cmd *c,
			  const struct format *fmt)
{
	struct err err = {0};

	for (unsigned i = 0; i < c->opts.n; i++) {
		const struct opts one = {.v = &c->opts.v[i], .n = 1};
		bool target = in_table(target_create_opts, one.v->name);

		if (opts_check(&one, target ? target_create_opts : fmt->create_opts, &err) < 0) {
			cli_error(cli, "%s", err.msg);
			cli_error(cli, "Invalid options for file format '%s'", fmt->name);
			return false;
		}
	}
	return true;
}

static const struct format *find_target(const struct cli *cli, const struct measure_cmd *c)
{
	const struct format *fmt = format_find(c->target);

	if (!fmt) {
		cli_error(cli, "Unknown file format '%s'", c->target);
		return NULL;
	}
	if (!check_options(cli, c, fmt))
		return NULL;
	if (!fmt->measure) {
		cli_error(cli, "Block driver '%s' does not support size measurement", fmt->name);
		return NULL;
	}
	return fmt;
}

/* ---- the command ---- */

static struct img *open_source(const struct cli *cli, const struct measure_cmd *c)
{
	struct img *img;

	img = cli_open(cli, &c->open);
	if (img && c->snapshot && !cli_view_snapshot(cli, img, c->snapshot)) {
		io_close(&img->io);
		img = NULL;
	}
	return img;
}

static int measure(const struct cli *cli, const struct measure_cmd *c, uint64_t size)
{
	struct create_args args = {.size = size, .opts = &c->opts};
	const struct format *fmt;
	struct measure_result res;
	struct img *img = NULL;
	struct err err = {0};
	struct job job = {0};
	struct progress *p;
	int r, code = 1, sig;

	if (c->open.path) {
		img = open_source(cli, c);
		if (!img)
			return 1;
	}
	fmt = find_target(cli, c);
	if (fmt) {
		p = progress_start(cli, PROGRESS_NONE, "measure", &job);
		r = fmt->measure(&args, img ? &img->io : NULL, &res, &job, &err);
		sig = progress_stop(p, r == 0);
		code = sig     ? cli_interrupted(cli, sig)
		       : r < 0 ? cli_error(cli, "%s", err.msg)
			       : print_result(cli, c, &res);
	}
	if (img)
		io_close(&img->io);
	return cli_finish_output(cli, code);
}

static int help(const struct cli *cli, const struct measure_cmd *c)
{
	const struct format *fmt = format_find(c->target);

	if (!fmt)
		return cli_error(cli, "Unknown file format '%s'", c->target);
	cli_options_help(cli, fmt, false);
	return cli_finish_output(cli, 0);
}

static int validate_and_measure(const struct cli *cli, const struct measure_cmd *c)
{
	uint64_t size = 0;

	if (c->size_text && !cli_size(cli, "image size", c->size_text, &size))
		return 1;
	if (c->help)
		return help(cli, c);
	if (c->args > 1)
		return cli_error(cli, "At most one filename argument is allowed.");
	if (!c->open.path && (c->open.format || c->snapshot || cli->image_opts))
		return cli_error(cli, "--image-opts, -f, and -l require a filename argument.");
	if (c->open.path && c->size_text)
		return cli_error(cli, "--size N cannot be used together with a filename.");
	if (!c->open.path && !c->size_text)
		return cli_error(cli, "Either --size N or one filename must be specified.");
	return measure(cli, c, size);
}

static bool parse_options_arg(struct cli *cli, struct measure_cmd *c)
{
	struct err err = {0};

	if (opts_parse(&c->opts, cli->arg, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		return false;
	}
	c->help = c->help || opts_get(&c->opts, "help") || opts_get(&c->opts, "?");
	return true;
}

/* False: the command ends with *code. */
static bool parse(struct cli *cli, struct measure_cmd *c, int *code)
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
			c->open.path = cli->arg;
			c->args++;
			break;
		case 'f':
			c->open.format = cli->arg;
			break;
		case 'O':
			c->target = cli->arg;
			break;
		case 'o':
			ok = parse_options_arg(cli, c);
			break;
		case 's':
			c->size_text = cli->arg;
			break;
		case 'l':
			c->snapshot = cli->arg;
			break;
		case OUTPUT:
			ok = cli_output(cli, cli->arg, &c->json);
			break;
		case 'U':
			c->open.flags |= IMG_SHARE;
			break;
		case UNTRUSTED:
			c->open.flags |= IMG_UNTRUSTED;
			break;
		}
		if (!ok)
			return false;
	}
	return true;
}

static int run(struct cli *cli)
{
	struct measure_cmd c = {.open = {.flags = IMG_NO_DATA}, .target = "raw"};
	int code;

	if (parse(cli, &c, &code))
		code = validate_and_measure(cli, &c);
	opts_free(&c.opts);
	return code;
}

const struct cmd cmd_measure = {
	.name = "measure",
	.summary = "Calculate the space that a new image needs",
	.args = "[FILE]",
	.opts = options,
	.run = run,
};
