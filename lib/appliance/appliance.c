/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Beginning and end of an appliance, volumes, and the calls that only look; see appliance.h. */
#include "appliance/appliance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/check.h"
#include "appliance/talk.h"
#include "base/bytes.h"
#include "base/cleanup.h"

/* ---- beginning and end ---- */

int appliance_attach(int to, int from, const struct appliance_end *end, struct appliance **out,
		     struct err *err)
{
	struct appliance *a = malloc(sizeof(*a));
	int r;

	if (!a) {
		end->kill(end->arg);
		return err_nomem(err, sizeof(*a), "an appliance");
	}
	r = talk_init(a, to, from, err);
	a->end = *end;
	if (!a->end.patience)
		a->end.patience = APPLIANCE_PATIENCE;
	if (r == 0)
		r = talk_hello(a, err);
	if (r < 0) {
		if (!a->ended)
			a->end.kill(a->end.arg);
		talk_free(a);
		free(a);
		return r;
	}
	*out = a;
	return 0;
}

int appliance_finish(struct appliance *a, struct err *err)
{
	int r = appliance_unmount(a, err), f;

	if (a->ended)
		return r;
	a->gone = a->ended = true;
	f = a->end.finish(a->end.arg, r < 0 ? NULL : err);
	return r < 0 ? r : f;
}

const char *appliance_isolation(const struct appliance *a)
{
	return a->end.isolation;
}

const char *appliance_fallback(const struct appliance *a)
{
	return a->end.fallback;
}

void appliance_close(struct appliance *a)
{
	if (!a)
		return;
	if (!a->ended)
		a->end.kill(a->end.arg);
	talk_free(a);
	free(a);
}

void appliance_watch(struct appliance *a, struct job *job)
{
	a->job = job;
}

unsigned appliance_disks(const struct appliance *a)
{
	return a->disks;
}

/* ---- volumes ---- */

int appliance_volumes(struct appliance *a, struct agent_volume **volumes, unsigned *n,
		      struct err *err)
{
	CLEANUP_FREE struct agent_volume *v = NULL;
	struct wire_in in;
	uint32_t count;
	int r;

	talk_args(a);
	r = talk_ask(a, OP_VOLUMES, &in, err);
	if (r < 0)
		return r;
	count = get_u32(&in);
	/* Each takes more than that: what is told bounds what is allocated. */
	if (count > in.left / 64)
		return talk_broken(a, "more volumes than it tells of", err);
	v = calloc(count + 1, sizeof(*v));
	if (!v)
		return err_nomem(err, count * sizeof(*v), "volumes");
	for (uint32_t i = 0; i < count; i++) {
		get_volume(&in, &v[i]);
		if (v[i].disk >= a->disks)
			in.bad = true;
	}
	r = talk_done(a, &in, err);
	if (r < 0)
		return r;
	*n = count;
	*volumes = take(v);
	return 0;
}

int appliance_mount(struct appliance *a, uint32_t disk, uint32_t part, const char *path,
		    uint32_t flags, char *type, struct err *err)
{
	struct wire_out *w = talk_args(a);
	struct wire_in in;
	char said[32];
	int r;

	put_u32(w, disk);
	put_u32(w, part);
	put_text(w, path);
	put_u32(w, flags);
	r = talk_ask(a, OP_MOUNT, &in, err);
	if (r < 0)
		return r;
	get_text(&in, said, sizeof(said));
	if (type)
		memcpy(type, said, sizeof(said));
	return talk_done(a, &in, err);
}

void appliance_root_free(struct appliance_root *root)
{
	for (unsigned i = 0; i < root->n_mounts; i++)
		free(root->mounts[i].path);
	for (unsigned i = 0; i < root->n_notes; i++)
		free(root->notes[i]);
	free(root->mounts);
	free(root->notes);
	*root = (struct appliance_root){0};
}

