/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert: from opened sources to a whole image. What to copy and how is copy.h's; this is where
 * the target comes from: a new image that appears when it is whole, an existing one, or a pipe.
 */
#ifndef IMGKIT_OPS_CONVERT_H
#define IMGKIT_OPS_CONVERT_H

#include "ops/copy.h"
#include "ops/create.h"

struct convert_request {
	/* Sources, borrowed, joined end to end; or one stream of raw data. */
	struct img *const *src;
	unsigned n_src;
	struct io *stream;
	bool part; /* only [offset, offset+length) of them, which lies inside; not of a stream */
	uint64_t offset, length;

	/* Target: one of three. */
	const char *path; /* a new image there; flags: TARGET_… */
	unsigned target_flags;
	struct io *pipe;  /* a new image, written to an IO_STREAM; borrowed */
	struct img *dst;  /* this one, opened for writing; borrowed, settled at the end */
	bool dst_is_zero; /* dst reads as zeros */

	/* New images: */
	const char *format;         /* driver name */
	const struct opts *opts;    /* as for create; NULL: none. A size is ignored */
	const char *backing;        /* copy the top layer only, over this; or NULL */
	const char *backing_format; /* needed with backing */
	/* IMG_…, for opening it and what is behind it. IMG_PEER_NAMES: a data file's name, too. */
	unsigned backing_flags;
	const char *not_made; /* what to say of a failure; NULL: "error while converting" */

	/* Copy the bitmaps of the one source as well; without the inconsistent ones, or refuse. */
	bool bitmaps, skip_broken_bitmaps;
	/*
	 * Copy its internal snapshots as well, and what they keep of a machine's state; it is opened
	 * read-only and shows the disk as it is now. dst must have none, and be as large.
	 */
	bool snapshots;

	/*
	 * For path: what an interrupted conversion leaves stays as PATH.partial, with a journal
	 * beside it, and the same conversion goes on with it; see convert_resume.h. view: the
	 * source's snapshot, NULL: none. kept: whether there is something to go on with after an
	 * error; may be NULL.
	 */
	bool resume;
	const char *view;
	bool *kept;

	/* src, layer, backing_size, build, dst, dst_zero and journal are filled in. */
	struct copy_args copy;
};

/*
 * -ESTALE: a bitmap is inconsistent. -EINVAL: source and target are the same, or what was asked for does not fit together. Other
 * errors as of create_prepare, target_open and copy_run. job->cancelled: -ECANCELED. After an error
 * a new target is not there; an existing one (dst, a device) is half written. With resume also -EBUSY:
 * somebody else is at it; -ENOTSUP: what can be had only in one go; -EINVAL, -EUCLEAN: what is there
 * is of another conversion, or not what the source holds now.
 */
int convert(const struct convert_request *req, struct job *job, struct err *err);

#endif
