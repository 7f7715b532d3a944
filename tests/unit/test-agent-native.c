// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The whole agent as an ordinary program, and in a cage, on disks that mke2fs and sfdisk made:
 * volumes, the root of an operating system with its fstab, and files.
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

static struct err e;
static struct appliance *a;

static void start(const char *disk, const char *more, bool writable)
{
	const char *const disks[] = {disk, more, NULL};

	a = attach_native(disks, writable);
}

static void stop(void)
{
	ok(appliance_finish(a, &e), &e);
	appliance_close(a);
}

static void holds(const char *path, const char *content)
{
	char *buf;
	size_t n;

	ok(appliance_read_file(a, path, 1 << 20, &buf, &n, &e), &e);
	assert_string_equal(buf, content);
	free(buf);
}

/* An ext4 filesystem of a directory, at `at` MiB of an image. */
static void put_fs(const char *image, unsigned at, unsigned size, const char *dir, const char *more)
{
	sh("truncate -s %uM part && mke2fs -q -t ext4 -d %s %s part && "
	   "dd if=part of=%s bs=1M seek=%u conv=notrunc,sparse status=none && rm part",
	   size, dir, more, image, at);
}

/*
 * sda: gpt: 1 EFI system, 2 /boot, 3 the root, 4 swap, 5 on its own; sdb: dos: /srv is logical.
 */
static int make_disks(void **state)
{
	(void)state;
	sh("mkdir -p root/etc root/usr/lib root/boot root/srv/deep root/home root/bin boot srv");
	sh("ln -s ../usr/lib/os-release root/etc/os-release");
	sh("echo ID=test > root/usr/lib/os-release");
	sh("ln -s loop root/bin/loop; echo kernel > boot/vmlinuz; echo served > srv/file");
	sh("printf '%%s\\n' '# comment' 'LABEL=root / ext4 defaults 0 1' "
	   "'UUID=\"0D1E2F3A-0000-4000-8000-00000000000b\" /boot ext4 defaults 0 2' "
	   "'/dev/vdb5 /srv// auto nofail' 'tmpfs /tmp tmpfs' 'proc /proc proc' 'LABEL=sw none "
	   "swap' "
	   "'/dev/mapper/vg-lv /home ext4' 'PARTLABEL=gone /opt ext4 nofail' "
	   "'UUID=0000 /var ext4' 'LABEL=x /mnt ext4 noauto' '/dev/sda3 /again ext4' "
	   "'host:/dir /nfs nfs' '/srv /home none bind' > root/etc/fstab");
	sh("truncate -s 64M sda.img sdb.img");
	sh("printf '%%s\\n' 'label: gpt' 'start=2048,size=8M,type=uefi,name=ESP' 'size=8M' "
	   "'size=24M,name=the-root' 'size=4M,type=swap' 'size=4M' | sfdisk -q sda.img");
	sh("printf '%%s\\n' 'label: dos' 'd1 : start=2048,size=8M,type=83,bootable' "
	   "'d2 : size=50M,type=5' 'd5 : size=8M,type=83' 'd6 : size=16M,type=83' | sfdisk -q "
	   "sdb.img");
	put_fs("sda.img", 9, 8, "boot", "-U 0d1e2f3a-0000-4000-8000-00000000000b");
	put_fs("sda.img", 17, 24, "root", "-L root");
	/* The first logical partition lies behind its table. */
	put_fs("sdb.img", 10, 8, "srv", "-L srv");
	return 0;
}

static const struct agent_volume *volume(const struct agent_volume *v, unsigned n, uint32_t disk,
					 uint32_t part)
{
	for (unsigned i = 0; i < n; i++)
		if (v[i].disk == disk && v[i].part == part)
			return &v[i];
	fail_msg("no volume %u of disk %u", part, disk);
	return NULL;
}

static void volumes_are_listed(void **state)
{
	struct agent_volume *v;
	const struct agent_volume *x;
	unsigned n;

	(void)state;
	start("sda.img", "sdb.img", false);
	assert_int_equal(appliance_disks(a), 2);
	ok(appliance_volumes(a, &v, &n, &e), &e);
	assert_int_equal(n, 1 + 5 + 1 + 4);
	x = volume(v, n, 0, 0);
	assert_string_equal(x->table, "gpt");
	assert_int_equal(x->size, 64 * MiB);
	assert_int_equal(x->sector, 512);
	x = volume(v, n, 0, 1);
	assert_string_equal(x->part_type, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
	assert_string_equal(x->part_name, "ESP");
	assert_string_equal(x->type, "");
	x = volume(v, n, 0, 3);
	assert_string_equal(x->type, "ext4");
	assert_string_equal(x->usage, "filesystem");
	assert_string_equal(x->label, "root");
	assert_int_equal(x->offset, 17 * MiB);
	assert_int_equal(x->size, 24 * MiB);
	x = volume(v, n, 1, 1);
	assert_string_equal(x->part_type, "0x83");
	assert_int_equal(x->part_flags, 1);
	x = volume(v, n, 1, 5);
	assert_int_equal(x->offset, 10 * MiB);
	assert_string_equal(x->label, "srv");
	free(v);
	stop();
}

static bool noted(const struct appliance_root *root, const char *text)
{
	for (unsigned i = 0; i < root->n_notes; i++)
		if (strstr(root->notes[i], text))
			return true;
	return false;
}

static void the_root_is_found_and_its_fstab_followed(void **state)
{
	struct appliance_root root;
	struct appliance_space s;

	(void)state;
	start("sda.img", "sdb.img", false);
	ok(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), &e);
	assert_int_equal(root.n_mounts, 3);
	assert_string_equal(root.mounts[0].path, "/");
	assert_int_equal(root.mounts[0].part, 3);
	assert_string_equal(root.mounts[1].path, "/srv");
	assert_int_equal(root.mounts[1].disk, 1);
	assert_string_equal(root.mounts[2].path, "/boot");
	assert_string_equal(root.mounts[2].type, "ext4");
	assert_true(noted(&root, "/home: not mounted: /dev/mapper/vg-lv"));
	assert_true(noted(&root, "/var: not mounted: UUID=0000 is on none of the disks"));
	assert_true(noted(&root, "/mnt: not mounted: noauto"));
	assert_true(noted(&root, "/again: not mounted: sda3 is mounted already"));
	assert_true(noted(&root, "/nfs: not mounted: host:/dir"));
	assert_true(noted(&root, "/home: not mounted: a bind mount"));
	assert_false(noted(&root, "/opt"));
	assert_false(noted(&root, "swap"));
	appliance_root_free(&root);
	holds("/etc/os-release", "ID=test\n");
	holds("/boot/vmlinuz", "kernel\n");
	holds("/srv/file", "served\n");
	ok(appliance_statfs(a, "/srv/file", &s, &e), &e);
	assert_string_equal(s.path, "/srv");
	assert_int_equal(s.part, 5);
	fails(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), -EBUSY, &e, "mounted already");
	stop();
}

