// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img df: how full the file systems of disks are, like df(1) and virt-df.
 *
 * Of an IMAGE all file systems, mounted one after the other; of IMAGE:/PATH the one that it is in,
 * and with --mount those that were named.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "entry.h"
#include "guest.h"

static const struct cmd_opt options[] = {
	{'h', "human-readable", NULL, "sizes like 1.5K and 234M"},
	{'i', "inodes", NULL, "inodes in place of bytes"},
	{GUEST_OUTPUT, "output", "FORMAT", "human (default) or json"},
	GUEST_OPTIONS,
	{0},
};

#define PLACES_MAX 4096u

enum { NAME, TYPE, SIZE, USED, FREE, PERCENT, MOUNT, N_CELLS };

/* A line: texts, owned. */
struct df_row {
	char *cells[N_CELLS];
};

struct df {
	struct cli *cli;
	struct guest_opts guest;
	const char *places[PLACES_MAX];
	unsigned n_places;
	bool human, inodes;
	json_t *json; /* list of the results, or NULL: human */
	struct df_row *rows;
	size_t n, cap;
};

/* ---- rows ---- */

static bool add_row(struct df *df, const struct df_row *row)
{
	if (df->n == df->cap) {
		size_t cap = df->cap ? 2 * df->cap : 16;
		struct df_row *rows = realloc(df->rows, cap * sizeof(*rows));

		if (!rows)
			return false;
		df->rows = rows;
		df->cap = cap;
	}
	df->rows[df->n++] = *row;
	return true;
}

static char *number(const struct df *df, uint64_t n)
{
	char buf[ENTRY_TEXT];

	if (df->inodes)
		snprintf(buf, sizeof(buf), "%" PRIu64, n);
	else if (df->human)
		entry_human(n, buf);
	else
		snprintf(buf, sizeof(buf), "%" PRIu64, div_up(n, 1024));
	return strdup(buf);
}

/* Rounded up: what is not empty is not at 0 %. */
static char *percent(uint64_t used, uint64_t free)
{
	long double all = (long double)used + (long double)free;
	long double part = all > 0 ? (long double)used * 100 / all : 0;
	unsigned n = (unsigned)part;
	char buf[ENTRY_TEXT];

	snprintf(buf, sizeof(buf), "%u%%", n < part ? n + 1 : n);
	return strdup(all > 0 ? buf : "-");
}

/* What there is of a file system, counted in bytes or in inodes. */
struct amount {
	uint64_t size, used, free, available;
};

static uint64_t bytes(uint64_t blocks, uint32_t block)
{
	uint64_t n;

	return mul_ok(blocks, block, &n) ? n : UINT64_MAX;
}

static struct amount amount(const struct appliance_space *s, bool inodes)
{
	struct amount a;

	if (inodes) {
		a = (struct amount){s->files, 0, s->files_free, s->files_free};
	} else {
		a.size = bytes(s->blocks, s->block);
		a.free = bytes(s->free, s->block);
		a.available = bytes(s->available, s->block);
	}
	a.used = a.size - min_u64(a.size, a.free);
	return a;
}

/* name: IMAGE:sda1; s NULL: it cannot be mounted. mount: where, or "". */
static int put_row(struct df *df, const char *name, const char *type,
		   const struct appliance_space *s, const char *mount)
{
	struct amount a = s ? amount(s, df->inodes) : (struct amount){0};
	struct df_row row = {{
		[NAME] = cli_clean(df->cli, name),
		[TYPE] = cli_clean(df->cli, type),
		[SIZE] = s ? number(df, a.size) : strdup("-"),
		[USED] = s ? number(df, a.used) : strdup("-"),
		[FREE] = s ? number(df, a.available) : strdup("-"),
		[PERCENT] = s ? percent(a.used, a.available) : strdup("-"),
		[MOUNT] = cli_clean(df->cli, mount),
	}};
	bool fine = true;

	for (int i = 0; i < N_CELLS; i++)
		fine = fine && row.cells[i];
	if (fine && add_row(df, &row))
		return 0;
	for (int i = 0; i < N_CELLS; i++)
		free(row.cells[i]);
	return cli_error(df->cli, "out of memory");
}

