/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See walk.h. Entries are told while their directory is read, so that a directory of any size
 * costs no memory; its subdirectories wait on a stack, sorted: where they are in the directory says
 * something of the hashes of their names only, and two trees that are equal come out equally.
 */
#include "walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAP_MIN       256u
#define MAP_MAX       (UINT32_C(1) << 19) /* slots, of 24 bytes */
#define PENDING_BYTES (UINT32_C(8) << 20)

/* ---- sets of nodes ---- */

static uint64_t key_of(struct node n)
{
	return (n.ino << 5 | n.mount) + 1;
}
_Static_assert(TREE_MOUNTS_MAX <= 32, "a mount fits into the five bits of key_of");

/* The slot with this key, or the free one where it belongs. */
static struct node_slot *slot_of(const struct node_map *m, uint64_t key)
{
	size_t i = key * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (m->cap - 1);

	while (m->slots[i].key && m->slots[i].key != key)
		i = (i + 1) & (m->cap - 1);
	return &m->slots[i];
}

struct node_slot *node_map_get(const struct node_map *m, struct node n)
{
	struct node_slot *s = m->cap ? slot_of(m, key_of(n)) : NULL;

	return s && s->key ? s : NULL;
}

static int grow(struct node_map *m, struct err *err)
{
	struct node_map bigger = {.n = m->n, .cap = m->cap ? 2 * m->cap : MAP_MIN};

	if (bigger.cap > MAP_MAX)
		return err_set(err, E2BIG, "more than %zu directories or files with several names",
			       m->n);
	bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
	if (!bigger.slots)
		return err_nomem(err, bigger.cap * sizeof(*bigger.slots), "directories");
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].key)
			*slot_of(&bigger, m->slots[i].key) = m->slots[i];
	free(m->slots);
	*m = bigger;
	return 0;
}

int node_map_add(struct node_map *m, struct node n, struct node_slot **slot, struct err *err)
{
	int r = m->n >= m->cap / 4 * 3 ? grow(m, err) : 0;

	if (r < 0)
		return r;
	*slot = slot_of(m, key_of(n));
	**slot = (struct node_slot){.key = key_of(n)};
	m->n++;
	return 0;
}

void node_map_free(struct node_map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		free(m->slots[i].value);
	free(m->slots);
	*m = (struct node_map){0};
}

/* ---- the walk ---- */

static int push(struct walk *w, struct node dir, const char *path, struct err *err)
{
	size_t len = strlen(path) + 1;
	char *copy;

	if (w->bytes + len + sizeof(*w->pending) > PENDING_BYTES)
		return err_set(err, E2BIG, "%s: too many directories", path);
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 64;
		struct pending *p = realloc(w->pending, cap * sizeof(*p));

		if (!p)
			return err_nomem(err, cap * sizeof(*p), "directories");
		w->pending = p;
		w->cap = cap;
	}
	copy = strdup(path);
	if (!copy)
		return err_nomem(err, len, "a path");
	w->bytes += len + sizeof(*w->pending);
	w->pending[w->n++] = (struct pending){.dir = dir, .path = copy};
	return 0;
}

/* What failed tells, or what the walk ends with; in err only the latter stays. */
static int tell(struct walk *w, const char *path, int r, struct err *err)
{
	r = w->failed(w->arg, path, r, err);
	if (r == 0)
		err->msg[0] = 0;
	return r;
}

static int see_entry(struct walk *w, const char *name, size_t len, struct node n, struct err *err)
{
	struct agent_stat st;
	bool enter;
	int r;

	if (!tree_name_ok(name, len)) {
		r = err_set(err, EUCLEAN, "the directory holds a name that no path can have");
		return tell(w, w->dir.path, r, err);
	}
	r = snprintf(w->path, sizeof(w->path), "%s%s%.*s", w->dir.path, *w->dir.path ? "/" : "",
		     (int)len, name);
	if (r < 0 || (size_t)r >= sizeof(w->path)) {
		r = err_sys(err, ENAMETOOLONG, "%.*s", (int)len, name);
		return tell(w, w->dir.path, r, err);
	}
	r = tree_stat(w->tree, n, &st, err);
	if (r < 0)
		return tell(w, w->path, r, err);
	enter = S_ISDIR(st.mode) && !w->one_level && !(w->one_fs && n.mount != w->dir.dir.mount);
	if (!enter || !w->dirs_late)
		r = w->entry(w->arg, n, w->path, &st, err);
	return r == 0 && enter ? push(w, n, w->path, err) : r;
}

static int see(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
	       struct err *err)
{
	struct walk *w = arg;

	(void)type;
	w->stop = see_entry(w, name, len, tree_over(w->tree, (struct node){w->dir.dir.mount, ino}),
			    err);
	return w->stop;
}

/* The stack gives back what is pushed in the other order: the last name first. */
static int last_first(const void *a, const void *b)
{
	const struct pending *x = a, *y = b;

	return strcmp(y->path, x->path);
}

static int see_all(struct walk *w, struct err *err)
{
	struct fs *fs = tree_fs(w->tree, w->dir.dir);
	size_t before = w->n;
	int r;

	w->stop = 0;
	r = fs->driver->readdir(fs, w->dir.dir.ino, see, w, err);
	if (w->n > before)
		qsort(w->pending + before, w->n - before, sizeof(*w->pending), last_first);
	/* An error of the driver concerns this directory alone. */
	if (r < 0 && !w->stop)
		r = tell(w, w->dir.path, r, err);
	return r == 0 && w->after ? w->after(w->arg, err) : r;
}

/* The directory that is entered; 1: it cannot be. */
static int tell_dir(struct walk *w, struct err *err)
{
	struct agent_stat st;
	int r;

	if (!w->dirs_late || !*w->dir.path)
		return 0;
	r = tree_stat(w->tree, w->dir.dir, &st, err);
	if (r == 0)
		return w->entry(w->arg, w->dir.dir, w->dir.path, &st, err);
	r = tell(w, w->dir.path, r, err);
	return r == 0 ? 1 : r;
}

static int next_dir(struct walk *w, struct err *err)
{
	struct node_slot *slot;
	int r;

	w->dir = w->pending[--w->n];
	w->bytes -= strlen(w->dir.path) + 1 + sizeof(*w->pending);
	if (node_map_get(&w->seen, w->dir.dir)) {
		r = err_set(err, EUCLEAN, "the directory has several names");
		r = tell(w, w->dir.path, r, err);
	} else {
		r = node_map_add(&w->seen, w->dir.dir, &slot, err);
		if (r == 0)
			r = tell_dir(w, err);
		if (r == 0)
			r = see_all(w, err);
	}
	free(w->dir.path);
	return r > 0 ? 0 : r;
}

int walk_below(struct walk *w, struct node top, struct err *err)
{
	int r = push(w, top, "", err);

	while (r == 0 && w->n)
		r = next_dir(w, err);
	while (w->n)
		free(w->pending[--w->n].path);
	free(w->pending);
	node_map_free(&w->seen);
	return r;
}
