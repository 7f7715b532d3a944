/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing directories: entries put into blocks, taken out and pointed elsewhere. Directories with
 * an index are index.c's business; a directory gets one when its first block is full, as the kernel
 * does it. Inline directories are changed by the library, until it moves them out of the inode.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/htree.h"

uint32_t ext_dir_room(const struct ext *x)
{
	return x->bs - (ext2fs_has_feature_metadata_csum(x->e2->super)
				? (uint32_t)sizeof(struct ext2_dir_entry_tail)
				: 0);
}

int ext_dir_write(struct ext *x, const struct ext_inode *dir, uint64_t pblk, void *buf,
		  struct err *err)
{
	errcode_t code = ext2fs_write_dir_block4(x->e2, pblk, buf, 0, dir->ino);

	return ext_error(x, code, err, "a block of directory", dir->ino);
}

void ext_entry_fill(struct ext *x, unsigned char *buf, uint32_t off, uint32_t len,
		    const struct ext_child *child)
{
	struct ext2_dir_entry *e = (void *)(buf + off);

	e->inode = child->ino;
	ext2fs_set_rec_len(x->e2, len, e);
	e->name_len = 0;
	ext2fs_dirent_set_name_len(e, (int)child->name.len);
	if (ext2fs_has_feature_filetype(x->e2->super))
		ext2fs_dirent_set_file_type(e, (int)child->type);
	if (child->name.len)
		memcpy(e->name, child->name.s, child->name.len);
}

void ext_block_init(struct ext *x, unsigned char *buf)
{
	const struct ext_child nothing = {0};
	uint32_t room = ext_dir_room(x);

	memset(buf, 0, x->bs);
	ext_entry_fill(x, buf, 0, room, &nothing);
	if (room < x->bs)
		ext2fs_initialize_dirent_tail(x->e2, EXT2_DIRENT_TAIL(buf, x->bs));
}

int ext_block_insert(struct ext *x, const struct ext_inode *dir, unsigned char *buf,
		     const struct ext_child *child, struct err *err)
{
	const uint32_t need = EXT2_DIR_REC_LEN((uint8_t)child->name.len), end = ext_dir_room(x);
	struct ext_entry entry;

	for (uint32_t off = 0; off < end; off += entry.len) {
		uint32_t used = 0;
		int r = ext_entry_at(x, dir, buf, off, end, &entry, err);

		if (r < 0)
			return r;
		if (entry.e->inode)
			used = EXT2_DIR_REC_LEN((uint8_t)entry.name.len);
		if (entry.len < used + need)
			continue;
		if (used)
			ext2fs_set_rec_len(x->e2, used, entry.e);
		ext_entry_fill(x, buf, off + used, entry.len - used, child);
		return 1;
	}
	return 0;
}

int ext_dir_append(struct ext *x, struct ext_inode *dir, uint64_t *lblk, uint64_t *pblk,
		   struct err *err)
{
	struct ext_run run;
	int r = ext_dir_blocks(x, dir, lblk, err);

	if (r == 0)
		r = ext_alloc(x, dir, *lblk, 1, &run, err);
	if (r != 0)
		return r;
	*pblk = run.pblk;
	r = ext_inode_set_size(x, dir, (*lblk + 1) * x->bs, err);
	return r < 0 ? r : ext_inode_write(x, dir, err);
}

/* ---- without an index ---- */

/* Tries the blocks from *at on: 1 when one had room. */
static int linear_try(struct ext *x, const struct ext_inode *dir, const struct ext_child *child,
		      uint64_t *at, struct err *err)
{
	unsigned char *buf = x->dirbuf[0];
	uint64_t n = 0, pblk;
	int r = ext_dir_blocks(x, dir, &n, err);

	for (; r == 0 && *at < n; ++*at) {
		r = ext_dir_block(x, dir, *at, buf, &pblk, err);
		if (r == 0)
			r = ext_block_insert(x, dir, buf, child, err);
		if (r == 1) {
			r = ext_dir_write(x, dir, pblk, buf, err);
			return r < 0 ? r : 1;
		}
	}
	return r;
}

static int linear_add(struct ext *x, struct ext_inode *dir, const struct ext_child *child,
		      struct err *err)
{
	/* What was full once is not looked at for each of many names. */
	uint64_t at = x->room_dir == dir->ino ? x->room_block : 0, pblk = 0;
	unsigned char *buf = x->dirbuf[0];
	int r = linear_try(x, dir, child, &at, err);

