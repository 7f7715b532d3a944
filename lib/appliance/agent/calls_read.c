/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls that only look. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"

static int find(struct agent *a, struct wire_in *args, const struct call_path *path, bool follow,
		struct place *p, struct err *err)
{
	int r = call_args(args, err);

	return r == 0 ? tree_find(&a->tree, path->s, follow, p, err) : r;
}

int call_stat(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct call_path path;
	struct place p;
	uint32_t follow;
	int r;

	get_path(args, &path);
	follow = get_u32(args);
	r = find(a, args, &path, follow, &p, err);
	if (r == 0)
		put_stat(result, &p.st);
	return r;
}

int call_readlink(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	char target[AGENT_PATH_MAX];
	struct call_path path;
	struct place p;
	struct fs *fs;
	int r;

	get_path(args, &path);
	r = find(a, args, &path, false, &p, err);
	if (r < 0)
		return r;
	if (!S_ISLNK(p.st.mode))
		return err_set(err, EINVAL, "%s: not a symbolic link", path.s);
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->readlink(fs, p.node.ino, target, sizeof(target), err);
	if (r < 0)
		return tree_error(err, r, path.s);
	put_text(result, target);
	return 0;
}

/* ---- directories ---- */

struct listing {
	struct agent *a;
	struct node dir;
};

static int list_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
		      struct err *err)
{
	struct listing *l = arg;
	struct node n = tree_over(&l->a->tree, (struct node){l->dir.mount, ino});
	struct agent_stat st;
	struct wire_out *w;
	int r;

	(void)type;
	if (!tree_name_ok(name, len))
		return 0; /* no path can lead to it */
	if (tree_stat(&l->a->tree, n, &st, NULL) < 0)
		st = (struct agent_stat){.dev = n.mount, .ino = ino};
	r = channel_data(&l->a->ch, 4 + len + 128, &w, err);
	if (r < 0)
		return r;
	put_bytes(w, name, len);
	put_stat(w, &st);
	return 0;
}

int call_readdir(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct listing l = {.a = a};
	struct call_path path;
	struct place p;
	struct fs *fs;
	int r;

	(void)result;
	get_path(args, &path);
	r = find(a, args, &path, true, &p, err);
	if (r < 0)
		return r;
	if (!S_ISDIR(p.st.mode))
		return err_sys(err, ENOTDIR, "%s", path.s);
	l.dir = p.node;
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->readdir(fs, p.node.ino, list_entry, &l, err);
	return r < 0 ? tree_error(err, r, path.s) : 0;
}

int call_statfs(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	struct call_path path;
	struct fs_space s;
	struct place p;
	struct fs *fs;
	int r;

	get_path(args, &path);
	r = find(a, args, &path, true, &p, err);
	if (r < 0)
		return r;
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->space(fs, &s, err);
	if (r < 0)
		return tree_error(err, r, path.s);
	/* The disk's counters may say that more is free than there is. */
	s.free = min_u64(s.free, s.blocks);
	s.available = min_u64(s.available, s.free);
	s.files_free = min_u64(s.files_free, s.files);
	put_text(result, fs->type);
	put_u32(result, s.block);
	put_u64(result, s.blocks);
	put_u64(result, s.free);
	put_u64(result, s.available);
	put_u64(result, s.files);
	put_u64(result, s.files_free);
	put_u32(result, fs->vol.disk);
	put_u32(result, fs->vol.part);
	put_text(result, a->tree.mounts[p.node.mount].path);
	return 0;
}

/* ---- contents ---- */

static int send_range(struct agent *a, struct node n, uint64_t off, uint64_t end, struct err *err)
{
	struct fs *fs = tree_fs(&a->tree, n);
	struct wire_out *w;
	int r = 0;

	while (off < end && r == 0) {
		size_t got = 0, want;

		r = channel_data(&a->ch, 1, &w, err);
		if (r < 0)
			return r;
		want = (size_t)min_u64(end - off, channel_room(&a->ch));
		r = fs->driver->read(fs, n.ino, w->buf + w->len, want, off, &got, err);
		if (!got)
			break;
		w->len += got;
		off += got;
	}
	return r;
}

int call_read(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	uint64_t off, len, end;
	struct call_path path;
	struct place p;
	int r;

	get_path(args, &path);
	off = get_u64(args);
	len = get_u64(args);
	r = find(a, args, &path, true, &p, err);
	if (r < 0)
		return r;
	if (!S_ISREG(p.st.mode))
		return err_sys(err, S_ISDIR(p.st.mode) ? EISDIR : EINVAL, "%s", path.s);
	if (!add_ok(off, len, &end) || end > p.st.size)
		end = p.st.size;
	r = send_range(a, p.node, off, end, err);
	if (r < 0)
		return tree_error(err, r, path.s);
	put_u64(result, p.st.size);
	return 0;
}

/* ---- extended attributes ---- */

int call_xattr_get(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	static unsigned char value[AGENT_XATTR_MAX];
	char name[AGENT_NAME_MAX + 1];
	struct call_path path;
	size_t len = 0;
	struct place p;
	struct fs *fs;
	int r;

	get_path(args, &path);
	get_text(args, name, sizeof(name));
	r = find(a, args, &path, false, &p, err);
	if (r < 0)
		return r;
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->xattr_get(fs, p.node.ino, name, value, sizeof(value), &len, err);
	if (r < 0)
		return tree_error(err, r, path.s);
	put_bytes(result, value, len);
	return 0;
}

int call_xattr_list(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	static char names[AGENT_XATTR_MAX];
	size_t len = 0, at;
	struct call_path path;
	uint32_t count = 0;
	struct place p;
	struct fs *fs;
	int r;

	get_path(args, &path);
	r = find(a, args, &path, false, &p, err);
	if (r < 0)
		return r;
	fs = tree_fs(&a->tree, p.node);
	r = fs->driver->xattr_list(fs, p.node.ino, names, sizeof(names), &len, err);
	if (r < 0)
		return tree_error(err, r, path.s);
	for (at = 0; at < len; at += strlen(names + at) + 1)
		count++;
	put_u32(result, count);
	for (at = 0; at < len; at += strlen(names + at) + 1)
		put_text(result, names + at);
	return 0;
}
