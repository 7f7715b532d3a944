/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A filesystem from its first change to its unmount.
 *
 * Before anything else the superblock on the disk says "not cleanly unmounted" (and the block of
 * mmp "in use"). At the end everything is written and flushed, and only then the superblock says
 * "clean": libext2fs flushes between the two.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/ext.h"

/* ---- multiple mount protection ---- */

static int mmp_read(struct ext *x, struct mmp_struct *mmp, struct err *err)
{
	const uint64_t block = x->e2->super->s_mmp_block;
	int r;

	if (block < x->e2->super->s_first_data_block || block == 0 || block >= x->blocks)
		return err_set(err, EUCLEAN, "the block of mmp is %llu of %llu",
			       (unsigned long long)block, (unsigned long long)x->blocks);
	r = cache_read(x->cache, mmp, sizeof(*mmp), block * x->bs, err);
	if (r == 0 && (mmp->mmp_magic != EXT4_MMP_MAGIC || !ext2fs_mmp_csum_verify(x->e2, mmp)))
		r = err_set(err, EUCLEAN, "the block of mmp is broken");
	return r;
}

static int mmp_write(struct ext *x, struct mmp_struct *mmp, uint32_t seq, struct err *err)
{
	mmp->mmp_seq = seq;
	mmp->mmp_time = (uint64_t)agent_now().sec;
	memset(mmp->mmp_nodename, 0, sizeof(mmp->mmp_nodename));
	memcpy(mmp->mmp_nodename, "img", sizeof("img"));
	ext2fs_mmp_csum_set(x->e2, mmp);
	return cache_write(x->cache, mmp, sizeof(*mmp), x->e2->super->s_mmp_block * x->bs, err);
}

int ext_mmp_set(struct ext *x, bool in_use, struct err *err)
{
	struct mmp_struct mmp;
	int r;

	if (!ext2fs_has_feature_mmp(x->e2->super))
		return 0;
	r = mmp_read(x, &mmp, err);
	if (r < 0)
		return r;
	if (in_use && mmp.mmp_seq != EXT4_MMP_SEQ_CLEAN)
		return err_set(err, EBUSY, "it is in use by another host (%.*s)",
			       (int)strnlen((const char *)mmp.mmp_nodename,
					    sizeof(mmp.mmp_nodename)),
			       (const char *)mmp.mmp_nodename);
	return mmp_write(x, &mmp,
			 in_use ? 1 + x->generation % EXT4_MMP_SEQ_MAX : EXT4_MMP_SEQ_CLEAN, err);
}

/* ---- begin, flush, end ---- */

int ext_write_super(struct ext *x, struct err *err)
{
	errcode_t code;

	ext2fs_mark_super_dirty(x->e2);
	x->e2->flags |= EXT2_FLAG_SUPER_ONLY;
	code = ext2fs_flush(x->e2);
	x->e2->flags &= ~EXT2_FLAG_SUPER_ONLY;
	return ext_error(x, code, err, "the superblock", 0);
}

int ext_begin(struct ext *x, struct err *err)
{
	errcode_t code;
	int r;

	if (x->damaged)
		return err_set(err, EUCLEAN, "a change failed half-way: run `img fsck`");
	if (x->changing)
		return 0;
	if (x->fs.rdonly)
		return err_set(err, EROFS, "the filesystem is mounted read-only");
	code = ext2fs_read_bitmaps(x->e2);
	if (code)
		return ext_error(x, code, err, "the bitmaps", 0);
	r = ext_mmp_set(x, true, err);
	if (r < 0)
		return r;
	x->e2->super->s_state &= (uint16_t)~EXT2_VALID_FS;
	r = ext_write_super(x, err);
	if (r < 0)
		return r;
	x->changing = true;
	r = ext_orphans_finish(x, err);
	/* Not one change with a list that could not be followed. */
	if (r < 0)
		x->damaged = true;
	return r;
}

int ext_flush(struct ext *x, struct err *err)
{
	ext2fs_mark_super_dirty(x->e2);
	return ext_error(x, ext2fs_flush(x->e2), err, "writing the filesystem", 0);
}

int ext_end(struct ext *x, struct err *err)
{
	int r;

	if (!x->damaged)
		x->e2->super->s_state |= EXT2_VALID_FS;
	r = ext_flush(x, err);
	if (r == 0)
		r = ext_mmp_set(x, false, err);
	if (r == 0)
		r = cache_flush(x->cache, err);
	if (r == 0 && x->damaged)
		r = err_set(err, EUCLEAN, "a change failed half-way: run `img fsck`");
	return r;
}

int ext_damaged(struct ext *x, int r)
{
	if (x->changing && (r == -EIO || r == -EUCLEAN || r == -ENOMEM))
		x->damaged = true;
	return r;
}
