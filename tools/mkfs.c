// SPDX-License-Identifier: GPL-2.0-or-later
/* img mkfs: a new ext2, ext3 or ext4 file system on a disk or a partition, made by the agent. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/size.h"
#include "guest.h"

enum { MKFS_FORCE = GUEST_NEXT };

/* clang-format off */
static const struct cmd_opt options[] = {
	{'t', "type", "TYPE", "ext4 (default), ext3 or ext2"},
	{'L', "label", "LABEL", "the label, of at most 16 bytes"},
	{'U', "uuid", "UUID", "the UUID (default: a random one)"},
	{'O', "features", "LIST", "features, as for mke2fs: has_journal,^metadata_csum,…"},
	{'b', "block-size", "BYTES", "1024 … 65536 (default: by the size)"},
	{'I', "inode-size", "BYTES", "of an inode (default: 256)"},
	{'i', "bytes-per-inode", "BYTES", "an inode for so many bytes (default: by the size)"},
	{'N', "inodes", "N", "the number of inodes, in place of -i"},
	{'E', "extended", "LIST", "more options: hash_seed=UUID"},
	{'m', "device", "DEV", "make it on sda1, PARTUUID=…, … (default: on the whole disk)"},
	{MKFS_FORCE, "force", NULL, "overwrite what is there"},
	{'q', "quiet", NULL, "print errors only"},
	{GUEST_OUTPUT, "output", "human|json", "how to print the result"},
	GUEST_OPT_FORMAT('f'),
	GUEST_OPTIONS_CAGE,
	{0},
};
/* clang-format on */

struct mkfs {
	struct cli *cli;
	struct guest_opts opts;
	const char *image, *device, *type, *label, *uuid;
	char options[900]; /* of OP_MKFS */
	bool force, quiet, json;
};

static bool add_options(struct mkfs *m, const char *name, const char *value)
{
	size_t len = strlen(m->options);
	int n = snprintf(m->options + len, sizeof(m->options) - len, "%s%s%s", len ? "," : "", name,
			 value);

	if (n >= 0 && (size_t)n < sizeof(m->options) - len)
		return true;
	cli_usage(m->cli, "The options of the file system are too long");
	return false;
}

static bool add_number(struct mkfs *m, const char *name, const char *what, uint64_t max)
{
	char text[24];
	uint64_t n;

	if (!cli_uint(m->cli, what, m->cli->arg, 1, max, &n))
		return false;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	return add_options(m, name, text);
}

static bool take_type(struct mkfs *m)
{
	m->type = m->cli->arg;
	if (!strcmp(m->type, "ext2") || !strcmp(m->type, "ext3") || !strcmp(m->type, "ext4"))
		return true;
	cli_usage(m->cli, "'%s' file systems cannot be made: ext2, ext3 and ext4 can", m->type);
	return false;
}

static bool take_image(struct mkfs *m)
{
	if (m->image) {
		cli_usage(m->cli, "Expecting one image file name");
		return false;
	}
	m->image = m->cli->arg;
	return true;
}

static bool take_option(struct mkfs *m, int id)
{
	struct cli *cli = m->cli;
	bool known;

	switch (id) {
	case 't':
		return take_type(m);
	case 'L':
		m->label = cli->arg;
		return true;
	case 'U':
		m->uuid = cli->arg;
		return true;
	case 'O':
	case 'E':
		return add_options(m, "", cli->arg);
	case 'b':
		return add_number(m, "block_size=", "block size", 65536);
	case 'I':
		return add_number(m, "inode_size=", "inode size", 65536);
	case 'i':
		return add_number(m, "inode_ratio=", "number of bytes per inode", 1u << 26);
	case 'N':
		return add_number(m, "inodes=", "number of inodes", UINT32_MAX);
	case 'm':
		m->device = cli->arg;
		return true;
	case MKFS_FORCE:
		return m->force = true;
	case 'q':
		return m->quiet = true;
	case GUEST_OUTPUT:
		return cli_output(cli, cli->arg, &m->json);
	case CLI_ARG:
		return take_image(m);
	default:
		return guest_option(cli, &m->opts, id, &known);
	}
}

