/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From blocks of a file to blocks of the filesystem, in runs: extent trees and block maps. This
 * side only reads, and trusts nothing: depth, order, keys, lengths and targets of each node on the
 * way are checked, so each step of a walk makes the range smaller.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"

#define DEPTH_MAX 5u /* of an extent tree of 2^32 blocks in blocks of 1 KiB */

static bool in_filesystem(const struct ext *x, uint64_t block, uint64_t len)
{
	return block >= x->e2->super->s_first_data_block && block < x->blocks && block != 0 &&
	       len <= x->blocks - block;
}

/* Reads a node into x->node, unless it is there already. extents: with a checksum. */
static int node_read(struct ext *x, const struct ext_inode *inode, uint64_t block, bool extents,
		     struct err *err)
{
	int r;

	if (!in_filesystem(x, block, 1))
		return ext_corrupt(err, inode->ino, "a block map at block %llu of %llu",
				   (unsigned long long)block, (unsigned long long)x->blocks);
	if (x->node_block == block && x->node_ino == inode->ino &&
	    x->node_generation == cache_generation(x->cache))
		return 0;
	x->node_block = 0;
	r = cache_read(x->cache, x->node, x->bs, block * x->bs, err);
	if (r < 0)
		return r;
	if (extents) {
		struct ext3_extent_header *eh = (void *)x->node;

		/* The checksum lies behind the entries that the header says fit. */
		if (eh->eh_magic != EXT3_EXT_MAGIC || eh->eh_max > (x->bs - 12) / 12)
			return ext_corrupt(err, inode->ino, "no extent node at block %llu",
					   (unsigned long long)block);
		if (!ext2fs_extent_block_csum_verify(x->e2, inode->ino, eh))
			return ext_corrupt(err, inode->ino,
					   "the extent node at block %llu has a wrong checksum",
					   (unsigned long long)block);
	}
	x->node_block = block;
	x->node_ino = inode->ino;
	x->node_generation = cache_generation(x->cache);
	return 0;
}

/* ---- extents ---- */

static int header_check(const struct ext_inode *inode, const struct ext3_extent_header *eh,
			size_t size, int depth, struct err *err)
{
	if (eh->eh_magic != EXT3_EXT_MAGIC)
		return ext_corrupt(err, inode->ino, "the extent tree has no magic (0x%04x)",
				   eh->eh_magic);
	if (eh->eh_max > (size - sizeof(*eh)) / sizeof(struct ext3_extent) ||
	    eh->eh_entries > eh->eh_max)
		return ext_corrupt(err, inode->ino, "an extent node has %u entries of %u",
				   eh->eh_entries, eh->eh_max);
	if (eh->eh_depth > DEPTH_MAX || (depth >= 0 && eh->eh_depth != (unsigned)depth))
		return ext_corrupt(err, inode->ino, "an extent node has depth %u", eh->eh_depth);
	return 0;
}

