// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's ext driver, reading: a tree that mke2fs put on filesystems of many kinds is compared,
 * name for name and byte for byte, with the directory that it was made from.
 *
 * link: -lext2fs -lcom_err
 */
#include "unit.h"

#include <ext2fs/ext2fs.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "exttree.h"
#include "tell.h"

static bool have_xattrs;

static void pattern_file(const char *path, uint64_t off, size_t len, unsigned seed)
{
	unsigned char *data = malloc(len);
	int fd = open(path, O_WRONLY | O_CREAT, 0640);

	for (size_t i = 0; i < len; i++)
		data[i] = (unsigned char)(seed + i * 7 + i / 509);
	if (fd < 0 || pwrite(fd, data, len, (off_t)off) != (ssize_t)len)
		die("%s", path);
	close(fd);
	free(data);
}

/* The tree that all images get. */
static int make_tree(void **state)
{
	const struct timespec times[2] = {{1000000000, 123456789}, {5000000000, 987654321}};
	char name[300];

	(void)state;
	sh("mkdir -p tree/a/b/c/d/e/f/g tree/many tree/empty");
	pattern_file("tree/tiny", 0, 7, 1);
	pattern_file("tree/small", 0, 3000, 2);
	pattern_file("tree/a/odd", 0, 100001, 3);
	pattern_file("tree/a/b/big", 0, 5 << 20, 4);
	pattern_file("tree/sparse", 3 << 20, 70000, 5);
	pattern_file("tree/sparse", 100, 5000, 6);
	/* Not with a hole at its end: mke2fs would cut that off. */
	pattern_file("tree/sparse", (20 << 20) - 1, 1, 9);
	sh(": > tree/none");
	memset(name, 'n', sizeof(name));
	memcpy(name, "tree/", 5);
	name[5 + 255] = '\0';
	pattern_file(name, 0, 10, 7);
	pattern_file("tree/\xff\xfe not utf-8 \n", 0, 10, 8);
	sh("ln tree/small tree/a/hard; ln -s small tree/link; mkfifo tree/fifo");
	memset(name, 't', 200);
	name[200] = '\0';
	sh("ln -s %s tree/long-link", name);
	for (unsigned i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "tree/many/a name that takes some room %u", i);
		pattern_file(name, 0, i % 30, i);
	}
	if (utimensat(AT_FDCWD, "tree/small", times, 0) < 0)
		die("utimensat");
	have_xattrs = setxattr("tree/small", "user.short", "value", 5, 0) == 0;
	if (have_xattrs) {
		memset(name, 'x', sizeof(name));
		setxattr("tree/small", "user.long", name, sizeof(name), 0);
		setxattr("tree/a", "user.dir", "", 0, 0);
	}
	return 0;
}

static struct err e;

static void compare_image(const char *options)
{
	const bool indexed = !strstr(options, "65536");
	struct fs *fs;

	sh("rm -f disk; truncate -s 96M disk; mke2fs -q -F %s -d tree disk 2>/dev/null", options);
	/* mke2fs writes directories without an index; e2fsck makes one when it optimises. */
	assert_int_equal(shell("e2fsck -fyD disk >/dev/null 2>&1") & ~1, 0);
	assert_int_equal(shell("debugfs -R 'htree_dump /many' disk 2>&1 | grep -q 'Root node'"),
			 indexed ? 0 : 1);
	fs = extdisk_mount("disk", true);
	exttree_compare(fs, "tree", have_xattrs);
	extdisk_unmount(fs);
}

