// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's ext driver, writing: what the random test (model/ext-operations) does not come to:
 * large directories and files, full disks, times, devices, ACLs, what is refused.
 *
 * link: -lext2fs -lcom_err
 */
#include "unit.h"

#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "tell.h"

static struct err e;
static unsigned char data[1 << 20];

static void new_disk(const char *size, const char *options)
{
	sh("rm -f disk; truncate -s %s disk; mke2fs -q -F %s disk 2>/dev/null", size, options);
}

static void finish(struct fs *fs)
{
	extdisk_unmount(fs);
	extdisk_clean("disk");
}

static bool disk_says(const char *command, const char *what)
{
	char *text = shell_text("debugfs -R '%s' disk 2>/dev/null", command);
	bool found = strstr(text, what);

	if (!found)
		print_message("%s\n", text);
	free(text);
	return found;
}

/* ---- directories ---- */

static int count_name(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
		      struct err *err)
{
	(void)name;
	(void)len;
	(void)ino;
	(void)type;
	(void)err;
	++*(unsigned *)arg;
	return 0;
}

/* Enough names for a tree of two levels; then most of them go, in another order. */
static void many_names(void **state)
{
	enum { N = 40000 };
	const struct fs_new what = {.mode = S_IFREG | 0644};
	unsigned n = 0;
	uint64_t dir, ino;
	struct fs *fs;
	char name[64];

	(void)state;
	new_disk("64M", "-t ext4 -b 1024 -N 50000");
	fs = extdisk_mount("disk", false);
	dir = extdisk_make(fs, "many", S_IFDIR | 0755, NULL);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "the file with the number %u", i);
		ok(ext_driver.create(fs, dir, name, strlen(name), &what, &ino, &e), &e);
	}
	finish(fs);
	assert_true(disk_says("htree_dump /many", "Indirect levels: 1"));
	fs = extdisk_mount("disk", false);
	ok(ext_driver.readdir(fs, dir, count_name, &n, &e), &e);
	assert_int_equal(n, N);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "the file with the number %u", i * 7919 % N);
		if (i % 10)
			ok(ext_driver.unlink(fs, dir, name, strlen(name), &e), &e);
		else
			ok(ext_driver.lookup(fs, dir, name, strlen(name), &ino, &e), &e);
	}
	finish(fs);
	fs = extdisk_mount("disk", true);
	n = 0;
	ok(ext_driver.readdir(fs, dir, count_name, &n, &e), &e);
	assert_int_equal(n, N / 10);
	extdisk_unmount(fs);
}

/* More directories than an inode counts links. */
static void many_directories(void **state)
{
	const struct fs_new what = {.mode = S_IFDIR | 0755};
	struct agent_stat st;
	struct fs *fs;
	uint64_t dir, ino;
	char name[16];

	(void)state;
	new_disk("128M", "-t ext4 -b 1024 -N 66000 -O ^has_journal");
	fs = extdisk_mount("disk", false);
	dir = extdisk_make(fs, "d", S_IFDIR | 0755, NULL);
	for (unsigned i = 0; i < 65001; i++) {
		snprintf(name, sizeof(name), "%u", i);
		ok(ext_driver.create(fs, dir, name, strlen(name), &what, &ino, &e), &e);
	}
	ok(ext_driver.stat(fs, dir, &st, &e), &e);
	assert_int_equal(st.nlink, 1);
	ok(ext_driver.unlink(fs, dir, "77", 2, &e), &e);
	finish(fs);
}

/* ---- files ---- */

static void large_and_sparse(void **state)
{
	const uint64_t far = 10 * GiB;
	uint64_t ino, start, end;
	struct agent_stat st;
	struct fs *fs;
	size_t got;

	(void)state;
	new_disk("32M", "-t ext4 -b 4096");
	fs = extdisk_mount("disk", false);
	ino = extdisk_put(fs, "f", "begin", 5, 0);
	extdisk_put(fs, "f", "end", 3, far - 3);
	ok(ext_driver.stat(fs, ino, &st, &e), &e);
	assert_int_equal(st.size, far);
	assert_int_equal(st.allocated, 8192);
	ok(ext_driver.next_data(fs, ino, 4096, &start, &end, &e), &e);
	assert_int_equal(start, far - 4096);
	assert_int_equal(end, far);
	ok(ext_driver.read(fs, ino, data, sizeof(data), far - 4, &got, &e), &e);
	assert_int_equal(got, 4);
	assert_memory_equal(data, "\0end", 4);
	fails(ext_driver.write(fs, ino, "x", 1, UINT64_C(1) << 60, &e), -EFBIG, &e, "too far");
	finish(fs);
}

