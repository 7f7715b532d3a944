// SPDX-License-Identifier: GPL-2.0-or-later
/* img cp: files and trees out of guests, into them, and between them; the work is in copy*.c. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "copy.h"
#include "guest.h"

enum { CP_KEEP_LINKS = GUEST_NEXT };

static const struct cmd_opt options[] = {
	{'r', "recursive", NULL, "directories with all that is in them"},
	{'R', NULL, NULL, "the same"},
	{'p', "preserve", NULL, "keep mode, owner and times"},
	{'a', "archive", NULL, "-r -p, with extended attributes, hard links and devices"},
	{CP_KEEP_LINKS, "keep-directory-symlink", NULL,
	 "write through links to directories in the guest"},
	{GUEST_PROGRESS, "progress", "MODE", "show progress: auto, plain, json or none"},
	GUEST_OPTIONS_NO_A,
	{0},
};

#define FILES_MAX 4096u

struct cp {
	struct cli *cli;
	struct guest_opts opts;
	struct copy copy;
	enum progress_mode progress;
	const char *places[FILES_MAX];
	unsigned n;

	const char *dest_text;
	struct guest_place dest; /* path NULL: it is on the host */
	struct appliance *dest_a;
	bool dest_is_dir;

	struct guest_place from; /* of the appliance that is open */
	struct appliance *from_a;

	struct progress *watching; /* never while an appliance is started: that forks */
	int signal;                /* what stopped it, or 0 */
};

static bool take_option(struct cp *p, int id)
{
	bool known;

	switch (id) {
	case CLI_ARG:
		if (p->n == FILES_MAX) {
			cli_usage(p->cli, "More than %u files", FILES_MAX);
			return false;
		}
		p->places[p->n++] = p->cli->arg;
		return true;
	case 'a':
		p->copy.all = p->copy.keep = p->copy.recursive = true;
		return true;
	case 'p':
		p->copy.keep = true;
		return true;
	case 'r':
	case 'R':
		p->copy.recursive = true;
		return true;
	case CP_KEEP_LINKS:
		p->copy.follow = TREE_FOLLOW;
		return true;
	case GUEST_PROGRESS:
		return progress_parse(p->cli, p->cli->arg, &p->progress);
	default:
		return guest_option(p->cli, &p->opts, id, &known);
	}
}

/* ---- names ---- */

/* A path without the slashes at its end; the caller frees. */
static char *without_slashes(const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	return strndup(path, n);
}

/* What a source is called in a directory that it is copied to; "": only its contents go there. */
static const char *source_name(const char *stripped)
{
	const char *slash = strrchr(stripped, '/');
	const char *name = slash ? slash + 1 : stripped;

	return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 ? name : "";
}

/* Splits where the copy goes: the directory that must be there, and the name in it. */
struct target {
	char *text, *dir; /* owned */
	const char *name;
};

static bool find_target(struct cp *p, const char *dest, const char *source, struct target *t)
{
	CLEANUP_FREE char *src = without_slashes(source);
	CLEANUP_FREE char *copy = without_slashes(dest);

	*t = (struct target){0};
	if (!src || !copy)
		return false;
	if (p->dest_is_dir) {
		t->text = strdup(source_name(src));
		t->dir = take(copy);
		t->name = t->text;
		return t->text != NULL;
	}
	t->text = strdup(copy);
	if (!t->text)
		return false;
	t->name = source_name(t->text);
	t->dir = strdup(dirname(copy));
	return t->dir != NULL;
}

static void target_free(struct target *t)
{
	free(t->text);
	free(t->dir);
}

/* ---- progress ---- */

static void watch(struct cp *p)
{
	if (!p->watching)
		p->watching = progress_start(p->cli, p->progress, "cp", &p->copy.job);
}

static void unwatch(struct cp *p, bool ok)
{
	int sig = progress_stop(take(p->watching), ok);

	if (sig)
		p->signal = sig;
}

/* ---- appliances ---- */

