/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Putting a name into a directory with an index (htree.h): a full leaf is split by hashes, a full
 * node in the middle, and a full root gets a level below it. After each of these the way from the
 * root is walked again, so there is one thing to do at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/htree.h"

/* ---- nodes ---- */

static void node_write_count(struct dx_frame *f)
{
	struct ext2_dx_countlimit *cl = (void *)f->entries;

	cl->count = (uint16_t)f->count;
	cl->limit = (uint16_t)f->limit;
}

/* An empty node in buf, as a frame. */
static void node_init(struct ext *x, struct dx_frame *f, unsigned char *buf)
{
	const struct ext_child nothing = {0};

	memset(buf, 0, x->bs);
	ext_entry_fill(x, buf, 0, x->bs, &nothing);
	f->buf = buf;
	f->entries = (void *)(buf + DX_NODE);
	f->limit = (x->bs - DX_NODE - dx_tail(x)) / sizeof(struct ext2_dx_entry);
	f->count = 0;
	f->at = 0;
}

/* A new entry behind the one in use; there is room. */
static void node_insert(struct dx_frame *f, uint32_t hash, uint64_t lblk)
{
	struct ext2_dx_entry *e = f->entries + f->at + 1;

	memmove(e + 1, e, (f->count - f->at - 1) * sizeof(*e));
	e->hash = hash;
	e->block = (uint32_t)lblk;
	f->count++;
	node_write_count(f);
}

static int node_write(struct ext *x, const struct ext_inode *dir, const struct dx_frame *f,
		      struct err *err)
{
	return ext_dir_write(x, dir, f->pblk, f->buf, err);
}

/* A level more: what the root has goes into a node below it. */
static int root_deepen(struct ext *x, struct ext_inode *dir, struct dx_path *p, struct err *err)
{
	const unsigned most = ext2fs_has_feature_largedir(x->e2->super) ? DX_LEVELS : DX_LEVELS - 1;
	struct dx_frame *root = &p->frames[0], new;
	struct ext2_dx_root_info *info = (void *)(root->buf + DX_ROOT_INFO);
	int r;

	if (p->levels >= most)
		return err_set(err, ENOSPC, "the index of the directory (inode %u) is full",
			       dir->ino);
	node_init(x, &new, x->dirbuf[DX_NEW_BUF]);
	r = ext_dir_append(x, dir, &new.lblk, &new.pblk, err);
	if (r < 0)
		return r;
	memcpy(new.entries, root->entries, root->count * sizeof(*root->entries));
	new.count = root->count;
	node_write_count(&new);
	r = node_write(x, dir, &new, err);
	if (r < 0)
		return r;
	root->count = 1;
	root->entries[0].block = (uint32_t) new.lblk;
	node_write_count(root);
	info->indirect_levels++;
	return node_write(x, dir, root, err);
}

/* The upper half of node i goes into a new one beside it; the node above has room. */
static int node_split(struct ext *x, struct ext_inode *dir, struct dx_path *p, unsigned i,
		      struct err *err)
{
	struct dx_frame *f = &p->frames[i], *up = &p->frames[i - 1], new;
	const unsigned half = f->count / 2;
	uint32_t hash = f->entries[half].hash;
	int r;

	node_init(x, &new, x->dirbuf[DX_NEW_BUF]);
	r = ext_dir_append(x, dir, &new.lblk, &new.pblk, err);
	if (r < 0)
		return r;
	new.count = f->count - half;
	memcpy(new.entries, f->entries + half, new.count * sizeof(*f->entries));
	node_write_count(&new);
	f->count = half;
	node_write_count(f);
	node_insert(up, hash, new.lblk);
	r = node_write(x, dir, &new, err);
	if (r == 0)
		r = node_write(x, dir, up, err);
	return r < 0 ? r : node_write(x, dir, f, err);
}

