/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a filesystem, with the defaults that mke2fs takes from its mke2fs.conf: features by type,
 * sizes by the size of the volume. libext2fs lays out the groups; what stands in them at the start
 * (root, lost+found, reserved inodes, journal) is made here in mke2fs's order.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "appliance/agent/ext/ext.h"

struct plan {
	struct ext2_super_block sb; /* for ext2fs_initialize */
	uint64_t ratio;             /* bytes of the volume for each inode */
	uint64_t inodes;            /* 0: by the ratio */
	uint32_t bs, isize;
	unsigned char uuid[16], hash_seed[16];
};

/* ---- features ---- */

enum word { COMPAT, INCOMPAT, RO_COMPAT };

static const struct feature {
	const char *name;
	enum word word;
	uint32_t bit;
} features[] = {
	{"has_journal", COMPAT, EXT3_FEATURE_COMPAT_HAS_JOURNAL},
	{"ext_attr", COMPAT, EXT2_FEATURE_COMPAT_EXT_ATTR},
	{"resize_inode", COMPAT, EXT2_FEATURE_COMPAT_RESIZE_INODE},
	{"dir_index", COMPAT, EXT2_FEATURE_COMPAT_DIR_INDEX},
	{"orphan_file", COMPAT, EXT4_FEATURE_COMPAT_ORPHAN_FILE},
	{"filetype", INCOMPAT, EXT2_FEATURE_INCOMPAT_FILETYPE},
	{"extent", INCOMPAT, EXT3_FEATURE_INCOMPAT_EXTENTS},
	{"extents", INCOMPAT, EXT3_FEATURE_INCOMPAT_EXTENTS},
	{"64bit", INCOMPAT, EXT4_FEATURE_INCOMPAT_64BIT},
	{"flex_bg", INCOMPAT, EXT4_FEATURE_INCOMPAT_FLEX_BG},
	{"ea_inode", INCOMPAT, EXT4_FEATURE_INCOMPAT_EA_INODE},
	{"metadata_csum_seed", INCOMPAT, EXT4_FEATURE_INCOMPAT_CSUM_SEED},
	{"large_dir", INCOMPAT, EXT4_FEATURE_INCOMPAT_LARGEDIR},
	{"inline_data", INCOMPAT, EXT4_FEATURE_INCOMPAT_INLINE_DATA},
	{"sparse_super", RO_COMPAT, EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER},
	{"large_file", RO_COMPAT, EXT2_FEATURE_RO_COMPAT_LARGE_FILE},
	{"huge_file", RO_COMPAT, EXT4_FEATURE_RO_COMPAT_HUGE_FILE},
	{"uninit_bg", RO_COMPAT, EXT4_FEATURE_RO_COMPAT_GDT_CSUM},
	{"dir_nlink", RO_COMPAT, EXT4_FEATURE_RO_COMPAT_DIR_NLINK},
	{"extra_isize", RO_COMPAT, EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE},
	{"metadata_csum", RO_COMPAT, EXT4_FEATURE_RO_COMPAT_METADATA_CSUM},
};

static const char base[] = "sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr";
static const struct {
	const char *type, *more;
} types[] = {
	{"ext2", ""},
	{"ext3", "has_journal"},
	{"ext4", "has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize"},
};

static bool set_feature(struct ext2_super_block *sb, const char *name, size_t len)
{
	const bool clear = len && name[0] == '^';

	name += clear;
	len -= clear;
	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		const struct feature *f = &features[i];
		uint32_t *words[] = {&sb->s_feature_compat, &sb->s_feature_incompat,
				     &sb->s_feature_ro_compat};

		if (strlen(f->name) != len || memcmp(f->name, name, len) != 0)
			continue;
		if (clear)
			*words[f->word] &= ~f->bit;
		else
			*words[f->word] |= f->bit;
		return true;
	}
	return false;
}

/* ---- options ---- */

static bool parse_uuid(const char *text, unsigned char uuid[16])
{
	unsigned n = 0;

	for (const char *p = text; *p && n < 32; p++) {
		const char *digits = "0123456789abcdef", *d = strchr(digits, *p | 0x20);

		if (*p == '-' &&
		    (p - text == 8 || p - text == 13 || p - text == 18 || p - text == 23))
			continue;
		if (!d || !*d)
			return false;
		uuid[n / 2] = (unsigned char)(uuid[n / 2] << 4 | (d - digits));
		n++;
	}
	return n == 32 && strlen(text) == 36;
}

