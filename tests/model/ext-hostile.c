// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's ext driver on filesystems whose metadata was changed at random: all of it is looked
 * at, then some of it is changed. Everything ends, in success or in an error with a text.
 *
 * link: -lext2fs -lcom_err
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "base/bytes.h"
#include "extdisk.h"
#include "rng.h"
#include "tell.h"

enum { BLOCK = 1024, ROUNDS = SANITIZED ? 90 : 400, STEPS = 3000 };

static struct rng rng;
static unsigned char *image; /* as mke2fs and debugfs made it */
static size_t size;
static uint32_t *blocks; /* those of metadata */
static size_t n_blocks;
static int disk;

/* ---- an image ---- */

static void make_image(const char *options, bool journal)
{
	int fd;
	struct stat st;

	sh("rm -rf tree image; mkdir -p tree/dir/sub tree/many; cd tree; "
	   "for i in $(seq 150); do : > many/a-name-that-takes-some-room-$i; done; "
	   "yes dddddddd | head -c 60000 > dir/data; cp dir/data fragments; "
	   "ln -s data dir/short; ln dir/data dir/hard; mkfifo dir/fifo; "
	   "ln -s $(head -c 100 /dev/zero | tr '\\0' l) dir/long; echo tiny > tiny");
	sh("truncate -s 3M image; mke2fs -q -F -b 1024 -N 400 %s -d tree image 2>/dev/null; "
	   "e2fsck -fyD image >/dev/null 2>&1; "
	   "head -c 600 /dev/zero | tr '\\0' v > value; "
	   /* Holes in every second block make a tree of extents. */
	   "(for i in $(seq 1 2 57); do echo punch /fragments $i $i; done; "
	   " echo ea_set -f value /dir/data user.big; echo ea_set /tiny user.small x) > commands; "
	   "debugfs -wf commands image >/dev/null 2>&1",
	   options);
	if (journal)
		sh("(echo jo; for i in 1 2 3; do echo jw -b 3000-3004 value5; done; "
		   "echo jw -r 3002; echo jw -b 3001 value1; echo jc) > commands; "
		   "head -c 5120 image > value5; head -c 1024 image > value1; "
		   "debugfs -wf commands image >/dev/null 2>&1");
	fd = open("image", O_RDONLY);
	expect(fd >= 0 && fstat(fd, &st) == 0);
	size = (size_t)st.st_size;
	image = malloc(size);
	expect(image && pread(fd, image, size, 0) == (ssize_t)size);
	close(fd);
	blocks = calloc(size / BLOCK, sizeof(*blocks));
	n_blocks = 0;
	for (uint32_t i = 1; i < size / BLOCK; i++)
		if (!bytes_are_zero(image + i * BLOCK, BLOCK) && image[i * BLOCK + 5] != 'd' &&
		    image[i * BLOCK + 5] != '\n')
			blocks[n_blocks++] = i;
}

static void put(uint64_t off, const void *p, size_t len)
{
	expect(pwrite(disk, p, len, (off_t)off) == (ssize_t)len);
}

/* One field: zero, all ones, small, a block number, or anything. */
static void change_field(uint32_t block)
{
	static const unsigned sizes[] = {1, 2, 4, 4};
	const unsigned n = sizes[rng_below(&rng, 4)];
	uint64_t at = (uint64_t)block * BLOCK + rng_below(&rng, BLOCK / n) * n;
	uint32_t value;

	/* Where something is, mostly. */
	for (unsigned i = 0; i < 20 && bytes_are_zero(image + at, n); i++)
		at = (uint64_t)block * BLOCK + rng_below(&rng, BLOCK / n) * n;
	switch (rng_below(&rng, 6)) {
	case 0:
		value = 0;
		break;
	case 1:
		value = UINT32_MAX;
		break;
	case 2:
		value = (uint32_t)rng_below(&rng, 20);
		break;
	case 3:
		value = blocks[rng_below(&rng, n_blocks)];
		break;
	case 4:
		memcpy(&value, image + at, n);
		value ^= UINT32_C(1) << rng_below(&rng, 8 * n);
		break;
	default:
		value = (uint32_t)rng_next(&rng);
	}
	put(at, &value, n);
}

static void mutate(void)
{
	unsigned n = 1 + (unsigned)rng_below(&rng, 5);
	/* The superblock decides most: it gets its share. */
	uint32_t block = rng_below(&rng, 6) ? blocks[rng_below(&rng, n_blocks)] : 1;

	put(0, image, size);
	if (rng_below(&rng, 12) == 0 && block > 2) {
		put((uint64_t)block * BLOCK, image + blocks[rng_below(&rng, n_blocks)] * BLOCK,
		    BLOCK);
		return;
	}
	while (n--) {
		change_field(block);
		if (rng_below(&rng, 3) == 0)
			block = blocks[rng_below(&rng, n_blocks)];
	}
}

/* ---- looking at all of it ---- */

static unsigned steps;
static char *buf;

/* Whatever happens, errors say what. */
static int judged(int r, const struct err *err)
{
	if (r < 0 && (err->code != -r || !err->msg[0]))
		die("%d without a text (%d: %s)", r, err->code, err->msg);
	return r;
}

struct look {
	struct fs *fs;
	unsigned depth;
};

static void look_at(struct fs *fs, uint64_t ino, unsigned depth);

static int look_entry(void *arg, const char *name, size_t len, uint64_t ino, unsigned type,
		      struct err *err)
{
	struct look *l = arg;
	uint64_t found;

	(void)type;
	(void)err;
	if (++steps > STEPS)
		return 1;
	if (steps % 3 == 0)
		ext_driver.lookup(l->fs, l->fs->root, name, len, &found, NULL);
	look_at(l->fs, ino, l->depth + 1);
	return 0;
}

