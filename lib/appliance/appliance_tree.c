/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole trees as streams of records, both ways; see appliance.h and protocol.h. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "appliance/appliance.h"
#include "appliance/check.h"
#include "appliance/talk.h"
#include "base/bytes.h"

/* ---- out ---- */

struct exporting {
	struct appliance *a;
	const struct appliance_sink *sink;
	uint32_t flags;
	bool any;     /* an entry came; what follows belongs to the last one */
	bool content; /* of which there can be bytes, from next to size */
	bool linked;  /* which is one more name, and has nothing of its own */
	uint64_t next, size;
	char path[AGENT_PATH_MAX], target[AGENT_PATH_MAX];
};

static int malformed(struct exporting *x, struct err *err)
{
	return talk_broken(x->a, "a record of a tree is malformed", err);
}

static bool may_be_below(const struct exporting *x)
{
	return (x->flags & TREE_RECURSIVE) || ((x->flags & TREE_CHILDREN) && !strchr(x->path, '/'));
}

/* The first entry is what was asked for; all others are below it. */
static bool entry_ok(const struct exporting *x, const struct agent_stat *st, uint8_t other)
{
	if (!check_path(x->path) || !check_stat(st) || other > 1)
		return false;
	if (!x->any ? *x->path || other : !*x->path || !may_be_below(x))
		return false;
	if (other && (x->flags & TREE_SEPARATE))
		return false;
	if (other)
		return !S_ISDIR(st->mode) && check_path(x->target);
	return S_ISLNK(st->mode) || !*x->target;
}

static int take_entry(struct exporting *x, struct wire_in *in, struct err *err)
{
	struct agent_stat st;
	uint8_t other;

	get_text(in, x->path, sizeof(x->path));
	other = get_u8(in);
	get_stat(in, &st);
	get_text(in, x->target, sizeof(x->target));
	if (in->bad || !entry_ok(x, &st, other))
		return malformed(x, err);
	x->any = true;
	x->linked = other;
	x->content = !other && S_ISREG(st.mode) && (x->flags & TREE_CONTENT);
	x->next = 0;
	x->size = st.size;
	if (!x->sink->entry)
		return 0;
	return x->sink->entry(x->sink->arg, x->path, &st, other ? x->target : NULL,
			      other ? "" : x->target, err);
}

static int take_xattr(struct exporting *x, struct wire_in *in, struct err *err)
{
	char name[AGENT_NAME_MAX + 1];
	const void *value;
	size_t n;

	get_text(in, name, sizeof(name));
	value = get_bytes(in, AGENT_XATTR_MAX, &n);
	if (in->bad || !*name || !x->any || x->linked || !(x->flags & TREE_XATTRS))
		return malformed(x, err);
	return x->sink->xattr ? x->sink->xattr(x->sink->arg, name, value, n, err) : 0;
}

static int take_bytes(struct exporting *x, struct wire_in *in, struct err *err)
{
	uint64_t off = get_u64(in);
	const void *bytes;
	size_t n;

	bytes = get_bytes(in, STREAM_BYTES_MAX, &n);
	if (in->bad || !n || !x->content || off < x->next || off > x->size || n > x->size - off)
		return malformed(x, err);
	x->next = off + n;
	job_advance(x->a->job, n);
	return x->sink->bytes ? x->sink->bytes(x->sink->arg, off, bytes, n, err) : 0;
}

static int take_failed(struct exporting *x, struct wire_in *in, struct err *err)
{
	char text[sizeof(err->msg)];
	uint32_t code;

	get_text(in, x->path, sizeof(x->path));
	code = get_u32(in);
	get_text(in, text, sizeof(text));
	if (in->bad || !check_path(x->path) || !code || code > 4095)
		return malformed(x, err);
	check_plain(text);
	if (!x->sink->failed)
		return 0;
	return x->sink->failed(x->sink->arg, x->path, (int)code, text, err);
}

