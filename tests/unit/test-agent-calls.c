// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * All calls of the appliance, from the library's functions through the agent's loop to a driver
 * that keeps everything in memory: what they do, and what they refuse.
 *
 * link: build/agent/libblkid.a -lext2fs -lcom_err -luuid
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/agent/agent.h"
#include "appliance/appliance.h"
#include "attached.h"
#include "base/bytes.h"
#include "fakefs.h"

static struct err e;
static struct appliance *a;

/* What a test changes in the filesystem before the agent begins. */
typedef void make_fn(struct fs *fs, uint64_t sub);

static int run_agent(int fd, void *arg)
{
	static const struct fs_driver *const drivers[] = {&fake_driver, NULL};
	static struct agent agent = {.drivers = drivers};
	struct fs *fs = fake_new(), *other = fake_new();
	make_fn *make = *(make_fn **)arg;
	uint64_t sub;

	sub = fake_dir(fs, 2, "sub");
	fake_file(fs, sub, "file", "hello");
	fake_symlink(fs, sub, "link", "file");
	fake_dir(fs, 2, "mnt");
	if (make)
		make(fs, sub);
	if (tree_mount(&agent.tree, fs, "/", &e) < 0 ||
	    tree_mount(&agent.tree, other, "/mnt", &e) < 0)
		return 1;
	return agent_serve(&agent, fd, fd, &e) < 0;
}

static void start(make_fn *make)
{
	a = attach_fork(run_agent, &make);
}

/* The agent ends well: it unmounts all and no sanitizer has complaints. */
static void stop(void)
{
	ok(appliance_finish(a, &e), &e);
	appliance_close(a);
}

