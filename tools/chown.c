// SPDX-License-Identifier: GPL-2.0-or-later
/* img chown: owners of files in guests. */
#include "change.h"
#include "owner.h"

static const struct cmd_opt options[] = {
	{'R', "recursive", NULL, "directories, and all that is in them; links are not followed"},
	{'h', "no-dereference", NULL, "a symbolic link itself, not what it leads to"},
	GUEST_OPTIONS_WRITE,
	{0},
};

struct chown {
	bool recursive, no_dereference;
	const char *text;
	struct owner owner; /* on the disk that is open */
};

static int find_owner(struct change *c, void *arg)
{
	struct chown *ch = arg;

	return !owner_find(c->cli, c->a, c->disk->image, ch->text, &ch->owner);
}

static int change_owner(struct change *c, const struct guest_place *place, void *arg)
{
	const struct chown *ch = arg;
	const struct agent_stat st = {.uid = ch->owner.uid, .gid = ch->owner.gid};
	uint32_t mask = (ch->owner.user ? SET_UID : 0) | (ch->owner.group ? SET_GID : 0);
	uint32_t flags = ch->recursive ? TREE_RECURSIVE : ch->no_dereference ? 0 : TREE_FOLLOW;
	struct err err = {0};

	if (appliance_setattr(c->a, place->path, mask, flags, &st, &err) < 0)
		return change_failed(c, place, &err);
	return 0;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct chown *ch = arg;

	switch (id) {
	case 'R':
		return ch->recursive = true;
	case 'h':
		return ch->no_dereference = true;
	default:
		return change_option(c, id);
	}
}

static int run_parsed(struct change *c, void *arg)
{
	static const struct change_kind kind = {.opened = find_owner, .place = change_owner};
	struct chown *ch = arg;

	if (!c->n_args)
		return cli_usage(c->cli, "Expecting USER[:GROUP] and IMAGE:/PATH");
	ch->text = c->args[0];
	if (!owner_valid(c->cli, ch->text))
		return 1;
	return change_each(c, 1, &kind, ch);
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .run = run_parsed};
	struct chown ch = {0};

	return change_main(cli, &kind, &ch);
}

const struct cmd cmd_chown = {
	.name = "chown",
	.summary = "Change the owners of files in a guest",
	.args = "USER[:GROUP] IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