/* Makes room in the node above the leaf, or at least in one nearer to it than before. */
static int index_grow(struct ext *x, struct ext_inode *dir, struct dx_path *p, struct err *err)
{
	unsigned i = p->levels - 1;

	while (i > 0 && p->frames[i - 1].count >= p->frames[i - 1].limit)
		i--;
	return i == 0 ? root_deepen(x, dir, p, err) : node_split(x, dir, p, i, err);
}

/* ---- leaves ---- */

struct leaf_entry {
	uint32_t hash, off, len; /* len: what it needs */
};

static int compare_hashes(const void *a, const void *b)
{
	const struct leaf_entry *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

/* The entries of a leaf, sorted by hash; freed by the caller. */
static int leaf_entries(struct ext *x, const struct ext_inode *dir, int version,
			const unsigned char *buf, uint32_t from, struct leaf_entry **out,
			unsigned *n, struct err *err)
{
	struct leaf_entry *v = calloc(x->bs / 8, sizeof(*v));
	const uint32_t end = ext_dir_room(x);
	struct ext_entry entry;
	int r = 0;

	if (!v)
		return err_nomem(err, x->bs, "the entries of a block");
	*n = 0;
	for (uint32_t off = from; off < end; off += entry.len) {
		r = ext_entry_at(x, dir, buf, off, end, &entry, err);
		if (r < 0)
			break;
		if (!entry.e->inode)
			continue;
		v[*n].off = off;
		v[*n].len = EXT2_DIR_REC_LEN((uint8_t)entry.name.len);
		if (dx_hash(x, dir, version, entry.name, &v[*n].hash) != 0) {
			r = ext_corrupt(err, dir->ino, "a name of the directory has no hash");
			break;
		}
		++*n;
	}
	if (r < 0) {
		free(v);
		return r;
	}
	qsort(v, *n, sizeof(*v), compare_hashes);
	*out = v;
	return 0;
}

/* Copies the entries v[0 … n) of a block one behind the other into an empty leaf. */
static void leaf_pack(struct ext *x, unsigned char *to, const unsigned char *from,
		      const struct leaf_entry *v, unsigned n)
{
	const uint32_t end = ext_dir_room(x);
	uint32_t off = 0;

	ext_block_init(x, to);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = i + 1 < n ? v[i].len : end - off;

		memcpy(to + off, from + v[i].off, v[i].len);
		ext2fs_set_rec_len(x->e2, len, (struct ext2_dir_entry *)(void *)(to + off));
		off += len;
	}
}

/* Where to cut sorted entries so that both halves have about as many bytes. */
static unsigned leaf_cut(const struct leaf_entry *v, unsigned n)
{
	uint32_t all = 0, have = 0;
	unsigned i;

	for (i = 0; i < n; i++)
		all += v[i].len;
	for (i = 0; i < n - 1 && have < all / 2; i++)
		have += v[i].len;
	return i ? i : 1;
}

static int leaf_split(struct ext *x, struct ext_inode *dir, struct dx_path *p, uint64_t leaf_pblk,
		      struct err *err)
{
	unsigned char *leaf = x->dirbuf[DX_LEAF_BUF], *old = x->dirbuf[DX_NEW_BUF], *new = NULL;
	struct dx_frame *f = &p->frames[p->levels - 1];
	struct leaf_entry *v = NULL;
	uint64_t lblk, pblk;
	unsigned n, cut;
	int r = leaf_entries(x, dir, p->version, leaf, 0, &v, &n, err);

	if (r < 0)
		return r;
	if (n < 2)
		r = ext_corrupt(err, dir->ino, "a full block of %u entries", n);
	if (r == 0)
		r = ext_dir_append(x, dir, &lblk, &pblk, err);
	if (r == 0) {
		new = malloc(x->bs);
		if (!new)
			r = err_nomem(err, x->bs, "a block");
	}
	if (r == 0) {
		cut = leaf_cut(v, n);
		leaf_pack(x, old, leaf, v, cut);
		leaf_pack(x, new, leaf, v + cut, n - cut);
		/* The lowest bit: names with this hash are in the block before, too. */
		node_insert(f, v[cut].hash | (v[cut].hash == v[cut - 1].hash), lblk);
		r = ext_dir_write(x, dir, pblk, new, err);
		if (r == 0)
			r = ext_dir_write(x, dir, leaf_pblk, old, err);
		if (r == 0)
			r = node_write(x, dir, f, err);
	}
	free(new);
	free(v);
	return r;
}

