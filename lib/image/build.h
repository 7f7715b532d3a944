/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builders: how a new image is made offline, by create and by convert.
 *
 * A builder keeps all tables of the new image in memory, hands out host space from a cursor, and
 * writes the tables and refcounts once, in file order, at finish. Nobody else may look at the file
 * before: no crash order is kept, an unfinished build is thrown away (the target has a temporary
 * name). The workers of a convert call reserve, put and zero at the same time for ranges of the
 * guest that do not overlap; each range is given at most once; what is never given reads as zeros,
 * or, with a backing file, as the backing.
 */
#ifndef IMGKIT_IMAGE_BUILD_H
#define IMGKIT_IMAGE_BUILD_H

#include "image/img.h"

enum {
	BUILD_STREAM = 1 << 0, /* file is written at ascending offsets only: see each build */
};

struct build;

struct build_ops {
	/* Host space for the guest units that [off, off+len) covers; off is a multiple of unit, len
	 * too except at the end of the disk. The caller writes len bytes at *host of build->file.
	 * Contiguous. */
	int (*reserve)(struct build *, uint64_t off, uint64_t len, uint64_t *host, struct err *);
	/* Host space for `len` coded bytes that hold the one unit at guest offset off. */
	int (*reserve_coded)(struct build *, uint64_t off, size_t len, uint64_t *host,
			     struct err *);
	/* The units are to read as zeros (needed only over a backing file). */
	int (*zero)(struct build *, uint64_t off, uint64_t len, struct err *);
	/* Compresses one unit of data (padded with zeros to build->unit by the caller). Returns the
	 * coded length, 0 when it would not get smaller, or -errno. Thread-safe; coder is from
	 * coder_open, one per worker. */
	int64_t (*encode)(struct build *, void *coder, const void *unit, void *out, size_t room,
			  struct err *);
	int (*coder_open)(struct build *, void **coder, struct err *);
	void (*coder_close)(struct build *, void *coder);
	/* Writes the tables. The image is whole when this returned 0; not yet flushed. */
	int (*finish)(struct build *, struct err *);
	void (*close)(struct build *); /* frees; leaves file to the caller */
};

struct build {
	const struct build_ops *ops;
	struct io *file; /* borrowed */
	uint64_t size;	 /* bytes, virtual; may be raised by build_set_size before finish */
	uint64_t unit;	 /* bytes; 1 for raw */
};

int build_reserve(struct build *b, uint64_t off, uint64_t len, uint64_t *host, struct err *err);
int build_reserve_coded(struct build *b, uint64_t off, size_t len, uint64_t *host,
			struct err *err);
int build_zero(struct build *b, uint64_t off, uint64_t len, struct err *err);
int build_finish(struct build *b, struct err *err);
void build_close(struct build *b); /* NULL is fine */

#endif
