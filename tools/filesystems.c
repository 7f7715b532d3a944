// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img filesystems: disks, partitions and what is on them, like virt-filesystems.
 *
 * The table is made of columns: a name and a function that says what stands there for a volume.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "entry.h"
#include "guest.h"

enum { ALL = GUEST_NEXT, PARTS, NO_TITLE };

static const struct cmd_opt options[] = {
	{ALL, "all", NULL, "also disks, partitions, and what is no file system"},
	{PARTS, "parts", NULL, "the partitions, whatever is on them"},
	{'l', "long", NULL, "more columns: place, partition's type, UUID and name"},
	{'h', "human-readable", NULL, "sizes like 1.5K and 234M"},
	{NO_TITLE, "no-title", NULL, "without the line of titles"},
	{GUEST_OUTPUT, "output", "FORMAT", "human (default) or json"},
	GUEST_OPTIONS,
	{0},
};

struct fs_opts {
	struct guest_opts guest;
	const char *image;
	bool all, parts, list, human, no_title, json;
};

/* ---- columns ---- */

#define CELL 288 /* room for each text */

static const char *kind(const struct agent_volume *v)
{
	if (!strcmp(v->usage, "filesystem"))
		return "filesystem";
	if (*v->type)
		return *v->usage ? v->usage : "other";
	return v->part ? "partition" : "disk";
}

static void cell_name(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	guest_volume_name(v, buf, CELL);
}

static void cell_kind(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", kind(v));
}

static void cell_content(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", v->type);
}

static void cell_label(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", v->label);
}

static void cell_uuid(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", v->uuid);
}

static void put_bytes_text(const struct fs_opts *o, uint64_t bytes, char *buf)
{
	if (o->human)
		entry_human(bytes, buf);
	else
		snprintf(buf, CELL, "%" PRIu64, bytes);
}

static void cell_size(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	put_bytes_text(o, v->size, buf);
}

static void cell_parent(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	const struct agent_volume disk = {.disk = v->disk};

	(void)o;
	if (v->part)
		guest_volume_name(&disk, buf, CELL);
}

static void cell_offset(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	put_bytes_text(o, v->offset, buf);
}

static void cell_part_type(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", v->part ? v->part_type : v->table);
}

static void cell_part_uuid(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", v->part_uuid);
}

static void cell_part_name(const struct fs_opts *o, const struct agent_volume *v, char *buf)
{
	(void)o;
	snprintf(buf, CELL, "%s", v->part_name);
}

static const struct column {
	const char *title;
	void (*cell)(const struct fs_opts *o, const struct agent_volume *v, char *buf);
	bool list;  /* with -l only */
	bool right; /* a number */
} columns[] = {
	{"NAME", cell_name, false, false},          {"TYPE", cell_kind, false, false},
	{"CONTENT", cell_content, false, false},    {"LABEL", cell_label, false, false},
	{"UUID", cell_uuid, false, false},          {"SIZE", cell_size, false, true},
	{"PARENT", cell_parent, false, false},      {"OFFSET", cell_offset, true, true},
	{"PART-TYPE", cell_part_type, true, false}, {"PART-UUID", cell_part_uuid, true, false},
	{"PART-NAME", cell_part_name, true, false},
};

/* The text of a cell, cleaned; the caller frees. Empty ones are "-", so that words can be counted. */
static char *cell(const struct cli *cli, const struct fs_opts *o, const struct column *c,
		  const struct agent_volume *v)
{
	char buf[CELL] = "";

	if (!v)
		return strdup(c->title);
	c->cell(o, v, buf);
	return *buf ? cli_clean(cli, buf) : strdup("-");
}

static bool is_shown(const struct fs_opts *o, const struct agent_volume *v)
{
	if (o->all)
		return true;
	return o->parts ? v->part != 0 : !strcmp(v->usage, "filesystem");
}

/* v NULL: the titles. */
static void put_row(const struct cli *cli, const struct fs_opts *o, const struct agent_volume *v,
		    const int *widths)
{
	const char *gap = "";

	for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
		const struct column *c = &columns[i];
		bool last = i + 1 == ARRAY_LEN(columns) || (!o->list && columns[i + 1].list);
		CLEANUP_FREE char *text = c->list && !o->list ? NULL : cell(cli, o, c, v);

		if (text)
			printf("%s%*s", gap, c->right ? widths[i] : last ? 0 : -widths[i], text);
		gap = "  ";
	}
	putchar('\n');
}

static int put_table(const struct cli *cli, const struct fs_opts *o, const struct agent_volume *v,
		     unsigned n)
{
	int widths[ARRAY_LEN(columns)] = {0};

	for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
		if (!o->no_title)
			widths[i] = (int)strlen(columns[i].title);
		for (unsigned j = 0; j < n; j++) {
			CLEANUP_FREE char *text = cell(cli, o, &columns[i], &v[j]);
			int len = text ? (int)strlen(text) : 0;

			if (is_shown(o, &v[j]) && len > widths[i])
				widths[i] = len;
		}
	}
	if (!o->no_title)
		put_row(cli, o, NULL, widths);
	for (unsigned j = 0; j < n; j++)
		if (is_shown(o, &v[j]))
			put_row(cli, o, &v[j], widths);
	return 0;
}

