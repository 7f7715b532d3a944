/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes come and go, and names of them: create, link, unlink, rename. A name is put in after its
 * inode is whole and taken out before the inode goes; counts of links follow.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"
#include "appliance/protocol.h"

#define LINKS_MAX 65000u /* EXT4_LINK_MAX */
/* Flags of a directory that what is made in it gets, too. */
#define INHERITED (EXT2_SYNC_FL | EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT4_PROJINHERIT_FL)

/* ---- names and links ---- */

static int name_check(struct ext_name name, struct err *err)
{
	if (name.len > EXT2_NAME_LEN)
		return err_set(err, ENAMETOOLONG, "a name of %zu bytes", name.len);
	if (name.len == 0 || memchr(name.s, '/', name.len) || memchr(name.s, '\0', name.len) ||
	    (name.len <= 2 && memcmp(name.s, "..", name.len) == 0))
		return err_set(err, EINVAL, "%.*s is no name for a file", (int)name.len, name.s);
	return 0;
}

static unsigned type_of_mode(uint32_t mode)
{
	switch (mode & LINUX_S_IFMT) {
	case LINUX_S_IFREG:
		return EXT2_FT_REG_FILE;
	case LINUX_S_IFDIR:
		return EXT2_FT_DIR;
	case LINUX_S_IFCHR:
		return EXT2_FT_CHRDEV;
	case LINUX_S_IFBLK:
		return EXT2_FT_BLKDEV;
	case LINUX_S_IFIFO:
		return EXT2_FT_FIFO;
	case LINUX_S_IFSOCK:
		return EXT2_FT_SOCK;
	case LINUX_S_IFLNK:
		return EXT2_FT_SYMLINK;
	default:
		return EXT2_FT_UNKNOWN;
	}
}

static bool is_dir(const struct ext_inode *inode)
{
	return LINUX_S_ISDIR(inode->u.small.i_mode);
}

/* Whether a directory may get one more child directory. */
static int check_links(struct ext *x, const struct ext_inode *dir, struct err *err)
{
	if (dir->u.small.i_links_count < LINKS_MAX || ext2fs_has_feature_dir_nlink(x->e2->super))
		return 0;
	return err_set(err, EMLINK, "the directory (inode %u) has %u links", dir->ino,
		       dir->u.small.i_links_count);
}

/* A directory gets or loses the ".." of a child. 1 means with dir_nlink: too many to count. */
static void count_child(struct ext_inode *dir, int change)
{
	uint16_t *links = &dir->u.small.i_links_count;

	if (*links == 1 || (change < 0 && *links <= 2))
		return;
	*links = *links >= LINKS_MAX && change > 0 ? 1 : (uint16_t)(*links + change);
}

/* A directory in which something changed. */
static int touch_dir(struct ext *x, struct ext_inode *dir, struct err *err)
{
	ext_set_time(dir, SET_MTIME | EXT_CTIME, agent_now());
	return ext_inode_write(x, dir, err);
}

/* The directory and the name for something new. */
static int open_place(struct ext *x, uint64_t dir, struct ext_name name, struct ext_inode *inode,
		      struct err *err)
{
	struct ext_slot slot;
	int r = name_check(name, err);

	if (r == 0)
		r = ext_dir_read(x, dir, inode, err);
	if (r == 0)
		r = ext_may_change(inode, err);
	if (r < 0)
		return r;
	r = ext_find(x, inode, name, &slot, NULL);
	if (r == 0)
		return err_set(err, EEXIST, "%.*s exists", (int)name.len, name.s);
	if (r != -ENOENT)
		return ext_find(x, inode, name, &slot, err);
	return ext_begin(x, err);
}

/* ---- new inodes ---- */