static int setup(void **state)
{
	(void)state;
	start(NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stop();
	return 0;
}

static const struct appliance_write plain = {
	.flags = WRITE_CREATE, .mode = 0640, .uid = 7, .gid = 8};

static void holds(const char *path, const char *content)
{
	char *buf;
	size_t n;

	ok(appliance_read_file(a, path, 1 << 20, &buf, &n, &e), &e);
	assert_string_equal(buf, content);
	assert_int_equal(n, strlen(content));
	free(buf);
}

static struct agent_stat stat_of(const char *path)
{
	struct agent_stat st;

	ok(appliance_stat(a, path, false, &st, &e), &e);
	return st;
}

/* ---- looking ---- */

static int names(void *arg, const char *name, const struct agent_stat *st, struct err *err)
{
	char *list = arg;

	(void)err;
	sprintf(list + strlen(list), "%s%s ", name, S_ISDIR(st->mode) ? "/" : "");
	return 0;
}

static void inodes_are_described(void **state)
{
	struct appliance_space s;
	char buf[AGENT_PATH_MAX], list[200] = "";
	struct agent_stat st = stat_of("/sub/link");

	(void)state;
	assert_int_equal(st.mode, S_IFLNK | 0777);
	ok(appliance_stat(a, "/sub/link", true, &st, &e), &e);
	assert_int_equal(st.size, 5);
	ok(appliance_readlink(a, "/sub/link", buf, &e), &e);
	assert_string_equal(buf, "file");
	fails(appliance_readlink(a, "/sub/file", buf, &e), -EINVAL, &e, "not a symbolic link");
	fails(appliance_stat(a, "/sub/nothing", true, &st, &e), -ENOENT, &e,
	      "/sub/nothing: No such file");
	ok(appliance_readdir(a, "/sub", names, list, &e), &e);
	assert_string_equal(list, "file link ");
	fails(appliance_readdir(a, "/sub/file", names, list, &e), -ENOTDIR, &e, "/sub/file");
	ok(appliance_statfs(a, "/mnt", &s, &e), &e);
	assert_string_equal(s.path, "/mnt");
	assert_string_equal(s.type, "fake");
	assert_int_equal(s.available, 400);
	assert_int_equal(stat_of("/mnt").dev, 1);
}

static int refuse_entry(void *arg, const char *name, const struct agent_stat *st, struct err *err)
{
	(void)arg;
	(void)st;
	return err_set(err, EDOM, "no %s", name);
}

/* A callback that fails ends the call, and the next one works. */
static void callbacks_end_calls(void **state)
{
	(void)state;
	fails(appliance_readdir(a, "/sub", refuse_entry, NULL, &e), -EDOM, &e, "no file");
	holds("/sub/file", "hello");
}

static void files_are_read_in_parts(void **state)
{
	FILE *f = tmpfile();
	char buf[10] = "", *whole;
	size_t n;

	(void)state;
	ok(appliance_read_fd(a, "/sub/link", 1, 3, fileno(f), &e), &e);
	assert_int_equal(pread(fileno(f), buf, 10, 0), 3);
	assert_string_equal(buf, "ell");
	ok(appliance_read_fd(a, "/sub/file", 100, UINT64_MAX, fileno(f), &e), &e);
	fails(appliance_read_file(a, "/sub/file", 4, &whole, &n, &e), -EFBIG, &e, "4 bytes");
	fails(appliance_read_file(a, "/sub", 4, &whole, &n, &e), -EISDIR, &e, "/sub");
	fclose(f);
}

/* ---- writing ---- */

static void files_are_written(void **state)
{
	struct appliance_write how = plain;
	struct agent_stat st;

	(void)state;
	ok(appliance_write_buf(a, "/new", &how, "abc", 3, &e), &e);
	holds("/new", "abc");
	st = stat_of("/new");
	assert_int_equal(st.mode, S_IFREG | 0640);
	assert_int_equal(st.uid * 10 + st.gid, 78);
	how.off = 2;
	ok(appliance_write_buf(a, "/new", &how, "XY", 2, &e), &e);
	holds("/new", "abXY");
	how = (struct appliance_write){.flags = WRITE_APPEND};
	ok(appliance_write_buf(a, "/new", &how, "z", 1, &e), &e);
	holds("/new", "abXYz");
	how.flags = WRITE_TRUNC;
	ok(appliance_write_buf(a, "/new", &how, "", 0, &e), &e);
	holds("/new", "");
	how.flags = WRITE_CREATE | WRITE_EXCL;
	fails(appliance_write_buf(a, "/new", &how, "q", 1, &e), -EEXIST, &e, "/new");
	how.flags = 0;
	fails(appliance_write_buf(a, "/none", &how, "q", 1, &e), -ENOENT, &e, "/none");
	fails(appliance_write_buf(a, "/sub", &plain, "q", 1, &e), -EISDIR, &e, "/sub");
	fails(appliance_write_buf(a, "/a/b", &plain, "q", 1, &e), -ENOENT, &e, "/a/b");
	how.flags = 1 << 20;
	fails(appliance_write_buf(a, "/new", &how, "q", 1, &e), -EINVAL, &e, "0x100000");
}

/* Much more than fits into any buffer on the way. */
static void large_files_pass(void **state)
{
	size_t size = 5000001, n;
	char *data = malloc(size + 1), *back;

	(void)state;
	for (size_t i = 0; i < size; i++)
		data[i] = (char)(i * 7 + i / 1000);
	ok(appliance_write_buf(a, "/large", &plain, data, size, &e), &e);
	ok(appliance_read_file(a, "/large", size, &back, &n, &e), &e);
	assert_int_equal(n, size);
	assert_memory_equal(back, data, size);
	free(back);
	/* The driver says that this is too large: the rest of the data goes nowhere. */
	for (unsigned i = 0; i < 4; i++) {
		struct appliance_write how = {.off = 15 * MiB};

		fails(appliance_write_buf(a, "/large", &how, data, size, &e), -EFBIG, &e, "/large");
	}
	holds("/sub/file", "hello");
	free(data);
}

static void replacing_keeps_what_a_file_is(void **state)
{
	struct appliance_write how = {.flags = WRITE_REPLACE};
	char value[AGENT_XATTR_MAX], list[200] = "";
	struct agent_stat old, st = {.mode = 04711, .uid = 3, .gid = 4};
	size_t n;

	(void)state;
	ok(appliance_setattr(a, "/sub/file", SET_MODE | SET_UID | SET_GID, 0, &st, &e), &e);
	ok(appliance_xattr_set(a, "/sub/file", "user.x", "val", 3, &e), &e);
	old = stat_of("/sub/file");
	ok(appliance_write_buf(a, "/sub/link", &how, "other", 5, &e), &e);
	holds("/sub/file", "other");
	st = stat_of("/sub/file");
	assert_int_not_equal(st.ino, old.ino);
	assert_int_equal(st.mode, S_IFREG | 04711);
	assert_int_equal(st.uid * 10 + st.gid, 34);
	ok(appliance_xattr_get(a, "/sub/file", "user.x", value, &n, &e), &e);
	assert_int_equal(n, 3);
	ok(appliance_readdir(a, "/sub", names, list, &e), &e);
	assert_string_equal(list, "link file ");
	how.flags |= WRITE_CREATE;
	how.mode = 0600;
	ok(appliance_write_buf(a, "/sub/new", &how, "new", 3, &e), &e);
	holds("/sub/new", "new");
	how.off = 1;
	fails(appliance_write_buf(a, "/sub/new", &how, "new", 3, &e), -EINVAL, &e, "beginning");
}

static int source_fails(void *arg, void *buf, size_t size, size_t *n, struct err *err)
{
	unsigned *left = arg;

	if (!(*left)--)
		return err_set(err, EDOM, "enough");
	memset(buf, 'x', size);
	*n = size;
	return 0;
}

/* What was not finished leaves the old file, or none. */
static void unfinished_files_go_away(void **state)
{
	struct appliance_write how = plain;
	struct agent_stat st;
	char list[200] = "";
	unsigned left = 2;

	(void)state;
	fails(appliance_write(a, "/sub/new", &how, source_fails, &left, &e), -EDOM, &e, "enough");
	fails(appliance_stat(a, "/sub/new", true, &st, &e), -ENOENT, &e, "/sub/new");
	how.flags = WRITE_REPLACE;
	left = 2;
	fails(appliance_write(a, "/sub/file", &how, source_fails, &left, &e), -EDOM, &e, "enough");
	holds("/sub/file", "hello");
	ok(appliance_readdir(a, "/sub", names, list, &e), &e);
	assert_string_equal(list, "file link ");
}

/* ---- names ---- */

static void names_are_made(void **state)
{
	struct agent_stat node = {
		.mode = S_IFCHR | 0600, .rdev_major = 4, .rdev_minor = 64, .uid = 5};
	char buf[AGENT_PATH_MAX];

	(void)state;
	ok(appliance_mkdir(a, "/d", 01755, 1, 2, 0, &e), &e);
	assert_int_equal(stat_of("/d").mode, S_IFDIR | 01755);
	fails(appliance_mkdir(a, "/d", 0755, 0, 0, 0, &e), -EEXIST, &e, "/d");
	fails(appliance_mkdir(a, "/x/y/z", 0755, 0, 0, 0, &e), -ENOENT, &e, "/x/y/z");
	ok(appliance_mkdir(a, "/x/y/z/", 0755, 0, 0, TREE_RECURSIVE, &e), &e);
	ok(appliance_mkdir(a, "/x/y/z", 0755, 0, 0, TREE_RECURSIVE | TREE_MISSING_OK, &e), &e);
	fails(appliance_mkdir(a, "/sub/file/z", 0755, 0, 0, TREE_RECURSIVE | TREE_MISSING_OK, &e),
	      -EEXIST, &e, "/sub/file");
	fails(appliance_mkdir(a, "/", 0755, 0, 0, 0, &e), -EEXIST, &e, "/");
	ok(appliance_symlink(a, "../any/where", "/d/s", 9, 9, &e), &e);
	ok(appliance_readlink(a, "/d/s", buf, &e), &e);
	assert_string_equal(buf, "../any/where");
	fails(appliance_symlink(a, "", "/d/t", 9, 9, &e), -ENOENT, &e, "empty");
	fails(appliance_symlink(a, "t", "/d/t/", 9, 9, &e), -ENOENT, &e, "/d/t/");
	ok(appliance_mknod(a, "/d/tty", &node, &e), &e);
	assert_int_equal(stat_of("/d/tty").rdev_minor, 64);
	node.mode = S_IFDIR;
	fails(appliance_mknod(a, "/d/dir", &node, &e), -EINVAL, &e, "/d/dir");
	ok(appliance_link(a, "/sub/file", "/d/hard", &e), &e);
	assert_int_equal(stat_of("/d/hard").nlink, 2);
	fails(appliance_link(a, "/sub", "/d/dirlink", &e), -EPERM, &e, "/sub");
	fails(appliance_link(a, "/sub/file", "/mnt/hard", &e), -EXDEV, &e, "/mnt/hard");
	fails(appliance_link(a, "/sub/file", "/d/hard", &e), -EEXIST, &e, "/d/hard");
}

static void names_are_moved(void **state)
{
	(void)state;
	ok(appliance_mkdir(a, "/p/q/r", 0755, 0, 0, TREE_RECURSIVE, &e), &e);
	ok(appliance_rename(a, "/sub/file", "/p/moved", &e), &e);
	holds("/p/moved", "hello");
	fails(appliance_rename(a, "/p", "/p/q/r/in", &e), -EINVAL, &e, "/p/q/r/in");
	fails(appliance_rename(a, "/p", "/p/in", &e), -EINVAL, &e, "/p/in");
	fails(appliance_rename(a, "/p/moved", "/mnt/moved", &e), -EXDEV, &e, "/mnt/moved");
	fails(appliance_rename(a, "/mnt", "/m", &e), -EBUSY, &e, "/m");
	fails(appliance_rename(a, "/p", "/mnt", &e), -EBUSY, &e, "/mnt");
	fails(appliance_rename(a, "/", "/m", &e), -EBUSY, &e, "/");
	fails(appliance_rename(a, "/p/moved", "/p/q", &e), -EISDIR, &e, "/p/q");
	fails(appliance_rename(a, "/p/q", "/p/moved", &e), -ENOTDIR, &e, "/p/moved");
	fails(appliance_rename(a, "/p/moved", "/p/new/", &e), -ENOTDIR, &e, "/p/new/");
	fails(appliance_rename(a, "/sub", "/p", &e), -ENOTEMPTY, &e, "/p");
	ok(appliance_rename(a, "/sub", "/p/q/r", &e), &e);
	ok(appliance_rename(a, "/p/moved", "/p/moved", &e), &e);
	ok(appliance_rename(a, "/p/moved", "/p/q/r/link", &e), &e);
	holds("/p/q/r/link", "hello");
}

static void attributes_are_set(void **state)
{
	struct agent_stat st = {.mode = 0777, .uid = 1000, .size = 2, .mtime = {123, 456}};
	char value[AGENT_XATTR_MAX], *list;
	size_t n;

	(void)state;
	ok(appliance_setattr(a, "/sub/link", SET_UID, 0, &st, &e), &e);
	assert_int_equal(stat_of("/sub/link").uid, 1000);
	assert_int_equal(stat_of("/sub/file").uid, 0);
	ok(appliance_setattr(a, "/sub/link", SET_SIZE | SET_MTIME, TREE_FOLLOW, &st, &e), &e);
	holds("/sub/file", "he");
	assert_int_equal(stat_of("/sub/file").mtime.nsec, 456);
	fails(appliance_setattr(a, "/sub", SET_SIZE, 0, &st, &e), -EISDIR, &e, "/sub");
	fails(appliance_setattr(a, "/sub", SET_SIZE, TREE_RECURSIVE, &st, &e), -EINVAL, &e, "/sub");
	fails(appliance_setattr(a, "/sub", 1 << 30, 0, &st, &e), -EINVAL, &e, "0x40000000");
	ok(appliance_setattr(a, "/", SET_MODE, TREE_RECURSIVE, &st, &e), &e);
	assert_int_equal(stat_of("/sub/file").mode, S_IFREG | 0777);
	assert_int_equal(stat_of("/mnt").mode, S_IFDIR | 0777);
	assert_int_equal(stat_of("/").mode, S_IFDIR | 0777);
	st.mtime.nsec = 1000000000;
	fails(appliance_setattr(a, "/sub", SET_MTIME, 0, &st, &e), -EINVAL, &e, "999999999");

	ok(appliance_xattr_set(a, "/sub", "user.a", "1", 1, &e), &e);
	ok(appliance_xattr_set(a, "/sub", "trusted.b", NULL, 0, &e), &e);
	ok(appliance_xattr_list(a, "/sub", &list, &n, &e), &e);
	assert_int_equal(n, strlen("user.a") + strlen("trusted.b") + 2);
	assert_memory_equal(list, "user.a\0trusted.b", n);
	free(list);
	ok(appliance_xattr_remove(a, "/sub", "user.a", &e), &e);
	fails(appliance_xattr_get(a, "/sub", "user.a", value, &n, &e), -ENODATA, &e, "/sub");
	fails(appliance_xattr_set(a, "/sub", "nospace", "1", 1, &e), -EINVAL, &e, "namespace");
}

static void trees_are_removed(void **state)
{
	struct agent_stat st;
	struct job job = {0};
	char path[100];

	(void)state;
	fails(appliance_remove(a, "/none", 0, &e), -ENOENT, &e, "/none");
	ok(appliance_remove(a, "/none", TREE_MISSING_OK, &e), &e);
	fails(appliance_remove(a, "/sub", 0, &e), -ENOTEMPTY, &e, "/sub");
	fails(appliance_remove(a, "/mnt", TREE_RECURSIVE, &e), -EBUSY, &e, "/mnt");
	fails(appliance_remove(a, "/", TREE_RECURSIVE, &e), -EBUSY, &e, "/");
	fails(appliance_remove(a, "/sub/..", TREE_RECURSIVE, &e), -EBUSY, &e, "/");
	ok(appliance_remove(a, "/sub/link", TREE_RECURSIVE, &e), &e);
	for (unsigned i = 0; i < 1200; i++) {
		snprintf(path, sizeof(path), i % 10 ? "/sub/f%u" : "/sub/d%u/e/f/g", i);
		if (i % 10)
			ok(appliance_write_buf(a, path, &plain, "", 0, &e), &e);
		else
			ok(appliance_mkdir(a, path, 0755, 0, 0, TREE_RECURSIVE, &e), &e);
	}
	appliance_watch(a, &job);
	ok(appliance_remove(a, "/sub", TREE_RECURSIVE, &e), &e);
	appliance_watch(a, NULL);
	assert_int_equal(job.done, 1536);
	fails(appliance_stat(a, "/sub", false, &st, &e), -ENOENT, &e, "/sub");
	ok(appliance_mkdir(a, "/empty", 0755, 0, 0, 0, &e), &e);
	ok(appliance_remove(a, "/empty", 0, &e), &e);
}

/* ---- streams ---- */

struct seen {
	char text[4000];
	unsigned entries;
	uint64_t bytes;
};

static int see_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		     const char *target, struct err *err)
{
	struct seen *s = arg;

	(void)err;
	s->entries++;
	if (strlen(s->text) < 3000)
		sprintf(s->text + strlen(s->text), "%s%s%s%s ", path, S_ISDIR(st->mode) ? "/" : "",
			first     ? "="
			: *target ? ">"
				  : "",
			first ? first : target);
	return 0;
}

