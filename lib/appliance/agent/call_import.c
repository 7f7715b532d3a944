/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OP_IMPORT: makes what a stream of records says, below a directory.
 *
 * A stream is not trusted with more than that directory: its paths have no "..", and a symbolic
 * link on the way of one is an error, unless TREE_FOLLOW allows the links that lead to
 * directories. Directories get their times at the end, since making entries changes them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"

#define TIMES_MAX 131072u /* directories whose times wait: 7 MiB */

struct dir_times {
	struct node dir;
	struct agent_time atime, mtime;
};

struct importing {
	struct agent *a;
	struct call_path base;
	uint32_t flags;
	struct node top;

	char parent[AGENT_PATH_MAX]; /* the directory of the last entry, and what it is */
	struct node parent_node;
	bool parent_known;

	struct agent_stat st; /* of the last entry */
	struct node node;
	bool open;    /* node is new and may get attributes */
	bool content; /* and bytes, from `next` on */
	bool left;    /* node was there and stays as it is */
	uint64_t next;

	struct dir_times *times;
	size_t n_times, cap_times;
};

/* ---- paths ---- */

/* Names with single slashes between them, or nothing. */
static bool path_ok(const char *path)
{
	size_t n;

	if (!*path)
		return true;
	for (;; path += n + 1) {
		n = strcspn(path, "/");
		if (!tree_name_ok(path, n))
			return false;
		if (!path[n])
			return true;
	}
}

/* A directory on the way, which nobody told of: as mkdir -p makes it. */
static int make_missing(struct importing *im, struct node *dir, const char *name, size_t len,
			struct err *err)
{
	const struct fs_new what = {.mode = S_IFDIR | 0755};
	struct fs *fs = tree_fs(&im->a->tree, *dir);
	int r = tree_writable(&im->a->tree, *dir, name, err);

	return r < 0 ? r : fs->driver->create(fs, dir->ino, name, len, &what, &dir->ino, err);
}

/* Where a link in the place of a directory leads. path: up to it. */
static int through_link(struct importing *im, const char *path, size_t len, struct node *dir,
			struct err *err)
{
	static char full[2 * AGENT_PATH_MAX];
	struct place p;
	size_t n = strlen(im->base.s);
	int r;

	if (!(im->flags & TREE_FOLLOW))
		return err_set(err, ELOOP, "%.*s is a symbolic link", (int)len, path);
	memcpy(full, im->base.s, n);
	full[n] = '/';
	memcpy(full + n + 1, path, len);
	full[n + 1 + len] = 0;
	r = tree_find(&im->a->tree, full, true, &p, err);
	if (r == 0 && !S_ISDIR(p.st.mode))
		r = err_sys(err, ENOTDIR, "%.*s", (int)len, path);
	if (r == 0)
		*dir = p.node;
	return r;
}

/* One directory down; path[0 … end) is the way to it, and name its last part. */
static int down(struct importing *im, const char *path, const char *name, size_t len,
		struct node *dir, struct err *err)
{
	struct agent_stat st;
	struct node n;
	int r = tree_lookup(&im->a->tree, *dir, name, len, &n, err);

	if (tree_absent(r, err))
		return make_missing(im, dir, name, len, err);
	if (r == 0)
		r = tree_stat(&im->a->tree, n, &st, err);
	if (r < 0)
		return r;
	if (S_ISLNK(st.mode))
		return through_link(im, path, (size_t)(name - path) + len, dir, err);
	if (!S_ISDIR(st.mode))
		return -ENOTDIR;
	*dir = n;
	return 0;
}

/* The directory that holds the last name of a path, and that name. */
static int parent_of(struct importing *im, const char *path, struct node *dir, const char **name,
		     struct err *err)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	int r = 0;

	*name = slash ? slash + 1 : path;
	*dir = im->parent_node;
	if (im->parent_known && strlen(im->parent) == len && !memcmp(im->parent, path, len))
		return 0;
	*dir = im->top;
	for (const char *s = path; s < *name && r == 0;) {
		size_t n = strcspn(s, "/");

		r = down(im, path, s, n, dir, err);
		s += n + 1;
	}
	if (r < 0)
		return r;
	memcpy(im->parent, path, len);
	im->parent[len] = 0;
	im->parent_node = *dir;
	im->parent_known = true;
	return 0;
}

