// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The whole agent on ext4, changing it: a tree goes from one filesystem to another as a stream and is
 * the same there; what is written, replaced and removed leaves filesystems in which e2fsck finds
 * nothing.
 *
 * link: -lext2fs -lcom_err
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "appliance/appliance.h"
#include "attached.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "rng.h"
#include "tell.h"

static struct err e;

static struct appliance *open_disk(const char *disk, bool writable)
{
	const char *const disks[] = {disk, NULL};
	struct appliance *a = attach_native(disks, writable);

	must(appliance_mount(a, 0, 0, "/", writable ? 0 : MOUNT_RDONLY, NULL, &e), &e);
	return a;
}

static void close_disk(struct appliance *a)
{
	must(appliance_finish(a, &e), &e);
	appliance_close(a);
}

static int make_disks(void **state)
{
	(void)state;
	sh("mkdir -p tree/a/b/c tree/many tree/empty; cd tree; echo hello > a/file; ln a/file "
	   "a/b/again; "
	   "ln -s a/file link; ln -s $(printf 'x%%.0s' $(seq 300)) a/long; : > none; "
	   "for i in $(seq 500); do echo $i > many/$i; done; ln a/file many/third; "
	   "head -c 3000000 /dev/urandom > big; truncate -s 50M sparse; "
	   "printf end | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none; "
	   "touch \"$(printf 'n%%.0s' $(seq 255))\" $(printf '\\377\\376'); chmod 4711 a/file; "
	   "mkfifo a/pipe; touch -d '2001-02-03 04:05:06.789' a/b/c a/file; chmod 1777 empty");
	sh("truncate -s 128M from.img && mke2fs -q -t ext4 -d tree from.img && rm -r tree");
	sh("debugfs -w -R 'ea_set /a/file user.key value' from.img 2>/dev/null");
	sh("debugfs -w -R 'ea_set /a/b user.dir D' from.img 2>/dev/null");
	return 0;
}

static void blank(const char *path)
{
	sh("rm -f %s; truncate -s 128M %s && mke2fs -q -t ext4 %s", path, path, path);
}

/* ---- a tree as text, to be compared: each entry is a line, and lines are sorted ---- */

struct told {
	char *text;
	size_t len, size;
	FILE *f;
};

static int tell_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		      const char *target, struct err *err)
{
	struct told *t = arg;

	(void)err;
	if (!strncmp(path, "lost+found", 10))
		return 0;
	/* Which of its names is the first one, the order of the directory says. */
	fprintf(t->f, "\n%s %o %u:%u %u,%u n%u %s", path, st->mode, st->uid, st->gid,
		st->rdev_major, st->rdev_minor, S_ISDIR(st->mode) ? 0 : st->nlink,
		first ? "" : target);
	if (!S_ISDIR(st->mode))
		fprintf(t->f, " %llu", (unsigned long long)st->size);
	if (*path)
		fprintf(t->f, " %lld.%09u", (long long)st->mtime.sec, st->mtime.nsec);
	return 0;
}

static int tell_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct told *t = arg;

	(void)err;
	fprintf(t->f, " [%s=%.*s]", name, (int)n, (const char *)value);
	return 0;
}

static int tell_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	(void)arg;
	(void)err;
	die("%s: %d %s", path, code, text);
}

/* The name of a file in which the sorted text is. */
static void tell(struct appliance *a, const char *path, const char *file)
{
	struct told t = {.f = fopen("told", "w")};
	const struct appliance_sink sink = {
		.arg = &t, .entry = tell_entry, .xattr = tell_xattr, .failed = tell_failed};

	must(appliance_export(a, path, TREE_RECURSIVE | TREE_XATTRS, &sink, &e), &e);
	fclose(t.f);
	sh("LC_ALL=C sort told | sed 's/ *\\[.*\\]//' > %s", file);
	/* Attributes stand at the first name of an inode, whichever that is. */
	sh("grep -o '\\[.*\\]' told | LC_ALL=C sort >> %s || :", file);
}

/* ---- from one to the other ---- */

static int pass_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		      const char *target, struct err *err)
{
	return appliance_put_entry(arg, path, st, first, target, err);
}

static int pass_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	return appliance_put_xattr(arg, name, value, n, err);
}

static int pass_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	return appliance_put_bytes(arg, off, bytes, n, err);
}

static int pass_all(void *arg, struct appliance_stream *s, struct err *err)
{
	const struct appliance_sink sink = {.arg = s,
					    .entry = pass_entry,
					    .xattr = pass_xattr,
					    .bytes = pass_bytes,
					    .failed = tell_failed};

	return appliance_export(arg, "/", TREE_RECURSIVE | TREE_CONTENT | TREE_XATTRS, &sink, err);
}

static uint64_t content_of(struct appliance *a, const char *path)
{
	uint64_t hash = 0;
	char *buf;
	size_t n;

	must(appliance_read_file(a, path, 64 << 20, &buf, &n, &e), &e);
	for (size_t i = 0; i < n; i++)
		hash = rng_mix(hash + (unsigned char)buf[i] + 1);
	free(buf);
	return hash;
}

static void trees_are_the_same_elsewhere(void **state)
{
	static const char *const files[] = {"/big", "/sparse", "/a/file", "/many/77"};
	struct appliance *from = open_disk("from.img", false), *to;
	struct agent_stat st;

	(void)state;
	blank("to.img");
	to = open_disk("to.img", true);
	ok(appliance_import(to, "/", TREE_KEEP_OWNER, pass_all, from, &e), &e);
	close_disk(to);
	extdisk_clean("to.img");

	to = open_disk("to.img", false);
	tell(from, "/", "from.txt");
	tell(to, "/", "to.txt");
	sh("cmp from.txt to.txt || { diff from.txt to.txt | head -20; exit 1; }");
	sh("test $(grep -c mode from.txt) = 0 && test $(wc -l < from.txt) -gt 510");
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		assert_true(content_of(from, files[i]) == content_of(to, files[i]));
	ok(appliance_stat(to, "/sparse", false, &st, &e), &e);
	assert_in_range(st.allocated, 1, 100000);
	close_disk(to);
	close_disk(from);
}