static int see_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct seen *s = arg;

	(void)err;
	sprintf(s->text + strlen(s->text), "[%s=%.*s] ", name, (int)n, (const char *)value);
	return 0;
}

static int see_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	struct seen *s = arg;

	(void)err;
	s->bytes += n;
	sprintf(s->text + strlen(s->text), "(%llu+%zu %.*s) ", (unsigned long long)off, n,
		n < 10 ? (int)n : 0, (const char *)bytes);
	return 0;
}

static int see_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	struct seen *s = arg;

	(void)err;
	if (strlen(s->text) < 3000)
		sprintf(s->text + strlen(s->text), "!%s:%d:%s ", path, code, text);
	return 0;
}

static struct seen export(const char *path, uint32_t flags)
{
	struct seen s = {0};
	const struct appliance_sink sink = {&s, see_entry, see_xattr, see_bytes, see_failed};

	ok(appliance_export(a, path, flags, &sink, &e), &e);
	return s;
}

static void trees_are_exported(void **state)
{
	struct appliance_write how = plain;

	(void)state;
	assert_string_equal(export("/sub", 0).text, "/ ");
	assert_string_equal(export("/sub", TREE_RECURSIVE).text, "/ file link>file ");
	assert_string_equal(export("/sub/link", TREE_CONTENT).text, ">file ");
	assert_string_equal(export("/sub/link", TREE_CONTENT | TREE_FOLLOW).text, " (0+5 hello) ");
	ok(appliance_link(a, "/sub/file", "/sub/again", &e), &e);
	ok(appliance_xattr_set(a, "/sub/file", "user.k", "v", 1, &e), &e);
	assert_string_equal(export("/sub", TREE_RECURSIVE | TREE_CONTENT | TREE_XATTRS).text,
			    "/ file [user.k=v] (0+5 hello) link>file again=file ");
	how.off = 3 * 4096;
	ok(appliance_write_buf(a, "/sparse", &how, "end", 3, &e), &e);
	assert_string_equal(export("/sparse", TREE_CONTENT).text, " (12288+3 end) ");
	ok(appliance_mkdir(a, "/mnt/deep/er", 0755, 0, 0, TREE_RECURSIVE, &e), &e);
	assert_string_equal(export("/", TREE_RECURSIVE).text,
			    "/ sub/ mnt/ sparse mnt/deep/ mnt/deep/er/ sub/file sub/link>file "
			    "sub/again=sub/file ");
	assert_string_equal(export("/", TREE_RECURSIVE | TREE_DIRS_LATE).text,
			    "/ sparse mnt/ mnt/deep/ mnt/deep/er/ sub/ sub/file sub/link>file "
			    "sub/again=sub/file ");
	assert_string_equal(export("/", TREE_RECURSIVE | TREE_ONE_FS).text,
			    "/ sub/ mnt/ sparse sub/file sub/link>file sub/again=sub/file ");
	assert_string_equal(export("/", TREE_CHILDREN).text, "/ sub/ mnt/ sparse ");
	assert_string_equal(export("/sub", TREE_CHILDREN | TREE_SEPARATE | TREE_XATTRS).text,
			    "/ file [user.k=v] link>file again [user.k=v] ");
}

