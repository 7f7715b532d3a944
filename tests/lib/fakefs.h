/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A filesystem driver of the agent that keeps everything in memory, for tests of what stands on
 * drivers. It does what it is told, also what no real filesystem would: entries with any name that
 * lead to any inode.
 */
#ifndef IMGKIT_TESTS_FAKEFS_H
#define IMGKIT_TESTS_FAKEFS_H

#include "appliance/agent/fs.h"

extern const struct fs_driver fake_driver;

/* With an empty root directory, which is inode 2; freed by unmounting. */
struct fs *fake_new(void);

/* What a real filesystem could not be brought to. */
void fake_entry(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t ino);
struct agent_stat *fake_stat(struct fs *fs, uint64_t ino);
/* The n-th change from now on fails with -EIO; 0: none does. */
void fake_fail(struct fs *fs, unsigned n);
/* Inodes that are in use, the root among them. */
unsigned fake_inodes(struct fs *fs);

/* Short ways to make a tree; each gives the inode. */
uint64_t fake_dir(struct fs *fs, uint64_t dir, const char *name);
uint64_t fake_file(struct fs *fs, uint64_t dir, const char *name, const char *content);
uint64_t fake_symlink(struct fs *fs, uint64_t dir, const char *name, const char *target);

#endif
