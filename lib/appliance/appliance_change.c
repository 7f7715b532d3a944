/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that change names and inodes; see appliance.h. */
#include "appliance/appliance.h"
#include "appliance/talk.h"

/* A call whose arguments were put, and which has no result. */
static int change(struct appliance *a, uint16_t op, struct err *err)
{
	struct wire_in in;
	int r = talk_ask(a, op, &in, err);

	return r == 0 ? talk_done(a, &in, err) : r;
}

int appliance_mkdir(struct appliance *a, const char *path, uint32_t mode, uint32_t uid,
		    uint32_t gid, uint32_t flags, struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_u32(w, mode);
	put_u32(w, uid);
	put_u32(w, gid);
	put_u32(w, flags);
	return change(a, OP_MKDIR, err);
}

int appliance_remove(struct appliance *a, const char *path, uint32_t flags, struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_u32(w, flags);
	return change(a, OP_REMOVE, err);
}

static int two_paths(struct appliance *a, uint16_t op, const char *path, const char *new_path,
		     struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_text(w, new_path);
	return change(a, op, err);
}

int appliance_rename(struct appliance *a, const char *path, const char *new_path, struct err *err)
{
	return two_paths(a, OP_RENAME, path, new_path, err);
}

int appliance_link(struct appliance *a, const char *path, const char *new_path, struct err *err)
{
	return two_paths(a, OP_LINK, path, new_path, err);
}

int appliance_symlink(struct appliance *a, const char *target, const char *path, uint32_t uid,
		      uint32_t gid, struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, target);
	put_text(w, path);
	put_u32(w, uid);
	put_u32(w, gid);
	return change(a, OP_SYMLINK, err);
}

int appliance_mknod(struct appliance *a, const char *path, const struct agent_stat *st,
		    struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_u32(w, st->mode);
	put_u32(w, st->rdev_major);
	put_u32(w, st->rdev_minor);
	put_u32(w, st->uid);
	put_u32(w, st->gid);
	return change(a, OP_MKNOD, err);
}

int appliance_setattr(struct appliance *a, const char *path, uint32_t mask, uint32_t flags,
		      const struct agent_stat *st, struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_u32(w, mask);
	put_u32(w, flags);
	put_u32(w, st->mode);
	put_u32(w, st->uid);
	put_u32(w, st->gid);
	put_u64(w, st->size);
	put_u64(w, (uint64_t)st->atime.sec);
	put_u32(w, st->atime.nsec);
	put_u64(w, (uint64_t)st->mtime.sec);
	put_u32(w, st->mtime.nsec);
	return change(a, OP_SETATTR, err);
}

int appliance_chmod(struct appliance *a, const char *path, uint32_t flags,
		    const uint16_t modes[AGENT_MODES], struct err *err)
{
	struct wire_out *w = talk_args(a);
	le16 table[AGENT_MODES];

	for (unsigned i = 0; i < AGENT_MODES; i++)
		table[i] = le16_make(modes[i]);
	put_text(w, path);
	put_u32(w, flags);
	put_bytes(w, table, sizeof(table));
	return change(a, OP_CHMOD, err);
}

int appliance_xattr_set(struct appliance *a, const char *path, const char *name, const void *value,
			size_t n, struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_text(w, name);
	put_bytes(w, value, n);
	return change(a, OP_XATTR_SET, err);
}

int appliance_xattr_remove(struct appliance *a, const char *path, const char *name, struct err *err)
{
	struct wire_out *w = talk_args(a);

	put_text(w, path);
	put_text(w, name);
	return change(a, OP_XATTR_REMOVE, err);
}
