/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builders: how a new image is made offline, by create and by convert.
 *
 * A builder keeps all tables of the new image in memory, hands out host space from a cursor, and
 * writes the tables and refcounts once, in file order, at finish. Nobody else may look at the file
 * before: no crash order is kept, an unfinished build is thrown away (the target has a temporary
 * name). The workers of a convert call reserve and zero at the same time for ranges of the guest
 * that do not overlap, compress by themselves with the codec that the builder names, and write the
 * data to build->data; each range is given at most once; what is never given reads as zeros,
 * or, with a backing file, as the backing.
 */
#ifndef IMGKIT_IMAGE_BUILD_H
#define IMGKIT_IMAGE_BUILD_H

#include "image/codec.h"
#include "image/img.h"

enum {
	/* The file is written once, at ascending offsets. With two_pass all space is reserved
	 * first, in guest order, and the offsets that reserve answers are relative; finish then
	 * writes the tables at the front; last the caller writes the data, data_start being what
	 * the offsets are relative to. */
	BUILD_STREAM = 1 << 0,
};

struct build;

struct build_ops {
	/* Host space for the guest units that [off, off+len) covers; off is a multiple of unit, len
	 * too. Contiguous. The caller writes len bytes at *host of build->data. */
	int (*reserve)(struct build *, uint64_t off, uint64_t len, uint64_t *host, struct err *);
	/* Host space for `len` coded bytes that hold the one unit at guest offset off. NULL op: the
	 * format has no compression. */
	int (*reserve_coded)(struct build *, uint64_t off, size_t len, uint64_t *host,
			     struct err *);
	/* The units are to read as zeros. -ENOTSUP (without text): the caller writes zeros. */
	int (*zero)(struct build *, uint64_t off, uint64_t len, struct err *);
	/* Grains of units that were reserved, which are not written and read as zeros. NULL op: they
	 * need not be known, their space reads so. Cannot fail. */
	void (*hole)(struct build *, uint64_t off, uint64_t len);
	/* See build_set_size. */
	int (*set_size)(struct build *, uint64_t size, struct err *);
	/* Writes the tables. The image is whole when this returned 0; not yet flushed. */
	int (*finish)(struct build *, struct err *);
	void (*close)(struct build *); /* frees; leaves file to the caller */
};

/* Set by the format before build returns, constant afterwards but for size and data_start. */
struct build {
	const struct build_ops *ops;
	struct io *file;       /* borrowed */
	struct io *data;       /* where the data goes: file, or an external data file. Borrowed */
	uint64_t size;         /* bytes, virtual */
	uint64_t unit;         /* bytes; 1 for raw */
	uint64_t grain;        /* bytes: what can be data or not by itself; mostly the unit */
	uint64_t max_size;     /* bytes: the largest virtual size that build_set_size takes */
	enum codec_type codec; /* of coded units */
	bool two_pass;         /* see BUILD_STREAM */
	uint64_t data_start;   /* two_pass, after finish: bytes to add to what reserve said */
	bool identity;         /* raw: every byte's place is its guest offset */
	bool preallocated;     /* all units have their place already, which reads as zeros */
	pthread_mutex_t lock;  /* of the wrappers: ops are called one at a time */
};

/* For formats: sets up the common part. */
void build_init(struct build *b, const struct build_ops *ops, struct io *file, uint64_t size,
		uint64_t unit);

/* Thread-safe. [off, off+len) must lie inside the disk, rounded up to units at its end. */
int build_reserve(struct build *b, uint64_t off, uint64_t len, uint64_t *host, struct err *err);
int build_reserve_coded(struct build *b, uint64_t off, size_t len, uint64_t *host, struct err *err);
int build_zero(struct build *b, uint64_t off, uint64_t len, struct err *err);
/* The whole grains of a range of units that were reserved. */
void build_hole(struct build *b, uint64_t off, uint64_t len);
/* Whether the format has compressed units. */
bool build_can_code(const struct build *b);
/* Makes the disk larger: for sources whose size is known at their end only. -EFBIG. */
int build_set_size(struct build *b, uint64_t size, struct err *err);
int build_finish(struct build *b, struct err *err);
void build_close(struct build *b); /* NULL is fine */

#endif