static int get_mounts(struct wire_in *in, struct appliance_root *root)
{
	char path[AGENT_PATH_MAX];
	uint32_t count = get_u32(in);

	if (!count || count > in->left / 16)
		in->bad = true;
	if (in->bad)
		return 0;
	root->mounts = calloc(count, sizeof(*root->mounts));
	if (!root->mounts)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		struct appliance_mount *m = &root->mounts[root->n_mounts++];

		m->disk = get_u32(in);
		m->part = get_u32(in);
		get_text(in, path, sizeof(path));
		get_text(in, m->type, sizeof(m->type));
		m->path = strdup(path);
		if (!m->path)
			return -ENOMEM;
	}
	return 0;
}

static int get_notes(struct wire_in *in, struct appliance_root *root)
{
	char text[512];
	uint32_t count = get_u32(in);

	if (count > in->left / 4)
		in->bad = true;
	if (in->bad)
		return 0;
	root->notes = calloc(count + 1, sizeof(*root->notes));
	if (!root->notes)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		get_text(in, text, sizeof(text));
		check_plain(text);
		root->notes[root->n_notes] = strdup(text);
		if (!root->notes[root->n_notes++])
			return -ENOMEM;
	}
	return 0;
}

int appliance_mount_root(struct appliance *a, uint32_t flags, struct appliance_root *root,
			 struct err *err)
{
	struct wire_in in;
	int r;

	*root = (struct appliance_root){0};
	put_u32(talk_args(a), flags);
	r = talk_ask(a, OP_MOUNT_ROOT, &in, err);
	if (r < 0)
		return r;
	r = get_mounts(&in, root);
	if (r == 0)
		r = get_notes(&in, root);
	r = r < 0 ? err_nomem(err, in.left, "mounts") : talk_done(a, &in, err);
	if (r < 0)
		appliance_root_free(root);
	return r;
}

/* Calls without arguments or a result. */
static int ask_plain(struct appliance *a, uint16_t op, struct err *err)
{
	struct wire_in in;
	int r;

	talk_args(a);
	r = talk_ask(a, op, &in, err);
	return r == 0 ? talk_done(a, &in, err) : r;
}

int appliance_unmount(struct appliance *a, struct err *err)
{
	return ask_plain(a, OP_UNMOUNT, err);
}

int appliance_sync(struct appliance *a, struct err *err)
{
	return ask_plain(a, OP_SYNC, err);
}

int appliance_mkfs(struct appliance *a, uint32_t disk, uint32_t part, const char *type,
		   const char *label, const char *uuid, const char *options, struct err *err)
{
	struct wire_out *w = talk_args(a);
	struct wire_in in;
	char made[32];
	int r;

	put_u32(w, disk);
	put_u32(w, part);
	put_text(w, type);
	put_text(w, label);
	put_text(w, uuid);
	put_text(w, options);
	r = talk_ask(a, OP_MKFS, &in, err);
	if (r < 0)
		return r;
	get_text(&in, made, sizeof(made));
	return talk_done(a, &in, err);
}

/* ---- looking ---- */

int appliance_stat(struct appliance *a, const char *path, bool follow, struct agent_stat *st,
		   struct err *err)
{
	struct wire_out *w = talk_args(a);
	struct wire_in in;
	int r;

	put_text(w, path);
	put_u32(w, follow);
	r = talk_ask(a, OP_STAT, &in, err);
	if (r < 0)
		return r;
	get_stat(&in, st);
	if (!check_stat(st))
		in.bad = true;
	return talk_done(a, &in, err);
}

int appliance_readlink(struct appliance *a, const char *path, char *buf, struct err *err)
{
	struct wire_in in;
	int r;

	put_text(talk_args(a), path);
	r = talk_ask(a, OP_READLINK, &in, err);
	if (r < 0)
		return r;
	get_text(&in, buf, AGENT_PATH_MAX);
	return talk_done(a, &in, err);
}

