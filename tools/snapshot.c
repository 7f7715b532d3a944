// SPDX-License-Identifier: GPL-2.0-or-later
/* img snapshot: list, take, return to and delete the snapshots inside an image. */
#include "snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "ops/info.h"
#include "ops/snapshot.h"

enum { OUTPUT = CLI_LONG, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'l', "list", NULL, "list the snapshots (the default)"},
	{'c', "create", "NAME", "take a snapshot"},
	{'a', "apply", "SNAPSHOT", "return to a snapshot, given by its name or id"},
	{'d', "delete", "SNAPSHOT", "delete a snapshot, given by its name or id"},
	{OUTPUT, "output", "human|json", "how to print the list"},
	{'U', "force-share", NULL, "list although another process has the image open for writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

/* ---- the list ---- */

static void format_clock(uint64_t ns, char *buf, size_t room)
{
	uint64_t s = ns / 1000000000;

	snprintf(buf, room, "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, s / 3600,
		 s / 60 % 60, s % 60, ns / 1000000 % 1000);
}

static void print_snapshot(const struct cli *cli, const struct snapshot *s)
{
	CLEANUP_FREE char *id = cli_clean(cli, s->id);
	CLEANUP_FREE char *name = cli_clean(cli, s->name);
	char size[32], date[32] = "", clock[32], icount[32] = "";
	time_t t = (time_t)s->date_sec;
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	format_clock(s->vm_clock_ns, clock, sizeof(clock));
	if (s->icount != UINT64_MAX)
		snprintf(icount, sizeof(icount), "%" PRId64, (int64_t)s->icount);
	printf("%-9s %-16s %8s%20s%13s%11s\n", id ? id : "?", name ? name : "?",
	       size_format(s->vm_state_size, size, sizeof(size)), date, clock, icount);
}

void snapshot_print_list(const struct cli *cli, const struct snapshot *snaps, unsigned n)
{
	if (n == 0)
		return;
	printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
	       "VM CLOCK", "ICOUNT");
	for (unsigned i = 0; i < n; i++)
		print_snapshot(cli, &snaps[i]);
}

/* ---- the command ---- */

struct snapshot_cmd {
	struct img_open_args open;
	int action;       /* 'l', 'c', 'a', 'd'; 0: none was given */
	const char *name; /* its argument */
	bool json;
};

static int list(const struct cli *cli, const struct snapshot_cmd *c)
{
	struct img *img = cli_open(cli, &c->open);
	const struct snapshot *snaps;
	unsigned n;
	int code = 0;

	if (!img)
		return 1;
	snaps = img_snapshots(img, &n);
	if (c->json)
		code = cli_print_json(cli, info_snapshots_json(snaps, n));
	else
		snapshot_print_list(cli, snaps, n);
	io_close(&img->io);
	return cli_finish_output(cli, code);
}

/* The peer takes as much of a name as fits. */
static int take_snapshot(const struct cli *cli, struct img *img, const char *name, struct err *err)
{
	char cut[SNAPSHOT_NAME_MAX + 1];

	if (!cli->peer)
		return snapshot_take(img, name, err);
	snprintf(cut, sizeof(cut), "%s", name);
	return snapshot_take(img, cut, err);
}

/* The peer goes by the id first when it applies a snapshot, and by the name alone when it deletes one. */
static int find_snapshot(const struct cli *cli, const struct snapshot_cmd *c, struct img *img,
			 unsigned *index, struct err *err)
{
	if (!cli->peer)
		return snapshot_find(img, c->name, index, err);
	if (c->action == 'd')
		return snapshot_find_name(img, c->name, index, err);
	*index = 0;
	if (!img->fmt->snapshots) /* not the name's fault: applying it says so */
		return 0;
	return img_snapshot_find(img, c->name, index, err);
}

static int act(const struct cli *cli, const struct snapshot_cmd *c, struct img *img,
	       struct err *err)
{
	unsigned index;
	int r;

