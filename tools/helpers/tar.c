// SPDX-License-Identifier: GPL-2.0-or-later
/* img-tar: what `img tar` runs; see tools/tar.c. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "helpers/frame/frame.h"
#include "helpers/tar/parts.h"

struct tar_cmd {
	struct guest_opts opts;
	enum progress_mode progress;
	bool out;
	const char *direction, *text, *file;
	struct guest_place place;
	struct tar tar;
	char *temporary; /* owned: the name of FILE until it is whole; NULL: it has none */
};

static bool take_format(struct cli *cli, struct tar_cmd *c)
{
	static const char *const names[] = {"pax", "gnutar", "ustar"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(cli->arg, names[i])) {
			c->tar.format = cli->arg;
			return true;
		}
	cli_usage(cli, "--archive-format is pax, gnutar or ustar, not '%s'", cli->arg);
	return false;
}

static bool take_argument(struct cli *cli, struct tar_cmd *c)
{
	if (!c->direction) {
		c->direction = cli->arg;
		c->out = !strcmp(cli->arg, "out");
		if (c->out || !strcmp(cli->arg, "in"))
			return true;
		cli_usage(cli, "Expecting 'out' or 'in', not '%s'", cli->arg);
		return false;
	}
	if (c->text) {
		cli_usage(cli, "Unexpected argument: %s", cli->arg);
		return false;
	}
	c->text = cli->arg;
	return true;
}

static bool take_option(struct cli *cli, struct tar_cmd *c, int id)
{
	bool known;

	switch (id) {
	case CLI_ARG:
		return take_argument(cli, c);
	case 'f':
		c->file = cli->arg;
		return true;
	case 'H':
		return take_format(cli, c);
	case 'z':
		c->tar.gzip = true;
		return true;
	case TAR_ZSTD:
		c->tar.zstd = true;
		return true;
	case TAR_ONE_FS:
		c->tar.flags |= TREE_ONE_FS;
		return true;
	case TAR_KEEP_LINKS:
		c->tar.flags |= TREE_FOLLOW;
		return true;
	case GUEST_PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	default:
		return guest_option(cli, &c->opts, id, &known);
	}
}

/* ---- FILE ---- */

/* A new file, or one in place of another, appears when it is whole. */
static bool open_target(struct cli *cli, struct tar_cmd *c)
{
	struct stat st;

	if (stat(c->file, &st) == 0 && !S_ISREG(st.st_mode)) {
		c->tar.fd = open(c->file, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	} else {
		if (asprintf(&c->temporary, "%s.img-tar-%ld", c->file, (long)getpid()) < 0) {
			c->temporary = NULL;
			cli_error(cli, "out of memory");
			return false;
		}
		c->tar.fd = open(c->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (c->tar.fd < 0)
			free(take(c->temporary));
	}
	if (c->tar.fd < 0)
		cli_error(cli, "%s: %s", c->file, strerror(errno));
	return c->tar.fd >= 0;
}

static bool open_file(struct cli *cli, struct tar_cmd *c)
{
	bool std = !c->file || !strcmp(c->file, "-");

	c->tar.fd = c->out ? STDOUT_FILENO : STDIN_FILENO;
	if (std && isatty(c->tar.fd)) {
		cli_error(cli, "The archive %s a terminal: use -f FILE",
			  c->out ? "would go to" : "would come from");
		return false;
	}
	if (std)
		return true;
	if (c->out)
		return open_target(cli, c);
	c->tar.fd = open(c->file, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	if (c->tar.fd < 0)
		cli_error(cli, "%s: %s", c->file, strerror(errno));
	return c->tar.fd >= 0;
}

static int close_file(struct cli *cli, struct tar_cmd *c, int code, bool whole)
{
	CLEANUP_FREE char *temporary = take(c->temporary);

	if (c->tar.fd > STDERR_FILENO && close(c->tar.fd) < 0 && whole) {
		code = cli_error(cli, "%s: %s", c->file, strerror(errno));
		whole = false;
	}
	if (!temporary)
		return code;
	if (whole && rename(temporary, c->file) == 0)
		return code;
	if (whole)
		code = cli_error(cli, "%s: %s", c->file, strerror(errno));
	unlink(temporary);
	return code;
}

/* ---- the work ---- */

static int count_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		       const char *target, struct err *err)
{
	struct job *job = arg;

	(void)path;
	(void)target;
	(void)err;
	if (!first && S_ISREG(st->mode))
		job->total += min_u64(st->size, st->allocated);
	return 0;
}

static int count(struct tar_cmd *c, struct err *err)
{
	const struct appliance_sink sink = {.arg = &c->tar.job, .entry = count_entry};
	struct stat st;

	if (!c->out) {
		if (fstat(c->tar.fd, &st) == 0 && S_ISREG(st.st_mode))
			job_total(&c->tar.job, (uint64_t)st.st_size);
		return 0;
	}
	return appliance_export(c->tar.a, c->tar.path, TREE_RECURSIVE | TREE_FOLLOW | c->tar.flags,
				&sink, err);
}

static int work(struct cli *cli, struct tar_cmd *c)
{
	struct progress *progress;
	struct err err = {0};
	int r = 0, code, sig;

	progress = progress_start(cli, c->progress, "tar", &c->tar.job);
	appliance_watch(c->tar.a, &c->tar.job);
	if (c->progress != PROGRESS_NONE)
		r = count(c, &err);
	if (r == 0)
		r = c->out ? tar_out(&c->tar, &err) : tar_in(&c->tar, &err);
	appliance_watch(c->tar.a, NULL);
	code = guest_close(cli, c->tar.a, r < 0 || c->tar.failed);
	sig = progress_stop(progress, code == 0);
	code = close_file(cli, c, code, r == 0);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	if (r < 0)
		guest_failed(cli, &c->place, NULL, err.msg);
	return code;
}

int helper_run(struct cli *cli)
{
	static struct tar_cmd c = {.tar.format = "pax", .progress = PROGRESS_NONE};
	int id, code = 1;

	/* Names are bytes: UTF-8 where they are, and as they are where not. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "");
	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, &c, id))
			return 1;
	}
	if (!c.text)
		return cli_usage(cli, "Expecting out or in, and IMAGE:/DIR");
	if (c.tar.gzip && c.tar.zstd)
		return cli_usage(cli, "--gzip and --zstd at once");
	if (!guest_place_parse(cli, c.text, &c.place))
		return 1;
	c.tar.cli = cli;
	c.tar.place = &c.place;
	c.tar.path = c.place.path ? c.place.path : "/";
	cli->stdout_taken = true; /* the archive alone goes there */
	if (guest_open(cli, &c.opts, &c.place, !c.out, &c.tar.a)) {
		if (open_file(cli, &c))
			code = work(cli, &c);
		else
			appliance_close(c.tar.a);
	}
	guest_place_free(&c.place);
	return code;
}

const struct cmd *const helper_cmd = &cmd_tar;
