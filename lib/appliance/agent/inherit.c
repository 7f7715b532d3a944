/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a new inode has from its directory: the group, and access control lists; see inherit.h. */
#include "inherit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define ACL_DEFAULT "system.posix_acl_default"
#define ACL_ACCESS  "system.posix_acl_access"

/* As getxattr(2) gives it: le32 version, and entries of le16 tag, le16 permissions, le32 id. */
struct entry {
	le16 tag, perm;
	le32 id;
};

enum { TAG_USER = 0x01, TAG_GROUP = 0x04, TAG_MASK = 0x10, TAG_OTHER = 0x20 };

static bool has_tag(const struct inherited *h, unsigned tag)
{
	struct entry e;

	for (size_t at = 4; at + sizeof(e) <= h->len; at += sizeof(e)) {
		memcpy(&e, h->acl + at, sizeof(e));
		if (le16_get(e.tag) == tag)
			return true;
	}
	return false;
}

/* Nobody gets more than the mode that was asked for allows. */
static void mask(struct inherited *h, uint32_t mode)
{
	unsigned group = has_tag(h, TAG_MASK) ? TAG_MASK : TAG_GROUP;
	struct entry e;

	for (size_t at = 4; at + sizeof(e) <= h->len; at += sizeof(e)) {
		unsigned tag, allowed;

		memcpy(&e, h->acl + at, sizeof(e));
		tag = le16_get(e.tag);
		allowed = tag == TAG_USER    ? mode >> 6
			  : tag == group     ? mode >> 3
			  : tag == TAG_OTHER ? mode
					     : 7;
		e.perm = le16_make((uint16_t)(le16_get(e.perm) & allowed & 7));
		memcpy(h->acl + at, &e, sizeof(e));
	}
}

int inherit_from(const struct tree *t, struct node dir, struct fs_new *what, struct inherited *h,
		 struct err *err)
{
	struct fs *fs = tree_fs(t, dir);
	struct agent_stat st;
	int r = fs->driver->stat(fs, dir.ino, &st, err);

	h->len = 0;
	if (r < 0)
		return r;
	if (st.mode & S_ISGID) {
		what->gid = st.gid;
		if (S_ISDIR(what->mode))
			what->mode |= S_ISGID;
	}
	if (S_ISLNK(what->mode))
		return 0;
	r = fs->driver->xattr_get(fs, dir.ino, ACL_DEFAULT, h->acl, sizeof(h->acl), &h->len, err);
	if (r != -ENODATA && r != -ENOTSUP)
		return r;
	h->len = 0;
	if (err)
		err->msg[0] = 0;
	return 0;
}

int inherit_to(struct fs *fs, uint64_t ino, const struct fs_new *what, struct inherited *h,
	       struct err *err)
{
	const struct fs_driver *d = fs->driver;
	int r = 0;

	if (!h->len)
		return 0;
	if (S_ISDIR(what->mode))
		r = d->xattr_set(fs, ino, ACL_DEFAULT, h->acl, h->len, err);
	mask(h, what->mode);
	return r < 0 ? r : d->xattr_set(fs, ino, ACL_ACCESS, h->acl, h->len, err);
}
