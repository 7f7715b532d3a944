/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes: read with their checksum verified, judged, written, and translated into what stat says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "appliance/agent/ext/ext.h"
#include "appliance/protocol.h"

_Static_assert(sizeof(struct ext2_inode_large) <= EXT_INODE_MAX, "fits");

int ext_inode_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err)
{
	const struct ext2_super_block *sb = x->e2->super;
	errcode_t code;

	if (ino == 0 || ino > sb->s_inodes_count)
		return err_set(err, EUCLEAN, "inode %llu does not exist: there are %u",
			       (unsigned long long)ino, sb->s_inodes_count);
	memset(inode, 0, sizeof(*inode));
	inode->ino = (uint32_t)ino;
	code = ext2fs_read_inode_full(x->e2, inode->ino, &inode->u.small, EXT2_INODE_SIZE(sb));
	if (code)
		return ext_error(x, code, err, "reading", inode->ino);
	if (EXT2_INODE_SIZE(sb) > EXT2_GOOD_OLD_INODE_SIZE &&
	    inode->u.large.i_extra_isize > EXT2_INODE_SIZE(sb) - EXT2_GOOD_OLD_INODE_SIZE)
		return ext_corrupt(err, inode->ino, "%u extra bytes in a record of %u",
				   inode->u.large.i_extra_isize, EXT2_INODE_SIZE(sb));
	return 0;
}

int ext_inode_write(struct ext *x, struct ext_inode *inode, struct err *err)
{
	errcode_t code = ext2fs_write_inode_full(x->e2, inode->ino, &inode->u.small,
						 EXT2_INODE_SIZE(x->e2->super));

	return ext_error(x, code, err, "writing", inode->ino);
}

int ext_dir_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err)
{
	int r = ext_inode_read(x, ino, inode, err);

	if (r < 0)
		return r;
	if (!LINUX_S_ISDIR(inode->u.small.i_mode))
		return err_set(err, ENOTDIR, "inode %u is not a directory", inode->ino);
	if (inode->u.small.i_links_count == 0)
		return ext_corrupt(err, inode->ino, "a directory that was deleted");
	if (ext_has(inode, EXT4_ENCRYPT_FL))
		return err_set(err, EOPNOTSUPP, "the directory (inode %u) is encrypted",
			       inode->ino);
	return 0;
}

uint64_t ext_inode_size(const struct ext_inode *inode)
{
	return EXT2_I_SIZE(&inode->u.small);
}

int ext_inode_set_size(struct ext *x, struct ext_inode *inode, uint64_t size, struct err *err)
{
	if (size > INT64_MAX)
		return err_set(err, EFBIG, "inode %u: a size of %llu bytes", inode->ino,
			       (unsigned long long)size);
	return ext_error(x, ext2fs_inode_size_set(x->e2, &inode->u.small, (ext2_off64_t)size), err,
			 "the size of", inode->ino);
}

/* ---- times ---- */

/* Where a time is: seconds, and with a large inode the extra word (nanoseconds << 2 | epoch). */
struct time_field {
	unsigned which;
	size_t sec, extra;
};

static const struct time_field time_fields[] = {
	{SET_ATIME, offsetof(struct ext2_inode_large, i_atime),
	 offsetof(struct ext2_inode_large, i_atime_extra)},
	{SET_MTIME, offsetof(struct ext2_inode_large, i_mtime),
	 offsetof(struct ext2_inode_large, i_mtime_extra)},
	{EXT_CTIME, offsetof(struct ext2_inode_large, i_ctime),
	 offsetof(struct ext2_inode_large, i_ctime_extra)},
	{EXT_BTIME, offsetof(struct ext2_inode_large, i_crtime),
	 offsetof(struct ext2_inode_large, i_crtime_extra)},
};

/* Whether the record has the word at that offset. */
static bool has_word(const struct ext_inode *inode, size_t offset)
{
	return offset + 4 <= EXT2_GOOD_OLD_INODE_SIZE + (size_t)inode->u.large.i_extra_isize;
}

