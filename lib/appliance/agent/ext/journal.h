/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal (JBD2) as it is on the disk: Documentation/filesystems/ext4/journal.rst of Linux.
 * Big-endian, other than the rest of the filesystem.
 */
#ifndef IMGKIT_AGENT_EXT_JOURNAL_H
#define IMGKIT_AGENT_EXT_JOURNAL_H

#include "appliance/agent/ext/ext.h"

#define JBD2_MAGIC UINT32_C(0xc03b3998)

enum {
	JBD2_DESCRIPTOR = 1,
	JBD2_COMMIT = 2,
	JBD2_SUPER_V1 = 3,
	JBD2_SUPER_V2 = 4,
	JBD2_REVOKE = 5
};

struct jbd2_header {
	be32 magic;    /* 0x00 */
	be32 type;     /* 0x04 */
	be32 sequence; /* 0x08: number of the transaction */
};

struct jbd2_super {
	struct jbd2_header header;
	be32 block_size;             /* 0x0c */
	be32 blocks;                 /* 0x10: of the journal */
	be32 first;                  /* 0x14: block of the log */
	be32 sequence;               /* 0x18: of the first transaction in the log */
	be32 start;                  /* 0x1c: where that begins; 0: the log is empty */
	be32 error;                  /* 0x20 */
	be32 compat;                 /* 0x24 */
	be32 incompat;               /* 0x28 */
	be32 ro_compat;              /* 0x2c */
	unsigned char uuid[16];      /* 0x30 */
	be32 users;                  /* 0x40 */
	unsigned char pad[12];       /* 0x44 */
	unsigned char checksum_type; /* 0x50 */
	unsigned char pad2[3];
	be32 fast_blocks; /* 0x54: at the end, for fast commits */
	unsigned char pad3[0xfc - 0x58];
	be32 checksum; /* 0xfc */
	unsigned char user_ids[0x300];
};
_Static_assert(sizeof(struct jbd2_super) == 1024, "as on the disk");

#define JBD2_COMPAT_CHECKSUM UINT32_C(1)

enum jbd2_incompat {
	JBD2_HAS_REVOKE = 1,
	JBD2_64BIT = 2,
	JBD2_ASYNC_COMMIT = 4,
	JBD2_CSUM_V2 = 8,
	JBD2_CSUM_V3 = 16,
	JBD2_FAST_COMMIT = 32,
};
#define JBD2_FAST_BLOCKS_DEFAULT 256u

/* Of the tags behind the header of a descriptor block, one for each block that follows it. */
enum { JBD2_TAG_ESCAPED = 1, JBD2_TAG_SAME_UUID = 2, JBD2_TAG_LAST = 8 };

struct jbd2_commit {
	struct jbd2_header header;
	unsigned char checksum_type; /* 0x0c: 1 = crc32 */
	unsigned char checksum_size; /* 0x0d */
	unsigned char pad[2];
	be32 checksum; /* 0x10 */
};

#endif
