/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rebase: another backing file under an overlay, whose disk stays the same. Where the overlay holds
 * nothing and the two backing files differ, the old one's data is written to the overlay; then its
 * header is changed. Until that moment, whatever stops it, the overlay is whole with its old backing
 * file, from then on with the new one.
 */
#ifndef IMGKIT_OPS_REBASE_H
#define IMGKIT_OPS_REBASE_H

#include "image/img.h"

struct rebase_args {
	struct img *overlay;       /* open for writing, with its old chain */
	struct img *backing;       /* the new one, from rebase_open_backing; NULL: none. Taken */
	const char *name, *format; /* to store; NULL: none */
	bool change_snapshots;     /* go on though snapshots of the overlay will change */
	bool compress;    /* what is written to the overlay is compressed, if it gets smaller */
	bool drop_equal;  /* then drop what the overlay holds as the new backing file does */
	unsigned workers; /* 0: as many as CPUs */
};

/*
 * Opens the new backing file, read-only, with its chain. -ELOOP: the overlay is in it. What opening
 * fails with.
 */
int rebase_open_backing(const struct img *overlay, const char *name, const char *format,
			unsigned flags, struct img **out, struct err *err);

/*
 * For the unsafe mode, which opens nothing: -ELOOP when a name (NULL: none) means the overlay itself,
 * which could never be opened again.
 */
int rebase_check_name(const struct img *overlay, const char *name, struct err *err);

/* img_set_backing with the texts of rebase: all that the unsafe mode does. */
int rebase_set_backing(struct img *overlay, const char *name, const char *format,
		       struct img *backing, struct err *err);

/*
 * Safe mode. args->backing is taken, also when it fails: closed, or the overlay's. Durable on return.
 * -EPERM: the overlay has snapshots. -EINVAL, -ENOTSUP as img_set_backing, before anything is written;
 * -ENOSPC too, then too late for that. -ECANCELED.
 */
int rebase_run(const struct rebase_args *args, struct job *job, struct err *err);

#endif
