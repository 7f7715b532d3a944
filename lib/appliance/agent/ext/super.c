/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting: the superblock is judged here before libext2fs sees it (features, geometry against the
 * size of the volume, tables of bounded size), the group descriptors after.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "appliance/agent/ext/ext.h"

#define DESC_BYTES_MAX (UINT64_C(32) << 20) /* of group descriptors: a filesystem of 64 TiB */

/* ---- errors ---- */

static const struct {
	errcode_t code;
	int error;
} library_errors[] = {
	{EXT2_ET_NO_MEMORY, ENOMEM},          {EXT2_ET_BLOCK_ALLOC_FAIL, ENOSPC},
	{EXT2_ET_INODE_ALLOC_FAIL, ENOSPC},   {EXT2_ET_DIR_NO_SPACE, ENOSPC},
	{EXT2_ET_CANT_SPLIT_EXTENT, ENOSPC},  {EXT2_ET_EA_NO_SPACE, ENOSPC},
	{EXT2_ET_EA_KEY_NOT_FOUND, ENODATA},  {EXT2_ET_EA_BAD_NAME_LEN, ERANGE},
	{EXT2_ET_RO_FILSYS, EROFS},           {EXT2_ET_FILE_TOO_BIG, EFBIG},
	{EXT2_ET_UNSUPP_FEATURE, EOPNOTSUPP}, {EXT2_ET_RO_UNSUPP_FEATURE, EOPNOTSUPP},
};

int ext_error(struct ext *x, errcode_t code, struct err *err, const char *what, uint32_t ino)
{
	int error = EUCLEAN;
	const char *text;

	if (code == 0)
		return 0;
	if (code > 0 && code < 4096) {
		error = (int)code;
		text = x->io_err.code == error ? x->io_err.msg : strerror(error);
	} else {
		text = error_message(code);
	}
	for (size_t i = 0; i < ARRAY_LEN(library_errors); i++)
		if (library_errors[i].code == code)
			error = library_errors[i].error;
	if (ino)
		return err_set(err, error, "%s inode %u: %s", what, ino, text);
	return err_set(err, error, "%s: %s", what, text);
}

int ext_corrupt(struct err *err, uint32_t ino, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, EUCLEAN, "inode %u: %s (img fsck repairs the filesystem)", ino, text);
}

/* ---- features ---- */

struct feature {
	uint32_t bit;
	const char *name;
	bool refused; /* known, but not handled */
};

static const struct feature incompat[] = {
	{EXT2_FEATURE_INCOMPAT_COMPRESSION, "compression", true},
	{EXT2_FEATURE_INCOMPAT_FILETYPE, "filetype", false},
	{EXT3_FEATURE_INCOMPAT_RECOVER, "needs_recovery", false},
	{EXT3_FEATURE_INCOMPAT_JOURNAL_DEV, "journal_dev", true},
	{EXT2_FEATURE_INCOMPAT_META_BG, "meta_bg", false},
	{EXT3_FEATURE_INCOMPAT_EXTENTS, "extent", false},
	{EXT4_FEATURE_INCOMPAT_64BIT, "64bit", false},
	{EXT4_FEATURE_INCOMPAT_MMP, "mmp", false},
	{EXT4_FEATURE_INCOMPAT_FLEX_BG, "flex_bg", false},
	{EXT4_FEATURE_INCOMPAT_EA_INODE, "ea_inode", false},
	{EXT4_FEATURE_INCOMPAT_DIRDATA, "dirdata", true},
	{EXT4_FEATURE_INCOMPAT_CSUM_SEED, "metadata_csum_seed", false},
	{EXT4_FEATURE_INCOMPAT_LARGEDIR, "large_dir", false},
	{EXT4_FEATURE_INCOMPAT_INLINE_DATA, "inline_data", false},
	{EXT4_FEATURE_INCOMPAT_ENCRYPT, "encrypt", false},
	{EXT4_FEATURE_INCOMPAT_CASEFOLD, "casefold", false},
};