/* Small pieces in order become one extent and few requests: what is written waits. */
static void pieces(void **state)
{
	uint64_t ino;
	struct fs *fs;

	(void)state;
	new_disk("32M", "-t ext4 -b 4096");
	fs = extdisk_mount("disk", false);
	ino = extdisk_put(fs, "f", data, 1000, 0);
	for (unsigned i = 1; i < 3000; i++)
		ok(ext_driver.write(fs, ino, data, 1000, i * 1000, &e), &e);
	finish(fs);
	assert_true(disk_says("ex /f", " 1/  1 "));
}

/* A full disk refuses, stays whole, and takes more when something goes. */
static void full(void **state)
{
	const char *const kinds[] = {"-t ext4 -b 1024", "-t ext2 -b 1024",
				     "-t ext4 -b 1024 -O bigalloc -C 8192"};

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		struct fs_space space;
		struct fs *fs;
		uint64_t ino;
		int r = 0;

		context("%s", kinds[k]);
		new_disk("4M", kinds[k]);
		fs = extdisk_mount("disk", false);
		ino = extdisk_make(fs, "big", S_IFREG | 0644, NULL);
		for (unsigned i = 0; r == 0 && i < 100; i++)
			r = ext_driver.write(fs, ino, data, 300000, i * UINT64_C(300000), &e);
		if (r != -ENOSPC)
			fail_msg("%d: %s", r, e.msg);
		r = 0;
		for (unsigned i = 0; r == 0 && i < 1000; i++) {
			char name[256];
			const struct fs_new what = {.mode = i % 4 ? S_IFREG : S_IFDIR};
			uint64_t other;

			snprintf(name, sizeof(name), "%u%0*u", i, 200, 7);
			r = ext_driver.create(fs, fs->root, name, strlen(name), &what, &other, &e);
			if (r == 0)
				r = ext_driver.write(fs, other, data, i % 4 ? 900 : 0, 0, &e);
			if (r == -EISDIR)
				r = 0;
		}
		if (r != -ENOSPC)
			fail_msg("%d: %s", r, e.msg);
		ok(ext_driver.space(fs, &space, &e), &e);
		assert_true(space.free * space.block < 300000);
		finish(fs);
		fs = extdisk_mount("disk", false);
		ok(ext_driver.unlink(fs, fs->root, "big", 3, &e), &e);
		extdisk_put(fs, "another", data, 400000, 0);
		finish(fs);
	}
}

/* ---- attributes ---- */

static void times(void **state)
{
	static const struct agent_time cases[] = {
		{0, 1},
		{1700000000, 999999999},
		{-1, 500},
		{INT64_C(1) << 31, 7},
		{INT64_C(1) << 33, 3},
		{-2147483648, 0},
	};
	struct agent_stat st;
	struct fs *fs;
	uint64_t ino;

	(void)state;
	new_disk("4M", "-t ext4");
	fs = extdisk_mount("disk", false);
	ino = extdisk_put(fs, "f", "x", 1, 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct fs_attr attr = {.mask = SET_ATIME | SET_MTIME,
					     .atime = cases[i],
					     .mtime = cases[i]};

		ok(ext_driver.setattr(fs, ino, &attr, &e), &e);
		ok(ext_driver.stat(fs, ino, &st, &e), &e);
		assert_int_equal(st.mtime.sec, cases[i].sec);
		assert_int_equal(st.mtime.nsec, cases[i].nsec);
		assert_int_equal(st.atime.sec, cases[i].sec);
		assert_int_equal(st.ctime.sec, agent_now().sec);
		assert_int_equal(st.btime.sec, agent_now().sec);
	}
	finish(fs);
}

static void devices(void **state)
{
	static const struct {
		uint32_t mode, major, minor;
	} cases[] = {{S_IFCHR | 0666, 1, 3}, {S_IFBLK | 0660, 253, 70000}, {S_IFCHR, 4000, 1}};
	struct fs *fs;

	(void)state;
	new_disk("4M", "-t ext4");
	fs = extdisk_mount("disk", false);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct fs_new what = {.mode = cases[i].mode,
					    .uid = 70000,
					    .gid = 80000,
					    .rdev_major = cases[i].major,
					    .rdev_minor = cases[i].minor};
		char name[4] = {(char)('a' + i)};
		struct agent_stat st;
		uint64_t ino;

		ok(ext_driver.create(fs, fs->root, name, 1, &what, &ino, &e), &e);
		ok(ext_driver.stat(fs, ino, &st, &e), &e);
		assert_int_equal(st.mode, cases[i].mode);
		assert_int_equal(st.rdev_major, cases[i].major);
		assert_int_equal(st.rdev_minor, cases[i].minor);
		assert_int_equal(st.uid, 70000);
		assert_int_equal(st.gid, 80000);
	}
	finish(fs);
	assert_true(disk_says("stat b", "253:70000"));
}

