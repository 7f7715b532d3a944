// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img ls: directories of guests, in the forms of ls(1).
 *
 * The agent tells a tree in one stream, directory by directory in the order that is printed; here
 * one directory at a time is gathered, sorted and printed. Directories that are still to come wait
 * on a stack, which is how the empty ones, of which nothing comes, are known. What an agent tells
 * in another order than it should is left out, and said.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "entry.h"
#include "ls.h"

enum { FULL_TIME = GUEST_NEXT };

static const struct cmd_opt options[] = {
	{'a', "all", NULL, "also names that begin with a dot, and . and .."},
	{'A', "almost-all", NULL, "also names that begin with a dot"},
	{'C', NULL, NULL, "in columns (default on a terminal)"},
	{'d', "directory", NULL, "directories themselves, not what is in them"},
	{FULL_TIME, "full-time", NULL, "-l, with the time as exact as it is stored"},
	{'h', "human-readable", NULL, "with -l: sizes like 1.5K and 234M"},
	{'i', "inode", NULL, "the number of each inode"},
	{'l', NULL, NULL, "mode, links, owner's ids, size, time of change, target of links"},
	{'r', "reverse", NULL, "the other way round"},
	{'R', "recursive", NULL, "directories in directories, too"},
	{'S', NULL, NULL, "sort by size, the largest first"},
	{'t', NULL, NULL, "sort by time, the newest first"},
	{'Z', "context", NULL, "the SELinux label of each file"},
	{'1', NULL, NULL, "one name on a line (default if not on a terminal)"},
	{GUEST_OUTPUT, "output", "FORMAT", "human (default) or json"},
	GUEST_OPTIONS_NO_A,
	{0},
};

/* ---- entries ---- */

static void free_entries(struct ls *ls)
{
	for (size_t i = 0; i < ls->n; i++) {
		free(ls->v[i]->label);
		free(ls->v[i]);
	}
	ls->n = 0;
}

static int add_entry(struct ls *ls, const char *name, const struct agent_stat *st,
		     const char *target, struct err *err)
{
	size_t len = strlen(name) + 1, target_len = strlen(target) + 1;
	struct ls_entry *e;

	if (ls->n == ENTRIES_MAX)
		return err_set(err, E2BIG, "more than %u names", ENTRIES_MAX);
	if (ls->n == ls->cap) {
		size_t cap = ls->cap ? 2 * ls->cap : 256;
		struct ls_entry **v = realloc(ls->v, cap * sizeof(struct ls_entry *));

		if (!v)
			return err_nomem(err, cap * sizeof(*v), "names");
		ls->v = v;
		ls->cap = cap;
	}
	e = malloc(sizeof(*e) + len + target_len);
	if (!e)
		return err_nomem(err, sizeof(*e) + len + target_len, "a name");
	*e = (struct ls_entry){.st = *st, .target = e->name + len};
	memcpy(e->name, name, len);
	memcpy(e->target, target, target_len);
	ls->v[ls->n++] = e;
	return 0;
}

/* ---- directories that are to come ---- */

static int last_first(const void *a, const void *b)
{
	const struct ls_dir *x = a, *y = b;

	return strcmp(y->path, x->path);
}

static int push(struct ls *ls, const struct ls_entry *e, struct err *err)
{
	struct ls_dir *d;

	if (ls->n_pending == ls->cap_pending) {
		size_t cap = ls->cap_pending ? 2 * ls->cap_pending : 64;

		if (cap > DIRS_MAX)
			return err_set(err, E2BIG, "more than %zu directories", ls->n_pending);
		d = realloc(ls->pending, cap * sizeof(*d));
		if (!d)
			return err_nomem(err, cap * sizeof(*d), "directories");
		ls->pending = d;
		ls->cap_pending = cap;
	}
	d = &ls->pending[ls->n_pending];
	*d = (struct ls_dir){.st = e->st, .parent = ls->dir.st};
	if (asprintf(&d->path, "%s%s%s", ls->dir.path, *ls->dir.path ? "/" : "", e->name) < 0)
		return err_nomem(err, strlen(e->name), "a path");
	ls->n_pending++;
	return 0;
}

static int push_all(struct ls *ls, struct err *err)
{
	size_t before = ls->n_pending;
	int r = 0;

	for (size_t i = 0; i < ls->n && r == 0; i++)
		if (S_ISDIR(ls->v[i]->st.mode))
			r = push(ls, ls->v[i], err);
	if (ls->n_pending > before)
		qsort(ls->pending + before, ls->n_pending - before, sizeof(*ls->pending),
		      last_first);
	return r;
}