/* ---- where ---- */

static bool look(struct mkfs *m, struct appliance *a, struct agent_volume *out)
{
	CLEANUP_FREE struct agent_volume *v = NULL;
	const struct agent_volume *found;
	struct err err = {0};
	unsigned n = 0;

	if (appliance_volumes(a, &v, &n, &err) < 0) {
		cli_error(m->cli, "%s: %s", m->image, err.msg);
		return false;
	}
	found = guest_find_volume(m->cli, v, n, m->device ? m->device : "sda");
	if (found)
		*out = *found;
	return found;
}

/* Nothing of somebody's is overwritten by accident. */
static bool may_use(struct mkfs *m, const struct agent_volume *v)
{
	char name[32];

	guest_volume_name(v, name, sizeof(name));
	if (*v->table) {
		cli_error(m->cli, "%s: there is a partition table (%s); name a partition with -m",
			  m->image, v->table);
		return false;
	}
	if (m->force || (!*v->type && !*v->usage))
		return true;
	cli_error(m->cli, "%s: %s holds %s%s%s already (use --force to overwrite it)", m->image,
		  name, *v->type ? v->type : "something", *v->label ? " " : "", v->label);
	return false;
}

/* ---- what was made ---- */

static int print_json(struct mkfs *m, const struct agent_volume *v, const char *name)
{
	json_t *o = json_object();
	int r = json_set_text(o, "device", name);

	r |= json_set_text(o, "type", v->type);
	r |= json_set_text(o, "label", v->label);
	r |= json_set_text(o, "uuid", v->uuid);
	r |= json_object_set_new(o, "size", json_integer((json_int_t)v->size));
	r |= json_object_set_new(o, "block-size", json_integer(v->fs_block));
	if (r) {
		json_decref(o);
		o = NULL;
	}
	return cli_print_json(m->cli, o);
}

static int tell(struct mkfs *m, struct appliance *a)
{
	struct agent_volume v;
	char name[32], size[32];

	if (m->quiet && !m->json)
		return 0;
	if (!look(m, a, &v))
		return 1;
	guest_volume_name(&v, name, sizeof(name));
	if (m->json)
		return print_json(m, &v, name);
	printf("%s: %s, %s, ", name, v.type, size_format(v.size, size, sizeof(size)));
	if (*v.label) {
		printf("label ");
		cli_put_text(m->cli, v.label);
		printf(", ");
	}
	printf("UUID ");
	cli_put_text(m->cli, v.uuid);
	putchar('\n');
	return 0;
}

static int make(struct mkfs *m, struct appliance *a)
{
	struct agent_volume v;
	struct err err = {0};

	if (!look(m, a, &v) || !may_use(m, &v))
		return 1;
	if (appliance_mkfs(a, v.disk, v.part, m->type, m->label, m->uuid, m->options, &err) < 0)
		return cli_error(m->cli, "%s: %s", m->image, err.msg);
	return tell(m, a);
}

static int run(struct cli *cli)
{
	struct mkfs m = {.cli = cli, .type = "ext4", .label = "", .uuid = ""};
	struct guest_place place;
	struct appliance *a;
	int id, code = 1;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(&m, id))
			return 1;
	}
	if (!m.image)
		return cli_usage(cli, "Expecting one image file name");
	if (!guest_place_parse(cli, m.image, &place))
		return 1;
	if (place.path)
		cli_usage(cli, "'%s': a file system is made on an image, not in one", m.image);
	else if (guest_launch(cli, &m.opts, &place, true, &a))
		code = guest_close(cli, a, make(&m, a));
	guest_place_free(&place);
	return cli_finish_output(cli, code);
}

const struct cmd cmd_mkfs = {
	.name = "mkfs",
	.summary = "Make an ext4, ext3 or ext2 file system on an image",
	.args = "IMAGE",
	.opts = options,
	.run = run,
};