/* Features with which a filesystem can be read by those who do not know them. */
static const struct feature ro_compat[] = {
	{EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER, "sparse_super", false},
	{EXT2_FEATURE_RO_COMPAT_LARGE_FILE, "large_file", false},
	{EXT4_FEATURE_RO_COMPAT_HUGE_FILE, "huge_file", false},
	{EXT4_FEATURE_RO_COMPAT_GDT_CSUM, "uninit_bg", false},
	{EXT4_FEATURE_RO_COMPAT_DIR_NLINK, "dir_nlink", false},
	{EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE, "extra_isize", false},
	{EXT4_FEATURE_RO_COMPAT_HAS_SNAPSHOT, "has_snapshot", true},
	/* The usage files would have to be kept. */
	{EXT4_FEATURE_RO_COMPAT_QUOTA, "quota", true},
	{EXT4_FEATURE_RO_COMPAT_BIGALLOC, "bigalloc", false},
	{EXT4_FEATURE_RO_COMPAT_METADATA_CSUM, "metadata_csum", false},
	{EXT4_FEATURE_RO_COMPAT_REPLICA, "replica", true},
	{EXT4_FEATURE_RO_COMPAT_READONLY, "read-only", true},
	{EXT4_FEATURE_RO_COMPAT_PROJECT, "project", false},
	{EXT4_FEATURE_RO_COMPAT_SHARED_BLOCKS, "shared_blocks", true},
	{EXT4_FEATURE_RO_COMPAT_VERITY, "verity", false},
	{EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT, "orphan_present", false},
};

static const struct feature compat[] = {
	{EXT2_FEATURE_COMPAT_DIR_PREALLOC, "dir_prealloc", false},
	{EXT2_FEATURE_COMPAT_IMAGIC_INODES, "imagic_inodes", true},
	{EXT3_FEATURE_COMPAT_HAS_JOURNAL, "has_journal", false},
	{EXT2_FEATURE_COMPAT_EXT_ATTR, "ext_attr", false},
	{EXT2_FEATURE_COMPAT_RESIZE_INODE, "resize_inode", false},
	{EXT2_FEATURE_COMPAT_DIR_INDEX, "dir_index", false},
	{EXT2_FEATURE_COMPAT_LAZY_BG, "lazy_bg", true},
	{EXT2_FEATURE_COMPAT_EXCLUDE_BITMAP, "exclude_bitmap", true},
	{EXT4_FEATURE_COMPAT_SPARSE_SUPER2, "sparse_super2", false},
	{EXT4_FEATURE_COMPAT_FAST_COMMIT, "fast_commit", false},
	{EXT4_FEATURE_COMPAT_STABLE_INODES, "stable_inodes", false},
	{EXT4_FEATURE_COMPAT_ORPHAN_FILE, "orphan_file", false},
};

/* Names the features of a word that we do not handle; their number. */
static unsigned name_refused(uint32_t word, const char *kind, const struct feature *known,
			     size_t n_known, char *names, size_t size)
{
	unsigned n = 0;

	for (unsigned bit = 0; bit < 32; bit++) {
		const struct feature *f = NULL;
		char unknown[24];
		size_t used = strlen(names);

		if (!(word & (UINT32_C(1) << bit)))
			continue;
		for (size_t i = 0; i < n_known; i++)
			if (known[i].bit == UINT32_C(1) << bit)
				f = &known[i];
		if (f && !f->refused)
			continue;
		snprintf(unknown, sizeof(unknown), "%s bit %u", kind, bit);
		snprintf(names + used, size - used, "%s%s", n ? ", " : "", f ? f->name : unknown);
		n++;
	}
	return n;
}

static int check_features(const struct ext2_super_block *sb, bool rdonly, struct err *err)
{
	char names[200] = "";

	if (sb->s_feature_incompat & EXT3_FEATURE_INCOMPAT_JOURNAL_DEV)
		return err_set(err, EOPNOTSUPP, "it is the external journal of another filesystem");
	if (name_refused(sb->s_feature_incompat, "incompat", incompat, ARRAY_LEN(incompat), names,
			 sizeof(names)))
		return err_set(err, EOPNOTSUPP, "it has features that are not supported: %s",
			       names);
	if (rdonly)
		return 0;
	if (name_refused(sb->s_feature_ro_compat, "ro_compat", ro_compat, ARRAY_LEN(ro_compat),
			 names, sizeof(names)) ||
	    name_refused(sb->s_feature_compat, "compat", compat, ARRAY_LEN(compat), names,
			 sizeof(names)))
		return err_set(err, EOPNOTSUPP, "it can only be read, because of its features: %s",
			       names);
	return 0;
}

