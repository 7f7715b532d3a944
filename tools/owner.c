// SPDX-License-Identifier: GPL-2.0-or-later
/* Owners in numbers and names, see owner.h. */
#include "owner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define DATABASE_MAX (UINT32_C(16) << 20) /* bytes of /etc/passwd or /etc/group */

/* Digits up to len or the end of the field; all ones is no owner. */
static bool parse_id(const char *text, size_t len, uint32_t *id)
{
	uint64_t value = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(text[i] - '0');
		if (value >= UINT32_MAX)
			return false;
	}
	*id = (uint32_t)value;
	return len > 0;
}

/* ---- the guest's names ---- */

/* Field n of a line, counted from 0. */
static const char *field(const char *line, size_t len, unsigned n, size_t *field_len)
{
	const char *end = line + len, *start = line, *colon;

	for (; n; n--) {
		colon = memchr(start, ':', (size_t)(end - start));
		if (!colon)
			return NULL;
		start = colon + 1;
	}
	colon = memchr(start, ':', (size_t)(end - start));
	*field_len = (size_t)((colon ? colon : end) - start);
	return start;
}

static bool field_id(const char *line, size_t len, unsigned n, uint32_t *id)
{
	size_t id_len;
	const char *text = field(line, len, n, &id_len);

	return text && parse_id(text, id_len, id);
}

bool owner_line(const char *text, const char *name, size_t len, uint32_t *id, uint32_t *gid)
{
	for (const char *line = text; *line;) {
		size_t n = strcspn(line, "\n");

		if (n > len && line[len] == ':' && !memcmp(line, name, len) &&
		    field_id(line, n, 2, id) && (!gid || field_id(line, n, 3, gid)))
			return true;
		line += n + (line[n] == '\n');
	}
	return false;
}

/* gid: of a user, or NULL for a group. */
static bool look_up(const struct cli *cli, struct appliance *a, const char *image, const char *name,
		    size_t len, uint32_t *id, uint32_t *gid, bool is_user)
{
	const char *path = is_user ? "/etc/passwd" : "/etc/group";
	CLEANUP_FREE char *text = NULL;
	struct err err = {0};
	size_t n;

	if (appliance_read_file(a, path, DATABASE_MAX, &text, &n, &err) < 0) {
		cli_error(cli, "%s:%s; owners can be given as numbers", image, err.msg);
		return false;
	}
	if (owner_line(text, name, len, id, gid))
		return true;
	cli_error(cli, "%s:%s has no '%.*s'", image, path, (int)len, name);
	return false;
}

/* ---- the form ---- */

bool owner_valid(const struct cli *cli, const char *text)
{
	const char *colon = strchr(text, ':');
	uint32_t id;

	if (!*text || !strcmp(text, ":") || (colon && strchr(colon + 1, ':'))) {
		cli_usage(cli, "'%s' is no owner: USER, USER:GROUP, USER: or :GROUP", text);
		return false;
	}
	if (colon && !colon[1] && parse_id(text, (size_t)(colon - text), &id)) {
		cli_usage(cli, "'%s' is a number, which says nothing of its group", text);
		return false;
	}
	return true;
}

bool owner_find(const struct cli *cli, struct appliance *a, const char *image, const char *text,
		struct owner *owner)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	bool login_group = colon && !colon[1];

	*owner = (struct owner){.user = len, .group = colon};
	if (owner->user && !parse_id(text, len, &owner->uid) &&
	    !look_up(cli, a, image, text, len, &owner->uid, login_group ? &owner->gid : NULL, true))
		return false;
	if (!colon || login_group)
		return true;
	len = strlen(colon + 1);
	return parse_id(colon + 1, len, &owner->gid) ||
	       look_up(cli, a, image, colon + 1, len, &owner->gid, NULL, false);
}
