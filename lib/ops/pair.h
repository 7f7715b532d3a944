/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two disks side by side: what has to be read to know whether they hold the same, from their maps.
 * What is a hole on both sides, or the same bytes of the same file, is known to be equal.
 */
#ifndef IMGKIT_OPS_PAIR_H
#define IMGKIT_OPS_PAIR_H

#include "image/img.h"

/* One of them. Zero-initialise, set io; NULL: a disk of zeros. Behind its end a disk is zeros. */
struct pair_side {
	struct io *io;
	struct extent ext;  /* where the cursor is; len 0: none */
	bool stored;        /* ext.host says where, as the image has it */
	enum ext_kind kind; /* as the image has it; coded is data */
};

/* Not thread-safe. */
struct pair {
	struct pair_side a, b;
	struct io *last[2]; /* the last two files that were compared … */
	bool last_same;     /* … and whether they are one */
};

enum pair_need { PAIR_EQUAL, PAIR_BOTH, PAIR_ONLY_A, PAIR_ONLY_B }; /* ONLY: the other is zeros */

/* Bytes from pos on, not past end, of which both maps say one thing; pair_need is about them. */
int pair_look(struct pair *p, uint64_t pos, uint64_t end, uint64_t *len, struct err *err);
enum pair_need pair_need(struct pair *p);

/* Reads from one side, zeros behind its end. */
int pair_read(struct io *io, void *buf, uint64_t off, uint64_t len, struct err *err);

#endif
