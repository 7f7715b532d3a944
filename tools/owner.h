/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Owners as people write them, USER, USER:GROUP, USER: or :GROUP, in numbers or in a guest's names. */
#ifndef IMGKIT_TOOLS_OWNER_H
#define IMGKIT_TOOLS_OWNER_H

#include "guest.h"

/* What is to change. Names are those of the guest's /etc/passwd and /etc/group: numbers stand for
 * themselves, and need neither. */
struct owner {
	bool user, group;
	uint32_t uid, gid;
};

/* False: what is wrong with the form, it said. Nothing is looked up. */
bool owner_valid(const struct cli *cli, const char *text);
/* Of a valid text. False: the guest has no such name, which it said. */
bool owner_find(const struct cli *cli, struct appliance *a, const char *image, const char *text,
		struct owner *owner);

/* One line of either file with this name: its third field is a number, and for passwd the fourth.
 * text is hostile, and need not end in a newline. */
bool owner_line(const char *text, const char *name, size_t len, uint32_t *id, uint32_t *gid);

#endif
