/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory of persistent bitmaps. QEMU docs/interop/qcow2, "Bitmaps extension", "Bitmap
 * directory". Bitmaps are not interpreted: the check counts their clusters, measure their size.
 */
#ifndef IMGKIT_QCOW2_BITMAPS_H
#define IMGKIT_QCOW2_BITMAPS_H

#include "formats/qcow2/header.h"

/* Where the directory is; n 0: the image has no valid bitmaps. */
struct bitmap_dir {
	uint32_t n;
	uint64_t off, bytes;
};

/* A directory entry. */
struct bitmap_entry {
	uint64_t table_offset;
	uint32_t table_size; /* entries */
	uint32_t flags;
	uint8_t granularity_bits;
	uint16_t name_len;
};
#define BITMAP_IN_USE UINT32_C(1)

/*
 * Finds the directory. A program that wrote without knowing bitmaps has cleared their autoclear
 * bit: then they are void. NULL, or what is wrong with the header extension (dir->n is 0 then).
 */
const char *bitmaps_find(const struct header *h, struct bitmap_dir *dir);

/*
 * Reads entry *at (a file offset, at first dir->off) and moves *at to the next one. *fault: NULL, or
 * what is wrong. 0, or a read error.
 */
int bitmaps_next(struct io *file, const struct header *h, const struct bitmap_dir *dir,
		 uint64_t *at, struct bitmap_entry *e, const char **fault, struct err *err);

/* Bytes that copies of the bitmaps need in an image with this cluster size. -EUCLEAN. */
int bitmaps_measure(struct io *file, const struct header *h, uint64_t cluster, uint64_t *bytes,
		    struct err *err);

#endif
