/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a partition of a disk lies, by its number as Linux counts them. */
#ifndef IMGKIT_NBD_PARTITION_H
#define IMGKIT_NBD_PARTITION_H

#include "io/io.h"

struct partition {
	uint64_t start, size; /* bytes; inside the disk */
};

/*
 * Partition `number` (1…) of a disk with an MBR (5…: logical partitions) or a GPT. -ENOENT: there is
 * no table, or no such partition; -EINVAL: it is the extended one; -EUCLEAN: the table is damaged.
 */
int partition_find(struct io *disk, unsigned number, struct partition *out, struct err *err);

#endif