/* ---- geometry ---- */

static int check_geometry(struct ext *x, const struct ext2_super_block *sb, struct err *err)
{
	uint64_t bytes, groups, desc;
	uint32_t isize = sb->s_rev_level ? sb->s_inode_size : EXT2_GOOD_OLD_INODE_SIZE;

	if (sb->s_log_block_size > EXT2_MAX_BLOCK_LOG_SIZE - EXT2_MIN_BLOCK_LOG_SIZE)
		return err_set(err, EUCLEAN, "the superblock has a block size of 2^%u KiB",
			       sb->s_log_block_size);
	x->bs = EXT2_MIN_BLOCK_SIZE << sb->s_log_block_size;
	x->blocks = sb->s_blocks_count;
	if (sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT)
		x->blocks |= (uint64_t)sb->s_blocks_count_hi << 32;
	if (!mul_ok(x->blocks, x->bs, &bytes) || bytes > x->fs.vol.size)
		return err_set(err, EUCLEAN,
			       "it has %llu blocks of %u bytes, more than the %llu bytes of the "
			       "volume",
			       (unsigned long long)x->blocks, x->bs,
			       (unsigned long long)x->fs.vol.size);
	if (!is_pow2(isize) || isize < EXT2_GOOD_OLD_INODE_SIZE || isize > x->bs)
		return err_set(err, EUCLEAN, "the superblock has inodes of %u bytes", isize);
	if (isize > EXT_INODE_MAX)
		return err_set(err, EOPNOTSUPP, "inodes of %u bytes are not supported", isize);
	if (sb->s_blocks_per_group == 0 || sb->s_inodes_per_group == 0)
		return err_set(err, EUCLEAN, "the superblock has groups of nothing");
	if (sb->s_first_data_block > 1 || sb->s_first_data_block >= x->blocks)
		return err_set(err, EUCLEAN, "the superblock has its first block at %u",
			       sb->s_first_data_block);
	groups = div_up(x->blocks - sb->s_first_data_block, sb->s_blocks_per_group);
	desc = sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT ? sb->s_desc_size : 32;
	if (groups > DESC_BYTES_MAX / max_u64(desc, 32))
		return err_set(err, EUCLEAN, "the superblock has %llu block groups",
			       (unsigned long long)groups);
	if (groups * sb->s_inodes_per_group != sb->s_inodes_count)
		return err_set(err, EUCLEAN,
			       "the superblock has %u inodes, not %u in each of %llu "
			       "groups",
			       sb->s_inodes_count, sb->s_inodes_per_group,
			       (unsigned long long)groups);
	return 0;
}

static int check_group(struct ext *x, dgrp_t g, struct err *err)
{
	const uint64_t first = x->e2->super->s_first_data_block;
	const uint64_t inodes = x->e2->inode_blocks_per_group;
	struct {
		const char *name;
		uint64_t block, len;
	} tables[] = {
		{"block bitmap", ext2fs_block_bitmap_loc(x->e2, g), 1},
		{"inode bitmap", ext2fs_inode_bitmap_loc(x->e2, g), 1},
		{"inode table", ext2fs_inode_table_loc(x->e2, g), inodes},
	};

	if (!ext2fs_group_desc_csum_verify(x->e2, g))
		return err_set(err, EUCLEAN, "the descriptor of group %u has a wrong checksum", g);
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		if (tables[i].block < first || tables[i].block >= x->blocks ||
		    tables[i].len > x->blocks - tables[i].block)
			return err_set(err, EUCLEAN, "the %s of group %u is at block %llu of %llu",
				       tables[i].name, g, (unsigned long long)tables[i].block,
				       (unsigned long long)x->blocks);
	return 0;
}

/* ---- mount ---- */

static void silent(const char *who, errcode_t code, const char *fmt, va_list ap)
{
	(void)who;
	(void)code;
	(void)fmt;
	(void)ap;
}

