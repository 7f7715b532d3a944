/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Giving blocks to a file, in runs: from the bitmaps into its extent tree or block map. The library
 * edits trees; which blocks, how many at once, and that neighbours become one extent is decided
 * here. With bigalloc a cluster that the file has a part of is used up before a new one is taken.
 */
#include <errno.h>

#include "appliance/agent/ext/ext.h"

/* Puts a new run into the extent tree: at the end of the extent before it where it continues it. */
static errcode_t extent_add(struct ext *x, struct ext_inode *inode, const struct ext_run *run)
{
	struct ext2fs_extent e,
		new = {.e_pblk = run->pblk, .e_lblk = run->lblk, .e_len = (uint32_t)run->len};
	ext2_extent_handle_t h;
	errcode_t code = ext2fs_extent_open2(x->e2, inode->ino, &inode->u.small, &h);
	int how = 0;

	if (code)
		return code;
	code = ext2fs_extent_goto(h, run->lblk);
	if (code == EXT2_ET_EXTENT_NOT_FOUND || code == EXT2_ET_NO_CURRENT_NODE)
		code = 0;
	if (code == 0) {
		code = ext2fs_extent_get(h, EXT2_EXTENT_CURRENT, &e);
		if (code == EXT2_ET_NO_CURRENT_NODE) {
			code = 0;
		} else if (code == 0 && e.e_lblk < run->lblk) {
			how = EXT2_EXTENT_INSERT_AFTER;
			if (!(e.e_flags & EXT2_EXTENT_FLAGS_UNINIT) &&
			    e.e_lblk + e.e_len == run->lblk && e.e_pblk + e.e_len == run->pblk &&
			    e.e_len + run->len <= EXT_INIT_MAX_LEN) {
				e.e_len += (uint32_t)run->len;
				code = ext2fs_extent_replace(h, 0, &e);
				goto out;
			}
		}
	}
	if (code == 0)
		code = ext2fs_extent_insert(h, how, &new);
	if (code == 0)
		code = ext2fs_extent_fix_parents(h);
out:
	ext2fs_extent_free(h);
	return code;
}

/* Looks for a free run in [from, end): *pblk, *got become the longest one, but none beyond want. */
static errcode_t longest_run(struct ext *x, uint64_t from, uint64_t end, uint64_t want,
			     blk64_t *pblk, blk64_t *got)
{
	while (from < end && *got < want) {
		blk64_t start, stop;
		errcode_t code = ext2fs_find_first_zero_block_bitmap2(x->e2->block_map, from,
								      end - 1, &start);

		if (code)
			return code == ENOENT ? 0 : code;
		code = ext2fs_find_first_set_block_bitmap2(x->e2->block_map, start, end - 1, &stop);
		if (code == ENOENT)
			stop = end;
		else if (code)
			return code;
		if (stop - start > *got) {
			*pblk = start;
			*got = min_u64(stop - start, want);
		}
		from = stop;
	}
	return 0;
}

/*
 * Takes free blocks near the goal: all of them in one piece where there is one, else the longest
 * piece. (ext2fs_new_range does not return when what is free is fragmented: it waits to come by its
 * goal again, and steps over it.)
 */
static errcode_t take_range(struct ext *x, struct ext_inode *inode, uint64_t goal, uint64_t want,
			    blk64_t *pblk, blk64_t *got)
{
	const uint64_t ratio = (uint64_t)EXT2FS_CLUSTER_RATIO(x->e2);
	const uint64_t first = x->e2->super->s_first_data_block;
	const uint64_t end = ext2fs_blocks_count(x->e2->super);
	errcode_t code;

	if (goal < first || goal >= end)
		goal = first;
	*got = 0;
	code = longest_run(x, goal, end, want, pblk, got);
	if (code == 0)
		code = longest_run(x, first, goal, want, pblk, got);
	if (code)
		return code;
	if (*got < ratio)
		return EXT2_ET_BLOCK_ALLOC_FAIL;
	*got -= *got % ratio;
	ext2fs_block_alloc_stats_range(x->e2, *pblk, (blk_t)*got, +1);
	return ext2fs_iblk_add_blocks(x->e2, &inode->u.small, *got / ratio);
}