/* ---- the end of an entry, and of all ---- */

static int set_times(struct importing *im, const struct dir_times *t, struct err *err)
{
	const struct fs_attr attr = {.mask = SET_ATIME | SET_MTIME,
				     .atime = t->atime,
				     .mtime = t->mtime};
	struct fs *fs = tree_fs(&im->a->tree, t->dir);

	return fs->driver->setattr(fs, t->dir.ino, &attr, err);
}

static int set_all_times(struct importing *im, struct err *err)
{
	int r = 0;

	while (im->n_times && r == 0)
		r = set_times(im, &im->times[--im->n_times], err);
	return r;
}

/* Sets the times of a directory at the end, or, when too many wait, as late as memory allows. */
static int times_later(struct importing *im, struct err *err)
{
	if (im->n_times == TIMES_MAX) {
		int r = set_all_times(im, err);

		if (r < 0)
			return r;
	}
	if (im->n_times == im->cap_times) {
		size_t cap = im->cap_times ? 2 * im->cap_times : 256;
		struct dir_times *times = realloc(im->times, cap * sizeof(*times));

		if (!times)
			return err_nomem(err, cap * sizeof(*times), "times of directories");
		im->times = times;
		im->cap_times = cap;
	}
	im->times[im->n_times++] =
		(struct dir_times){.dir = im->node, .atime = im->st.atime, .mtime = im->st.mtime};
	return 0;
}

static int finish_entry(struct importing *im, struct err *err)
{
	struct fs_attr attr = {.mask = SET_ATIME | SET_MTIME,
			       .atime = im->st.atime,
			       .mtime = im->st.mtime};
	struct fs *fs;

	if (!im->open)
		return 0;
	im->open = false;
	if (S_ISDIR(im->st.mode))
		return times_later(im, err);
	/* A hole at the end has no record. */
	if (im->content && im->next < im->st.size) {
		attr.mask |= SET_SIZE;
		attr.size = im->st.size;
	}
	fs = tree_fs(&im->a->tree, im->node);
	return fs->driver->setattr(fs, im->node.ino, &attr, err);
}

/* ---- entries ---- */

/* The directory is there already: it becomes what the stream says, except for its entries. */
static int merge_dir(struct importing *im, struct node dir, struct err *err)
{
	struct fs_attr attr = {.mask = SET_MODE, .mode = im->st.mode & 07777};
	struct fs *fs = tree_fs(&im->a->tree, dir);
	int r = tree_writable(&im->a->tree, dir, "a directory of the stream", err);

	im->left = im->flags & TREE_KEEP_OLD;
	if (im->left)
		return r;
	if (im->flags & TREE_KEEP_OWNER) {
		attr.mask |= SET_UID | SET_GID;
		attr.uid = im->st.uid;
		attr.gid = im->st.gid;
	}
	if (r == 0)
		r = fs->driver->setattr(fs, dir.ino, &attr, err);
	im->node = dir;
	im->open = r == 0;
	return r;
}

/* The file is there already, and gets new content. */
static int empty_file(struct importing *im, struct node old, struct err *err)
{
	const struct fs_attr empty = {.mask = SET_SIZE};
	struct fs *fs = tree_fs(&im->a->tree, old);
	int r = fs->driver->setattr(fs, old.ino, &empty, err);

	im->node = old;
	im->open = im->content = r == 0;
	im->next = 0;
	return r;
}