/* The entries of one frame. Negative: what fn returned, or -EPROTO. */
static int take_entries(struct appliance *a, const struct talk_frame *f, appliance_entry_fn *fn,
			void *arg, struct err *err)
{
	struct wire_in in = wire_in(f->payload, f->len);
	int r = 0;

	while (in.left && r == 0) {
		char name[AGENT_NAME_MAX + 1];
		struct agent_stat st;

		get_text(&in, name, sizeof(name));
		get_stat(&in, &st);
		if (in.bad || !check_name(name) || (st.mode && !check_stat(&st)))
			return talk_broken(a, "an entry of a directory is malformed", err);
		r = fn(arg, name, &st, err);
	}
	return r;
}

int appliance_readdir(struct appliance *a, const char *path, appliance_entry_fn *fn, void *arg,
		      struct err *err)
{
	struct talk_frame f;
	int r;

	put_text(talk_args(a), path);
	r = talk_call(a, OP_READDIR, err);
	while (r == 0 && (r = talk_reply(a, &f, err)) > 0) {
		r = take_entries(a, &f, fn, arg, err);
		if (r < 0)
			return talk_stop(a, r);
	}
	return r == 0 && f.len ? talk_broken(a, "a result is malformed", err) : r;
}

int appliance_statfs(struct appliance *a, const char *path, struct appliance_space *s,
		     struct err *err)
{
	struct wire_in in;
	int r;

	put_text(talk_args(a), path);
	r = talk_ask(a, OP_STATFS, &in, err);
	if (r < 0)
		return r;
	get_text(&in, s->type, sizeof(s->type));
	s->block = get_u32(&in);
	s->blocks = get_u64(&in);
	s->free = get_u64(&in);
	s->available = get_u64(&in);
	s->files = get_u64(&in);
	s->files_free = get_u64(&in);
	s->disk = get_u32(&in);
	s->part = get_u32(&in);
	get_text(&in, s->path, sizeof(s->path));
	/* Bytes can be counted with 64 bits, and nothing is more than all. */
	if (!s->block || s->blocks > UINT64_MAX / s->block || s->free > s->blocks ||
	    s->available > s->blocks || s->files_free > s->files)
		in.bad = true;
	return talk_done(a, &in, err);
}

int appliance_xattr_get(struct appliance *a, const char *path, const char *name, void *value,
			size_t *n, struct err *err)
{
	struct wire_out *w = talk_args(a);
	struct wire_in in;
	const void *p;
	int r;

	put_text(w, path);
	put_text(w, name);
	r = talk_ask(a, OP_XATTR_GET, &in, err);
	if (r < 0)
		return r;
	p = get_bytes(&in, AGENT_XATTR_MAX, n);
	memcpy(value, p, *n);
	return talk_done(a, &in, err);
}

int appliance_xattr_list(struct appliance *a, const char *path, char **names, size_t *n,
			 struct err *err)
{
	CLEANUP_FREE char *list = NULL;
	struct wire_in in;
	uint32_t count;
	int r;

	put_text(talk_args(a), path);
	r = talk_ask(a, OP_XATTR_LIST, &in, err);
	if (r < 0)
		return r;
	count = get_u32(&in);
	if (count > in.left / 4)
		return talk_broken(a, "more attributes than it tells of", err);
	/* A name takes less room here than its length and text there. */
	list = malloc(in.left + 1);
	if (!list)
		return err_nomem(err, in.left, "attributes");
	*n = 0;
	for (uint32_t i = 0; i < count; i++) {
		char name[AGENT_NAME_MAX + 1];

		get_text(&in, name, sizeof(name));
		if (!*name)
			in.bad = true;
		if (in.bad)
			break;
		memcpy(list + *n, name, strlen(name) + 1);
		*n += strlen(name) + 1;
	}
	r = talk_done(a, &in, err);
	if (r == 0)
		*names = take(list);
	return r;
}
