// SPDX-License-Identifier: GPL-2.0-or-later
/* See fakefs.h. */
#include "fakefs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "appliance/protocol.h"
#include "base/bytes.h"

#define INODES 4096u
#define XATTRS 8u
#define PAGE   4096u

struct entry {
	char name[AGENT_NAME_MAX + 1];
	size_t len;
	uint64_t ino;
};

struct inode {
	bool used;
	struct agent_stat st;
	char *data; /* of a file: st.size bytes; of a symbolic link: its target */
	struct entry *entries;
	size_t n;
	struct {
		char name[64], value[256];
		size_t len;
	} xattrs[XATTRS];
};

struct fake {
	struct fs fs;
	struct inode inodes[INODES];
	uint64_t top; /* no inode from here on was ever used */
	unsigned fail;
};

static struct fake *fake_of(struct fs *fs)
{
	return (struct fake *)(void *)fs;
}

/* NULL: there is none, and err says it. */
static struct inode *get(struct fs *fs, uint64_t ino, struct err *err)
{
	struct fake *f = fake_of(fs);

	if (ino < INODES && f->inodes[ino].used)
		return &f->inodes[ino];
	err_set(err, EUCLEAN, "inode %llu is free", (unsigned long long)ino);
	return NULL;
}

static int changing(struct fs *fs, struct err *err)
{
	struct fake *f = fake_of(fs);

	if (!f->fail || --f->fail)
		return 0;
	return err_set(err, EIO, "the disk failed");
}

static int fake_unmount(struct fs *fs, struct err *err)
{
	struct fake *f = fake_of(fs);

	(void)err;
	for (uint64_t i = 0; i < f->top; i++) {
		free(f->inodes[i].data);
		free(f->inodes[i].entries);
	}
	free(f);
	return 0;
}

static int fake_sync(struct fs *fs, struct err *err)
{
	return changing(fs, err);
}

static int fake_space(struct fs *fs, struct fs_space *out, struct err *err)
{
	(void)err;
	*out = (struct fs_space){.block = PAGE,
				 .blocks = 1000,
				 .free = 500,
				 .available = 400,
				 .files = INODES,
				 .files_free = INODES - fake_inodes(fs)};
	return 0;
}

static struct entry *find(struct inode *dir, const char *name, size_t len)
{
	for (size_t i = 0; i < dir->n; i++)
		if (dir->entries[i].len == len && !memcmp(dir->entries[i].name, name, len))
			return &dir->entries[i];
	return NULL;
}

static int fake_lookup(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t *ino,
		       struct err *err)
{
	struct inode *d = get(fs, dir, err);
	struct entry *e = d ? find(d, name, len) : NULL;

	if (!d)
		return -EUCLEAN;
	if (!e)
		return err_set(err, ENOENT, "no such name");
	*ino = e->ino;
	return 0;
}

static int fake_stat_op(struct fs *fs, uint64_t ino, struct agent_stat *st, struct err *err)
{
	struct inode *i = get(fs, ino, err);

	if (!i)
		return -EUCLEAN;
	*st = i->st;
	st->ino = ino;
	return 0;
}

static int fake_readlink(struct fs *fs, uint64_t ino, char *buf, size_t size, struct err *err)
{
	struct inode *i = get(fs, ino, err);

	if (!i)
		return -EUCLEAN;
	snprintf(buf, size, "%s", i->data ? i->data : "");
	return 0;
}

static int fake_readdir(struct fs *fs, uint64_t dir, fs_entry_fn *fn, void *arg, struct err *err)
{
	struct inode *d = get(fs, dir, err);
	int r = 0;

	if (!d || !S_ISDIR(d->st.mode))
		return d ? -ENOTDIR : -EUCLEAN;
	for (size_t i = 0; i < d->n && r == 0; i++)
		r = fn(arg, d->entries[i].name, d->entries[i].len, d->entries[i].ino, 0, err);
	return r;
}

static int fake_read(struct fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off, size_t *got,
		     struct err *err)
{
	struct inode *i = get(fs, ino, err);

	if (!i)
		return -EUCLEAN;
	*got = off < i->st.size ? min_u64(len, i->st.size - off) : 0;
	/* A size without data: all of it is a hole. */
	if (i->data)
		memcpy(buf, i->data + off, *got);
	else
		memset(buf, 0, *got);
	return 0;
}

static bool page_is_hole(const struct inode *i, uint64_t page)
{
	uint64_t off = page * PAGE;

	return !i->data || bytes_are_zero(i->data + off, min_u64(PAGE, i->st.size - off));
}

static int fake_next_data(struct fs *fs, uint64_t ino, uint64_t off, uint64_t *start, uint64_t *end,
			  struct err *err)
{
	struct inode *i = get(fs, ino, err);
	uint64_t page = off / PAGE, pages;

	if (!i)
		return -EUCLEAN;
	pages = i->data ? div_up(i->st.size, PAGE) : 0;
	while (page < pages && page_is_hole(i, page))
		page++;
	*start = page < pages ? max_u64(off, page * PAGE) : i->st.size;
	while (page < pages && !page_is_hole(i, page))
		page++;
	*end = min_u64(page * PAGE, i->st.size);
	return 0;
}

