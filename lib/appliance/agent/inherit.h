/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a new inode has from its directory, as Linux does it: the group of one with the set-group-ID
 * bit, and this bit if it is a directory; and a default access control list, which becomes the
 * inode's, and a directory's default again.
 */
#ifndef IMGKIT_AGENT_INHERIT_H
#define IMGKIT_AGENT_INHERIT_H

#include "tree.h"

struct inherited {
	size_t len; /* 0: there is no list */
	unsigned char acl[AGENT_XATTR_MAX];
};

/* Before it is created: what changes. */
int inherit_from(const struct tree *t, struct node dir, struct fs_new *what, struct inherited *h,
		 struct err *err);
/* After that; changes h. When it fails the inode is not as it should be. */
int inherit_to(struct fs *fs, uint64_t ino, const struct fs_new *what, struct inherited *h,
	       struct err *err);

#endif
