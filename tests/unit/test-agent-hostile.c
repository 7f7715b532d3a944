// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Each side of the appliance's conversation against another one that does not keep to the protocol:
 * frames that are wrong in one way each, and thousands of mutations of right ones. What must hold:
 * an end in bounded time, an error instead of a crash, and nothing handed on that was not checked.
 *
 * link: build/agent/libblkid.a -lext2fs -lcom_err -luuid
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/agent/agent.h"
#include "appliance/appliance.h"
#include "base/bytes.h"
#include "fakefs.h"
#include "rng.h"
#include "tell.h"

static struct err e;

/* A stream of bytes that is being made. */
struct script {
	unsigned char buf[65536];
	size_t len;
};

static void frame(struct script *s, uint16_t type, uint16_t op, uint32_t call, const void *p,
		  size_t n)
{
	struct frame_header h = {.length = le32_make((uint32_t)n),
				 .type = le16_make(type),
				 .op = le16_make(op),
				 .call = le32_make(call)};

	assert_true(s->len + sizeof(h) + n <= sizeof(s->buf));
	memcpy(s->buf + s->len, &h, sizeof(h));
	if (n)
		memcpy(s->buf + s->len + sizeof(h), p, n);
	s->len += sizeof(h) + n;
}

static void frame_of(struct script *s, uint16_t type, uint16_t op, uint32_t call,
		     const struct wire_out *w)
{
	frame(s, type, op, call, w->buf, w->len);
}

/* ---- an agent that is a recording ---- */

static int end_finish(void *arg, struct err *err)
{
	close(*(int *)arg);
	*(int *)arg = -1;
	(void)err;
	return 0;
}

static void end_kill(void *arg)
{
	end_finish(arg, NULL);
}