static bool same_image(const struct guest_place *a, const struct guest_place *b)
{
	struct stat x, y;

	if (!a->image || !b->image)
		return false;
	if (stat(a->image, &x) < 0 || stat(b->image, &y) < 0)
		return !strcmp(a->image, b->image);
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool same_snapshot(const struct guest_place *a, const struct guest_place *b)
{
	return !strcmp(a->snapshot ? a->snapshot : "", b->snapshot ? b->snapshot : "");
}

/* The appliance that sees a source. Takes place. */
static struct appliance *appliance_for(struct cp *p, struct guest_place *place)
{
	struct guest_opts opts = p->opts;
	bool ours = p->dest_a && same_image(place, &p->dest);

	if (ours && !place->snapshot) {
		guest_place_free(place);
		return p->dest_a;
	}
	if (p->from_a && same_image(place, &p->from) && same_snapshot(place, &p->from)) {
		guest_place_free(place);
		return p->from_a;
	}
	unwatch(p, true);
	if (p->from_a)
		guest_close(p->cli, take(p->from_a), 0);
	guest_place_free(&p->from);
	p->from = *place;
	*place = (struct guest_place){0};
	/* A snapshot does not change while its image is written, which nobody but us does. */
	if (ours)
		opts.flags |= IMG_SHARE;
	if (!guest_open(p->cli, &opts, &p->from, false, &p->from_a))
		return NULL;
	appliance_watch(p->from_a, &p->copy.job);
	return p->from_a;
}

/* ---- one source ---- */

/* /dev/stdout: what the shell made it, also when that is a file that has something already. */
static bool is_stdout(const struct stat *st)
{
	struct stat out;

	return fstat(STDOUT_FILENO, &out) == 0 && out.st_dev == st->st_dev &&
	       out.st_ino == st->st_ino;
}

/* To what is neither file nor directory: a device, a pipe. */
static int copy_to_stream(struct cp *p, const struct copy_place *from, const struct stat *st,
			  struct err *err)
{
	CLEANUP_FD int fd = -1;

	if (is_stdout(st))
		return appliance_read_fd(from->a, from->path, 0, UINT64_MAX, STDOUT_FILENO, err);
	fd = open(p->dest_text, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "%s", p->dest_text);
	return appliance_read_fd(from->a, from->path, 0, UINT64_MAX, fd, err);
}

/* A link that the user names as the target is followed, like in cp(1). */
static char *host_target(const struct cp *p, struct err *err)
{
	struct stat st;
	char *real;

	if (lstat(p->dest_text, &st) < 0 || !S_ISLNK(st.st_mode))
		return strdup(p->dest_text);
	real = realpath(p->dest_text, NULL);
	if (!real)
		err_sys(err, errno, "%s: a link that leads nowhere", p->dest_text);
	return real;
}

static int to_host(struct cp *p, const struct copy_place *from, struct err *err)
{
	CLEANUP_FREE char *dest = NULL;
	CLEANUP_FD int dir = -1;
	struct target t;
	struct stat st;
	int r;

	if (stat(p->dest_text, &st) == 0 && !S_ISDIR(st.st_mode) &&
	    (!S_ISREG(st.st_mode) || is_stdout(&st)))
		return copy_to_stream(p, from, &st, err);
	dest = host_target(p, err);
	if (!dest)
		return err->code ? -err->code : err_nomem(err, 0, "a path");
	if (!find_target(p, dest, from->path, &t)) {
		target_free(&t);
		return err_nomem(err, 0, "a path");
	}
	dir = open(t.dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = dir < 0 ? err_sys(err, errno, "%s", t.dir) : copy_out(&p->copy, from, dir, t.name, err);
	target_free(&t);
	return r;
}

static int to_guest(struct cp *p, const struct copy_place *from, const char *path, struct err *err)
{
	struct copy_place to = {.a = p->dest_a, .shown = p->dest_text};
	struct target t;
	int r;

	if (!find_target(p, p->dest.path, from ? from->path : path, &t)) {
		target_free(&t);
		return err_nomem(err, 0, "a path");
	}
	to.path = t.dir;
	r = from ? copy_across(&p->copy, from, &to, t.name, err)
		 : copy_in(&p->copy, path, &to, t.name, err);
	appliance_watch(p->dest_a, &p->copy.job);
	target_free(&t);
	return r;
}

static int copy_from_guest(struct cp *p, const char *text, struct guest_place *place,
			   struct err *err)
{
	CLEANUP_FREE char *path = take(place->path);
	struct copy_place from = {.shown = text, .path = path};
	int r = 0;

	from.a = appliance_for(p, place);
	if (!from.a) {
		p->copy.failed = true; /* and it was said why */
		return 0;
	}
	watch(p);
	if (p->progress != PROGRESS_NONE)
		r = copy_out_total(&p->copy, &from, err);
	if (r == 0)
		r = p->dest.path ? to_guest(p, &from, NULL, err) : to_host(p, &from, err);
	return r;
}

/* Where the message begins with the path that was given: one place is enough. */
static void tell_error(const struct cp *p, const char *text, const struct err *err)
{
	const char *slash = strstr(text, ":/");
	const char *path = slash ? slash + 1 : text;
	size_t n = strlen(path);
	bool twice = !strncmp(err->msg, path, n) && err->msg[n] == ':';

	cli_error(p->cli, "%s: %s", text, err->msg + (twice ? n + 2 : 0));
}

/* One source. False: the rest has no chance. */
static bool copy_one(struct cp *p, const char *text)
{
	struct guest_place place;
	struct err err = {0};
	int r;

	if (!guest_place_parse(p->cli, text, &place))
		return false;
	if (place.path) {
		r = copy_from_guest(p, text, &place, &err);
	} else if (!p->dest.path) {
		r = err_set(&err, EINVAL, "neither it nor '%s' is in a guest: IMAGE:/PATH",
			    p->dest_text);
	} else {
		watch(p);
		if (p->progress != PROGRESS_NONE)
			copy_in_total(&p->copy, text);
		r = to_guest(p, NULL, text, &err);
	}
	guest_place_free(&place);
	if (r < 0) {
		p->copy.failed = true;
		if (!job_cancelled(&p->copy.job))
			tell_error(p, text, &err);
	}
	return !job_cancelled(&p->copy.job);
}

/* ---- the command ---- */

/* Whether the target is a directory, and whether that is as it must be. */
static bool check_target(struct cp *p)
{
	size_t len = strlen(p->dest_text);
	struct agent_stat there;
	struct err err = {0};
	struct stat st;
	int r;

	if (p->dest.path) {
		r = appliance_stat(p->dest_a, p->dest.path, true, &there, &err);
		p->dest_is_dir = r == 0 && S_ISDIR(there.mode);
	} else {
		r = stat(p->dest_text, &st) < 0 ? err_sys(&err, errno, "%s", p->dest_text) : 0;
		p->dest_is_dir = r == 0 && S_ISDIR(st.st_mode);
	}
	if (r < 0 && r != -ENOENT) {
		cli_error(p->cli, "%s: %s", p->dest_text, err.msg);
		return false;
	}
	if (p->dest_is_dir)
		return true;
	/* "new/" can only be a directory, which -r makes. */
	if (p->n > 1 || (len && p->dest_text[len - 1] == '/' && (r == 0 || !p->copy.recursive))) {
		cli_error(p->cli, "%s: is not a directory", p->dest_text);
		return false;
	}
	return true;
}

static void copy_all(struct cp *p)
{
	p->copy.failed = true;
	if (p->dest.path && !guest_open(p->cli, &p->opts, &p->dest, true, &p->dest_a))
		return;
	if (p->dest_a)
		appliance_watch(p->dest_a, &p->copy.job);
	if (!check_target(p))
		return;
	p->copy.failed = false;
	for (unsigned i = 0; i < p->n && copy_one(p, p->places[i]); i++)
		;
}

/* What was written is on the disks, also after a signal. */
static int close_all(struct cp *p)
{
	int code = p->copy.failed ? 1 : 0;

	if (p->from_a)
		code = guest_close(p->cli, p->from_a, code);
	if (p->dest_a) {
		appliance_watch(p->dest_a, NULL);
		code = guest_close(p->cli, p->dest_a, code);
	}
	guest_place_free(&p->from);
	guest_place_free(&p->dest);
	return code;
}

static void init_copy(struct cp *p)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	p->copy.cli = p->cli;
	p->copy.now = (struct agent_time){now.tv_sec, (uint32_t)now.tv_nsec};
	p->copy.umask = umask(0);
	umask(p->copy.umask);
}

static int run(struct cli *cli)
{
	static struct cp p;
	int id, code;

	p = (struct cp){.cli = cli, .progress = PROGRESS_NONE};
	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(&p, id))
			return 1;
	}
	if (p.n < 2)
		return cli_usage(cli, "Expecting SRC... and DEST, one of them as IMAGE:/PATH");
	p.dest_text = p.places[--p.n];
	init_copy(&p);
	if (!guest_place_parse(cli, p.dest_text, &p.dest))
		return 1;
	cli->stdout_taken = true; /* DEST can be there */
	copy_all(&p);
	code = close_all(&p);
	unwatch(&p, code == 0);
	copy_tell_losses(&p.copy);
	return code && p.signal ? cli_interrupted(cli, p.signal) : code;
}

const struct cmd cmd_cp = {
	.name = "cp",
	.summary = "Copy files out of guests, into them, and between them",
	.args = "SRC... DEST",
	.opts = options,
	.exit_codes = "0 success, 1 error: something was not copied",
	.run = run,
};
