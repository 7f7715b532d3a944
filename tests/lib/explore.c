// SPDX-License-Identifier: GPL-2.0-or-later
/* See explore.h. The names are those that tests/lib/victim.c gives to files; others do no harm. */
#include "explore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "tell.h"

/* A disk of some MiB can have files that never end, of one block: enough is enough. */
#define BYTES_MAX   (8u << 20)
#define RECORDS_MAX 20000u

static unsigned worked;

/* 0 and errors with a text are fine; an agent that is gone is not. */
static int said(const char *call, int r, struct err *err)
{
	if (r == -EPIPE || r == -EPROTO || r == -EFAULT)
		die("%s: the agent is gone: %s", call, err->msg);
	if (r < 0 && !err->msg[0])
		die("%s: %d without a text", call, r);
	if (r >= 0)
		worked++;
	if (env_u64("TRACE", 0))
		fprintf(stderr, "%.60s: %d %s\n", call, r, err->msg);
	err->msg[0] = 0;
	return r;
}
#define SAID(call) said(#call, call, &err)

/* ---- looking ---- */

struct budget {
	uint64_t bytes, records;
};

static int spend(struct budget *b, uint64_t bytes, struct err *err)
{
	b->bytes += bytes;
	b->records++;
	if (b->bytes > BYTES_MAX || b->records > RECORDS_MAX)
		return err_set(err, ECANCELED, "enough");
	return 0;
}

static int see_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		     const char *target, struct err *err)
{
	(void)st;
	(void)first;
	(void)target;
	return spend(arg, strlen(path), err);
}

static int see_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	(void)name;
	(void)value;
	return spend(arg, n, err);
}

static int see_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	(void)off;
	(void)bytes;
	return spend(arg, n, err);
}

static int see_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	(void)path;
	expect(code > 0 && *text);
	return spend(arg, 1, err);
}

static int see_name(void *arg, const char *name, const struct agent_stat *st, struct err *err)
{
	(void)name;
	(void)st;
	return spend(arg, 1, err);
}

static int see_content(void *arg, const void *bytes, size_t n, struct err *err)
{
	(void)bytes;
	return spend(arg, n, err);
}

static const char *const paths[] = {"/file", "/sparse", "/tiny", "/dir", "/dir/file",
				    "/big",  "/link",   "/slow", "/dev", "/lost+found"};

static void look_at(struct appliance *a, const char *path)
{
	struct budget b = {0};
	struct agent_stat st;
	struct err err = {0};
	char target[AGENT_PATH_MAX], *names = NULL;
	size_t n;

	if (SAID(appliance_stat(a, path, false, &st, &err)) < 0)
		return;
	if (S_ISLNK(st.mode))
		SAID(appliance_readlink(a, path, target, &err));
	else if (S_ISDIR(st.mode))
		SAID(appliance_readdir(a, path, see_name, &b, &err));
	else
		SAID(appliance_read(a, path, 1000, UINT64_MAX, see_content, &b, &err));
	if (SAID(appliance_xattr_list(a, path, &names, &n, &err)) == 0)
		free(names);
}

static void look(struct appliance *a)
{
	static const struct appliance_sink all = {
		.entry = see_entry, .xattr = see_xattr, .bytes = see_bytes, .failed = see_failed};
	struct appliance_sink sink = all;
	struct appliance_space space;
	struct budget b = {0};
	struct err err = {0};
	char value[AGENT_XATTR_MAX];
	size_t n;

	sink.arg = &b;
	SAID(appliance_statfs(a, "/", &space, &err));
	SAID(appliance_export(a, "/", TREE_RECURSIVE | TREE_CONTENT | TREE_XATTRS, &sink, &err));
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		look_at(a, paths[i]);
	SAID(appliance_xattr_get(a, "/file", "user.small", value, &n, &err));
	SAID(appliance_xattr_get(a, "/dir", "user.large", value, &n, &err));
}

/* ---- changing ---- */

static unsigned char data[70000];

static void write_some(struct appliance *a, const char *path, uint64_t off, uint32_t flags,
		       size_t n)
{
	const struct appliance_write how = {.off = off, .flags = flags, .mode = 0644};
	struct err err = {0};

	SAID(appliance_write_buf(a, path, &how, data, n, &err));
}

