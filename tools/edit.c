// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img edit: a file of a guest in the user's editor, or through sed.
 *
 * Nothing is written when the text stays the same, or the program failed. Otherwise a new file with
 * the owner, mode and extended attributes of the old one takes its name in one step; with --backup
 * the old one keeps another name.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "change.h"
#include "editor.h"

static const struct cmd_opt options[] = {
	{'e', "expression", "SCRIPT", "edit with this script of sed; may be repeated"},
	{'E', "regexp-extended", NULL, "regular expressions in scripts are extended ones"},
	{'b', "backup", "SUFFIX", "keep the old file, with SUFFIX after its name"},
	GUEST_OPTIONS_WRITE,
	{0},
};

#define SCRIPTS_MAX 256u
#define LINKS_MAX   40u /* symbolic, for a path */

struct edit {
	/* argv: "sed", "-E", "-e", SCRIPT, …; without -E it begins with the second. */
	const char *sed[2 * SCRIPTS_MAX + 3];
	unsigned n_sed;
	bool scripts, extended;
	const char *suffix;
	int signal;
};

/* What is worked at. */
struct file {
	const struct guest_place *place;
	char *path; /* owned: no symbolic link at its end */
	char *text; /* owned */
	size_t n;
	struct agent_stat st;
};

static void file_free(struct file *f)
{
	free(f->path);
	free(f->text);
}

/* The path that one symbolic link leads to. */
static int follow(struct change *c, struct file *f, struct err *err)
{
	char target[AGENT_PATH_MAX];
	const char *name;
	char *path = NULL;
	int r = appliance_readlink(c->a, f->path, target, err);

	if (r < 0)
		return r;
	change_basename(f->path, &name);
	if (*target == '/')
		path = strdup(target);
	else if (asprintf(&path, "%.*s%s", (int)(name - f->path), f->path, target) < 0)
		path = NULL;
	if (!path)
		return err_nomem(err, AGENT_PATH_MAX, "a path");
	free(f->path);
	f->path = path;
	return 0;
}

/* The name that is replaced is not that of a link, but of the file. */
static int find(struct change *c, struct file *f, struct err *err)
{
	int r = 0;

	f->path = strdup(f->place->path);
	if (!f->path)
		return err_nomem(err, AGENT_PATH_MAX, "a path");
	for (unsigned i = 0; r == 0 && i <= LINKS_MAX; i++) {
		r = appliance_stat(c->a, f->path, false, &f->st, err);
		if (r < 0 || !S_ISLNK(f->st.mode))
			break;
		r = i == LINKS_MAX ? err_sys(err, ELOOP, "%s", f->place->path) : follow(c, f, err);
	}
	if (r < 0 || S_ISREG(f->st.mode))
		return r;
	return err_set(err, EINVAL, "%s is not a regular file", f->path);
}

/* A second name for the old file, under which it waits; or NULL in *name, and a negative errno. */
static int keep_old(struct change *c, const struct file *f, const char *backup, char **name,
		    struct err *err)
{
	struct agent_stat st;
	int r = appliance_stat(c->a, backup, false, &st, err);

	if (r == 0 && S_ISDIR(st.mode))
		return err_sys(err, EISDIR, "%s", backup);
	if (r < 0 && r != -ENOENT)
		return r;
	*name = change_temporary(c, f->place, backup);
	if (!*name)
		return err_set(err, EIO, "%s: no backup can be made", backup);
	return appliance_link(c->a, f->path, *name, err);
}

static int replace(struct change *c, const struct edit *ed, const struct file *f, struct err *err)
{
	const struct appliance_write how = {.flags = WRITE_REPLACE};
	CLEANUP_FREE char *backup = NULL, *old = NULL;
	int r = 0;

	if (ed->suffix && asprintf(&backup, "%s%s", f->path, ed->suffix) < 0) {
		backup = NULL;
		return err_nomem(err, AGENT_PATH_MAX, "a path");
	}
	if (backup)
		r = keep_old(c, f, backup, &old, err);
	if (r == 0)
		r = appliance_write_buf(c->a, f->path, &how, f->text, f->n, err);
	if (r == 0 && backup)
		r = appliance_rename(c->a, old, backup, err);
	/* Also when all went well: renaming one name of a file to another one leaves both. */
	if (old)
		appliance_remove(c->a, old, TREE_MISSING_OK, NULL);
	return r;
}

