// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random operations on files and directories, done by the agent's ext driver in an image and by the
 * kernel in a directory: the results and errors agree, then the trees do, and e2fsck finds nothing.
 *
 * link: -lext2fs -lcom_err
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "exttree.h"
#include "rng.h"
#include "tell.h"

enum { DIRS = 6, NAMES = 14, BYTES = 300000 };

static struct fs *fs;
static struct rng rng;
static unsigned char data[BYTES];
static bool have_xattrs;

/* A path in the tree, of few: so that they meet. */
static void pick_path(char path[64])
{
	unsigned dir = (unsigned)rng_below(&rng, DIRS), name = (unsigned)rng_below(&rng, NAMES);

	if (dir == 0)
		snprintf(path, 64, "name %u", name);
	else if (dir < 4)
		snprintf(path, 64, "dir%u/a somewhat longer name %u", dir, name);
	else
		snprintf(path, 64, "dir1/dir%u/%u", dir, name);
}

static const char *on_host(const char *path)
{
	static char buf[2][128];
	static unsigned i;

	i ^= 1;
	snprintf(buf[i], sizeof(buf[i]), "tree/%s", path);
	return buf[i];
}

static uint64_t dir_of(const char *path, const char **name, size_t *len)
{
	uint64_t dir = extdisk_parent(fs, path, name);

	*len = strlen(*name);
	return dir;
}

/* Both must say the same. */
static void agree(const char *what, const char *path, int host, int driver, const struct err *err)
{
	host = host < 0 ? -errno : 0;
	if (host != driver)
		die("%s %s: the kernel says %d, the driver %d (%s)", what, path, host, driver,
		    err->msg);
}

static void do_create(const char *path)
{
	static const uint32_t modes[] = {S_IFREG | 0644,  S_IFREG | 04755, S_IFDIR | 0750,
					 S_IFDIR | 01777, S_IFIFO | 0600,  S_IFLNK | 0777};
	uint32_t mode = modes[rng_below(&rng, ARRAY_LEN(modes))];
	struct fs_new what = {.mode = mode};
	char target[200];
	struct err err = {0};
	const char *name;
	uint64_t dir, ino;
	size_t len;
	int host;

	if (S_ISLNK(mode)) {
		size_t n = 1 + rng_below(&rng, 150);

		memset(target, 't', n);
		target[n] = '\0';
		what.target = target;
		host = symlink(target, on_host(path));
	} else if (S_ISDIR(mode)) {
		host = mkdir(on_host(path), mode & 07777);
		if (host == 0)
			chmod(on_host(path), mode & 07777);
	} else {
		host = mknod(on_host(path), mode, 0);
		if (host == 0)
			chmod(on_host(path), mode & 07777);
	}
	dir = dir_of(path, &name, &len);
	agree("create", path, host, ext_driver.create(fs, dir, name, len, &what, &ino, &err), &err);
}

static void do_write(const char *path)
{
	static const uint64_t places[] = {0, 0, 1, 4096, 100000, 1 << 20, 40 << 20};
	uint64_t off = places[rng_below(&rng, ARRAY_LEN(places))] + rng_below(&rng, 5000);
	size_t len = rng_below(&rng, rng_below(&rng, 4) ? 9000 : BYTES);
	uint64_t ino = extdisk_path(fs, path);
	struct err err = {0};
	struct stat st;
	int fd;

	if (!ino || lstat(on_host(path), &st) < 0 || !S_ISREG(st.st_mode))
		return;
	fd = open(on_host(path), O_WRONLY);
	agree("write", path, pwrite(fd, data, len, (off_t)off) < 0 ? -1 : 0,
	      ext_driver.write(fs, ino, data, len, off, &err), &err);
	close(fd);
	/* The kernel took away what lets a file run as another. */
	chmod(on_host(path), st.st_mode & 07777);
}

static void do_size(const char *path)
{
	struct fs_attr attr = {.mask = SET_SIZE, .size = rng_below(&rng, 200000)};
	uint64_t ino = extdisk_path(fs, path);
	struct err err = {0};
	struct stat st;

	if (!ino || lstat(on_host(path), &st) < 0 || !S_ISREG(st.st_mode))
		return;
	agree("truncate", path, truncate(on_host(path), (off_t)attr.size),
	      ext_driver.setattr(fs, ino, &attr, &err), &err);
	chmod(on_host(path), st.st_mode & 07777);
}