/* All that is in the directory was told. */
static int end_dir(struct ls *ls, struct err *err)
{
	int r = ls->is_dir && ls->o->recursive ? push_all(ls, err) : 0;

	if (ls->is_dir && ls->o->all && !ls->o->json) {
		r = r < 0 ? r : add_entry(ls, ".", &ls->dir.st, "", err);
		r = r < 0 ? r : add_entry(ls, "..", &ls->dir.parent, "", err);
	}
	if (r == 0)
		ls_print(ls, ls->dir.path);
	free_entries(ls);
	free(ls->dir.path);
	ls->dir.path = NULL;
	return r;
}

static bool is_current(const struct ls *ls, const char *path, size_t len)
{
	return strlen(ls->dir.path) == len && !memcmp(ls->dir.path, path, len);
}

/* What is told now is in the directory path[0, len): those before it are complete. */
static int enter(struct ls *ls, const char *path, size_t len, struct err *err)
{
	while (!is_current(ls, path, len)) {
		int r = end_dir(ls, err);

		if (r < 0)
			return r;
		if (!ls->n_pending)
			return err_set(err, EPROTO, "directories come in a wrong order");
		ls->dir = ls->pending[--ls->n_pending];
	}
	return 0;
}

static int end_all(struct ls *ls, struct err *err)
{
	int r = end_dir(ls, err);

	while (r == 0 && ls->n_pending) {
		ls->dir = ls->pending[--ls->n_pending];
		r = end_dir(ls, err);
	}
	return r;
}

/* ---- the stream ---- */

static int begin(struct ls *ls, const struct agent_stat *st, const char *target, struct err *err)
{
	ls->is_dir = S_ISDIR(st->mode) && !ls->o->itself;
	ls->dir = (struct ls_dir){.path = strdup(""), .st = *st, .parent = ls->above};
	if (!ls->dir.path)
		return err_nomem(err, 1, "a path");
	return ls->is_dir ? 0 : add_entry(ls, "", st, target, err);
}

static bool is_hidden(const struct ls *ls, const char *path)
{
	return !ls->o->dots && (*path == '.' || strstr(path, "/."));
}

/* path: not that of the place itself. */
static int see(struct ls *ls, const char *path, const struct agent_stat *st, const char *target,
	       struct err *err)
{
	const char *slash = strrchr(path, '/');
	int r;

	ls->skipped = is_hidden(ls, path);
	if (ls->skipped)
		return 0;
	r = enter(ls, path, slash ? (size_t)(slash - path) : 0, err);
	return r < 0 ? r : add_entry(ls, slash ? slash + 1 : path, st, target, err);
}

static int on_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		    const char *target, struct err *err)
{
	struct ls *ls = arg;

	(void)first;
	return *path ? see(ls, path, st, target, err) : begin(ls, st, target, err);
}

static int on_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct ls *ls = arg;
	struct ls_entry *e = ls->n && !ls->skipped ? ls->v[ls->n - 1] : NULL;

	if (!e)
		return 0;
	if (!strcmp(name, "system.posix_acl_access"))
		e->acl = true;
	if (strcmp(name, "security.selinux") != 0 || e->label || !entry_is_text(value, n))
		return 0;
	e->label = strndup(value, n);
	return e->label ? 0 : err_nomem(err, n, "a label");
}

/* Whether the path is that of a directory, or of an entry, that was told of before. */
static bool is_known(const struct ls *ls, const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!ls->dir.path || !strcmp(ls->dir.path, path))
		return true;
	if (ls->n && is_current(ls, path, slash ? (size_t)(slash - path) : 0) &&
	    !strcmp(ls->v[ls->n - 1]->name, slash ? slash + 1 : path))
		return true;
	for (size_t i = ls->n_pending; i > 0; i--)
		if (!strcmp(ls->pending[i - 1].path, path))
			return true;
	return false;
}

/* One that cannot be read is a line, too, with what is known of it: the name. */
static int on_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	static const struct agent_stat unknown;
	struct ls *ls = arg;

	(void)code;
	if (is_hidden(ls, path))
		return 0;
	ls->code |= guest_failed(ls->cli, &ls->session.place, path, text);
	return !*path || is_known(ls, path) ? 0 : see(ls, path, &unknown, "", err);
}

