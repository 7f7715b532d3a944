/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Orphans: inodes that were deleted while they were open, or being truncated, when the filesystem
 * stopped. They are in a list through i_dtime, or in the blocks of the orphan file. What was under
 * way is brought to its end before the first change.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"

/* Frees the inode, or what it has beyond its size. */
static int finish_orphan(struct ext *x, struct ext_inode *inode, struct err *err)
{
	struct ext2_inode *i = &inode->u.small;
	errcode_t code = 0;

	if (i->i_links_count == 0)
		return ext_inode_free(x, inode, err);
	if (!ext_has(inode, EXT4_INLINE_DATA_FL) && LINUX_S_ISREG(i->i_mode))
		code = ext_punch(x, inode->ino, i, div_up(ext_inode_size(inode), x->bs));
	if (code)
		return ext_error(x, code, err, "truncating", inode->ino);
	i->i_dtime = 0;
	return ext_inode_write(x, inode, err);
}

static int read_orphan(struct ext *x, uint32_t ino, struct ext_inode *inode, struct err *err)
{
	if (ino < EXT2_FIRST_INODE(x->e2->super) || ino > x->e2->super->s_inodes_count ||
	    !ext2fs_test_inode_bitmap2(x->e2->inode_map, ino))
		return ext_corrupt(err, ino, "it is in the list of orphans, and not in use");
	return ext_inode_read(x, ino, inode, err);
}

static int finish_list(struct ext *x, struct err *err)
{
	struct ext2_super_block *sb = x->e2->super;
	uint32_t left = sb->s_inodes_count;

	while (sb->s_last_orphan) {
		struct ext_inode inode;
		uint32_t next;
		int r = read_orphan(x, sb->s_last_orphan, &inode, err);

		if (r != 0)
			return r;
		if (left-- == 0)
			return ext_corrupt(err, inode.ino, "the list of orphans is a circle");
		next = inode.u.small.i_dtime;
		r = finish_orphan(x, &inode, err);
		if (r < 0)
			return r;
		sb->s_last_orphan = next;
		ext2fs_mark_super_dirty(x->e2);
	}
	return 0;
}

static int finish_block(struct ext *x, const struct ext_inode *file, uint64_t lblk,
			unsigned char *buf, struct err *err)
{
	struct ext4_orphan_block_tail *tail = (void *)(buf + x->bs - sizeof(*tail));
	uint32_t *entries = (uint32_t *)(void *)buf;
	bool changed = false;
	struct ext_run run;
	int r = ext_map(x, file, lblk, 1, &run, err);

	if (r == 0 && run.kind != EXT_DATA)
		r = ext_corrupt(err, file->ino, "the orphan file has a hole");
	if (r == 0)
		r = cache_read(x->cache, buf, x->bs, run.pblk * x->bs, err);
	if (r < 0)
		return r;
	if (tail->ob_magic != EXT4_ORPHAN_BLOCK_MAGIC ||
	    !ext2fs_orphan_file_block_csum_verify(x->e2, file->ino, run.pblk, (char *)buf))
		return ext_corrupt(err, file->ino, "a broken block of the orphan file");
	for (uint32_t *e = entries; e < (uint32_t *)(void *)tail; e++) {
		struct ext_inode inode;

		if (*e == 0)
			continue;
		r = read_orphan(x, *e, &inode, err);
		if (r == 0)
			r = finish_orphan(x, &inode, err);
		if (r < 0)
			return r;
		*e = 0;
		changed = true;
	}
	if (!changed)
		return 0;
	ext2fs_orphan_file_block_csum_set(x->e2, file->ino, run.pblk, (char *)buf);
	return cache_write(x->cache, buf, x->bs, run.pblk * x->bs, err);
}

static int finish_file(struct ext *x, struct err *err)
{
	struct ext_inode file;
	unsigned char *buf;
	uint64_t n;
	int r = ext_inode_read(x, x->e2->super->s_orphan_file_inum, &file, err);

	if (r < 0)
		return r;
	n = ext_inode_size(&file) / x->bs;
	if (!LINUX_S_ISREG(file.u.small.i_mode) || n > x->blocks)
		return ext_corrupt(err, file.ino, "it is no orphan file");
	buf = malloc(x->bs);
	if (!buf)
		return err_nomem(err, x->bs, "a block");
	for (uint64_t i = 0; r == 0 && i < n; i++)
		r = finish_block(x, &file, i, buf, err);
	free(buf);
	if (r < 0)
		return r;
	ext2fs_clear_feature_orphan_present(x->e2->super);
	ext2fs_mark_super_dirty(x->e2);
	return 0;
}

int ext_orphans_finish(struct ext *x, struct err *err)
{
	int r = finish_list(x, err);

	if (r == 0 && ext2fs_has_feature_orphan_file(x->e2->super) &&
	    ext2fs_has_feature_orphan_present(x->e2->super))
		r = finish_file(x, err);
	return r < 0 ? err_ctx(err, r, "finishing what was deleted") : 0;
}
