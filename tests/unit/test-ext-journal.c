// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's ext driver and what a crash leaves: journals that debugfs writes are replayed, in
 * memory and on the disk, and orphans are brought to their end. e2fsck and debugfs judge.
 *
 * link: -lext2fs -lcom_err
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "tell.h"

enum { BS = 1024, BLOCKS = 8 };

static struct err e;
static unsigned char before[BLOCKS * BS], after[BLOCKS * BS];
static unsigned long at[BLOCKS]; /* of the file, on the disk */

static void save(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

/* A disk with the file f, and files with what its blocks will be: new0, new1, … */
static void make_disk(const char *options)
{
	char *text, *p;

	for (size_t i = 0; i < sizeof(before); i++) {
		before[i] = (unsigned char)(i / BS + 'a');
		after[i] = (unsigned char)(i / BS + 'A');
	}
	/* A block that looks like one of the journal itself. */
	memcpy(after + 3 * BS, "\xc0\x3b\x39\x98 is no descriptor", 20);
	sh("rm -rf disk tree; mkdir tree");
	save("tree/f", before, sizeof(before));
	sh("truncate -s 16M disk; mke2fs -q -F -b 1024 %s -d tree disk", options);
	text = p = shell_text("debugfs -R 'blocks /f' disk 2>/dev/null");
	for (unsigned i = 0; i < BLOCKS; i++)
		at[i] = strtoul(p, &p, 10);
	free(text);
	for (unsigned i = 0; i < BLOCKS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "new%u", i);
		save(name, after + i * BS, BS);
	}
}

static void debugfs(const char *commands)
{
	save("commands", commands, strlen(commands));
	sh("debugfs -w -f commands disk >log 2>&1");
}

/* Transactions: blocks 0, 1, 3; 0 revoked, perhaps; 1 again; the last is not complete. */
static void write_journal(const char *open_options, bool revoke)
{
	char text[1000], revoked[32] = "";

	if (revoke)
		snprintf(revoked, sizeof(revoked), "jw -r %lu\n", at[0]);
	snprintf(text, sizeof(text),
		 "jo %s\njw -b %lu,%lu,%lu three\n%sjw -b %lu new4\njw -b %lu -c new7\njc\n",
		 open_options, at[0], at[1], at[3], revoked, at[1], at[7]);
	sh("cat new0 new1 new3 >three");
	debugfs(text);
	assert_int_equal(shell("dumpe2fs -h disk 2>/dev/null | grep -q needs_recovery"), 0);
}

/* What the file is after the replay. */
static void expect_file(struct fs *fs, bool revoke)
{
	unsigned char want[sizeof(before)], have[sizeof(before)];
	uint64_t ino = extdisk_path(fs, "f");
	size_t got;

	memcpy(want, before, sizeof(want));
	if (!revoke)
		memcpy(want, after, BS);
	memcpy(want + BS, after + 4 * BS, BS);
	memcpy(want + 3 * BS, after + 3 * BS, BS);
	ok(ext_driver.read(fs, ino, have, sizeof(have), 0, &got, &e), &e);
	assert_int_equal(got, sizeof(have));
	for (unsigned i = 0; i < BLOCKS; i++)
		if (memcmp(have + i * BS, want + i * BS, BS) != 0)
			fail_msg("block %u: '%c', not '%c'", i, have[i * BS], want[i * BS]);
	/* In pieces, through the cache, too. */
	for (unsigned i = 0; i < BLOCKS * 4; i++) {
		ok(ext_driver.read(fs, ino, have, BS / 4, i * BS / 4, &got, &e), &e);
		assert_memory_equal(have, want + i * BS / 4, BS / 4);
	}
}

static void replayed(void **state)
{
	static const struct {
		const char *mke2fs, *open;
	} kinds[] = {
		{"-t ext4", "-c -v 3"},
		{"-t ext4 -O ^64bit", "-c -v 2"},
		{"-t ext4 -O ^metadata_csum", ""},
		{"-t ext3", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds) * 2; i++) {
		const bool revoke = i & 1;
		struct fs *fs;

		context("%s, %s%s", kinds[i / 2].mke2fs, kinds[i / 2].open,
			revoke ? ", revoke" : "");
		make_disk(kinds[i / 2].mke2fs);
		write_journal(kinds[i / 2].open, revoke);
		/* Read-only: seen, but not written. */
		sh("cp disk copy");
		fs = extdisk_mount("disk", true);
		expect_file(fs, revoke);
		extdisk_unmount(fs);
		sh("cmp disk copy");
		/* And for good. */
		fs = extdisk_mount("disk", false);
		expect_file(fs, revoke);
		extdisk_put(fs, "new", "x", 1, 0);
		extdisk_unmount(fs);
		extdisk_clean("disk");
		/* As e2fsck would have had it. */
		sh("e2fsck -E journal_only -y copy >log 2>&1; for d in disk copy; do "
		   "debugfs -R 'dump /f f.'$d $d 2>/dev/null; done; cmp f.disk f.copy");
		fs = extdisk_mount("disk", true);
		expect_file(fs, revoke);
		extdisk_unmount(fs);
	}
}

