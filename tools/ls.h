/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two files of img ls share: ls.c gathers, ls_print.c prints. */
#ifndef IMGKIT_TOOLS_LS_H
#define IMGKIT_TOOLS_LS_H

#include "guest.h"

#define PLACES_MAX  4096u
#define ENTRIES_MAX (UINT32_C(1) << 22) /* of one directory */
#define DIRS_MAX    (UINT32_C(1) << 20) /* that wait */

struct ls_opts {
	struct guest_opts guest;
	const char *places[PLACES_MAX];
	unsigned n_places;
	bool all, dots, columns, itself, full_time, human, inode, list, reverse, recursive, context,
		json;
	char sort; /* 'S', 't' or 0: by name */
};

struct ls_entry {
	struct agent_stat st; /* mode 0: cannot be read */
	char *target;         /* inside name's memory */
	char *label;          /* owned, or NULL */
	bool acl;
	char name[];
};

/* A directory that was told of. */
struct ls_dir {
	char *path; /* relative to the place; owned */
	struct agent_stat st, parent;
};

struct ls {
	struct cli *cli;
	const struct ls_opts *o;
	struct guest_session session;
	const char *text; /* the place, as it was typed */
	bool clean;       /* names are */
	bool any;         /* something was printed */
	int code;

	struct agent_stat above; /* of the place: what .. is */
	struct ls_entry **v;     /* of the directory that is told of now */
	size_t n, cap;
	bool is_dir;            /* the place is listed, not itself */
	bool skipped;           /* the last entry */
	struct ls_dir dir;      /* whose entries v has; path NULL: none yet */
	struct ls_dir *pending; /* the next one last */
	size_t n_pending, cap_pending;
};

/* Sorts and prints the entries of v. dir: the path of the directory they are in. */
void ls_print(struct ls *ls, const char *dir);

#endif
