/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mounts and paths; see tree.h. */
#include "tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "appliance/check.h"

int tree_error(struct err *err, int r, const char *path)
{
	if (err && !err->msg[0])
		return err_sys(err, -r, "%s", path);
	return err_ctx(err, r, "%s", path);
}

bool tree_name_ok(const char *name, size_t len)
{
	if (!len || len > AGENT_NAME_MAX || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

struct node tree_over(const struct tree *t, struct node n)
{
	/* A later mount on the root of an earlier one covers that, too. */
	for (unsigned i = 1; i < t->n; i++)
		if (node_is(t->mounts[i].on, n))
			n = (struct node){.mount = i, .ino = t->mounts[i].fs->root};
	return n;
}

int tree_lookup(struct tree *t, struct node dir, const char *name, size_t len, struct node *n,
		struct err *err)
{
	struct fs *fs = tree_fs(t, dir);
	uint64_t ino;
	int r = fs->driver->lookup(fs, dir.ino, name, len, &ino, err);

	if (r == 0)
		*n = tree_over(t, (struct node){.mount = dir.mount, .ino = ino});
	return r;
}

int tree_stat(struct tree *t, struct node n, struct agent_stat *st, struct err *err)
{
	struct fs *fs = tree_fs(t, n);
	int r = fs->driver->stat(fs, n.ino, st, err);

	st->dev = n.mount;
	if (r == 0 && !check_stat(st))
		return err_set(err, EUCLEAN, "inode %llu: the mode 0%o, %llu bytes",
			       (unsigned long long)n.ino, st->mode, (unsigned long long)st->size);
	return r;
}

int tree_writable(const struct tree *t, struct node n, const char *path, struct err *err)
{
	const struct fs *fs = tree_fs(t, n);

	if (fs->rdonly)
		return err_set(err, EROFS, "%s: the filesystem is mounted read-only", path);
	if (!fs->driver->create)
		return err_set(err, ENOTSUP, "%s: %s filesystems can only be read", path, fs->type);
	return 0;
}

/* ---- resolving ---- */

/* Takes the next name off rest. *last: nothing but slashes follows. */
static const char *next_name(char **rest, size_t *len, bool *last, bool *slash)
{
	const char *name = *rest + strspn(*rest, "/");

	*len = strcspn(name, "/");
	*rest = (char *)(uintptr_t)(name + *len);
	*slash = **rest == '/';
	*last = !(*rest)[strspn(*rest, "/")];
	return name;
}

/* What follows the link takes its place in t->rest. *rest: what follows the link's name there. */
static int follow_link(struct tree *t, struct node link, char **rest, unsigned *links,
		       struct err *err)
{
	struct fs *fs = tree_fs(t, link);
	char target[AGENT_PATH_MAX];
	size_t n, more = strlen(*rest);
	int r;

	if (++*links > TREE_LINKS_MAX)
		return err_set(err, ELOOP, "more than %u symbolic links", TREE_LINKS_MAX);
	r = fs->driver->readlink(fs, link.ino, target, sizeof(target), err);
	if (r < 0)
		return r;
	n = strnlen(target, sizeof(target));
	if (!n)
		return -ENOENT;
	if (n + more >= sizeof(t->rest))
		return -ENAMETOOLONG;
	memmove(t->rest + n, *rest, more + 1);
	memcpy(t->rest, target, n);
	*rest = t->rest;
	if (target[0] == '/')
		t->depth = 1;
	return 0;
}

static int enter(struct tree *t, const struct place *p)
{
	if (!S_ISDIR(p->st.mode))
		return -ENOTDIR;
	if (t->depth == TREE_DEPTH_MAX)
		return -ENAMETOOLONG;
	t->way[t->depth++] = p->node;
	return 0;
}

/* Where the path stands after ".." or ".", or at the root: a directory without a name of its own. */
static int stand(struct tree *t, struct place *p, struct err *err)
{
	p->dir = p->node = t->way[t->depth - 1];
	p->name[0] = 0;
	p->len = 0;
	p->exists = true;
	return tree_stat(t, p->node, &p->st, err);
}

/* One name, which is neither "." nor "..": p is what it leads to. */
static int step(struct tree *t, const char *name, size_t len, struct place *p, struct err *err)
{
	int r;

	if (len > AGENT_NAME_MAX)
		return -ENAMETOOLONG;
	p->dir = t->way[t->depth - 1];
	memcpy(p->name, name, len);
	p->name[len] = 0;
	p->len = len;
	r = tree_lookup(t, p->dir, p->name, len, &p->node, err);
	p->exists = r == 0;
	return r < 0 ? r : tree_stat(t, p->node, &p->st, err);
}

static int resolve(struct tree *t, bool follow, struct place *p, struct err *err)
{
	char *rest = t->rest;
	unsigned links = 0;
	int r = 0;

	t->depth = 1;
	t->way[0] = tree_over(t, (struct node){.mount = 0, .ino = t->mounts[0].fs->root});
	for (bool last = false;;) {
		size_t len;
		const char *name = next_name(&rest, &len, &last, &p->slash);

		if (!len || (len <= 2 && !memcmp(name, "..", len))) {
			if (len == 2 && t->depth > 1)
				t->depth--;
			if (last)
				return stand(t, p, err);
			continue;
		}
		r = step(t, name, len, p, err);
		if (r < 0)
			return last && !p->exists && tree_absent(r, err) ? 0 : r;
		if (S_ISLNK(p->st.mode) && (!last || follow || p->slash))
			r = follow_link(t, p->node, &rest, &links, err);
		else if (last)
			return p->slash && !S_ISDIR(p->st.mode) ? -ENOTDIR : 0;
		else
			r = enter(t, p);
		if (r < 0)
			return r;
	}
}

int tree_place(struct tree *t, const char *path, bool follow, struct place *p, struct err *err)
{
	size_t n = strlen(path);
	int r;

	*p = (struct place){0};
	if (!t->n)
		return err_set(err, ENXIO, "no filesystem is mounted");
	if (path[0] != '/' || n >= AGENT_PATH_MAX)
		r = n >= AGENT_PATH_MAX ? -ENAMETOOLONG : -EINVAL;
	else {
		memcpy(t->rest, path, n + 1);
		r = resolve(t, follow, p, err);
	}
	return r < 0 ? tree_error(err, r, path) : 0;
}

int tree_find(struct tree *t, const char *path, bool follow, struct place *p, struct err *err)
{
	int r = tree_place(t, path, follow, p, err);

	if (r == 0 && !p->exists)
		r = err_sys(err, ENOENT, "%s", path);
	return r;
}

/* ---- mounting ---- */

static bool covered(const struct tree *t, struct node n)
{
	for (unsigned i = 1; i < t->n; i++)
		if (node_is(t->mounts[i].on, n))
			return true;
	return false;
}

int tree_mount(struct tree *t, struct fs *fs, const char *path, struct err *err)
{
	struct mount m = {.fs = fs};
	struct place p;
	int r;

	if (t->n == TREE_MOUNTS_MAX)
		return err_set(err, ENOSPC, "%s: %u filesystems are mounted already", path, t->n);
	if (!t->n && strcmp(path, "/") != 0)
		return err_set(err, EINVAL, "%s: the first mount point must be /", path);
	if (t->n) {
		r = tree_find(t, path, true, &p, err);
		if (r < 0)
			return r;
		if (!S_ISDIR(p.st.mode))
			return err_sys(err, ENOTDIR, "%s", path);
		m.on = p.node;
		if (p.node.ino == tree_fs(t, p.node)->root || covered(t, p.node))
			return err_set(err, EBUSY, "%s: a filesystem is mounted there", path);
	}
	m.path = strdup(path);
	if (!m.path)
		return err_nomem(err, strlen(path), "a mount");
	t->mounts[t->n++] = m;
	return 0;
}

int tree_unmount(struct tree *t, struct err *err)
{
	int first = 0;

	while (t->n) {
		struct mount *m = &t->mounts[--t->n];
		struct err e = {0};
		int r = m->fs->driver->unmount(m->fs, &e);

		if (r < 0 && first == 0) {
			first = tree_error(&e, r, m->path);
			if (err)
				*err = e;
		}
		free(m->path);
	}
	return first;
}

int tree_sync(struct tree *t, struct err *err)
{
	for (unsigned i = 0; i < t->n; i++) {
		struct fs *fs = t->mounts[i].fs;
		int r = fs->rdonly ? 0 : fs->driver->sync(fs, err);

		if (r < 0)
			return tree_error(err, r, t->mounts[i].path);
	}
	return 0;
}