	if (r == 0 && at == 1 && ext2fs_has_feature_dir_index(x->e2->super)) {
		r = dx_make(x, dir, err);
		if (r == 1)
			return dx_add(x, dir, child, err);
	}
	if (r == 0) {
		r = ext_dir_append(x, dir, &at, &pblk, err);
		if (r == 0) {
			ext_block_init(x, buf);
			r = ext_block_insert(x, dir, buf, child, err);
		}
		if (r == 1)
			r = ext_dir_write(x, dir, pblk, buf, err);
	}
	if (r < 0)
		return r;
	x->room_dir = dir->ino;
	x->room_block = at;
	return 0;
}

/* ---- inline ---- */

/* 1 when it is in, 0 when the directory has blocks now. */
static int inline_add(struct ext *x, struct ext_inode *dir, const struct ext_child *child,
		      struct err *err)
{
	char name[EXT2_NAME_LEN + 1];
	errcode_t code;
	int r = ext_inode_write(x, dir, err);

	if (r < 0)
		return r;
	memcpy(name, child->name.s, child->name.len);
	name[child->name.len] = '\0';
	code = ext2fs_link(x->e2, dir->ino, name, child->ino, (int)child->type);
	if (code == EXT2_ET_DIR_NO_SPACE)
		code = ext2fs_expand_dir(x->e2, dir->ino);
	r = ext_error(x, code, err, "the inline directory", dir->ino);
	if (r == 0)
		r = ext_inode_read(x, dir->ino, dir, err);
	return r < 0 ? r : code == 0 && ext_has(dir, EXT4_INLINE_DATA_FL);
}

int ext_dir_add(struct ext *x, struct ext_inode *dir, const struct ext_child *child,
		struct err *err)
{
	if (ext_has(dir, EXT4_INLINE_DATA_FL)) {
		int r = inline_add(x, dir, child, err);

		if (r != 0)
			return r < 0 ? r : 0;
	}
	if (ext_has(dir, EXT2_INDEX_FL) && ext2fs_has_feature_dir_index(x->e2->super))
		return dx_add(x, dir, child, err);
	return linear_add(x, dir, child, err);
}

/* ---- taking out, pointing elsewhere ---- */

static int inline_remove(struct ext *x, struct ext_inode *dir, struct ext_name name, uint32_t ino,
			 struct err *err)
{
	char text[EXT2_NAME_LEN + 1];
	errcode_t code;
	int r = ext_inode_write(x, dir, err);

	if (r < 0)
		return r;
	memcpy(text, name.s, name.len);
	text[name.len] = '\0';
	code = ext2fs_unlink(x->e2, dir->ino, text, ino, 0);
	r = ext_error(x, code, err, "the inline directory", dir->ino);
	return r < 0 ? r : ext_inode_read(x, dir->ino, dir, err);
}

int ext_dir_remove(struct ext *x, struct ext_inode *dir, struct ext_name name,
		   const struct ext_slot *slot, struct err *err)
{
	unsigned char *buf = x->dirbuf[0];
	struct ext_entry entry, prev;
	uint64_t pblk;
	int r;

	if (ext_has(dir, EXT4_INLINE_DATA_FL))
		return inline_remove(x, dir, name, slot->ino, err);
	r = ext_dir_block(x, dir, slot->lblk, buf, &pblk, err);
	if (r == 0)
		r = ext_entry_at(x, dir, buf, slot->off, x->bs, &entry, err);
	if (r == 0)
		r = ext_entry_at(x, dir, buf, slot->prev, x->bs, &prev, err);
	if (r < 0)
		return r;
	if (slot->prev != slot->off)
		ext2fs_set_rec_len(x->e2, prev.len + entry.len, prev.e);
	entry.e->inode = 0;
	if (x->room_dir == dir->ino && slot->lblk < x->room_block)
		x->room_block = slot->lblk;
	return ext_dir_write(x, dir, pblk, buf, err);
}

int ext_dir_point(struct ext *x, struct ext_inode *dir, const struct ext_child *child,
		  const struct ext_slot *slot, struct err *err)
{
	unsigned char *buf = x->dirbuf[0];
	struct ext_entry entry;
	uint64_t pblk;
	int r;

	if (ext_has(dir, EXT4_INLINE_DATA_FL)) {
		if (child->name.len == 2 && memcmp(child->name.s, "..", 2) == 0) {
			dir->u.small.i_block[0] = child->ino;
			return ext_inode_write(x, dir, err);
		}
		r = ext_dir_remove(x, dir, child->name, slot, err);
		return r < 0 ? r : ext_dir_add(x, dir, child, err);
	}
	r = ext_dir_block(x, dir, slot->lblk, buf, &pblk, err);
	if (r == 0)
		r = ext_entry_at(x, dir, buf, slot->off, x->bs, &entry, err);
	if (r != 0)
		return r;
	entry.e->inode = child->ino;
	if (ext2fs_has_feature_filetype(x->e2->super))
		ext2fs_dirent_set_file_type(entry.e, (int)child->type);
	return ext_dir_write(x, dir, pblk, buf, err);
}
