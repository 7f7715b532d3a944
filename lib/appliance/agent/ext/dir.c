/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories: blocks of entries, walked with every length checked, and finding a name, by the
 * index (htree.c) or in order. An inline directory is one or two small blocks without a checksum:
 * behind the number of its parent in i_block, and in the attribute system.data.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"
#include "appliance/protocol.h"

#define INLINE_FIRST (EXT2_N_BLOCKS * 4u) /* bytes in the inode, with the parent's number */

int ext_dir_block(struct ext *x, const struct ext_inode *dir, uint64_t lblk, void *buf,
		  uint64_t *pblk, struct err *err)
{
	struct ext_run run;
	errcode_t code;
	int r = ext_map(x, dir, lblk, 1, &run, err);

	if (r < 0)
		return r;
	if (run.kind != EXT_DATA)
		return ext_corrupt(err, dir->ino, "block %llu of the directory is a hole",
				   (unsigned long long)lblk);
	*pblk = run.pblk;
	code = ext2fs_read_dir_block4(x->e2, run.pblk, buf, 0, dir->ino);
	return ext_error(x, code, err, "a block of directory", dir->ino);
}

int ext_entry_at(struct ext *x, const struct ext_inode *dir, const unsigned char *buf, uint32_t off,
		 uint32_t end, struct ext_entry *out, struct err *err)
{
	struct ext2_dir_entry *e = (struct ext2_dir_entry *)(uintptr_t)(buf + off);
	const bool typed = ext2fs_has_feature_filetype(x->e2->super);

	if (end - off < EXT2_DIR_ENTRY_HEADER_LEN || ext2fs_get_rec_len(x->e2, e, &out->len) != 0 ||
	    out->len < EXT2_DIR_ENTRY_HEADER_LEN || out->len % 4 || out->len > end - off)
		return ext_corrupt(err, dir->ino,
				   "a broken entry at byte %u of a block of the "
				   "directory",
				   off);
	out->e = e;
	out->type = typed ? (unsigned)ext2fs_dirent_file_type(e) : EXT2_FT_UNKNOWN;
	out->name = (struct ext_name){e->name,
				      typed ? (unsigned)ext2fs_dirent_name_len(e) : e->name_len};
	if (e->inode &&
	    (out->name.len > EXT2_NAME_LEN || out->name.len + EXT2_DIR_ENTRY_HEADER_LEN > out->len))
		return ext_corrupt(err, dir->ino,
				   "a name of %zu bytes in an entry of %u bytes of the directory",
				   out->name.len, out->len);
	return 0;
}

/* Entries of [off, end) of a buffer. */
static int walk_bytes(struct ext *x, const struct ext_inode *dir, const unsigned char *buf,
		      uint32_t off, uint32_t end, struct ext_slot *slot, ext_entry_fn *fn,
		      void *arg, struct err *err)
{
	struct ext_entry entry;

	slot->prev = off;
	for (; off < end; off += entry.len) {
		int r = ext_entry_at(x, dir, buf, off, end, &entry, err);

		if (r != 0)
			return r;
		slot->off = off;
		slot->ino = entry.e->inode;
		slot->type = entry.type;
		if (slot->ino) {
			r = fn(arg, slot, entry.name, err);
			if (r != 0)
				return r;
		}
		slot->prev = off;
	}
	return 0;
}

int ext_walk_block(struct ext *x, const struct ext_inode *dir, const unsigned char *buf,
		   uint64_t lblk, uint64_t pblk, ext_entry_fn *fn, void *arg, struct err *err)
{
	struct ext_slot slot = {.lblk = lblk, .pblk = pblk};

	return walk_bytes(x, dir, buf, 0, x->bs, &slot, fn, arg, err);
}

static int walk_inline(struct ext *x, const struct ext_inode *dir, ext_entry_fn *fn, void *arg,
		       struct err *err)
{
	struct ext_slot slot = {.lblk = 0};
	unsigned char *data;
	size_t size;
	uint32_t parent;
	int r = ext_inline_get(x, dir, &data, &size, err);