static int take_record(struct exporting *x, struct wire_in *in, struct err *err)
{
	switch (get_u8(in)) {
	case STREAM_ENTRY:
		return take_entry(x, in, err);
	case STREAM_XATTR:
		return take_xattr(x, in, err);
	case STREAM_BYTES:
		return take_bytes(x, in, err);
	case STREAM_FAILED:
		return take_failed(x, in, err);
	default:
		return malformed(x, err);
	}
}

int appliance_export(struct appliance *a, const char *path, uint32_t flags,
		     const struct appliance_sink *sink, struct err *err)
{
	struct exporting x = {.a = a, .sink = sink, .flags = flags};
	struct wire_out *w = talk_args(a);
	struct talk_frame f;
	int r;

	put_text(w, path);
	put_u32(w, flags);
	r = talk_call(a, OP_EXPORT, err);
	while (r == 0 && (r = talk_reply(a, &f, err)) > 0) {
		struct wire_in in = wire_in(f.payload, f.len);

		for (r = 0; in.left && r == 0;)
			r = take_record(&x, &in, err);
		if (r < 0)
			return talk_stop(a, r);
	}
	return r == 0 && f.len ? talk_broken(a, "a result is malformed", err) : r;
}

/* ---- in ---- */

struct appliance_stream {
	struct appliance *a;
};

int appliance_put_entry(struct appliance_stream *s, const char *path, const struct agent_stat *st,
			const char *first, const char *target, struct err *err)
{
	const char *to = first ? first : target ? target : "";
	struct wire_out *w;
	int r;

	if (!check_path(path) || strlen(path) >= AGENT_PATH_MAX || strlen(to) >= AGENT_PATH_MAX)
		return err_set(err, EINVAL, "%s: not a path of an entry", path);
	r = talk_data(s->a, 1 + 4 + strlen(path) + 1 + 128 + 4 + strlen(to), &w, err);
	if (r < 0)
		return r;
	put_u8(w, STREAM_ENTRY);
	put_text(w, path);
	put_u8(w, first != NULL);
	put_stat(w, st);
	put_text(w, to);
	return 0;
}

int appliance_put_xattr(struct appliance_stream *s, const char *name, const void *value, size_t n,
			struct err *err)
{
	struct wire_out *w;
	int r;

	if (n > AGENT_XATTR_MAX || strlen(name) > AGENT_NAME_MAX)
		return err_set(err, E2BIG, "%s: the attribute is too long", name);
	r = talk_data(s->a, 1 + 4 + strlen(name) + 4 + n, &w, err);
	if (r < 0)
		return r;
	put_u8(w, STREAM_XATTR);
	put_text(w, name);
	put_bytes(w, value, n);
	return 0;
}

int appliance_put_bytes(struct appliance_stream *s, uint64_t off, const void *bytes, size_t n,
			struct err *err)
{
	const char *at = bytes;

	while (n) {
		size_t some = min_u64(n, STREAM_BYTES_MAX);
		struct wire_out *w;
		int r = talk_data(s->a, 1 + 8 + 4 + some, &w, err);

		if (r < 0)
			return r;
		put_u8(w, STREAM_BYTES);
		put_u64(w, off);
		put_bytes(w, at, some);
		job_advance(s->a->job, some);
		at += some;
		off += some;
		n -= some;
	}
	return 0;
}

int appliance_import(struct appliance *a, const char *path, uint32_t flags,
		     int (*produce)(void *arg, struct appliance_stream *s, struct err *err),
		     void *arg, struct err *err)
{
	struct appliance_stream s = {a};
	struct wire_out *w = talk_args(a);
	int r;

	put_text(w, path);
	put_u32(w, flags);
	r = talk_call(a, OP_IMPORT, err);
	if (r < 0)
		return r;
	talk_args(a);
	r = produce(arg, &s, err);
	return r < 0 ? talk_stop(a, r) : talk_end(a, err);
}
