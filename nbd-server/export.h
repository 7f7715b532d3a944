/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export: an io under a name, and what the protocol tells about it. Immutable once the server
 * runs, but for the count of its clients; every function may be called from several threads.
 */
#ifndef IMGKIT_NBD_EXPORT_H
#define IMGKIT_NBD_EXPORT_H

#include "image/img.h"
#include "nbd-server/protocol.h"

enum export_context_kind { CONTEXT_ALLOCATION, CONTEXT_DEPTH, CONTEXT_BITMAP };

/* A meta context that clients can select: one of export.context. */
struct export_context {
	enum export_context_kind kind;
	char *name; /* owned: as on the wire, "base:allocation", "qemu:dirty-bitmap:b0" */
	/* CONTEXT_BITMAP: the layer that has it (borrowed), and its index there */
	struct img *layer;
	unsigned bitmap;
};

struct nbd_export {
	char *name;        /* owned; "" is the default export. At most NBD_MAX_STRING bytes */
	char *description; /* owned; NULL: none */
	struct io *io;     /* owned: what is read and written: an image, or a window of one */
	struct img *img;   /* borrowed: the image that io is, or is a window of */
	uint64_t start;    /* byte of img where io begins: of a partition; else 0 */
	/*
	 * NBD_FLAG_…: all that it can do. SEND_DF is said only to who has structured replies, and
	 * BLOCK_STAT_PAYLOAD to who has extended headers.
	 */
	uint16_t flags;
	uint32_t min_block, preferred_block, max_block; /* bytes; the first two powers of two */
	struct export_context *context;                 /* owned */
	unsigned n_contexts;
	unsigned max_clients; /* 0: any number */
	_Atomic unsigned clients;
	/* Nanoseconds that a small request takes, averaged: whether it pays to share work. */
	_Atomic uint32_t cost;
	_Atomic unsigned char *holes; /* owned: map_cursor.holes of all who ask */
};

/* What the user asked for. Strings are borrowed. */
struct export_args {
	const char *name, *description;
	bool allocation_depth;      /* qemu:allocation-depth */
	const char *const *bitmaps; /* names in the image, or in an image below it */
	unsigned n_bitmaps;
	unsigned partition; /* 1…: that partition (MBR, extended MBR, GPT); 0: the whole disk */
	uint64_t offset, size; /* bytes: a part of the disk (or partition); size 0: up to its end */
	unsigned max_clients;  /* 1: clients hear that there can be one connection only */
};

/*
 * An export of img, which it owns on success. -EINVAL: args contradict each other or the image;
 * -ENOENT: no such partition or bitmap; -ESTALE: the bitmap is void; -EUCLEAN: a damaged partition
 * table.
 */
int export_open(struct img *img, const struct export_args *args, struct nbd_export **out,
		struct err *err);
/* Flushes, and marks the image cleanly closed; export_close does not tell of errors. */
int export_settle(struct nbd_export *e, struct err *err);
void export_close(struct nbd_export *e);

/*
 * A run of bytes of one state in a context; flags as on the wire.
 */
struct export_extent {
	uint64_t len; /* bytes, not 0 */
	uint64_t flags;
};

/*
 * The states of [off, off+len) in a context: at least one extent, at most max, *n of them, equal
 * neighbours joined; they may end before the range does, and do not go beyond it. One call does a
 * bounded amount of work. [off, off+len) is inside of the export and not empty.
 */
int export_status(struct nbd_export *e, const struct export_context *context, uint64_t off,
		  uint64_t len, struct export_extent *extents, unsigned max, unsigned *n,
		  struct err *err);

#endif