static void inode_init(struct ext *x, struct ext_inode *inode, const struct ext_inode *dir,
		       const struct fs_new *what)
{
	const struct ext2_super_block *sb = x->e2->super;
	struct ext2_inode *i = &inode->u.small;
	const unsigned most = (unsigned)EXT2_INODE_SIZE(sb) - EXT2_GOOD_OLD_INODE_SIZE;
	unsigned extra = sb->s_want_extra_isize;

	memset(inode->u.raw, 0, sizeof(inode->u.raw));
	if (extra < sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE || extra > most ||
	    extra % 4)
		extra = sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE;
	if (EXT2_INODE_SIZE(sb) > EXT2_GOOD_OLD_INODE_SIZE)
		inode->u.large.i_extra_isize = (uint16_t)extra;
	i->i_mode = (uint16_t)what->mode;
	i->i_uid = (uint16_t)what->uid;
	ext2fs_set_i_uid_high(*i, (uint16_t)(what->uid >> 16));
	i->i_gid = (uint16_t)what->gid;
	ext2fs_set_i_gid_high(*i, (uint16_t)(what->gid >> 16));
	i->i_links_count = LINUX_S_ISDIR(what->mode) ? 2 : 1;
	i->i_generation = x->generation++;
	i->i_flags = dir->u.small.i_flags & INHERITED;
	if (LINUX_S_ISDIR(what->mode))
		i->i_flags |= dir->u.small.i_flags & (EXT4_CASEFOLD_FL | EXT2_DIRSYNC_FL);
	if (EXT2_INODE_SIZE(sb) > EXT2_GOOD_OLD_INODE_SIZE && ext_has(dir, EXT4_PROJINHERIT_FL))
		inode->u.large.i_projid = dir->u.large.i_projid;
	ext_set_time(inode, SET_ATIME | SET_MTIME | EXT_CTIME | EXT_BTIME, agent_now());
}

static void set_rdev(struct ext2_inode *i, const struct fs_new *what)
{
	uint32_t major = what->rdev_major, minor = what->rdev_minor;

	if (major < 256 && minor < 256)
		i->i_block[0] = major << 8 | minor;
	else
		i->i_block[1] = (minor & 0xff) | major << 8 | (minor & 0xfff00) << 12;
}

/* The tree of a file that will have blocks. */
static void init_map(struct ext *x, struct ext2_inode *i)
{
	struct ext3_extent_header *eh = (void *)i->i_block;

	if (!ext2fs_has_feature_extents(x->e2->super))
		return;
	eh->eh_magic = EXT3_EXT_MAGIC;
	eh->eh_max = (sizeof(i->i_block) - sizeof(*eh)) / sizeof(struct ext3_extent);
	i->i_flags |= EXT4_EXTENTS_FL;
}

static int init_symlink(struct ext *x, struct ext_inode *inode, const char *target, struct err *err)
{
	struct ext2_inode *i = &inode->u.small;
	size_t len = target ? strlen(target) : 0;
	struct ext_run run;
	int r;

	if (len == 0 || len >= x->bs || len >= AGENT_PATH_MAX)
		return err_set(err, len ? ENAMETOOLONG : EINVAL,
			       "a symbolic link with a target of %zu bytes", len);
	i->i_size = (uint32_t)len;
	if (len < sizeof(i->i_block)) {
		memcpy(i->i_block, target, len);
		return 0;
	}
	init_map(x, i);
	r = ext_alloc(x, inode, 0, 1, &run, err);
	if (r == 0)
		r = cache_zero(x->cache, run.pblk * x->bs, x->bs, err);
	return r < 0 ? r : cache_write(x->cache, target, len, run.pblk * x->bs, err);
}

static int init_dir(struct ext *x, struct ext_inode *inode, uint32_t parent, struct err *err)
{
	unsigned char *buf = x->dirbuf[0];
	const struct ext_child dot = {{".", 1}, inode->ino, EXT2_FT_DIR};
	const struct ext_child dots = {{"..", 2}, parent, EXT2_FT_DIR};
	struct ext_run run;
	int r;

	init_map(x, &inode->u.small);
	r = ext_alloc(x, inode, 0, 1, &run, err);
	if (r < 0)
		return r;
	inode->u.small.i_size = x->bs;
	ext_block_init(x, buf);
	ext_entry_fill(x, buf, 0, 12, &dot);
	ext_entry_fill(x, buf, 12, ext_dir_room(x) - 12, &dots);
	return ext_dir_write(x, inode, run.pblk, buf, err);
}

/* Takes an inode and makes it what was asked for; on an error it is given back. */
static int inode_new(struct ext *x, const struct ext_inode *dir, const struct fs_new *what,
		     struct ext_inode *inode, struct err *err)
{
	const unsigned type = type_of_mode(what->mode);
	ext2_ino_t ino;
	errcode_t code;
	int r = 0;

