// SPDX-License-Identifier: GPL-2.0-or-later
/* img mv: other names for files of a guest, inside one file system. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "change.h"

static const struct cmd_opt options[] = {
	{'n', "no-clobber", NULL, "leave what has the new name, and the old one, alone"},
	{'T', "no-target-directory", NULL, "a directory is a name to be replaced, if it is empty"},
	GUEST_OPTIONS_WRITE,
	{0},
};

struct mv {
	bool no_clobber;
	unsigned target; /* CHANGE_… */
	const char *to;  /* as it was written */
};

/* rename(2) leaves both names of one file, and would say that it is done. */
static int check(struct change *c, const struct mv *mv, const char *from, const char *to,
		 struct err *err)
{
	struct agent_stat a, b;
	int r = appliance_stat(c->a, from, false, &a, err);

	if (r < 0)
		return r;
	r = appliance_stat(c->a, to, false, &b, err);
	if (r == -ENOENT)
		return 0;
	if (r == 0 && mv->no_clobber)
		return 1;
	if (r == 0 && a.dev == b.dev && a.ino == b.ino)
		return err_set(err, EEXIST, "%s and %s are the same file", from, to);
	return r;
}

static int move_one(struct change *c, const struct guest_place *place, void *arg)
{
	const struct mv *mv = arg;
	CLEANUP_FREE char *to = change_path(c, place, mv->to);
	CLEANUP_FREE char *path = NULL;
	struct err err = {0};
	int r;

	if (!to)
		return 1;
	path = change_into(c, place, to, mv->target, place->path);
	if (!path)
		return 1;
	r = check(c, mv, place->path, path, &err);
	if (r == 0)
		r = appliance_rename(c->a, place->path, path, &err);
	if (r == -EINVAL)
		return cli_error(c->cli, "%s:%s cannot be moved into itself: %s", place->image,
				 place->path, path);
	if (r == -EXDEV)
		return cli_error(c->cli,
				 "%s:%s and %s are in different file systems: use cp and rm",
				 place->image, place->path, path);
	return r < 0 ? change_failed(c, place, &err) : 0;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct mv *mv = arg;

	switch (id) {
	case 'n':
		return mv->no_clobber = true;
	case 'T':
		mv->target |= CHANGE_NAME;
		return true;
	default:
		return change_option(c, id);
	}
}

static int run_parsed(struct change *c, void *arg)
{
	static const struct change_kind kind = {.place = move_one};
	struct mv *mv = arg;

	if (c->n_args < 2)
		return cli_usage(c->cli, "Expecting IMAGE:/OLD and IMAGE:/NEW");
	if (c->n_args > 2 && mv->target & CHANGE_NAME)
		return cli_usage(c->cli, "-T takes one file and its new name");
	mv->target |= CHANGE_FOLLOW | (c->n_args > 2 ? CHANGE_SEVERAL : 0);
	mv->to = c->args[--c->n_args];
	return change_each(c, 0, &kind, mv);
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .run = run_parsed};
	struct mv mv = {0};

	return change_main(cli, &kind, &mv);
}

const struct cmd cmd_mv = {
	.name = "mv",
	.summary = "Rename or move files of a guest",
	.args = "IMAGE:/OLD... IMAGE:/NEW",
	.opts = options,
	.run = run,
};