/* The last of n records of 12 bytes whose first word is at most key; n when there is none. */
static unsigned record_at(const void *first, unsigned n, uint64_t key)
{
	unsigned lo = 0, hi = n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct ext3_extent *e = (const struct ext3_extent *)first + mid;

		if (e->ee_block <= key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? lo - 1 : n;
}

/* One leaf: [run->lblk, end) is the part of the file that it may speak of. */
static int leaf_map(struct ext *x, const struct ext_inode *inode,
		    const struct ext3_extent_header *eh, uint64_t end, struct ext_run *run,
		    struct err *err)
{
	const struct ext3_extent *e = EXT_FIRST_EXTENT(eh);
	unsigned i = record_at(e, eh->eh_entries, run->lblk), next = 0;
	uint64_t len, start, skip;
	bool written;

	if (i < eh->eh_entries) {
		written = e[i].ee_len <= EXT_INIT_MAX_LEN;
		len = written ? e[i].ee_len : e[i].ee_len - EXT_INIT_MAX_LEN;
		start = e[i].ee_start | (uint64_t)e[i].ee_start_hi << 32;
		skip = run->lblk - e[i].ee_block;
		if (len == 0 || !in_filesystem(x, start, len))
			return ext_corrupt(err, inode->ino,
					   "an extent of %llu blocks at %llu of %llu",
					   (unsigned long long)len, (unsigned long long)start,
					   (unsigned long long)x->blocks);
		if (skip < len) {
			run->kind = written ? EXT_DATA : EXT_UNWRITTEN;
			run->pblk = start + skip;
			run->len = min_u64(len - skip, end - run->lblk);
			return 0;
		}
		next = i + 1;
	}
	run->kind = EXT_HOLE;
	run->pblk = 0;
	if (next < eh->eh_entries && e[next].ee_block > run->lblk)
		end = min_u64(end, e[next].ee_block);
	run->len = end - run->lblk;
	return 0;
}

static int extent_map(struct ext *x, const struct ext_inode *inode, struct ext_run *run,
		      struct err *err)
{
	const struct ext3_extent_header *eh = (const void *)inode->u.small.i_block;
	uint64_t end = run->lblk + run->len;
	int depth, r = header_check(inode, eh, sizeof(inode->u.small.i_block), -1, err);

	if (r < 0)
		return r;
	for (depth = eh->eh_depth; depth > 0; depth--) {
		const struct ext3_extent_idx *idx = EXT_FIRST_INDEX(eh);
		unsigned n = eh->eh_entries, i = record_at(idx, n, run->lblk);
		uint64_t key;

		if (n == 0)
			return ext_corrupt(err, inode->ino, "an index node without entries");
		if (i == n) {
			/* Before the first key: a hole up to it. */
			run->kind = EXT_HOLE;
			run->pblk = 0;
			run->len = min_u64(end, idx[0].ei_block) - run->lblk;
			return 0;
		}
		if (i + 1 < n && idx[i + 1].ei_block > run->lblk)
			end = min_u64(end, idx[i + 1].ei_block);
		key = idx[i].ei_block;
		r = node_read(x, inode, idx[i].ei_leaf | (uint64_t)idx[i].ei_leaf_hi << 32, true,
			      err);
		if (r < 0)
			return r;
		eh = (const void *)x->node;
		r = header_check(inode, eh, x->bs, depth - 1, err);
		if (r < 0)
			return r;
		/* Or one node could serve for many places. */
		if (eh->eh_entries == 0 || EXT_FIRST_EXTENT(eh)->ee_block < key)
			return ext_corrupt(err, inode->ino,
					   "an extent node does not belong under "
					   "key %llu",
					   (unsigned long long)key);
	}
	return leaf_map(x, inode, eh, end, run, err);
}

/* ---- block maps ---- */

/* The run of entries at i of a table of n that each stand for `span` blocks (1: data). */
static int table_run(struct ext *x, const struct ext_inode *inode, const uint32_t *table,
		     uint64_t i, uint64_t n, uint64_t span, uint64_t skip, struct ext_run *run,
		     struct err *err)
{
	uint64_t len = 1, first = table[i];

	run->kind = first ? EXT_DATA : EXT_HOLE;
	run->pblk = first;
	if (first == 0) {
		while (i + len < n && table[i + len] == 0 && len * span < run->len + skip)
			len++;
		run->len = min_u64(run->len, len * span - skip);
		return 0;
	}
	while (i + len < n && table[i + len] == first + len && len < run->len)
		len++;
	run->len = len;
	if (in_filesystem(x, first, len))
		return 0;
	return ext_corrupt(err, inode->ino, "blocks %llu … %llu of %llu", (unsigned long long)first,
			   (unsigned long long)(first + len - 1), (unsigned long long)x->blocks);
}

static int table_map(struct ext *x, const struct ext_inode *inode, struct ext_run *run,
		     struct err *err)
{
	const uint64_t per = x->bs / 4;
	const uint32_t *table = inode->u.small.i_block;
	uint64_t at = run->lblk, span = 1;
	unsigned level = 0;

	if (at < EXT2_NDIR_BLOCKS)
		return table_run(x, inode, table, at, EXT2_NDIR_BLOCKS, 1, 0, run, err);
	at -= EXT2_NDIR_BLOCKS;
	for (level = 0; level < 3; level++) {
		span *= per;
		if (at < span)
			break;
		at -= span;
	}
	if (level == 3)
		return err_set(err, EFBIG, "inode %u: block %llu is beyond its block map",
			       inode->ino, (unsigned long long)run->lblk);
	table += EXT2_IND_BLOCK + level;
	for (uint64_t i = 0, n = 1;;) {
		int r;

		if (span == 1 || table[i] == 0)
			return table_run(x, inode, table, i, n, span, at, run, err);
		r = node_read(x, inode, table[i], false, err);
		if (r < 0)
			return r;
		span /= per;
		table = (const uint32_t *)(const void *)x->node;
		i = at / span;
		at %= span;
		n = per;
	}
}

int ext_map(struct ext *x, const struct ext_inode *inode, uint64_t lblk, uint64_t most,
	    struct ext_run *run, struct err *err)
{
	if (lblk > UINT32_MAX)
		return err_set(err, EFBIG, "inode %u: block %llu is beyond what it can have",
			       inode->ino, (unsigned long long)lblk);
	run->lblk = lblk;
	run->len = min_u64(most, UINT64_C(0x100000000) - lblk);
	return ext_has(inode, EXT4_EXTENTS_FL) ? extent_map(x, inode, run, err)
					       : table_map(x, inode, run, err);
}
