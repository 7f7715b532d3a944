// SPDX-License-Identifier: GPL-2.0-or-later
/* The agent's tree: where paths lead through links, ".." and mounts, and where they must not. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "appliance/agent/tree.h"
#include "base/bytes.h"
#include "fakefs.h"

static struct err e;
static struct tree tree;
static struct fs *root, *other;

/*
 * /a/b/file, /a/b/deep/…; links of all kinds; another filesystem on /mnt with /mnt/in, /mnt/up.
 */
static int make_tree(void **state)
{
	uint64_t a, b, mnt;

	(void)state;
	tree.n = 0;
	root = fake_new();
	a = fake_dir(root, 2, "a");
	b = fake_dir(root, a, "b");
	mnt = fake_dir(root, 2, "mnt");
	fake_file(root, mnt, "hidden", "");
	fake_file(root, b, "file", "content");
	fake_symlink(root, 2, "abs", "/a/b");
	fake_symlink(root, a, "rel", "b/file");
	fake_symlink(root, b, "up", "../..");
	fake_symlink(root, b, "out", "../../../../../../a");
	fake_symlink(root, 2, "loop", "loop");
	fake_symlink(root, 2, "ping", "pong");
	fake_symlink(root, 2, "pong", "/ping");
	fake_symlink(root, 2, "dangling", "/a/nothing");
	fake_symlink(root, 2, "slash", "a/b/");
	fake_symlink(root, 2, "to-mnt", "/mnt/in");
	fake_entry(root, 2, "empty", 5, fake_symlink(root, a, "x", ""));
	ok(tree_mount(&tree, root, "/", &e), &e);
	other = fake_new();
	fake_file(other, 2, "in", "inside");
	fake_symlink(other, 2, "up", "../a");
	ok(tree_mount(&tree, other, "/mnt", &e), &e);
	return 0;
}

static int drop_tree(void **state)
{
	(void)state;
	return tree_unmount(&tree, &e);
}

