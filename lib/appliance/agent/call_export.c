/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OP_EXPORT: a file, or a directory and all below, as a stream of records. What cannot be read is a
 * record, too, and the rest goes on.
 *
 * Inodes with several names are remembered with the first of them until all were seen. When there
 * are more than memory has room for, the rest of them are told as files of their own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "base/cleanup.h"
#include "walk.h"

#define NAMES_BYTES_MAX (UINT32_C(12) << 20)
#define STAT_BYTES      128 /* more than a STAT takes */
#define BYTES_HEADER    13  /* of STREAM_BYTES */

struct exporting {
	struct agent *a;
	uint32_t flags;
	struct node_map links; /* value: the first name; left: names that are still to come */
	size_t links_bytes;
};

static int export_failed(void *arg, const char *path, int why, struct err *e)
{
	struct exporting *x = arg;
	struct wire_out *w;
	int r;

	if (!e->msg[0])
		err_sys(e, -why, "cannot be read");
	/* The conversation itself is over, or the call. */
	if (x->a->ch.broken || x->a->ch.cancelled)
		return why;
	r = channel_data(&x->a->ch, 1 + 4 + strlen(path) + 4 + 4 + sizeof(e->msg), &w, e);
	if (r < 0)
		return r;
	put_u8(w, STREAM_FAILED);
	put_text(w, path);
	put_u32(w, (uint32_t)-why);
	put_text(w, e->msg);
	return 0;
}

/* ---- one entry ---- */

/* The name under which this inode was told already, or NULL; remembers it when more will come. */
static const char *first_name(struct exporting *x, struct node n, const char *path,
			      const struct agent_stat *st)
{
	struct node_slot *s;

	if (S_ISDIR(st->mode) || st->nlink < 2 || (x->flags & TREE_SEPARATE))
		return NULL;
	s = node_map_get(&x->links, n);
	if (s && s->value)
		return s->value;
	if (s || x->links_bytes + strlen(path) > NAMES_BYTES_MAX ||
	    node_map_add(&x->links, n, &s, NULL) < 0)
		return NULL;
	s->value = strdup(path);
	s->left = st->nlink - 1;
	x->links_bytes += strlen(path);
	return NULL;
}

/* One more name was told: after the last one, the first need not be remembered. */
static void name_told(struct exporting *x, struct node n)
{
	struct node_slot *s = node_map_get(&x->links, n);

	if (--s->left)
		return;
	x->links_bytes -= strlen(s->value);
	free(take(s->value));
}

static int put_entry(struct exporting *x, const char *path, const struct agent_stat *st,
		     const char *other, const char *target, struct err *err)
{
	struct wire_out *w;
	const char *to = other ? other : target;
	int r = channel_data(&x->a->ch, 1 + 4 + strlen(path) + 1 + STAT_BYTES + 4 + strlen(to), &w,
			     err);

	if (r < 0)
		return r;
	put_u8(w, STREAM_ENTRY);
	put_text(w, path);
	put_u8(w, other != NULL);
	put_stat(w, st);
	put_text(w, to);
	return 0;
}

static int put_xattr(struct exporting *x, struct fs *fs, uint64_t ino, const char *name,
		     struct err *err)
{
	static unsigned char value[AGENT_XATTR_MAX];
	struct wire_out *w;
	size_t len = 0;
	int r = fs->driver->xattr_get(fs, ino, name, value, sizeof(value), &len, err);

	if (r == 0)
		r = channel_data(&x->a->ch, 1 + 4 + strlen(name) + 4 + len, &w, err);
	if (r != 0)
		return r;
	put_u8(w, STREAM_XATTR);
	put_text(w, name);
	put_bytes(w, value, len);
	return 0;
}

static int put_xattrs(struct exporting *x, struct fs *fs, uint64_t ino, struct err *err)
{
	static char names[AGENT_XATTR_MAX];
	size_t n = 0;
	int r = fs->driver->xattr_list(fs, ino, names, sizeof(names), &n, err);

	for (size_t at = 0; at < n && r == 0; at += strlen(names + at) + 1)
		r = put_xattr(x, fs, ino, names + at, err);
	return r;
}

/* ---- contents ---- */

