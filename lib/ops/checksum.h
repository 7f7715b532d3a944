/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One sum for the same guest data in any format.
 *
 * With H a hash function, || concatenation, and numbers as single bytes unless said otherwise:
 *
 *	block i  the guest bytes [i * 65536, (i + 1) * 65536), the last one filled up with zeros
 *	leaf i   H(0 || block i)
 *	node     H(1 || left || right), of two leaves or nodes of the same height
 *	root     of the smallest complete binary tree that has a leaf for every block, and at least
 *	         16; leaves beyond the end of the disk are those of blocks of zeros
 *	sum      H(2 || size of the disk in bytes, 64 bits little-endian || root)
 *
 * So format, allocation, cluster size, compression and backing files do not matter, size and
 * content do. A subtree of zeros has a hash that is known in advance: holes cost nothing, and blocks
 * that read as zeros are found faster than they are hashed. Blocks are hashed in parallel.
 *
 * The hash function comes from the caller: this library does not depend on a crypto library.
 */
#ifndef IMGKIT_OPS_CHECKSUM_H
#define IMGKIT_OPS_CHECKSUM_H

#include "base/hash.h"
#include "base/job.h"
#include "io/io.h"

#define CHECKSUM_BLOCK 65536

/*
 * The sum of all of src into out (hash->len bytes). workers 0: as many as CPUs. -ECANCELED; what
 * mapping and reading fail with.
 */
int checksum_run(struct io *src, const struct checksum_hash *hash, unsigned workers,
		 unsigned char *out, struct job *job, struct err *err);

#endif
