/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver of ext2, ext3 and ext4: what its files share.
 *
 * libext2fs knows the layout of superblocks, groups, inodes, bitmaps, checksums and extended
 * attributes, and edits extent trees. What is on the hot path or has to stand hostile input is
 * ours: the cache and requests (cache.c, manager.c), mapping (map.c), directories (dir.c, htree.c,
 * link.c), file data (file.c, write.c) and the journal (journal.c).
 *
 * No journal is written: a change clears "cleanly unmounted" in the superblock first and sets it
 * again, last of all, when everything is on the disk. A crash in between leaves a filesystem that
 * says that it needs a check.
 */
#ifndef IMGKIT_AGENT_EXT_EXT_H
#define IMGKIT_AGENT_EXT_EXT_H

#include <ext2fs/ext2fs.h>

#include "appliance/agent/ext/cache.h"
#include "appliance/agent/fs.h"
#include "base/bytes.h"

#define EXT_INODE_MAX 1024u /* bytes of an inode that we handle; larger ones are refused */

/* An inode in memory: the record on the disk is s_inode_size bytes. */
struct ext_inode {
	uint32_t ino;
	union {
		struct ext2_inode_large large;
		struct ext2_inode small;
		unsigned char raw[EXT_INODE_MAX];
	} u;
};

struct ext {
	struct fs fs;
	ext2_filsys e2;
	struct cache *cache;
	struct err io_err; /* why the last request of libext2fs failed */
	uint32_t bs;       /* bytes of a block */
	uint64_t blocks;   /* of the filesystem */
	bool changing;     /* ext_begin was called: the superblock says "not clean" */
	bool damaged;      /* a change failed half-way: the disk will go on saying so */
	uint32_t generation;
	unsigned char *node; /* a block: the node of an extent tree read last, see map.c */
	uint64_t node_block, node_generation;
	uint32_t node_ino;
	unsigned char *dirbuf[5]; /* blocks of a directory at work: htree.h says which */
	uint32_t goal_ino;        /* the file that was given blocks last, up to this block of it, */
	uint64_t goal_lblk, goal; /* and where it would go on */
	uint32_t room_dir;        /* the directory without index that got the last entry, and the */
	uint64_t room_block;      /* block of it where the next may fit */
};

static inline struct ext *ext_of(struct fs *fs)
{
	return container_of(fs, struct ext, fs);
}

io_manager ext_manager(void);

/* ---- super.c ---- */
void ext_library_init(void);
/* Turns an error of libext2fs into ours: "WHAT inode INO: …", ino 0 for none. 0 stays 0. */
int ext_error(struct ext *x, errcode_t code, struct err *err, const char *what, uint32_t ino);
/* -EUCLEAN: the fact about an inode. */
int ext_corrupt(struct err *err, uint32_t ino, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- change.c ---- */
int ext_write_super(struct ext *x, struct err *err);
/* Multiple mount protection, if there is: in use by us (-EBUSY: by another), or clean. */
int ext_mmp_set(struct ext *x, bool in_use, struct err *err);
/* Before the first change: bitmaps, orphans, "not clean". Each function that changes calls it. */
int ext_begin(struct ext *x, struct err *err);
/* Everything is on the disk, which still says "not clean". */
int ext_flush(struct ext *x, struct err *err);
/* And now it says "clean", unless a change failed half-way. */
int ext_end(struct ext *x, struct err *err);
/* Notes that a change ended with r; returns r. */
int ext_damaged(struct ext *x, int r);

/* ---- journal.c ---- */
/*
 * Replays a log that was left: onto the disk, or for the eyes of a read-only mount. What was read
 * of the filesystem before is old then. 1: it was done, and the journal carries an error.
 */
int ext_journal_replay(struct ext *x, struct err *err);
/* -EUCLEAN when the log is not empty although the superblock says so. */
int ext_journal_check(struct ext *x, struct err *err);

/* ---- orphan.c ---- */
int ext_orphans_finish(struct ext *x, struct err *err);

/* ---- inode.c ---- */
int ext_inode_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err);
int ext_inode_write(struct ext *x, struct ext_inode *inode, struct err *err);
/* Also checks that it is a directory that can be read. */
int ext_dir_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err);
uint64_t ext_inode_size(const struct ext_inode *inode);
int ext_inode_set_size(struct ext *x, struct ext_inode *inode, uint64_t size, struct err *err);
int ext_stat(struct fs *fs, uint64_t ino, struct agent_stat *st, struct err *err);
/* which: SET_ATIME, SET_MTIME of protocol.h, EXT_CTIME, EXT_BTIME. */
enum { EXT_CTIME = 1 << 16, EXT_BTIME = 1 << 17 };
void ext_set_time(struct ext_inode *inode, unsigned which, struct agent_time t);

