// SPDX-License-Identifier: GPL-2.0-or-later
/* img bitmap: changes and lists the persistent dirty bitmaps of an image. */
#include "bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "ops/bitmap.h"

enum {
	ADD = CLI_LONG,
	CLEAR,
	DISABLE,
	ENABLE,
	LIST,
	MERGE,
	OUTPUT,
	PROGRESS,
	REMOVE,
	UNTRUSTED,
};

static const struct cmd_opt options[] = {
	{ADD, "add", NULL, "make a bitmap, which is enabled"},
	{REMOVE, "remove", NULL, "delete the bitmap"},
	{CLEAR, "clear", NULL, "set all its bits to zero"},
	{ENABLE, "enable", NULL, "let it follow what is written"},
	{DISABLE, "disable", NULL, "let it stay as it is"},
	{MERGE, "merge", "SOURCE", "set the bits that are set in the bitmap SOURCE"},
	{LIST, "list", NULL, "list the bitmaps of FILE and how much is dirty in each"},
	{'b', "source-file", "FILE", "with --merge: the image that SOURCE is in (default: FILE)"},
	{'F', "source-format", "FMT", "its format (default: found out from its content)"},
	{'g', "granularity", "SIZE",
	 "with --add: bytes for a bit (default: the cluster size, "
	 "between 4k and 64k)"},
	{'f', "format", "FMT", "format of FILE (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{OUTPUT, "output", "human|json", "how to print the list"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{0},
};

/* The actions of one call, in order. */
struct action {
	int id;
	const char *source; /* of MERGE */
};

struct bitmap_cmd {
	struct img_open_args open, source; /* source.path NULL: none was given */
	const char *name;
	struct action *actions; /* owned */
	unsigned n_actions, args;
	unsigned merges;      /* among the actions */
	uint64_t granularity; /* 0: not given */
	bool add, list, json;
	enum progress_mode progress;
};

/* ---- the list ---- */

static void print_entry(const struct cli *cli, json_t *o)
{
	const json_t *dirty = json_object_get(o, "dirty"), *flag;
	CLEANUP_FREE char *name = cli_clean(cli, json_string_value(json_object_get(o, "name")));
	char granularity[32], bytes[32] = "-";
	size_t i;

	size_format((uint64_t)json_integer_value(json_object_get(o, "granularity")), granularity,
		    sizeof(granularity));
	if (dirty)
		size_format((uint64_t)json_integer_value(dirty), bytes, sizeof(bytes));
	printf("%-24s %11s %11s ", name ? name : "?", granularity, bytes);
	json_array_foreach(json_object_get(o, "flags"), i, flag)
		printf(" %s", json_string_value(flag));
	putchar('\n');
}

static int list(const struct cli *cli, const struct bitmap_cmd *c)
{
	struct img *img = cli_open(cli, &c->open);
	struct err err = {0};
	json_t *bitmaps, *o;
	size_t i;
	int r, code = 0;

	if (!img)
		return 1;
	r = bitmap_list_json(img, &bitmaps, &err);
	io_close(&img->io);
	if (r < 0)
		return cli_error(cli, "Could not list the bitmaps of '%s': %s", c->open.path,
				 err.msg);
	if (c->json) {
		code = cli_print_json(cli, bitmaps);
	} else {
		if (json_array_size(bitmaps))
			printf("%-24s %11s %11s  %s\n", "NAME", "GRANULARITY", "DIRTY", "FLAGS");
		json_array_foreach(bitmaps, i, o) print_entry(cli, o);
		json_decref(bitmaps);
	}
	return cli_finish_output(cli, code);
}

/* ---- actions ---- */

/* What the actions have in common. */
struct change {
	struct img *img, *src;
	struct job job;
	const struct action *failed; /* NULL: none did */
};

static int act(const struct bitmap_cmd *c, const struct action *a, struct change *ch,
	       struct err *err)
{
	struct img *img = ch->img;

	switch (a->id) {
	case ADD:
		return bitmap_add(img, c->name, c->granularity, true, err);
	case REMOVE:
		return bitmap_remove(img, c->name, err);
	case CLEAR:
		return bitmap_clear(img, c->name, err);
	case ENABLE:
		return bitmap_enable(img, c->name, true, err);
	case DISABLE:
		return bitmap_enable(img, c->name, false, err);
	default:
		return bitmap_merge(img, c->name, ch->src, a->source, &ch->job, err);
	}
}

static const char *action_name(int id)
{
	for (const struct cmd_opt *o = options; o->id; o++)
		if (o->id == id)
			return o->name;
	return "";
}

void bitmap_hint(const struct cli *cli, int r)
{
	if (r == -ESTALE && cli->peer)
		fprintf(stderr, "Try block-dirty-bitmap-remove to delete this bitmap from disk\n");
	else if (r == -ESTALE)
		fprintf(stderr, "Use 'img bitmap --remove' to delete such a bitmap\n");
}

static int report(const struct cli *cli, const struct bitmap_cmd *c, const struct change *ch, int r,
		  const struct err *err)
{
	if (!ch->failed)
		return cli_error(cli, "Could not store the bitmaps of '%s': %s", c->open.path,
				 err->msg);
	cli_error(cli, "Operation %s on bitmap %s failed: %s", action_name(ch->failed->id), c->name,
		  err->msg);
	bitmap_hint(cli, r);
	return 1;
}

/* Actions before one that fails, or is interrupted, have happened. */
static int act_all(const struct bitmap_cmd *c, struct change *ch, struct err *err)
{
	int r = 0, settled;

	for (unsigned i = 0; r == 0 && i < c->n_actions; i++) {
		r = job_cancelled(&ch->job) ? err_set(err, ECANCELED, "cancelled")
					    : act(c, &c->actions[i], ch, err);
		if (r < 0)
			ch->failed = &c->actions[i];
	}
	settled = img_settle(ch->img, r < 0 ? NULL : err);
	return r < 0 ? r : settled;
}

/* Closes both images. */
static int change_opened(const struct cli *cli, const struct bitmap_cmd *c, struct change *ch)
{
	struct progress *progress;
	struct err err = {0};
	int r, sig;

	job_total(&ch->job, io_size(&ch->img->io) * c->merges);
	progress = progress_start(cli, c->progress, "bitmap", &ch->job);
	r = act_all(c, ch, &err);
	sig = progress_stop(progress, r == 0);
	if (ch->src != ch->img)
		io_close(&ch->src->io);
	io_close(&ch->img->io);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	return cli_finish_output(cli, r < 0 ? report(cli, c, ch, r, &err) : 0);
}

static int change(const struct cli *cli, const struct bitmap_cmd *c)
{
	struct img_open_args open = c->open;
	struct cli plain = *cli;
	struct change ch = {0};

	open.flags |= IMG_RDWR;
	ch.img = cli_open(cli, &open);
	if (!ch.img)
		return 1;
	plain.image_opts = false; /* they are FILE's */
	ch.src = c->source.path ? cli_open(&plain, &c->source) : ch.img;
	if (ch.src)
		return change_opened(cli, c, &ch);
	io_close(&ch.img->io);
	return 1;
}

/* ---- the command line ---- */

static bool add_action(struct cli *cli, struct bitmap_cmd *c, int id)
{
	struct action *v = realloc(c->actions, (c->n_actions + 1) * sizeof(*v));

	if (!v) {
		cli_error(cli, "out of memory");
		return false;
	}
	v[c->n_actions++] = (struct action){id, cli->arg};
	c->actions = v;
	c->add |= id == ADD;
	c->merges += id == MERGE;
	return true;
}

static int validate_and_run(const struct cli *cli, const struct bitmap_cmd *c)
{
	if (c->list && c->n_actions)
		return cli_error(cli, "--list cannot be combined with other actions");
	if (c->list && c->args != 1)
		return cli_error(cli, "Expecting one image file name");
	if (c->list)
		return list(cli, c);
	if (!c->n_actions)
		return cli_error(cli, "Need at least one of --add, --remove, --clear, --enable, "
				      "--disable, or --merge");
	if (c->granularity && !c->add)
		return cli_error(cli, "granularity only supported with --add");
	if (c->source.format && !c->source.path)
		return cli_error(cli, "-F only supported with -b");
	if (c->source.path && !c->merges)
		return cli_error(cli, "Merge bitmap source file only supported with --merge");
	if (c->args != 2)
		return cli_error(cli, "Expecting filename and bitmap name");
	return change(cli, c);
}

static bool take_arg(struct cli *cli, struct bitmap_cmd *c)
{
	if (c->args == 0)
		c->open.path = cli->arg;
	else
		c->name = cli->arg;
	c->args++;
	return true;
}

/* False: the command ends with code 1. */
static bool take_option(struct cli *cli, struct bitmap_cmd *c, int id)
{
	switch (id) {
	case CLI_ARG:
		return take_arg(cli, c);
	case 'b':
		c->source.path = cli->arg;
		return true;
	case 'F':
		c->source.format = cli->arg;
		return true;
	case 'f':
		c->open.format = cli->arg;
		return true;
	case 'g':
		return cli_size(cli, "granularity", cli->arg, &c->granularity);
	case LIST:
		c->list = true;
		return true;
	case OUTPUT:
		return cli_output(cli, cli->arg, &c->json);
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	case PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	case UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		c->source.flags |= IMG_UNTRUSTED;
		return true;
	default:
		return add_action(cli, c, id);
	}
}

static int run(struct cli *cli)
{
	struct bitmap_cmd c = {
		.open = {.flags = IMG_NO_BACKING | IMG_NO_DATA},
		.source = {.flags = IMG_NO_BACKING | IMG_NO_DATA},
		.progress = PROGRESS_NONE,
	};
	int id, code = 0;

	while (code == 0 && (id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT) {
			free(c.actions);
			return cli_exit_code(cli);
		}
		code = take_option(cli, &c, id) ? 0 : 1;
	}
	if (code == 0)
		code = validate_and_run(cli, &c);
	free(c.actions);
	return code;
}

const struct cmd cmd_bitmap = {
	.name = "bitmap",
	.summary = "Change and list the persistent dirty bitmaps of an image",
	.args = "FILE [BITMAP]",
	.opts = options,
	.run = run,
};
