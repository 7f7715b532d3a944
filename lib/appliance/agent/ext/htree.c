/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding a name by the index of its directory (htree.h). */
#include <errno.h>
#include <string.h>

#include "appliance/agent/ext/htree.h"

unsigned dx_tail(const struct ext *x)
{
	return ext2fs_has_feature_metadata_csum(x->e2->super) ? sizeof(struct ext2_dx_tail) : 0;
}

int dx_hash(struct ext *x, const struct ext_inode *dir, int version, struct ext_name name,
	    ext2_dirhash_t *hash)
{
	ext2_dirhash_t minor;

	if (version <= EXT2_HASH_TEA && x->e2->super->s_flags & EXT2_FLAGS_UNSIGNED_HASH)
		version += EXT2_HASH_LEGACY_UNSIGNED;
	if (ext2fs_dirhash2(version, name.s, (int)name.len, x->e2->encoding,
			    (int)(dir->u.small.i_flags & EXT4_CASEFOLD_FL),
			    x->e2->super->s_hash_seed, hash, &minor) != 0)
		return 1;
	*hash &= ~UINT32_C(1);
	return 0;
}

/* Checks count and limit of a node and finds the entry under which the hash is. */
static int frame_open(struct ext *x, const struct ext_inode *dir, struct dx_frame *f,
		      unsigned begin, ext2_dirhash_t hash, struct err *err)
{
	struct ext2_dx_countlimit *cl = (void *)(f->buf + begin);
	unsigned lo = 1, hi;

	f->entries = (void *)cl;
	f->count = cl->count;
	f->limit = cl->limit;
	if (f->limit != (x->bs - begin - dx_tail(x)) / sizeof(struct ext2_dx_entry) ||
	    f->count == 0 || f->count > f->limit)
		return ext_corrupt(err, dir->ino, "block %llu of its index has %u entries of %u",
				   (unsigned long long)f->lblk, f->count, f->limit);
	for (hi = f->count; lo < hi;) {
		unsigned mid = lo + (hi - lo) / 2;

		if (f->entries[mid].hash > hash)
			hi = mid;
		else
			lo = mid + 1;
	}
	f->at = lo - 1;
	return 0;
}

/* The root: 1 when the index is of a kind that we cannot use. */
static int root_open(struct ext *x, const struct ext_inode *dir, struct ext_name name,
		     struct dx_path *p, struct err *err)
{
	const unsigned most = ext2fs_has_feature_largedir(x->e2->super) ? DX_LEVELS : DX_LEVELS - 1;
	struct dx_frame *f = &p->frames[0];
	const struct ext2_dx_root_info *info = (const void *)(x->dirbuf[0] + DX_ROOT_INFO);
	int r;

	f->buf = x->dirbuf[0];
	f->lblk = 0;
	r = ext_dir_block(x, dir, 0, f->buf, &f->pblk, err);
	if (r < 0)
		return r;
	if (info->reserved_zero || info->info_length != 8 ||
	    info->unused_flags & EXT2_HASH_FLAG_INCOMPAT || info->hash_version > EXT2_HASH_TEA)
		return 1;
	if (info->indirect_levels >= most)
		return ext_corrupt(err, dir->ino, "its index has %u levels",
				   info->indirect_levels + 1u);
	p->version = info->hash_version;
	p->levels = info->indirect_levels + 1u;
	if (dx_hash(x, dir, p->version, name, &p->hash) != 0)
		return 1;
	return frame_open(x, dir, f, DX_ROOT, p->hash, err);
}

/* Reads the node below frame i into the next frame. */
static int frame_down(struct ext *x, const struct ext_inode *dir, struct dx_path *p, unsigned i,
		      struct err *err)
{
	struct dx_frame *f = &p->frames[i + 1];
	const struct ext2_dir_entry *fake;
	int r;

	f->buf = x->dirbuf[i + 1];
	f->lblk = dx_block(&p->frames[i]);
	r = ext_dir_block(x, dir, f->lblk, f->buf, &f->pblk, err);
	if (r < 0)
		return r;
	fake = (const void *)f->buf;
	if (fake->inode)
		return ext_corrupt(err, dir->ino, "block %llu of the directory is no index node",
				   (unsigned long long)f->lblk);
	return frame_open(x, dir, f, DX_NODE, p->hash, err);
}

int dx_probe(struct ext *x, const struct ext_inode *dir, struct ext_name name, struct dx_path *p,
	     struct err *err)
{
	int r;

	if (!ext_has(dir, EXT2_INDEX_FL) || ext_has(dir, EXT4_INLINE_DATA_FL) ||
	    !ext2fs_has_feature_dir_index(x->e2->super) ||
	    (name.len <= 2 && memcmp(name.s, "..", name.len) == 0))
		return 1;
	r = root_open(x, dir, name, p, err);
	for (unsigned i = 0; r == 0 && i + 1 < p->levels; i++)
		r = frame_down(x, dir, p, i, err);
	return r;
}

/*
 * Goes on to the next leaf when the hash continues there: 1 when it does. A node has few entries
 * and each step takes one of them, so this ends.
 */
static int next_leaf(struct ext *x, const struct ext_inode *dir, struct dx_path *p, struct err *err)
{
	unsigned i = p->levels;
	int r;

	do {
		if (i-- == 0)
			return 0;
	} while (p->frames[i].at + 1 >= p->frames[i].count);
	if (p->frames[i].entries[p->frames[i].at + 1].hash != (p->hash | 1))
		return 0;
	p->frames[i].at++;
	for (; i + 1 < p->levels; i++) {
		r = frame_down(x, dir, p, i, err);
		if (r < 0)
			return r;
		p->frames[i + 1].at = 0;
	}
	return 1;
}

int ext_htree_find(struct ext *x, const struct ext_inode *dir, struct ext_name name,
		   struct ext_slot *slot, struct err *err)
{
	struct dx_path p;
	int r = dx_probe(x, dir, name, &p, err);

	if (r != 0)
		return r;
	do {
		const uint64_t lblk = dx_block(&p.frames[p.levels - 1]);
		uint64_t pblk;

		r = ext_dir_block(x, dir, lblk, x->dirbuf[DX_LEAF_BUF], &pblk, err);
		if (r == 0)
			r = ext_find_in_block(x, dir, x->dirbuf[DX_LEAF_BUF], lblk, pblk, name,
					      slot, err);
		if (r != 0)
			return r < 0 ? r : 0;
		r = next_leaf(x, dir, &p, err);
	} while (r > 0);
	return r < 0 ? r : ext_no_entry(err, name);
}
