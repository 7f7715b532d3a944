// SPDX-License-Identifier: GPL-2.0-or-later
/* See victim.h. */
#include "victim.h"

#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "extdisk.h"
#include "tell.h"

#define REGIONS_MAX    2000u
#define JOURNAL_BLOCKS 24u /* of the journal: those in use are its first */

/* ---- making one ---- */

static void make_tree(void)
{
	sh("rm -rf tree; mkdir -p tree/dir tree/big tree/etc tree/usr/lib; echo ID=test "
	   ">tree/etc/os-release;"
	   "seq 9000 >tree/file; seq 100 >tree/dir/file; echo tiny >tree/tiny; ln -s dir/file "
	   "tree/link;"
	   "ln -s $(printf 'long/%%.0s' $(seq 40)) tree/slow; ln tree/file tree/dir/hard;"
	   "echo LABEL=x /usr ext4 >tree/etc/fstab;"
	   "for i in $(seq 60); do echo $i | dd of=tree/sparse bs=1024 seek=$((i * 3)) "
	   "conv=notrunc status=none;"
	   "ln -s target 'tree/big/name'$i; : >'tree/big/a much longer name than that one has '$i; "
	   "done");
}

static void make_image(const char *name, const char *options, bool dirty)
{
	sh("rm -f %s; truncate -s 4M %s; mke2fs -q -F -b 1024 -N 256 -d tree %s %s", name, name,
	   options, name);
	sh("head -c 700 /dev/zero | tr '\\0' x >large; printf '%%s\\n' 'mknod fifo p' 'mknod dev c "
	   "1 3' "
	   "'ea_set file user.small value' 'ea_set -f large file user.large' 'ea_set link "
	   "user.small v' "
	   "'ea_set -f large dir user.large' >commands; debugfs -w -f commands %s >log 2>&1",
	   name);
	/* With an index in the large directory; 1: it changed something. */
	if (shell("e2fsck -fyD %s >log 2>&1", name) > 1)
		die("e2fsck of %s", name);
	if (dirty)
		sh("debugfs -R 'blocks /dir/file' %s 2>/dev/null >blocks; head -c 1024 "
		   "/dev/urandom >new; "
		   "b=$(cut -d' ' -f1 blocks); printf '%%s\\n' 'jo -c -v 3' \"jw -b $b new\" \"jw "
		   "-r $b\" "
		   "\"jw -b $b new\" 'jc' >commands; debugfs -w -f commands %s >log 2>&1",
		   name, name);
}

/* ---- where its metadata are ---- */

static void add(struct victim *v, enum region_kind kind, uint64_t off, uint64_t len,
		uint64_t number)
{
	if (!len || off >= v->size || len > v->size - off)
		return;
	if (v->n_regions == REGIONS_MAX)
		die("%s has too much metadata", v->name);
	v->regions[v->n_regions++] = (struct region){kind, off, (uint32_t)len, (uint32_t)number};
}

struct walk {
	struct victim *v;
	ext2_ino_t ino;
	bool dir;
	unsigned journal;
};

static int on_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t n, blk64_t ref, int ref_off,
		    void *arg)
{
	struct walk *w = arg;
	enum region_kind kind = n < 0 ? REGION_MAP : REGION_DIR;

	(void)ref;
	(void)ref_off;
	if (w->ino == EXT2_JOURNAL_INO && n >= 0) {
		if (w->journal++ >= JOURNAL_BLOCKS)
			return BLOCK_ABORT;
		kind = REGION_JOURNAL;
	} else if (n >= 0 && !w->dir) {
		return 0;
	}
	add(w->v, kind, *block * fs->blocksize, fs->blocksize, w->ino);
	return 0;
}

static void add_inode(struct victim *v, ext2_filsys fs, ext2_ino_t ino)
{
	uint32_t per = fs->super->s_inodes_per_group, size = EXT2_INODE_SIZE(fs->super);
	uint64_t table = ext2fs_inode_table_loc(fs, (ino - 1) / per);
	struct walk w = {.v = v, .ino = ino};
	struct ext2_inode inode;

	add(v, REGION_INODE, table * fs->blocksize + (uint64_t)((ino - 1) % per) * size, size, ino);
	if (ext2fs_read_inode(fs, ino, &inode))
		return;
	w.dir = LINUX_S_ISDIR(inode.i_mode);
	add(v, REGION_XATTR, ext2fs_file_acl_block(fs, &inode) * fs->blocksize,
	    ext2fs_file_acl_block(fs, &inode) ? fs->blocksize : 0, ino);
	if (ext2fs_inode_has_valid_blocks2(fs, &inode))
		ext2fs_block_iterate3(fs, ino, BLOCK_FLAG_READ_ONLY, NULL, on_block, &w);
}