	if (c->action == 'c') {
		r = take_snapshot(cli, img, c->name, err);
	} else {
		r = find_snapshot(cli, c, img, &index, err);
		if (r == 0 && c->action == 'a')
			r = img_snapshot_apply(img, index, err);
		else if (r == 0)
			r = img_snapshot_remove(img, index, err);
	}
	/* The image's own "cleanly closed" is written here, where an error can be told. */
	return r < 0 ? r : img_settle(img, err);
}

static int report(const struct cli *cli, const struct snapshot_cmd *c, int r, const struct err *err)
{
	switch (c->action) {
	case 'c':
		if (cli->peer)
			return cli_error(cli, "Could not create snapshot '%s': %d (%s)", c->name, r,
					 strerror(-r));
		return cli_error(cli, "Could not create snapshot '%s': %s", c->name, err->msg);
	case 'a':
		if (r == -ENOENT)
			return cli_error(cli,
					 "Could not apply snapshot '%s': Failed to load snapshot: "
					 "No such file or directory",
					 c->name);
		if (r == -ENOTSUP && cli->peer)
			return cli_error(cli,
					 "Could not apply snapshot '%s': Block driver does not "
					 "support snapshots",
					 c->name);
		return cli_error(cli, "Could not apply snapshot '%s': %s", c->name, err->msg);
	default:
		if (r == -ENOENT)
			return cli_error(cli, "Could not delete snapshot '%s': snapshot not found",
					 c->name);
		return cli_error(cli, "Could not delete snapshot '%s': %s", c->name, err->msg);
	}
}

static int change(const struct cli *cli, const struct snapshot_cmd *c)
{
	struct img_open_args open = c->open;
	struct err err = {0};
	struct img *img;
	int r;

	if (open.flags & IMG_SHARE)
		return cli_error(cli,
				 "Could not open '%s': force-share=on can only be used with "
				 "read-only images",
				 open.path);
	open.flags |= IMG_RDWR;
	img = cli_open(cli, &open);
	if (!img)
		return 1;
	r = act(cli, c, img, &err);
	io_close(&img->io);
	return r < 0 ? report(cli, c, r, &err) : 0;
}

/* The peer, told nothing, opens the image for writing and closes it. */
static int touch(const struct cli *cli, const struct snapshot_cmd *c)
{
	struct img_open_args open = c->open;
	struct img *img;

	open.flags |= IMG_RDWR;
	img = cli_open(cli, &open);
	if (img)
		io_close(&img->io);
	return img ? 0 : 1;
}

static bool set_action(struct cli *cli, struct snapshot_cmd *c, int id)
{
	if (c->action) {
		cli_usage(cli, "Cannot mix '-l', '-a', '-c', '-d'");
		return false;
	}
	c->action = id;
	c->name = cli->arg;
	return true;
}

static int run(struct cli *cli)
{
	struct snapshot_cmd c = {.open = {.flags = IMG_NO_BACKING | IMG_NO_DATA}};
	const char *output = NULL;
	unsigned args = 0;
	bool ok = true;
	int id;

	while ((id = cli_next(cli)) != CLI_END) {
		switch (id) {
		case CLI_EXIT:
			return cli_exit_code(cli);
		case CLI_ARG:
			c.open.path = cli->arg;
			args++;
			break;
		case 'f':
			c.open.format = cli->arg;
			break;
		case 'l':
		case 'c':
		case 'a':
		case 'd':
			ok = set_action(cli, &c, id);
			break;
		case OUTPUT:
			output = cli->arg;
			break;
		case 'U':
			c.open.flags |= IMG_SHARE;
			break;
		case UNTRUSTED:
			c.open.flags |= IMG_UNTRUSTED;
			break;
		case 'q': /* nothing but errors and the list is printed anyway */
			break;
		}
		if (!ok)
			return 1;
	}
	if (args != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (output && !cli_output(cli, output, &c.json))
		return 1;
	if (cli->peer && !c.action)
		return touch(cli, &c);
	return c.action && c.action != 'l' ? change(cli, &c) : list(cli, &c);
}

const struct cmd cmd_snapshot = {
	.name = "snapshot",
	.summary = "List, take, apply and delete internal snapshots",
	.args = "FILE",
	.opts = options,
	.run = run,
};
