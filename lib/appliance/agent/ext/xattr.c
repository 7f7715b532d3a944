/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes, in the inode, in a block of their own or in inodes: the library's work. It
 * also translates ACLs between the format of the disk and that of the system calls, which is ours.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"
#include "appliance/protocol.h"

#define ACL_ACCESS    "system.posix_acl_access"
#define ACL_DEFAULT   "system.posix_acl_default"
#define ACL_BYTES_MAX 65536u

/* ---- ACLs, as getxattr gives them ---- */

struct acl_entry {
	le16 tag, perm;
	le32 id;
};

struct acl {
	le32 version; /* 2 */
	struct acl_entry entries[];
};

enum {
	ACL_USER_OBJ = 1,
	ACL_USER = 2,
	ACL_GROUP_OBJ = 4,
	ACL_GROUP = 8,
	ACL_MASK = 16,
	ACL_OTHER = 32
};

static struct acl_entry *acl_find(struct acl *acl, size_t len, unsigned tag)
{
	for (size_t i = 0; len >= 4 && i < (len - 4) / sizeof(struct acl_entry); i++)
		if (le16_get(acl->entries[i].tag) == tag)
			return &acl->entries[i];
	return NULL;
}

/* The mode that an ACL means; minimal: it says no more than that. */
static int acl_mode(const void *buf, size_t len, uint16_t *mode, bool *minimal, struct err *err)
{
	struct acl *acl = (struct acl *)(uintptr_t)buf;
	struct acl_entry *user = acl_find(acl, len, ACL_USER_OBJ);
	struct acl_entry *group = acl_find(acl, len, ACL_GROUP_OBJ);
	struct acl_entry *other = acl_find(acl, len, ACL_OTHER);
	struct acl_entry *mask = acl_find(acl, len, ACL_MASK);

	if (len < 4 || (len - 4) % sizeof(struct acl_entry) || le32_get(acl->version) != 2 ||
	    !user || !group || !other)
		return err_set(err, EINVAL, "an ACL of %zu bytes that is not well-formed", len);
	*minimal = len == 4 + 3 * sizeof(struct acl_entry);
	if (!mask && !*minimal)
		return err_set(err, EINVAL, "an ACL with names and without a mask");
	*mode &= (uint16_t)~0777;
	*mode |= (uint16_t)((le16_get(user->perm) & 7) << 6 |
			    (le16_get(mask ? mask->perm : group->perm) & 7) << 3 |
			    (le16_get(other->perm) & 7));
	return 0;
}

/* The entries that the mode speaks of follow it. */
static void acl_apply(struct acl *acl, size_t len, uint16_t mode)
{
	struct acl_entry *user = acl_find(acl, len, ACL_USER_OBJ);
	struct acl_entry *group = acl_find(acl, len, ACL_MASK);
	struct acl_entry *other = acl_find(acl, len, ACL_OTHER);

	if (!group)
		group = acl_find(acl, len, ACL_GROUP_OBJ);
	if (user)
		user->perm = le16_make(mode >> 6 & 7);
	if (group)
		group->perm = le16_make(mode >> 3 & 7);
	if (other)
		other->perm = le16_make(mode & 7);
}

/* The library has 0 where the system calls have "no id". */
static void acl_fill(struct acl *acl, size_t len)
{
	for (size_t i = 0; len >= 4 && i < (len - 4) / sizeof(struct acl_entry); i++)
		if (!(le16_get(acl->entries[i].tag) & (ACL_USER | ACL_GROUP)))
			acl->entries[i].id = le32_make(UINT32_MAX);
}

/* ---- reading ---- */

static int xattrs_open(struct ext *x, uint64_t ino, struct ext2_xattr_handle **h, struct err *err)
{
	struct ext_inode inode;
	errcode_t code;
	int r = ext_inode_read(x, ino, &inode, err);

	if (r < 0)
		return r;
	code = ext2fs_xattrs_open(x->e2, inode.ino, h);
	if (code)
		return ext_error(x, code, err, "the attributes of", inode.ino);
	code = ext2fs_xattrs_read(*h);
	if (code)
		ext2fs_xattrs_close(h);
	return ext_error(x, code, err, "the attributes of", inode.ino);
}