static int produce_tree(void *arg, struct appliance_stream *s, struct err *err)
{
	struct agent_stat dir = {.mode = S_IFDIR | 0750, .uid = 42, .mtime = {1000, 1}},
			  file = {.mode = S_IFREG | 0604,
				  .uid = 43,
				  .size = 20000,
				  .mtime = {2000, 2}},
			  link = {.mode = S_IFLNK | 0777, .mtime = {3000, 3}};
	int r = appliance_put_entry(s, "t", &dir, NULL, NULL, err);

	(void)arg;
	if (r == 0)
		r = appliance_put_xattr(s, "user.dir", "D", 1, err);
	if (r == 0)
		r = appliance_put_entry(s, "t/f", &file, NULL, NULL, err);
	if (r == 0)
		r = appliance_put_xattr(s, "user.file", "F", 1, err);
	if (r == 0)
		r = appliance_put_bytes(s, 8192, "middle", 6, err);
	if (r == 0)
		r = appliance_put_entry(s, "t/l", &link, NULL, "f", err);
	if (r == 0)
		r = appliance_put_entry(s, "t/h", &file, "t/f", NULL, err);
	if (r == 0)
		r = appliance_put_entry(s, "no/parents/here", &file, NULL, NULL, err);
	return r;
}

static void trees_are_imported(void **state)
{
	struct agent_stat st, change;

	(void)state;
	ok(appliance_import(a, "/sub", TREE_KEEP_OWNER, produce_tree, NULL, &e), &e);
	assert_string_equal(export("/sub/t", TREE_RECURSIVE | TREE_CONTENT | TREE_XATTRS).text,
			    "/ [user.dir=D] f [user.file=F] (8192+4096 ) l>f h=f ");
	st = stat_of("/sub/t");
	assert_int_equal(st.mode, S_IFDIR | 0750);
	assert_int_equal(st.mtime.sec, 1000);
	st = stat_of("/sub/t/f");
	assert_int_equal(st.size, 20000);
	assert_int_equal(st.uid, 43);
	assert_int_equal(st.nlink, 2);
	assert_int_equal(st.mtime.nsec, 2);
	assert_int_equal(stat_of("/sub/t/l").mtime.sec, 3000);
	assert_int_equal(stat_of("/sub/no/parents").mode, S_IFDIR | 0755);
	/* Again: directories are merged, files are in the way. */
	fails(appliance_import(a, "/sub", 0, produce_tree, NULL, &e), -EEXIST, &e, "/sub: t/f");
	ok(appliance_import(a, "/sub", TREE_REPLACE, produce_tree, NULL, &e), &e);
	assert_int_equal(stat_of("/sub/t/f").uid, 0);
	/* Or they get new content only. */
	change = (struct agent_stat){.mode = 0711, .uid = 7};
	ok(appliance_setattr(a, "/sub/t", SET_MODE | SET_UID, 0, &change, &e), &e);
	ok(appliance_setattr(a, "/sub/t/f", SET_MODE | SET_UID, 0, &change, &e), &e);
	ok(appliance_write_buf(a, "/sub/t/f", &plain, "gone", 4, &e), &e);
	st = stat_of("/sub/t/f");
	ok(appliance_import(a, "/sub", TREE_REPLACE | TREE_KEEP_OLD | TREE_KEEP_OWNER, produce_tree,
			    NULL, &e),
	   &e);
	assert_int_equal(stat_of("/sub/t").mode, S_IFDIR | 0711);
	assert_int_equal(stat_of("/sub/t").uid, 7);
	assert_int_equal(stat_of("/sub/t/f").mode, S_IFREG | 0711);
	assert_int_equal(stat_of("/sub/t/f").uid, 7);
	assert_int_equal(stat_of("/sub/t/f").ino, st.ino);
	assert_int_equal(stat_of("/sub/t/f").nlink, 2);
	assert_string_equal(export("/sub/t/f", TREE_CONTENT | TREE_XATTRS).text,
			    " [user.file=F] (8192+4096 ) ");
	fails(appliance_import(a, "/sub/file", 0, produce_tree, NULL, &e), -ENOTDIR, &e,
	      "/sub/file");
}