/* A log that is there although the superblock does not say so is not written over. */
static void log_without_flag(void **state)
{
	struct fs *fs;

	(void)state;
	make_disk("-t ext4");
	write_journal("-c -v 3", false);
	sh("debugfs -wR 'feature ^needs_recovery' disk >log 2>&1");
	fails(extdisk_try("disk", false, &fs, &e), -EUCLEAN, &e, "img fsck");
	fs = extdisk_mount("disk", true);
	extdisk_unmount(fs);
}

static void broken_checksum(void **state)
{
	struct fs *fs;

	(void)state;
	make_disk("-t ext4");
	write_journal("-c -v 3", false);
	/* In the copy of a block: the transaction is complete, and wrong. */
	sh("python3 -c \"import sys; d = open('disk', 'rb').read(); n = open('new1', 'rb').read(); "
	   "i = d.index(n); open('disk', 'r+b').write(d[:i] + b'?' + d[i + 1:])\"");
	fails(extdisk_try("disk", true, &fs, &e), -EUCLEAN, &e, "wrong checksum");
	fails(extdisk_try("disk", false, &fs, &e), -EUCLEAN, &e, "wrong checksum");
}

/* ---- orphans ---- */

static void expect_no_orphans(const char *what)
{
	struct fs *fs = extdisk_mount("disk", false);

	context("%s", what);
	extdisk_put(fs, "other", "x", 1, 0);
	assert_int_equal(extdisk_path(fs, "f") != 0, strcmp(what, "truncated") == 0);
	extdisk_unmount(fs);
	extdisk_clean("disk");
}

static void orphans(void **state)
{
	char *text;
	unsigned ino;

	(void)state;
	make_disk("-t ext4");
	text = shell_text(
		"debugfs -R 'stat /f' disk 2>/dev/null | sed -n 's/^Inode: \\([0-9]*\\).*/\\1/p'");
	ino = (unsigned)atoi(text);
	free(text);
	sh("cp disk copy");
	/* Deleted while it was open. */
	snprintf((char *)after, sizeof(after),
		 "unlink /f\nsif <%u> links_count 0\nsif <%u> dtime 0\nssv last_orphan %u\n", ino,
		 ino, ino);
	debugfs((char *)after);
	expect_no_orphans("deleted");
	/* Being truncated to two blocks and a half. */
	sh("cp copy disk");
	snprintf((char *)after, sizeof(after),
		 "sif <%u> size 2500\nsif <%u> dtime 0\nssv last_orphan %u\n", ino, ino, ino);
	debugfs((char *)after);
	expect_no_orphans("truncated");
	/* A list that leads nowhere. */
	sh("cp copy disk");
	snprintf((char *)after, sizeof(after), "ssv last_orphan %u\n", 3000);
	debugfs((char *)after);
	{
		struct fs *fs = extdisk_mount("disk", false);
		uint64_t new;
		const struct fs_new what = {.mode = S_IFREG | 0644};

		fails(ext_driver.create(fs, fs->root, "n", 1, &what, &new, &e), -EUCLEAN, &e,
		      "orphans");
		fails(ext_driver.unmount(fs, &e), -EUCLEAN, &e, "img fsck");
	}
}

/* The kernel's list in a file, as mke2fs makes it. */
static void orphan_file(void **state)
{
	char *text;
	unsigned ino;

	(void)state;
	make_disk("-t ext4 -O ^metadata_csum,orphan_file");
	text = shell_text(
		"debugfs -R 'stat /f' disk 2>/dev/null | sed -n 's/^Inode: \\([0-9]*\\).*/\\1/p'");
	ino = (unsigned)atoi(text);
	free(text);
	text = shell_text("dumpe2fs -h disk 2>/dev/null | sed -n 's/^Orphan file inode: *//p'");
	snprintf((char *)after, sizeof(after),
		 "unlink /f\nsif <%u> links_count 0\nfeature orphan_present\n", ino);
	debugfs((char *)after);
	/* The first entry of the first block. */
	sh("b=$(debugfs -R 'bmap <%d> 0' disk 2>/dev/null); printf '\\%o\\0\\0\\0' | "
	   "dd of=disk bs=1024 seek=$b conv=notrunc 2>/dev/null",
	   atoi(text), ino);
	free(text);
	expect_no_orphans("in the file");
	assert_int_equal(shell("dumpe2fs -h disk 2>/dev/null | grep -q orphan_present"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replayed),        cmocka_unit_test(log_without_flag),
		cmocka_unit_test(broken_checksum), cmocka_unit_test(orphans),
		cmocka_unit_test(orphan_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
