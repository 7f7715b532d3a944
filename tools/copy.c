// SPDX-License-Identifier: GPL-2.0-or-later
/* What all ways of copying share; see copy.h. */
#include "copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

void copy_lose(struct copy *c, enum copy_loss kind, const char *path, int why)
{
	if (c->lost[kind].n++)
		return;
	c->lost[kind].first = strdup(path);
	c->lost[kind].why = why;
}

void copy_tell_losses(struct copy *c)
{
	static const char *const texts[LOST_KINDS] = {
		[LOST_OWNER] = "owners were not kept",
		[LOST_SETID] = "set-user-ID and set-group-ID bits were not kept",
		[LOST_XATTR] = "extended attributes were not kept",
		[LOST_DEVICE] = "devices were left out",
	};
	static const char *const rules[LOST_KINDS] = {
		[LOST_SETID] = "that takes root",
		[LOST_XATTR] = "not an attribute to be set on a host",
		[LOST_DEVICE] = "that takes root, and -a",
	};

	for (unsigned i = 0; i < LOST_KINDS; i++) {
		CLEANUP_FREE char *first = take(c->lost[i].first);
		char more[48] = "";

		if (!c->lost[i].n)
			continue;
		if (c->lost[i].n > 1)
			snprintf(more, sizeof(more), " and %lu more", c->lost[i].n - 1);
		cli_warn(c->cli, "%s: %s%s: %s", texts[i], first ? first : "?", more,
			 c->lost[i].why ? strerror(c->lost[i].why) : rules[i]);
		c->lost[i].n = 0;
	}
}

void copy_attributes(const struct copy *c, struct agent_stat *st)
{
	if (c->keep)
		return;
	st->atime = st->mtime = c->now;
	if (!S_ISLNK(st->mode))
		st->mode &= S_IFMT | (0777 & ~(uint32_t)c->umask);
}

uint32_t copy_export_flags(const struct copy *c)
{
	return TREE_CONTENT | (c->recursive ? TREE_RECURSIVE : TREE_FOLLOW) |
	       (c->all ? TREE_XATTRS : 0);
}

uint32_t copy_import_flags(const struct copy *c)
{
	return TREE_REPLACE | c->follow | (c->keep ? TREE_KEEP_OWNER : TREE_KEEP_OLD);
}

bool copy_join(char *buf, size_t size, const char *name, const char *path)
{
	size_t len = strlen(name);
	bool slash = len && *path && name[len - 1] != '/';
	int n = snprintf(buf, size, "%s%s%s", name, slash ? "/" : "", path);

	return n >= 0 && (size_t)n < size;
}

void copy_tell(struct copy *c, const struct copy_place *from, const char *path, const char *text)
{
	char full[2 * AGENT_PATH_MAX];

	copy_join(full, sizeof(full), from->shown, path);
	cli_error(c->cli, "%s: %s", full, text);
	c->failed = true;
}

/* ---- totals ---- */

static int count_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		       const char *target, struct err *err)
{
	struct copy *c = arg;

	(void)path;
	(void)target;
	(void)err;
	if (!first && S_ISREG(st->mode))
		c->job.total += min_u64(st->size, st->allocated);
	return 0;
}

int copy_out_total(struct copy *c, const struct copy_place *from, struct err *err)
{
	const struct appliance_sink sink = {.arg = c, .entry = count_entry};
	uint32_t flags = copy_export_flags(c) & ~(uint32_t)(TREE_CONTENT | TREE_XATTRS);

	return appliance_export(from->a, from->path, flags, &sink, err);
}