static int produce_one(void *arg, struct appliance_stream *s, struct err *err)
{
	struct agent_stat st = {.mode = S_IFREG | 0644, .size = 1};
	int r = appliance_put_entry(s, arg, &st, NULL, NULL, err);

	return r == 0 ? appliance_put_bytes(s, 0, "x", 1, err) : r;
}

static int produce_bytes_first(void *arg, struct appliance_stream *s, struct err *err)
{
	(void)arg;
	return appliance_put_bytes(s, 0, "x", 1, err);
}

/* A stream gets no further than the directory that it was given. */
static void imports_stay_below(void **state)
{
	static char bad[][8] = {"../x", "/x", "a/../x", "./x", "a//b", "a/"}, away[] = "away/x",
		    link[] = "link/x";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		fails(appliance_import(a, "/sub", 0, produce_one, bad[i], &e), -EINVAL, &e, bad[i]);
	ok(appliance_symlink(a, "/mnt", "/sub/away", 0, 0, &e), &e);
	fails(appliance_import(a, "/sub", 0, produce_one, away, &e), -ELOOP, &e, "symbolic link");
	ok(appliance_import(a, "/sub", TREE_FOLLOW, produce_one, away, &e), &e);
	holds("/mnt/x", "x");
	fails(appliance_import(a, "/sub", TREE_FOLLOW, produce_one, link, &e), -ENOTDIR, &e,
	      "link");
	fails(appliance_import(a, "/sub", 0, produce_bytes_first, NULL, &e), -EINVAL, &e,
	      "where they belong");
}