static void paths_lead_where_they_should(void **state)
{
	static const struct {
		const char *path;
		bool follow;
		int error; /* else where it leads: */
		const char *name;
		mode_t type;
	} cases[] = {
		{"/", true, 0, "", S_IFDIR},
		{"//", true, 0, "", S_IFDIR},
		{"/.", true, 0, "", S_IFDIR},
		{"/..", true, 0, "", S_IFDIR},
		{"/a", true, 0, "a", S_IFDIR},
		{"/a/", true, 0, "a", S_IFDIR},
		{"//a//b///file", true, 0, "file", S_IFREG},
		{"/a/./b/../b/file", true, 0, "file", S_IFREG},
		{"/../../a/b/file", true, 0, "file", S_IFREG},
		{"/a/b/..", true, 0, "", S_IFDIR},
		{"/abs", false, 0, "abs", S_IFLNK},
		{"/abs", true, 0, "b", S_IFDIR},
		{"/abs/", false, 0, "b", S_IFDIR},
		{"/abs/file", false, 0, "file", S_IFREG},
		{"/abs/../rel", true, 0, "file", S_IFREG},
		{"/a/rel", true, 0, "file", S_IFREG},
		{"/a/rel", false, 0, "rel", S_IFLNK},
		{"/a/b/up/a/b/up/a", true, 0, "a", S_IFDIR},
		{"/a/b/out/b/file", true, 0, "file", S_IFREG},
		{"/slash", true, 0, "b", S_IFDIR},
		{"/slash/file", true, 0, "file", S_IFREG},
		{"/mnt", true, 0, "mnt", S_IFDIR},
		{"/mnt/in", true, 0, "in", S_IFREG},
		{"/to-mnt", true, 0, "in", S_IFREG},
		{"/mnt/../a", true, 0, "a", S_IFDIR},
		{"/mnt/up/b/file", true, 0, "file", S_IFREG},
		{"", true, EINVAL, NULL, 0},
		{"a", true, EINVAL, NULL, 0},
		{"/a/b/file/", true, ENOTDIR, NULL, 0},
		{"/a/b/file/x", true, ENOTDIR, NULL, 0},
		{"/a/b/file/..", true, ENOTDIR, NULL, 0},
		{"/a/rel/..", true, ENOTDIR, NULL, 0},
		{"/nothing/x", true, ENOENT, NULL, 0},
		{"/nothing/..", true, ENOENT, NULL, 0},
		{"/nothing", true, ENOENT, NULL, 0},
		{"/mnt/hidden", true, ENOENT, NULL, 0},
		{"/dangling", true, ENOENT, NULL, 0},
		{"/empty", true, ENOENT, NULL, 0},
		{"/loop", true, ELOOP, NULL, 0},
		{"/loop", false, 0, "loop", S_IFLNK},
		{"/loop/x", false, ELOOP, NULL, 0},
		{"/ping", true, ELOOP, NULL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct place p;
		int r;

		e = (struct err){0};
		r = tree_find(&tree, cases[i].path, cases[i].follow, &p, &e);
		if (r != -cases[i].error)
			fail_msg("%s: %d (%s)", cases[i].path, r, e.msg);
		if (r < 0) {
			assert_non_null(strstr(e.msg, cases[i].path));
			continue;
		}
		if (strcmp(p.name, cases[i].name) || (p.st.mode & S_IFMT) != cases[i].type)
			fail_msg("%s: leads to \"%s\", type %o", cases[i].path, p.name, p.st.mode);
	}
}

static void what_is_missing_has_a_place(void **state)
{
	struct place p, dir;

	(void)state;
	ok(tree_place(&tree, "/a/b/new", true, &p, &e), &e);
	assert_false(p.exists);
	assert_string_equal(p.name, "new");
	ok(tree_find(&tree, "/a/b", true, &dir, &e), &e);
	assert_true(node_is(p.dir, dir.node));
	/* Behind a link that leads nowhere: where its target would be. */
	ok(tree_place(&tree, "/dangling", true, &p, &e), &e);
	assert_string_equal(p.name, "nothing");
	ok(tree_find(&tree, "/a", true, &dir, &e), &e);
	assert_true(node_is(p.dir, dir.node));
	ok(tree_place(&tree, "/mnt/new/", true, &p, &e), &e);
	assert_int_equal(p.dir.mount, 1);
	assert_true(p.slash);
	assert_string_equal(e.msg, "");
	fails(tree_place(&tree, "/new/er", true, &p, &e), -ENOENT, &e, "/new/er");
}

static void names_and_paths_have_their_lengths(void **state)
{
	char path[AGENT_PATH_MAX + 10];
	struct place p;

	(void)state;
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[256] = 0;
	ok(tree_place(&tree, path, true, &p, &e), &e);
	assert_int_equal(p.len, 255);
	path[256] = 'x';
	path[257] = 0;
	fails(tree_place(&tree, path, true, &p, &e), -ENAMETOOLONG, &e, "xxx");
	memset(path, '/', sizeof(path));
	path[4095] = 0;
	ok(tree_place(&tree, path, true, &p, &e), &e);
	path[4095] = '/';
	path[4096] = 0;
	fails(tree_place(&tree, path, true, &p, &e), -ENAMETOOLONG, &e, "////");
}

/* Forty links are followed, the next one is not; nor do targets add up without end. */
static void links_are_counted(void **state)
{
	char name[32], target[4000];
	struct place p;

	(void)state;
	for (unsigned i = 1; i <= 41; i++) {
		snprintf(name, sizeof(name), "l%u", i);
		snprintf(target, sizeof(target), i == 1 ? "/a" : "/l%u", i - 1);
		fake_symlink(root, 2, name, target);
	}
	ok(tree_find(&tree, "/l40", true, &p, &e), &e);
	assert_string_equal(p.name, "a");
	fails(tree_find(&tree, "/l41", true, &p, &e), -ELOOP, &e, "40 symbolic links");

	for (unsigned i = 0; i < 3000; i++)
		target[i] = i % 2 ? '/' : 'g';
	target[3000] = 0;
	fake_symlink(root, 2, "g", target);
	fails(tree_find(&tree, "/g", true, &p, &e), -ENAMETOOLONG, &e, "/g");
}

/* A directory that is in itself: paths end, because they are finite. */
static void directories_may_be_loops(void **state)
{
	char path[AGENT_PATH_MAX] = "";
	struct place p, a;

	(void)state;
	ok(tree_find(&tree, "/a", true, &a, &e), &e);
	fake_entry(root, a.node.ino, "me", 2, a.node.ino);
	strcat(path, "/a");
	for (unsigned i = 0; i < 1300; i++)
		strcat(path, "/me");
	ok(tree_find(&tree, path, true, &p, &e), &e);
	assert_true(node_is(p.node, a.node));
	/* Through links the way can be longer than a path. */
	fake_symlink(root, a.node.ino, "far", path + 3);
	fails(tree_find(&tree, "/a/far/far/far/far", true, &p, &e), -ENAMETOOLONG, &e, "far");
}

static void mounts_cover_directories(void **state)
{
	struct fs *third = fake_new();

	(void)state;
	fails(tree_mount(&tree, third, "/mnt", &e), -EBUSY, &e, "mounted there");
	fails(tree_mount(&tree, third, "/", &e), -EBUSY, &e, "mounted there");
	fails(tree_mount(&tree, third, "/a/b/file", &e), -ENOTDIR, &e, "/a/b/file");
	fails(tree_mount(&tree, third, "/nothing", &e), -ENOENT, &e, "/nothing");
	fake_dir(other, 2, "sub");
	ok(tree_mount(&tree, third, "/mnt/sub", &e), &e);
	assert_int_equal(tree.n, 3);
}

static void too_many_mounts_are_refused(void **state)
{
	char name[16];
	struct fs *fs;

	(void)state;
	while (tree.n < TREE_MOUNTS_MAX) {
		snprintf(name, sizeof(name), "/m%u", tree.n);
		fake_dir(root, 2, name + 1);
		ok(tree_mount(&tree, fake_new(), name, &e), &e);
	}
	fs = fake_new();
	fails(tree_mount(&tree, fs, "/a", &e), -ENOSPC, &e, "32 filesystems");
	fs->driver->unmount(fs, NULL);
}

static void nothing_is_found_before_a_mount(void **state)
{
	static struct tree empty;
	struct fs *fs = fake_new();
	struct place p;

	(void)state;
	fails(tree_find(&empty, "/", true, &p, &e), -ENXIO, &e, "mounted");
	fails(tree_mount(&empty, fs, "/a", &e), -EINVAL, &e, "must be /");
	fs->driver->unmount(fs, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(paths_lead_where_they_should, make_tree, drop_tree),
		cmocka_unit_test_setup_teardown(what_is_missing_has_a_place, make_tree, drop_tree),
		cmocka_unit_test_setup_teardown(names_and_paths_have_their_lengths, make_tree,
						drop_tree),
		cmocka_unit_test_setup_teardown(links_are_counted, make_tree, drop_tree),
		cmocka_unit_test_setup_teardown(directories_may_be_loops, make_tree, drop_tree),
		cmocka_unit_test_setup_teardown(mounts_cover_directories, make_tree, drop_tree),
		cmocka_unit_test_setup_teardown(too_many_mounts_are_refused, make_tree, drop_tree),
		cmocka_unit_test(nothing_is_found_before_a_mount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
