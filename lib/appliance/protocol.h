/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the library and the agent say to each other.
 *
 * Two byte streams, requests and replies, of frames: a header of 16 bytes and up to
 * FRAME_PAYLOAD_MAX bytes. Integers are little-endian; text is a u32 length and bytes without NUL.
 * Neither side trusts the other: the agent's memory belongs to whoever wrote the disk.
 *
 *     library                       agent
 *                                   HELLO version, limits
 *     CALL op, arguments
 *     [DATA … END]                  [DATA …] [PROGRESS …]      as the op says
 *     [CANCEL]                      DONE result | FAIL errno, text
 *
 * One call at a time. FAIL may come while the library still sends DATA: the agent drops what
 * follows up to END or CANCEL, one of which ends the DATA of a call. After CANCEL the agent ends
 * the call with DONE or FAIL ECANCELED, and leaves the filesystem consistent; a CANCEL that comes
 * too late is dropped. A frame that is malformed ends the conversation.
 */
#ifndef IMGKIT_APPLIANCE_PROTOCOL_H
#define IMGKIT_APPLIANCE_PROTOCOL_H

#include <stdint.h>

#include "base/bytes.h"

#define AGENT_PROTOCOL 1 /* changes with every incompatible change */

/* What the agent finds when it starts: requests, replies, its log, and then the disks. */
enum { AGENT_FD_IN = 0, AGENT_FD_OUT = 1, AGENT_FD_LOG = 2, AGENT_FD_DISK = 3 };
#define AGENT_DISKS_MAX 26u /* disk 0 is called sda: one letter */

#define FRAME_PAYLOAD_MAX (UINT32_C(1) << 20)
#define FRAME_HEADER      16

struct frame_header {
	le32 length; /* 0x00: bytes of payload that follow, <= FRAME_PAYLOAD_MAX */
	le16 type;   /* 0x04: enum frame_type */
	le16 op;     /* 0x06: of CALL: enum agent_op; else 0 */
	le32 call; /* 0x08: number of the call: of its CALL, and of every frame that belongs to it */
	le32 zero; /* 0x0c */
};
_Static_assert(sizeof(struct frame_header) == FRAME_HEADER, "packed");

enum frame_type {
	/* From the library. */
	FRAME_CALL = 1,
	FRAME_END = 3, /* of the DATA of a call */
	FRAME_CANCEL = 4,
	/* From both. */
	FRAME_DATA = 2,
	/* From the agent. */
	FRAME_HELLO = 16,    /* u32 AGENT_PROTOCOL, u32 number of disks */
	FRAME_PROGRESS = 17, /* u64 done, u64 total (0: not known); what they count, the op says */
	FRAME_DONE = 18,     /* the op's result */
	FRAME_FAIL = 19,     /* u32 errno, text */
};

#define AGENT_NAME_MAX  255u  /* bytes of a file name */
#define AGENT_PATH_MAX  4096u /* bytes of a path, and of a symbolic link's target */
#define AGENT_MODES     8192u
#define AGENT_XATTR_MAX 65536u /* bytes of the value of an extended attribute */

/*
 * A volume is a disk (part 0) or one of its partitions, and is named by two u32: disk, part.
 * Paths are absolute, in the tree that the mounts make; symbolic links are followed inside it, and
 * ".." never leads out of it. "path!" below: a link at the end of the path is not followed.
 *
 * STAT is: u64 device (of the mount: its index), u64 inode, u32 mode (as in struct stat), u32 links,
 * u32 uid, u32 gid, u32 rdev major, u32 rdev minor, u64 size in bytes, u64 allocated bytes,
 * 4 × (u64 seconds as two's complement, u32 nanoseconds): access, modification, change, birth time;
 * u32 flags (as FS_IOC_GETFLAGS).
 */
enum agent_op {
	/* () → n × volume; u32 count first. See struct agent_volume: its fields in order. */
	OP_VOLUMES = 1,
	/* (volume, text mountpoint, u32 flags) → (text type). Mount point "/" first. */
	OP_MOUNT,
	/*
	 * (u32 flags) → (u32 count, count × (volume, text mountpoint, text type), u32 count, count ×
	 * text note): mounts the root of the one operating system on the disks and what its
	 * /etc/fstab names; a note says what of it was left out, and why. FAIL ENOENT: none,
	 * ENOTUNIQ: several (text names them).
	 */
	OP_MOUNT_ROOT,
	/* () → (): all; what was written is on the disks. */
	OP_UNMOUNT,
	/* () → (): flush all. */
	OP_SYNC,

	/* (text path, u32 follow) → (STAT). */
	OP_STAT = 16,
	/* (text path!) → (text target). */
	OP_READLINK,
	/* (text path) → DATA of records: (text name, STAT); DONE (). Without . and ..; mode 0: the
	 * inode of the entry cannot be read. Records are never split over two frames. */
	OP_READDIR,
	/* (text path) → (text type, u32 block size, u64 blocks, free, available, files, files free,
	 *  volume, text mountpoint). */
	OP_STATFS,
	/* (text path, u64 offset, u64 length) → DATA of bytes, in order; DONE (u64 size of the file).
	 * Ends at the end of the file. */
	OP_READ,
	/* (text path, u32 flags) → DATA of stream records (below); DONE (). */
	OP_EXPORT,
	/* (text path!, text name) → (u32 length, bytes). FAIL ENODATA. */
	OP_XATTR_GET,
	/* (text path!) → (u32 count, count × text). */
	OP_XATTR_LIST,

