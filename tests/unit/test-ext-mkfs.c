// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent makes filesystems: as mke2fs makes them, as far as dumpe2fs shows, and on top of old
 * content; e2fsck finds nothing.
 *
 * link: -lext2fs -lcom_err
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "tell.h"

static struct err e;

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

static int make(const char *type, const char *label, const char *uuid, const char *options)
{
	struct volume vol = extdisk_volume("disk", 0, false);
	int r = ext_driver.mkfs(&vol, type, label, uuid, options, &e);

	close(AGENT_FD_DISK + (int)vol.disk);
	return r;
}

/* All that dumpe2fs says, but for what is of the moment. */
static void dump(const char *disk, const char *to)
{
	sh("dumpe2fs %s 2>/dev/null | grep -vE '[Ss]eed|created|write time|Last checked|"
	   "[Cc]hecksum:|Lifetime' | sed 's/csum 0x[0-9a-f]*//g; s/checksum 0x[0-9a-f]*//g' >%s",
	   disk, to);
}

static void like_mke2fs(void **state)
{
	static const struct {
		const char *size, *type, *options;
	} cases[] = {
		{"300000", "ext2", ""},
		{"2M", "ext4", ""},
		{"60M", "ext2", ""},
		{"64M", "ext4", "^metadata_csum,uninit_bg"},
		{"600M", "ext3", ""},
		{"2G", "ext4", ""},
		{"20G", "ext4", ""},
		{"1G", "ext4", "orphan_file,metadata_csum_seed,large_dir,ea_inode,inline_data"},
		{"600M", "ext4", "^has_journal,^resize_inode,^flex_bg,^64bit"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *o = cases[i].options;

		context("%s %s %s", cases[i].size, cases[i].type, o);
		sh("rm -f disk theirs; truncate -s %s disk theirs; mke2fs -q -F -t %s -L label "
		   "-U %s %s%s theirs 2>/dev/null",
		   cases[i].size, cases[i].type, UUID, *o ? "-O " : "", o);
		ok(make(cases[i].type, "label", UUID, o), &e);
		extdisk_clean("disk");
		dump("disk", "a");
		dump("theirs", "b");
		assert_int_equal(shell("diff a b"), 0);
	}
}

/* What was there before is no part of the new filesystem. */
static void over_old_content(void **state)
{
	struct fs *fs;

	(void)state;
	sh("head -c 20M /dev/zero | tr '\\0' '\\377' >disk");
	ok(make("ext4", "", "",
		"block_size=2048,inode_size=512,inodes=500,"
		"hash_seed=" UUID),
	   &e);
	extdisk_clean("disk");
	assert_int_equal(shell("dumpe2fs -h disk 2>/dev/null | grep -q 'Seed: *" UUID "'"), 0);
	assert_int_equal(shell("dumpe2fs -h disk 2>/dev/null | grep -q 'Inode size:[\t ]*512'"), 0);
	fs = extdisk_mount("disk", false);
	extdisk_put(fs, "lost+found/a", "content", 7, 100000);
	extdisk_unmount(fs);
	extdisk_clean("disk");
	sh("truncate -s 100K disk");
	ok(make("ext2", "", "", ""), &e);
	extdisk_clean("disk");
}

static void refused(void **state)
{
	(void)state;
	sh("rm -f disk; truncate -s 8M disk");
	fails(make("xfs", "", "", ""), -EOPNOTSUPP, &e, "xfs");
	fails(make("ext4", "seventeen letters", "", ""), -EINVAL, &e, "label");
	fails(make("ext4", "", "no-uuid", ""), -EINVAL, &e, "no-uuid");
	fails(make("ext4", "", "", "encrypt"), -EINVAL, &e, "encrypt");
	fails(make("ext4", "", "", "^magic"), -EINVAL, &e, "magic");
	fails(make("ext4", "", "", "block_size=3000"), -EINVAL, &e, "3000");
	fails(make("ext4", "", "", "block_size=x"), -EINVAL, &e, "block_size=x");
	fails(make("ext4", "", "", "inode_size=100"), -EINVAL, &e, "100");
	fails(make("ext4", "", "", "inode_ratio=1"), -EINVAL, &e, "1 bytes");
	sh("truncate -s 10K disk");
	fails(make("ext4", "", "", ""), -ENOSPC, &e, "too few");
	/* Nothing was written. */
	assert_int_equal(shell("cmp -n 10240 disk /dev/zero"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(like_mke2fs),
		cmocka_unit_test(over_old_content),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