static void look_at_file(struct fs *fs, uint64_t ino)
{
	uint64_t off = 0, start, end;
	struct err err = {0};
	size_t got = 1;

	for (unsigned i = 0; i < 20 && got; i++, off += got)
		if (judged(ext_driver.read(fs, ino, buf, 7000, off, &got, &err), &err) < 0)
			break;
	off = 0;
	for (unsigned i = 0; i < 50; i++, off = end)
		if (judged(ext_driver.next_data(fs, ino, off, &start, &end, &err), &err) < 0 ||
		    end <= off)
			break;
}

static void look_at(struct fs *fs, uint64_t ino, unsigned depth)
{
	struct look l = {fs, depth};
	struct agent_stat st;
	struct err err = {0};
	size_t len;

	if (judged(ext_driver.stat(fs, ino, &st, &err), &err) < 0)
		return;
	if (judged(ext_driver.xattr_list(fs, ino, buf, 4096, &len, &err), &err) == 0 && len)
		judged(ext_driver.xattr_get(fs, ino, buf, buf + 4096, 65536, &len, &err), &err);
	if (S_ISDIR(st.mode) && depth < 6)
		judged(ext_driver.readdir(fs, ino, look_entry, &l, &err), &err);
	else if (S_ISLNK(st.mode))
		judged(ext_driver.readlink(fs, ino, buf, 4096, &err), &err);
	else
		look_at_file(fs, ino);
}

/* ---- changing some of it ---- */

static void change_names(struct fs *fs, const char *dir_path)
{
	const struct fs_new file = {.mode = S_IFREG | 0644}, dir = {.mode = S_IFDIR | 0755};
	uint64_t at = extdisk_path(fs, dir_path), ino;
	struct err err = {0};
	char name[64];

	for (unsigned i = 0; at && i < 12; i++) {
		snprintf(name, sizeof(name), "another-name-that-takes-room-%u", i);
		if (judged(ext_driver.create(fs, at, name, strlen(name), i % 3 ? &file : &dir, &ino,
					     &err),
			   &err) < 0)
			continue;
		judged(ext_driver.write(fs, ino, image, 3000, i * 700, &err), &err);
		judged(ext_driver.xattr_set(fs, ino, "user.new", image, 300, &err), &err);
	}
	if (!at)
		return;
	judged(ext_driver.unlink(fs, at, name, strlen(name), &err), &err);
	judged(ext_driver.rename(fs, at, "another-name-that-takes-room-0", 30, fs->root, "moved", 5,
				 &err),
	       &err);
}

static void change_file(struct fs *fs, const char *path)
{
	const struct fs_attr attr = {.mask = SET_SIZE | SET_MODE, .size = 3333, .mode = 0600};
	uint64_t ino = extdisk_path(fs, path), dir;
	struct err err = {0};
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

	if (!ino)
		return;
	judged(ext_driver.write(fs, ino, image, 20000, 1000, &err), &err);
	judged(ext_driver.setattr(fs, ino, &attr, &err), &err);
	judged(ext_driver.xattr_remove(fs, ino, "user.big", &err), &err);
	dir = name == path ? fs->root : extdisk_path(fs, "dir");
	if (dir)
		judged(ext_driver.unlink(fs, dir, name, strlen(name), &err), &err);
}

static void round_trip(const char *path)
{
	struct fs_space space;
	struct err err = {0};
	struct fs *fs;

	steps = 0;
	if (judged(extdisk_try(path, true, &fs, &err), &err) == 0) {
		judged(ext_driver.space(fs, &space, &err), &err);
		look_at(fs, fs->root, 0);
		ext_driver.unmount(fs, NULL);
		close(AGENT_FD_DISK + 20);
	}
	if (judged(extdisk_try(path, false, &fs, &err), &err) == 0) {
		change_names(fs, "many");
		change_names(fs, "dir");
		change_file(fs, "fragments");
		change_file(fs, "dir/data");
		change_file(fs, "tiny");
		change_file(fs, "dir/sub");
		ext_driver.unmount(fs, &err);
		close(AGENT_FD_DISK + 20);
	}
}

/* Of CPU time: not of a busy machine. */
static void too_long(int sig)
{
	(void)sig;
	die("no end");
}

static void run(const char *options, bool journal, uint64_t seed)
{
	char path[64];

	rng = (struct rng){seed};
	make_image(options, journal);
	disk = memfd_create("disk", MFD_CLOEXEC);
	expect(disk >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", disk);
	put(0, image, size);
	context("mke2fs %s, unchanged", options);
	round_trip(path);
	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct itimerval limit = {.it_value = {.tv_sec = 20}};

		context("mke2fs %s, seed %llu, round %u", options, (unsigned long long)seed, i);
		setitimer(ITIMER_VIRTUAL, &limit, NULL);
		mutate();
		round_trip(path);
	}
	close(disk);
	free(image);
	free(blocks);
}

int main(void)
{
	static const struct {
		const char *options;
		bool journal;
	} kinds[] = {
		{"-t ext4 -O ^metadata_csum,^has_journal", false},
		{"-t ext2", false},
		{"-t ext4 -O ^metadata_csum", true},
		{"-t ext4 -O ^metadata_csum,inline_data,^has_journal -I 512", false},
		{"-t ext4 -O ^metadata_csum,bigalloc,ea_inode,orphan_file -C 4096", false},
		{"-t ext4", true},
	};
	struct seeds seeds;

	signal(SIGVTALRM, too_long);
	buf = malloc(1 << 17);
	seeds_init(&seeds, 1, 1);
	while (seeds_next(&seeds))
		for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
			run(kinds[i].options, kinds[i].journal, seeds.seed + i);
	free(buf);
	return 0;
}