	if (type == EXT2_FT_UNKNOWN)
		return err_set(err, EINVAL, "a file of mode 0%o", what->mode);
	code = ext2fs_new_inode(x->e2, dir->ino, (int)what->mode, NULL, &ino);
	if (code)
		return ext_error(x, code, err, "a new inode in directory", dir->ino);
	inode->ino = ino;
	inode_init(x, inode, dir, what);
	ext2fs_inode_alloc_stats2(x->e2, ino, +1, type == EXT2_FT_DIR);
	/* The record must be there before a tree grows that the library writes into it. */
	inode->u.small.i_flags |= EXT2_NEW_INODE_FL;
	r = ext_inode_write(x, inode, err);
	inode->u.small.i_flags &= ~EXT2_NEW_INODE_FL;
	if (r == 0 && type == EXT2_FT_DIR)
		r = init_dir(x, inode, dir->ino, err);
	else if (r == 0 && type == EXT2_FT_SYMLINK)
		r = init_symlink(x, inode, what->target, err);
	else if (r == 0 && type == EXT2_FT_REG_FILE)
		init_map(x, &inode->u.small);
	else if (r == 0 && (type == EXT2_FT_CHRDEV || type == EXT2_FT_BLKDEV))
		set_rdev(&inode->u.small, what);
	if (r == 0)
		r = ext_inode_write(x, inode, err);
	if (r < 0)
		ext_inode_free(x, inode, NULL);
	return r;
}

int ext_create(struct fs *fs, uint64_t dir, const char *name, size_t len, const struct fs_new *what,
	       uint64_t *ino, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_child child = {{name, len}, 0, type_of_mode(what->mode)};
	struct ext_inode parent, inode;
	int r = open_place(x, dir, child.name, &parent, err);

	if (r == 0 && child.type == EXT2_FT_DIR)
		r = check_links(x, &parent, err);
	if (r == 0)
		r = inode_new(x, &parent, what, &inode, err);
	if (r != 0)
		return ext_damaged(x, r);
	child.ino = inode.ino;
	r = ext_dir_add(x, &parent, &child, err);
	if (r < 0) {
		ext_inode_free(x, &inode, NULL);
		return ext_damaged(x, r);
	}
	if (child.type == EXT2_FT_DIR)
		count_child(&parent, +1);
	r = touch_dir(x, &parent, err);
	*ino = inode.ino;
	return ext_damaged(x, r);
}

int ext_link(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t ino,
	     struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_child child = {{name, len}, (uint32_t)ino, 0};
	struct ext_inode parent, inode;
	int r = ext_inode_read(x, ino, &inode, err);

	if (r == 0)
		r = ext_may_change(&inode, err);
	if (r < 0)
		return r;
	if (is_dir(&inode))
		return err_set(err, EPERM, "inode %u is a directory", inode.ino);
	if (inode.u.small.i_links_count >= LINKS_MAX || inode.u.small.i_links_count == 0)
		return err_set(err, EMLINK, "inode %u has %u links", inode.ino,
			       inode.u.small.i_links_count);
	child.type = type_of_mode(inode.u.small.i_mode);
	r = open_place(x, dir, child.name, &parent, err);
	if (r < 0)
		return r;
	r = ext_dir_add(x, &parent, &child, err);
	if (r == 0)
		r = touch_dir(x, &parent, err);
	if (r == 0) {
		inode.u.small.i_links_count++;
		ext_set_time(&inode, EXT_CTIME, agent_now());
		r = ext_inode_write(x, &inode, err);
	}
	return ext_damaged(x, r);
}

/* ---- inodes that go ---- */

static int free_attributes(struct ext *x, struct ext_inode *inode, struct err *err)
{
	errcode_t code;

	/* Values in inodes of their own are counted there. */
	if (ext2fs_has_feature_ea_inode(x->e2->super)) {
		int r = ext_inode_write(x, inode, err);

		if (r == 0)
			r = ext_xattrs_clear(x, inode, err);
		if (r == 0)
			r = ext_inode_read(x, inode->ino, inode, err);

		if (r < 0)
			return r;
	}
	if (!ext2fs_file_acl_block(x->e2, &inode->u.small))
		return 0;
	code = ext2fs_free_ext_attr(x->e2, inode->ino, &inode->u.large);
	return ext_error(x, code, err, "the attributes of", inode->ino);
}