/* The library talks with what was recorded; what it says itself goes nowhere. */
static int listen_to(const struct script *s, bool ends, int *fd, struct appliance **a)
{
	const struct appliance_end end = {.finish = end_finish, .kill = end_kill, .arg = fd};
	int fds[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(write(fds[1], s->buf, s->len), s->len);
	*fd = fds[0];
	if (ends)
		shutdown(fds[1], SHUT_WR);
	r = appliance_attach(fds[0], fds[0], &end, a, &e);
	/* Else it stays open: writing must not fail before anything is heard. */
	if (r < 0)
		close(fds[1]);
	return r < 0 ? r : fds[1];
}

static void put_hello(struct script *s)
{
	unsigned char buf[64];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_u32(&w, AGENT_PROTOCOL);
	put_u32(&w, 2);
	frame_of(s, FRAME_HELLO, 0, 0, &w);
}

static void put_plain_stat(struct wire_out *w, uint32_t mode)
{
	const struct agent_stat st = {.mode = mode, .nlink = 1, .size = 10000};

	put_stat(w, &st);
}

static void put_entry(struct wire_out *w, const char *path, uint32_t mode, uint8_t other,
		      const char *target)
{
	put_u8(w, STREAM_ENTRY);
	put_text(w, path);
	put_u8(w, other);
	put_plain_stat(w, mode);
	put_text(w, target);
}

/* An export with all kinds of records, as call 1. */
static void put_export(struct script *s, uint32_t call)
{
	unsigned char buf[4096];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_entry(&w, "", S_IFDIR | 0755, 0, "");
	put_u8(&w, STREAM_XATTR);
	put_text(&w, "user.x");
	put_bytes(&w, "value", 5);
	put_entry(&w, "dir", S_IFDIR | 0755, 0, "");
	put_entry(&w, "dir/file", S_IFREG | 0644, 0, "");
	put_u8(&w, STREAM_BYTES);
	put_u64(&w, 100);
	put_bytes(&w, "some bytes", 10);
	frame_of(s, FRAME_DATA, 0, call, &w);
	w.len = 0;
	put_entry(&w, "link", S_IFLNK | 0777, 0, "dir/file");
	put_entry(&w, "again", S_IFREG | 0644, 1, "dir/file");
	put_u8(&w, STREAM_FAILED);
	put_text(&w, "dir/bad");
	put_u32(&w, EIO);
	put_text(&w, "cannot be read");
	frame_of(s, FRAME_DATA, 0, call, &w);
	frame(s, FRAME_DONE, 0, call, NULL, 0);
}

static void put_listing(struct script *s, uint32_t call)
{
	unsigned char buf[4096];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_text(&w, "name");
	put_plain_stat(&w, S_IFREG | 0644);
	put_text(&w, "\xff\xfe not utf-8");
	put_plain_stat(&w, 0);
	frame_of(s, FRAME_DATA, 0, call, &w);
	frame(s, FRAME_DONE, 0, call, NULL, 0);
}

static void put_volumes(struct script *s, uint32_t call)
{
	const struct agent_volume v = {.disk = 1, .part = 2, .type = "ext4", .label = "label"};
	unsigned char buf[4096];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_u32(&w, 2);
	put_volume(&w, &v);
	put_volume(&w, &v);
	frame_of(s, FRAME_DONE, 0, call, &w);
}

static void put_root(struct script *s, uint32_t call)
{
	unsigned char buf[4096];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_u32(&w, 2);
	for (unsigned i = 0; i < 2; i++) {
		put_u32(&w, 0);
		put_u32(&w, i);
		put_text(&w, i ? "/boot" : "/");
		put_text(&w, "ext4");
	}
	put_u32(&w, 1);
	put_text(&w, "a note with an escape \033[2J");
	frame_of(s, FRAME_DONE, 0, call, &w);
}

static void put_reads(struct script *s, uint32_t call)
{
	unsigned char buf[64];
	struct wire_out w = wire_out(buf, sizeof(buf));

	frame(s, FRAME_DATA, 0, call, "hello ", 6);
	frame(s, FRAME_PROGRESS, 0, call, "12345678abcdefgh", 16);
	frame(s, FRAME_DATA, 0, call, "world", 5);
	put_u64(&w, 11);
	frame_of(s, FRAME_DONE, 0, call, &w);
	w.len = 0;
	put_u32(&w, ENOENT);
	put_text(&w, "no such \033]0;thing");
	frame_of(s, FRAME_FAIL, 0, call + 1, &w);
}

static void put_names(struct script *s, uint32_t call)
{
	unsigned char buf[256];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_u32(&w, 2);
	put_text(&w, "user.one");
	put_text(&w, "user.two");
	frame_of(s, FRAME_DONE, 0, call, &w);
	w.len = 0;
	put_bytes(&w, "value", 5);
	frame_of(s, FRAME_DONE, 0, call + 1, &w);
	w.len = 0;
	put_text(&w, "ext4");
	put_u32(&w, 4096);
	for (unsigned i = 0; i < 5; i++)
		put_u64(&w, 1000 - i);
	put_u32(&w, 0);
	put_u32(&w, 1);
	put_text(&w, "/");
	frame_of(s, FRAME_DONE, 0, call + 2, &w);
}

static void put_all(struct script *s)
{
	s->len = 0;
	put_hello(s);
	put_export(s, 1);
	put_listing(s, 2);
	put_volumes(s, 3);
	put_root(s, 4);
	put_reads(s, 5);
	put_names(s, 7);
}

/* ---- what the library hands on ---- */

static unsigned handed;

static void is_clean(const char *text)
{
	for (; *text; text++)
		expect((unsigned char)*text >= ' ' && *text != 0x7f);
}

static int take_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		      const char *target, struct err *err)
{
	(void)arg;
	(void)err;
	handed++;
	expect(path[0] != '/' && !strstr(path, "//") && strcmp(path, "..") != 0);
	expect(strncmp(path, "../", 3) != 0 && !strstr(path, "/../"));
	expect(!first || first[0] != '/');
	expect(S_ISLNK(st->mode) || !*target);
	expect(st->size <= INT64_MAX);
	return 0;
}

