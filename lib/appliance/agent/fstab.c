/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fstab.h. */
#include "fstab.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* ---- lines ---- */

/* One field, with \040 for what would end it. False: there is none, or it is too long. */
static bool field(const char **at, const char *end, char *to, size_t size)
{
	const char *s = *at;
	size_t n = 0;

	while (s < end && (*s == ' ' || *s == '\t'))
		s++;
	while (s < end && *s != ' ' && *s != '\t' && n < size) {
		char c = *s++;

		if (c == '\\' && end - s >= 3 && s[0] >= '0' && s[0] <= '3' && s[1] >= '0' &&
		    s[1] <= '7' && s[2] >= '0' && s[2] <= '7') {
			c = (char)((s[0] - '0') << 6 | (s[1] - '0') << 3 | (s[2] - '0'));
			s += 3;
		}
		if (!c)
			return false;
		to[n++] = c;
	}
	*at = s;
	if (!n || n == size)
		return false;
	to[n] = 0;
	return true;
}

bool fstab_next(const char **text, struct fstab_line *line)
{
	while (**text) {
		const char *s = *text, *end = s + strcspn(s, "\r\n");

		*text = end + strspn(end, "\r\n");
		s += strspn(s, " \t");
		if (*s == '#' || s >= end)
			continue;
		*line = (struct fstab_line){0};
		if (!field(&s, end, line->spec, sizeof(line->spec)) ||
		    !field(&s, end, line->dir, sizeof(line->dir)))
			continue;
		if (field(&s, end, line->type, sizeof(line->type)))
			field(&s, end, line->options, sizeof(line->options));
		return true;
	}
	return false;
}

bool fstab_option(const struct fstab_line *line, const char *option)
{
	size_t n = strlen(option);

	for (const char *s = line->options; *s;) {
		size_t len = strcspn(s, ",");

		if (len == n && !memcmp(s, option, n))
			return true;
		s += len;
		s += *s == ',';
	}
	return false;
}

/* ---- specs ---- */

/* Digits at *s; false: none, or far too many. */
static bool number(const char **s, uint32_t *n)
{
	char *end;
	unsigned long v;

	if (**s < '0' || **s > '9')
		return false;
	v = strtoul(*s, &end, 10);
	*s = end;
	*n = (uint32_t)v;
	return v < 1000;
}

/* "a3" of sda3; one letter is enough for all the disks that there can be. */
static bool lettered(const char *s, struct fstab_spec *spec)
{
	if (*s < 'a' || *s > 'z')
		return false;
	spec->disk = (uint32_t)(*s++ - 'a');
	spec->part = 0;
	return !*s || (number(&s, &spec->part) && !*s);
}

/* "0n1p2" of nvme0n1p2 (the namespace says nothing about the order), "0p2" of mmcblk0p2. */
static bool numbered(const char *s, bool has_namespace, struct fstab_spec *spec)
{
	uint32_t ignored;

	spec->part = 0;
	if (!number(&s, &spec->disk))
		return false;
	if (has_namespace && (*s++ != 'n' || !number(&s, &ignored)))
		return false;
	return !*s || (*s++ == 'p' && number(&s, &spec->part) && !*s);
}

static bool disk(const char *s, struct fstab_spec *spec)
{
	static const char *const letters[] = {"sd", "vd", "hd", "xvd"};

	for (size_t i = 0; i < ARRAY_LEN(letters); i++)
		if (!strncmp(s, letters[i], strlen(letters[i])))
			return lettered(s + strlen(letters[i]), spec);
	if (!strncmp(s, "nvme", 4))
		return numbered(s + 4, true, spec);
	return !strncmp(s, "mmcblk", 6) && numbered(s + 6, false, spec);
}

void fstab_spec(const char *text, struct fstab_spec *spec)
{
	static const struct {
		const char *prefix;
		enum fstab_key key;
	} prefixes[] = {
		{"UUID=", FSTAB_UUID},
		{"LABEL=", FSTAB_LABEL},
		{"PARTUUID=", FSTAB_PARTUUID},
		{"PARTLABEL=", FSTAB_PARTLABEL},
		{"/dev/disk/by-uuid/", FSTAB_UUID},
		{"/dev/disk/by-label/", FSTAB_LABEL},
		{"/dev/disk/by-partuuid/", FSTAB_PARTUUID},
		{"/dev/disk/by-partlabel/", FSTAB_PARTLABEL},
	};

	*spec = (struct fstab_spec){0};
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
		size_t n = strlen(prefixes[i].prefix), len;

		if (strncmp(text, prefixes[i].prefix, n) != 0)
			continue;
		text += n;
		len = strlen(text);
		if (len >= 2 && (*text == '"' || *text == '\'') && text[len - 1] == *text) {
			text++;
			len -= 2;
		}
		spec->key = prefixes[i].key;
		memcpy(spec->value, text, len);
		spec->value[len] = 0;
		return;
	}
	if (!strncmp(text, "/dev/", 5) && disk(text + 5, spec))
		spec->key = FSTAB_DISK;
}
