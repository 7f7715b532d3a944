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