int ext_inode_free(struct ext *x, struct ext_inode *inode, struct err *err)
{
	struct ext2_inode *i = &inode->u.small;
	errcode_t code = 0;
	int r;

	i->i_links_count = 0;
	r = free_attributes(x, inode, err);
	if (r == 0 && !ext_has(inode, EXT4_INLINE_DATA_FL) &&
	    ext2fs_inode_has_valid_blocks2(x->e2, i)) {
		code = ext_punch(x, inode->ino, i, 0);
		r = ext_error(x, code, err, "the blocks of", inode->ino);
	}
	if (r < 0)
		return r;
	if (x->goal_ino == inode->ino)
		x->goal_ino = 0;
	if (x->room_dir == inode->ino)
		x->room_dir = 0;
	i->i_dtime = (uint32_t)agent_now().sec;
	if (LINUX_S_ISREG(i->i_mode) || is_dir(inode))
		i->i_size = i->i_size_high = 0;
	ext2fs_inode_alloc_stats2(x->e2, inode->ino, -1, is_dir(inode));
	return ext_inode_write(x, inode, err);
}

static int any_entry(void *arg, const struct ext_slot *slot, struct ext_name name, struct err *err)
{
	(void)arg;
	(void)slot;
	(void)err;
	return !(name.len <= 2 && memcmp(name.s, "..", name.len) == 0);
}

/* Whether it may go: a directory must be empty. */
static int may_go(struct ext *x, const struct ext_inode *inode, struct err *err)
{
	int r = ext_may_change(inode, err);

	if (r < 0 || !is_dir(inode))
		return r;
	if (inode->ino == EXT2_ROOT_INO)
		return err_set(err, EBUSY, "the root directory cannot go");
	r = ext_walk(x, inode, any_entry, NULL, err);
	if (r > 0)
		return err_set(err, ENOTEMPTY, "the directory (inode %u) is not empty", inode->ino);
	return r;
}

/* One name less. The inode goes with its last; dir is where that was. */
static int drop_link(struct ext *x, struct ext_inode *dir, struct ext_inode *inode, struct err *err)
{
	if (is_dir(inode)) {
		count_child(dir, -1);
		inode->u.small.i_links_count = 0;
	} else if (inode->u.small.i_links_count) {
		inode->u.small.i_links_count--;
	}
	if (inode->u.small.i_links_count == 0)
		return ext_inode_free(x, inode, err);
	ext_set_time(inode, EXT_CTIME, agent_now());
	return ext_inode_write(x, inode, err);
}

/* A name that is there, and its inode. */
static int open_name(struct ext *x, uint64_t dir, struct ext_name name, struct ext_inode *parent,
		     struct ext_slot *slot, struct ext_inode *inode, struct err *err)
{
	int r = name_check(name, err);

	if (r == 0)
		r = ext_dir_read(x, dir, parent, err);
	if (r == 0)
		r = ext_may_change(parent, err);
	if (r == 0)
		r = ext_find(x, parent, name, slot, err);
	return r != 0 ? r : ext_inode_read(x, slot->ino, inode, err);
}

int ext_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len, struct err *err)
{
	struct ext *x = ext_of(fs);
	const struct ext_name n = {name, len};
	struct ext_inode parent, inode;
	struct ext_slot slot;
	int r = open_name(x, dir, n, &parent, &slot, &inode, err);

	if (r == 0)
		r = may_go(x, &inode, err);
	if (r == 0)
		r = ext_begin(x, err);
	if (r != 0)
		return r;
	r = ext_dir_remove(x, &parent, n, &slot, err);
	if (r == 0)
		r = drop_link(x, &parent, &inode, err);
	if (r == 0)
		r = touch_dir(x, &parent, err);
	return ext_damaged(x, r);
}

/* ---- renaming ---- */

struct move {
	struct ext_inode a, b; /* directories; b is not used when they are one */
	struct ext_inode *from, *to;
	struct ext_inode child, target;
	struct ext_slot slot, old; /* of the child; of the target */
	bool replaces;
};

