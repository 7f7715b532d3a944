// SPDX-License-Identifier: GPL-2.0-or-later
/* img mkdir: makes directories in guests. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "change.h"
#include "modes.h"

static const struct cmd_opt options[] = {
	{'p', "parents", NULL, "make parents as needed; a directory that is there is no error"},
	{'m', "mode", "MODE", "755, u=rwx,go=rx, … (default: 755)"},
	GUEST_OPT_ADD('a'),
	GUEST_OPT_FORMAT('f'),
	GUEST_OPT_MOUNT(GUEST_MOUNT),
	GUEST_OPTIONS_CAGE,
	{0},
};

#define MODE_DEFAULT 0755u

struct mkdir {
	bool parents;
	uint32_t mode;
};

/* The parents have the default mode, whatever --mode says. */
static int make_parents(struct change *c, const char *path, struct err *err)
{
	const char *name;
	size_t len = change_basename(path, &name);
	CLEANUP_FREE char *parent = strndup(path, (size_t)(name - path));

	if (!parent)
		return err_nomem(err, (size_t)(name - path), "a path");
	if (!len || !parent[strspn(parent, "/")])
		return 0;
	return appliance_mkdir(c->a, parent, MODE_DEFAULT, 0, 0, TREE_RECURSIVE | TREE_MISSING_OK,
			       err);
}

static int make_one(struct change *c, const struct guest_place *place, void *arg)
{
	const struct mkdir *mk = arg;
	struct err err = {0};
	int r = mk->parents ? make_parents(c, place->path, &err) : 0;

	if (r == 0)
		r = appliance_mkdir(c->a, place->path, mk->mode, 0, 0,
				    mk->parents ? TREE_MISSING_OK : 0, &err);
	return r < 0 ? change_failed(c, place, &err) : 0;
}

static bool take_mode(struct change *c, struct mkdir *mk)
{
	struct modes m;

	if (!modes_parse(c->cli->arg, &m)) {
		cli_usage(c->cli, "'%s' is not a mode: 755, u=rwx,go=rx, …", c->cli->arg);
		return false;
	}
	mk->mode = modes_apply(&m, 0777, true);
	return true;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct mkdir *mk = arg;

	switch (id) {
	case 'p':
		return mk->parents = true;
	case 'm':
		return take_mode(c, mk);
	default:
		return change_option(c, id);
	}
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .place = make_one};
	struct mkdir mk = {.mode = MODE_DEFAULT};

	return change_main(cli, &kind, &mk);
}

const struct cmd cmd_mkdir = {
	.name = "mkdir",
	.summary = "Make directories in a guest",
	.args = "IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