#define ACL "system.posix_acl_access"

/* u::rw-, u:1000:rwx, g::r--, m::rwx, o::--- as getxattr has it. */
static const unsigned char acl[] = "\2\0\0\0"
				   "\1\0\6\0\377\377\377\377"
				   "\2\0\7\0\350\3\0\0"
				   "\4\0\4\0\377\377\377\377"
				   "\x10\0\7\0\377\377\377\377"
				   "\x20\0\0\0\377\377\377\377";
enum { ACL_LEN = sizeof(acl) - 1, ACL_MINIMAL = 28 };

static void acls(void **state)
{
	const struct fs_attr attr = {.mask = SET_MODE, .mode = 0640};
	unsigned char minimal[ACL_MINIMAL];
	struct agent_stat st;
	struct fs *fs;
	uint64_t ino;
	size_t len;

	(void)state;
	new_disk("4M", "-t ext4");
	fs = extdisk_mount("disk", false);
	ino = extdisk_put(fs, "f", "x", 1, 0);
	ok(ext_driver.xattr_set(fs, ino, ACL, acl, ACL_LEN, &e), &e);
	ok(ext_driver.xattr_get(fs, ino, ACL, data, sizeof(data), &len, &e), &e);
	assert_int_equal(len, ACL_LEN);
	assert_memory_equal(data, acl, len);
	/* The mode follows the ACL … */
	ok(ext_driver.stat(fs, ino, &st, &e), &e);
	assert_int_equal(st.mode, S_IFREG | 0670);
	/* … and the ACL the mode: the mask is the group's. */
	ok(ext_driver.setattr(fs, ino, &attr, &e), &e);
	ok(ext_driver.xattr_get(fs, ino, ACL, data, sizeof(data), &len, &e), &e);
	assert_int_equal(data[4 + 3 * 8 + 2], 4);
	finish(fs);
	/* On the disk it is shorter: entries without an id. */
	assert_true(disk_says("ea_get -x /f " ACL, "02 00 00 00"));
	assert_true(disk_says("stat /f", "posix_acl_access"));
	fs = extdisk_mount("disk", false);
	/* One that says what the mode says is not stored. */
	memcpy(minimal, acl, 12);
	memcpy(minimal + 12, acl + 20, 8);
	memcpy(minimal + 20, acl + 36, 8);
	ok(ext_driver.xattr_set(fs, ino, ACL, minimal, sizeof(minimal), &e), &e);
	fails(ext_driver.xattr_get(fs, ino, ACL, data, sizeof(data), &len, &e), -ENODATA, &e, ACL);
	ok(ext_driver.stat(fs, ino, &st, &e), &e);
	assert_int_equal(st.mode, S_IFREG | 0640);
	fails(ext_driver.xattr_set(fs, ino, ACL, acl, 11, &e), -EINVAL, &e, "ACL");
	fails(ext_driver.xattr_set(fs, ino, "system.posix_acl_default", acl, ACL_LEN, &e),
	      -EOPNOTSUPP, &e, "posix_acl_default");
	fails(ext_driver.xattr_set(fs, ino, "system.data", acl, 1, &e), -EOPNOTSUPP, &e, "data");
	finish(fs);
}

/* ---- what is refused ---- */

static void flags(void **state)
{
	const struct fs_attr attr = {.mask = SET_MODE, .mode = 0600};
	uint64_t file, dir, ino;
	struct fs *fs;
	size_t got;

	(void)state;
	new_disk("4M", "-t ext4 -O encrypt,verity");
	fs = extdisk_mount("disk", false);
	extdisk_put(fs, "immutable", "x", 1, 0);
	extdisk_put(fs, "sealed", "x", 1, 0);
	extdisk_put(fs, "secret", "x", 1, 0);
	extdisk_make(fs, "secrets", S_IFDIR | 0755, NULL);
	finish(fs);
	sh("printf 'sif /immutable flags 0x80010\\nsif /sealed flags 0x180000\\n"
	   "sif /secret flags 0x80800\\nsif /secrets flags 0x80800\\n' >c; "
	   "debugfs -wf c disk >/dev/null 2>&1");
	fs = extdisk_mount("disk", false);
	file = extdisk_path(fs, "immutable");
	fails(ext_driver.write(fs, file, "y", 1, 0, &e), -EPERM, &e, "immutable");
	fails(ext_driver.setattr(fs, file, &attr, &e), -EPERM, &e, "immutable");
	fails(ext_driver.unlink(fs, fs->root, "immutable", 9, &e), -EPERM, &e, "immutable");
	fails(ext_driver.link(fs, fs->root, "n", 1, file, &e), -EPERM, &e, "immutable");
	file = extdisk_path(fs, "sealed");
	fails(ext_driver.write(fs, file, "y", 1, 0, &e), -EPERM, &e, "verity");
	ok(ext_driver.read(fs, file, data, 1, 0, &got, &e), &e);
	file = extdisk_path(fs, "secret");
	fails(ext_driver.read(fs, file, data, 1, 0, &got, &e), -EOPNOTSUPP, &e, "encrypted");
	fails(ext_driver.write(fs, file, "y", 1, 0, &e), -EOPNOTSUPP, &e, "encrypted");
	dir = extdisk_path(fs, "secrets");
	fails(ext_driver.readdir(fs, dir, count_name, &got, &e), -EOPNOTSUPP, &e, "encrypted");
	fails(ext_driver.lookup(fs, dir, "x", 1, &ino, &e), -EOPNOTSUPP, &e, "encrypted");
	extdisk_unmount(fs);
}

