/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index of a directory: a tree of (hash, block) in the directory's own blocks, disguised as
 * empty entries. The root is in block 0 behind . and .., the leaves are ordinary blocks of entries.
 */
#ifndef IMGKIT_AGENT_EXT_HTREE_H
#define IMGKIT_AGENT_EXT_HTREE_H

#include "appliance/agent/ext/ext.h"

#define DX_ROOT_INFO 24u /* bytes into block 0: behind . and .. */
#define DX_ROOT      32u /* the entries of the root */
#define DX_NODE      8u  /* the entries of the other nodes: behind one empty entry */
#define DX_LEVELS    3u  /* nodes on the way to a leaf, with large_dir */

struct dx_frame {
	unsigned char *buf; /* one of dirbuf */
	uint64_t lblk, pblk;
	struct ext2_dx_entry *entries; /* [0] has count and limit in place of a hash */
	unsigned count, limit, at;
};

struct dx_path {
	struct dx_frame frames[DX_LEVELS];
	unsigned levels; /* frames in use */
	int version;
	ext2_dirhash_t hash;
};

/* Where in dirbuf what is. */
enum { DX_LEAF_BUF = DX_LEVELS, DX_NEW_BUF };

/* 1: no index that we can use. */
int dx_probe(struct ext *x, const struct ext_inode *dir, struct ext_name name, struct dx_path *p,
	     struct err *err);
int dx_hash(struct ext *x, const struct ext_inode *dir, int version, struct ext_name name,
	    ext2_dirhash_t *hash);
/* Bytes of a node's checksum. */
unsigned dx_tail(const struct ext *x);

/* index.c: as ext_dir_add. */
int dx_add(struct ext *x, struct ext_inode *dir, const struct ext_child *child, struct err *err);
/* 1 when the directory, of one full block, has an index now; 0 when it cannot get one. */
int dx_make(struct ext *x, struct ext_inode *dir, struct err *err);

static inline uint32_t dx_block(const struct dx_frame *f)
{
	return f->entries[f->at].block & EXT4_DX_BLOCK_MASK;
}

#endif