static uint32_t word(const struct ext_inode *inode, size_t offset)
{
	uint32_t v;

	memcpy(&v, inode->u.raw + offset, sizeof(v));
	return v;
}

static struct agent_time get_time(const struct ext_inode *inode, unsigned which)
{
	struct agent_time t = {0};

	for (size_t i = 0; i < ARRAY_LEN(time_fields); i++) {
		const struct time_field *f = &time_fields[i];

		if (f->which != which)
			continue;
		if (f->sec < EXT2_GOOD_OLD_INODE_SIZE || has_word(inode, f->sec))
			t.sec = (int32_t)word(inode, f->sec);
		if (has_word(inode, f->extra)) {
			uint32_t extra = word(inode, f->extra);

			t.sec += (int64_t)(extra & EXT4_EPOCH_MASK) << 32;
			t.nsec = extra >> EXT4_EPOCH_BITS;
		}
	}
	if (t.nsec > 999999999)
		t.nsec = 999999999;
	return t;
}

void ext_set_time(struct ext_inode *inode, unsigned which, struct agent_time t)
{
	for (size_t i = 0; i < ARRAY_LEN(time_fields); i++) {
		const struct time_field *f = &time_fields[i];
		const bool wide = has_word(inode, f->extra);
		const int64_t max = wide ? INT64_C(0x37fffffff) : INT32_MAX;
		int64_t sec = t.sec < INT32_MIN ? INT32_MIN : t.sec > max ? max : t.sec;
		uint32_t low = (uint32_t)sec, extra;

		if (!(f->which & which))
			continue;
		if (f->sec < EXT2_GOOD_OLD_INODE_SIZE || has_word(inode, f->sec))
			memcpy(inode->u.raw + f->sec, &low, sizeof(low));
		extra = (uint32_t)((sec - (int32_t)low) >> 32) & EXT4_EPOCH_MASK;
		extra |= t.nsec << EXT4_EPOCH_BITS;
		if (wide)
			memcpy(inode->u.raw + f->extra, &extra, sizeof(extra));
	}
}

/* ---- stat ---- */

static void get_rdev(const struct ext2_inode *inode, struct agent_stat *st)
{
	uint32_t dev = inode->i_block[0];

	if (!LINUX_S_ISCHR(inode->i_mode) && !LINUX_S_ISBLK(inode->i_mode))
		return;
	if (dev) {
		st->rdev_major = dev >> 8 & 0xff;
		st->rdev_minor = dev & 0xff;
	} else {
		dev = inode->i_block[1];
		st->rdev_major = dev >> 8 & 0xfff;
		st->rdev_minor = (dev & 0xff) | (dev >> 12 & 0xfff00);
	}
}

int ext_stat(struct fs *fs, uint64_t ino, struct agent_stat *st, struct err *err)
{
	struct ext *x = ext_of(fs);
	struct ext_inode inode;
	int r = ext_inode_read(x, ino, &inode, err);

	if (r < 0)
		return r;
	*st = (struct agent_stat){
		.ino = ino,
		.mode = inode.u.small.i_mode,
		.nlink = inode.u.small.i_links_count,
		.uid = inode_uid(inode.u.small),
		.gid = inode_gid(inode.u.small),
		.size = ext_inode_size(&inode),
		.atime = get_time(&inode, SET_ATIME),
		.mtime = get_time(&inode, SET_MTIME),
		.ctime = get_time(&inode, EXT_CTIME),
		.btime = get_time(&inode, EXT_BTIME),
		.flags = inode.u.small.i_flags & EXT2_FL_USER_VISIBLE,
	};
	if (!mul_ok(ext2fs_get_stat_i_blocks(x->e2, &inode.u.small), 512, &st->allocated))
		return ext_corrupt(err, inode.ino, "a wild count of blocks");
	get_rdev(&inode.u.small, st);
	return 0;
}