/* ---- extended attributes ---- */

static int xattr_index(const struct inode *i, const char *name)
{
	for (unsigned x = 0; x < XATTRS; x++)
		if (!strcmp(i->xattrs[x].name, name))
			return (int)x;
	return -1;
}

static int fake_xattr_get(struct fs *fs, uint64_t ino, const char *name, void *buf, size_t size,
			  size_t *len, struct err *err)
{
	struct inode *i = get(fs, ino, err);
	int x = i && *name ? xattr_index(i, name) : -1;

	if (x < 0)
		return i ? -ENODATA : -EUCLEAN;
	*len = min_u64(size, i->xattrs[x].len);
	memcpy(buf, i->xattrs[x].value, *len);
	return 0;
}

static int fake_xattr_list(struct fs *fs, uint64_t ino, char *buf, size_t size, size_t *len,
			   struct err *err)
{
	struct inode *i = get(fs, ino, err);

	*len = 0;
	for (unsigned x = 0; i && x < XATTRS; x++) {
		size_t n = strlen(i->xattrs[x].name) + 1;

		if (n == 1)
			continue;
		if (n > size - *len)
			return -ERANGE;
		memcpy(buf + *len, i->xattrs[x].name, n);
		*len += n;
	}
	return i ? 0 : -EUCLEAN;
}

static int fake_xattr_set(struct fs *fs, uint64_t ino, const char *name, const void *buf,
			  size_t len, struct err *err)
{
	struct inode *i = get(fs, ino, err);
	int r = changing(fs, err), x;

	if (r < 0 || !i)
		return r < 0 ? r : -EUCLEAN;
	x = xattr_index(i, name);
	if (x < 0)
		x = xattr_index(i, "");
	if (x < 0 || len > sizeof(i->xattrs[x].value))
		return -ENOSPC;
	snprintf(i->xattrs[x].name, sizeof(i->xattrs[x].name), "%s", name);
	memcpy(i->xattrs[x].value, buf, len);
	i->xattrs[x].len = len;
	return 0;
}

static int fake_xattr_remove(struct fs *fs, uint64_t ino, const char *name, struct err *err)
{
	struct inode *i = get(fs, ino, err);
	int x = i ? xattr_index(i, name) : -1;

	if (x < 0)
		return i ? -ENODATA : -EUCLEAN;
	i->xattrs[x].name[0] = 0;
	return 0;
}

/* ---- changes ---- */

void fake_entry(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t ino)
{
	struct inode *d = &fake_of(fs)->inodes[dir];

	d->entries = realloc(d->entries, (d->n + 1) * sizeof(*d->entries));
	if (!d->entries)
		abort();
	d->entries[d->n] = (struct entry){.len = len, .ino = ino};
	memcpy(d->entries[d->n++].name, name, len);
}

static int fake_create(struct fs *fs, uint64_t dir, const char *name, size_t len,
		       const struct fs_new *what, uint64_t *ino, struct err *err)
{
	struct fake *f = fake_of(fs);
	struct inode *d = get(fs, dir, err);
	int r = changing(fs, err);

	if (r < 0 || !d)
		return r < 0 ? r : -EUCLEAN;
	if (find(d, name, len))
		return -EEXIST;
	for (*ino = 11; *ino < INODES && f->inodes[*ino].used;)
		++*ino;
	if (*ino == INODES)
		return -ENOSPC;
	f->top = max_u64(f->top, *ino + 1);
	f->inodes[*ino] = (struct inode){.used = true,
					 .st = {.mode = what->mode,
						.uid = what->uid,
						.gid = what->gid,
						.nlink = S_ISDIR(what->mode) ? 2 : 1,
						.rdev_major = what->rdev_major,
						.rdev_minor = what->rdev_minor}};
	if (what->target) {
		f->inodes[*ino].data = strdup(what->target);
		f->inodes[*ino].st.size = strlen(what->target);
	}
	fake_entry(fs, dir, name, len, *ino);
	return 0;
}

static int fake_link(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t ino,
		     struct err *err)
{
	struct inode *i = get(fs, ino, err);
	int r = changing(fs, err);

	if (r < 0 || !i)
		return r < 0 ? r : -EUCLEAN;
	i->st.nlink++;
	fake_entry(fs, dir, name, len, ino);
	return 0;
}

static void drop(struct inode *i)
{
	if (S_ISDIR(i->st.mode) || !--i->st.nlink) {
		free(i->data);
		free(i->entries);
		*i = (struct inode){0};
	}
}

static int fake_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len, struct err *err)
{
	struct inode *d = get(fs, dir, err), *i;
	struct entry *e = d ? find(d, name, len) : NULL;
	int r = changing(fs, err);

	if (r < 0 || !e)
		return r < 0 ? r : -ENOENT;
	i = get(fs, e->ino, err);
	if (!i)
		return -EUCLEAN;
	if (S_ISDIR(i->st.mode) && i->n)
		return -ENOTEMPTY;
	drop(i);
	*e = d->entries[--d->n];
	return 0;
}

