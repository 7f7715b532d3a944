// SPDX-License-Identifier: GPL-2.0-or-later
/* Changing places of guests, see change.h. */
#include "change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

bool change_option(struct change *c, int id)
{
	bool known;

	if (id != CLI_ARG)
		return guest_option(c->cli, &c->opts, id, &known);
	c->args[c->n_args++] = c->cli->arg;
	return true;
}

int change_failed(const struct change *c, const struct guest_place *place, const struct err *err)
{
	if (err->code == ECANCELED && c->progress)
		return 1; /* the signal is told at the end */
	return cli_error(c->cli, "%s:%s%s", place->image, *err->msg == '/' ? "" : " ", err->msg);
}

/* ---- paths ---- */

size_t change_basename(const char *path, const char **name)
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/';)
		start--;
	*name = path + start;
	return end - start;
}

char *change_join(const struct change *c, const char *dir, const char *name, size_t len)
{
	size_t n = strlen(dir);
	char *path;

	while (n && dir[n - 1] == '/')
		n--;
	if (asprintf(&path, "%.*s/%.*s", (int)n, dir, (int)len, name) >= 0)
		return path;
	cli_error(c->cli, "out of memory");
	return NULL;
}

char *change_temporary(const struct change *c, const struct guest_place *place, const char *path)
{
	const char *name;
	size_t len = change_basename(path, &name);
	struct agent_stat st;
	struct err err;

	for (unsigned i = 0; i < 100; i++) {
		char temporary[64 + 200];
		CLEANUP_FREE char *dir = strndup(path, (size_t)(name - path));
		char *beside;
		int r;

		snprintf(temporary, sizeof(temporary), ".imgkit-%u.%.*s", i,
			 (int)(len < 200 ? len : 200), name);
		beside = change_join(c, dir ? dir : "", temporary, strlen(temporary));
		if (!beside)
			return NULL;
		r = appliance_stat(c->a, beside, false, &st, &err);
		if (r == -ENOENT)
			return beside;
		free(beside);
		if (r < 0) {
			change_failed(c, place, &err);
			return NULL;
		}
	}
	cli_error(c->cli, "%s:%s: too many temporary files beside it", place->image, path);
	return NULL;
}

static char *copy_path(const struct change *c, const char *path)
{
	char *copy = strdup(path);

	if (!copy)
		cli_error(c->cli, "out of memory");
	return copy;
}

char *change_into(const struct change *c, const struct guest_place *place, const char *path,
		  unsigned flags, const char *source)
{
	const char *name;
	size_t len = change_basename(source, &name);
	struct agent_stat st;
	struct err err;
	int r;

	if (flags & CHANGE_NAME)
		return copy_path(c, path);
	r = appliance_stat(c->a, path, flags & CHANGE_FOLLOW, &st, &err);
	if (r == 0 && S_ISDIR(st.mode)) {
		if (len)
			return change_join(c, path, name, len);
		cli_error(c->cli, "%s: '%s' has no name that could be made in %s", place->image,
			  source, path);
		return NULL;
	}
	if (r == 0 && flags & CHANGE_SEVERAL)
		r = err_sys(&err, ENOTDIR, "%s", path);
	if (r == 0 || (r == -ENOENT && !(flags & CHANGE_SEVERAL)))
		return copy_path(c, path);
	change_failed(c, place, &err);
	return NULL;
}

char *change_path(const struct change *c, const struct guest_place *place, const char *text)
{
	struct guest_place other;
	char *path = NULL;

	if (!guest_place_parse(c->cli, text, &other))
		return NULL;
	if (!other.path && *text == '/') {
		path = copy_path(c, text);
	} else if (!other.path) {
		cli_usage(c->cli, "'%s' is no place in a guest: /PATH or IMAGE:/PATH is expected",
			  text);
	} else if (other.snapshot || strcmp(other.image, place->image) != 0) {
		cli_error(c->cli, "'%s' is not in %s", text, place->image);
	} else {
		path = take(other.path);
	}
	guest_place_free(&other);
	return path;
}