/* ---- hostile trees ---- */

static void make_hostile(struct fs *fs, uint64_t sub)
{
	uint64_t d = fake_dir(fs, sub, "d");

	fake_entry(fs, d, "self", 4, d);
	fake_entry(fs, d, "parent", 6, sub);
	fake_entry(fs, d, "a/b", 3, 2);
	fake_entry(fs, d, "..", 2, 2);
	fake_entry(fs, d, "nul\0x", 5, 2);
	fake_entry(fs, d, "", 0, 2);
	fake_entry(fs, d, "free", 4, 4000);
	fake_entry(fs, d, "beyond", 6, 99999);
	fake_entry(fs, d, "mode", 4, fake_file(fs, d, "m", ""));
}

static void hostile_trees_are_read_once(void **state)
{
	struct seen s;
	char list[200] = "";

	(void)state;
	start(make_hostile);
	s = export("/sub", TREE_RECURSIVE);
	assert_non_null(strstr(s.text, "d/self/ "));
	assert_non_null(strstr(s.text, "!d/self:117:the directory has several names"));
	assert_non_null(strstr(s.text, "!d:117:the directory holds a name that no path can have"));
	assert_non_null(strstr(s.text, "!d/free:117:inode 4000 is free"));
	assert_null(strstr(s.text, "self/self"));
	ok(appliance_readdir(a, "/sub/d", names, list, &e), &e);
	assert_string_equal(list, "self/ parent/ free beyond m mode ");
	fails(appliance_remove(a, "/sub", TREE_RECURSIVE, &e), -EUCLEAN, &e,
	      "a directory lies in itself");
	fails(appliance_setattr(a, "/sub", SET_UID, TREE_RECURSIVE, &(struct agent_stat){0}, &e),
	      -EUCLEAN, &e, "name that no path can have");
	stop();
}