/* Nothing of the library may print; its error numbers get texts. */
void ext_library_init(void)
{
	set_com_err_hook(silent);
	initialize_ext2_error_table();
}

static int open_library(struct ext *x, struct err *err)
{
	char name[32];
	int flags = EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP | (x->fs.rdonly ? 0 : EXT2_FLAG_RW);
	uint64_t blocks = 0;
	uint32_t inodes = 0;
	errcode_t code;
	int r = 0;

	snprintf(name, sizeof(name), "%llx", (unsigned long long)(uintptr_t)x);
	code = ext2fs_open2(name, NULL, flags, 0, 0, ext_manager(), &x->e2);
	if (code)
		return ext_error(x, code, err, "the superblock", 0);
	x->e2->now = agent_now().sec;
	if (x->blocks <= UINT32_C(64) << 20)
		x->e2->default_bitmap_type = EXT2FS_BMAP64_BITARRAY;
	for (dgrp_t g = 0; r == 0 && g < x->e2->group_desc_count; g++) {
		r = check_group(x, g, err);
		blocks += ext2fs_bg_free_blocks_count(x->e2, g);
		inodes += ext2fs_bg_free_inodes_count(x->e2, g);
	}
	/* The kernel keeps these in the superblock when it unmounts only. */
	ext2fs_free_blocks_count_set(x->e2->super, blocks << x->e2->cluster_ratio_bits);
	x->e2->super->s_free_inodes_count = inodes;
	return r;
}

static int read_super(struct ext *x, struct ext2_super_block *sb, struct err *err)
{
	int r = cache_read(x->cache, sb, sizeof(*sb), SUPERBLOCK_OFFSET, err);

	if (r < 0)
		return r;
	if (sb->s_magic != EXT2_SUPER_MAGIC)
		return err_set(err, EUCLEAN, "there is no superblock of ext2, ext3 or ext4");
	if (sb->s_rev_level > EXT2_DYNAMIC_REV)
		return err_set(err, EOPNOTSUPP, "revision %u of the format is not supported",
			       sb->s_rev_level);
	return 0;
}

/* An unclean filesystem may lack anything: its bitmaps cannot be trusted. */
static int check_state(const struct ext2_super_block *sb, struct err *err)
{
	if (sb->s_state & EXT2_ERROR_FS)
		return err_set(err, EUCLEAN,
			       "errors were found in it: run `img fsck` before it "
			       "is written to");
	if (!(sb->s_state & EXT2_VALID_FS))
		return err_set(err, EUCLEAN,
			       "it was not unmounted cleanly: run `img fsck` before "
			       "it is written to");
	return 0;
}

static void ext_free(struct ext *x)
{
	if (x->e2)
		ext2fs_free(x->e2);
	cache_close(x->cache);
	free(x->node);
	for (size_t i = 0; i < ARRAY_LEN(x->dirbuf); i++)
		free(x->dirbuf[i]);
	free(x);
}

static int alloc_buffers(struct ext *x, struct err *err)
{
	x->node = malloc(x->bs);
	for (size_t i = 0; i < ARRAY_LEN(x->dirbuf); i++) {
		x->dirbuf[i] = malloc(x->bs);
		if (!x->dirbuf[i])
			return err_nomem(err, x->bs, "a block");
	}
	return x->node ? 0 : err_nomem(err, x->bs, "a block");
}

/* From the superblock to the library's view of it. */
static int open_filesystem(struct ext *x, struct err *err)
{
	struct ext2_super_block sb;
	int r = read_super(x, &sb, err);

	if (r == 0)
		r = check_features(&sb, x->fs.rdonly, err);
	if (r == 0)
		r = check_geometry(x, &sb, err);
	return r < 0 ? r : open_library(x, err);
}