/* One record of bytes: what fits into the frame that is open, read in place. */
static int put_some(struct exporting *x, struct fs *fs, uint64_t ino, uint64_t *off, uint64_t end,
		    struct err *err)
{
	struct wire_out *w, record;
	size_t want, got = 0;
	int r = channel_data(&x->a->ch, BYTES_HEADER + min_u64(end - *off, 4096), &w, err);

	if (r < 0)
		return r;
	want = (size_t)min_u64(end - *off, channel_room(&x->a->ch) - BYTES_HEADER);
	want = (size_t)min_u64(want, STREAM_BYTES_MAX);
	r = fs->driver->read(fs, ino, w->buf + w->len + BYTES_HEADER, want, *off, &got, err);
	if (r < 0 || !got) {
		*off = end; /* the file is shorter than it says */
		return r;
	}
	record = wire_out(w->buf + w->len, BYTES_HEADER);
	put_u8(&record, STREAM_BYTES);
	put_u64(&record, *off);
	put_u32(&record, (uint32_t)got);
	w->len += BYTES_HEADER + got;
	*off += got;
	return 0;
}

static int put_content(struct exporting *x, struct fs *fs, uint64_t ino, uint64_t size,
		       struct err *err)
{
	uint64_t off = 0, end;
	int r = 0;

	while (off < size && r == 0) {
		uint64_t start;

		r = fs->driver->next_data(fs, ino, off, &start, &end, err);
		if (r < 0 || start >= size)
			return r;
		if (start < off || end <= start)
			return err_set(err, EUCLEAN, "the places of the file's data go backwards");
		end = min_u64(end, size);
		for (off = start; off < end && r == 0;)
			r = put_some(x, fs, ino, &off, end, err);
	}
	return r;
}

/* What the inode holds besides what STAT says. An error is told as a record. */
static int put_more(struct exporting *x, struct node n, const char *path,
		    const struct agent_stat *st)
{
	struct fs *fs = tree_fs(&x->a->tree, n);
	struct err e = {0};
	int r = x->flags & TREE_XATTRS ? put_xattrs(x, fs, n.ino, &e) : 0;

	if (r == -ENOTSUP)
		r = 0;
	if (r < 0)
		r = export_failed(x, path, r, &e);
	if (r < 0 || !(x->flags & TREE_CONTENT) || !S_ISREG(st->mode))
		return r;
	e = (struct err){0};
	r = put_content(x, fs, n.ino, st->size, &e);
	return r < 0 ? export_failed(x, path, r, &e) : 0;
}

static int export_entry(void *arg, struct node n, const char *path, const struct agent_stat *st,
			struct err *err)
{
	struct exporting *x = arg;
	struct fs *fs = tree_fs(&x->a->tree, n);
	const char *other = first_name(x, n, path, st);
	char target[AGENT_PATH_MAX] = "";
	struct err e = {0};
	int r = 0;

	if (S_ISLNK(st->mode) && !other)
		r = fs->driver->readlink(fs, n.ino, target, sizeof(target), &e);
	if (r < 0)
		return export_failed(x, path, r, &e);
	r = put_entry(x, path, st, other, target, err);
	if (other) {
		name_told(x, n);
		return r;
	}
	return r == 0 ? put_more(x, n, path, st) : r;
}

int call_export(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	const uint32_t known = TREE_RECURSIVE | TREE_FOLLOW | TREE_CONTENT | TREE_XATTRS |
			       TREE_ONE_FS | TREE_CHILDREN | TREE_SEPARATE | TREE_DIRS_LATE;
	static struct walk w;
	struct exporting x = {.a = a};
	struct call_path path;
	struct place p;
	int r;

	(void)result;
	get_path(args, &path);
	x.flags = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(x.flags, known, err);
	if (r == 0)
		r = tree_find(&a->tree, path.s, x.flags & TREE_FOLLOW, &p, err);
	if (r == 0)
		r = export_entry(&x, p.node, "", &p.st, err);
	if (r == 0 && S_ISDIR(p.st.mode) && (x.flags & (TREE_RECURSIVE | TREE_CHILDREN))) {
		w = (struct walk){.tree = &a->tree,
				  .dirs_late = x.flags & TREE_DIRS_LATE,
				  .one_fs = x.flags & TREE_ONE_FS,
				  .one_level = !(x.flags & TREE_RECURSIVE),
				  .arg = &x,
				  .entry = export_entry,
				  .failed = export_failed};
		r = walk_below(&w, p.node, err);
	}
	node_map_free(&x.links);
	return r;
}