/* A file that is written in order continues where it ended, without a search of its tree. */
static uint64_t goal_of(struct ext *x, struct ext_inode *inode, uint64_t lblk)
{
	if (x->goal_ino == inode->ino && x->goal_lblk == lblk)
		return x->goal;
	return ext2fs_find_inode_goal(x->e2, inode->ino, &inode->u.small, lblk);
}

static errcode_t alloc_extents(struct ext *x, struct ext_inode *inode, struct ext_run *run)
{
	const uint64_t ratio = (uint64_t)EXT2FS_CLUSTER_RATIO(x->e2), mask = ratio - 1;
	const uint64_t in = run->lblk & mask;
	uint64_t last = run->lblk + run->len;
	blk64_t pblk = 0, got;
	errcode_t code = 0;

	if (ratio > 1)
		code = ext2fs_map_cluster_block(x->e2, inode->ino, &inode->u.small, run->lblk,
						&pblk);
	if (code)
		return code;
	if (pblk) {
		run->pblk = pblk;
		run->len = min_u64(run->len, ratio - in);
		return extent_add(x, inode, run);
	}
	/* The cluster at the end may be the file's already. */
	if (last & mask && (last & ~mask) > run->lblk) {
		code = ext2fs_map_cluster_block(x->e2, inode->ino, &inode->u.small, last - 1,
						&pblk);
		if (code)
			return code;
		if (pblk)
			last &= ~mask;
		run->len = last - run->lblk;
	}
	code = take_range(x, inode, goal_of(x, inode, run->lblk) & ~mask,
			  round_up(in + run->len, ratio), &pblk, &got);
	if (code)
		return code;
	run->pblk = pblk + in;
	run->len = min_u64(run->len, got - in);
	code = extent_add(x, inode, run);
	/* The tree may need a block that is not there. */
	if (code) {
		ext2fs_block_alloc_stats_range(x->e2, pblk, (blk_t)got, -1);
		ext2fs_iblk_sub_blocks(x->e2, &inode->u.small, got / ratio);
	}
	return code;
}

static errcode_t alloc_blocks(struct ext *x, struct ext_inode *inode, struct ext_run *run)
{
	uint64_t most = run->len;
	errcode_t code = 0;

	for (run->len = 0; run->len < most; run->len++) {
		blk64_t pblk = 0;

		code = ext2fs_bmap2(x->e2, inode->ino, &inode->u.small, NULL, BMAP_ALLOC,
				    run->lblk + run->len, NULL, &pblk);
		if (code)
			break;
		if (run->len == 0)
			run->pblk = pblk;
		/* It is the file's now, and the next call finds it. */
		if (pblk != run->pblk + run->len)
			break;
	}
	return run->len ? 0 : code;
}

int ext_alloc(struct ext *x, struct ext_inode *inode, uint64_t lblk, uint64_t n,
	      struct ext_run *run, struct err *err)
{
	errcode_t code;

	*run = (struct ext_run){.lblk = lblk,
				.len = min_u64(n, EXT_INIT_MAX_LEN / 2),
				.kind = EXT_DATA};
	code = ext_has(inode, EXT4_EXTENTS_FL) ? alloc_extents(x, inode, run)
					       : alloc_blocks(x, inode, run);
	if (code)
		return ext_error(x, code, err, "space for", inode->ino);
	x->goal_ino = inode->ino;
	x->goal_lblk = run->lblk + run->len;
	x->goal = run->pblk + run->len;
	if (x->goal >= x->blocks)
		x->goal_ino = 0;
	return 0;
}

int ext_convert(struct ext *x, struct ext_inode *inode, const struct ext_run *run, struct err *err)
{
	ext2_extent_handle_t h;
	errcode_t code = ext2fs_extent_open2(x->e2, inode->ino, &inode->u.small, &h);

	if (code)
		return ext_error(x, code, err, "the extents of", inode->ino);
	for (uint64_t i = 0; code == 0 && i < run->len; i++)
		code = ext2fs_extent_set_bmap(h, run->lblk + i, run->pblk + i, 0);
	ext2fs_extent_free(h);
	return ext_error(x, code, err, "the extents of", inode->ino);
}