/* What the filesystem itself keeps there. */
static bool is_hidden(const char *name)
{
	return strcmp(name, "system.data") == 0 || !strchr(name, '.') ||
	       strlen(name) > AGENT_NAME_MAX;
}

int ext_xattr_get(struct fs *fs, uint64_t ino, const char *name, void *buf, size_t size,
		  size_t *len, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext2_xattr_handle *h;
	void *value = NULL;
	errcode_t code;
	int r = xattrs_open(x, ino, &h, err);

	if (r < 0)
		return r;
	code = is_hidden(name) ? EXT2_ET_EA_KEY_NOT_FOUND : ext2fs_xattr_get(h, name, &value, len);
	ext2fs_xattrs_close(&h);
	if (code == EXT2_ET_EA_KEY_NOT_FOUND)
		return err_set(err, ENODATA, "inode %u has no attribute %s", (uint32_t)ino, name);
	if (code)
		return ext_error(x, code, err, "an attribute of", (uint32_t)ino);
	if (*len > size)
		r = err_set(err, ERANGE, "attribute %s of inode %u has %zu bytes", name,
			    (uint32_t)ino, *len);
	else if (*len)
		memcpy(buf, value, *len);
	if (r == 0 && (strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0))
		acl_fill(buf, *len);
	ext2fs_free_mem(&value);
	return r;
}

struct names {
	char *buf;
	size_t size, len;
	bool full;
};

static int add_name(char *name, char *value, size_t value_len, void *data)
{
	struct names *n = data;
	size_t len = strlen(name) + 1;

	(void)value;
	(void)value_len;
	if (is_hidden(name))
		return 0;
	if (len > n->size - n->len) {
		n->full = true;
		return XATTR_ABORT;
	}
	memcpy(n->buf + n->len, name, len);
	n->len += len;
	return 0;
}

int ext_xattr_list(struct fs *fs, uint64_t ino, char *buf, size_t size, size_t *len,
		   struct err *err)
{
	struct ext *x = ext_of(fs);
	struct names n = {buf, size, 0, false};
	struct ext2_xattr_handle *h;
	errcode_t code;
	int r = xattrs_open(x, ino, &h, err);

	if (r < 0)
		return r;
	code = ext2fs_xattrs_iterate(h, add_name, &n);
	ext2fs_xattrs_close(&h);
	*len = n.len;
	if (n.full)
		return err_set(err, ERANGE, "the attribute names of inode %u take over %zu bytes",
			       (uint32_t)ino, size);
	return ext_error(x, code, err, "the attributes of", (uint32_t)ino);
}

/* ---- changing ---- */

/* What may be set on such a file, as the kernel has it. */
static int check_name(const struct ext_inode *inode, const char *name, struct err *err)
{
	static const char *const families[] = {"user.", "trusted.", "security."};
	const uint16_t mode = inode->u.small.i_mode;

	if (strlen(name) > AGENT_NAME_MAX)
		return err_set(err, ERANGE, "an attribute name of %zu bytes", strlen(name));
	if (strcmp(name, ACL_ACCESS) == 0 && !LINUX_S_ISLNK(mode))
		return 0;
	if (strcmp(name, ACL_DEFAULT) == 0 && LINUX_S_ISDIR(mode))
		return 0;
	if (strncmp(name, "user.", 5) == 0 && !LINUX_S_ISREG(mode) && !LINUX_S_ISDIR(mode))
		return err_set(err, EPERM, "inode %u: only files and directories have %s",
			       inode->ino, name);
	for (size_t i = 0; i < ARRAY_LEN(families); i++)
		if (strncmp(name, families[i], strlen(families[i])) == 0 &&
		    name[strlen(families[i])])
			return 0;
	return err_set(err, EOPNOTSUPP, "inode %u cannot have an attribute %s", inode->ino, name);
}

static int change(struct ext *x, uint64_t ino, const char *name, const void *buf, size_t len,
		  struct err *err)
{
	struct ext2_xattr_handle *h;
	void *old = NULL;
	errcode_t code;
	int r = xattrs_open(x, ino, &h, err);

