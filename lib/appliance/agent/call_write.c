/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OP_WRITE: the bytes of one file.
 *
 * A file that the call made is removed again when the call fails. With WRITE_REPLACE the bytes go to
 * a new inode under a temporary name beside the file, which takes its place when it is whole:
 * nobody sees half of it, and a failure leaves the old one.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "inherit.h"

struct writing {
	struct agent *a;
	struct place p;
	struct call_path path;
	uint32_t flags;
	uint64_t off;
	struct fs_new what;

	struct fs *fs;
	uint64_t ino;
	bool made;                     /* ino is new, under name */
	char name[AGENT_NAME_MAX + 1]; /* in the directory of p */
};

static int decode(struct writing *w, struct wire_in *args, struct err *err)
{
	const uint32_t known =
		WRITE_CREATE | WRITE_EXCL | WRITE_TRUNC | WRITE_APPEND | WRITE_REPLACE;
	int r;

	get_path(args, &w->path);
	w->off = get_u64(args);
	w->flags = get_u32(args);
	w->what.mode = S_IFREG | (get_u32(args) & 07777);
	w->what.uid = get_u32(args);
	w->what.gid = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(w->flags, known, err);
	if (r == 0 && (w->flags & WRITE_REPLACE) && (w->off || (w->flags & WRITE_APPEND)))
		r = err_set(err, EINVAL, "what replaces a file is written from its beginning");
	return r;
}

static int check(struct writing *w, struct err *err)
{
	const struct place *p = &w->p;
	int r = tree_place(&w->a->tree, w->path.s, true, &w->p, err);

	if (r < 0)
		return r;
	if (p->exists && S_ISDIR(p->st.mode))
		r = -EISDIR;
	else if (p->exists && !S_ISREG(p->st.mode))
		r = -EINVAL;
	else if (p->exists && (w->flags & WRITE_CREATE) && (w->flags & WRITE_EXCL))
		r = -EEXIST;
	else if (!p->exists && !(w->flags & WRITE_CREATE))
		r = -ENOENT;
	else if (!p->exists && p->slash)
		r = -EISDIR;
	if (r < 0)
		return err_sys(err, -r, "%s", w->path.s);
	return tree_writable(&w->a->tree, p->dir, w->path.s, err);
}

static int create(struct writing *w, const char *name, struct err *err)
{
	static struct inherited h;
	int r = 0;

	snprintf(w->name, sizeof(w->name), "%s", name);
	h.len = 0;
	/* What takes another file's place is like that one. */
	if (!w->p.exists)
		r = inherit_from(&w->a->tree, w->p.dir, &w->what, &h, err);
	if (r == 0)
		r = w->fs->driver->create(w->fs, w->p.dir.ino, w->name, strlen(w->name), &w->what,
					  &w->ino, err);
	w->made = r == 0;
	return r < 0 ? r : inherit_to(w->fs, w->ino, &w->what, &h, err);
}

/* A name that nobody has, beside the file; it looks like the file as far as that is possible. */
static int create_temporary(struct writing *w, struct err *err)
{
	char name[AGENT_NAME_MAX + 1];
	int r = -EEXIST;

	if (w->p.exists) {
		w->what.mode = w->p.st.mode;
		w->what.uid = w->p.st.uid;
		w->what.gid = w->p.st.gid;
	}
	for (unsigned i = 0; i < 100 && r == -EEXIST; i++) {
		uint64_t ino;

		snprintf(name, sizeof(name), ".imgkit-%u.%.*s", i, 200, w->p.name);
		r = w->fs->driver->lookup(w->fs, w->p.dir.ino, name, strlen(name), &ino, err);
		if (tree_absent(r, err))
			r = create(w, name, err);
		else if (r == 0)
			r = -EEXIST;
	}
	return r;
}

static int begin(struct writing *w, struct err *err)
{
	const struct fs_attr empty = {.mask = SET_SIZE};

	w->fs = tree_fs(&w->a->tree, w->p.dir);
	if (w->flags & WRITE_REPLACE)
		return create_temporary(w, err);
	if (!w->p.exists)
		return create(w, w->p.name, err);
	w->ino = w->p.node.ino;
	if (w->flags & WRITE_APPEND)
		w->off = w->flags & WRITE_TRUNC ? 0 : w->p.st.size;
	return w->flags & WRITE_TRUNC ? w->fs->driver->setattr(w->fs, w->ino, &empty, err) : 0;
}

static int receive(struct writing *w, struct err *err)
{
	struct frame f;
	int r;

	while ((r = channel_take(&w->a->ch, &f, err)) > 0) {
		if (f.len > INT64_MAX - min_u64(w->off, INT64_MAX))
			return -EFBIG;
		r = w->fs->driver->write(w->fs, w->ino, f.payload, f.len, w->off, err);
		if (r < 0)
			return r;
		w->off += f.len;
	}
	return r;
}

/* The extended attributes of the old inode, ACLs and labels among them. */
static int copy_xattrs(struct writing *w, struct err *err)
{
	static char names[AGENT_XATTR_MAX], value[AGENT_XATTR_MAX];
	const struct fs_driver *d = w->fs->driver;
	uint64_t old = w->p.node.ino;
	size_t n = 0, len;
	int r = d->xattr_list(w->fs, old, names, sizeof(names), &n, err);

	for (size_t at = 0; at < n && r == 0; at += strlen(names + at) + 1) {
		r = d->xattr_get(w->fs, old, names + at, value, sizeof(value), &len, err);
		if (r == 0)
			r = d->xattr_set(w->fs, w->ino, names + at, value, len, err);
	}
	return r == -ENOTSUP ? 0 : r;
}

static int finish(struct writing *w, struct err *err)
{
	int r;

	if (!(w->flags & WRITE_REPLACE))
		return 0;
	r = w->p.exists ? copy_xattrs(w, err) : 0;
	if (r < 0)
		return r;
	return w->fs->driver->rename(w->fs, w->p.dir.ino, w->name, strlen(w->name), w->p.dir.ino,
				     w->p.name, w->p.len, err);
}

int call_write(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	static struct writing w;
	int r;

	(void)result;
	w = (struct writing){.a = a};
	r = decode(&w, args, err);
	if (r == 0)
		r = check(&w, err);
	if (r < 0)
		return r;
	r = begin(&w, err);
	if (r == 0)
		r = receive(&w, err);
	if (r == 0)
		r = finish(&w, err);
	if (r < 0 && w.made)
		w.fs->driver->unlink(w.fs, w.p.dir.ino, w.name, strlen(w.name), NULL);
	return r < 0 ? tree_error(err, r, w.path.s) : 0;
}