/* Something has the name. 1: it is what was wanted; 0: it went away. */
static int make_room(struct importing *im, struct node dir, const char *name, struct node old,
		     bool other, struct err *err)
{
	struct fs *fs = tree_fs(&im->a->tree, dir);
	struct agent_stat st;
	int r = tree_stat(&im->a->tree, old, &st, err);

	if (r < 0)
		return r;
	if (S_ISDIR(im->st.mode) && S_ISDIR(st.mode)) {
		r = merge_dir(im, old, err);
		return r < 0 ? r : 1;
	}
	/* A link that stands for a directory is left as it is. */
	im->left = S_ISDIR(im->st.mode) && S_ISLNK(st.mode) && (im->flags & TREE_FOLLOW);
	if (im->left)
		return 1;
	if (S_ISDIR(st.mode))
		return -EISDIR;
	if (S_ISDIR(im->st.mode) && !other)
		return -ENOTDIR;
	if (!(im->flags & TREE_REPLACE))
		return -EEXIST;
	if (!other && (im->flags & TREE_KEEP_OLD) && S_ISREG(im->st.mode) && S_ISREG(st.mode)) {
		r = empty_file(im, old, err);
		return r < 0 ? r : 1;
	}
	return fs->driver->unlink(fs, dir.ino, name, strlen(name), err);
}

static int make_link(struct importing *im, struct node dir, const char *name, const char *first,
		     struct err *err)
{
	struct fs *fs = tree_fs(&im->a->tree, dir);
	const char *first_name;
	struct agent_stat st;
	struct node from, n;
	int r;

	if (!*first || !path_ok(first))
		return err_set(err, EINVAL, "the first name of the file is malformed");
	r = parent_of(im, first, &from, &first_name, err);
	if (r == 0)
		r = tree_lookup(&im->a->tree, from, first_name, strlen(first_name), &n, err);
	if (r == 0)
		r = tree_stat(&im->a->tree, n, &st, err);
	if (r != 0)
		return r;
	if (S_ISDIR(st.mode))
		return -EPERM;
	if (n.mount != dir.mount)
		return -EXDEV;
	return fs->driver->link(fs, dir.ino, name, strlen(name), n.ino, err);
}

static int make_entry(struct importing *im, struct node dir, const char *name, const char *target,
		      struct err *err)
{
	struct fs_new what = {.mode = im->st.mode,
			      .rdev_major = im->st.rdev_major,
			      .rdev_minor = im->st.rdev_minor,
			      .target = S_ISLNK(im->st.mode) ? target : NULL};
	struct fs *fs = tree_fs(&im->a->tree, dir);
	int r;

	if (im->flags & TREE_KEEP_OWNER) {
		what.uid = im->st.uid;
		what.gid = im->st.gid;
	}
	im->node.mount = dir.mount;
	r = fs->driver->create(fs, dir.ino, name, strlen(name), &what, &im->node.ino, err);
	im->open = r == 0;
	im->content = r == 0 && S_ISREG(what.mode);
	im->next = 0;
	return r;
}

static int type_ok(const struct agent_stat *st, const char *target, struct err *err)
{
	switch (st->mode & S_IFMT) {
	case S_IFLNK:
		if (!*target)
			return err_set(err, EINVAL, "a symbolic link without a target");
		return 0;
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		if (!(st->mode & ~(uint32_t)(S_IFMT | 07777)) && st->size <= INT64_MAX)
			return 0;
		break;
	default:
		break;
	}
	return err_set(err, EINVAL, "mode 0%o, size %llu", st->mode, (unsigned long long)st->size);
}

static int place_entry(struct importing *im, const char *path, bool other, const char *target,
		       struct err *err)
{
	const char *name;
	struct node dir, old;
	int r = parent_of(im, path, &dir, &name, err);

	if (r == 0)
		r = tree_writable(&im->a->tree, dir, path, err);
	if (r < 0)
		return r;
	r = tree_lookup(&im->a->tree, dir, name, strlen(name), &old, err);
	if (r == 0) {
		r = make_room(im, dir, name, old, other, err);
		if (r != 0)
			return r < 0 ? r : 0;
	} else if (!tree_absent(r, err)) {
		return r;
	}
	if (other)
		return make_link(im, dir, name, target, err);
	return make_entry(im, dir, name, target, err);
}