static int take_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	static unsigned char copy[STREAM_BYTES_MAX];

	(void)arg;
	(void)err;
	handed++;
	expect(off <= INT64_MAX && n <= sizeof(copy));
	memcpy(copy, bytes, n);
	return 0;
}

static int take_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	handed++;
	expect(*name);
	return take_bytes(arg, 0, value, n, err);
}

static int take_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	(void)arg;
	(void)path;
	(void)err;
	handed++;
	expect(code > 0);
	is_clean(text);
	return 0;
}

static int take_name(void *arg, const char *name, const struct agent_stat *st, struct err *err)
{
	(void)arg;
	(void)st;
	(void)err;
	handed++;
	expect(*name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, ".."));
	return 0;
}

static void ask_for_trees(struct appliance *a)
{
	const struct appliance_sink sink = {.entry = take_entry,
					    .xattr = take_xattr,
					    .bytes = take_bytes,
					    .failed = take_failed};
	struct appliance_root root;
	struct agent_volume *v;
	unsigned n;

	appliance_export(a, "/", TREE_RECURSIVE | TREE_CONTENT | TREE_XATTRS, &sink, &e);
	appliance_readdir(a, "/", take_name, NULL, &e);
	if (appliance_volumes(a, &v, &n, &e) == 0) {
		handed += n;
		free(v);
	}
	if (appliance_mount_root(a, 0, &root, &e) == 0) {
		for (unsigned i = 0; i < root.n_notes; i++)
			is_clean(root.notes[i]);
		handed += root.n_mounts;
		appliance_root_free(&root);
	}
}

/* All calls of the recording; each may fail. */
static void ask_for_all(struct appliance *a)
{
	static unsigned char value[AGENT_XATTR_MAX];
	struct appliance_space space;
	struct agent_stat st;
	char *buf;
	size_t n;

	ask_for_trees(a);
	if (appliance_read_file(a, "/f", 100, &buf, &n, &e) == 0) {
		expect(n <= 100);
		handed++;
		free(buf);
	}
	e = (struct err){0};
	appliance_stat(a, "/none", true, &st, &e);
	is_clean(e.msg);
	if (appliance_xattr_list(a, "/f", &buf, &n, &e) == 0) {
		handed++;
		free(buf);
	}
	if (appliance_xattr_get(a, "/f", "user.one", value, &n, &e) == 0)
		handed++;
	if (appliance_statfs(a, "/", &space, &e) == 0)
		handed++;
}

static void the_recording_itself_is_right(void **state)
{
	struct script s;
	struct appliance *a;
	int fd, far;

	(void)state;
	put_all(&s);
	far = listen_to(&s, true, &fd, &a);
	assert_true(far >= 0);
	handed = 0;
	ask_for_all(a);
	assert_int_equal(handed, 5 + 2 + 1 + 1 + 2 + 2 + 1 + 1 + 1 + 1 + 2);
	fails(appliance_sync(a, &e), -EPIPE, &e, "the agent ended");
	fails(appliance_sync(a, &e), -EPIPE, &e, "the agent is gone");
	appliance_close(a);
	close(far);
}

static void mutate(struct script *s, struct rng *rng)
{
	static const unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff, '/', '.', 16};
	unsigned times = 1 + (unsigned)rng_below(rng, 3);

	while (times--) {
		size_t at = rng_below(rng, s->len), n = 1 + rng_below(rng, 8);

		switch (rng_below(rng, 5)) {
		case 0:
			s->buf[at] ^= (unsigned char)(1 << rng_below(rng, 8));
			break;
		case 1:
			s->buf[at] = values[rng_below(rng, sizeof(values))];
			break;
		case 2:
			s->len = at + 1;
			break;
		case 3: /* some bytes go */
			n = min_u64(n, s->len - at - 1);
			memmove(s->buf + at, s->buf + at + n, s->len - at - n);
			s->len -= n;
			break;
		default: /* or come */
			memmove(s->buf + at + n, s->buf + at, s->len - at);
			rng_fill(rng, s->buf + at, n);
			s->len += n;
			break;
		}
	}
}

