/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent as a whole, and what its calls share. */
#ifndef IMGKIT_AGENT_AGENT_H
#define IMGKIT_AGENT_AGENT_H

#include "channel.h"
#include "fs.h"
#include "probe.h"
#include "tree.h"

struct agent {
	const struct fs_driver *const *drivers; /* NULL at the end */
	struct channel ch;
	struct disks disks;
	struct tree tree;
	unsigned char result[FRAME_PAYLOAD_MAX];
};

/*
 * Serves calls until the library closes its end; then everything is unmounted. The disks, the
 * drivers and, for tests, mounts are the caller's to set. 0, -EPROTO, or what unmounting said.
 */
int agent_serve(struct agent *a, int in, int out, struct err *err);

/* One call: takes its arguments (all of them) and puts its result. */
typedef int call_fn(struct agent *a, struct wire_in *args, struct wire_out *result,
		    struct err *err);

call_fn call_volumes, call_mount, call_mount_root, call_unmount, call_sync, call_mkfs;
call_fn call_stat, call_readlink, call_readdir, call_statfs, call_read, call_export;
call_fn call_xattr_get, call_xattr_list;
call_fn call_write, call_mkdir, call_remove, call_rename, call_symlink, call_link, call_mknod;
call_fn call_setattr, call_chmod, call_xattr_set, call_xattr_remove, call_import;

/* For the end of the decoding: -EINVAL unless all was there. */
int call_args(const struct wire_in *args, struct err *err);
/* -EINVAL when a flag is not among the known. */
int call_flags(uint32_t flags, uint32_t known, struct err *err);
/* A path of the wire. */
struct call_path {
	char s[AGENT_PATH_MAX];
};
static inline void get_path(struct wire_in *args, struct call_path *path)
{
	get_text(args, path->s, sizeof(path->s));
}

/* The driver for a type of filesystem, or NULL. */
const struct fs_driver *agent_driver(const struct agent *a, const char *type);
/* Whether a part of the volume is mounted in t. */
bool agent_mounted(const struct tree *t, const struct volume *vol);
/* Mounts a volume in t. rdonly: as MOUNT_RDONLY. type (32 bytes): what it is. */
int agent_mount(struct agent *a, struct tree *t, struct known *k, const char *path, bool rdonly,
		char *type, struct err *err);

#endif
