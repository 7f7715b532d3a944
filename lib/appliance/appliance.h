/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The appliance: what is inside the disks, asked of an agent that lives in a cage.
 *
 * The agent's memory belongs to whoever made the disks. Whatever it answers is checked here, against
 * the protocol and for what names and texts may be; but what it says can be a lie. Who writes
 * what it exports to a host's filesystem must not follow links there, and who shows it to a
 * person must not send names to a terminal as they are.
 *
 * Each call returns 0 or a negative errno with a text. An agent that breaks the protocol, or ends, is
 * no longer there: all later calls give -EPIPE. An appliance belongs to one thread at a time.
 */
#ifndef IMGKIT_APPLIANCE_APPLIANCE_H
#define IMGKIT_APPLIANCE_APPLIANCE_H

#include "appliance/protocol.h"
#include "appliance/wire.h"
#include "base/err.h"
#include "base/job.h"
#include "image/img.h"
#include "vmm/cell.h"

struct appliance;

/* ---- beginning and end ---- */

struct appliance_config {
	const struct img_open_args *disks; /* sda, sdb, …; IMG_RDWR in flags: may be written */
	unsigned n_disks;                  /* <= AGENT_DISKS_MAX */
	uint64_t memory;                   /* bytes, 0: the default */
	uint64_t cpu_limit;                /* ns, 0: none */
	uint64_t patience;                 /* see struct appliance_end */
	enum cell_isolation isolation;
	bool log; /* the agent's log goes to stderr */
};

/* Starts a cage with the agent in it. */
int appliance_launch(const struct appliance_config *config, struct appliance **a, struct err *err);

/* What there is beside the conversation. */
struct appliance_end {
	/* The agent has ended, or will since it is told nothing more: waits, frees arg. 0, or why
	 * it ended and what is not on the disks. */
	int (*finish)(void *arg, struct err *err);
	/* Ends it at once, frees arg. */
	void (*kill)(void *arg);
	void *arg;
	const char *isolation; /* how it is caged: "vm", "process"; lives as long as arg */
	const char *fallback;  /* why it is not a VM, or "" */
	/* ms without a word after which the agent is killed (-ETIMEDOUT), 0: the default. Long work
	 * tells its progress; a flush of a slow disk does not. */
	uint64_t patience;
};
#define APPLIANCE_PATIENCE 300000u

/*
 * Talks with an agent that was started elsewhere: `to` is what it reads, `from` what it writes (they
 * may be one socket, and become non-blocking). Owns neither, but `end`, also when it fails.
 */
int appliance_attach(int to, int from, const struct appliance_end *end, struct appliance **a,
		     struct err *err);

/* Unmounts all, and ends the agent: after it everything is on the disks. The appliance stays to be
 * closed. */
int appliance_finish(struct appliance *a, struct err *err);
/* "vm" or "process"; and why not a VM when nothing was asked for, or "". Until it is finished. */
const char *appliance_isolation(const struct appliance *a);
const char *appliance_fallback(const struct appliance *a);
/* Frees it, and kills the agent if it is still there. NULL is fine. */
void appliance_close(struct appliance *a);

/* Progress and cancel of the calls that follow; NULL: none. done counts bytes, or what the call
 * says. Cancelled calls give -ECANCELED. */
void appliance_watch(struct appliance *a, struct job *job);

/* ---- volumes ---- */

unsigned appliance_disks(const struct appliance *a);
/* The caller frees *volumes. */
int appliance_volumes(struct appliance *a, struct agent_volume **volumes, unsigned *n,
		      struct err *err);
/* flags: MOUNT_…; type (of 32 bytes, or NULL): what it is. The first mount point is "/". */
int appliance_mount(struct appliance *a, uint32_t disk, uint32_t part, const char *path,
		    uint32_t flags, char *type, struct err *err);

struct appliance_mount {
	uint32_t disk, part;
	char type[32];
	char *path; /* owned */
};

struct appliance_root {
	struct appliance_mount *mounts; /* owned; the root is first */
	unsigned n_mounts;
	char **notes; /* owned: what of /etc/fstab was left out, and why */
	unsigned n_notes;
};
/* -ENOENT: there is no operating system; -ENOTUNIQ: there are several. Free root on success. */
int appliance_mount_root(struct appliance *a, uint32_t flags, struct appliance_root *root,
			 struct err *err);
void appliance_root_free(struct appliance_root *root);

int appliance_unmount(struct appliance *a, struct err *err);
int appliance_sync(struct appliance *a, struct err *err);
/* Of the type, with uuid "" a random one. options: as `mke2fs -O` and `-E` name them. */
int appliance_mkfs(struct appliance *a, uint32_t disk, uint32_t part, const char *type,
		   const char *label, const char *uuid, const char *options, struct err *err);

/* ---- looking ---- */

int appliance_stat(struct appliance *a, const char *path, bool follow, struct agent_stat *st,
		   struct err *err);
/* buf of AGENT_PATH_MAX. */
int appliance_readlink(struct appliance *a, const char *path, char *buf, struct err *err);

/*
 * Callbacks: 0, or a negative errno, which ends the call and is returned by it. They must not use
 * the appliance.
 */
typedef int appliance_entry_fn(void *arg, const char *name, const struct agent_stat *st,
			       struct err *err);
typedef int appliance_bytes_fn(void *arg, const void *bytes, size_t n, struct err *err);

/* In the directory's order. st->mode 0: the entry is there, but its inode cannot be read. */
int appliance_readdir(struct appliance *a, const char *path, appliance_entry_fn *fn, void *arg,
		      struct err *err);