static int set_space(json_t *o, const struct appliance_space *s)
{
	const struct amount b = amount(s, false), n = amount(s, true);
	int r = json_set_u64(o, "block-size", s->block);

	r |= json_set_u64(o, "size", b.size);
	r |= json_set_u64(o, "used", b.used);
	r |= json_set_u64(o, "available", b.available);
	r |= json_set_u64(o, "inodes", n.size);
	r |= json_set_u64(o, "inodes-used", n.used);
	return r | json_set_u64(o, "inodes-free", n.free);
}

/* error: why there is no s. */
static int put_json(struct df *df, const struct guest_place *place, const struct agent_volume *v,
		    const struct appliance_space *s, const char *mount, const char *error)
{
	json_t *o = json_object();
	char name[32];
	const char *snapshot = v->disk ? NULL : place->snapshot;
	int r = json_set_text(o, "image", guest_disk_file(&df->guest, place, v->disk));

	guest_volume_name(v, name, sizeof(name));
	if (snapshot)
		r |= json_set_text(o, "snapshot", snapshot);
	r |= json_set_text(o, "name", name);
	r |= json_set_text(o, "type", s ? s->type : v->type);
	if (*mount)
		r |= json_set_text(o, "mountpoint", mount);
	r |= s ? set_space(o, s) : json_set_text(o, "error", error);
	if (!(r | json_array_append_new(df->json, o)))
		return 0;
	return cli_error(df->cli, "out of memory");
}

static int put(struct df *df, const struct guest_place *place, const struct agent_volume *v,
	       const struct appliance_space *s, const char *mount, const char *error)
{
	const char *snapshot = v->disk ? NULL : place->snapshot;
	CLEANUP_FREE char *name = NULL;
	char device[32];

	if (df->json)
		return put_json(df, place, v, s, mount, error);
	guest_volume_name(v, device, sizeof(device));
	if (asprintf(&name, "%s%s%s:%s", guest_disk_file(&df->guest, place, v->disk),
		     snapshot ? "@" : "", snapshot ? snapshot : "", device) < 0) {
		name = NULL;
		return cli_error(df->cli, "out of memory");
	}
	return put_row(df, name, s ? s->type : v->type, s, mount);
}

static void print_rows(struct df *df)
{
	const char *const titles[N_CELLS] = {"FILESYSTEM",
					     "TYPE",
					     df->inodes  ? "INODES"
					     : df->human ? "SIZE"
							 : "1K-BLOCKS",
					     "USED",
					     df->inodes ? "FREE" : "AVAILABLE",
					     "USE%",
					     "MOUNTED ON"};
	int widths[N_CELLS];
	bool mounts = false;

	for (int c = 0; c < N_CELLS; c++) {
		widths[c] = (int)strlen(titles[c]);
		for (size_t i = 0; i < df->n; i++) {
			int len = (int)strlen(df->rows[i].cells[c]);

			widths[c] = len > widths[c] ? len : widths[c];
			mounts |= c == MOUNT && len;
		}
	}
	for (size_t i = 0; i <= df->n; i++) {
		for (int c = 0; c < (mounts ? MOUNT : PERCENT); c++)
			printf("%*s ", c < SIZE ? -widths[c] : widths[c],
			       i ? df->rows[i - 1].cells[c] : titles[c]);
		if (mounts)
			puts(i ? df->rows[i - 1].cells[MOUNT] : titles[MOUNT]);
		else
			printf("%*s\n", widths[PERCENT],
			       i ? df->rows[i - 1].cells[PERCENT] : titles[PERCENT]);
	}
}

/* ---- what is asked for ---- */

