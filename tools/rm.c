// SPDX-License-Identifier: GPL-2.0-or-later
/* img rm: removes files and directories of guests. */
#include <errno.h>
#include <sys/stat.h>

#include "change.h"

static const struct cmd_opt options[] = {
	{'r', "recursive", NULL, "directories, with all that is in them"},
	{'R', NULL, NULL, "the same"},
	{'d', "dir", NULL, "empty directories"},
	{'f', "force", NULL, "what is not there is no error"},
	GUEST_OPT_ADD('a'),
	GUEST_OPT_FORMAT(GUEST_FORMAT),
	GUEST_OPT_MOUNT('m'),
	GUEST_OPTIONS_CAGE,
	{0},
};

struct rm {
	bool recursive, dirs, force;
};

static int remove_one(struct change *c, const struct guest_place *place, void *arg)
{
	const struct rm *rm = arg;
	struct agent_stat st;
	struct err err = {0};
	int r = appliance_stat(c->a, place->path, false, &st, &err);

	if (r == -ENOENT && rm->force)
		return 0;
	if (r == 0 && S_ISDIR(st.mode) && !rm->recursive && !rm->dirs)
		r = err_sys(&err, EISDIR, "%s", place->path);
	if (r == 0)
		r = appliance_remove(c->a, place->path, rm->recursive ? TREE_RECURSIVE : 0, &err);
	return r < 0 ? change_failed(c, place, &err) : 0;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct rm *rm = arg;

	switch (id) {
	case 'r':
	case 'R':
		return rm->recursive = true;
	case 'd':
		return rm->dirs = true;
	case 'f':
		return rm->force = true;
	default:
		return change_option(c, id);
	}
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .place = remove_one};
	struct rm rm = {0};

	return change_main(cli, &kind, &rm);
}

const struct cmd cmd_rm = {
	.name = "rm",
	.summary = "Remove files and directories of a guest",
	.args = "IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
