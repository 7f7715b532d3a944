/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls that change names and inodes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "inherit.h"

/* A name of the path can be made or removed: it is one, and its filesystem can be written. */
static int place_writable(struct agent *a, const struct place *p, const char *path, struct err *err)
{
	if (!p->len)
		return err_sys(err,
			       p->node.ino == tree_fs(&a->tree, p->node)->root ? EBUSY : EINVAL,
			       "%s", path);
	return tree_writable(&a->tree, p->dir, path, err);
}

static int create(struct fs *fs, const struct place *p, const struct fs_new *what,
		  struct inherited *h, struct err *err)
{
	uint64_t ino;
	int r = fs->driver->create(fs, p->dir.ino, p->name, p->len, what, &ino, err);

	if (r < 0)
		return r;
	r = inherit_to(fs, ino, what, h, err);
	if (r < 0)
		fs->driver->unlink(fs, p->dir.ino, p->name, p->len, NULL);
	return r;
}

static int make(struct agent *a, const struct place *p, const struct fs_new *what, const char *path,
		struct err *err)
{
	static struct inherited h;
	struct fs_new own = *what;
	int r;

	if (p->exists)
		return err_sys(err, EEXIST, "%s", path);
	r = place_writable(a, p, path, err);
	if (r < 0)
		return r;
	if (p->slash && !S_ISDIR(what->mode))
		return err_sys(err, ENOENT, "%s", path);
	r = inherit_from(&a->tree, p->dir, &own, &h, err);
	if (r == 0)
		r = create(tree_fs(&a->tree, p->dir), p, &own, &h, err);
	return r < 0 ? tree_error(err, r, path) : 0;
}

/* For calls that make a name: nothing may be there, and links at the end are not followed. */
static int make_at(struct agent *a, const char *path, const struct fs_new *what, struct err *err)
{
	struct place p;
	int r = tree_place(&a->tree, path, false, &p, err);

	return r < 0 ? r : make(a, &p, what, path, err);
}

/* ---- making ---- */

/* One of the directories of a path; last: the one that was asked for. */
static int make_dir(struct agent *a, const char *path, const struct fs_new *what, bool may_exist,
		    struct err *err)
{
	struct place p;
	int r = tree_place(&a->tree, path, may_exist, &p, err);

	if (r < 0 || (p.exists && may_exist && S_ISDIR(p.st.mode)))
		return r;
	return make(a, &p, what, path, err);
}

int call_mkdir(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct fs_new what = {0};
	struct call_path path;
	uint32_t flags;
	int r;

	(void)result;
	get_path(args, &path);
	what.mode = S_IFDIR | (get_u32(args) & 07777);
	what.uid = get_u32(args);
	what.gid = get_u32(args);
	flags = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(flags, TREE_RECURSIVE | TREE_MISSING_OK, err);
	if (r == 0 && (flags & TREE_RECURSIVE)) {
		for (size_t n = strlen(path.s); n > 1 && path.s[n - 1] == '/';)
			path.s[--n] = 0;
		for (char *s = path.s; (s = strchr(s + 1, '/')) && r == 0;) {
			*s = 0;
			r = make_dir(a, path.s, &what, true, err);
			*s = '/';
		}
	}
	return r < 0 ? r : make_dir(a, path.s, &what, flags & TREE_MISSING_OK, err);
}

int call_symlink(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct fs_new what = {.mode = S_IFLNK | 0777};
	struct call_path target, path;
	int r;

	(void)result;
	get_path(args, &target);
	get_path(args, &path);
	what.uid = get_u32(args);
	what.gid = get_u32(args);
	what.target = target.s;
	r = call_args(args, err);
	if (r == 0 && !target.s[0])
		r = err_set(err, ENOENT, "%s: the target of a symbolic link is empty", path.s);
	return r < 0 ? r : make_at(a, path.s, &what, err);
}

int call_mknod(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct fs_new what = {0};
	struct call_path path;
	int r;

	(void)result;
	get_path(args, &path);
	what.mode = get_u32(args);
	what.rdev_major = get_u32(args);
	what.rdev_minor = get_u32(args);
	what.uid = get_u32(args);
	what.gid = get_u32(args);
	r = call_args(args, err);
	if (r == 0 && (what.mode & ~(uint32_t)(S_IFMT | 07777)))
		r = err_set(err, EINVAL, "%s: mode 0%o", path.s, what.mode);
	if (r == 0 && !S_ISREG(what.mode) && !S_ISCHR(what.mode) && !S_ISBLK(what.mode) &&
	    !S_ISFIFO(what.mode) && !S_ISSOCK(what.mode))
		r = err_set(err, EINVAL, "%s: not a type of file that can be made so", path.s);
	return r < 0 ? r : make_at(a, path.s, &what, err);
}

/* The arguments of link and rename: a name that exists, and the place of the new one. */
static int two_places(struct agent *a, struct wire_in *args, struct call_path *old,
		      struct call_path *path, struct place *from, struct place *to, struct err *err)
{
	int r;

