/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing file data, and changing the size. Data goes to the disk in runs; blocks that a write
 * fills in part have zeros in the rest, and so has the last block behind the end of the file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"
#include "appliance/protocol.h"

int ext_may_change(const struct ext_inode *inode, struct err *err)
{
	if (ext_has(inode, EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return err_set(err, EPERM, "inode %u has the flag %s", inode->ino,
			       ext_has(inode, EXT2_IMMUTABLE_FL) ? "immutable" : "append-only");
	return 0;
}

/* A regular file whose content may be changed. */
static int content_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err)
{
	int r = ext_file_read(x, ino, inode, err);

	if (r < 0)
		return r;
	if (ext_has(inode, EXT4_VERITY_FL))
		return err_set(err, EPERM, "the file (inode %u) is sealed by verity", inode->ino);
	return ext_may_change(inode, err);
}

/* ---- inline data ---- */

/* Moves the content out of the inode: the library does so when it gets too much for it. */
static int inline_expand(struct ext *x, struct ext_inode *inode, const unsigned char *data,
			 size_t have, struct err *err)
{
	unsigned char *block = calloc(1, x->bs);
	ext2_file_t file;
	errcode_t code;
	unsigned written;
	int r;

	if (!block)
		return err_nomem(err, x->bs, "a block");
	memcpy(block, data, min_u64(have, x->bs));
	code = ext2fs_file_open(x->e2, inode->ino, EXT2_FILE_WRITE, &file);
	if (code == 0) {
		errcode_t closed;

		code = ext2fs_file_write(file, block, x->bs, &written);
		closed = ext2fs_file_close(file);
		code = code ? code : closed;
	}
	free(block);
	r = ext_error(x, code, err, "the inline data of", inode->ino);
	if (r == 0)
		r = ext_inode_read(x, inode->ino, inode, err);
	if (r == 0 && ext_has(inode, EXT4_INLINE_DATA_FL))
		r = ext_corrupt(err, inode->ino, "its data cannot be moved out of the inode");
	return r < 0 ? r : ext_inode_set_size(x, inode, have, err);
}

/*
 * Writes into an inode with inline data: 1 when it is done, 0 when the file has blocks now and the
 * caller goes on. buf NULL: only the size changes, to off.
 */
static int inline_write(struct ext *x, struct ext_inode *inode, const void *buf, size_t len,
			uint64_t off, struct err *err)
{
	uint64_t size = buf ? max_u64(ext_inode_size(inode), off + len) : off;
	unsigned char *old, *data;
	errcode_t code = EXT2_ET_INLINE_DATA_NO_SPACE;
	size_t have;
	int r = ext_inline_get(x, inode, &old, &have, err);

	if (r < 0)
		return r;
	have = (size_t)min_u64(have, ext_inode_size(inode));
	if (size < EXT_INODE_MAX) {
		data = calloc(1, EXT_INODE_MAX);
		if (!data) {
			free(old);
			return err_nomem(err, EXT_INODE_MAX, "inline data");
		}
		memcpy(data, old, min_u64(have, size));
		if (buf)
			memcpy(data + off, buf, len);
		code = ext2fs_inline_data_set(x->e2, inode->ino, NULL, data, (size_t)size);
		free(data);
	}
	if (code == EXT2_ET_INLINE_DATA_NO_SPACE) {
		r = inline_expand(x, inode, old, have, err);
	} else {
		r = ext_error(x, code, err, "the inline data of", inode->ino);
		if (r == 0)
			r = ext_inode_read(x, inode->ino, inode, err);
		if (r == 0)
			r = ext_inode_set_size(x, inode, size, err);
		if (r == 0)
			r = 1;
	}
	free(old);
	return r;
}

/* ---- blocks ---- */

/* Zeros from a byte to the end of its block, where the file has that block. */
static int zero_rest(struct ext *x, struct ext_inode *inode, uint64_t off, struct err *err)
{
	uint64_t skip = off % x->bs;
	struct ext_run run;
	int r;

	if (skip == 0)
		return 0;
	r = ext_map(x, inode, off / x->bs, 1, &run, err);
	if (r < 0 || run.kind != EXT_DATA)
		return r;
	return cache_zero(x->cache, run.pblk * x->bs + skip, x->bs - skip, err);
}

/* Makes the run one of data; its first and last block get zeros where the write leaves them. */
static int make_data(struct ext *x, struct ext_inode *inode, struct ext_run *run, uint64_t skip,
		     uint64_t left, struct err *err)
{
	uint64_t end;
	int r;

	if (run->kind == EXT_HOLE)
		r = ext_alloc(x, inode, run->lblk, run->len, run, err);
	else
		r = ext_convert(x, inode, run, err);
	run->kind = EXT_DATA;
	if (r == 0 && skip)
		r = cache_zero(x->cache, run->pblk * x->bs, skip, err);
	end = skip + left;
	if (r == 0 && end < run->len * x->bs)
		r = cache_zero(x->cache, run->pblk * x->bs + end, run->len * x->bs - end, err);
	return r;
}

/* *at: from where, and then how far it came. */
static int write_blocks(struct ext *x, struct ext_inode *inode, const unsigned char *buf,
			size_t len, uint64_t *at, struct err *err)
{
	while (len) {
		uint64_t off = *at, skip = off % x->bs;
		struct ext_run run;
		size_t n;
		int r = ext_map(x, inode, off / x->bs, div_up(skip + len, x->bs), &run, err);

		if (r == 0 && run.kind != EXT_DATA)
			r = make_data(x, inode, &run, skip, len, err);
		if (r < 0)
			return r;
		n = (size_t)min_u64(len, run.len * x->bs - skip);
		r = cache_write(x->cache, buf, n, run.pblk * x->bs + skip, err);
		if (r < 0)
			return r;
		buf += n;
		*at += n;
		len -= n;
	}
	return 0;
}

int ext_write(struct fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
	      struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	uint64_t end = 0, at = off;
	int r = content_read(x, ino, &inode, err);

	if (r == 0 && (!add_ok(off, len, &end) || end > (UINT64_C(1) << 32) * x->bs - x->bs))
		r = err_set(err, EFBIG, "inode %llu: %zu bytes at %llu are too far",
			    (unsigned long long)ino, len, (unsigned long long)off);
	if (r < 0 || len == 0)
		return r;
	r = ext_begin(x, err);
	if (r == 0 && ext_has(&inode, EXT4_INLINE_DATA_FL))
		r = inline_write(x, &inode, buf, len, off, err);
	if (r == 0) {
		if (off > ext_inode_size(&inode))
			r = zero_rest(x, &inode, ext_inode_size(&inode), err);
		if (r == 0)
			r = write_blocks(x, &inode, buf, len, &at, err);
		/* Also on a full disk: what was given to the file is recorded. */
		if ((r == 0 || r == -ENOSPC) && at > off && at > ext_inode_size(&inode)) {
			int s = ext_inode_set_size(x, &inode, at, r < 0 ? NULL : err);

			r = s < 0 ? s : r;
		}
	}
	if (r < 0 && r != -ENOSPC)
		return ext_damaged(x, r);
	ext_set_time(&inode, SET_MTIME | EXT_CTIME, agent_now());
	if (ext_inode_write(x, &inode, r < 0 ? NULL : err) < 0)
		return ext_damaged(x, r < 0 ? r : -EIO);
	return r < 0 ? r : 0;
}

/* ---- size ---- */

errcode_t ext_punch(struct ext *x, uint32_t ino, struct ext2_inode *inode, uint64_t from)
{
	const uint64_t blocks = ext2fs_blocks_count(x->e2->super);
	errcode_t code;

	/* The library takes an extent with the last block of the filesystem for a broken one: its
	 * check is off by one. */
	ext2fs_blocks_count_set(x->e2->super, blocks + 1);
	code = ext2fs_punch(x->e2, ino, inode, NULL, from, ~UINT64_C(0));
	ext2fs_blocks_count_set(x->e2->super, blocks);
	return code;
}

int ext_truncate(struct ext *x, struct ext_inode *inode, uint64_t size, struct err *err)
{
	uint64_t old = ext_inode_size(inode);
	errcode_t code = 0;
	int r = 0;

	if (ext_has(inode, EXT4_INLINE_DATA_FL)) {
		r = inline_write(x, inode, NULL, 0, size, err);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	r = zero_rest(x, inode, min_u64(size, old), err);
	if (r < 0)
		return r;
	if (size < old || inode->u.small.i_links_count == 0)
		code = ext_punch(x, inode->ino, &inode->u.small, div_up(size, x->bs));
	x->goal_ino = 0;
	if (code)
		return ext_error(x, code, err, "truncating", inode->ino);
	return ext_inode_set_size(x, inode, size, err);
}

static int set_size(struct ext *x, struct ext_inode *inode, uint64_t size, struct err *err)
{
	struct ext_inode same;
	int r = content_read(x, inode->ino, &same, err);

	if (r < 0)
		return r;
	if (size > (UINT64_C(1) << 32) * x->bs - x->bs)
		return err_set(err, EFBIG, "inode %u: a size of %llu bytes", inode->ino,
			       (unsigned long long)size);
	r = ext_begin(x, err);
	return r < 0 ? r : ext_truncate(x, inode, size, err);
}

int ext_setattr(struct fs *fs, uint64_t ino, const struct fs_attr *attr, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	struct ext2_inode *i = &inode.u.small;
	int r = ext_inode_read(x, ino, &inode, err);

	if (r == 0)
		r = ext_may_change(&inode, err);
	if (r == 0 && attr->mask & SET_SIZE)
		r = set_size(x, &inode, attr->size, err);
	if (r == 0)
		r = ext_begin(x, err);
	if (r < 0)
		return ext_damaged(x, r);
	if (attr->mask & SET_MODE)
		i->i_mode = (uint16_t)((i->i_mode & LINUX_S_IFMT) | (attr->mode & 07777));
	if (attr->mask & SET_UID) {
		i->i_uid = (uint16_t)attr->uid;
		ext2fs_set_i_uid_high(*i, (uint16_t)(attr->uid >> 16));
	}
	if (attr->mask & SET_GID) {
		i->i_gid = (uint16_t)attr->gid;
		ext2fs_set_i_gid_high(*i, (uint16_t)(attr->gid >> 16));
	}
	ext_set_time(&inode, EXT_CTIME | (attr->mask & SET_SIZE ? SET_MTIME : 0), agent_now());
	if (attr->mask & SET_ATIME)
		ext_set_time(&inode, SET_ATIME, attr->atime);
	if (attr->mask & SET_MTIME)
		ext_set_time(&inode, SET_MTIME, attr->mtime);
	r = ext_inode_write(x, &inode, err);
	if (r == 0 && attr->mask & SET_MODE && !LINUX_S_ISLNK(i->i_mode))
		r = ext_acl_chmod(x, &inode, err);
	return ext_damaged(x, r);
}