static int change_text(struct change *c, struct edit *ed, struct file *f, struct err *err)
{
	CLEANUP_FREE char *before = NULL, *name = NULL;
	struct editor editor = {.sed = ed->scripts ? ed->sed + !ed->extended : NULL};
	const char *last;
	size_t n, len = change_basename(f->place->path, &last);
	int r = appliance_read_file(c->a, f->path, EDITOR_BYTES_MAX, &before, &n, err);

	if (r < 0)
		return r;
	name = strndup(last, len);
	f->text = malloc(n + 1);
	if (!name || !f->text)
		return err_nomem(err, n, "a file");
	memcpy(f->text, before, n);
	f->n = n;
	editor.name = name;
	r = editor_run(&editor, &f->text, &f->n, err);
	ed->signal = editor.signal;
	if (r < 0)
		return err_ctx(err, r, "%s is not changed", f->place->path);
	if (f->n == n && !memcmp(f->text, before, n))
		return 0;
	if (f->st.nlink > 1)
		cli_warn(c->cli, "%s:%s had %u names: the others keep the old text",
			 f->place->image, f->path, f->st.nlink);
	return replace(c, ed, f, err);
}

static int edit_one(struct change *c, const struct guest_place *place, void *arg)
{
	struct edit *ed = arg;
	struct file f = {.place = place};
	struct err err = {0};
	int r = find(c, &f, &err);

	if (r == 0)
		r = change_text(c, ed, &f, &err);
	file_free(&f);
	if (ed->signal) {
		atomic_store(&c->job.cancelled, true);
		return 1;
	}
	return r < 0 ? change_failed(c, place, &err) : 0;
}

static bool take_script(struct change *c, struct edit *ed)
{
	if (ed->n_sed > 2 * SCRIPTS_MAX) {
		cli_usage(c->cli, "More than %u scripts", SCRIPTS_MAX);
		return false;
	}
	ed->sed[ed->n_sed++] = "-e";
	ed->sed[ed->n_sed++] = c->cli->arg;
	return ed->scripts = true;
}

static bool take_suffix(struct change *c, struct edit *ed)
{
	ed->suffix = c->cli->arg;
	if (*ed->suffix && !strchr(ed->suffix, '/'))
		return true;
	cli_usage(c->cli, "'%s' cannot be the end of a name", ed->suffix);
	return false;
}

static bool take_option(struct change *c, int id, void *arg)
{
	struct edit *ed = arg;

	switch (id) {
	case 'e':
		return take_script(c, ed);
	case 'E':
		return ed->extended = true;
	case 'b':
		return take_suffix(c, ed);
	default:
		return change_option(c, id);
	}
}

static int run_parsed(struct change *c, void *arg)
{
	static const struct change_kind kind = {.place = edit_one, .no_signals = true};
	struct edit *ed = arg;
	int code;

	if (ed->extended && !ed->scripts)
		return cli_usage(c->cli, "-E is about the scripts of -e");
	if (!ed->extended)
		ed->sed[1] = "sed";
	code = change_each(c, 0, &kind, ed);
	return ed->signal ? cli_interrupted(c->cli, ed->signal) : code;
}

static int run(struct cli *cli)
{
	static const struct change_kind kind = {.option = take_option, .run = run_parsed};
	struct edit ed = {.sed = {"sed", "-E"}, .n_sed = 2};

	return change_main(cli, &kind, &ed);
}

const struct cmd cmd_edit = {
	.name = "edit",
	.summary = "Edit files of a guest, with an editor or sed",
	.args = "IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