	get_path(args, old);
	get_path(args, path);
	r = call_args(args, err);
	if (r == 0)
		r = tree_find(&a->tree, old->s, false, from, err);
	return r == 0 ? tree_place(&a->tree, path->s, false, to, err) : r;
}

int call_link(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct call_path old, path;
	struct place from, to;
	struct fs *fs;
	int r;

	(void)result;
	r = two_places(a, args, &old, &path, &from, &to, err);
	if (r != 0)
		return r;
	if (S_ISDIR(from.st.mode))
		return err_sys(err, EPERM, "%s", old.s);
	if (to.exists)
		return err_sys(err, EEXIST, "%s", path.s);
	if (from.node.mount != to.dir.mount)
		return err_sys(err, EXDEV, "%s", path.s);
	r = place_writable(a, &to, path.s, err);
	if (r == 0 && to.slash)
		r = err_sys(err, ENOENT, "%s", path.s);
	if (r < 0)
		return r;
	fs = tree_fs(&a->tree, to.dir);
	r = fs->driver->link(fs, to.dir.ino, to.name, to.len, from.node.ino, err);
	return r < 0 ? tree_error(err, r, path.s) : 0;
}

/* ---- renaming ---- */

static int any_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
		     struct err *err)
{
	(void)arg;
	(void)name;
	(void)len;
	(void)ino;
	(void)type;
	(void)err;
	return 1;
}

/* What rename(2) asks of a name that is replaced. */
static int may_replace(struct agent *a, const struct place *from, const struct place *to,
		       struct err *err)
{
	struct fs *fs = tree_fs(&a->tree, to->node);
	int r;

	if (S_ISDIR(from->st.mode) != S_ISDIR(to->st.mode))
		return S_ISDIR(to->st.mode) ? -EISDIR : -ENOTDIR;
	if (!S_ISDIR(to->st.mode))
		return 0;
	r = fs->driver->readdir(fs, to->node.ino, any_entry, NULL, err);
	return r > 0 ? -ENOTEMPTY : r;
}

/* The way of the tree is the way to `to`: no directory moves into itself. */
static int may_rename(struct agent *a, const struct place *from, const struct place *to,
		      struct err *err)
{
	if (from->dir.mount != to->dir.mount)
		return -EXDEV;
	if (from->node.mount != from->dir.mount || (to->exists && to->node.mount != to->dir.mount))
		return -EBUSY; /* a mount point */
	for (size_t i = 0; i < a->tree.depth && S_ISDIR(from->st.mode); i++)
		if (node_is(a->tree.way[i], from->node))
			return -EINVAL;
	if (to->slash && !S_ISDIR(from->st.mode))
		return -ENOTDIR;
	return to->exists ? may_replace(a, from, to, err) : 0;
}

int call_rename(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct call_path old, path;
	struct place from, to;
	struct fs *fs;
	int r;

	(void)result;
	r = two_places(a, args, &old, &path, &from, &to, err);
	if (r == 0)
		r = place_writable(a, &from, old.s, err);
	if (r == 0)
		r = place_writable(a, &to, path.s, err);
	if (r < 0 || (to.exists && node_is(from.node, to.node)))
		return r;
	r = may_rename(a, &from, &to, err);
	if (r == 0) {
		fs = tree_fs(&a->tree, from.dir);
		r = fs->driver->rename(fs, from.dir.ino, from.name, from.len, to.dir.ino, to.name,
				       to.len, err);
	}
	return r < 0 ? tree_error(err, r, path.s) : 0;
}

/* ---- extended attributes ---- */

static int xattr_place(struct agent *a, const struct call_path *path, const char *name,
		       struct place *p, struct err *err)
{
	int r = tree_find(&a->tree, path->s, false, p, err);

	if (r == 0)
		r = tree_writable(&a->tree, p->node, path->s, err);
	if (r == 0 && !strchr(name, '.'))
		r = err_set(err, EINVAL, "%s: the attribute \"%s\" has no namespace", path->s,
			    name);
	return r;
}

int call_xattr_set(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	char name[AGENT_NAME_MAX + 1];
	struct call_path path;
	const void *value;
	struct place p;
	struct fs *fs;
	size_t len;
	int r;

	(void)result;
	get_path(args, &path);
	get_text(args, name, sizeof(name));
	value = get_bytes(args, AGENT_XATTR_MAX, &len);
	r = call_args(args, err);
	if (r == 0)
		r = xattr_place(a, &path, name, &p, err);
	if (r < 0)
		return r;
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->xattr_set(fs, p.node.ino, name, value, len, err);
	return r < 0 ? tree_error(err, r, path.s) : 0;
}

int call_xattr_remove(struct agent *a, struct wire_in *args, struct wire_out *result,
		      struct err *err)
{
	char name[AGENT_NAME_MAX + 1];
	struct call_path path;
	struct place p;
	struct fs *fs;
	int r;

	(void)result;
	get_path(args, &path);
	get_text(args, name, sizeof(name));
	r = call_args(args, err);
	if (r == 0)
		r = xattr_place(a, &path, name, &p, err);
	if (r < 0)
		return r;
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->xattr_remove(fs, p.node.ino, name, err);
	return r < 0 ? tree_error(err, r, path.s) : 0;
}