static void do_attr(const char *path)
{
	struct fs_attr attr = {
		.mask = SET_MODE | SET_UID | SET_GID, .mode = 0640, .uid = 0, .gid = 0};
	uint64_t ino = extdisk_path(fs, path);
	struct err err = {0};
	struct stat st;
	char value[200];

	if (!ino || lstat(on_host(path), &st) < 0 || S_ISLNK(st.st_mode))
		return;
	attr.mode = S_ISDIR(st.st_mode) ? 0755 : 0600 + (unsigned)rng_below(&rng, 0177);
	attr.uid = st.st_uid;
	attr.gid = st.st_gid;
	agree("chmod", path, chmod(on_host(path), attr.mode),
	      ext_driver.setattr(fs, ino, &attr, &err), &err);
	if (!have_xattrs || S_ISFIFO(st.st_mode))
		return;
	memset(value, 'v', sizeof(value));
	if (rng_below(&rng, 3)) {
		char name[32];
		size_t len = rng_below(&rng, sizeof(value));

		snprintf(name, sizeof(name), "user.name%u", (unsigned)rng_below(&rng, 3));
		agree("setxattr", path, setxattr(on_host(path), name, value, len, 0),
		      ext_driver.xattr_set(fs, ino, name, value, len, &err), &err);
	} else {
		agree("removexattr", path, removexattr(on_host(path), "user.name1"),
		      ext_driver.xattr_remove(fs, ino, "user.name1", &err), &err);
	}
}

static void do_unlink(const char *path)
{
	struct err err = {0};
	const char *name;
	uint64_t dir;
	size_t len;
	int host = remove(on_host(path)), saved = errno;

	dir = dir_of(path, &name, &len);
	errno = saved;
	agree("remove", path, host, ext_driver.unlink(fs, dir, name, len, &err), &err);
}

static void do_link(const char *path)
{
	char other[64];
	struct err err = {0};
	struct stat st;
	const char *name;
	uint64_t dir, ino = extdisk_path(fs, path);
	size_t len;
	int host;

	pick_path(other);
	if (!ino || lstat(on_host(path), &st) < 0 || S_ISDIR(st.st_mode))
		return;
	host = link(on_host(path), on_host(other));
	dir = dir_of(other, &name, &len);
	agree("link", other, host, ext_driver.link(fs, dir, name, len, ino, &err), &err);
}

static void do_rename(const char *path)
{
	char other[64];
	struct err err = {0};
	const char *name, *new_name;
	uint64_t from, to;
	size_t len, new_len;
	int host, saved;

	pick_path(other);
	host = rename(on_host(path), on_host(other));
	saved = errno;
	/* What the driver's caller has judged. */
	if (host < 0 && (saved == EINVAL || saved == EISDIR || saved == ENOTDIR ||
			 saved == ENOTEMPTY || saved == EEXIST))
		return;
	from = dir_of(path, &name, &len);
	to = dir_of(other, &new_name, &new_len);
	errno = saved;
	agree("rename", path, host,
	      ext_driver.rename(fs, from, name, len, to, new_name, new_len, &err), &err);
}

static void one_step(void)
{
	static void (*const steps[])(const char *) = {do_create, do_create, do_write, do_write,
						      do_write,  do_size,   do_attr,  do_unlink,
						      do_link,   do_rename};
	char path[64];

	pick_path(path);
	steps[rng_below(&rng, ARRAY_LEN(steps))](path);
}

static void run(const char *options, uint64_t seed, unsigned steps)
{
	static const char *const dirs[] = {"dir1", "dir2", "dir3", "dir1/dir4", "dir1/dir5"};

	context("mke2fs %s, seed %llu", options, (unsigned long long)seed);
	rng = (struct rng){seed};
	sh("rm -rf tree disk; mkdir tree; chmod 755 tree; truncate -s 64M disk; "
	   "mke2fs -q -F %s disk 2>/dev/null",
	   options);
	fs = extdisk_mount("disk", false);
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		extdisk_make(fs, dirs[i], S_IFDIR | 0755, NULL);
		mkdir(on_host(dirs[i]), 0755);
	}
	for (unsigned i = 0; i < steps; i++) {
		one_step();
		if (i == steps / 2) {
			exttree_compare(fs, "tree", have_xattrs);
			extdisk_unmount(fs);
			extdisk_clean("disk");
			fs = extdisk_mount("disk", false);
		}
	}
	exttree_compare(fs, "tree", have_xattrs);
	extdisk_unmount(fs);
	extdisk_clean("disk");
	fs = extdisk_mount("disk", true);
	exttree_compare(fs, "tree", have_xattrs);
	extdisk_unmount(fs);
}

int main(void)
{
	static const char *const kinds[] = {
		"-t ext4",
		"-t ext4 -b 1024 -I 128",
		"-t ext2 -b 1024",
		"-t ext3 -O ^dir_index",
		"-t ext4 -O inline_data -I 512",
		"-t ext4 -b 1024 -O bigalloc -C 16384",
		"-t ext4 -b 2048 -O casefold,ea_inode,large_dir,verity,project,orphan_file,mmp,"
		"metadata_csum_seed,sparse_super2 -E encoding=utf8",
		"-t ext4 -O ^metadata_csum,^64bit,uninit_bg",
	};
	struct seeds seeds;

	umask(0);
	seeds_init(&seeds, 1, 1);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 31 + i / 251);
	sh("mkdir probe");
	have_xattrs = setxattr("probe", "user.test", "x", 1, 0) == 0;
	while (seeds_next(&seeds))
		for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
			run(kinds[i], seeds.seed + i, 600);
	return 0;
}