/* ---- the frame ---- */

/* Returns the exit code. */
static int close_disk(struct change *c)
{
	int code = 0;

	/* What ends now is not ended a second time by the same signal. */
	if (c->a)
		appliance_watch(c->a, NULL);
	if (c->a)
		code = guest_close(c->cli, c->a, 0);
	c->a = NULL;
	c->disk = NULL;
	if (c->progress)
		c->signal = progress_stop(c->progress, true);
	c->progress = NULL;
	return code;
}

static int open_disk(struct change *c, const struct guest_place *place,
		     const struct change_kind *kind, void *arg)
{
	c->disk = place;
	if (!guest_open(c->cli, &c->opts, place, true, &c->a))
		return 1;
	if (!kind->no_signals) {
		c->progress = progress_start(c->cli, PROGRESS_NONE, c->cli->cmd->name, &c->job);
		appliance_watch(c->a, &c->job);
	}
	if (!kind->opened || kind->opened(c, arg) == 0)
		return 0;
	appliance_close(c->a);
	c->a = NULL;
	return 1;
}

static bool same_disk(const struct guest_place *a, const struct guest_place *b)
{
	return a && !strcmp(a->image, b->image);
}

static int work(struct change *c, const struct guest_place *places, unsigned n,
		const struct change_kind *kind, void *arg)
{
	int code = 0;

	for (unsigned i = 0; i < n && !job_cancelled(&c->job); i++) {
		if (!same_disk(c->disk, &places[i])) {
			code |= close_disk(c);
			if (c->signal)
				break;
			code |= open_disk(c, &places[i], kind, arg);
		}
		if (c->a)
			code |= kind->place(c, &places[i], arg);
	}
	code |= close_disk(c);
	return c->signal ? cli_interrupted(c->cli, c->signal) : code;
}

/* False: it is none in which something can be changed, and it said so. */
static bool parse(const struct change *c, const char *text, struct guest_place *place)
{
	if (!guest_place_parse(c->cli, text, place))
		return false;
	if (!place->path)
		cli_usage(c->cli, "'%s' is no place in a guest: IMAGE:/PATH is expected", text);
	else if (place->snapshot)
		cli_error(c->cli, "%s@%s: a snapshot cannot be changed", place->image,
			  place->snapshot);
	return place->path && !place->snapshot;
}

int change_each(struct change *c, unsigned first, const struct change_kind *kind, void *arg)
{
	unsigned n = c->n_args > first ? c->n_args - first : 0;
	struct guest_place *places = calloc((size_t)n + 1, sizeof(*places));
	int code = 0;

	if (!n)
		code = cli_usage(c->cli, "Expecting IMAGE:/PATH");
	else if (!places)
		code = cli_error(c->cli, "out of memory");
	for (unsigned i = 0; i < n && !code; i++)
		code = !parse(c, c->args[first + i], &places[i]);
	if (!code)
		code = work(c, places, n, kind, arg);
	for (unsigned i = 0; i < n && places; i++)
		guest_place_free(&places[i]);
	free(places);
	return code;
}

int change_main(struct cli *cli, const struct change_kind *kind, void *arg)
{
	struct change c = {.cli = cli};
	int id = CLI_END, code = 0;

	c.args = calloc((size_t)cli->argc + 1, sizeof(*c.args));
	if (!c.args)
		return cli_error(cli, "out of memory");
	while (!code && (id = cli_next(cli)) != CLI_END && id != CLI_EXIT)
		code = !kind->option(&c, id, arg);
	if (id == CLI_EXIT)
		code = cli_exit_code(cli);
	else if (!code)
		code = kind->run ? kind->run(&c, arg) : change_each(&c, 0, kind, arg);
	free(c.args);
	return code;
}
