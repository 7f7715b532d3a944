/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See check.h. */
#include "appliance/check.h"

#include <string.h>
#include <sys/stat.h>

#include "appliance/protocol.h"

static bool name_ok(const char *name, size_t len)
{
	if (!len || len > AGENT_NAME_MAX || memchr(name, '/', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

bool check_name(const char *name)
{
	return name_ok(name, strlen(name));
}

bool check_path(const char *path)
{
	if (!*path)
		return true;
	for (;;) {
		size_t n = strcspn(path, "/");

		if (!name_ok(path, n))
			return false;
		path += n;
		if (!*path)
			return true;
		path++;
	}
}

bool check_stat(const struct agent_stat *st)
{
	if ((st->mode & ~(uint32_t)(S_IFMT | 07777)) || st->size > INT64_MAX)
		return false;
	switch (st->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

void check_plain(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		/* The second one: U+0080 … U+009F, controls that some terminals know, too. */
		if (*p < ' ' || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
			*p = '?';
	}
}