static void mutated_agents_end_in_errors(void **state)
{
	struct seeds seeds;

	(void)state;
	seeds_init(&seeds, 1, SANITIZED ? 1000 : 4000);
	while (seeds_next(&seeds)) {
		struct rng rng = {seeds.seed};
		struct appliance *a;
		struct script s;
		int fd, far;

		context("seed %llu, replies", (unsigned long long)seeds.seed);
		put_all(&s);
		mutate(&s, &rng);
		far = listen_to(&s, true, &fd, &a);
		if (far < 0)
			continue;
		ask_for_all(a);
		appliance_close(a);
		close(far);
	}
}

/* ---- frames that are wrong in one way ---- */

static void refused(const struct script *s, int (*call)(struct appliance *a), const char *why)
{
	struct appliance *a;
	int fd, far = listen_to(s, false, &fd, &a);

	assert_true(far >= 0);
	fails(call(a), -EPROTO, &e, why);
	assert_int_equal(fd, -1); /* it was killed */
	fails(appliance_sync(a, &e), -EPIPE, &e, "gone");
	appliance_close(a);
	close(far);
}

static int ask_sync(struct appliance *a)
{
	return appliance_sync(a, &e);
}

static int ask_list(struct appliance *a)
{
	return appliance_readdir(a, "/", take_name, NULL, &e);
}

static int take_some(void *arg, const void *bytes, size_t n, struct err *err)
{
	return take_bytes(arg, 0, bytes, n, err);
}

static int ask_read(struct appliance *a)
{
	return appliance_read(a, "/", 0, 10, take_some, NULL, &e);
}

static int ask_walk(struct appliance *a)
{
	const struct appliance_sink sink = {.entry = take_entry};

	return appliance_export(a, "/", TREE_RECURSIVE, &sink, &e);
}

static int ask_write(struct appliance *a)
{
	static const char data[3 << 20];
	const struct appliance_write how = {0};

	return appliance_write_buf(a, "/", &how, data, sizeof(data), &e);
}

static int ask_volumes(struct appliance *a)
{
	struct agent_volume *v;
	unsigned n;

	return appliance_volumes(a, &v, &n, &e);
}