static void change_files(struct appliance *a)
{
	const struct agent_stat st = {
		.mode = 0750, .uid = 70000, .size = 3000, .mtime = {.sec = 5}};
	struct err err = {0};

	SAID(appliance_mkdir(a, "/new/sub", 0755, 0, 0, TREE_RECURSIVE, &err));
	write_some(a, "/new/f", 0, WRITE_CREATE | WRITE_TRUNC, sizeof(data));
	write_some(a, "/file", 0, WRITE_APPEND, 5000);
	write_some(a, "/sparse", 40000, 0, 9000);
	write_some(a, "/tiny", 0, WRITE_TRUNC, 3000);
	write_some(a, "/dir/file", 0, WRITE_REPLACE, 300);
	for (size_t i = 0; i < 4; i++) {
		static const char *const names[] = {"/file", "/sparse", "/tiny", "/slow"};

		SAID(appliance_xattr_set(a, names[i], "user.large", data, 900, &err));
		SAID(appliance_xattr_remove(a, names[i], "user.small", &err));
	}
	SAID(appliance_setattr(a, "/sparse", SET_SIZE | SET_MTIME, 0, &st, &err));
	SAID(appliance_setattr(a, "/", SET_MODE | SET_UID, TREE_RECURSIVE, &st, &err));
}

static void change_names(struct appliance *a)
{
	const struct agent_stat st = {.mode = S_IFIFO | 0600};
	struct err err = {0};
	char name[64];

	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "/big/another long name in this directory %u", i);
		SAID(appliance_mknod(a, name, &st, &err));
	}
	SAID(appliance_symlink(a, "a/target", "/dir/link", 0, 0, &err));
	SAID(appliance_link(a, "/file", "/big/hard", &err));
	SAID(appliance_rename(a, "/file", "/dir/moved", &err));
	SAID(appliance_rename(a, "/dir", "/new/sub", &err));
	SAID(appliance_rename(a, "/big/name1", "/tiny", &err));
	SAID(appliance_sync(a, &err));
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		SAID(appliance_remove(a, paths[i], TREE_RECURSIVE, &err));
	write_some(a, "/after", 0, WRITE_CREATE, sizeof(data));
}

/* ---- all of it ---- */

static bool may_hold(const struct agent_volume *v)
{
	return !strcmp(v->usage, "filesystem") && !strncmp(v->type, "ext", 3);
}

static void with_each(struct appliance *a, uint32_t flags, void (*fn)(struct appliance *a),
		      void (*then)(struct appliance *a))
{
	struct agent_volume *v = NULL;
	struct err err = {0};
	unsigned n = 0, mounted = 0;

	if (SAID(appliance_volumes(a, &v, &n, &err)) < 0)
		return;
	for (unsigned i = 0; i < n && mounted < 2; i++) {
		if (!may_hold(&v[i]) && n > 1)
			continue;
		mounted++;
		if (SAID(appliance_mount(a, v[i].disk, v[i].part, "/", flags, NULL, &err)) < 0)
			continue;
		fn(a);
		if (then)
			then(a);
		SAID(appliance_unmount(a, &err));
	}
	free(v);
}

unsigned explore_read(struct appliance *a)
{
	struct appliance_root root;
	struct err err = {0};

	worked = 0;
	with_each(a, MOUNT_RDONLY, look, NULL);
	if (SAID(appliance_mount_root(a, MOUNT_RDONLY, &root, &err)) == 0) {
		appliance_root_free(&root);
		SAID(appliance_unmount(a, &err));
	}
	return worked;
}

unsigned explore_write(struct appliance *a)
{
	worked = 0;
	with_each(a, 0, change_files, change_names);
	return worked;
}

unsigned explore_volumes(struct appliance *a)
{
	struct agent_volume *v;
	struct err err = {0};
	unsigned n;

	worked = 0;
	if (SAID(appliance_volumes(a, &v, &n, &err)) == 0)
		free(v);
	return worked;
}

void explore_end(struct appliance *a)
{
	struct err err = {0};

	if (appliance_finish(a, &err) < 0)
		die("the agent did not end well: %s", err.msg);
	appliance_close(a);
}
