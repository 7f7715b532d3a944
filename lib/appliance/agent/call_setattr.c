/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OP_SETATTR, OP_CHMOD: mode, owner, size and times of an inode, or of all below a directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "walk.h"

#define BATCH_MAX (UINT32_C(1) << 20) /* entries of one directory: 16 MiB */

struct target {
	uint64_t ino;
	uint32_t mount, mode;
};

struct setting {
	struct agent *a;
	struct fs_attr attr;
	bool by_table; /* the mode comes from modes, not from attr */
	le16 modes[AGENT_MODES];
	struct target *batch; /* entries of the directory that is being read */
	size_t n, cap;
	uint64_t done;
};

/* A program that gets another owner must not run with that one's rights. */
static uint32_t without_privileges(uint32_t mode)
{
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		mode &= ~(uint32_t)S_ISGID;
	return mode & 07777 & ~(uint32_t)S_ISUID;
}

static void choose_mode(const struct setting *s, uint32_t old, struct fs_attr *attr)
{
	bool owner = attr->mask & (SET_UID | SET_GID);

	if (s->by_table) {
		attr->mask |= SET_MODE;
		attr->mode = le16_get(s->modes[(S_ISDIR(old) ? 4096 : 0) + (old & 07777)]);
	} else if (owner && !(attr->mask & SET_MODE) && !S_ISDIR(old) &&
		   without_privileges(old) != (old & 07777)) {
		attr->mask |= SET_MODE;
		attr->mode = without_privileges(old);
	}
}

static int drop_capabilities(struct fs *fs, uint64_t ino, struct err *err)
{
	int r = fs->driver->xattr_remove(fs, ino, "security.capability", err);

	if (r != -ENODATA && r != -ENOTSUP)
		return r;
	if (err)
		err->msg[0] = 0;
	return 0;
}

/* mode: the old one. */
static int set_one(struct setting *s, struct node n, uint32_t mode, struct err *err)
{
	struct fs *fs = tree_fs(&s->a->tree, n);
	struct fs_attr attr = s->attr;
	int r;

	choose_mode(s, mode, &attr);
	r = fs->driver->setattr(fs, n.ino, &attr, err);
	if (r == 0 && (attr.mask & (SET_UID | SET_GID)) && S_ISREG(mode))
		r = drop_capabilities(fs, n.ino, err);
	return r;
}

/* The directory is being read: what is to change waits. */
static int set_entry(void *arg, struct node n, const char *path, const struct agent_stat *st,
		     struct err *err)
{
	struct setting *s = arg;
	int r = tree_writable(&s->a->tree, n, path, err);

	if (r < 0 || (S_ISLNK(st->mode) && (s->by_table || s->attr.mask == SET_MODE)))
		return r; /* the mode of a symbolic link has no meaning */
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 256;
		struct target *batch =
			cap <= BATCH_MAX ? realloc(s->batch, cap * sizeof(*batch)) : NULL;

		if (cap > BATCH_MAX)
			return err_set(err, E2BIG, "%s: more than %u names in a directory", path,
				       BATCH_MAX);
		if (!batch)
			return err_nomem(err, cap * sizeof(*batch), "names");
		s->batch = batch;
		s->cap = cap;
	}
	s->batch[s->n++] = (struct target){n.ino, n.mount, st->mode};
	return 0;
}

static int set_batch(void *arg, struct err *err)
{
	struct setting *s = arg;
	int r = 0;

	for (size_t i = 0; i < s->n && r == 0; i++) {
		const struct target *t = &s->batch[i];

		r = set_one(s, (struct node){.mount = t->mount, .ino = t->ino}, t->mode, err);
		if (r == 0)
			r = channel_progress(&s->a->ch, ++s->done, 0, err);
	}
	s->n = 0;
	return r;
}

static int cannot_set(void *arg, const char *path, int r, struct err *e)
{
	(void)arg;
	return *path ? tree_error(e, r, path) : r;
}

static int set_below(struct setting *s, struct node dir, struct err *err)
{
	static struct walk w;
	int r;

	w = (struct walk){.tree = &s->a->tree,
			  .arg = s,
			  .entry = set_entry,
			  .after = set_batch,
			  .failed = cannot_set};
	r = walk_below(&w, dir, err);
	free(s->batch);
	return r;
}

static int decode(struct setting *s, struct wire_in *args, struct call_path *path, uint32_t *flags,
		  struct err *err)
{
	const uint32_t known = SET_MODE | SET_UID | SET_GID | SET_SIZE | SET_ATIME | SET_MTIME;
	struct fs_attr *attr = &s->attr;
	int r;

	get_path(args, path);
	attr->mask = get_u32(args);
	*flags = get_u32(args);
	attr->mode = get_u32(args) & 07777;
	attr->uid = get_u32(args);
	attr->gid = get_u32(args);
	attr->size = get_u64(args);
	attr->atime.sec = (int64_t)get_u64(args);
	attr->atime.nsec = get_u32(args);
	attr->mtime.sec = (int64_t)get_u64(args);
	attr->mtime.nsec = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(attr->mask, known, err);
	if (r == 0)
		r = call_flags(*flags, TREE_RECURSIVE | TREE_FOLLOW, err);
	if (r == 0 && (attr->atime.nsec > 999999999 || attr->mtime.nsec > 999999999))
		r = err_set(err, EINVAL, "%s: a time has more than 999999999 ns", path->s);
	if (r == 0 && (attr->mask & SET_SIZE) && (*flags & TREE_RECURSIVE))
		r = err_set(err, EINVAL, "%s: files in a directory are not given one size",
			    path->s);
	return r;
}

static int set(struct setting *s, const char *path, uint32_t flags, struct err *err)
{
	struct place p;
	int r = tree_find(&s->a->tree, path, flags & TREE_FOLLOW, &p, err);

	if (r == 0)
		r = tree_writable(&s->a->tree, p.node, path, err);
	if (r < 0)
		return r;
	if ((s->attr.mask & SET_SIZE) && !S_ISREG(p.st.mode))
		return err_sys(err, S_ISDIR(p.st.mode) ? EISDIR : EINVAL, "%s", path);
	if (s->by_table && S_ISLNK(p.st.mode))
		return err_set(err, EINVAL, "%s: a symbolic link has no mode", path);
	r = set_one(s, p.node, p.st.mode, err);
	if (r == 0 && (flags & TREE_RECURSIVE) && S_ISDIR(p.st.mode))
		r = set_below(s, p.node, err);
	return r < 0 ? tree_error(err, r, path) : 0;
}

int call_setattr(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct setting s = {.a = a};
	struct call_path path;
	uint32_t flags;
	int r = decode(&s, args, &path, &flags, err);

	(void)result;
	return r < 0 ? r : set(&s, path.s, flags, err);
}

int call_chmod(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct setting s = {.a = a, .by_table = true};
	struct call_path path;
	const void *modes;
	uint32_t flags;
	size_t len;
	int r;

	(void)result;
	get_path(args, &path);
	flags = get_u32(args);
	modes = get_bytes(args, sizeof(s.modes), &len);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(flags, TREE_RECURSIVE | TREE_FOLLOW, err);
	if (r == 0 && len != sizeof(s.modes))
		r = err_set(err, EINVAL, "%s: %zu bytes of modes", path.s, len);
	if (r < 0)
		return r;
	/* Its frame is gone when the library is listened to. */
	memcpy(s.modes, modes, len);
	return set(&s, path.s, flags, err);
}