static void disks_without_a_root_are_told(void **state)
{
	struct appliance_root root;

	(void)state;
	start("sdb.img", NULL, false);
	fails(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), -ENOENT, &e, "no operating system");
	stop();
	sh("cp --sparse=always sda.img copy.img");
	start("sda.img", "copy.img", false);
	fails(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), -ENOTUNIQ, &e, "sda3, sdb3");
	stop();
}

static void volumes_are_mounted_by_number(void **state)
{
	char type[32];

	(void)state;
	start("sda.img", "sdb.img", false);
	fails(appliance_mount(a, 0, 3, "/", 0, type, &e), -EROFS, &e, "sda3: the disk");
	fails(appliance_mount(a, 0, 1, "/", MOUNT_RDONLY, type, &e), -EMEDIUMTYPE, &e, "sda1");
	fails(appliance_mount(a, 0, 9, "/", MOUNT_RDONLY, type, &e), -ENXIO, &e, "sda9");
	fails(appliance_mount(a, 2, 0, "/", MOUNT_RDONLY, type, &e), -ENXIO, &e, "no disk 2");
	fails(appliance_mount(a, 0, 3, "/x", MOUNT_RDONLY, type, &e), -EINVAL, &e, "must be /");
	ok(appliance_mount(a, 1, 5, "/", MOUNT_RDONLY, type, &e), &e);
	assert_string_equal(type, "ext4");
	holds("/file", "served\n");
	fails(appliance_mount(a, 1, 5, "/lost+found", MOUNT_RDONLY, type, &e), -EBUSY, &e, "sdb5");
	ok(appliance_mount(a, 0, 2, "/lost+found", MOUNT_RDONLY, NULL, &e), &e);
	holds("/lost+found/vmlinuz", "kernel\n");
	ok(appliance_unmount(a, &e), &e);
	ok(appliance_mount(a, 0, 2, "/", MOUNT_RDONLY, NULL, &e), &e);
	holds("/vmlinuz", "kernel\n");
	stop();
}

/* Half of a mirror looks as what is on the mirror: nobody mounts it, least of all by itself. */
static void members_of_raids_are_left_alone(void **state)
{
	struct appliance_root root;

	(void)state;
	sh("rm -f md.img; truncate -s 24M md.img; mke2fs -q -t ext4 -L root -d root md.img 24000k");
	/* The superblock of md 0.90: 64 KiB before the end. */
	sh("printf '\\374\\116\\053\\251\\0\\0\\0\\0\\132\\0\\0\\0' | "
	   "dd of=md.img bs=1 seek=%u conv=notrunc status=none",
	   (24u << 20) - 65536);
	start("md.img", NULL, false);
	fails(appliance_mount(a, 0, 0, "/", MOUNT_RDONLY, NULL, &e), -EMEDIUMTYPE, &e,
	      "linux_raid_member");
	fails(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), -ENOENT, &e, "no operating system");
	stop();
	start("md.img", NULL, false);
	fails(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), -ENOENT, &e, "no operating system");
	stop();
}

/* The same with the memory that a cage has, and disks that are images. */
static void cages_have_room_for_all(void **state)
{
	const struct img_open_args disks[] = {{.path = "sda.img", .format = "raw"},
					      {.path = "sdb.img", .format = "raw"}};
	const struct appliance_config config = {.disks = disks, .n_disks = 2};
	struct appliance_root root;

	(void)state;
	ok(appliance_launch(&config, &a, &e), &e);
	/* They were not opened for writing, and the agent knows. */
	fails(appliance_mount_root(a, 0, &root, &e), -EROFS, &e, "read-only");
	ok(appliance_mount_root(a, MOUNT_RDONLY, &root, &e), &e);
	assert_int_equal(root.n_mounts, 3);
	appliance_root_free(&root);
	holds("/srv/file", "served\n");
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(volumes_are_listed),
		cmocka_unit_test(the_root_is_found_and_its_fstab_followed),
		cmocka_unit_test(disks_without_a_root_are_told),
		cmocka_unit_test(volumes_are_mounted_by_number),
		cmocka_unit_test(members_of_raids_are_left_alone),
		cmocka_unit_test(cages_have_room_for_all),
	};

	return cmocka_run_group_tests(tests, make_disks, NULL);
}
