// SPDX-License-Identifier: GPL-2.0-or-later
/* img chmod: permission bits of files in guests. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "change.h"
#include "modes.h"

static const struct cmd_opt options[] = {
	{'R', "recursive", NULL, "directories, and all that is in them; links are not followed"},
	GUEST_OPTIONS_WRITE,
	{0},
};

struct chmod {
	bool recursive;
	char *minus; /* a mode that begins with '-', or NULL */
	uint16_t modes[AGENT_MODES];
};

static int change_mode(struct change *c, const struct guest_place *place, void *arg)
{
	const struct chmod *ch = arg;
	struct err err = {0};

	if (appliance_chmod(c->a, place->path, TREE_FOLLOW | (ch->recursive ? TREE_RECURSIVE : 0),
			    ch->modes, &err) < 0)
		return change_failed(c, place, &err);
	return 0;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct chmod *ch = arg;

	if (id == 'R')
		return ch->recursive = true;
	return change_option(c, id);
}

static int run_parsed(struct change *c, void *arg)
{
	static const struct change_kind kind = {.place = change_mode};
	struct chmod *ch = arg;
	const char *text = ch->minus ? ch->minus : c->n_args ? c->args[0] : NULL;
	struct modes m;

	if (!text)
		return cli_usage(c->cli, "Expecting MODE and IMAGE:/PATH");
	if (!modes_parse(text, &m))
		return cli_usage(c->cli, "'%s' is not a mode: 644, u+rwX,go-w, …", text);
	for (unsigned i = 0; i < AGENT_MODES; i++)
		ch->modes[i] = (uint16_t)modes_apply(&m, i % 4096, i >= 4096);
	return change_each(c, !ch->minus, &kind, ch);
}

/* "chmod -x FILE": what looks like an option is one only if it is not a mode. */
static char *take_minus(struct cli *cli)
{
	for (int i = 0; i < cli->argc; i++) {
		char *text = cli->argv[i];

		if (!strcmp(text, "--"))
			break;
		if (text[0] != '-' || !text[1] || !strchr("rwxXst", text[1]))
			continue;
		memmove(cli->argv + i, cli->argv + i + 1,
			(size_t)(cli->argc - i - 1) * sizeof(*cli->argv));
		cli->argc--;
		return text;
	}
	return NULL;
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .run = run_parsed};
	struct chmod ch = {.minus = take_minus(cli)};

	return change_main(cli, &kind, &ch);
}

const struct cmd cmd_chmod = {
	.name = "chmod",
	.summary = "Change the permissions of files in a guest",
	.args = "MODE IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