static void casefold(void **state)
{
	struct fs *fs;
	uint64_t dir, ino, again;

	(void)state;
	new_disk("4M", "-t ext4 -O casefold -E encoding=utf8");
	fs = extdisk_mount("disk", false);
	dir = extdisk_make(fs, "d", S_IFDIR | 0755, NULL);
	finish(fs);
	sh("debugfs -wR 'sif /d flags 0x40080000' disk >/dev/null 2>&1");
	fs = extdisk_mount("disk", false);
	for (unsigned i = 0; i < 100; i++) {
		char name[64];

		snprintf(name, sizeof(name),
			 "d/Gr\xc3\xb6\xc3\x9f"
			 "e %u of many and longer",
			 i);
		extdisk_put(fs, name, "x", 1, 0);
	}
	assert_true(extdisk_path(fs, "d/GR\xc3\x96\xc3\x9f"
				     "E 77 OF MANY AND longer"));
	ino = extdisk_put(fs, "d/Name", "x", 1, 0);
	ok(ext_driver.lookup(fs, dir, "nAME", 4, &again, &e), &e);
	assert_int_equal(ino, again);
	ok(ext_driver.rename(fs, dir, "name", 4, dir, "NAME", 4, &e), &e);
	assert_int_equal(extdisk_path(fs, "d/name"), ino);
	finish(fs);
	assert_true(disk_says("ls /d", "NAME"));
}

/* From the first change to the unmount the disk says that it is not clean, or in use. */
static void state_on_disk(void **state)
{
	struct fs *fs, *other;

	(void)state;
	new_disk("8M", "-t ext4 -O mmp");
	fs = extdisk_mount("disk", false);
	sh("cmp -s disk disk");
	assert_true(disk_says("show_super_stats -h", "state:         clean"));
	extdisk_put(fs, "f", "x", 1, 0);
	assert_true(disk_says("show_super_stats -h", "not clean"));
	ok(ext_driver.sync(fs, &e), &e);
	sh("cp disk copy");
	finish(fs);
	fails(extdisk_try("copy", false, &other, &e), -EUCLEAN, &e, "not unmounted cleanly");
	/* After a check of all else, the mark of the other host stays. */
	sh("e2fsck -fy copy >/dev/null 2>&1; debugfs -wR 'ssv state 1' copy 2>/dev/null");
	fs = extdisk_mount("copy", true);
	assert_true(extdisk_path(fs, "f") != 0);
	extdisk_unmount(fs);
	/* A mount for writing that changes nothing writes nothing. */
	sh("cp disk copy");
	fs = extdisk_mount("disk", false);
	extdisk_unmount(fs);
	sh("cmp disk copy");
}

static void in_use(void **state)
{
	const struct fs_new what = {.mode = S_IFREG};
	struct fs *fs;
	uint64_t ino;

	(void)state;
	new_disk("8M", "-t ext4 -O mmp,^metadata_csum");
	sh("b=$(dumpe2fs -h disk 2>/dev/null | sed -n 's/^MMP block number: *//p'); "
	   "printf '\\1\\0\\0\\0' | dd of=disk bs=1 seek=$((b * 1024 + 4)) conv=notrunc "
	   "2>/dev/null");
	fs = extdisk_mount("disk", false);
	fails(ext_driver.create(fs, fs->root, "n", 1, &what, &ino, &e), -EBUSY, &e, "in use");
	extdisk_unmount(fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_names),
		cmocka_unit_test(many_directories),
		cmocka_unit_test(large_and_sparse),
		cmocka_unit_test(pieces),
		cmocka_unit_test(full),
		cmocka_unit_test(times),
		cmocka_unit_test(devices),
		cmocka_unit_test(acls),
		cmocka_unit_test(flags),
		cmocka_unit_test(casefold),
		cmocka_unit_test(state_on_disk),
		cmocka_unit_test(in_use),
	};

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 13 + i / 255);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