static void wrong_frames_are_refused(void **state)
{
	static const struct {
		uint16_t type, op;
		uint32_t call;
		const char *payload;
		size_t len;
		int (*ask)(struct appliance *a);
		const char *why;
	} cases[] = {
		{FRAME_DONE, 0, 2, "", 0, ask_sync, "another call"},
		{FRAME_DONE, 1, 1, "", 0, ask_sync, "frame is malformed"},
		{FRAME_DONE, 0, 1, "x", 1, ask_sync, "result is malformed"},
		{FRAME_HELLO, 0, 1, "12345678", 8, ask_sync, "no type"},
		{FRAME_CALL, 0, 1, "", 0, ask_sync, "no type"},
		{99, 0, 1, "", 0, ask_sync, "no type"},
		{FRAME_DATA, 0, 1, "x", 1, ask_sync, "none was asked for"},
		{FRAME_PROGRESS, 0, 1, "x", 1, ask_sync, "progress is malformed"},
		{FRAME_FAIL, 0, 1, "\2\0\0\0\0\0\0", 7, ask_sync, "error is malformed"},
		{FRAME_FAIL, 0, 1, "\0\0\0\0\0\0\0\0", 8, ask_sync, "error is malformed"},
		{FRAME_FAIL, 0, 1, "\0\0\1\0\0\0\0\0", 8, ask_sync, "error is malformed"},
		{FRAME_FAIL, 0, 1, "\2\0\0\0\1\0\0\0\0", 9, ask_sync, "error is malformed"},
		{FRAME_DATA, 0, 1, "hello worlds", 12, ask_read, "more bytes"},
		{FRAME_DATA, 0, 1, "", 0, ask_read, "more bytes"},
		{FRAME_DATA, 0, 1, "\4\0\0\0name", 8, ask_list, "entry"},
		{FRAME_DATA, 0, 1, "\3\0\0\0a/b", 7, ask_list, "entry"},
		{FRAME_DATA, 0, 1, "\7", 1, ask_walk, "record"},
		{FRAME_DONE, 0, 1, "", 0, ask_write, "before it has all"},
		{FRAME_DATA, 0, 1, "x", 1, ask_write, "before it has all"},
		{FRAME_DONE, 0, 1, "\xff\xff\xff\x7f", 4, ask_volumes, "more volumes"},
		{FRAME_DONE, 0, 1, "\1\0\0\0", 4, ask_volumes, "more volumes"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct script s = {.len = 0};

		context("case %zu", i);
		put_hello(&s);
		frame(&s, cases[i].type, cases[i].op, cases[i].call, cases[i].payload,
		      cases[i].len);
		refused(&s, cases[i].ask, cases[i].why);
	}
}

/* Records that are right in themselves, but do not belong there. */
static void records_in_wrong_places_are_refused(void **state)
{
	static const struct {
		const char *path, *second;
		uint32_t mode;
		uint8_t other;
		const char *target;
	} cases[] = {
		{"x", NULL, S_IFREG, 0, ""},         /* the first one is "" */
		{"", "", S_IFREG, 0, ""},            /* and no other */
		{"", "../x", S_IFREG, 0, ""},        /* out of the tree */
		{"", "/x", S_IFREG, 0, ""},          //
		{"", "a//x", S_IFREG, 0, ""},        //
		{"", "a/./x", S_IFREG, 0, ""},       //
		{"", "a/", S_IFREG, 0, ""},          //
		{"", "a", 0, 0, ""},                 /* of no type */
		{"", "a", S_IFREG | 0200000, 0, ""}, /* with too much mode */
		{"", "a", S_IFREG, 2, ""},           //
		{"", "a", S_IFDIR, 1, "b"},          /* directories have one name */
		{"", "a", S_IFREG, 1, "../b"},       //
		{"", "a", S_IFREG, 0, "target"},     //
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned char buf[1024];
		struct wire_out w = wire_out(buf, sizeof(buf));
		struct script s = {.len = 0};

		context("case %zu", i);
		put_hello(&s);
		put_entry(&w, cases[i].path, S_IFDIR | 0755, 0, "");
		if (cases[i].second)
			put_entry(&w, cases[i].second, cases[i].mode, cases[i].other,
				  cases[i].target);
		frame_of(&s, FRAME_DATA, 0, 1, &w);
		refused(&s, ask_walk, "a record of a tree is malformed");
	}
}

static void bad_beginnings_are_refused(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t call, version, disks;
		const char *why;
	} cases[] = {
		{FRAME_HELLO, 0, AGENT_PROTOCOL + 1, 0, "another version"},
		{FRAME_HELLO, 0, AGENT_PROTOCOL, 27, "no hello"},
		{FRAME_HELLO, 1, AGENT_PROTOCOL, 0, "no hello"},
		{FRAME_DONE, 0, AGENT_PROTOCOL, 0, "no hello"},
	};
	struct script s = {.len = 0};
	struct appliance *a;
	int fd;

	(void)state;
	fails(listen_to(&s, true, &fd, &a), -EPIPE, &e, "the agent ended");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned char buf[64];
		struct wire_out w = wire_out(buf, sizeof(buf));

		s.len = 0;
		put_u32(&w, cases[i].version);
		put_u32(&w, cases[i].disks);
		frame_of(&s, cases[i].type, 0, cases[i].call, &w);
		fails(listen_to(&s, true, &fd, &a), -EPROTO, &e, cases[i].why);
		assert_int_equal(fd, -1);
	}
}

/* ---- a library that is a recording ---- */

