// SPDX-License-Identifier: GPL-2.0-or-later
/* Places in guests, and appliances for commands; see guest.h. */
#include "guest.h"
#include "io/nbd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* ---- options ---- */

static bool take_isolation(struct cli *cli, struct guest_opts *opts)
{
	static const char *const names[] = {
		[CELL_AUTO] = "auto", [CELL_VM] = "vm", [CELL_PROCESS] = "process"};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(cli->arg, names[i])) {
			opts->isolation = (enum cell_isolation)i;
			return true;
		}
	cli_usage(cli, "--isolation is auto, vm or process, not '%s'", cli->arg);
	return false;
}

/* DEV or DEV:DIR; the name of a device may hold a colon, a directory starts with a slash. */
static bool take_mount(struct cli *cli, struct guest_opts *opts)
{
	struct guest_mount *m = &opts->mounts[opts->n_mounts];
	char *colon = strstr(cli->arg, ":/");

	if (opts->n_mounts == ARRAY_LEN(opts->mounts)) {
		cli_usage(cli, "More than %zu mounts", ARRAY_LEN(opts->mounts));
		return false;
	}
	m->device = cli->arg;
	m->path = colon ? colon + 1 : "/";
	if (colon)
		*colon = 0;
	if (!opts->n_mounts && strcmp(m->path, "/") != 0) {
		cli_usage(cli, "The first mount is that of /");
		return false;
	}
	opts->n_mounts++;
	return true;
}

static bool take_more(struct cli *cli, struct guest_opts *opts)
{
	if (opts->n_more + 1 == ARRAY_LEN(opts->more)) {
		cli_usage(cli, "More than %zu disks", ARRAY_LEN(opts->more));
		return false;
	}
	opts->more[opts->n_more++] = cli->arg;
	return true;
}

bool guest_option(struct cli *cli, struct guest_opts *opts, int id, bool *known)
{
	*known = true;
	switch (id) {
	case 'f':
	case GUEST_FORMAT:
		opts->format = cli->arg;
		return true;
	case 'm':
	case GUEST_MOUNT:
		return take_mount(cli, opts);
	case 'a':
	case GUEST_ADD:
		return take_more(cli, opts);
	case 'U':
		opts->flags |= IMG_SHARE;
		return true;
	case GUEST_ISOLATION:
		return take_isolation(cli, opts);
	case GUEST_MEMORY:
		return cli_size(cli, "memory", cli->arg, &opts->memory);
	case GUEST_UNTRUSTED:
		opts->flags |= IMG_UNTRUSTED;
		return true;
	default:
		*known = false;
		return true;
	}
}

/* ---- places ---- */

static bool is_there(const char *text, size_t len)
{
	CLEANUP_FREE char *path = strndup(text, len);

	return path && access(path, F_OK) == 0;
}

/* The '@' that ends the image's name in text[0, len), or NULL. */
static const char *find_at(const char *text, size_t len)
{
	for (size_t i = len; i > 1; i--)
		if (text[i - 1] == '@' && is_there(text, i - 1))
			return text + i - 1;
	return NULL;
}

/* Names of NBD exports have a ":/" of their own. */
static const char *behind_scheme(const char *text)
{
	static const char old[] = "nbd:unix:";
	const char *slashes = nbd_is_name(text) ? strstr(text, "://") : NULL;

	if (slashes)
		return slashes + 3;
	return strncmp(text, old, sizeof(old) - 1) == 0 ? text + sizeof(old) - 1 : text;
}

/* The ':' that ends the image's name (and snapshot's), or NULL. */
static const char *find_colon(const char *text)
{
	const char *last = NULL;

	for (const char *p = strstr(behind_scheme(text), ":/"); p; p = strstr(p + 1, ":/")) {
		size_t len = (size_t)(p - text);

		if (is_there(text, len) || find_at(text, len))
			return p;
		last = p;
	}
	/* No such image: the message about it is better with the name alone. */
	return is_there(text, strlen(text)) ? NULL : last;
}

bool guest_place_parse(const struct cli *cli, const char *text, struct guest_place *place)
{
	const char *colon = find_colon(text);
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	const char *at = is_there(text, len) ? NULL : find_at(text, len);
	bool fine;

	*place = (struct guest_place){0};
	place->image = strndup(text, at ? (size_t)(at - text) : len);
	fine = place->image;
	if (at) {
		place->snapshot = strndup(at + 1, len - (size_t)(at - text) - 1);
		fine = fine && place->snapshot;
	}
	if (colon) {
		place->path = strdup(colon + 1);
		fine = fine && place->path;
	}
	if (fine)
		return true;
	guest_place_free(place);
	cli_error(cli, "out of memory");
	return false;
}

void guest_place_free(struct guest_place *place)
{
	free(place->image);
	free(place->snapshot);
	free(place->path);
	*place = (struct guest_place){0};
}

