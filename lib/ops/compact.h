/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compaction of an image in place: what is in use moves into the holes, the file is cut. */
#ifndef IMGKIT_OPS_COMPACT_H
#define IMGKIT_OPS_COMPACT_H

#include "image/img.h"

/*
 * Checks the image, repairs leaks, and compacts. -EUCLEAN: the check found errors; nothing was
 * changed. res is filled also after a failure: what was moved until then stays moved, and another
 * run goes on from there. -ECANCELED. Durable on return.
 */
int compact_run(struct img *img, struct compact_result *res, struct job *job, struct err *err);

#endif