static void put_path_call(struct script *s, uint16_t op, uint32_t call, const char *path,
			  const char *more, unsigned numbers)
{
	unsigned char buf[1024];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_text(&w, path);
	if (more)
		put_text(&w, more);
	while (numbers--)
		put_u32(&w, op == OP_READ ? 100 : 0);
	frame_of(s, FRAME_CALL, op, call, &w);
}

static void put_import(struct script *s, uint32_t call)
{
	unsigned char buf[2048];
	struct wire_out w = wire_out(buf, sizeof(buf));

	put_path_call(s, OP_IMPORT, call, "/a", NULL, 1);
	put_entry(&w, "", S_IFDIR | 0755, 0, "");
	put_entry(&w, "dir", S_IFDIR | 0755, 0, "");
	put_entry(&w, "dir/file", S_IFREG | 0755, 0, "");
	put_u8(&w, STREAM_XATTR);
	put_text(&w, "user.x");
	put_bytes(&w, "v", 1);
	put_u8(&w, STREAM_BYTES);
	put_u64(&w, 9000);
	put_bytes(&w, "bytes", 5);
	put_entry(&w, "dir/link", S_IFLNK | 0777, 0, "target");
	put_entry(&w, "again", S_IFREG | 0777, 1, "dir/file");
	frame_of(s, FRAME_DATA, 0, call, &w);
	frame(s, FRAME_END, 0, call, NULL, 0);
}

static void put_calls(struct script *s)
{
	unsigned char buf[256];
	struct wire_out w = wire_out(buf, sizeof(buf));

	s->len = 0;
	put_path_call(s, OP_MKDIR, 1, "/a/b/c", NULL, 4);
	put_path_call(s, OP_WRITE, 2, "/a/f", NULL, 6);
	frame(s, FRAME_DATA, 0, 2, "content", 7);
	frame(s, FRAME_END, 0, 2, NULL, 0);
	put_import(s, 3);
	put_path_call(s, OP_STAT, 4, "/a/f", NULL, 1);
	put_path_call(s, OP_READ, 5, "/a/f", NULL, 4);
	put_path_call(s, OP_READDIR, 6, "/a", NULL, 0);
	put_path_call(s, OP_EXPORT, 7, "/", NULL, 1);
	put_path_call(s, OP_RENAME, 8, "/a/f", "/a/g", 0);
	put_path_call(s, OP_LINK, 9, "/a/g", "/a/h", 0);
	put_path_call(s, OP_SYMLINK, 10, "x", "/a/s", 2);
	put_path_call(s, OP_MKNOD, 11, "/a/n", NULL, 5);
	put_path_call(s, OP_SETATTR, 12, "/a", NULL, 13);
	put_path_call(s, OP_XATTR_SET, 13, "/a", "user.k", 1);
	put_path_call(s, OP_XATTR_GET, 14, "/a", "user.k", 0);
	put_path_call(s, OP_XATTR_LIST, 15, "/a", NULL, 0);
	put_path_call(s, OP_STATFS, 16, "/a", NULL, 0);
	put_path_call(s, OP_REMOVE, 17, "/a", NULL, 1);
	frame(s, FRAME_CANCEL, 0, 17, NULL, 0);
	put_u32(&w, 0);
	frame_of(s, FRAME_CALL, OP_MOUNT_ROOT, 18, &w);
	frame(s, FRAME_CALL, OP_VOLUMES, 19, NULL, 0);
	frame(s, FRAME_CALL, OP_SYNC, 20, NULL, 0);
	frame(s, FRAME_CALL, OP_UNMOUNT, 21, NULL, 0);
}

