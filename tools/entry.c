// SPDX-License-Identifier: GPL-2.0-or-later
/* Inodes of guests as text and as JSON; see entry.h. */
#include "entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"

static const struct {
	uint32_t mode;
	char letter;
	const char *type, *word;
} types[] = {
	{S_IFREG, '-', "regular file", "file"},
	{S_IFDIR, 'd', "directory", "directory"},
	{S_IFLNK, 'l', "symbolic link", "symlink"},
	{S_IFBLK, 'b', "block special file", "block"},
	{S_IFCHR, 'c', "character special file", "char"},
	{S_IFIFO, 'p', "fifo", "fifo"},
	{S_IFSOCK, 's', "socket", "socket"},
	{0, '?', "unknown", "unknown"},
};

static unsigned type_index(uint32_t mode)
{
	unsigned i = 0;

	while (i + 1 < ARRAY_LEN(types) && types[i].mode != (mode & S_IFMT))
		i++;
	return i;
}

const char *entry_type(uint32_t mode)
{
	return types[type_index(mode)].type;
}

const char *entry_word(uint32_t mode)
{
	return types[type_index(mode)].word;
}

const char *entry_mode(uint32_t mode, char buf[ENTRY_TEXT])
{
	static const struct {
		uint32_t bit;
		unsigned at;
		char with, without; /* "x" */
	} special[] = {{S_ISUID, 3, 's', 'S'}, {S_ISGID, 6, 's', 'S'}, {S_ISVTX, 9, 't', 'T'}};

	buf[0] = types[type_index(mode)].letter;
	for (unsigned i = 0; i < 9; i++)
		buf[1 + i] = mode >> (8 - i) & 1 ? "rwx"[i % 3] : '-';
	for (unsigned i = 0; i < ARRAY_LEN(special); i++)
		if (mode & special[i].bit)
			buf[special[i].at] =
				buf[special[i].at] == 'x' ? special[i].with : special[i].without;
	buf[10] = 0;
	return buf;
}

const char *entry_human(uint64_t bytes, char buf[ENTRY_TEXT])
{
	uint64_t unit = 1, tenths;
	unsigned n = 0;

	for (; n < 6 && div_up(bytes, unit) >= 1024; n++)
		unit *= 1024;
	tenths = bytes / unit * 10 + div_up(bytes % unit * 10, unit);
	if (!n)
		snprintf(buf, ENTRY_TEXT, "%" PRIu64, bytes);
	else if (tenths < 100)
		snprintf(buf, ENTRY_TEXT, "%" PRIu64 ".%" PRIu64 "%c", tenths / 10, tenths % 10,
			 " KMGTPE"[n]);
	else
		snprintf(buf, ENTRY_TEXT, "%" PRIu64 "%c", div_up(bytes, unit), " KMGTPE"[n]);
	return buf;
}

const char *entry_time(struct agent_time t, bool full, char buf[ENTRY_TEXT])
{
	time_t sec = (time_t)t.sec;
	char zone[16];
	struct tm tm;
	size_t n;

	if (!localtime_r(&sec, &tm)) {
		snprintf(buf, ENTRY_TEXT, "@%" PRId64, t.sec);
		return buf;
	}
	n = strftime(buf, ENTRY_TEXT, full ? "%F %T" : "%F %H:%M", &tm);
	if (full) {
		strftime(zone, sizeof(zone), "%z", &tm);
		snprintf(buf + n, ENTRY_TEXT - n, ".%09" PRIu32 " %s", t.nsec, zone);
	}
	return buf;
}

/* ---- JSON ---- */

static int set_time(json_t *o, const char *key, struct agent_time t)
{
	time_t sec = (time_t)t.sec;
	char text[ENTRY_TEXT];
	struct tm tm;
	size_t n;

	if (!gmtime_r(&sec, &tm))
		return json_object_set_new(o, key, json_integer((json_int_t)t.sec));
	n = strftime(text, sizeof(text), "%FT%T", &tm);
	snprintf(text + n, sizeof(text) - n, ".%09" PRIu32 "Z", t.nsec);
	return json_set_text(o, key, text);
}

static int set_device(json_t *o, const struct agent_stat *st)
{
	if (!S_ISBLK(st->mode) && !S_ISCHR(st->mode))
		return 0;
	return json_set_u64(o, "major", st->rdev_major) | json_set_u64(o, "minor", st->rdev_minor);
}

json_t *entry_json(const char *path, const struct agent_stat *st, const char *target)
{
	json_t *o = json_object();
	char mode[8];
	int r;

	snprintf(mode, sizeof(mode), "%04o", (unsigned)(st->mode & 07777));
	r = json_set_text(o, "path", path);
	r |= json_set_text(o, "type", entry_word(st->mode));
	r |= json_set_text(o, "mode", mode);
	r |= json_set_u64(o, "links", st->nlink);
	r |= json_set_u64(o, "uid", st->uid);
	r |= json_set_u64(o, "gid", st->gid);
	r |= json_set_u64(o, "size", st->size);
	r |= json_set_u64(o, "allocated", st->allocated);
	r |= set_device(o, st);
	r |= json_set_u64(o, "mount", st->dev);
	r |= json_set_u64(o, "inode", st->ino);
	r |= json_set_u64(o, "flags", st->flags);
	r |= set_time(o, "atime", st->atime);
	r |= set_time(o, "mtime", st->mtime);
	r |= set_time(o, "ctime", st->ctime);
	r |= set_time(o, "btime", st->btime);
	if (target && *target)
		r |= json_set_text(o, "target", target);
	if (!r)
		return o;
	json_decref(o);
	return NULL;
}

bool entry_is_text(const void *value, size_t n)
{
	const unsigned char *p = value;

	if (n && !p[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		if (p[i] < 0x20 || p[i] > 0x7e)
			return false;
	return n > 0;
}

static char *hex(const void *value, size_t n)
{
	const unsigned char *p = value;
	char *text = malloc(2 * n + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", p[i]);
	text[2 * n] = 0;
	return text;
}

int entry_json_xattr(json_t *entry, const char *name, const void *value, size_t n)
{
	bool is_text = entry_is_text(value, n);
	CLEANUP_FREE char *text = is_text ? strndup(value, n) : hex(value, n);
	json_t *list = json_object_get(entry, "xattrs"), *o = json_object();
	int r = text ? 0 : -1;

	if (!list)
		r |= json_object_set_new(entry, "xattrs", list = json_array());
	r |= json_set_text(o, "name", name);
	if (text)
		r |= json_set_text(o, is_text ? "text" : "hex", text);
	return r | json_array_append_new(list, o);
}
