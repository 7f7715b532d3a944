/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one tree that the mounted filesystems make: paths become inodes here.
 *
 * Symbolic links are followed inside the tree, at most TREE_LINKS_MAX for a path, and ".." never
 * leaves it: the tree remembers the way that it came and asks no filesystem what its ".." is.
 */
#ifndef IMGKIT_AGENT_TREE_H
#define IMGKIT_AGENT_TREE_H

#include <errno.h>

#include "fs.h"
#include "appliance/protocol.h"

#define TREE_MOUNTS_MAX 32u
#define TREE_LINKS_MAX  40u
#define TREE_DEPTH_MAX  4096u

struct node {
	unsigned mount;
	uint64_t ino;
};

static inline bool node_is(struct node a, struct node b)
{
	return a.mount == b.mount && a.ino == b.ino;
}

struct mount {
	struct fs *fs;  /* owned */
	struct node on; /* the directory that it covers; of mount 0: nothing */
	char *path;     /* owned: as it was asked for */
};

struct tree {
	struct mount mounts[TREE_MOUNTS_MAX];
	unsigned n;
	/* The way to the last place that was resolved: directories, the root first. */
	struct node way[TREE_DEPTH_MAX];
	size_t depth;
	char rest[2 * AGENT_PATH_MAX]; /* of the path that is being resolved */
};

/* Where a path leads. */
struct place {
	struct node dir;               /* that the last name is in */
	char name[AGENT_NAME_MAX + 1]; /* "": the path ends in ".", ".." or is "/" */
	size_t len;
	bool slash;  /* a slash follows the name */
	bool exists; /* then node and st are what is there */
	struct node node;
	struct agent_stat st;
};

/* The filesystem becomes a part of the tree (owned on success); the first at "/". -EBUSY, -ENOTDIR. */
int tree_mount(struct tree *t, struct fs *fs, const char *path, struct err *err);
/* All; the last first. Goes on after an error and tells the first. */
int tree_unmount(struct tree *t, struct err *err);
int tree_sync(struct tree *t, struct err *err);

static inline struct fs *tree_fs(const struct tree *t, struct node n)
{
	return t->mounts[n.mount].fs;
}

/* The path may lead to nothing, if only the last name is missing. Errors name the path. */
int tree_place(struct tree *t, const char *path, bool follow, struct place *p, struct err *err);
/* The path must lead to something. */
int tree_find(struct tree *t, const char *path, bool follow, struct place *p, struct err *err);

/* One name in a directory, no link is followed; a directory that is covered gives what covers it. */
int tree_lookup(struct tree *t, struct node dir, const char *name, size_t len, struct node *n,
		struct err *err);
/* What covers a directory, or the node itself. */
struct node tree_over(const struct tree *t, struct node n);
int tree_stat(struct tree *t, struct node n, struct agent_stat *st, struct err *err);

/* Whether a name of a directory is one that a path can have: no '/', no NUL, not "." or "..". */
bool tree_name_ok(const char *name, size_t len);

/* For changes: the node can be written. -EROFS, -ENOTSUP. */
int tree_writable(const struct tree *t, struct node n, const char *path, struct err *err);

/* Puts the path in front of what a driver said; its code alone is enough to say something. */
int tree_error(struct err *err, int r, const char *path);

/* Whether a lookup found nothing, where that is no error: then what it said is forgotten. */
static inline bool tree_absent(int r, struct err *err)
{
	if (r == -ENOENT && err)
		err->msg[0] = 0;
	return r == -ENOENT;
}

#endif
