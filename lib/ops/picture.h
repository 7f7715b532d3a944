/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What of a disk is stored where, summed up in cells: for pictures of disks of any size. */
#ifndef IMGKIT_OPS_PICTURE_H
#define IMGKIT_OPS_PICTURE_H

#include "image/img.h"

enum picture_class {
	PICTURE_DATA,
	PICTURE_COMPRESSED,
	PICTURE_BACKING1, /* stored in the backing file */
	PICTURE_BACKING2, /* in the backing file of that */
	PICTURE_BACKING3, /* deeper */
	PICTURE_ZERO,     /* recorded, or known, as zeros */
	PICTURE_HOLE,     /* stored nowhere: reads as zeros */
	PICTURE_CLASSES,
};

/* A part of the disk: bytes of each class. */
struct picture_cell {
	uint64_t bytes[PICTURE_CLASSES];
};

/* Zero-initialise; free with picture_free. */
struct picture {
	uint64_t start, end; /* of the disk, bytes */
	uint64_t per_cell;   /* bytes; the last cell may have fewer */
	unsigned n;
	struct picture_cell *cell; /* owned */
	uint64_t total[PICTURE_CLASSES];
};

/* Sums up [start, end) of img, cut to its size, in at most `most` cells of whole sectors. */
int picture_take(struct img *img, uint64_t start, uint64_t end, unsigned most, struct picture *p,
		 struct err *err);
void picture_free(struct picture *p);

/* The class that a cell is shown as: the largest that is stored, if any, else the largest. */
enum picture_class picture_main(const struct picture_cell *cell);
/* The share of that class in the cell, 0 … 1. */
double picture_share(const struct picture_cell *cell);
/* Bytes of the cell that are stored. */
uint64_t picture_stored(const struct picture_cell *cell);

#endif