/* Thirty directories, each twice in the one above: 2^30 paths. */
static void make_diamonds(struct fs *fs, uint64_t sub)
{
	for (unsigned i = 0; i < 30; i++) {
		uint64_t next = fake_dir(fs, sub, "x");

		fake_entry(fs, sub, "y", 1, next);
		sub = next;
	}
}

static void shared_directories_are_entered_once(void **state)
{
	(void)state;
	start(make_diamonds);
	assert_int_equal(export("/sub", TREE_RECURSIVE).entries, 3 + 60);
	/* The second name of what is gone leads nowhere. */
	fails(appliance_remove(a, "/sub", TREE_RECURSIVE, &e), -EUCLEAN, &e, "is free");
	stop();
}

static void make_deep(struct fs *fs, uint64_t sub)
{
	for (unsigned i = 0; i < 3000; i++)
		sub = fake_dir(fs, sub, "d");
}

static void deep_trees_are_removed(void **state)
{
	struct seen s;

	(void)state;
	start(make_deep);
	s = export("/sub", TREE_RECURSIVE);
	assert_int_equal(s.entries, 3 + 2048);
	ok(appliance_remove(a, "/sub", TREE_RECURSIVE, &e), &e);
	stop();
}

static void make_long_names(struct fs *fs, uint64_t sub)
{
	char name[255], tmp[8];

	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 20; i++) {
		uint64_t d;

		snprintf(tmp, sizeof(tmp), "t%u", i);
		d = fake_dir(fs, 2, tmp);

		fake_entry(fs, sub, name, sizeof(name), d);
		sub = d;
	}
}

