// SPDX-License-Identifier: GPL-2.0-or-later
/* img info: what an image, or its whole backing chain, says about itself. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli.h"
#include "ops/info.h"
#include "snapshot.h"

enum { OUTPUT = CLI_LONG, CHAIN, LIMITS, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{CHAIN, "backing-chain", NULL, "also show the backing file, its backing file, …"},
	{LIMITS, "limits", NULL, "also show alignments and other limits of requests"},
	{OUTPUT, "output", "human|json", "how to print it"},
	{'t', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'U', "force-share", NULL, "look at an image that another process has open for writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{0},
};

/* ---- format specific facts: any JSON, as indented lines ---- */

static bool is_composite(const json_t *v)
{
	return json_is_object(v) || json_is_array(v);
}

static void print_value(const struct cli *cli, const json_t *v, int depth);

static void print_member(const struct cli *cli, const char *key, const json_t *v, int depth)
{
	printf("%*s", depth * 4, "");
	for (; *key; key++)
		putchar(*key == '-' ? ' ' : *key);
	printf(":%c", is_composite(v) ? '\n' : ' ');
	print_value(cli, v, depth + 1);
	if (!is_composite(v))
		putchar('\n');
}

static void print_element(const struct cli *cli, size_t i, const json_t *v, int depth)
{
	printf("%*s[%zu]:%c", depth * 4, "", i, is_composite(v) ? '\n' : ' ');
	print_value(cli, v, depth + 1);
	if (!is_composite(v))
		putchar('\n');
}

/* As deep as the values that the drivers build. */
static void print_value(const struct cli *cli, const json_t *v, int depth)
{
	json_t *obj = (json_t *)v; /* jansson's iterators lack const */

	if (json_is_object(v)) {
		for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it))
			print_member(cli, json_object_iter_key(it), json_object_iter_value(it),
				     depth);
	} else if (json_is_array(v)) {
		for (size_t i = 0; i < json_array_size(v); i++)
			print_element(cli, i, json_array_get(v, i), depth);
	} else if (json_is_string(v)) {
		cli_put_text(cli, json_string_value(v));
	} else if (json_is_integer(v)) {
		printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
	} else if (json_is_real(v)) {
		printf("%g", json_real_value(v));
	} else {
		fputs(json_is_true(v) ? "true" : "false", stdout);
	}
}

/* ---- the image ---- */

static void print_text(const struct cli *cli, const char *key, const char *value)
{
	printf("%s: ", key);
	cli_put_text(cli, value);
	putchar('\n');
}

static void print_backing(const struct cli *cli, const struct img *img)
{
	printf("backing file: ");
	cli_put_text(cli, img->backing_name);
	if (!img->backing_path) {
		printf(" (cannot determine actual path)");
	} else if (strcmp(img->backing_name, img->backing_path) != 0) {
		printf(" (actual path: ");
		cli_put_text(cli, img->backing_path);
		putchar(')');
	}
	putchar('\n');
	if (img->backing_format)
		print_text(cli, "backing file format", img->backing_format);
}

static void print_limits(const struct cli *cli, struct img *img)
{
	json_t *limits = info_limits_json(img);

	puts("Block limits:");
	if (limits)
		print_value(cli, limits, 1);
	json_decref(limits);
}

static void print_entry(const struct cli *cli, const struct info_entry *e)
{
	const struct snapshot *snaps;
	char size[32];
	unsigned n;

	print_text(cli, "image", e->path);
	printf("file format: %s\n", e->img->fmt->name);
	printf("virtual size: %s (%" PRIu64 " bytes)\n", size_format(e->size, size, sizeof(size)),
	       e->size);
	printf("disk size: %s\n",
	       e->has_allocated ? size_format(e->allocated, size, sizeof(size)) : "unavailable");
	if (e->info.encrypted)
		puts("encrypted: yes");
	if (e->info.cluster_size)
		printf("cluster_size: %" PRIu64 "\n", e->info.cluster_size);
	if (e->info.dirty)
		puts("cleanly shut down: no");
	if (e->img->backing_name)
		print_backing(cli, e->img);
	if (e->limits)
		print_limits(cli, e->img);
	snaps = img_snapshots(e->img, &n);
	snapshot_print_list(cli, snaps, n);
	if (e->info.specific) {
		puts("Format specific information:");
		print_value(cli, json_object_get(e->info.specific, "data"), 1);
	}
}

static int print_human(const struct cli *cli, const struct info_list *list)
{
	for (unsigned i = 0; i < list->n; i++) {
		if (i)
			putchar('\n');
		print_entry(cli, &list->v[i]);
	}
	return 0;
}

/* ---- the command ---- */

struct info_cmd {
	struct img_open_args open;
	bool json, chain, limits;
};

static int show(const struct cli *cli, const struct info_cmd *c)
{
	struct img_open_args open = c->open;
	struct info_list list = {0};
	struct err err = {0};
	int code, r;

	if (!cli_open_args(cli, &open))
		return 1;
	r = info_collect(&open, c->chain, &list, &err);
	for (unsigned i = 0; i < list.n; i++)
		list.v[i].limits = c->limits;
	if (r < 0) {
		cli_open_error(cli, open.path, &err);
		code = 1;
	} else if (!c->json) {
		code = print_human(cli, &list);
	} else {
		code = cli_print_json(cli, c->chain ? info_chain_json(&list) : info_json(list.v));
	}
	info_free(&list);
	return cli_finish_output(cli, code);
}

static int run(struct cli *cli)
{
	struct info_cmd c = {0};
	const char *output = NULL;
	unsigned args = 0;
	bool ok = true;
	int id;

	while ((id = cli_next(cli)) != CLI_END) {
		switch (id) {
		case CLI_EXIT:
			return cli_exit_code(cli);
		case CLI_ARG:
			c.open.path = cli->arg;
			args++;
			break;
		case 'f':
			c.open.format = cli->arg;
			break;
		case CHAIN:
			c.chain = true;
			break;
		case LIMITS:
			c.limits = true;
			break;
		case OUTPUT:
			output = cli->arg;
			break;
		case 't':
			ok = cli_cache(cli, cli->arg, &c.open.flags);
			break;
		case 'U':
			c.open.flags |= IMG_SHARE;
			break;
		case UNTRUSTED:
			c.open.flags |= IMG_UNTRUSTED;
			break;
		}
		if (!ok)
			return 1;
	}
	if (args != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (output && !cli_output(cli, output, &c.json))
		return 1;
	return show(cli, &c);
}

const struct cmd cmd_info = {
	.name = "info",
	.summary = "Show what is known of an image",
	.args = "FILE",
	.opts = options,
	.run = run,
};
