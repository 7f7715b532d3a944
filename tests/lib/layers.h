/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image with internal snapshots of every kind: some with the state of a machine, some of a disk of
 * another size, that share data or not. Whatever fails here ends the program (die).
 */
#ifndef IMGKIT_TESTS_LAYERS_H
#define IMGKIT_TESTS_LAYERS_H

#include "disk.h"

#define LAYERS      5                /* snapshots */
#define LAYERS_SIZE UINT64_C(300032) /* bytes of the disk as it is now */

/* Makes the image in file, which is empty; opts as in `-o`. */
void layers_make(struct io *file, const char *opts);
/* Dies unless b has the snapshots of a, in all that can be seen, and the same disk. */
void layers_same(struct img *a, struct img *b);

#endif
