// SPDX-License-Identifier: GPL-2.0-or-later
/* img cat: files of guests on stdout. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

static const struct cmd_opt options[] = {
	GUEST_OPTIONS,
	{0},
};

#define FILES_MAX 4096u

struct cat {
	struct guest_opts opts;
	const char *places[FILES_MAX];
	unsigned n;
};

static bool take_option(struct cli *cli, struct cat *c, int id)
{
	bool known;

	if (id != CLI_ARG)
		return guest_option(cli, &c->opts, id, &known);
	if (c->n == FILES_MAX) {
		cli_usage(cli, "More than %u files", FILES_MAX);
		return false;
	}
	c->places[c->n++] = cli->arg;
	return true;
}

static bool same_disk(const struct guest_place *a, const struct guest_place *b)
{
	return a->image && !strcmp(a->image, b->image) &&
	       !strcmp(a->snapshot ? a->snapshot : "", b->snapshot ? b->snapshot : "");
}

/* The files of one disk after each other need one appliance. */
static int cat_one(struct cli *cli, const struct cat *c, const char *text,
		   struct guest_place *current, struct appliance **a)
{
	struct guest_place place;
	struct err err = {0};
	int code = 0;

	if (!guest_place_parse(cli, text, &place))
		return 1;
	if (!place.path) {
		code = cli_usage(cli, "'%s' names no file: IMAGE:/PATH is expected", text);
		guest_place_free(&place);
		return code;
	}
	if (!*a || !same_disk(current, &place)) {
		if (*a)
			code = guest_close(cli, *a, 0);
		if (!guest_open(cli, &c->opts, &place, false, a))
			code = 1;
	}
	if (*a && appliance_read_fd(*a, place.path, 0, UINT64_MAX, STDOUT_FILENO, &err) < 0)
		code = cli_error(cli, "%s: %s", text, err.msg);
	guest_place_free(current);
	*current = place;
	return code;
}

static int run(struct cli *cli)
{
	struct cat c = {0};
	struct guest_place current = {0};
	struct appliance *a = NULL;
	int id, code = 0;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, &c, id))
			return 1;
	}
	if (!c.n)
		return cli_usage(cli, "Expecting IMAGE:/PATH");
	cli->stdout_taken = true;
	for (unsigned i = 0; i < c.n; i++)
		code |= cat_one(cli, &c, c.places[i], &current, &a);
	if (a)
		code = guest_close(cli, a, code);
	guest_place_free(&current);
	return code;
}

const struct cmd cmd_cat = {
	.name = "cat",
	.summary = "Print files of a guest",
	.args = "IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
