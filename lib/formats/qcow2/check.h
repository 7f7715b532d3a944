/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Consistency check and repair of a qcow2 file, on disk: check.c has the overview.
 *
 * These functions read the file itself, never the driver's caches. A caller that has the image
 * open writes its metadata back before, and calls qcow2_reload after a repair.
 */
#ifndef IMGKIT_QCOW2_CHECK_H
#define IMGKIT_QCOW2_CHECK_H

#include "formats/qcow2/header.h"
#include "image/img.h"

/*
 * Checks, and with `fix` repairs: CHECK_FIX_LEAKS alone, or with CHECK_FIX_ERRORS, and then also with
 * CHECK_DROP_BITMAPS. h is what
 * header_read made of the file; a repair keeps it up to date. sink, job and err may be NULL. res is
 * always filled as far as the check got.
 *
 * 0: the check is complete, its findings are in res. Negative: it could not be completed (I/O
 * error, -ENOMEM, -EFBIG: more than 2^31-1 clusters, -ECANCELED, -EIO: refcounts that need -r all).
 */
int qcow2_check_file(struct io *file, struct header *h, unsigned fix, struct check_result *res,
		     const struct check_sink *sink, struct job *job, struct err *err);

/* With CHECK_FIX_ERRORS: bitmaps go where their directory makes no sense. Only if a user asked. */
#define CHECK_DROP_BITMAPS (1U << 8)

/*
 * Makes an image with the dirty bit usable for writing: sets all refcounts and COPIED flags from
 * the references, durably, then clears the bit. A crash in between leaves the bit set, and the
 * next attempt starts anew. -EUCLEAN: there are errors that would make writing unsafe; the bit
 * stays.
 */
int qcow2_repair_dirty(struct io *file, struct header *h, struct err *err);

/* struct format's check: qcow2_check_file on an open image. */
int qcow2_check(struct img *img, unsigned fix, struct check_result *res,
		const struct check_sink *sink, struct job *job, struct err *err);

/* struct format's measure. */
int qcow2_measure(const struct create_args *args, struct io *src, struct measure_result *res,
		  struct job *job, struct err *err);

#endif