	/*
	 * (text path, u64 offset, u32 flags, u32 mode, u32 uid, u32 gid) and DATA of bytes … END → ().
	 * mode and owner are those of a file that is made. For all calls but IMPORT: what is made in
	 * a directory with the set-group-ID bit or a default ACL has from it what Linux gives it.
	 */
	OP_WRITE = 32,
	/* (text path, u32 mode, u32 uid, u32 gid, u32 flags) → (). */
	OP_MKDIR,
	/* (text path!, u32 flags) → (); PROGRESS names. */
	OP_REMOVE,
	/* (text old!, text new!) → (): replaces what rename(2) would replace. */
	OP_RENAME,
	/* (text target, text path!, u32 uid, u32 gid) → (). */
	OP_SYMLINK,
	/* (text old!, text new!) → (). */
	OP_LINK,
	/* (text path!, u32 mode with type, u32 major, u32 minor, u32 uid, u32 gid) → (). */
	OP_MKNOD,
	/* (text path, u32 mask, u32 flags, u32 mode, u32 uid, u32 gid, u64 size, u64 atime, u32 nsec,
	 *  u64 mtime, u32 nsec) → (); PROGRESS inodes. SET_SIZE not with TREE_RECURSIVE. With an owner
	 * and no mode, what is no directory loses its set-ID bits, and in any case its capabilities. */
	OP_SETATTR,
	/* (text path!, text name, u32 length, bytes) → (). */
	OP_XATTR_SET,
	/* (text path!, text name) → (). */
	OP_XATTR_REMOVE,
	/* (text path of a directory that exists, u32 flags) and DATA of stream records … END → (). */
	OP_IMPORT,
	/*
	 * (text path, u32 flags, u32 length, bytes) → (); PROGRESS inodes. The new mode depends on
	 * the old one: AGENT_MODES × u16, for the 4096 modes of what is no directory, and then those
	 * of directories. flags as those of SETATTR.
	 */
	OP_CHMOD,

	/* (volume, text type, text label, text uuid or "", text options) → (text what was made). */
	OP_MKFS = 64,
};

/* OP_MOUNT, OP_MOUNT_ROOT */
enum {
	/* The disk is not written: a journal that needs replay is replayed in memory. */
	MOUNT_RDONLY = 1 << 0,
};
/* OP_WRITE. Without any: the file must exist; bytes beyond what was written stay. */
enum {
	WRITE_CREATE = 1 << 0,
	WRITE_EXCL = 1 << 1, /* with CREATE: FAIL EEXIST when it exists */
	WRITE_TRUNC = 1 << 2,
	WRITE_APPEND = 1 << 3, /* offset is the end of the file */
	WRITE_REPLACE =
		1 << 4, /* the new content under a new inode, which takes the name, owner, mode
				 * and extended attributes of the old one at the end; offset is 0 */
};
/* OP_MKDIR, OP_REMOVE, OP_SETATTR, OP_EXPORT, OP_IMPORT */
enum {
	TREE_RECURSIVE =
		1 << 0, /* REMOVE, SETATTR, EXPORT: and all below; MKDIR: with its parents */
	TREE_MISSING_OK =
		1 << 1,        /* REMOVE: no FAIL ENOENT; MKDIR: no FAIL EEXIST for a directory */
	TREE_FOLLOW = 1 << 2,  /* SETATTR, EXPORT: follow a link at the end of the path; IMPORT: a
				* link that was there may stand for the directory it leads to */
	TREE_CONTENT = 1 << 3, /* EXPORT: the bytes of regular files */
	TREE_XATTRS = 1 << 4,  /* EXPORT: extended attributes */
	TREE_ONE_FS = 1 << 5,  /* EXPORT: do not enter other mounts */
	TREE_KEEP_OWNER = 1 << 6, /* IMPORT: uid and gid of the entries; without: root's */
	TREE_REPLACE = 1 << 7,    /* IMPORT: what is no directory replaces what is none either */
	TREE_CHILDREN = 1 << 8,   /* EXPORT: and what a directory holds, but nothing below that */
	TREE_SEPARATE = 1 << 9,   /* EXPORT: names of one inode are entries like any other */
	TREE_KEEP_OLD = 1 << 10,  /* IMPORT: directories that are there stay as they are; a regular
				   * file that replaces one is its new content only */
	TREE_DIRS_LATE = 1 << 11, /* EXPORT: a directory comes right before what is in it, after
				   * what else is beside it */
};
/* OP_SETATTR: mask */
enum {
	SET_MODE = 1 << 0, /* only the 12 low bits of mode */
	SET_UID = 1 << 1,
	SET_GID = 1 << 2,
	SET_SIZE = 1 << 3,
	SET_ATIME = 1 << 4,
	SET_MTIME = 1 << 5,
};

/*
 * The stream of OP_EXPORT and OP_IMPORT: records, never split over two DATA frames. A directory
 * comes before what is in it. Paths are relative to the one asked for, which itself is "". EXPORT
 * tells all that one directory holds in one piece, in the directory's order; then come its
 * subdirectories, each with all below it, in the order of their names' bytes.
 */
enum stream_record {
	/*
	 * u8 kind, text path, u8 other_name, STAT, text target. target: of a symbolic link. With
	 * other_name 1 the entry is one more name of an inode that came before, whose path target
	 * is; it has no content.
	 */
	STREAM_ENTRY = 1,
	STREAM_XATTR, /* u8 kind, text name, u32 length, bytes: of the last entry */
	STREAM_BYTES, /* u8 kind, u64 offset, u32 length, bytes: ascending; gaps are holes */
	STREAM_FAILED, /* u8 kind, text path, u32 errno, text: an entry that cannot be read; EXPORT */
};
#define STREAM_BYTES_MAX (UINT32_C(256) << 10)

#endif
