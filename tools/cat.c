// SPDX-License-Identifier: GPL-2.0-or-later
/* img cat: files of guests on stdout. */
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

static int cat_one(struct cli *cli, const struct cat *c, const char *text,
		   struct guest_session *session)
{
	struct err err = {0};

	if (!guest_session_at(cli, &c->opts, session, text, true))
		return 1;
	if (appliance_read_fd(session->a, session->place.path, 0, UINT64_MAX, STDOUT_FILENO, &err) <
	    0)
		return guest_failed(cli, &session->place, NULL, err.msg);
	return 0;
}

static int run(struct cli *cli)
{
	struct cat c = {0};
	struct guest_session session = {0};
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
		code |= cat_one(cli, &c, c.places[i], &session);
	return guest_session_end(cli, &session, code);
}

const struct cmd cmd_cat = {
	.name = "cat",
	.summary = "Print files of a guest",
	.args = "IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