static void trees(void **state)
{
	static const char *const kinds[] = {
		"-t ext4",
		"-t ext4 -b 1024",
		"-t ext2 -b 1024",
		"-t ext3",
		"-t ext4 -O inline_data -I 512",
		"-t ext4 -O bigalloc -C 32768",
		"-t ext4 -O ^metadata_csum,^64bit,uninit_bg",
		"-t ext4 -O casefold,ea_inode,large_dir,verity,project,quota,orphan_file,mmp,"
		"metadata_csum_seed,sparse_super2,fast_commit -E encoding=utf8",
		"-t ext4 -O meta_bg,^resize_inode -b 2048 -I 1024",
		"-t ext4 -b 65536 -O ^has_journal",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		context("%s", kinds[i]);
		compare_image(kinds[i]);
	}
}

/* ---- what is refused ---- */

/* Sets a field of the superblock, and its checksum. */
static void change_super(const char *path, unsigned at, unsigned bytes, uint32_t value)
{
	unsigned char sb[1024];
	int fd = open(path, O_RDWR);
	uint32_t crc;

	assert_int_equal(pread(fd, sb, sizeof(sb), 1024), sizeof(sb));
	memcpy(sb + at, &value, bytes);
	crc = ext2fs_crc32c_le(~0U, sb, 1020);
	memcpy(sb + 1020, &crc, sizeof(crc));
	assert_int_equal(pwrite(fd, sb, sizeof(sb), 1024), sizeof(sb));
	close(fd);
}

static void refused(void **state)
{
	static const struct {
		unsigned at, bytes; /* in the superblock */
		uint32_t value;
		const char *text;
		bool rdonly;
		int code;
	} cases[] = {
		{0x60, 4, 0x12c2, "dirdata", true, -EOPNOTSUPP},
		{0x60, 4, 0x802002c2, "incompat bit 31", true, -EOPNOTSUPP},
		{0x60, 4, 0x2ca, "external journal", true, -EOPNOTSUPP},
		{0x64, 4, 0x80000463, "ro_compat bit 31", false, -EOPNOTSUPP},
		{0x64, 4, 0x146b, "read-only", false, -EOPNOTSUPP},
		{0x5c, 4, 0x4000003c, "compat bit 30", false, -EOPNOTSUPP},
		{0x3a, 2, 3, "img fsck", false, -EUCLEAN},
		{0x3a, 2, 0, "not unmounted cleanly", false, -EUCLEAN},
		{0x04, 4, 100000, "more than the", true, -EUCLEAN},
		{0x18, 4, 40, "block size", true, -EUCLEAN},
		{0x58, 2, 200, "inodes of 200 bytes", true, -EUCLEAN},
		{0x38, 2, 0, "no superblock", true, -EUCLEAN},
		{0x28, 4, 3, "inodes", true, -EUCLEAN},
		{0x4c, 4, 2, "revision 2", true, -EOPNOTSUPP},
	};
	struct fs *fs;

	(void)state;
	sh("rm -f disk; truncate -s 32M disk; mke2fs -q -t ext4 disk");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		sh("cp disk copy");
		change_super("copy", cases[i].at, cases[i].bytes, cases[i].value);
		fails(extdisk_try("copy", cases[i].rdonly, &fs, &e), cases[i].code, &e,
		      cases[i].text);
		if (!cases[i].rdonly) {
			fs = extdisk_mount("copy", true);
			extdisk_unmount(fs);
		}
	}
}

static void space(void **state)
{
	struct fs_space s;
	struct fs *fs;

	(void)state;
	sh("rm -f disk; truncate -s 32M disk; mke2fs -q -t ext4 -b 4096 -N 1024 disk");
	fs = extdisk_mount("disk", true);
	ok(ext_driver.space(fs, &s, &e), &e);
	assert_int_equal(s.block, 4096);
	assert_int_equal(s.files, 1024);
	assert_int_equal(s.files_free, 1024 - 11);
	assert_true(s.blocks > 4096 && s.blocks < 8192);
	assert_true(s.free <= s.blocks && s.available < s.free);
	extdisk_unmount(fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trees),
		cmocka_unit_test(refused),
		cmocka_unit_test(space),
	};

	return cmocka_run_group_tests(tests, make_tree, NULL);
}
