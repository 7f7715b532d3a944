/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD protocol as bytes (NetworkBlockDevice/nbd, doc/proto.md): magics, option and command
 * numbers, flags, error codes, and the layouts of what is sent. All integers are big-endian.
 */
#ifndef IMGKIT_NBD_PROTOCOL_H
#define IMGKIT_NBD_PROTOCOL_H

#include "base/bytes.h"

/* ---- limits that we set; all are within what the specification allows ---- */
#define NBD_MAX_STRING   4096u                /* bytes of a name, description or query */
#define NBD_MAX_OPTION   (64u << 10)          /* bytes of data with an option */
#define NBD_MAX_OPTIONS  256u                 /* options of one handshake */
#define NBD_MAX_PAYLOAD  (UINT32_C(32) << 20) /* bytes of a READ or WRITE */
#define NBD_MAX_CONTEXTS 64u                  /* contexts that a client can select */

/* ---- handshake ---- */
#define NBD_MAGIC     UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_IHAVEOPT  UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REP_MAGIC UINT64_C(0x0003e889045565a9)

enum { /* 16 bits, of the server */
       NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
       NBD_FLAG_NO_ZEROES = 1 << 1,
};
enum { /* 32 bits, of the client */
       NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
       NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

struct nbd_greeting {
	be64 magic;    /* 0: NBD_MAGIC */
	be64 ihaveopt; /* 8: NBD_IHAVEOPT */
	be16 flags;    /* 16 */
};
struct nbd_option {
	be64 magic;  /* 0: NBD_IHAVEOPT */
	be32 option; /* 8 */
	be32 length; /* 12: bytes of data behind it */
};
struct nbd_option_reply {
	be64 magic;  /* 0: NBD_REP_MAGIC */
	be32 option; /* 8 */
	be32 type;   /* 12 */
	be32 length; /* 16: bytes of data behind it */
};

enum nbd_opt {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERR(n) (UINT32_C(1) << 31 | (n))
enum {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP           NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY          NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID         NBD_REP_ERR(3)
#define NBD_REP_ERR_PLATFORM        NBD_REP_ERR(4)
#define NBD_REP_ERR_TLS_REQD        NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN         NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN        NBD_REP_ERR(7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD NBD_REP_ERR(8)
#define NBD_REP_ERR_TOO_BIG         NBD_REP_ERR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10)

enum { /* kinds of NBD_REP_INFO */
       NBD_INFO_EXPORT = 0,
       NBD_INFO_NAME = 1,
       NBD_INFO_DESCRIPTION = 2,
       NBD_INFO_BLOCK_SIZE = 3,
};

/* ---- transmission ---- */
enum { /* 16 bits: what the export can do */
       NBD_FLAG_HAS_FLAGS = 1 << 0,
       NBD_FLAG_READ_ONLY = 1 << 1,
       NBD_FLAG_SEND_FLUSH = 1 << 2,
       NBD_FLAG_SEND_FUA = 1 << 3,
       NBD_FLAG_ROTATIONAL = 1 << 4,
       NBD_FLAG_SEND_TRIM = 1 << 5,
       NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
       NBD_FLAG_SEND_DF = 1 << 7,
       NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
       NBD_FLAG_SEND_RESIZE = 1 << 9,
       NBD_FLAG_SEND_CACHE = 1 << 10,
       NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
       NBD_FLAG_BLOCK_STAT_PAYLOAD = 1 << 12,
};

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};
enum { /* 16 bits, with a command */
       NBD_CMD_FLAG_FUA = 1 << 0,
       NBD_CMD_FLAG_NO_HOLE = 1 << 1,
       NBD_CMD_FLAG_DF = 1 << 2,
       NBD_CMD_FLAG_REQ_ONE = 1 << 3,
       NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
       NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC            UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC   UINT32_C(0x6e8a278c)

struct nbd_request {
	be32 magic;  /* 0 */
	be16 flags;  /* 4 */
	be16 type;   /* 6 */
	be64 cookie; /* 8 */
	be64 offset; /* 16 */
	be32 length; /* 24 */
};
struct nbd_extended_request {
	be32 magic;  /* 0 */
	be16 flags;  /* 4 */
	be16 type;   /* 6 */
	be64 cookie; /* 8 */
	be64 offset; /* 16 */
	be64 length; /* 24 */
};
struct nbd_simple_reply {
	be32 magic;  /* 0 */
	be32 error;  /* 4 */
	be64 cookie; /* 8 */
};
/* Of structured replies. */
struct nbd_chunk {
	be32 magic;  /* 0 */
	be16 flags;  /* 4: NBD_REPLY_FLAG_DONE */
	be16 type;   /* 6 */
	be64 cookie; /* 8 */
	be32 length; /* 16: bytes of payload */
};
struct nbd_extended_chunk {
	be32 magic;  /* 0 */
	be16 flags;  /* 4 */
	be16 type;   /* 6 */
	be64 cookie; /* 8 */
	be64 offset; /* 16: of the request */
	be64 length; /* 24: bytes of payload */
};
enum { NBD_REPLY_FLAG_DONE = 1 << 0 };
#define NBD_REPLY_TYPE_ERR(n) (1u << 15 | (n))
enum {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,  /* be64 offset, data */
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,  /* be64 offset, be32 length */
	NBD_REPLY_TYPE_BLOCK_STATUS = 5, /* be32 context, { be32 length, be32 flags }… */
	NBD_REPLY_TYPE_BLOCK_STATUS_EXT =
		6, /* be32 context, be32 count, { be64 length, be64 flags }… */
	NBD_REPLY_TYPE_ERROR = NBD_REPLY_TYPE_ERR(1),        /* be32 error, be16 length, text */
	NBD_REPLY_TYPE_ERROR_OFFSET = NBD_REPLY_TYPE_ERR(2), /* …, be64 offset */
};

enum { /* flags of base:allocation */
       NBD_STATE_HOLE = 1 << 0,
       NBD_STATE_ZERO = 1 << 1,
};
enum { NBD_STATE_DIRTY = 1 << 0 }; /* flags of qemu:dirty-bitmap:… */

enum { /* error codes on the wire */
       NBD_EPERM = 1,
       NBD_EIO = 5,
       NBD_ENOMEM = 12,
       NBD_EINVAL = 22,
       NBD_ENOSPC = 28,
       NBD_EOVERFLOW = 75,
       NBD_ENOTSUP = 95,
       NBD_ESHUTDOWN = 108,
};

_Static_assert(sizeof(struct nbd_greeting) == 18, "layout");
_Static_assert(sizeof(struct nbd_option) == 16, "layout");
_Static_assert(sizeof(struct nbd_option_reply) == 20, "layout");
_Static_assert(sizeof(struct nbd_request) == 28, "layout");
_Static_assert(sizeof(struct nbd_extended_request) == 32, "layout");
_Static_assert(sizeof(struct nbd_simple_reply) == 16, "layout");
_Static_assert(sizeof(struct nbd_chunk) == 20, "layout");
_Static_assert(sizeof(struct nbd_extended_chunk) == 32, "layout");

#endif