static uint32_t flags_of(const struct ls_opts *o, const char *path)
{
	uint32_t flags = TREE_SEPARATE;

	if (!o->itself)
		flags |= o->recursive ? TREE_RECURSIVE : TREE_CHILDREN;
	if (o->context)
		flags |= TREE_XATTRS;
	/* As ls(1) does: what is shown with all that is known of it is the link. */
	if ((!o->list && !o->itself) || path[strlen(path) - 1] == '/')
		flags |= TREE_FOLLOW;
	return flags;
}

static void find_above(struct ls *ls, const char *path)
{
	CLEANUP_FREE char *above = NULL;

	ls->above = (struct agent_stat){0};
	if (asprintf(&above, "%s/..", path) < 0)
		above = NULL;
	if (above && appliance_stat(ls->session.a, above, true, &ls->above, NULL) < 0)
		ls->above = (struct agent_stat){0};
}

static int list_place(struct ls *ls, const char *text)
{
	const struct appliance_sink sink = {
		.arg = ls, .entry = on_entry, .xattr = on_xattr, .failed = on_failed};
	struct err err = {0};
	const char *path;
	int r;

	ls->text = text;
	if (!guest_session_at(ls->cli, &ls->o->guest, &ls->session, text, false))
		return 1;
	path = ls->session.place.path ? ls->session.place.path : "/";
	if (ls->o->all && !ls->o->json)
		find_above(ls, path);
	r = appliance_export(ls->session.a, path, flags_of(ls->o, path), &sink, &err);
	if (r == 0 && ls->dir.path)
		r = end_all(ls, &err);
	free_entries(ls);
	while (ls->n_pending)
		free(ls->pending[--ls->n_pending].path);
	free(ls->dir.path);
	ls->dir.path = NULL;
	return r < 0 ? guest_failed(ls->cli, &ls->session.place, NULL, err.msg) : 0;
}

/* ---- the command ---- */

static bool take_place(struct cli *cli, struct ls_opts *o)
{
	if (o->n_places == PLACES_MAX) {
		cli_usage(cli, "More than %u places", PLACES_MAX);
		return false;
	}
	o->places[o->n_places++] = cli->arg;
	return true;
}

static bool take_option(struct cli *cli, struct ls_opts *o, int id)
{
	bool known;

	switch (id) {
	case CLI_ARG:
		return take_place(cli, o);
	case GUEST_OUTPUT:
		return cli_output(cli, cli->arg, &o->json);
	case 'a':
		o->all = o->dots = true;
		break;
	case 'A':
		o->dots = true;
		o->all = false;
		break;
	case 'C':
		o->columns = true;
		break;
	case '1':
		o->columns = false;
		break;
	case 'd':
		o->itself = true;
		break;
	case FULL_TIME:
		o->full_time = o->list = true;
		break;
	case 'h':
		o->human = true;
		break;
	case 'i':
		o->inode = true;
		break;
	case 'l':
		o->list = true;
		break;
	case 'r':
		o->reverse = true;
		break;
	case 'R':
		o->recursive = true;
		break;
	case 'S':
	case 't':
		o->sort = (char)id;
		break;
	case 'Z':
		o->context = true;
		break;
	default:
		return guest_option(cli, &o->guest, id, &known);
	}
	return true;
}

static int run(struct cli *cli)
{
	bool terminal = isatty(STDOUT_FILENO);
	struct ls_opts o = {.columns = terminal};
	struct ls ls = {.cli = cli, .o = &o, .clean = terminal};
	int id;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, &o, id))
			return 1;
	}
	if (!o.n_places)
		return cli_usage(cli, "Expecting IMAGE[:/PATH]");
	if (o.json)
		puts("[");
	for (unsigned i = 0; i < o.n_places; i++)
		ls.code |= list_place(&ls, o.places[i]);
	if (o.json)
		puts(ls.any ? "\n]" : "]");
	free(ls.v);
	free(ls.pending);
	return cli_finish_output(cli, guest_session_end(cli, &ls.session, ls.code));
}

const struct cmd cmd_ls = {
	.name = "ls",
	.summary = "List directories of a guest",
	.args = "IMAGE[:/PATH]...",
	.opts = options,
	.exit_codes = "0 success; 1 error, also if a part could not be read",
	.run = run,
};