	if (r < 0)
		return r;
	if (buf) {
		code = ext2fs_xattr_set(h, name, buf, len);
	} else {
		/* The library is content when there is none. */
		code = ext2fs_xattr_get(h, name, &old, &len);
		if (code == 0)
			code = ext2fs_xattr_remove(h, name);
		ext2fs_free_mem(&old);
	}
	ext2fs_xattrs_close(&h);
	if (code == EXT2_ET_EA_KEY_NOT_FOUND)
		return err_set(err, ENODATA, "inode %u has no attribute %s", (uint32_t)ino, name);
	return ext_error(x, code, err, "an attribute of", (uint32_t)ino);
}

/* The inode to change, judged. */
static int open_inode(struct ext *x, uint64_t ino, const char *name, struct ext_inode *inode,
		      struct err *err)
{
	int r = ext_inode_read(x, ino, inode, err);

	if (r == 0)
		r = ext_may_change(inode, err);
	if (r == 0)
		r = check_name(inode, name, err);
	return r < 0 ? r : ext_begin(x, err);
}

static int set_ctime(struct ext *x, uint64_t ino, uint16_t mode, struct err *err)
{
	struct ext_inode inode;
	int r = ext_inode_read(x, ino, &inode, err);

	if (r < 0)
		return r;
	inode.u.small.i_mode = mode;
	ext_set_time(&inode, EXT_CTIME, agent_now());
	return ext_inode_write(x, &inode, err);
}

int ext_xattr_set(struct fs *fs, uint64_t ino, const char *name, const void *buf, size_t len,
		  struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	bool minimal = false;
	int r = open_inode(x, ino, name, &inode, err);

	if (r == 0 && strncmp(name, "system.", 7) == 0) {
		uint16_t mode = inode.u.small.i_mode;

		r = acl_mode(buf, len, &mode, &minimal, err);
		if (strcmp(name, ACL_DEFAULT) == 0)
			minimal = false;
		else
			inode.u.small.i_mode = mode;
	}
	if (r < 0)
		return r;
	/* What the mode says as well is not stored. */
	r = change(x, ino, name, minimal ? NULL : buf ? buf : "", len, err);
	if (minimal && r == -ENODATA)
		r = 0;
	if (r == 0)
		r = set_ctime(x, ino, inode.u.small.i_mode, err);
	return ext_damaged(x, r);
}

int ext_xattr_remove(struct fs *fs, uint64_t ino, const char *name, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	int r = open_inode(x, ino, name, &inode, err);

	if (r < 0)
		return r;
	r = change(x, ino, name, NULL, 0, err);
	if (r == 0)
		r = set_ctime(x, ino, inode.u.small.i_mode, err);
	return ext_damaged(x, r);
}

int ext_acl_chmod(struct ext *x, struct ext_inode *inode, struct err *err)
{
	struct acl *acl = malloc(ACL_BYTES_MAX);
	size_t len = 0;
	int r;

	if (!acl)
		return err_nomem(err, ACL_BYTES_MAX, "an ACL");
	r = ext_xattr_get(&x->fs, inode->ino, ACL_ACCESS, acl, ACL_BYTES_MAX, &len, err);
	if (r == 0) {
		acl_apply(acl, len, inode->u.small.i_mode);
		r = change(x, inode->ino, ACL_ACCESS, acl, len, err);
	} else if (r == -ENODATA) {
		r = 0;
	}
	free(acl);
	return r;
}

static int any_name(char *name, char *value, size_t value_len, void *data)
{
	char *found = data;

	(void)value;
	(void)value_len;
	if (strcmp(name, "system.data") == 0 || strlen(name) > AGENT_NAME_MAX)
		return 0;
	memcpy(found, name, strlen(name) + 1);
	return XATTR_ABORT;
}

int ext_xattrs_clear(struct ext *x, struct ext_inode *inode, struct err *err)
{
	struct ext2_xattr_handle *h;
	char name[AGENT_NAME_MAX + 1];
	errcode_t code;
	int r = xattrs_open(x, inode->ino, &h, err);

	if (r < 0)
		return r;
	do {
		name[0] = '\0';
		code = ext2fs_xattrs_iterate(h, any_name, name);
		if (code == 0 && name[0])
			code = ext2fs_xattr_remove(h, name);
	} while (code == 0 && name[0]);
	ext2fs_xattrs_close(&h);
	return ext_error(x, code, err, "the attributes of", inode->ino);
}
