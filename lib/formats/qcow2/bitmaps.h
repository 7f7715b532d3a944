/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory of persistent bitmaps as it is on disk. QEMU docs/interop/qcow2, "Bitmaps
 * extension", "Bitmap directory". What the bitmaps of an opened image are is in bitmap.h.
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
	uint32_t extra_len; /* bytes between the fixed part and the name */
	uint64_t extra_at;  /* where they are in the file */
	unsigned padding;   /* bytes behind the name */
};
#define BITMAP_IN_USE       UINT32_C(1)
#define BITMAP_AUTO         UINT32_C(2)
#define BITMAP_EXTRA_COMPAT UINT32_C(4)

/* Entries of a bitmap table: a cluster of bits, or bit 0: all ones, or nothing: all zeros. */
#define BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)
#define BITMAP_ALL_ONES       UINT64_C(1)

#define BITMAPS_MAX           65535
#define BITMAPS_MAX_DIR       (UINT64_C(1024) * BITMAPS_MAX)
#define BITMAP_MAX_TABLE      UINT32_C(0x8000000) /* entries */
#define BITMAP_MAX_DATA       (512 * MiB)         /* of one bitmap */
#define BITMAP_MAX_NAME       1023
#define BITMAP_MIN_GRAIN_BITS 9
#define BITMAP_MAX_GRAIN_BITS 31

/* Bits, bytes of bits, and table entries of a bitmap of a disk of `size` bytes. */
static inline uint64_t bitmap_bits(uint64_t size, unsigned granularity_bits)
{
	return div_up(size, UINT64_C(1) << granularity_bits);
}
static inline uint64_t bitmap_entries(uint64_t size, unsigned granularity_bits, uint64_t cluster)
{
	return div_up(div_up(bitmap_bits(size, granularity_bits), 8), cluster);
}

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

/*
 * The name of an entry, which the caller frees. *fault: NULL, or what is wrong with it or with the
 * padding behind it. 0, or a read error, -ENOMEM.
 */
int bitmaps_read_name(struct io *file, const struct bitmap_entry *e, char **name,
		      const char **fault, struct err *err);
/* *fault when two of n names are equal. -ENOMEM. */
int bitmaps_check_names(char *const *names, uint32_t n, const char **fault, struct err *err);

/* Bytes of a directory entry. */
uint64_t bitmaps_entry_bytes(uint64_t name_len, uint64_t extra_len);
/* Writes an entry of bitmaps_entry_bytes() bytes: extra and name are those that e counts. */
void bitmaps_encode(const struct bitmap_entry *e, const void *extra, const char *name, void *out);

/* What the header extension holds of a directory; 24 bytes. */
#define BITMAPS_EXT_BYTES 24
void bitmaps_encode_ext(const struct bitmap_dir *dir, unsigned char out[BITMAPS_EXT_BYTES]);

/* Bytes that copies of the bitmaps need in an image with this cluster size. -EUCLEAN. */
int bitmaps_measure(struct io *file, const struct header *h, uint64_t cluster, uint64_t *bytes,
		    struct err *err);

#endif