static int random_uuid(unsigned char uuid[16], struct err *err)
{
	if (getrandom(uuid, 16, 0) != 16)
		return err_sys(err, errno, "no random numbers");
	uuid[6] = (unsigned char)((uuid[6] & 0x0f) | 0x40);
	uuid[8] = (unsigned char)((uuid[8] & 0x3f) | 0x80);
	return 0;
}

static bool parse_number(const char *text, uint64_t *v)
{
	char *end;

	errno = 0;
	*v = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

/* name=value: what mke2fs has -b, -I, -i, -N and -E hash_seed for. */
static bool set_value(struct plan *p, const char *name, const char *value)
{
	uint64_t n = 0;

	if (strcmp(name, "hash_seed") == 0)
		return parse_uuid(value, p->hash_seed);
	if (!parse_number(value, &n))
		return false;
	if (strcmp(name, "block_size") == 0)
		p->bs = (uint32_t)n;
	else if (strcmp(name, "inode_size") == 0)
		p->isize = (uint32_t)n;
	else if (strcmp(name, "inode_ratio") == 0)
		p->ratio = n;
	else if (strcmp(name, "inodes") == 0)
		p->inodes = n;
	else
		return false;
	return n <= UINT32_MAX;
}

static int set_options(struct plan *p, const char *options, struct err *err)
{
	while (*options) {
		size_t len = strcspn(options, ",");
		char word[80], *value;

		if (len >= sizeof(word))
			return err_set(err, EINVAL, "an option of %zu bytes", len);
		memcpy(word, options, len);
		word[len] = '\0';
		options += len + (options[len] == ',');
		value = strchr(word, '=');
		if (value) {
			*value++ = '\0';
			if (!set_value(p, word, value))
				return err_set(err, EINVAL,
					       "the option %s=%s is not known, or its "
					       "value is no good",
					       word, value);
		} else if (len && !set_feature(&p->sb, word, len)) {
			return err_set(err, EINVAL,
				       "the feature %s cannot be given to a new "
				       "filesystem",
				       word);
		}
	}
	return 0;
}

/* ---- the plan ---- */

/* Sizes that mke2fs.conf has for floppy, small, default, big and huge. */
static void plan_sizes(struct plan *p, uint64_t bytes)
{
	p->isize = 256;
	p->bs = 4096;
	p->ratio = 16384;
	if (bytes < 3 * MiB) {
		p->bs = 1024;
		p->ratio = 8192;
	} else if (bytes < 512 * MiB) {
		p->bs = 1024;
		p->ratio = 4096;
	} else if (bytes >= 16 * TiB) {
		p->ratio = 65536;
	} else if (bytes >= 4 * TiB) {
		p->ratio = 32768;
	}
}

static int plan_check(struct plan *p, uint64_t bytes, struct err *err)
{
	struct ext2_super_block *sb = &p->sb;
	uint64_t blocks, inodes;

	if (!is_pow2(p->bs) || p->bs < 1024 || p->bs > 65536)
		return err_set(err, EINVAL, "blocks of %u bytes: 1024 … 65536 are possible", p->bs);
	if (!is_pow2(p->isize) || p->isize < 128 || p->isize > EXT_INODE_MAX || p->isize > p->bs)
		return err_set(err, EINVAL, "inodes of %u bytes: 128 … %u are possible", p->isize,
			       EXT_INODE_MAX);
	if (p->ratio < 1024)
		return err_set(err, EINVAL, "an inode for each %llu bytes: 1024 is the least",
			       (unsigned long long)p->ratio);
	/* As mke2fs: whole pages. */
	blocks = round_down(bytes, max_u64(p->bs, 4096)) / p->bs;
	if (blocks < 60)
		return err_set(err, ENOSPC, "%llu bytes are too few for a filesystem",
			       (unsigned long long)bytes);
	if (blocks > UINT32_MAX && !(sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT))
		return err_set(err, EFBIG, "%llu blocks need the feature 64bit",
			       (unsigned long long)blocks);
	inodes = p->inodes ? p->inodes : blocks * p->bs / p->ratio;
	/* The reserved ones, lost+found and a few. */
	inodes = min_u64(max_u64(inodes, 16), UINT32_MAX);
	sb->s_rev_level = EXT2_DYNAMIC_REV;
	sb->s_log_block_size = log2_u64(p->bs) - EXT2_MIN_BLOCK_LOG_SIZE;
	sb->s_log_cluster_size = sb->s_log_block_size;
	sb->s_inode_size = (uint16_t)p->isize;
	sb->s_inodes_count = (uint32_t)inodes;
	ext2fs_blocks_count_set(sb, blocks);
	ext2fs_r_blocks_count_set(sb, blocks / 20);
	if (sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT)
		sb->s_desc_size = EXT2_MIN_DESC_SIZE_64BIT;
	if (sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_FLEX_BG)
		sb->s_log_groups_per_flex = 4;
	/* The one implies the other, with better checksums. */
	if (sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM)
		sb->s_feature_ro_compat &= ~(uint32_t)EXT4_FEATURE_RO_COMPAT_GDT_CSUM;
	return 0;
}

static int plan_make(struct plan *p, uint64_t bytes, const char *type, const char *uuid,
		     const char *options, struct err *err)
{
	const char *more = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strcmp(types[i].type, type) == 0)
			more = types[i].more;
	if (!more)
		return err_set(err, EOPNOTSUPP, "filesystems of type %s cannot be made", type);
	plan_sizes(p, bytes);
	r = random_uuid(p->hash_seed, err);
	if (r == 0)
		r = random_uuid(p->uuid, err);
	if (r == 0 && uuid[0] && !parse_uuid(uuid, p->uuid))
		r = err_set(err, EINVAL, "%s is no UUID", uuid);
	if (r == 0)
		r = set_options(p, base, err);
	if (r == 0)
		r = set_options(p, more, err);
	if (r == 0)
		r = set_options(p, options, err);
	return r < 0 ? r : plan_check(p, bytes, err);
}