static int show_volume(struct df *df, struct appliance *a, const struct guest_place *place,
		       const struct agent_volume *v)
{
	struct appliance_space s;
	struct err err = {0};
	int r = appliance_mount(a, v->disk, v->part, "/", MOUNT_RDONLY, NULL, &err);

	/* A type that no driver mounts is no failure. */
	if (r == -EMEDIUMTYPE)
		return put(df, place, v, NULL, "", err.msg);
	if (r == 0)
		r = appliance_statfs(a, "/", &s, &err);
	if (r == 0)
		return put(df, place, v, &s, "", NULL) | (appliance_unmount(a, &err) < 0);
	put(df, place, v, NULL, "", err.msg);
	cli_error(df->cli, "%s: %s", place->image, err.msg);
	if (r != -EPIPE)
		appliance_unmount(a, NULL);
	return 1;
}

static int show_all(struct df *df, const struct guest_place *place)
{
	CLEANUP_FREE struct agent_volume *v = NULL;
	struct appliance *a = NULL;
	struct err err = {0};
	unsigned n = 0;
	int code = 0;

	if (!guest_launch(df->cli, &df->guest, place, false, &a))
		return 1;
	if (appliance_volumes(a, &v, &n, &err) < 0)
		code = cli_error(df->cli, "%s: %s", place->image, err.msg);
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(v[i].usage, "filesystem"))
			code |= show_volume(df, a, place, &v[i]);
	return guest_close(df->cli, a, code);
}

static int show_mounted(struct df *df, struct appliance *a, const struct guest_place *place,
			const char *path)
{
	struct appliance_space s;
	struct agent_volume v = {0};
	struct err err = {0};

	if (appliance_statfs(a, path, &s, &err) < 0)
		return guest_failed(df->cli, place, NULL, err.msg);
	v.disk = s.disk;
	v.part = s.part;
	return put(df, place, &v, &s, s.path, NULL);
}

static int show(struct df *df, const char *text)
{
	struct guest_place place;
	struct appliance *a = NULL;
	int code = 0;

	if (!guest_place_parse(df->cli, text, &place))
		return 1;
	if (!place.path && !df->guest.n_mounts) {
		code = show_all(df, &place);
	} else if (!guest_open(df->cli, &df->guest, &place, false, &a)) {
		code = 1;
	} else {
		if (place.path)
			code = show_mounted(df, a, &place, place.path);
		for (unsigned i = 0; i < df->guest.n_mounts && !place.path; i++)
			code |= show_mounted(df, a, &place, df->guest.mounts[i].path);
		code = guest_close(df->cli, a, code);
	}
	guest_place_free(&place);
	return code;
}

/* ---- the command ---- */

static bool take_option(struct cli *cli, struct df *df, bool *json, int id)
{
	bool known;

	switch (id) {
	case CLI_ARG:
		if (df->n_places == PLACES_MAX)
			return !cli_usage(cli, "More than %u images", PLACES_MAX);
		df->places[df->n_places++] = cli->arg;
		return true;
	case GUEST_OUTPUT:
		return cli_output(cli, cli->arg, json);
	case 'h':
		df->human = true;
		return true;
	case 'i':
		df->inodes = true;
		return true;
	default:
		return guest_option(cli, &df->guest, id, &known);
	}
}

static int run(struct cli *cli)
{
	struct df df = {.cli = cli};
	bool json = false;
	int id, code = 0;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, &df, &json, id))
			return 1;
	}
	if (!df.n_places)
		return cli_usage(cli, "Expecting IMAGE[:/PATH]");
	if (json && !(df.json = json_array()))
		return cli_error(cli, "out of memory");
	for (unsigned i = 0; i < df.n_places; i++)
		code |= show(&df, df.places[i]);
	if (df.json)
		code |= cli_print_json(cli, df.json);
	else if (df.n)
		print_rows(&df);
	for (size_t i = 0; i < df.n; i++)
		for (int c = 0; c < N_CELLS; c++)
			free(df.rows[i].cells[c]);
	free(df.rows);
	return cli_finish_output(cli, code);
}

const struct cmd cmd_df = {
	.name = "df",
	.summary = "Show how full the file systems of guests are",
	.args = "IMAGE[:/PATH]...",
	.opts = options,
	.run = run,
};