static int by_kind(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static void find_regions(struct victim *v)
{
	ext2_filsys fs;

	if (ext2fs_open(v->name, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs) ||
	    ext2fs_read_bitmaps(fs))
		die("%s cannot be opened", v->name);
	add(v, REGION_SUPER, 1024, 1024, 0);
	add(v, REGION_GROUPS, (fs->super->s_first_data_block + 1) * fs->blocksize,
	    EXT2_DESC_SIZE(fs->super) * fs->group_desc_count, 0);
	for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
		add(v, REGION_BITMAP, ext2fs_block_bitmap_loc(fs, g) * fs->blocksize, fs->blocksize,
		    g);
		add(v, REGION_BITMAP, ext2fs_inode_bitmap_loc(fs, g) * fs->blocksize, fs->blocksize,
		    g);
	}
	for (ext2_ino_t ino = EXT2_ROOT_INO; ino <= fs->super->s_inodes_count; ino++)
		if (ext2fs_test_inode_bitmap2(fs->inode_map, ino))
			add_inode(v, fs, ino);
	ext2fs_close_free(&fs);
	qsort(v->regions, v->n_regions, sizeof(*v->regions), by_kind);
	for (size_t i = 0, kind = 0; kind <= REGION_KINDS; kind++) {
		v->first[kind] = i;
		while (i < v->n_regions && v->regions[i].kind == kind)
			i++;
	}
}

void victim_make(struct victim *v, const char *name, const char *options, bool dirty)
{
	make_tree();
	make_image(name, options, dirty);
	*v = (struct victim){.name = name, .size = 4 << 20};
	v->fd = open(name, O_RDWR | O_CLOEXEC);
	v->sound = malloc(v->size);
	v->regions = calloc(REGIONS_MAX, sizeof(*v->regions));
	if (v->fd < 0 || !v->sound || !v->regions ||
	    pread(v->fd, v->sound, v->size, 0) != (ssize_t)v->size)
		die("%s cannot be read", name);
	find_regions(v);
}

void victim_free(struct victim *v)
{
	close(v->fd);
	free(v->sound);
	free(v->regions);
}

/* ---- damage ---- */

static void put(struct victim *v, uint64_t off, const void *bytes, size_t n)
{
	if (pwrite(v->fd, bytes, n, (off_t)off) != (ssize_t)n)
		die("%s cannot be written", v->name);
}

void victim_put(struct victim *v, uint64_t off, uint64_t value, unsigned width)
{
	put(v, off, &value, width); /* little-endian, as the cells' processor is */
}

void victim_heal(struct victim *v)
{
	put(v, 0, v->sound, v->size);
	if (ftruncate(v->fd, (off_t)v->size) < 0)
		die("%s cannot be cut", v->name);
}

/* A number that could do harm where `old` was. */
static uint64_t bad_number(const struct victim *v, struct rng *r, uint64_t old)
{
	static const uint64_t special[] = {0,      1,          2,          3,          7,
					   8,      0xff,       0x7f,       0x8000,     0x7fff,
					   0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe,
					   1000,   UINT64_MAX, INT64_MAX,  0xf30a,     1ull << 63};

	switch (rng_below(r, 6)) {
	case 0:
	case 1:
		return special[rng_below(r, sizeof(special) / sizeof(*special))];
	case 2:
		return old ^ UINT64_C(1) << rng_below(r, 64);
	case 3:
		return old + rng_range(r, 0, 8) - 4;
	case 4: /* a block, an inode */
		return rng_below(r, v->size / 1024);
	default:
		return rng_next(r);
	}
}

static const struct region *pick(const struct victim *v, struct rng *r)
{
	size_t kind, n;

	do {
		kind = rng_below(r, REGION_KINDS);
		n = v->first[kind + 1] - v->first[kind];
	} while (!n);
	/* The first of a kind are those of the root and of files with something special. */
	if (n > 24 && rng_percent(r, 60))
		n = 24;
	return &v->regions[v->first[kind] + rng_below(r, n)];
}

static void one_number(struct victim *v, const struct region *g, struct rng *r, char *what,
		       size_t size)
{
	unsigned width = 1u << rng_below(r, 4);
	/* Most structures are at the beginning. */
	uint64_t room = rng_percent(r, 50) && g->len > 160 ? 160 : g->len;
	uint64_t off = rng_below(r, room / width) * width, old = 0, value;

	memcpy(&old, v->sound + g->off + off, width);
	value = bad_number(v, r, old);
	victim_put(v, g->off + off, value, width);
	snprintf(what, size, " kind %d of %u: %u bytes at %llu+%llu are 0x%llx;", g->kind,
		 g->number, width, (unsigned long long)g->off, (unsigned long long)off,
		 (unsigned long long)value);
}

/* A piece of another place of the same kind, or nonsense. */
static void many_bytes(struct victim *v, const struct region *g, struct rng *r, char *what,
		       size_t size)
{
	const struct region *other = pick(v, r);
	unsigned char buf[1024];
	uint32_t n = g->len < other->len ? g->len : other->len;

	if (rng_percent(r, 60))
		memcpy(buf, v->sound + other->off, n);
	else
		rng_fill(r, buf, n);
	if (rng_percent(r, 50))
		n = (uint32_t)rng_range(r, 1, n);
	put(v, g->off, buf, n);
	snprintf(what, size, " kind %d of %u: %u bytes at %llu like %llu;", g->kind, g->number, n,
		 (unsigned long long)g->off, (unsigned long long)other->off);
}

void victim_damage(struct victim *v, struct rng *r, char *what, size_t size)
{
	size_t len = 0;

	for (uint64_t n = rng_range(r, 1, 3); n; n--) {
		const struct region *g = pick(v, r);

		if (rng_percent(r, 85))
			one_number(v, g, r, what + len, size - len);
		else
			many_bytes(v, g, r, what + len, size - len);
		len += strlen(what + len);
	}
}