static int import_entry(struct importing *im, struct wire_in *in, struct err *err)
{
	static struct call_path path, target;
	uint8_t other;
	int r;

	get_path(in, &path);
	other = get_u8(in);
	get_stat(in, &im->st);
	get_path(in, &target);
	im->content = im->left = false;
	if (in->bad || other > 1 || !path_ok(path.s))
		return err_set(err, EINVAL, "an entry of the stream is malformed");
	r = other ? 0 : type_ok(&im->st, target.s, err);
	if (r == 0 && *path.s)
		r = place_entry(im, path.s, other, target.s, err);
	else if (r == 0)
		r = S_ISDIR(im->st.mode) && !other ? merge_dir(im, im->top, err) : -ENOTDIR;
	return r < 0 ? tree_error(err, r, *path.s ? path.s : ".") : 0;
}

static int import_xattr(struct importing *im, struct wire_in *in, struct err *err)
{
	char name[AGENT_NAME_MAX + 1];
	const void *value;
	struct fs *fs;
	size_t len;

	get_text(in, name, sizeof(name));
	value = get_bytes(in, AGENT_XATTR_MAX, &len);
	if (in->bad || !(im->open || im->left) || !strchr(name, '.'))
		return err_set(err, EINVAL, "an attribute of the stream is malformed");
	if (im->left)
		return 0;
	fs = tree_fs(&im->a->tree, im->node);
	return fs->driver->xattr_set(fs, im->node.ino, name, value, len, err);
}

static int import_bytes(struct importing *im, struct wire_in *in, struct err *err)
{
	uint64_t off = get_u64(in);
	const void *bytes;
	struct fs *fs;
	size_t len;

	bytes = get_bytes(in, STREAM_BYTES_MAX, &len);
	if (in->bad || !im->content || off < im->next || off > im->st.size ||
	    len > im->st.size - off)
		return err_set(err, EINVAL, "bytes of the stream are not where they belong");
	fs = tree_fs(&im->a->tree, im->node);
	im->next = off + len;
	return len ? fs->driver->write(fs, im->node.ino, bytes, len, off, err) : 0;
}

static int import_record(struct importing *im, struct wire_in *in, struct err *err)
{
	int r;

	switch (get_u8(in)) {
	case STREAM_ENTRY:
		r = finish_entry(im, err);
		return r < 0 ? r : import_entry(im, in, err);
	case STREAM_XATTR:
		return import_xattr(im, in, err);
	case STREAM_BYTES:
		return import_bytes(im, in, err);
	default:
		return err_set(err, EINVAL, "the stream holds a record that is not known");
	}
}

static int import_all(struct importing *im, struct err *err)
{
	struct frame f;
	int r;

	while ((r = channel_take(&im->a->ch, &f, err)) > 0) {
		struct wire_in in = wire_in(f.payload, f.len);

		for (r = 0; in.left && r == 0;)
			r = import_record(im, &in, err);
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = finish_entry(im, err);
	return r == 0 ? set_all_times(im, err) : r;
}

int call_import(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	static struct importing im;
	struct place p;
	int r;

	(void)result;
	im = (struct importing){.a = a};
	get_path(args, &im.base);
	im.flags = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(im.flags,
			       TREE_KEEP_OWNER | TREE_REPLACE | TREE_FOLLOW | TREE_KEEP_OLD, err);
	if (r == 0)
		r = tree_find(&a->tree, im.base.s, true, &p, err);
	if (r == 0 && !S_ISDIR(p.st.mode))
		r = err_sys(err, ENOTDIR, "%s", im.base.s);
	if (r < 0)
		return r;
	im.top = p.node;
	r = import_all(&im, err);
	free(im.times);
	return r < 0 ? tree_error(err, r, im.base.s) : 0;
}
