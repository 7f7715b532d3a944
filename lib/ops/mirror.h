/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mirror: makes another disk equal to this one, and later equal again by copying only what changed,
 * which a dirty bitmap of the source knows.
 *
 *	mark    a first time, or for a full copy: the bitmap is made, all its bits are set, durably, and
 *		only then it is enabled
 *	copy    what has its bit, over what the target holds; then the target is flushed
 *	clear   the bits, as nobody writes to the source meanwhile
 *
 * So when it ends before clear, for whatever reason, the next run copies at least what this one had
 * to, and the bitmap never says "equal" of what is not.
 *
 * The source may be an NBD export of a raw disk. Then the bitmap is one that the server exports, as
 * QEMU does for backups that are pulled from it: it is there already, it belongs to a moment that the
 * server holds on to, and it is neither made nor cleared.
 */
#ifndef IMGKIT_OPS_MIRROR_H
#define IMGKIT_OPS_MIRROR_H

#include "image/img.h"
#include "ops/copy.h"

struct mirror_args {
	/* With bitmap open for writing; or, of an NBD server, with the context mirror_context. */
	struct img *src;
	struct img *dst;    /* open for writing; at least as large as src */
	const char *bitmap; /* of src; NULL: copy everything */
	bool full;          /* everything once more, whatever the bitmap says */
	bool dst_zero;      /* dst reads as zeros, which counts only for a full copy */
	bool verify;        /* compare both disks before the bits are cleared */
	unsigned workers;   /* 0: as many as CPUs */
	uint64_t rate;      /* bytes per second; 0: no limit */
};

struct mirror_result {
	bool full;      /* everything was copied */
	bool added;     /* the bitmap is new */
	bool cleared;   /* it has nothing any more */
	uint64_t size;  /* bytes of the source's disk */
	uint64_t dirty; /* bytes of it that were to be copied */
};

/* The meta context of a server's bitmap, for img_open_args.contexts; freed by the caller, or NULL. */
char *mirror_context(const char *bitmap);

/*
 * Durable on return, source and target. -ESTALE: the bitmap is inconsistent or disabled, so that
 * it does not know of all changes, and args->full is not set; -ENOSPC: dst is smaller;
 * -ENOENT: the server does not export the bitmap; -EILSEQ: verify found a difference. -ECANCELED; errors of copy_run.
 */
int mirror_run(const struct mirror_args *args, struct mirror_result *res, struct job *job,
	       struct err *err);

#endif
