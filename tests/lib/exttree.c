// SPDX-License-Identifier: GPL-2.0-or-later
/* A directory and its image: see exttree.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bytes.h"
#include "exttree.h"
#include "tell.h"

static bool with_xattrs;

static void compare_bytes(struct fs *fs, uint64_t ino, const char *path, uint64_t size)
{
	struct err e = {0};
	static const size_t steps[] = {1 << 20, 4096, 777, 70001, 200000};
	unsigned char *want = malloc(1 << 20), *have = malloc(1 << 20);
	int fd = open(path, O_RDONLY);
	uint64_t off = 0;
	size_t got;

	expect(fd >= 0);
	for (unsigned i = 0; off < size; i++) {
		size_t n = (size_t)min_u64(steps[i % ARRAY_LEN(steps)], size - off);

		expect((uint64_t)(pread(fd, want, n, (off_t)off)) == (uint64_t)(n));
		must(ext_driver.read(fs, ino, have, n, off, &got, &e), &e);
		expect((uint64_t)(got) == (uint64_t)(n));
		if (memcmp(want, have, n) != 0)
			die("%s differs in %zu bytes at %llu", path, n, (unsigned long long)off);
		off += n;
	}
	must(ext_driver.read(fs, ino, have, 1, size, &got, &e), &e);
	expect((uint64_t)(got) == (uint64_t)(0));
	/* All that is not zero is data, and the answers go forward. */
	for (off = 0; off < size;) {
		uint64_t start, end;

		must(ext_driver.next_data(fs, ino, off, &start, &end, &e), &e);
		expect(start >= off && end > off && end <= size);
		while (off < start) {
			size_t n = (size_t)min_u64(1 << 20, start - off);

			expect((uint64_t)(pread(fd, want, n, (off_t)off)) == (uint64_t)(n));
			expect(bytes_are_zero(want, n));
			off += n;
		}
		off = end;
	}
	close(fd);
	free(want);
	free(have);
}

static void compare_xattrs(struct fs *fs, uint64_t ino, const char *path)
{
	struct err e = {0};
	char names[1024], value[4096], want[4096];
	size_t len, n_names = 0;
	ssize_t n = llistxattr(path, names, sizeof(names));

	for (char *p = names; p < names + (n < 0 ? 0 : n); p += strlen(p) + 1) {
		ssize_t size = lgetxattr(path, p, want, sizeof(want));

		if (strncmp(p, "user.", 5) != 0)
			continue;
		n_names++;
		must(ext_driver.xattr_get(fs, ino, p, value, sizeof(value), &len, &e), &e);
		expect((uint64_t)(len) == (uint64_t)(size));
		expect(memcmp(value, want, len) == 0);
	}
	must(ext_driver.xattr_list(fs, ino, names, sizeof(names), &len, &e), &e);
	for (char *p = names; p < names + len; p += strlen(p) + 1)
		n_names--;
	expect((uint64_t)(n_names) == (uint64_t)(0));
}

struct tree {
	struct fs *fs;
	const char *path;
	unsigned n;
};

static void compare_node(struct fs *fs, uint64_t ino, const char *path);

static int compare_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
			 struct err *err)
{
	struct tree *t = arg;
	char path[PATH_MAX];
	struct stat st;

	(void)err;
	expect((uint64_t)(strlen(name)) == (uint64_t)(len));
	if (strcmp(name, "lost+found") == 0)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", t->path, name);
	if (lstat(path, &st) < 0)
		die("%s is not in the tree", path);
	if (type != DT_UNKNOWN)
		expect((uint64_t)(type) == (uint64_t)(IFTODT(st.st_mode)));
	t->n++;
	compare_node(t->fs, ino, path);
	return 0;
}

static void compare_dir(struct fs *fs, uint64_t ino, const char *path)
{
	struct err e = {0};
	struct tree t = {fs, path, 0};
	DIR *d = opendir(path);
	struct dirent *entry;
	uint64_t found;
	unsigned n = 0;

	must(ext_driver.readdir(fs, ino, compare_entry, &t, &e), &e);
	while ((entry = readdir(d))) {
		must(ext_driver.lookup(fs, ino, entry->d_name, strlen(entry->d_name), &found, &e),
		     &e);
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	}
	closedir(d);
	expect((uint64_t)(n) == (uint64_t)(t.n));
	expect(ext_driver.lookup(fs, ino, "nothing", 7, &found, &e) == -ENOENT);
}

static void compare_node(struct fs *fs, uint64_t ino, const char *path)
{
	char target[PATH_MAX], want[PATH_MAX];
	struct agent_stat st;
	struct err e = {0};
	struct stat host;

	expect((uint64_t)(lstat(path, &host)) == (uint64_t)(0));
	must(ext_driver.stat(fs, ino, &st, &e), &e);
	expect((uint64_t)(st.mode) == (uint64_t)(host.st_mode));
	expect((uint64_t)(st.uid) == (uint64_t)(host.st_uid));
	expect((uint64_t)(st.gid) == (uint64_t)(host.st_gid));
	if (S_ISDIR(st.mode)) {
		compare_dir(fs, ino, path);
		return;
	}
	expect((uint64_t)(st.size) == (uint64_t)(host.st_size));
	expect((uint64_t)(st.nlink) == (uint64_t)(host.st_nlink));
	if (S_ISLNK(st.mode)) {
		ssize_t n = readlink(path, want, sizeof(want) - 1);

		want[n] = '\0';
		must(ext_driver.readlink(fs, ino, target, sizeof(target), &e), &e);
		expect(strcmp(target, want) == 0);
	}
	if (S_ISREG(st.mode))
		compare_bytes(fs, ino, path, st.size);
	if (with_xattrs)
		compare_xattrs(fs, ino, path);
}

void exttree_compare(struct fs *fs, const char *path, bool xattrs)
{
	with_xattrs = xattrs;
	compare_node(fs, fs->root, path);
}