/* The agent serves what was recorded. out: what it said, at most size bytes; *n: how many. */
static int serve(const struct script *s, unsigned char *out, size_t size, size_t *n)
{
	static const struct fs_driver *const drivers[] = {&fake_driver, NULL};
	static struct agent agent;
	int in[2], from[2], r;
	ssize_t got;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, in), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, from), 0);
	assert_int_equal(write(in[1], s->buf, s->len), s->len);
	close(in[1]);
	agent.drivers = drivers;
	agent.disks = (struct disks){0};
	agent.tree.n = 0;
	must(tree_mount(&agent.tree, fake_new(), "/", &e), &e);
	r = agent_serve(&agent, in[0], from[1], &e);
	close(in[0]);
	close(from[1]);
	for (*n = 0; (got = read(from[0], out + *n, size - *n)) > 0;)
		*n += (size_t)got;
	close(from[0]);
	return r;
}

static void the_calls_themselves_are_right(void **state)
{
	static unsigned char out[200000];
	unsigned calls = 0, failed = 0;
	struct script s;
	size_t n;

	(void)state;
	put_calls(&s);
	ok(serve(&s, out, sizeof(out), &n), &e);
	for (size_t at = 0; at < n;) {
		struct frame_header h;

		memcpy(&h, out + at, sizeof(h));
		at += sizeof(h) + le32_get(h.length);
		calls += le16_get(h.type) == FRAME_DONE || le16_get(h.type) == FRAME_FAIL;
		failed += le16_get(h.type) == FRAME_FAIL;
	}
	assert_int_equal(calls, 21);
	/* Most of them lack a flag or a parent: the mutations find both. */
	assert_in_range(failed, 1, 20);
}

static void mutated_requests_end_in_errors(void **state)
{
	static unsigned char out[200000];
	struct seeds seeds;

	(void)state;
	seeds_init(&seeds, 1, SANITIZED ? 1000 : 4000);
	while (seeds_next(&seeds)) {
		struct rng rng = {seeds.seed};
		struct script s;
		size_t n;

		context("seed %llu, requests", (unsigned long long)seeds.seed);
		put_calls(&s);
		mutate(&s, &rng);
		serve(&s, out, sizeof(out), &n);
	}
}

static void wrong_requests_end_the_conversation(void **state)
{
	static unsigned char out[1000];
	struct script s;
	size_t n;

	(void)state;
	s.len = 0;
	frame(&s, FRAME_DATA, 0, 1, "x", 1);
	fails(serve(&s, out, sizeof(out), &n), -EPROTO, &e, "without a call");
	s.len = 0;
	frame(&s, FRAME_HELLO, 0, 1, NULL, 0);
	fails(serve(&s, out, sizeof(out), &n), -EPROTO, &e, "malformed");
	s.len = 0;
	frame(&s, FRAME_CANCEL, 0, 1, "x", 1);
	fails(serve(&s, out, sizeof(out), &n), -EPROTO, &e, "no payload");
	s.len = 0;
	frame(&s, FRAME_CALL, OP_SYNC, 1, NULL, 0);
	s.len -= 1;
	fails(serve(&s, out, sizeof(out), &n), -EPROTO, &e, "inside a frame");
	s.len = 0;
	put_path_call(&s, OP_WRITE, 1, "/x", NULL, 6);
	frame(&s, FRAME_CALL, OP_SYNC, 2, NULL, 0);
	fails(serve(&s, out, sizeof(out), &n), -EPROTO, &e, "another one is served");
	/* A call that does not exist is answered, and the next one, too. */
	s.len = 0;
	frame(&s, FRAME_CALL, 999, 1, NULL, 0);
	frame(&s, FRAME_CALL, OP_SYNC, 2, NULL, 0);
	ok(serve(&s, out, sizeof(out), &n), &e);
	assert_non_null(memmem(out, n, "there is no call 999", 20));
	assert_int_equal(out[n - 12], FRAME_DONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_recording_itself_is_right),
		cmocka_unit_test(wrong_frames_are_refused),
		cmocka_unit_test(records_in_wrong_places_are_refused),
		cmocka_unit_test(bad_beginnings_are_refused),
		cmocka_unit_test(mutated_agents_end_in_errors),
		cmocka_unit_test(the_calls_themselves_are_right),
		cmocka_unit_test(wrong_requests_end_the_conversation),
		cmocka_unit_test(mutated_requests_end_in_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