	if (r < 0)
		return r;
	memcpy(&parent, dir->u.small.i_block, sizeof(parent));
	slot.ino = dir->ino;
	slot.type = EXT2_FT_DIR;
	r = fn(arg, &slot, (struct ext_name){".", 1}, err);
	slot.ino = parent;
	if (r == 0)
		r = fn(arg, &slot, (struct ext_name){"..", 2}, err);
	if (r == 0 && size < INLINE_FIRST)
		r = ext_corrupt(err, dir->ino, "an inline directory of %zu bytes", size);
	if (r == 0)
		r = walk_bytes(x, dir, data, 4, INLINE_FIRST, &slot, fn, arg, err);
	if (r == 0)
		r = walk_bytes(x, dir, data, INLINE_FIRST, (uint32_t)size, &slot, fn, arg, err);
	free(data);
	return r;
}

int ext_dir_blocks(struct ext *x, const struct ext_inode *dir, uint64_t *n, struct err *err)
{
	uint64_t size = ext_inode_size(dir);

	/* Each block is used once, so there are no more of them than in the filesystem. */
	if (size == 0 || size % x->bs || size / x->bs > x->blocks)
		return ext_corrupt(err, dir->ino, "a directory of %llu bytes",
				   (unsigned long long)size);
	*n = size / x->bs;
	return 0;
}

int ext_walk(struct ext *x, const struct ext_inode *dir, ext_entry_fn *fn, void *arg,
	     struct err *err)
{
	unsigned char *buf;
	uint64_t n = 0;
	int r;

	if (ext_has(dir, EXT4_INLINE_DATA_FL))
		return walk_inline(x, dir, fn, arg, err);
	r = ext_dir_blocks(x, dir, &n, err);
	if (r < 0)
		return r;
	/* Its own: fn may walk another directory. */
	buf = malloc(x->bs);
	if (!buf)
		return err_nomem(err, x->bs, "a block");
	for (uint64_t i = 0; r == 0 && i < n; i++) {
		uint64_t pblk = 0;

		r = ext_dir_block(x, dir, i, buf, &pblk, err);
		if (r == 0)
			r = ext_walk_block(x, dir, buf, i, pblk, fn, arg, err);
	}
	free(buf);
	return r;
}

/* ---- finding ---- */

bool ext_names_equal(struct ext *x, const struct ext_inode *dir, struct ext_name a,
		     struct ext_name b)
{
	if (a.len == b.len && memcmp(a.s, b.s, a.len) == 0)
		return true;
	return ext_has(dir, EXT4_CASEFOLD_FL) && x->e2->encoding &&
	       ext2fs_casefold_cmp(x->e2->encoding, (const unsigned char *)a.s, a.len,
				   (const unsigned char *)b.s, b.len) == 0;
}

struct search {
	struct ext *x;
	const struct ext_inode *dir;
	struct ext_name name;
	struct ext_slot *found;
};

static int search_entry(void *arg, const struct ext_slot *slot, struct ext_name name,
			struct err *err)
{
	struct search *s = arg;

	(void)err;
	if (!ext_names_equal(s->x, s->dir, s->name, name))
		return 0;
	*s->found = *slot;
	return 1;
}

int ext_find_in_block(struct ext *x, const struct ext_inode *dir, const unsigned char *buf,
		      uint64_t lblk, uint64_t pblk, struct ext_name name, struct ext_slot *slot,
		      struct err *err)
{
	struct search s = {x, dir, name, slot};

	return ext_walk_block(x, dir, buf, lblk, pblk, search_entry, &s, err);
}

int ext_no_entry(struct err *err, struct ext_name name)
{
	return err_set(err, ENOENT, "%.*s: there is no such file or directory", (int)name.len,
		       name.s);
}

int ext_find(struct ext *x, const struct ext_inode *dir, struct ext_name name,
	     struct ext_slot *slot, struct err *err)
{
	struct search s = {x, dir, name, slot};
	int r;

	if (name.len == 0 || name.len > EXT2_NAME_LEN)
		return err_set(err, ENAMETOOLONG, "a name of %zu bytes", name.len);
	r = ext_htree_find(x, dir, name, slot, err);
	if (r <= 0)
		return r;
	r = ext_walk(x, dir, search_entry, &s, err);
	if (r == 0)
		return ext_no_entry(err, name);
	return r < 0 ? r : 0;
}