static void removed_trees_leave_nothing(void **state)
{
	struct appliance *a;
	struct appliance_space before, after;

	(void)state;
	blank("gone.img");
	a = open_disk("gone.img", true);
	ok(appliance_statfs(a, "/", &before, &e), &e);
	close_disk(a);
	sh("cp --sparse=always from.img gone.img");
	a = open_disk("gone.img", true);
	ok(appliance_remove(a, "/many", TREE_RECURSIVE, &e), &e);
	ok(appliance_remove(a, "/a", TREE_RECURSIVE, &e), &e);
	ok(appliance_remove(a, "/big", 0, &e), &e);
	ok(appliance_remove(a, "/sparse", 0, &e), &e);
	fails(appliance_remove(a, "/a/b", 0, &e), -ENOENT, &e, "/a/b");
	ok(appliance_sync(a, &e), &e);
	ok(appliance_statfs(a, "/", &after, &e), &e);
	close_disk(a);
	extdisk_clean("gone.img");
	assert_in_range(after.free, before.free - 10, before.free);
}

static void changes_are_sound(void **state)
{
	const struct appliance_write create = {.flags = WRITE_CREATE, .mode = 0600},
				     replace = {.flags = WRITE_REPLACE};
	struct agent_stat st = {.mode = 0750, .uid = 70000, .mtime = {1, 2}};
	char path[64], value[AGENT_XATTR_MAX];
	struct appliance *a;
	size_t n;

	(void)state;
	sh("cp --sparse=always from.img edit.img");
	a = open_disk("edit.img", true);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "/new/%u/%u", i % 7, i);
		if (i < 7)
			ok(appliance_mkdir(a, path, 0755, 1, 2, TREE_RECURSIVE, &e), &e);
		else
			ok(appliance_write_buf(a, path, &create, path, sizeof(path), &e), &e);
	}
	ok(appliance_write_buf(a, "/link", &replace, "new\n", 4, &e), &e);
	ok(appliance_xattr_get(a, "/a/file", "user.key", value, &n, &e), &e);
	assert_int_equal(n, 5);
	ok(appliance_rename(a, "/new/3", "/a/b/moved", &e), &e);
	ok(appliance_rename(a, "/many/5", "/many/6", &e), &e);
	fails(appliance_rename(a, "/a", "/a/b/c/x", &e), -EINVAL, &e, "/a/b/c/x");
	ok(appliance_link(a, "/big", "/new/big", &e), &e);
	ok(appliance_symlink(a, "target", "/new/sym", 3, 4, &e), &e);
	ok(appliance_setattr(a, "/new", SET_MODE | SET_UID | SET_MTIME, TREE_RECURSIVE, &st, &e),
	   &e);
	st.size = 100;
	ok(appliance_setattr(a, "/big", SET_SIZE, 0, &st, &e), &e);
	ok(appliance_xattr_set(a, "/new/4/11", "user.a", value, 600, &e), &e);
	ok(appliance_xattr_remove(a, "/a/b", "user.dir", &e), &e);
	st = (struct agent_stat){.mode = S_IFBLK | 0660, .rdev_major = 8, .rdev_minor = 300};
	ok(appliance_mknod(a, "/new/sda", &st, &e), &e);
	close_disk(a);
	extdisk_clean("edit.img");

	a = open_disk("edit.img", false);
	ok(appliance_stat(a, "/new/sda", false, &st, &e), &e);
	assert_int_equal(st.rdev_minor, 300);
	ok(appliance_stat(a, "/new/4/11", false, &st, &e), &e);
	assert_int_equal(st.mode, S_IFREG | 0750);
	assert_int_equal(st.uid, 70000);
	assert_int_equal(st.mtime.nsec, 2);
	ok(appliance_stat(a, "/a/file", false, &st, &e), &e);
	assert_int_equal(st.size, 4);
	assert_int_equal(st.mode, S_IFREG | 04711);
	ok(appliance_stat(a, "/a/b/again", false, &st, &e), &e);
	assert_int_equal(st.size, 6);
	assert_int_equal(st.nlink, 2);
	fails(appliance_mkdir(a, "/x", 0755, 0, 0, 0, &e), -EROFS, &e, "read-only");
	close_disk(a);
}

/* A full filesystem: an error, and what was begun is not there. */
static void full_disks_are_told(void **state)
{
	const struct appliance_write create = {.flags = WRITE_CREATE, .mode = 0600};
	static const char data[20 << 20];
	struct appliance *a;
	struct agent_stat st;

	(void)state;
	sh("rm -f small.img; truncate -s 16M small.img; mke2fs -q -t ext4 small.img");
	a = open_disk("small.img", true);
	fails(appliance_write_buf(a, "/file", &create, data, sizeof(data), &e), -ENOSPC, &e,
	      "/file");
	fails(appliance_stat(a, "/file", false, &st, &e), -ENOENT, &e, "/file");
	ok(appliance_write_buf(a, "/file", &create, data, 1 << 20, &e), &e);
	close_disk(a);
	extdisk_clean("small.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trees_are_the_same_elsewhere),
		cmocka_unit_test(removed_trees_leave_nothing),
		cmocka_unit_test(changes_are_sound),
		cmocka_unit_test(full_disks_are_told),
	};

	return cmocka_run_group_tests(tests, make_disks, NULL);
}
