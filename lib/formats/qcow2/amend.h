/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by amend*.c; the overview is at the head of amend.c. */
#ifndef IMGKIT_QCOW2_AMEND_H
#define IMGKIT_QCOW2_AMEND_H

#include "formats/qcow2/qcow2.h"

/* ---- amend_refcount.c ---- */
/* Whether every refcount fits the width of 1 << order bits. -ERANGE names the first that does not. */
int amend_refcounts_fit(struct qcow2 *q, unsigned order, struct job *job, struct err *err);
/* Rewrites all refcounts with that width. -ENOSPC, -EFBIG, -ECANCELED: nothing has changed. */
int amend_refcount_width(struct qcow2 *q, unsigned order, struct job *job, struct err *err);
/* Bytes of the file that each of the two looks at, for progress. */
uint64_t amend_refcount_work(const struct qcow2 *q);

/* ---- amend_version.c ---- */
int amend_upgrade(struct qcow2 *q, struct err *err);
/*
 * Whether version 2 can hold the image once it has `size` bytes and refcounts of this width.
 * -ENOTSUP. Changes nothing.
 */
int amend_may_downgrade(struct qcow2 *q, uint64_t size, unsigned order, struct err *err);
/* Gives up what version 2 does not have. A failure leaves a sound image of version 3. */
int amend_downgrade(struct qcow2 *q, struct job *job, struct err *err);
/* Guest bytes, once for each L1 table, that amend_downgrade looks at, for progress. */
uint64_t amend_downgrade_work(const struct qcow2 *q);

#endif
