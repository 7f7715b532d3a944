/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The frame of the commands that change one place of a guest after another: rm, mkdir, ln, mv,
 * chmod, chown, edit.
 *
 * All places are looked at before the first disk is opened. Places of one disk that follow each
 * other share an appliance. What cannot be done is told, the others are done nevertheless, and the
 * exit code is 1, as the programs of these names do it. After SIGINT, SIGTERM or SIGHUP the call
 * that runs is ended in order, what was done is on the disk, and the command dies of the signal.
 */
#ifndef IMGKIT_TOOLS_CHANGE_H
#define IMGKIT_TOOLS_CHANGE_H

#include "guest.h"

struct change;

struct change_kind {
	/* An option that cli_next returned. False: it was wrong, and said so. */
	bool (*option)(struct change *c, int id, void *arg);
	/* What follows the options; the exit code. NULL: change_each from the first argument on. */
	int (*run)(struct change *c, void *arg);
	/* A disk was opened: what has to be looked up there. NULL: nothing. 0, or 1: nothing can be
	 * done with this disk, which it said. */
	int (*opened)(struct change *c, void *arg);
	/* 0, or 1: it failed, which it said. */
	int (*place)(struct change *c, const struct guest_place *place, void *arg);
	bool no_signals; /* it starts programs, and sees to signals itself */
};

struct change {
	struct cli *cli;
	struct guest_opts opts;
	char **args; /* owned: positional arguments, borrowed from the command line */
	unsigned n_args;
	/* While places are worked at: */
	const struct guest_place
		*disk;       /* borrowed: the place for which a disk was opened, or NULL */
	struct appliance *a; /* NULL: it could not be opened */
	struct job job;
	struct progress *progress;
	int signal; /* that ended the work, or 0 */
};

/* A whole command; the exit code. */
int change_main(struct cli *cli, const struct change_kind *kind, void *arg);

/* For option: the common options, and arguments. */
bool change_option(struct change *c, int id);
/* For run: all places, which are the arguments from first on. */
int change_each(struct change *c, unsigned first, const struct change_kind *kind, void *arg);

/* What a call said, after the image's name: IMAGE:/PATH: TEXT; unless it was cancelled. Returns 1. */
int change_failed(const struct change *c, const struct guest_place *place, const struct err *err);

/* Of a path: the last name, which ends before trailing slashes. Its length; 0: there is none. */
size_t change_basename(const char *path, const char **name);
/* The path in place's guest that text names: /PATH, or IMAGE:/PATH with the same image. The caller
 * frees. NULL: it is none, which it said. */
char *change_path(const struct change *c, const struct guest_place *place, const char *text);
/* The new name for source: path/NAME with its last name if path is a directory, else path itself,
 * unless it must be one. The caller frees. NULL: it said why. */
enum change_target {
	CHANGE_FOLLOW = 1 << 0,  /* a symbolic link to a directory is one, too */
	CHANGE_NAME = 1 << 1,    /* path itself, whatever it is */
	CHANGE_SEVERAL = 1 << 2, /* there is more than one source: it must be a directory */
};
char *change_into(const struct change *c, const struct guest_place *place, const char *path,
		  unsigned flags, const char *source);
/* "dir/name"; the caller frees. NULL: no memory, which it said. */
char *change_join(const struct change *c, const char *dir, const char *name, size_t len);
/* A name beside the path that nobody has, for what is renamed to it later. NULL: it said why. */
char *change_temporary(const struct change *c, const struct guest_place *place, const char *path);

#endif