static inline bool ext_has(const struct ext_inode *inode, uint32_t flag)
{
	return inode->u.small.i_flags & flag;
}

/* ---- map.c ---- */
enum ext_run_kind { EXT_HOLE, EXT_UNWRITTEN, EXT_DATA };
/* Blocks lblk … lblk + len - 1 of a file are at pblk …, unless it is a hole. */
struct ext_run {
	uint64_t lblk, pblk, len;
	enum ext_run_kind kind;
};
/* The run that begins at lblk: at least one block, at most `most`. */
int ext_map(struct ext *x, const struct ext_inode *inode, uint64_t lblk, uint64_t most,
	    struct ext_run *run, struct err *err);

/* ---- file.c ---- */
int ext_read(struct fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off, size_t *got,
	     struct err *err);
int ext_next_data(struct fs *fs, uint64_t ino, uint64_t off, uint64_t *start, uint64_t *end,
		  struct err *err);
/* The inode of a regular file whose content can be read. */
int ext_file_read(struct ext *x, uint64_t ino, struct ext_inode *inode, struct err *err);
/* Allocates *data. */
int ext_inline_get(struct ext *x, const struct ext_inode *inode, unsigned char **data, size_t *size,
		   struct err *err);
int ext_readlink(struct fs *fs, uint64_t ino, char *buf, size_t size, struct err *err);

/* ---- dir.c ---- */
/* A directory entry found: where it is. */
struct ext_slot {
	uint64_t lblk, pblk; /* block of the directory and where that is; of inline data: neither */
	uint32_t off;        /* of the entry, in the block or the inline data */
	uint32_t prev;       /* of the entry before it in the block; == off: it is the first */
	uint32_t ino;
	unsigned type; /* EXT2_FT_* */
};
struct ext_name {
	const char *s;
	size_t len;
};
/* An entry in a buffer, its lengths checked. */
struct ext_entry {
	struct ext2_dir_entry *e;
	unsigned len, type;
	struct ext_name name;
};
int ext_entry_at(struct ext *x, const struct ext_inode *dir, const unsigned char *buf, uint32_t off,
		 uint32_t end, struct ext_entry *out, struct err *err);
typedef int ext_entry_fn(void *arg, const struct ext_slot *slot, struct ext_name name,
			 struct err *err);
/* Positive results of ext_entry_fn end a walk and are returned. */
int ext_walk(struct ext *x, const struct ext_inode *dir, ext_entry_fn *fn, void *arg,
	     struct err *err);
/* One block into buf, checksum verified. */
int ext_dir_block(struct ext *x, const struct ext_inode *dir, uint64_t lblk, void *buf,
		  uint64_t *pblk, struct err *err);
int ext_walk_block(struct ext *x, const struct ext_inode *dir, const unsigned char *buf,
		   uint64_t lblk, uint64_t pblk, ext_entry_fn *fn, void *arg, struct err *err);
/* -ENOENT when there is none. */
int ext_find(struct ext *x, const struct ext_inode *dir, struct ext_name name,
	     struct ext_slot *slot, struct err *err);
/* 1 and *slot when the block has the name. */
int ext_find_in_block(struct ext *x, const struct ext_inode *dir, const unsigned char *buf,
		      uint64_t lblk, uint64_t pblk, struct ext_name name, struct ext_slot *slot,
		      struct err *err);
int ext_no_entry(struct err *err, struct ext_name name);
int ext_dir_blocks(struct ext *x, const struct ext_inode *dir, uint64_t *n, struct err *err);
bool ext_names_equal(struct ext *x, const struct ext_inode *dir, struct ext_name a,
		     struct ext_name b);
int ext_lookup(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t *ino,
	       struct err *err);
int ext_readdir(struct fs *fs, uint64_t dir, fs_entry_fn *fn, void *arg, struct err *err);