/* ---- what is in a new filesystem ---- */

static void set_super(struct ext *x, const struct plan *p, const char *label)
{
	struct ext2_super_block *sb = x->e2->super;

	x->e2->now = agent_now().sec;
	memcpy(sb->s_uuid, p->uuid, sizeof(sb->s_uuid));
	memcpy(sb->s_hash_seed, p->hash_seed, sizeof(sb->s_hash_seed));
	memcpy(sb->s_volume_name, label, strnlen(label, EXT2_LABEL_LEN));
	if (ext2fs_has_feature_metadata_csum(sb))
		sb->s_checksum_type = EXT2_CRC32C_CHKSUM;
	if (ext2fs_has_feature_csum_seed(sb))
		sb->s_checksum_seed = ext2fs_crc32c_le(~0U, sb->s_uuid, sizeof(sb->s_uuid));
	ext2fs_init_csum_seed(x->e2);
	sb->s_def_hash_version = EXT2_HASH_HALF_MD4;
	sb->s_flags |= EXT2_FLAGS_SIGNED_HASH;
	sb->s_max_mnt_count = -1;
	sb->s_checkinterval = 0;
	sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	sb->s_kbytes_written = 1;
}

/* Old signatures of other filesystems go, and old inodes. */
static int clear_old(struct ext *x, struct err *err)
{
	const uint64_t inodes = x->e2->inode_blocks_per_group;
	int r = cache_zero(x->cache, 0, 65536, err);

	if (r == 0 && x->fs.vol.size >= 131072)
		r = cache_zero(x->cache, round_down(x->fs.vol.size, 4096) - 65536, 65536, err);
	for (dgrp_t g = 0; r == 0 && g < x->e2->group_desc_count; g++) {
		r = cache_zero(x->cache, ext2fs_inode_table_loc(x->e2, g) * x->bs, inodes * x->bs,
			       err);
		if (ext2fs_has_group_desc_csum(x->e2))
			ext2fs_bg_flags_set(x->e2, g, EXT2_BG_INODE_ZEROED);
		ext2fs_group_desc_csum_set(x->e2, g);
	}
	return r;
}

static errcode_t make_lost_found(ext2_filsys e2)
{
	const uint32_t bs = e2->blocksize;
	ext2_ino_t ino;
	errcode_t code;

	e2->umask = 077;
	code = ext2fs_mkdir(e2, EXT2_ROOT_INO, 0, "lost+found");
	if (code == 0)
		code = ext2fs_lookup(e2, EXT2_ROOT_INO, "lost+found", 10, NULL, &ino);
	/* Room for names without a search for blocks: 16 KiB, or two blocks. */
	for (uint32_t size = 2 * bs;
	     code == 0 && (size <= 16384 || size == 2 * bs) && size / bs <= EXT2_NDIR_BLOCKS;
	     size += bs)
		code = ext2fs_expand_dir(e2, ino);
	return code;
}