/* ---- JSON ---- */

static int set_if(json_t *o, const char *key, const char *text)
{
	return *text ? json_set_text(o, key, text) : 0;
}

static int set_number(json_t *o, const char *key, uint64_t n)
{
	return n ? json_set_u64(o, key, n) : 0;
}

static int set_partition(json_t *o, const struct agent_volume *v)
{
	const struct agent_volume disk = {.disk = v->disk};
	char parent[32];
	int r;

	if (!v->part)
		return set_if(o, "table", v->table) | set_if(o, "table-id", v->part_uuid) |
		       set_number(o, "sector-size", v->sector);
	guest_volume_name(&disk, parent, sizeof(parent));
	r = json_set_text(o, "parent", parent);
	r |= json_set_u64(o, "partition", v->part);
	r |= set_if(o, "partition-type", v->part_type);
	r |= set_if(o, "partition-uuid", v->part_uuid);
	r |= set_if(o, "partition-name", v->part_name);
	return r | json_set_bool(o, "bootable", v->part_flags & 1);
}

static json_t *volume_json(const struct agent_volume *v, const char *file)
{
	json_t *o = json_object();
	char name[32];
	int r;

	guest_volume_name(v, name, sizeof(name));
	r = json_set_text(o, "name", name);
	r |= json_set_text(o, "image", file);
	r |= json_set_text(o, "type", kind(v));
	r |= json_set_u64(o, "disk", v->disk);
	r |= json_set_u64(o, "offset", v->offset);
	r |= json_set_u64(o, "size", v->size);
	r |= set_partition(o, v);
	r |= set_if(o, "usage", v->usage);
	r |= set_if(o, "content", v->type);
	r |= set_if(o, "version", v->version);
	r |= set_if(o, "label", v->label);
	r |= set_if(o, "uuid", v->uuid);
	r |= set_number(o, "content-size", v->fs_size);
	r |= set_number(o, "block-size", v->fs_block);
	if (!r)
		return o;
	json_decref(o);
	return NULL;
}

static int put_json(const struct cli *cli, const struct fs_opts *o, const struct guest_place *place,
		    const struct appliance *a, const struct agent_volume *v, unsigned n)
{
	json_t *top = json_object(), *list = json_array();
	int r = json_set_text(top, "isolation", appliance_isolation(a));

	if (*appliance_fallback(a))
		r |= json_set_text(top, "fallback", appliance_fallback(a));
	for (unsigned i = 0; i < n; i++)
		if (is_shown(o, &v[i]))
			r |= json_array_append_new(
				list,
				volume_json(&v[i], guest_disk_file(&o->guest, place, v[i].disk)));
	r |= json_object_set_new(top, "volumes", list);
	if (r) {
		json_decref(top);
		top = NULL;
	}
	return cli_print_json(cli, top);
}

/* ---- the command ---- */

static bool take_option(struct cli *cli, struct fs_opts *o, int id)
{
	bool known;

	switch (id) {
	case CLI_ARG:
		if (o->image)
			return !cli_usage(cli, "Unexpected argument '%s'", cli->arg);
		o->image = cli->arg;
		return true;
	case GUEST_OUTPUT:
		return cli_output(cli, cli->arg, &o->json);
	case ALL:
		o->all = true;
		return true;
	case PARTS:
		o->parts = true;
		return true;
	case 'l':
		o->list = true;
		return true;
	case 'h':
		o->human = true;
		return true;
	case NO_TITLE:
		o->no_title = true;
		return true;
	default:
		return guest_option(cli, &o->guest, id, &known);
	}
}

static int show(struct cli *cli, const struct fs_opts *o)
{
	CLEANUP_FREE struct agent_volume *v = NULL;
	struct guest_place place = {0};
	struct appliance *a = NULL;
	struct err err = {0};
	unsigned n = 0;
	int code = 1;

	if (!guest_place_parse(cli, o->image, &place))
		return 1;
	if (place.path)
		cli_usage(cli, "'%s' names a file: IMAGE is expected", o->image);
	else if (guest_launch(cli, &o->guest, &place, false, &a)) {
		if (appliance_volumes(a, &v, &n, &err) < 0)
			code = cli_error(cli, "%s: %s", o->image, err.msg);
		else
			code = o->json ? put_json(cli, o, &place, a, v, n)
				       : put_table(cli, o, v, n);
		code = guest_close(cli, a, code);
	}
	guest_place_free(&place);
	return code;
}

static int run(struct cli *cli)
{
	struct fs_opts o = {0};
	int id;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, &o, id))
			return 1;
	}
	if (!o.image)
		return cli_usage(cli, "Expecting IMAGE");
	return cli_finish_output(cli, show(cli, &o));
}

const struct cmd cmd_filesystems = {
	.name = "filesystems",
	.summary = "List disks, partitions and file systems of a guest",
	.args = "IMAGE",
	.opts = options,
	.run = run,
};