static void paths_that_are_too_long_are_told(void **state)
{
	struct seen s;

	(void)state;
	start(make_long_names);
	s = export("/sub", TREE_RECURSIVE);
	assert_int_equal(s.entries, 3 + 16);
	stop();
}

/* ---- cancelling ---- */

static int cancel_at_entry(void *arg, const char *path, const struct agent_stat *st,
			   const char *first, const char *target, struct err *err)
{
	struct job *job = arg;

	(void)path;
	(void)st;
	(void)first;
	(void)target;
	(void)err;
	atomic_store(&job->cancelled, true);
	return 0;
}

static int source_cancels(void *arg, void *buf, size_t size, size_t *n, struct err *err)
{
	struct job *job = arg;

	(void)err;
	atomic_store(&job->cancelled, true);
	memset(buf, 'x', size);
	*n = size;
	return 0;
}

static void make_wide(struct fs *fs, uint64_t sub)
{
	char name[250];

	memset(name, 'w', sizeof(name));
	for (unsigned i = 0; i < 4000; i++) {
		snprintf(name, 8, "%07u", i);
		name[7] = 'w';
		fake_entry(fs, sub, name, sizeof(name), 2 + !!i * (sub - 2));
	}
}

static void calls_are_cancelled(void **state)
{
	struct job job = {0};
	const struct appliance_sink sink = {.arg = &job, .entry = cancel_at_entry};
	struct agent_stat st;

	(void)state;
	start(make_wide);
	appliance_watch(a, &job);
	fails(appliance_export(a, "/sub", TREE_RECURSIVE, &sink, &e), -ECANCELED, &e, "");
	atomic_store(&job.cancelled, false);
	fails(appliance_write(a, "/new", &plain, source_cancels, &job, &e), -ECANCELED, &e,
	      "cancelled");
	atomic_store(&job.cancelled, false);
	appliance_watch(a, NULL);
	fails(appliance_stat(a, "/new", true, &st, &e), -ENOENT, &e, "/new");
	stop();
}

/* ---- errors of the driver ---- */

static unsigned fail_at;

static void make_failing(struct fs *fs, uint64_t sub)
{
	(void)sub;
	fake_fail(fs, fail_at);
}

/* Each change may fail: the call says it, and the old content is there, or the new one. */
static void failures_leave_a_whole_file(void **state)
{
	const struct appliance_write how = {.flags = WRITE_REPLACE};
	char list[200];
	int r = -EIO;

	(void)state;
	for (fail_at = 1; r < 0; fail_at++) {
		start(make_failing);
		e = (struct err){0};
		r = appliance_write_buf(a, "/sub/file", &how, "other", 5, &e);
		if (r < 0)
			assert_int_equal(r, -EIO);
		if (r < 0)
			assert_non_null(strstr(e.msg, "/sub/file"));
		holds("/sub/file", r < 0 ? "hello" : "other");
		list[0] = 0;
		ok(appliance_readdir(a, "/sub", names, list, &e), &e);
		assert_null(strstr(list, ".imgkit"));
		appliance_close(a);
		assert_true(fail_at < 10);
	}
	assert_int_equal(fail_at, 5);
}

int main(void)
{
#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH(inodes_are_described),
		WITH(callbacks_end_calls),
		WITH(files_are_read_in_parts),
		WITH(files_are_written),
		WITH(large_files_pass),
		WITH(replacing_keeps_what_a_file_is),
		WITH(unfinished_files_go_away),
		WITH(names_are_made),
		WITH(names_are_moved),
		WITH(attributes_are_set),
		WITH(trees_are_removed),
		WITH(trees_are_exported),
		WITH(trees_are_imported),
		WITH(imports_stay_below),
		cmocka_unit_test(hostile_trees_are_read_once),
		cmocka_unit_test(shared_directories_are_entered_once),
		cmocka_unit_test(deep_trees_are_removed),
		cmocka_unit_test(paths_that_are_too_long_are_told),
		cmocka_unit_test(calls_are_cancelled),
		cmocka_unit_test(failures_leave_a_whole_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
