/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Partition tables that lie: MBR with loops of extended partitions, GPT with valid sums. */
#ifndef IMGKIT_TESTS_TABLES_H
#define IMGKIT_TESTS_TABLES_H

#include "rng.h"

/* Writes a disk with a table to the file, which is emptied; tells what it is. */
const char *table_make(int fd, struct rng *r);

#endif