/* Reads and judges all that takes part. 1: there is nothing to do. */
static int move_prepare(struct ext *x, struct move *m, uint64_t from, struct ext_name name,
			uint64_t to, struct ext_name new_name, struct err *err)
{
	int r = open_name(x, from, name, &m->a, &m->slot, &m->child, err);

	if (r == 0)
		r = ext_may_change(&m->child, err);
	if (r == 0)
		r = name_check(new_name, err);
	m->from = m->to = &m->a;
	if (r == 0 && from != to) {
		m->to = &m->b;
		r = ext_dir_read(x, to, m->to, err);
		if (r == 0 && is_dir(&m->child))
			r = check_links(x, m->to, err);
		if (r == 0)
			r = ext_may_change(m->to, err);
	}
	if (r < 0)
		return r;
	r = ext_find(x, m->to, new_name, &m->old, NULL);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return ext_find(x, m->to, new_name, &m->old, err);
	/* In a directory without cases the new name may be another spelling of the old one. */
	if (from == to && m->old.lblk == m->slot.lblk && m->old.off == m->slot.off &&
	    m->old.ino == m->slot.ino)
		return name.len == new_name.len && memcmp(name.s, new_name.s, name.len) == 0;
	if (m->old.ino == m->slot.ino)
		return 1;
	m->replaces = true;
	r = ext_inode_read(x, m->old.ino, &m->target, err);
	if (r == 0 && is_dir(&m->target) != is_dir(&m->child))
		r = err_set(err, is_dir(&m->target) ? EISDIR : ENOTDIR,
			    "a directory and another file cannot replace each other");
	return r < 0 ? r : may_go(x, &m->target, err);
}

/* The directory m->child goes from one parent to another. */
static int move_dots(struct ext *x, struct move *m, struct err *err)
{
	const struct ext_child dots = {{"..", 2}, m->to->ino, EXT2_FT_DIR};
	struct ext_slot slot;
	int r = ext_find(x, &m->child, dots.name, &slot, err);

	if (r == 0)
		r = ext_dir_point(x, &m->child, &dots, &slot, err);
	count_child(m->to, +1);
	count_child(m->from, -1);
	return r;
}

static int move_do(struct ext *x, struct move *m, struct ext_name name, struct ext_name new_name,
		   struct err *err)
{
	const struct ext_child child = {new_name, m->slot.ino,
					type_of_mode(m->child.u.small.i_mode)};
	const struct ext_name old_name = name;
	int r;

	/* Another spelling of one name: both cannot be there at once. */
	if (m->from == m->to && ext_names_equal(x, m->to, name, new_name)) {
		r = ext_dir_remove(x, m->from, old_name, &m->slot, err);
		return r < 0 ? r : ext_dir_add(x, m->to, &child, err);
	}
	if (m->replaces)
		r = ext_dir_point(x, m->to, &child, &m->old, err);
	else
		r = ext_dir_add(x, m->to, &child, err);
	if (r == 0 && m->replaces)
		r = drop_link(x, m->to, &m->target, err);
	if (r == 0 && is_dir(&m->child) && m->from != m->to)
		r = move_dots(x, m, err);
	/* The new name may have moved the old one to another block. */
	if (r == 0)
		r = ext_find(x, m->from, old_name, &m->slot, err);
	return r < 0 ? r : ext_dir_remove(x, m->from, old_name, &m->slot, err);
}

int ext_rename(struct fs *fs, uint64_t from, const char *name, size_t len, uint64_t to,
	       const char *new_name, size_t new_len, struct err *err)
{
	struct ext *x = ext_of(fs);
	const struct ext_name a = {name, len}, b = {new_name, new_len};
	struct move *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_nomem(err, sizeof(*m), "a rename");
	r = move_prepare(x, m, from, a, to, b, err);
	if (r == 0)
		r = ext_begin(x, err);
	if (r == 0) {
		r = move_do(x, m, a, b, err);
		if (r == 0)
			r = touch_dir(x, m->from, err);
		if (r == 0 && m->to != m->from)
			r = touch_dir(x, m->to, err);
		if (r == 0) {
			ext_set_time(&m->child, EXT_CTIME, agent_now());
			r = ext_inode_write(x, &m->child, err);
		}
		ext_damaged(x, r);
	}
	free(m);
	return r > 0 ? 0 : r;
}
