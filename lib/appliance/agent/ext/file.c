/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading file data, and targets of symbolic links. Large pieces go from the disk straight into
 * the caller's memory, one request for each run of blocks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"
#include "appliance/protocol.h"

#define INLINE_MAX (UINT32_C(64) << 10) /* of what is stored in an inode, or in its attributes */

int ext_file_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err)
{
	int r = ext_inode_read(x, ino, inode, err);

	if (r < 0)
		return r;
	if (LINUX_S_ISDIR(inode->u.small.i_mode))
		return err_set(err, EISDIR, "inode %u is a directory", inode->ino);
	if (!LINUX_S_ISREG(inode->u.small.i_mode))
		return err_set(err, EINVAL, "inode %u is not a regular file", inode->ino);
	if (ext_has(inode, EXT4_ENCRYPT_FL))
		return err_set(err, EOPNOTSUPP, "the file (inode %u) is encrypted", inode->ino);
	return 0;
}

int ext_inline_get(struct ext *x, const struct ext_inode *inode, unsigned char **data, size_t *size,
		   struct err *err)
{
	struct ext2_inode copy = inode->u.small;
	errcode_t code = ext2fs_inline_data_size(x->e2, inode->ino, size);

	if (code)
		return ext_error(x, code, err, "the inline data of", inode->ino);
	if (*size > INLINE_MAX)
		return ext_corrupt(err, inode->ino, "%zu bytes of inline data", *size);
	*data = calloc(1, *size + 1);
	if (!*data)
		return err_nomem(err, *size, "inline data");
	code = ext2fs_inline_data_get(x->e2, inode->ino, &copy, *data, size);
	if (code) {
		free(*data);
		*data = NULL;
	}
	return ext_error(x, code, err, "the inline data of", inode->ino);
}

static int read_inline(struct ext *x, const struct ext_inode *inode, void *buf, size_t len,
		       uint64_t off, struct err *err)
{
	unsigned char *data;
	size_t have, n;
	int r = ext_inline_get(x, inode, &data, &have, err);

	if (r != 0)
		return r;
	n = off < have ? (size_t)min_u64(len, have - off) : 0;
	if (n)
		memcpy(buf, data + off, n);
	memset((char *)buf + n, 0, len - n);
	free(data);
	return 0;
}

int ext_read(struct fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off, size_t *got,
	     struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	uint64_t size;
	int r = ext_file_read(x, ino, &inode, err);

	*got = 0;
	if (r < 0)
		return r;
	size = ext_inode_size(&inode);
	if (off >= size)
		return 0;
	len = (size_t)min_u64(len, size - off);
	if (ext_has(&inode, EXT4_INLINE_DATA_FL)) {
		r = read_inline(x, &inode, buf, len, off, err);
		*got = r < 0 ? 0 : len;
		return r;
	}
	while (*got < len) {
		uint64_t at = off + *got, skip = at % x->bs;
		struct ext_run run;
		size_t n;

		r = ext_map(x, &inode, at / x->bs, div_up(len - *got + skip, x->bs), &run, err);
		if (r < 0)
			return r;
		n = (size_t)min_u64(len - *got, run.len * x->bs - skip);
		if (run.kind == EXT_DATA)
			r = cache_read(x->cache, (char *)buf + *got, n, run.pblk * x->bs + skip,
				       err);
		else
			memset((char *)buf + *got, 0, n);
		if (r < 0)
			return r;
		*got += n;
	}
	return 0;
}

int ext_next_data(struct fs *fs, uint64_t ino, uint64_t off, uint64_t *start, uint64_t *end,
		  struct err *err)
{
	/* Not one answer for each of the pieces of a fragmented file. */
	const uint64_t enough = MiB;
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	uint64_t size, at;
	int r = ext_file_read(x, ino, &inode, err);

	if (r < 0)
		return r;
	size = ext_inode_size(&inode);
	*start = *end = size;
	if (off >= size)
		return 0;
	if (ext_has(&inode, EXT4_INLINE_DATA_FL)) {
		*start = off;
		return 0;
	}
	for (at = round_down(off, x->bs); at < size;) {
		struct ext_run run;

		r = ext_map(x, &inode, at / x->bs, div_up(size - at, x->bs), &run, err);
		if (r < 0)
			return r;
		if (run.kind == EXT_DATA && *start == size)
			*start = max_u64(at, off);
		if (run.kind != EXT_DATA && *start != size)
			break;
		at += run.len * x->bs;
		if (*start != size && at - *start >= enough)
			break;
	}
	*end = min_u64(at, size);
	return 0;
}

/* Whether the target is in the inode itself. */
static bool is_fast_link(const struct ext *x, const struct ext_inode *inode)
{
	uint64_t attributes = inode->u.small.i_file_acl ? x->bs / 512 : 0;

	return ext_inode_size(inode) < sizeof(inode->u.small.i_block) &&
	       !ext_has(inode, EXT4_EXTENTS_FL) &&
	       (inode->u.small.i_blocks <= attributes || ext2fs_has_feature_ea_inode(x->e2->super));
}

static int link_target(struct ext *x, const struct ext_inode *inode, char *buf, size_t len,
		       struct err *err)
{
	struct ext_run run;
	int r;

	if (ext_has(inode, EXT4_INLINE_DATA_FL))
		return read_inline(x, inode, buf, len, 0, err);
	if (is_fast_link(x, inode)) {
		memcpy(buf, inode->u.small.i_block, len);
		return 0;
	}
	r = ext_map(x, inode, 0, 1, &run, err);
	if (r < 0)
		return r;
	if (run.kind != EXT_DATA)
		return ext_corrupt(err, inode->ino, "a symbolic link without a target");
	return cache_read(x->cache, buf, len, run.pblk * x->bs, err);
}

int ext_readlink(struct fs *fs, uint64_t ino, char *buf, size_t size, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	uint64_t len;
	int r = ext_inode_read(x, ino, &inode, err);

	if (r < 0)
		return r;
	len = ext_inode_size(&inode);
	if (!LINUX_S_ISLNK(inode.u.small.i_mode))
		return err_set(err, EINVAL, "inode %u is not a symbolic link", inode.ino);
	if (ext_has(&inode, EXT4_ENCRYPT_FL))
		return err_set(err, EOPNOTSUPP, "the symbolic link (inode %u) is encrypted",
			       inode.ino);
	if (len == 0 || len >= AGENT_PATH_MAX || len > x->bs)
		return ext_corrupt(err, inode.ino, "a symbolic link of %llu bytes",
				   (unsigned long long)len);
	if (len >= size)
		return err_set(err, ENAMETOOLONG, "the target of inode %u has %llu bytes",
			       inode.ino, (unsigned long long)len);
	r = link_target(x, &inode, buf, (size_t)len, err);
	if (r < 0)
		return r;
	buf[len] = '\0';
	if (strlen(buf) != len)
		return ext_corrupt(err, inode.ino, "a symbolic link with a NUL in its target");
	return 0;
}
