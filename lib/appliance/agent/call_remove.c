/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OP_REMOVE: a name, or a directory with all that is in it.
 *
 * Directories are emptied from below, without recursion. Since nothing may change while a directory
 * is read, its names are gathered first, in batches; those of a directory wait while the
 * directories in it are emptied. All batches share one piece of memory, in which each level leaves
 * room for the levels below.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"

#define NAMES_BYTES (UINT32_C(4) << 20)
#define NAME_BYTES  (AGENT_NAME_MAX + 1 + 16)
#define LEVELS_MAX  TREE_DEPTH_MAX

/* One name in a batch; the text follows. */
struct entry {
	uint64_t ino;
	uint32_t len;
};

struct level {
	struct node dir;
	size_t start, end; /* its batch, in names */
	size_t at;         /* the entry that is being removed */
};

struct removing {
	struct agent *a;
	char *names;
	struct level *levels;
	size_t n;
	size_t limit; /* of the batch that is being gathered */
	bool odd;     /* the directory holds a name that cannot be removed by name */
	uint64_t done;
};

static size_t entry_size(size_t len)
{
	return sizeof(struct entry) + round_up(len, 8);
}

static int gather_one(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
		      struct err *err)
{
	struct removing *rm = arg;
	struct level *l = &rm->levels[rm->n - 1];
	struct entry e = {.ino = ino, .len = (uint32_t)len};

	(void)type;
	(void)err;
	if (!tree_name_ok(name, len)) {
		rm->odd = true;
		return 0;
	}
	if (l->end + entry_size(len) > rm->limit)
		return 1;
	memcpy(rm->names + l->end, &e, sizeof(e));
	memcpy(rm->names + l->end + sizeof(e), name, len);
	l->end += entry_size(len);
	return 0;
}

/* The next names of the directory on top; none when it is empty. */
static int gather(struct removing *rm, struct err *err)
{
	struct level *l = &rm->levels[rm->n - 1];
	struct fs *fs = tree_fs(&rm->a->tree, l->dir);
	size_t below = (LEVELS_MAX - rm->n) * NAME_BYTES, left = NAMES_BYTES - below - l->start;
	int r;

	rm->limit = l->start + max_u64(left / 4, NAME_BYTES);
	l->at = l->end = l->start;
	rm->odd = false;
	r = fs->driver->readdir(fs, l->dir.ino, gather_one, rm, err);
	if (r >= 0 && l->end == l->start && rm->odd)
		return err_set(err, EUCLEAN, "a directory holds a name that no path can have");
	return r < 0 ? r : 0;
}

static int descend(struct removing *rm, struct node dir, struct err *err)
{
	struct level *top = rm->n ? &rm->levels[rm->n - 1] : NULL;

	if (rm->n == LEVELS_MAX)
		return err_set(err, ELOOP, "more than %u directories in each other", LEVELS_MAX);
	for (size_t i = 0; i < rm->n; i++)
		if (node_is(rm->levels[i].dir, dir))
			return err_set(err, EUCLEAN, "a directory lies in itself");
	rm->levels[rm->n] = (struct level){.dir = dir, .start = top ? top->end : 0};
	rm->n++;
	return gather(rm, err);
}

/* The entry at which the top level stands; its text follows it in memory. */
static const char *current(const struct removing *rm, struct entry *e)
{
	const char *at = rm->names + rm->levels[rm->n - 1].at;

	memcpy(e, at, sizeof(*e));
	return at + sizeof(*e);
}

static int unlink_current(struct removing *rm, struct err *err)
{
	struct level *l = &rm->levels[rm->n - 1];
	struct fs *fs = tree_fs(&rm->a->tree, l->dir);
	struct entry e;
	const char *name = current(rm, &e);
	int r = fs->driver->unlink(fs, l->dir.ino, name, e.len, err);

	l->at += entry_size(e.len);
	return r < 0 ? r : channel_progress(&rm->a->ch, ++rm->done, 0, err);
}

/* One entry of the top level: a file goes, a directory is entered. */
static int one_step(struct removing *rm, struct err *err)
{
	struct node n = {.mount = rm->levels[rm->n - 1].dir.mount};
	struct agent_stat st;
	struct entry e;
	const char *name = current(rm, &e);
	int r;

	n.ino = e.ino;
	if (!node_is(tree_over(&rm->a->tree, n), n))
		return err_set(err, EBUSY, "%.*s: a filesystem is mounted there", (int)e.len, name);
	r = tree_stat(&rm->a->tree, n, &st, err);
	if (r < 0)
		return r;
	return S_ISDIR(st.mode) ? descend(rm, n, err) : unlink_current(rm, err);
}

/* Until the directory at the bottom of the levels is empty. */
static int empty(struct removing *rm, struct err *err)
{
	int r = 0;

	while (r == 0) {
		const struct level *l = &rm->levels[rm->n - 1];

		if (l->at < l->end)
			r = one_step(rm, err);
		else if (l->end > l->start)
			r = gather(rm, err); /* after a batch that is gone another one may follow */
		else if (--rm->n)
			r = unlink_current(rm, err);
		else
			break;
	}
	return r;
}

static int remove_below(struct agent *a, struct node dir, struct err *err)
{
	struct removing rm = {.a = a};
	int r;

	rm.names = malloc(NAMES_BYTES);
	rm.levels = malloc(LEVELS_MAX * sizeof(*rm.levels));
	if (rm.names && rm.levels) {
		r = descend(&rm, dir, err);
		if (r == 0)
			r = empty(&rm, err);
	} else {
		r = err_nomem(err, NAMES_BYTES, "names");
	}
	free(rm.names);
	free(rm.levels);
	return r;
}

int call_remove(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct call_path path;
	struct place p;
	uint32_t flags;
	struct fs *fs;
	int r;

	(void)result;
	get_path(args, &path);
	flags = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(flags, TREE_RECURSIVE | TREE_MISSING_OK, err);
	if (r == 0)
		r = tree_place(&a->tree, path.s, false, &p, err);
	if (r < 0 || (!p.exists && (flags & TREE_MISSING_OK)))
		return r;
	if (!p.exists)
		return err_sys(err, ENOENT, "%s", path.s);
	if (p.node.ino == tree_fs(&a->tree, p.node)->root)
		return err_set(err, EBUSY, "%s: a filesystem is mounted there", path.s);
	if (!p.len)
		return err_sys(err, EINVAL, "%s", path.s);
	r = tree_writable(&a->tree, p.dir, path.s, err);
	if (r < 0)
		return r;
	if (S_ISDIR(p.st.mode) && (flags & TREE_RECURSIVE))
		r = remove_below(a, p.node, err);
	fs = tree_fs(&a->tree, p.dir);
	if (r == 0)
		r = fs->driver->unlink(fs, p.dir.ino, p.name, p.len, err);
	return r < 0 ? tree_error(err, r, path.s) : 0;
}
