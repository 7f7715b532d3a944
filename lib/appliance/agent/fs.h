/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A filesystem driver of the agent, and the volume that it works on.
 *
 * Drivers speak of inodes and names; paths, mounts and symbolic links are the business of tree.c.
 * One thread, blocking calls; memory is bounded by the cage. Every function returns 0 or a negative
 * errno and fills err. What is on the volume is hostile: drivers check it, and -EUCLEAN with the
 * fact and its place is the answer to what is broken.
 */
#ifndef IMGKIT_AGENT_FS_H
#define IMGKIT_AGENT_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "appliance/wire.h"
#include "base/err.h"

/* A disk or partition: a window of one of the agent's file descriptors. */
struct volume {
	uint32_t disk, part;
	uint64_t offset, size; /* bytes, on the disk */
	bool rdonly;           /* the disk cannot be written */
};

struct fs; /* a mounted filesystem; each driver has its own struct with this one first */

/* What readdir gives for one name. type: a DT_* of <dirent.h>, DT_UNKNOWN where not stored. */
typedef int fs_entry_fn(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
			struct err *err);

/* What setattr changes: mask is SET_* of protocol.h. */
struct fs_attr {
	uint32_t mask, mode, uid, gid;
	uint64_t size;
	struct agent_time atime, mtime;
};

/* What a new inode starts with. */
struct fs_new {
	uint32_t mode; /* with the type */
	uint32_t uid, gid;
	uint32_t rdev_major, rdev_minor;
	const char *target; /* of a symbolic link */
};

struct fs_space {
	uint32_t block; /* bytes */
	uint64_t blocks, free, available, files, files_free;
};

struct fs_driver {
	const char *const *types; /* names of libblkid, NULL at the end */
	/* vol is copied. rdonly: nothing is written to the volume, whatever it takes. */
	int (*mount)(const struct volume *vol, const char *type, bool rdonly, struct fs **fs,
		     struct err *err);
	/* Writes everything back and frees; on an error, too. */
	int (*unmount)(struct fs *fs, struct err *err);
	int (*sync)(struct fs *fs, struct err *err);
	int (*space)(struct fs *fs, struct fs_space *out, struct err *err);

	int (*lookup)(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t *ino,
		      struct err *err);
	int (*stat)(struct fs *fs, uint64_t ino, struct agent_stat *st, struct err *err);
	int (*readlink)(struct fs *fs, uint64_t ino, char *buf, size_t size, struct err *err);
	/* All names but . and ..; fn's non-zero ends it and is returned. fn may change nothing. */
	int (*readdir)(struct fs *fs, uint64_t dir, fs_entry_fn *fn, void *arg, struct err *err);
	/* Up to len bytes at off; *got is 0 at the end of the file. */
	int (*read)(struct fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off, size_t *got,
		    struct err *err);
	/* The next byte at or after off that is not in a hole (the size when there is none), and
	 * where the data that begins there ends. */
	int (*next_data)(struct fs *fs, uint64_t ino, uint64_t off, uint64_t *start, uint64_t *end,
			 struct err *err);
	int (*xattr_get)(struct fs *fs, uint64_t ino, const char *name, void *buf, size_t size,
			 size_t *len, struct err *err);
	/* Names, each with its NUL, into buf. */
	int (*xattr_list)(struct fs *fs, uint64_t ino, char *buf, size_t size, size_t *len,
			  struct err *err);

	/* Changes. NULL: the driver only reads. They keep links, sizes and times as POSIX says. */
	int (*create)(struct fs *fs, uint64_t dir, const char *name, size_t len,
		      const struct fs_new *what, uint64_t *ino, struct err *err);
	int (*link)(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t ino,
		    struct err *err);
	/* Also of empty directories. */
	int (*unlink)(struct fs *fs, uint64_t dir, const char *name, size_t len, struct err *err);
	/* The target's name may exist and is replaced; the caller has checked types and loops. */
	int (*rename)(struct fs *fs, uint64_t from, const char *name, size_t len, uint64_t to,
		      const char *new_name, size_t new_len, struct err *err);
	int (*write)(struct fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
		     struct err *err);
	int (*setattr)(struct fs *fs, uint64_t ino, const struct fs_attr *attr, struct err *err);
	int (*xattr_set)(struct fs *fs, uint64_t ino, const char *name, const void *buf, size_t len,
			 struct err *err);
	int (*xattr_remove)(struct fs *fs, uint64_t ino, const char *name, struct err *err);

	/* Makes a filesystem of one of the types. uuid "" is a random one; options as `mke2fs -O/-E`
	 * names them, or "". NULL: cannot. */
	int (*mkfs)(const struct volume *vol, const char *type, const char *label, const char *uuid,
		    const char *options, struct err *err);
};

struct fs {
	const struct fs_driver *driver;
	struct volume vol;
	uint64_t root; /* inode of the root directory */
	bool rdonly;
	char type[16];
};

extern const struct fs_driver ext_driver;
/* All or nothing, inside the volume: disk.c. */
int volume_read(const struct volume *vol, void *buf, size_t len, uint64_t off, struct err *err);
int volume_write(const struct volume *vol, const void *buf, size_t len, uint64_t off,
		 struct err *err);
int volume_flush(const struct volume *vol, struct err *err);
/* The range reads as zeros afterwards; frees the space where the disk can. */
int volume_zero(const struct volume *vol, uint64_t off, uint64_t len, struct err *err);

/* Counts writes to any volume: whoever keeps a copy of something can tell whether it may have changed. */
uint64_t volume_generation(void);

/* Seconds since 1970, of the moment the agent was started: a call of the clock is an exit. */
struct agent_time agent_now(void);

#endif