static int fake_rename(struct fs *fs, uint64_t from, const char *name, size_t len, uint64_t to,
		       const char *new_name, size_t new_len, struct err *err)
{
	struct inode *d = get(fs, from, err), *t = get(fs, to, err);
	struct entry *e = d ? find(d, name, len) : NULL,
		     *old = t ? find(t, new_name, new_len) : NULL;
	int r = changing(fs, err);
	uint64_t ino;

	if (r < 0 || !e)
		return r < 0 ? r : -ENOENT;
	ino = e->ino;
	if (old) {
		drop(&fake_of(fs)->inodes[old->ino]);
		*old = t->entries[--t->n];
		e = find(d, name, len);
	}
	*e = d->entries[--d->n];
	fake_entry(fs, to, new_name, new_len, ino);
	return 0;
}

static int set_size(struct inode *i, uint64_t size)
{
	char *data = realloc(i->data, max_u64(size, 1));

	if (!data)
		return -ENOMEM;
	if (size > i->st.size)
		memset(data + i->st.size, 0, size - i->st.size);
	i->data = data;
	i->st.size = size;
	return 0;
}

static int fake_write(struct fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
		      struct err *err)
{
	struct inode *i = get(fs, ino, err);
	int r = changing(fs, err);

	if (r < 0 || !i)
		return r < 0 ? r : -EUCLEAN;
	if (off + len > 16 * MiB)
		return -EFBIG;
	if (off + len > i->st.size)
		r = set_size(i, off + len);
	if (r == 0 && len)
		memcpy(i->data + off, buf, len);
	return r;
}

static int fake_setattr(struct fs *fs, uint64_t ino, const struct fs_attr *attr, struct err *err)
{
	struct inode *i = get(fs, ino, err);
	int r = changing(fs, err);

	if (r < 0 || !i)
		return r < 0 ? r : -EUCLEAN;
	if (attr->mask & SET_MODE)
		i->st.mode = (i->st.mode & S_IFMT) | attr->mode;
	if (attr->mask & SET_UID)
		i->st.uid = attr->uid;
	if (attr->mask & SET_GID)
		i->st.gid = attr->gid;
	if (attr->mask & SET_ATIME)
		i->st.atime = attr->atime;
	if (attr->mask & SET_MTIME)
		i->st.mtime = attr->mtime;
	if ((attr->mask & SET_SIZE) && attr->size > 16 * MiB)
		return -EFBIG;
	return attr->mask & SET_SIZE ? set_size(i, attr->size) : 0;
}

/* ---- for tests ---- */

struct fs *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	f->fs = (struct fs){.driver = &fake_driver, .root = 2, .type = "fake"};
	f->top = 3;
	f->inodes[2].used = true;
	f->inodes[2].st = (struct agent_stat){.mode = S_IFDIR | 0755, .nlink = 2};
	return &f->fs;
}

struct agent_stat *fake_stat(struct fs *fs, uint64_t ino)
{
	return &fake_of(fs)->inodes[ino].st;
}

void fake_fail(struct fs *fs, unsigned n)
{
	fake_of(fs)->fail = n;
}

unsigned fake_inodes(struct fs *fs)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < fake_of(fs)->top; i++)
		n += fake_of(fs)->inodes[i].used;
	return n;
}

static uint64_t new_inode(struct fs *fs, uint64_t dir, const char *name, const struct fs_new *what)
{
	struct err e = {0};
	uint64_t ino;

	if (fake_create(fs, dir, name, strlen(name), what, &ino, &e) < 0)
		abort();
	return ino;
}

uint64_t fake_dir(struct fs *fs, uint64_t dir, const char *name)
{
	return new_inode(fs, dir, name, &(struct fs_new){.mode = S_IFDIR | 0755});
}

uint64_t fake_symlink(struct fs *fs, uint64_t dir, const char *name, const char *target)
{
	return new_inode(fs, dir, name, &(struct fs_new){.mode = S_IFLNK | 0777, .target = target});
}

uint64_t fake_file(struct fs *fs, uint64_t dir, const char *name, const char *content)
{
	uint64_t ino = new_inode(fs, dir, name, &(struct fs_new){.mode = S_IFREG | 0644});

	if (fake_write(fs, ino, content, strlen(content), 0, NULL) < 0)
		abort();
	return ino;
}

static const char *const fake_types[] = {"fake", NULL};

const struct fs_driver fake_driver = {
	.types = fake_types,
	.unmount = fake_unmount,
	.sync = fake_sync,
	.space = fake_space,
	.lookup = fake_lookup,
	.stat = fake_stat_op,
	.readlink = fake_readlink,
	.readdir = fake_readdir,
	.read = fake_read,
	.next_data = fake_next_data,
	.xattr_get = fake_xattr_get,
	.xattr_list = fake_xattr_list,
	.create = fake_create,
	.link = fake_link,
	.unlink = fake_unlink,
	.rename = fake_rename,
	.write = fake_write,
	.setattr = fake_setattr,
	.xattr_set = fake_xattr_set,
	.xattr_remove = fake_xattr_remove,
};
