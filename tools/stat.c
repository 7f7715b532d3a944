// SPDX-License-Identifier: GPL-2.0-or-later
/* img stat: all that is known of files of guests, as stat(1) and getfattr(1) show it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "entry.h"
#include "guest.h"

static const struct cmd_opt options[] = {
	{'L', "dereference", NULL, "of what a symbolic link leads to"},
	{GUEST_OUTPUT, "output", "FORMAT", "human (default) or json"},
	GUEST_OPTIONS,
	{0},
};

#define PLACES_MAX 4096u

struct stat_opts {
	struct guest_opts guest;
	const char *places[PLACES_MAX];
	unsigned n;
	bool follow, json;
};

/* One place: the entry is printed when it comes, its attributes after it. */
struct stat_place {
	const struct cli *cli;
	const struct guest_session *session;
	const char *text; /* as it was typed */
	json_t *json;     /* list of the results, or NULL: human */
	json_t *entry;    /* of this place */
	int code;
};

/* ---- human ---- */

static void put_time(const char *label, struct agent_time t)
{
	char buf[ENTRY_TEXT];

	printf("%s: %s\n", label, t.sec || t.nsec ? entry_time(t, true, buf) : "-");
}

static void put_human(const struct stat_place *p, const struct agent_stat *st, const char *target)
{
	char mode[ENTRY_TEXT];

	fputs("  File: ", stdout);
	cli_put_text(p->cli, p->text);
	if (*target) {
		fputs(" -> ", stdout);
		cli_put_text(p->cli, target);
	}
	printf("\n  Size: %-15" PRIu64 " Allocated: %-12" PRIu64 " %s\n", st->size, st->allocated,
	       entry_type(st->mode));
	printf(" Inode: %-15" PRIu64 " Links: %-16" PRIu32 " Flags: 0x%" PRIx32, st->ino, st->nlink,
	       st->flags);
	if (S_ISBLK(st->mode) || S_ISCHR(st->mode))
		printf(" Device type: %" PRIu32 ",%" PRIu32, st->rdev_major, st->rdev_minor);
	printf("\nAccess: (%04o/%s)  Uid: %" PRIu32 "  Gid: %" PRIu32 "\n",
	       (unsigned)(st->mode & 07777), entry_mode(st->mode, mode), st->uid, st->gid);
	put_time("Access", st->atime);
	put_time("Modify", st->mtime);
	put_time("Change", st->ctime);
	put_time(" Birth", st->btime);
}

static void put_xattr(const struct cli *cli, const char *name, const void *value, size_t n)
{
	const unsigned char *p = value;

	fputs(" Xattr: ", stdout);
	cli_put_text(cli, name);
	if (entry_is_text(value, n)) {
		printf("=\"%.*s\"\n", (int)n, (const char *)value);
		return;
	}
	fputs("=0x", stdout);
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
	putchar('\n');
}

/* ---- the stream: one entry ---- */

static int on_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		    const char *target, struct err *err)
{
	struct stat_place *p = arg;

	(void)path;
	(void)first;
	if (!p->json) {
		put_human(p, st, target);
		return 0;
	}
	p->entry = entry_json(p->session->place.path, st, target);
	if (!p->entry || json_set_text(p->entry, "image", p->session->place.image) ||
	    json_array_append_new(p->json, p->entry))
		return err_nomem(err, 0, "the answer");
	return 0;
}

static int on_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct stat_place *p = arg;

	if (!p->json)
		put_xattr(p->cli, name, value, n);
	else if (entry_json_xattr(p->entry, name, value, n))
		return err_nomem(err, n, "the answer");
	return 0;
}

static int on_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	struct stat_place *p = arg;

	(void)path;
	(void)code;
	(void)err;
	p->code = guest_failed(p->cli, &p->session->place, NULL, text);
	return 0;
}

static int stat_one(struct cli *cli, const struct stat_opts *o, struct guest_session *session,
		    const char *text, json_t *json)
{
	struct stat_place p = {.cli = cli, .session = session, .text = text, .json = json};
	const struct appliance_sink sink = {
		.arg = &p, .entry = on_entry, .xattr = on_xattr, .failed = on_failed};
	const uint32_t flags = TREE_SEPARATE | TREE_XATTRS | (o->follow ? TREE_FOLLOW : 0);
	struct err err = {0};

	if (!guest_session_at(cli, &o->guest, session, text, true))
		return 1;
	if (appliance_export(session->a, session->place.path, flags, &sink, &err) < 0)
		return guest_failed(cli, &session->place, NULL, err.msg);
	return p.code;
}

/* ---- the command ---- */

static bool take_option(struct cli *cli, struct stat_opts *o, int id)
{
	bool known;

	if (id == GUEST_OUTPUT)
		return cli_output(cli, cli->arg, &o->json);
	if (id == 'L')
		o->follow = true;
	else if (id != CLI_ARG)
		return guest_option(cli, &o->guest, id, &known);
	else if (o->n == PLACES_MAX)
		return !cli_usage(cli, "More than %u files", PLACES_MAX);
	else
		o->places[o->n++] = cli->arg;
	return true;
}

static int run(struct cli *cli)
{
	struct stat_opts o = {0};
	struct guest_session session = {0};
	json_t *json = NULL;
	int id, code = 0;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, &o, id))
			return 1;
	}
	if (!o.n)
		return cli_usage(cli, "Expecting IMAGE:/PATH");
	if (o.json && !(json = json_array()))
		return cli_error(cli, "out of memory");
	for (unsigned i = 0; i < o.n; i++)
		code |= stat_one(cli, &o, &session, o.places[i], json);
	if (json)
		code |= cli_print_json(cli, json);
	return cli_finish_output(cli, guest_session_end(cli, &session, code));
}

const struct cmd cmd_stat = {
	.name = "stat",
	.summary = "Show what is known of files of a guest",
	.args = "IMAGE:/PATH...",
	.opts = options,
	.run = run,
};