struct appliance_space {
	char type[32];
	uint32_t block; /* bytes */
	uint64_t blocks, free, available, files, files_free;
	uint32_t disk, part;
	char path[AGENT_PATH_MAX]; /* where it is mounted */
};
int appliance_statfs(struct appliance *a, const char *path, struct appliance_space *space,
		     struct err *err);

/* [off, off+len) of a file, or less at its end; in order. len UINT64_MAX: up to the end. */
int appliance_read(struct appliance *a, const char *path, uint64_t off, uint64_t len,
		   appliance_bytes_fn *fn, void *arg, struct err *err);
/* The same, written to fd. */
int appliance_read_fd(struct appliance *a, const char *path, uint64_t off, uint64_t len, int fd,
		      struct err *err);
/* A whole file, with a NUL behind it; the caller frees *buf. -EFBIG: longer than max. */
int appliance_read_file(struct appliance *a, const char *path, size_t max, char **buf, size_t *n,
			struct err *err);

/* value of AGENT_XATTR_MAX. -ENODATA: there is none. */
int appliance_xattr_get(struct appliance *a, const char *path, const char *name, void *value,
			size_t *n, struct err *err);
/* Each name with its NUL, all in one piece that the caller frees. */
int appliance_xattr_list(struct appliance *a, const char *path, char **names, size_t *n,
			 struct err *err);

/* ---- changing ---- */

struct appliance_write {
	uint64_t off;
	uint32_t flags;          /* WRITE_… */
	uint32_t mode, uid, gid; /* of a file that is made */
};
/* Fills buf with what comes next; *n 0: that was all. */
typedef int appliance_source_fn(void *arg, void *buf, size_t size, size_t *n, struct err *err);

int appliance_write(struct appliance *a, const char *path, const struct appliance_write *how,
		    appliance_source_fn *fn, void *arg, struct err *err);
int appliance_write_buf(struct appliance *a, const char *path, const struct appliance_write *how,
			const void *buf, size_t n, struct err *err);
/* From where fd stands to its end. */
int appliance_write_fd(struct appliance *a, const char *path, const struct appliance_write *how,
		       int fd, struct err *err);

/* flags: TREE_RECURSIVE, TREE_MISSING_OK */
int appliance_mkdir(struct appliance *a, const char *path, uint32_t mode, uint32_t uid,
		    uint32_t gid, uint32_t flags, struct err *err);
int appliance_remove(struct appliance *a, const char *path, uint32_t flags, struct err *err);
int appliance_rename(struct appliance *a, const char *path, const char *new_path, struct err *err);
int appliance_link(struct appliance *a, const char *path, const char *new_path, struct err *err);
int appliance_symlink(struct appliance *a, const char *target, const char *path, uint32_t uid,
		      uint32_t gid, struct err *err);
/* Of st: mode with the type, uid, gid, rdev. */
int appliance_mknod(struct appliance *a, const char *path, const struct agent_stat *st,
		    struct err *err);
/* Of st, what mask (SET_…) says. flags: TREE_RECURSIVE, TREE_FOLLOW. */
int appliance_setattr(struct appliance *a, const char *path, uint32_t mask, uint32_t flags,
		      const struct agent_stat *st, struct err *err);
/* modes: the new one for each of the 4096 there are of what is no directory, and then for those of
 * directories. flags: as above. */
int appliance_chmod(struct appliance *a, const char *path, uint32_t flags,
		    const uint16_t modes[AGENT_MODES], struct err *err);
int appliance_xattr_set(struct appliance *a, const char *path, const char *name, const void *value,
			size_t n, struct err *err);
int appliance_xattr_remove(struct appliance *a, const char *path, const char *name,
			   struct err *err);

/* ---- trees ---- */

/* What a stream of protocol.h says, record by record. NULL: of no interest. */
struct appliance_sink {
	void *arg;
	/* path is relative to the one asked for, which itself is "". first: the name under which this
	 * inode came before, or NULL; target: of a symbolic link. */
	int (*entry)(void *arg, const char *path, const struct agent_stat *st, const char *first,
		     const char *target, struct err *err);
	int (*xattr)(void *arg, const char *name, const void *value, size_t n, struct err *err);
	/* Of a regular file, ascending; what is left out are holes. */
	int (*bytes)(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err);
	/* code: positive errno. */
	int (*failed)(void *arg, const char *path, int code, const char *text, struct err *err);
};
/* flags: TREE_RECURSIVE, _CHILDREN, _SEPARATE, _FOLLOW, _CONTENT, _XATTRS, _ONE_FS, _DIRS_LATE. Without
 * _CONTENT: a walk. */
int appliance_export(struct appliance *a, const char *path, uint32_t flags,
		     const struct appliance_sink *sink, struct err *err);

/* The other way: produce puts records, and the agent makes what they say below a directory. flags:
 * TREE_KEEP_OWNER, _REPLACE, _KEEP_OLD, _FOLLOW. */
struct appliance_stream;
int appliance_import(struct appliance *a, const char *path, uint32_t flags,
		     int (*produce)(void *arg, struct appliance_stream *s, struct err *err),
		     void *arg, struct err *err);
int appliance_put_entry(struct appliance_stream *s, const char *path, const struct agent_stat *st,
			const char *first, const char *target, struct err *err);
int appliance_put_xattr(struct appliance_stream *s, const char *name, const void *value, size_t n,
			struct err *err);
int appliance_put_bytes(struct appliance_stream *s, uint64_t off, const void *bytes, size_t n,
			struct err *err);

#endif