/* ---- volumes ---- */

const char *guest_disk_file(const struct guest_opts *opts, const struct guest_place *place,
			    uint32_t disk)
{
	return disk && disk <= opts->n_more ? opts->more[disk - 1] : place->image;
}

void guest_volume_name(const struct agent_volume *v, char *buf, size_t size)
{
	if (v->part)
		snprintf(buf, size, "sd%c%u", 'a' + (int)(v->disk % 26), v->part);
	else
		snprintf(buf, size, "sd%c", 'a' + (int)(v->disk % 26));
}

static bool has_prefix(const char *text, const char *prefix, const char **rest)
{
	size_t n = strlen(prefix);

	*rest = text + n;
	return strncasecmp(text, prefix, n) == 0;
}

static bool is_named(const struct agent_volume *v, const char *name)
{
	char device[32];
	const char *rest;

	if (has_prefix(name, "LABEL=", &rest))
		return *rest && !strcmp(rest, v->label);
	if (has_prefix(name, "UUID=", &rest))
		return *rest && !strcasecmp(rest, v->uuid);
	if (has_prefix(name, "PARTUUID=", &rest))
		return *rest && !strcasecmp(rest, v->part_uuid);
	if (has_prefix(name, "PARTLABEL=", &rest))
		return *rest && !strcmp(rest, v->part_name);
	if (has_prefix(name, "/dev/", &rest))
		name = rest;
	guest_volume_name(v, device, sizeof(device));
	if (!*name)
		return false;
	/* However a guest calls its first disk. */
	if ((name[0] == 'v' || name[0] == 'h') && name[1] == 'd')
		return !strcmp(name + 1, device + 1);
	return !strcmp(name, device) || !strcmp(name, v->label) || !strcasecmp(name, v->uuid);
}

static bool can_mount(const struct agent_volume *v)
{
	return !strcmp(v->usage, "filesystem");
}

static void add_names(char *text, size_t size, const struct agent_volume *v, unsigned n)
{
	size_t len = 0;

	text[0] = 0;
	for (unsigned i = 0; i < n && len < size; i++) {
		char name[32];

		if (!can_mount(&v[i]))
			continue;
		guest_volume_name(&v[i], name, sizeof(name));
		len += (size_t)snprintf(text + len, size - len, "%s%s (%s%s%.40s)", len ? ", " : "",
					name, v[i].type, *v[i].label ? " " : "", v[i].label);
	}
}

const struct agent_volume *guest_find_volume(const struct cli *cli, const struct agent_volume *v,
					     unsigned n, const char *name)
{
	const struct agent_volume *found = NULL;
	char names[512];

	for (unsigned i = 0; i < n; i++) {
		if (!is_named(&v[i], name))
			continue;
		if (found) {
			cli_error(cli, "Several volumes are called '%s'", name);
			return NULL;
		}
		found = &v[i];
	}
	if (found)
		return found;
	add_names(names, sizeof(names), v, n);
	cli_error(cli, "There is no volume '%s'; the file systems are: %s", name,
		  *names ? names : "none");
	return NULL;
}

/* ---- appliances ---- */

static void tell_fallback(const struct cli *cli, const struct appliance *a)
{
	if (*appliance_fallback(a))
		cli_warn(cli, "isolation: %s (%s)", appliance_isolation(a), appliance_fallback(a));
}