/* ---- htree.c ---- */
/* 1: the directory has no index that we can use. -ENOENT as ext_find. */
int ext_htree_find(struct ext *x, const struct ext_inode *dir, struct ext_name name,
		   struct ext_slot *slot, struct err *err);

/* ---- alloc.c ---- */
/* Gives the file up to n blocks from lblk on, where it has a hole. */
int ext_alloc(struct ext *x, struct ext_inode *inode, uint64_t lblk, uint64_t n,
	      struct ext_run *run, struct err *err);
/* Makes an unwritten run data. */
int ext_convert(struct ext *x, struct ext_inode *inode, const struct ext_run *run, struct err *err);

/* ---- write.c ---- */
/* EPERM for immutable and append-only inodes. */
int ext_may_change(const struct ext_inode *inode, struct err *err);
int ext_write(struct fs *fs, uint64_t ino, const void *buf, size_t len, uint64_t off,
	      struct err *err);
/* The caller writes the inode. */
int ext_truncate(struct ext *x, struct ext_inode *inode, uint64_t size, struct err *err);
/* Frees the blocks of a file from `from` (blocks) on. */
errcode_t ext_punch(struct ext *x, uint32_t ino, struct ext2_inode *inode, uint64_t from);
int ext_setattr(struct fs *fs, uint64_t ino, const struct fs_attr *attr, struct err *err);

/* ---- link.c ---- */
/* What an entry is to say. */
struct ext_child {
	struct ext_name name;
	uint32_t ino;
	unsigned type; /* EXT2_FT_* */
};
/* They keep the directory's inode on the disk, but for its times. The name is not there yet. */
int ext_dir_add(struct ext *x, struct ext_inode *dir, const struct ext_child *child,
		struct err *err);
int ext_dir_remove(struct ext *x, struct ext_inode *dir, struct ext_name name,
		   const struct ext_slot *slot, struct err *err);
/* The entry gets another inode. */
int ext_dir_point(struct ext *x, struct ext_inode *dir, const struct ext_child *child,
		  const struct ext_slot *slot, struct err *err);
/* Bytes of a block that entries may take. */
uint32_t ext_dir_room(const struct ext *x);
int ext_dir_write(struct ext *x, const struct ext_inode *dir, uint64_t pblk, void *buf,
		  struct err *err);
/* A new block at the end of the directory; its content is the caller's business. */
int ext_dir_append(struct ext *x, struct ext_inode *dir, uint64_t *lblk, uint64_t *pblk,
		   struct err *err);
void ext_block_init(struct ext *x, unsigned char *buf);
/* 1: done, 0: no room. */
int ext_block_insert(struct ext *x, const struct ext_inode *dir, unsigned char *buf,
		     const struct ext_child *child, struct err *err);
void ext_entry_fill(struct ext *x, unsigned char *buf, uint32_t off, uint32_t len,
		    const struct ext_child *child);

/* ---- create.c ---- */
int ext_create(struct fs *fs, uint64_t dir, const char *name, size_t len, const struct fs_new *what,
	       uint64_t *ino, struct err *err);
int ext_link(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t ino,
	     struct err *err);
int ext_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len, struct err *err);
int ext_rename(struct fs *fs, uint64_t from, const char *name, size_t len, uint64_t to,
	       const char *new_name, size_t new_len, struct err *err);
/* Gives back an inode without links, and all that it has. */
int ext_inode_free(struct ext *x, struct ext_inode *inode, struct err *err);

/* ---- mkfs.c ---- */
int ext_mkfs(const struct volume *vol, const char *type, const char *label, const char *uuid,
	     const char *options, struct err *err);

/* ---- xattr.c ---- */
/* Takes all of them away. */
int ext_xattrs_clear(struct ext *x, struct ext_inode *inode, struct err *err);
/* The ACL of an inode follows its new mode. */
int ext_acl_chmod(struct ext *x, struct ext_inode *inode, struct err *err);
int ext_xattr_set(struct fs *fs, uint64_t ino, const char *name, const void *buf, size_t len,
		  struct err *err);
int ext_xattr_remove(struct fs *fs, uint64_t ino, const char *name, struct err *err);
int ext_xattr_get(struct fs *fs, uint64_t ino, const char *name, void *buf, size_t size,
		  size_t *len, struct err *err);
int ext_xattr_list(struct fs *fs, uint64_t ino, char *buf, size_t size, size_t *len,
		   struct err *err);

#endif
