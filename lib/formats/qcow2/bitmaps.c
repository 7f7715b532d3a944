// SPDX-License-Identifier: LGPL-2.1-or-later
/* The directory of persistent bitmaps; see bitmaps.h. */
#include "formats/qcow2/bitmaps.h"

#include <errno.h>

struct disk_bitmap {
	be64 table_offset; /* 0 */
	be32 table_size;   /* 8: entries */
	be32 flags;        /* 12: 0 in use, 1 auto, 2 extra data compatible */
	uint8_t type;      /* 16: 1 dirty tracking */
	uint8_t granularity_bits;
	be16 name_len;
	be32 extra_len; /* 20 */
};
static_assert(sizeof(struct disk_bitmap) == 24, "qcow2 bitmap directory entry");

/* "Bitmaps extension" */
struct disk_bitmaps_ext {
	be32 n, reserved;
	be64 bytes, off;
};
static_assert(sizeof(struct disk_bitmaps_ext) == 24, "qcow2 bitmaps extension");

#define MAX_BITMAPS 65535
#define MAX_DIR     (UINT64_C(1024) * MAX_BITMAPS)
#define MAX_TABLE   UINT32_C(0x8000000) /* entries */
#define MAX_DATA    (512 * MiB)         /* of one bitmap */
#define MAX_NAME    1023
#define KNOWN_FLAGS UINT32_C(7)
#define MIN_GRAIN   9
#define MAX_GRAIN   31

const char *bitmaps_find(const struct header *h, struct bitmap_dir *dir)
{
	struct disk_bitmaps_ext d;
	const struct header_ext *x = NULL;

	*dir = (struct bitmap_dir){0};
	for (unsigned i = 0; i < h->n_ext && !x; i++)
		if (h->ext[i].type == EXT_TYPE_BITMAPS)
			x = &h->ext[i];
	if (!x || !(h->autoclear & AUTOCLEAR_BITMAPS))
		return NULL;
	if (x->len != sizeof(d))
		return "invalid length of the header extension";
	memcpy(&d, x->data, sizeof(d));
	if (!be32_get(d.n) || be32_get(d.n) > MAX_BITMAPS)
		return "invalid number of bitmaps";
	if (!be64_get(d.off) || !is_aligned(be64_get(d.off), UINT64_C(1) << h->cluster_bits) ||
	    be64_get(d.off) > INT64_MAX - MAX_DIR || be64_get(d.bytes) > MAX_DIR)
		return "invalid place or size of the bitmap directory";
	*dir = (struct bitmap_dir){be32_get(d.n), be64_get(d.off), be64_get(d.bytes)};
	return NULL;
}

static const char *entry_fault(const struct header *h, const struct disk_bitmap *d)
{
	uint64_t size = be32_get(d->table_size), off = be64_get(d->table_offset);
	uint64_t data = size << h->cluster_bits;

	if (!size || size > MAX_TABLE || data > MAX_DATA)
		return "invalid size of a bitmap table";
	if (!off || !is_aligned(off, UINT64_C(1) << h->cluster_bits) || off > INT64_MAX - size * 8)
		return "invalid offset of a bitmap table";
	if (d->granularity_bits < MIN_GRAIN || d->granularity_bits > MAX_GRAIN)
		return "invalid granularity of a bitmap";
	if (be32_get(d->flags) & ~KNOWN_FLAGS || d->type != 1)
		return "unknown flags or type of a bitmap";
	if (be16_get(d->name_len) > MAX_NAME)
		return "name of a bitmap too long";
	if (!(be32_get(d->flags) & BITMAP_IN_USE) && h->size > (data * 8) << d->granularity_bits)
		return "bitmap is too small for the disk";
	return NULL;
}

int bitmaps_next(struct io *file, const struct header *h, const struct bitmap_dir *dir,
		 uint64_t *at, struct bitmap_entry *e, const char **fault, struct err *err)
{
	uint64_t left = dir->off + dir->bytes - *at, len;
	struct disk_bitmap d;
	int r;

	*fault = "bitmap directory is too short";
	if (left < sizeof(d))
		return 0;
	r = io_pread_tail(file, &d, sizeof(d), *at, err);
	if (r < 0)
		return r;
	len = round_up(sizeof(d) + (uint64_t)be32_get(d.extra_len) + be16_get(d.name_len), 8);
	if (len > left)
		return 0;
	*fault = entry_fault(h, &d);
	*at += len;
	*e = (struct bitmap_entry){
		.table_offset = be64_get(d.table_offset),
		.table_size = be32_get(d.table_size),
		.flags = be32_get(d.flags),
		.granularity_bits = d.granularity_bits,
		.name_len = be16_get(d.name_len),
	};
	return 0;
}

int bitmaps_measure(struct io *file, const struct header *h, uint64_t cluster, uint64_t *bytes,
		    struct err *err)
{
	struct bitmap_dir dir;
	struct bitmap_entry e;
	uint64_t names = 0, at;
	const char *fault = bitmaps_find(h, &dir);

	at = dir.off;
	*bytes = 0;
	for (uint32_t i = 0; i < dir.n && !fault; i++) {
		int r = bitmaps_next(file, h, &dir, &at, &e, &fault, err);
		uint64_t n;

		if (r < 0)
			return r;
		if (fault || (e.flags & BITMAP_IN_USE))
			continue; /* the data of one in use is void */
		n = div_up(div_up(h->size, UINT64_C(1) << e.granularity_bits), 8);
		n = div_up(n, cluster);
		*bytes += n * cluster + round_up(n * 8, cluster);
		names += round_up(sizeof(struct disk_bitmap) + e.name_len, 8);
	}
	*bytes += round_up(names, cluster);
	return fault ? io_corrupt(file, err, at, "%s", fault) : 0;
}