int ext_lookup(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t *ino,
	       struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	struct ext_slot slot;
	int r = ext_dir_read(x, dir, &inode, err);

	if (r == 0)
		r = ext_find(x, &inode, (struct ext_name){name, len}, &slot, err);
	if (r != 0)
		return r;
	*ino = slot.ino;
	return 0;
}

/* ---- listing ---- */

/*
 * Names are given in the order of their inodes: the caller will want to look at those, and in an
 * index names are in the order of a hash, which is none on the disk.
 */
#define BATCH_MAX (UINT32_C(2) << 20) /* bytes of names and items that are sorted at once */

struct item {
	uint32_t ino, name; /* name: its offset */
	uint8_t len, type;
};

struct listing {
	fs_entry_fn *fn;
	void *arg;
	uint32_t dir;
	struct item *items;
	char *names;
	size_t n_items, cap_items, n_names, cap_names; /* n_names: bytes */
};

static const unsigned char d_types[EXT2_FT_MAX] = {
	[EXT2_FT_UNKNOWN] = DT_UNKNOWN, [EXT2_FT_REG_FILE] = DT_REG, [EXT2_FT_DIR] = DT_DIR,
	[EXT2_FT_CHRDEV] = DT_CHR,      [EXT2_FT_BLKDEV] = DT_BLK,   [EXT2_FT_FIFO] = DT_FIFO,
	[EXT2_FT_SOCK] = DT_SOCK,       [EXT2_FT_SYMLINK] = DT_LNK,
};

static int compare_items(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

static int list_batch(struct listing *l, struct err *err)
{
	int r = 0;

	if (l->n_items)
		qsort(l->items, l->n_items, sizeof(l->items[0]), compare_items);
	for (size_t i = 0; r == 0 && i < l->n_items; i++) {
		const struct item *item = &l->items[i];

		r = l->fn(l->arg, l->names + item->name, item->len, item->ino, item->type, err);
	}
	l->n_items = l->n_names = 0;
	return r;
}

/* Makes room for one more name. */
static int list_grow(struct listing *l, struct err *err)
{
	if (l->n_items == l->cap_items) {
		size_t cap = l->cap_items ? l->cap_items * 2 : 64;
		struct item *p = reallocarray(l->items, cap, sizeof(*p));

		if (!p)
			return err_nomem(err, cap * sizeof(*p), "a directory");
		l->items = p;
		l->cap_items = cap;
	}
	if (l->cap_names - l->n_names <= EXT2_NAME_LEN) {
		size_t cap = l->cap_names ? l->cap_names * 2 : 2048;
		char *p = realloc(l->names, cap);

		if (!p)
			return err_nomem(err, cap, "a directory");
		l->names = p;
		l->cap_names = cap;
	}
	return 0;
}

static int list_entry(void *arg, const struct ext_slot *slot, struct ext_name name, struct err *err)
{
	struct listing *l = arg;
	int r;

	if (name.len <= 2 && memcmp(name.s, "..", name.len) == 0 && name.len)
		return 0;
	/* Such a name could lead a caller out of the directory. */
	if (name.len == 0 || memchr(name.s, '/', name.len) || memchr(name.s, '\0', name.len))
		return ext_corrupt(err, l->dir, "a name with a slash, a NUL or of no byte");
	if (l->n_names + l->n_items * sizeof(struct item) >= BATCH_MAX) {
		r = list_batch(l, err);
		if (r != 0)
			return r;
	}
	r = list_grow(l, err);
	if (r < 0)
		return r;
	l->items[l->n_items++] = (struct item){
		.ino = slot->ino,
		.name = (uint32_t)l->n_names,
		.len = (uint8_t)name.len,
		.type = slot->type < EXT2_FT_MAX ? d_types[slot->type] : DT_UNKNOWN,
	};
	memcpy(l->names + l->n_names, name.s, name.len);
	l->n_names += name.len;
	l->names[l->n_names++] = '\0';
	return 0;
}

int ext_readdir(struct fs *fs, uint64_t dir, fs_entry_fn *fn, void *arg, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct listing l = {.fn = fn, .arg = arg, .dir = (uint32_t)dir};
	struct ext_inode inode;
	int r = ext_dir_read(x, dir, &inode, err);

	if (r == 0)
		r = ext_walk(x, &inode, list_entry, &l, err);
	if (r == 0)
		r = list_batch(&l, err);
	free(l.items);
	free(l.names);
	return r;
}
