/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OP_SETATTR: mode, owner, size and times of an inode, or of all below a directory. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent.h"
#include "walk.h"

#define BATCH_MAX (UINT32_C(1) << 20) /* entries of one directory: 16 MiB */

struct setting {
	struct agent *a;
	struct fs_attr attr;
	struct node *batch; /* entries of the directory that is being read */
	size_t n, cap;
	uint64_t done;
};

static int set_one(struct setting *s, struct node n, struct err *err)
{
	struct fs *fs = tree_fs(&s->a->tree, n);

	return fs->driver->setattr(fs, n.ino, &s->attr, err);
}

/* The directory is being read: what is to change waits. */
static int set_entry(void *arg, struct node n, const char *path, const struct agent_stat *st,
		     struct err *err)
{
	struct setting *s = arg;
	int r = tree_writable(&s->a->tree, n, path, err);

	if (r < 0 || (S_ISLNK(st->mode) && s->attr.mask == SET_MODE))
		return r; /* the mode of a symbolic link has no meaning */
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 256;
		struct node *batch =
			cap <= BATCH_MAX ? realloc(s->batch, cap * sizeof(*batch)) : NULL;

		if (cap > BATCH_MAX)
			return err_set(err, E2BIG, "%s: more than %u names in a directory", path,
				       BATCH_MAX);
		if (!batch)
			return err_nomem(err, cap * sizeof(*batch), "names");
		s->batch = batch;
		s->cap = cap;
	}
	s->batch[s->n++] = n;
	return 0;
}

static int set_batch(void *arg, struct err *err)
{
	struct setting *s = arg;
	int r = 0;

	for (size_t i = 0; i < s->n && r == 0; i++) {
		r = set_one(s, s->batch[i], err);
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

int call_setattr(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct setting s = {.a = a};
	struct call_path path;
	struct place p;
	uint32_t flags;
	int r = decode(&s, args, &path, &flags, err);

	(void)result;
	if (r == 0)
		r = tree_find(&a->tree, path.s, flags & TREE_FOLLOW, &p, err);
	if (r == 0)
		r = tree_writable(&a->tree, p.node, path.s, err);
	if (r < 0)
		return r;
	if ((s.attr.mask & SET_SIZE) && !S_ISREG(p.st.mode))
		return err_sys(err, S_ISDIR(p.st.mode) ? EISDIR : EINVAL, "%s", path.s);
	r = set_one(&s, p.node, err);
	if (r == 0 && (flags & TREE_RECURSIVE) && S_ISDIR(p.st.mode))
		r = set_below(&s, p.node, err);
	return r < 0 ? tree_error(err, r, path.s) : 0;
}