static errcode_t make_reserved(ext2_filsys e2)
{
	errcode_t code;

	for (ext2_ino_t i = EXT2_ROOT_INO + 1; i < EXT2_FIRST_INODE(e2->super); i++)
		ext2fs_inode_alloc_stats2(e2, i, +1, 0);
	ext2fs_inode_alloc_stats2(e2, EXT2_BAD_INO, +1, 0);
	ext2fs_mark_ib_dirty(e2);
	code = ext2fs_update_bb_inode(e2, NULL);
	if (code == 0 && ext2fs_has_feature_resize_inode(e2->super))
		code = ext2fs_create_resize_inode(e2);
	return code;
}

/* A volume that is too small for a journal gets none, as with mke2fs. */
static errcode_t make_journal(ext2_filsys e2)
{
	struct ext2fs_journal_params params;
	errcode_t code;

	if (!ext2fs_has_feature_journal(e2->super))
		return 0;
	if (ext2fs_get_journal_params(&params, e2) != 0 || params.num_journal_blocks == 0) {
		ext2fs_clear_feature_journal(e2->super);
		ext2fs_clear_feature_orphan_file(e2->super);
		return 0;
	}
	code = ext2fs_add_journal_inode3(e2, &params, ~UINT64_C(0), EXT2_MKJOURNAL_NO_MNT_CHECK);
	if (code == 0)
		e2->super->s_overhead_clusters +=
			EXT2FS_NUM_B2C(e2, params.num_journal_blocks + params.num_fc_blocks);
	return code;
}

static int make_content(struct ext *x, struct err *err)
{
	ext2_filsys e2 = x->e2;
	blk64_t overhead = 0;
	errcode_t code = ext2fs_allocate_tables(e2);
	int r;

	if (code == 0)
		code = ext2fs_count_used_clusters(e2, e2->super->s_first_data_block,
						  ext2fs_blocks_count(e2->super) - 1, &overhead);
	if (code)
		return ext_error(x, code, err, "the tables", 0);
	e2->super->s_overhead_clusters = (uint32_t)overhead + e2->super->s_first_data_block;
	r = clear_old(x, err);
	if (r < 0)
		return r;
	code = ext2fs_mkdir(e2, EXT2_ROOT_INO, EXT2_ROOT_INO, NULL);
	if (code == 0)
		code = make_lost_found(e2);
	if (code == 0)
		code = make_reserved(e2);
	if (code == 0)
		code = make_journal(e2);
	if (code == 0 && ext2fs_has_feature_orphan_file(e2->super))
		code = ext2fs_create_orphan_file(e2, (blk_t)ext2fs_default_orphan_file_blocks(e2));
	if (code == 0)
		code = ext2fs_flush(e2);
	return ext_error(x, code, err, "the new filesystem", 0);
}

static int mkfs_steps(struct ext *x, struct plan *p, const char *label, struct err *err)
{
	char name[32];
	errcode_t code;
	int r = cache_open(&x->fs.vol, false, &x->cache, err);

	if (r < 0)
		return r;
	x->bs = p->bs;
	snprintf(name, sizeof(name), "%llx", (unsigned long long)(uintptr_t)x);
	code = ext2fs_initialize(name, EXT2_FLAG_64BITS, &p->sb, ext_manager(), &x->e2);
	if (code)
		return ext_error(x, code, err, "the new filesystem", 0);
	set_super(x, p, label);
	return make_content(x, err);
}

int ext_mkfs(const struct volume *vol, const char *type, const char *label, const char *uuid,
	     const char *options, struct err *err)
{
	struct plan *p = calloc(1, sizeof(*p));
	struct ext *x = calloc(1, sizeof(*x));
	int r;

	if (!p || !x) {
		free(p);
		free(x);
		return err_nomem(err, sizeof(*x), "the new filesystem");
	}
	ext_library_init();
	x->fs.vol = *vol;
	r = plan_make(p, vol->size, type, uuid, options, err);
	if (r == 0 && strlen(label) > EXT2_LABEL_LEN)
		r = err_set(err, EINVAL, "a label of %zu bytes: %u are possible", strlen(label),
			    EXT2_LABEL_LEN);
	if (r == 0)
		r = mkfs_steps(x, p, label, err);
	if (x->e2)
		ext2fs_free(x->e2);
	cache_close(x->cache);
	free(x);
	free(p);
	return r;
}
