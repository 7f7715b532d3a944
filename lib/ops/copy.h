/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine of convert: moves the guest data of one io to a new image or over an existing one.
 *
 *	plan	cuts the source into chunks along its map, in guest order, one ticket each
 *	workers	pull chunks: read, look for zeros, compress, then wait for the ticket's turn
 *		to get a place, and write
 *
 * Only the turn is serial, and it takes no more than the handing out of space: so the result is the
 * same with any number of workers.
 */
#ifndef IMGKIT_OPS_COPY_H
#define IMGKIT_OPS_COPY_H

#include "image/build.h"
#include "image/img.h"
#include "ops/journal.h"

/* What of a source is to be copied; the rest is not even looked at. */
struct copy_filter {
	/*
	 * Whether the byte at off is, and for how many bytes that is the same: *run, 1 … len. Called
	 * for ascending offsets, by one thread at a time.
	 */
	int (*ask)(void *ctx, uint64_t off, uint64_t len, bool *wanted, uint64_t *run,
		   struct err *);
	void *ctx;
};

struct copy_args {
	/* Source. Its size is io_size, or unknown for an IO_STREAM (read with stream_read). */
	struct io *src;
	/* NULL: everything. Else src is this image, and only what its own layer holds is copied: the
	 * target has a backing file, of backing_size bytes, with what the source's one holds. */
	struct img *layer;
	uint64_t backing_size;
	/* 0: everything. Else src is an image, dst the one at this depth of its chain: only what the
	 * layers above it hold is copied, zeros by what the maps say. */
	unsigned above;
	/* NULL: everything. Else src and base are views of one image, and dst holds what base does, in
	 * its size: only what is stored elsewhere for src than for base is copied, and zeros where
	 * they are new. */
	struct io *base;
	/* NULL: everything. Else dst holds the rest already. Whole units of dst are copied. */
	const struct copy_filter *only;

	/* Target: one of the two. dst may be larger than src. */
	struct build *build;
	struct io *dst;
	bool dst_zero; /* what is not written reads as zeros, or, with layer, as the backing */

	/* Shortest run of zeros that is not written, bytes, as 16 MiB if more; 0: write them all. */
	uint64_t sparse;
	bool compress;    /* needs build, or as dst an image that takes coded units */
	int level;        /* of compression; 0: default */
	bool narrow;      /* deflate with a 4 KiB window */
	bool unordered;   /* give out places as the workers come: faster, not reproducible */
	bool offload;     /* let the kernel copy, without looking for zeros */
	bool salvage;     /* what cannot be read becomes zeros */
	unsigned workers; /* 0: as many as CPUs */
	uint64_t rate;    /* bytes of guest data per second; 0: no limit */
	bool part;        /* of a larger job, whose total is known */

	/*
	 * Where it is noted how far the copy is, or NULL. What the checkpoints that are there say is
	 * in the target is compared with the source, the rest is cut off, and the copy goes on behind
	 * it. Needs build, in a file that grows, and a source with a size; not unordered, salvage or
	 * a preallocated target.
	 */
	struct journal *journal;
	uint64_t checkpoint; /* bytes of data between two of them; 0: 8 MiB, growing to 256 MiB */

	/* What salvage could not read, a line each; from one thread at a time. May be NULL. */
	void (*warn)(void *ctx, const char *text);
	void *warn_ctx;
	/* With a journal: bytes of the disk that were there and are the source's. May be NULL. */
	void (*resumed)(void *ctx, uint64_t bytes);
};

/*
 * Copies; with build, up to and including build_finish. -ECANCELED when job was cancelled; what
 * reading and writing fail with, the text beginning "error while reading at byte N". The first
 * error stops all workers. job counts guest bytes. With a journal: -EUCLEAN, -EINVAL: it cannot be
 * continued; after other errors it can, as after a crash.
 */
int copy_run(const struct copy_args *args, struct job *job, struct err *err);

#endif
