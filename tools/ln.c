// SPDX-License-Identifier: GPL-2.0-or-later
/* img ln: symbolic and hard links in guests. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "change.h"

static const struct cmd_opt options[] = {
	{'s', "symbolic", NULL, "symbolic links, which hold TARGET as it is written"},
	{'f', "force", NULL, "replace what has the name, unless it is a directory"},
	{'n', "no-dereference", NULL, "a link to a directory is a name to be made or replaced"},
	{'T', "no-target-directory", NULL, "so is a directory"},
	GUEST_OPT_ADD('a'),
	GUEST_OPT_FORMAT(GUEST_FORMAT),
	GUEST_OPT_MOUNT('m'),
	GUEST_OPTIONS_CAGE,
	{0},
};

struct ln {
	bool symbolic, force, no_dereference, no_directory;
};

static int make_link(struct change *c, const struct ln *ln, const char *target, const char *path,
		     struct err *err)
{
	return ln->symbolic ? appliance_symlink(c->a, target, path, 0, 0, err)
			    : appliance_link(c->a, target, path, err);
}

/* A hard link would take the place of itself. */
static bool same_file(struct change *c, const char *target, const char *path)
{
	struct agent_stat a, b;

	return appliance_stat(c->a, target, false, &a, NULL) == 0 &&
	       appliance_stat(c->a, path, false, &b, NULL) == 0 && a.dev == b.dev && a.ino == b.ino;
}

/* The name is always there: the new link takes it from the old file. */
static int replace(struct change *c, const struct guest_place *place, const struct ln *ln,
		   const char *target, const char *path)
{
	CLEANUP_FREE char *temporary = NULL;
	struct err err = {0};
	int r;

	if (!ln->symbolic && same_file(c, target, path))
		return cli_error(c->cli, "%s:%s and %s are the same file", place->image, target,
				 path);
	temporary = change_temporary(c, place, path);
	if (!temporary)
		return 1;
	r = make_link(c, ln, target, temporary, &err);
	if (r < 0)
		return change_failed(c, place, &err);
	r = appliance_rename(c->a, temporary, path, &err);
	if (r < 0)
		appliance_remove(c->a, temporary, 0, NULL);
	return r < 0 ? change_failed(c, place, &err) : 0;
}

static int link_one(struct change *c, const struct guest_place *place, const struct ln *ln,
		    const char *text)
{
	CLEANUP_FREE char *target = ln->symbolic ? strdup(text) : change_path(c, place, text);
	CLEANUP_FREE char *path = NULL;
	unsigned flags = (ln->no_dereference ? 0 : CHANGE_FOLLOW) |
			 (ln->no_directory ? CHANGE_NAME : 0) |
			 (c->n_args > 2 ? CHANGE_SEVERAL : 0);
	struct err err = {0};
	int r;

	if (!target)
		return 1;
	path = change_into(c, place, place->path, flags, target);
	if (!path)
		return 1;
	r = make_link(c, ln, target, path, &err);
	if (r == -EEXIST && ln->force)
		return replace(c, place, ln, target, path);
	return r < 0 ? change_failed(c, place, &err) : 0;
}

static int make_links(struct change *c, const struct guest_place *place, void *arg)
{
	const struct ln *ln = arg;
	int code = 0;

	for (unsigned i = 0; i + 1 < c->n_args; i++)
		code |= link_one(c, place, ln, c->args[i]);
	return code;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct ln *ln = arg;

	switch (id) {
	case 's':
		return ln->symbolic = true;
	case 'f':
		return ln->force = true;
	case 'n':
		return ln->no_dereference = true;
	case 'T':
		return ln->no_directory = true;
	default:
		return change_option(c, id);
	}
}

static int run_parsed(struct change *c, void *arg)
{
	static const struct change_kind kind = {.place = make_links};

	if (c->n_args < 2)
		return cli_usage(c->cli, "Expecting TARGET and IMAGE:/PATH");
	if (c->n_args > 2 && ((struct ln *)arg)->no_directory)
		return cli_usage(c->cli, "-T takes one target and its link");
	return change_each(c, c->n_args - 1, &kind, arg);
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .run = run_parsed};
	struct ln ln = {0};

	return change_main(cli, &kind, &ln);
}

const struct cmd cmd_ln = {
	.name = "ln",
	.summary = "Make links in a guest",
	.args = "TARGET... IMAGE:/PATH",
	.opts = options,
	.run = run,
};
