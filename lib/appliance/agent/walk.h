/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Going through everything below a directory, without recursion and in bounded memory: a
 * filesystem may say that a directory is in itself, or in two others.
 */
#ifndef IMGKIT_AGENT_WALK_H
#define IMGKIT_AGENT_WALK_H

#include "tree.h"

/* A set of nodes, or a map from nodes to owned pointers. Zero-initialise. */
struct node_map {
	struct node_slot {
		uint64_t key; /* 0: free */
		void *value;  /* owned */
		uint64_t left;
	} * slots;
	size_t n, cap;
};
/* The slot of a node; NULL: it is not in. */
struct node_slot *node_map_get(const struct node_map *m, struct node n);
/* A new slot, for a node that is not in. -E2BIG: there are too many. */
int node_map_add(struct node_map *m, struct node n, struct node_slot **slot, struct err *err);
void node_map_free(struct node_map *m);

struct walk {
	struct tree *tree;
	bool dirs_late; /* a directory is an entry when it is entered, and not before */
	bool one_fs;    /* mounts below are seen as entries, but not entered */
	bool one_level; /* so are all directories */
	void *arg;
	/* An entry of a directory, which is read meanwhile: nothing may change. path: relative. */
	int (*entry)(void *arg, struct node n, const char *path, const struct agent_stat *st,
		     struct err *err);
	/* A directory was read. NULL: nothing to do. */
	int (*after)(void *arg, struct err *err);
	/* What cannot be read; e says why. 0: the walk goes on. */
	int (*failed)(void *arg, const char *path, int r, struct err *e);

	struct node_map seen;
	struct pending {
		struct node dir;
		char *path;
	} * pending; /* directories to be read, the next one last */
	size_t n, cap, bytes;
	struct pending dir; /* being read */
	char path[AGENT_PATH_MAX];
	int stop; /* what ended the reading of the directory, other than its driver */
};

/* Everything below a directory, which itself is not an entry. Frees what it used. */
int walk_below(struct walk *w, struct node top, struct err *err);

#endif
