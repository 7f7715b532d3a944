/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of the agent's driver of ext2/3/4: images made by mke2fs and debugfs, mounted through
 * the driver in this process, and judged by e2fsck. Whatever fails here ends the program (die).
 */
#ifndef IMGKIT_TESTS_EXTDISK_H
#define IMGKIT_TESTS_EXTDISK_H

#include "appliance/agent/fs.h"

/* Runs a shell command; its exit status. */
int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* One that must succeed. */
void sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The output of a command, freed by the caller. */
char *shell_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The image file as the disk `disk` (0 … 3) of the agent. */
struct volume extdisk_volume(const char *path, unsigned disk, bool rdonly);
int extdisk_try(const char *path, bool rdonly, struct fs **fs, struct err *err);
struct fs *extdisk_mount(const char *path, bool rdonly);
void extdisk_unmount(struct fs *fs);

/* The inode of a path; 0 when there is none. Symbolic links are not followed. */
uint64_t extdisk_path(struct fs *fs, const char *path);
/* The directory that a path is in, and its last name. */
uint64_t extdisk_parent(struct fs *fs, const char *path, const char **name);
/* A regular file, made if need be, gets this content from off on. */
uint64_t extdisk_put(struct fs *fs, const char *path, const void *data, size_t len, uint64_t off);
uint64_t extdisk_make(struct fs *fs, const char *path, uint32_t mode, const char *target);

/* e2fsck finds nothing at all. */
void extdisk_clean(const char *path);

#endif