int dx_add(struct ext *x, struct ext_inode *dir, const struct ext_child *child, struct err *err)
{
	unsigned char *leaf = x->dirbuf[DX_LEAF_BUF];

	/* A level, a split of each node on the way, and that of the leaf, twice for long names. */
	for (unsigned tries = 0; tries < 4 * DX_LEVELS; tries++) {
		struct dx_path p;
		struct dx_frame *f;
		uint64_t pblk;
		int r = dx_probe(x, dir, child->name, &p, err);

		if (r == 1)
			return err_set(err, EOPNOTSUPP,
				       "the directory (inode %u) has an index of an unknown kind",
				       dir->ino);
		if (r < 0)
			return r;
		f = &p.frames[p.levels - 1];
		if (dx_block(f) == 0)
			return ext_corrupt(err, dir->ino, "its index has its root as a leaf");
		r = ext_dir_block(x, dir, dx_block(f), leaf, &pblk, err);
		if (r == 0)
			r = ext_block_insert(x, dir, leaf, child, err);
		if (r == 1)
			return ext_dir_write(x, dir, pblk, leaf, err);
		if (r == 0)
			r = f->count < f->limit ? leaf_split(x, dir, &p, pblk, err)
						: index_grow(x, dir, &p, err);
		if (r < 0)
			return r;
	}
	return ext_corrupt(err, dir->ino, "its index makes no room for a name");
}

/* ---- a new index ---- */

/* Turns a directory of one block into one with an index: 0 when its block is not as usual. */
int dx_make(struct ext *x, struct ext_inode *dir, struct err *err)
{
	unsigned char *root = x->dirbuf[0], *leaf = x->dirbuf[DX_LEAF_BUF];
	const int version = x->e2->super->s_def_hash_version;
	struct ext2_dx_root_info *info = (void *)(root + DX_ROOT_INFO);
	struct dx_frame f = {.buf = root, .entries = (void *)(root + DX_ROOT)};
	struct ext_entry dot, dots;
	struct leaf_entry *v;
	uint64_t lblk, pblk, root_pblk;
	unsigned n;
	int r = ext_dir_block(x, dir, 0, root, &root_pblk, err);

	if (r == 0)
		r = ext_entry_at(x, dir, root, 0, x->bs, &dot, err);
	if (r == 0 && (version > EXT2_HASH_TEA || dot.len != 12))
		return 0;
	if (r == 0)
		r = ext_entry_at(x, dir, root, 12, x->bs, &dots, err);
	if (r != 0)
		return r;
	if (dots.name.len != 2 || memcmp(dots.name.s, "..", 2) != 0)
		return 0;
	r = leaf_entries(x, dir, version, root, 12 + dots.len, &v, &n, err);
	if (r < 0)
		return r;
	r = ext_dir_append(x, dir, &lblk, &pblk, err);
	if (r == 0) {
		leaf_pack(x, leaf, root, v, n);
		r = ext_dir_write(x, dir, pblk, leaf, err);
	}
	free(v);
	if (r < 0)
		return r;
	memset(root + DX_ROOT_INFO, 0, x->bs - DX_ROOT_INFO);
	ext2fs_set_rec_len(x->e2, x->bs - 12, dots.e);
	info->hash_version = (uint8_t)version;
	info->info_length = sizeof(*info);
	f.limit = (x->bs - DX_ROOT - dx_tail(x)) / sizeof(struct ext2_dx_entry);
	f.count = 1;
	f.entries[0].block = (uint32_t)lblk;
	node_write_count(&f);
	dir->u.small.i_flags |= EXT2_INDEX_FL;
	r = ext_inode_write(x, dir, err);
	if (r == 0)
		r = ext_dir_write(x, dir, root_pblk, root, err);
	return r < 0 ? r : 1;
}