/* A log that was left may change anything: all that was read is read again. */
static int recover(struct ext *x, struct err *err)
{
	const uint32_t bs = x->bs;
	int failed, r = x->fs.rdonly ? 0 : ext_mmp_set(x, true, err);

	if (r < 0)
		return r;
	failed = ext_journal_replay(x, err);
	if (failed < 0)
		return failed;
	ext2fs_free(x->e2);
	x->e2 = NULL;
	x->node_block = 0;
	r = open_filesystem(x, err);
	if (r < 0)
		return r;
	if (x->bs != bs)
		return err_set(err, EUCLEAN, "the journal changes the size of blocks");
	if (failed)
		x->e2->super->s_state |= EXT2_ERROR_FS;
	if (x->fs.rdonly)
		return 0;
	ext2fs_clear_feature_journal_needs_recovery(x->e2->super);
	r = ext_write_super(x, err);
	return r < 0 ? r : ext_mmp_set(x, false, err);
}

static int mount_steps(struct ext *x, struct err *err)
{
	const struct ext2_super_block *sb;
	int r = cache_open(&x->fs.vol, x->fs.rdonly, &x->cache, err);

	if (r == 0)
		r = open_filesystem(x, err);
	if (r == 0)
		r = alloc_buffers(x, err);
	if (r < 0)
		return r;
	sb = x->e2->super;
	if (ext2fs_has_feature_journal_needs_recovery(x->e2->super))
		r = recover(x, err);
	else if (ext2fs_has_feature_journal(x->e2->super) && sb->s_journal_inum && !x->fs.rdonly)
		r = ext_journal_check(x, err);
	if (r == 0 && !x->fs.rdonly)
		r = check_state(x->e2->super, err);
	return r;
}

static int ext_mount(const struct volume *vol, const char *type, bool rdonly, struct fs **fs,
		     struct err *err)
{
	struct ext *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return err_nomem(err, sizeof(*x), "the mount");
	ext_library_init();
	x->fs.driver = &ext_driver;
	x->fs.vol = *vol;
	x->fs.rdonly = rdonly;
	x->fs.root = EXT2_ROOT_INO;
	snprintf(x->fs.type, sizeof(x->fs.type), "%s", type);
	if (getrandom(&x->generation, sizeof(x->generation), 0) < 0)
		x->generation = (uint32_t)agent_now().nsec;
	r = mount_steps(x, err);
	if (r < 0) {
		ext_free(x);
		return err_ctx(err, r, "the %s filesystem", type);
	}
	*fs = &x->fs;
	return 0;
}

static int ext_sync(struct fs *fs, struct err *err)
{
	struct ext *x = ext_of(fs);

	return x->changing ? ext_flush(x, err) : 0;
}

static int ext_unmount(struct fs *fs, struct err *err)
{
	struct ext *x = ext_of(fs);
	int r = x->changing ? ext_end(x, err) : 0;

	ext_free(x);
	return r;
}

static int ext_space(struct fs *fs, struct fs_space *out, struct err *err)
{
	struct ext *x = ext_of(fs);
	const struct ext2_super_block *sb = x->e2->super;
	uint64_t reserved = ext2fs_r_blocks_count(x->e2->super), overhead;

	(void)err;
	overhead = (uint64_t)sb->s_overhead_clusters << x->e2->cluster_ratio_bits;
	*out = (struct fs_space){
		.block = x->bs,
		.blocks = x->blocks - min_u64(x->blocks, overhead),
		.free = min_u64(ext2fs_free_blocks_count(x->e2->super), x->blocks),
		.files = sb->s_inodes_count,
		.files_free = min_u64(sb->s_free_inodes_count, sb->s_inodes_count),
	};
	out->available = out->free - min_u64(out->free, reserved);
	return 0;
}

static const char *const ext_types[] = {"ext4", "ext3", "ext2", "ext4dev", NULL};

const struct fs_driver ext_driver = {
	.types = ext_types,
	.mount = ext_mount,
	.unmount = ext_unmount,
	.sync = ext_sync,
	.space = ext_space,
	.lookup = ext_lookup,
	.stat = ext_stat,
	.readlink = ext_readlink,
	.readdir = ext_readdir,
	.read = ext_read,
	.next_data = ext_next_data,
	.xattr_get = ext_xattr_get,
	.xattr_list = ext_xattr_list,
	.create = ext_create,
	.link = ext_link,
	.unlink = ext_unlink,
	.rename = ext_rename,
	.write = ext_write,
	.setattr = ext_setattr,
	.xattr_set = ext_xattr_set,
	.xattr_remove = ext_xattr_remove,
	.mkfs = ext_mkfs,
};