bool guest_launch(const struct cli *cli, const struct guest_opts *opts,
		  const struct guest_place *place, bool writable, struct appliance **a)
{
	struct img_open_args disks[AGENT_DISKS_MAX] = {0};
	const struct appliance_config config = {
		.disks = disks,
		.n_disks = 1 + opts->n_more,
		.memory = opts->memory,
		.isolation = opts->isolation,
	};
	struct err err = {0};

	for (unsigned i = 0; i < config.n_disks; i++) {
		disks[i] = (struct img_open_args){
			.path = i ? opts->more[i - 1] : place->image,
			.format = opts->format,
			.flags = opts->flags | (writable ? IMG_RDWR : 0),
			.snapshot = i ? NULL : place->snapshot,
		};
		if (writable && disks[i].snapshot) {
			cli_error(cli, "%s@%s: a snapshot cannot be changed", place->image,
				  place->snapshot);
			return false;
		}
		if (!cli_open_args(cli, &disks[i]))
			return false;
	}
	if (appliance_launch(&config, a, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		return false;
	}
	tell_fallback(cli, *a);
	return true;
}

static int mount_named(const struct cli *cli, const struct guest_opts *opts, struct appliance *a,
		       const struct agent_volume *v, unsigned n, uint32_t flags)
{
	struct err err = {0};

	for (unsigned i = 0; i < opts->n_mounts; i++) {
		const struct guest_mount *m = &opts->mounts[i];
		const struct agent_volume *vol = guest_find_volume(cli, v, n, m->device);

		if (!vol)
			return 1;
		if (appliance_mount(a, vol->disk, vol->part, m->path, flags, NULL, &err) < 0)
			return cli_error(cli, "Could not mount %s: %s", m->device, err.msg);
	}
	return 0;
}

static int mount_root(const struct cli *cli, struct appliance *a, const struct agent_volume *v,
		      unsigned n, uint32_t flags)
{
	struct appliance_root root = {0};
	struct err err = {0};
	char names[512];
	int r = appliance_mount_root(a, flags, &root, &err);

	if (r < 0) {
		add_names(names, sizeof(names), v, n);
		return cli_error(cli, "%s; say what to mount with -m: %s", err.msg,
				 *names ? names : "there is no file system");
	}
	for (unsigned i = 0; i < root.n_notes; i++)
		cli_warn(cli, "%s", root.notes[i]);
	appliance_root_free(&root);
	return 0;
}

/* The only file system that there is, or NULL. */
static const struct agent_volume *only_one(const struct agent_volume *v, unsigned n)
{
	const struct agent_volume *found = NULL;

	for (unsigned i = 0; i < n; i++) {
		if (!can_mount(&v[i]))
			continue;
		if (found)
			return NULL;
		found = &v[i];
	}
	return found;
}

static int mount_all(const struct cli *cli, const struct guest_opts *opts, struct appliance *a,
		     uint32_t flags)
{
	CLEANUP_FREE struct agent_volume *v = NULL;
	const struct agent_volume *one;
	struct err err = {0};
	unsigned n = 0;

	if (appliance_volumes(a, &v, &n, &err) < 0)
		return cli_error(cli, "%s", err.msg);
	if (opts->n_mounts)
		return mount_named(cli, opts, a, v, n, flags);
	one = only_one(v, n);
	if (!one)
		return mount_root(cli, a, v, n, flags);
	if (appliance_mount(a, one->disk, one->part, "/", flags, NULL, &err) < 0)
		return cli_error(cli, "%s", err.msg);
	return 0;
}

bool guest_open(const struct cli *cli, const struct guest_opts *opts,
		const struct guest_place *place, bool writable, struct appliance **a)
{
	*a = NULL;
	if (!guest_launch(cli, opts, place, writable, a))
		return false;
	if (mount_all(cli, opts, *a, writable ? 0 : MOUNT_RDONLY) == 0)
		return true;
	appliance_close(*a);
	*a = NULL;
	return false;
}

int guest_close(const struct cli *cli, struct appliance *a, int code)
{
	struct err err = {0};

	if (appliance_finish(a, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		code = 1;
	}
	appliance_close(a);
	return code;
}

/* ---- sessions ---- */

static bool same_disk(const struct guest_place *a, const struct guest_place *b)
{
	return !strcmp(a->image, b->image) &&
	       !strcmp(a->snapshot ? a->snapshot : "", b->snapshot ? b->snapshot : "");
}

bool guest_session_at(const struct cli *cli, const struct guest_opts *opts, struct guest_session *s,
		      const char *text, bool needs_path)
{
	struct guest_place place;

	if (!guest_place_parse(cli, text, &place))
		return false;
	if (needs_path && !place.path) {
		cli_usage(cli, "'%s' names no file: IMAGE:/PATH is expected", text);
		guest_place_free(&place);
		return false;
	}
	if (s->a && !same_disk(&s->place, &place)) {
		s->code = guest_close(cli, s->a, s->code);
		s->a = NULL;
	}
	guest_place_free(&s->place);
	s->place = place;
	return s->a || guest_open(cli, opts, &s->place, false, &s->a);
}

int guest_session_end(const struct cli *cli, struct guest_session *s, int code)
{
	if (s->a)
		code = guest_close(cli, s->a, code);
	s->a = NULL;
	guest_place_free(&s->place);
	return code | s->code;
}

int guest_failed(const struct cli *cli, const struct guest_place *place, const char *path,
		 const char *what)
{
	const char *top = place->path ? place->path : "/";
	const char *slash = path && *path && top[strlen(top) - 1] != '/' ? "/" : "";
	CLEANUP_FREE char *full = NULL;
	size_t len;

	if (asprintf(&full, "%s%s%s", top, slash, path ? path : "") < 0) {
		full = NULL;
		return cli_error(cli, "%s: %s", top, what);
	}
	len = strlen(full);
	if (!strncmp(what, full, len) && !strncmp(what + len, ": ", 2))
		what += len + 2;
	return cli_error(cli, "%s%s%s:%s: %s", place->image, place->snapshot ? "@" : "",
			 place->snapshot ? place->snapshot : "", full, what);
}
