// SPDX-License-Identifier: LGPL-2.1-or-later
/* The directory of persistent bitmaps; see bitmaps.h. */
#include "formats/qcow2/bitmaps.h"

#include <errno.h>
#include <stdlib.h>

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

#define KNOWN_FLAGS (BITMAP_IN_USE | BITMAP_AUTO | BITMAP_EXTRA_COMPAT)

const char *bitmaps_find(const struct header *h, struct bitmap_dir *dir)
{
	struct disk_bitmaps_ext d;
	const struct header_ext *x = NULL;
	unsigned n = 0;

	*dir = (struct bitmap_dir){0};
	for (unsigned i = 0; i < h->n_ext; i++) {
		if (h->ext[i].type != EXT_TYPE_BITMAPS)
			continue;
		n++;
		x = &h->ext[i];
	}
	if (!x || !(h->autoclear & AUTOCLEAR_BITMAPS))
		return NULL;
	if (n > 1)
		return "two header extensions";
	if (x->len != sizeof(d))
		return "invalid length of the header extension";
	memcpy(&d, x->data, sizeof(d));
	if (be32_get(d.reserved))
		return "reserved field of the header extension is not zero";
	if (!be32_get(d.n) || be32_get(d.n) > BITMAPS_MAX)
		return "invalid number of bitmaps";
	if (!be64_get(d.off) || !is_aligned(be64_get(d.off), UINT64_C(1) << h->cluster_bits) ||
	    be64_get(d.off) > INT64_MAX - BITMAPS_MAX_DIR || be64_get(d.bytes) > BITMAPS_MAX_DIR)
		return "invalid place or size";
	*dir = (struct bitmap_dir){be32_get(d.n), be64_get(d.off), be64_get(d.bytes)};
	return NULL;
}

static const char *entry_fault(const struct header *h, const struct disk_bitmap *d)
{
	uint64_t size = be32_get(d->table_size), off = be64_get(d->table_offset);
	uint64_t data = size << h->cluster_bits;

	if (!size || size > BITMAP_MAX_TABLE || data > BITMAP_MAX_DATA)
		return "invalid size of a bitmap table";
	if (!off || !is_aligned(off, UINT64_C(1) << h->cluster_bits) || off > INT64_MAX - size * 8)
		return "invalid offset of a bitmap table";
	if (d->granularity_bits < BITMAP_MIN_GRAIN_BITS ||
	    d->granularity_bits > BITMAP_MAX_GRAIN_BITS)
		return "invalid granularity of a bitmap";
	if (be32_get(d->flags) & ~KNOWN_FLAGS || d->type != 1)
		return "unknown flags or type of a bitmap";
	if (be16_get(d->name_len) > BITMAP_MAX_NAME)
		return "name of a bitmap too long";
	if (!be16_get(d->name_len))
		return "bitmap without a name";
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

	*fault = "too short for its bitmaps";
	if (left < sizeof(d))
		return 0;
	r = io_pread_tail(file, &d, sizeof(d), *at, err);
	if (r < 0)
		return r;
	len = round_up(sizeof(d) + (uint64_t)be32_get(d.extra_len) + be16_get(d.name_len), 8);
	if (len > left)
		return 0;
	*fault = entry_fault(h, &d);
	*e = (struct bitmap_entry){
		.table_offset = be64_get(d.table_offset),
		.table_size = be32_get(d.table_size),
		.flags = be32_get(d.flags),
		.granularity_bits = d.granularity_bits,
		.name_len = be16_get(d.name_len),
		.extra_len = be32_get(d.extra_len),
		.extra_at = *at + sizeof(d),
	};
	e->padding = (unsigned)(len - sizeof(d) - e->extra_len - e->name_len);
	*at += len;
	return 0;
}

int bitmaps_read_name(struct io *file, const struct bitmap_entry *e, char **name,
		      const char **fault, struct err *err)
{
	char buf[BITMAP_MAX_NAME + 8];
	int r = io_pread_tail(file, buf, (size_t)e->name_len + e->padding,
			      e->extra_at + e->extra_len, err);

	*name = NULL;
	if (r < 0)
		return r;
	if (memchr(buf, 0, e->name_len))
		*fault = "name of a bitmap with a zero byte";
	else if (!bytes_are_zero(buf + e->name_len, e->padding))
		*fault = "padding behind the name of a bitmap is not zero";
	if (*fault)
		return 0;
	*name = strndup(buf, e->name_len);
	return *name ? 0 : err_nomem(err, e->name_len, "the bitmap directory");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int bitmaps_check_names(char *const *names, uint32_t n, const char **fault, struct err *err)
{
	const char **sorted = calloc((size_t)n + 1, sizeof(*sorted));

	if (!sorted)
		return err_nomem(err, n * sizeof(*sorted), "the bitmap directory");
	for (uint32_t i = 0; i < n; i++)
		sorted[i] = names[i];
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (uint32_t i = 1; i < n && !*fault; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			*fault = "two bitmaps of the same name";
	free(sorted);
	return 0;
}

uint64_t bitmaps_entry_bytes(uint64_t name_len, uint64_t extra_len)
{
	return round_up(sizeof(struct disk_bitmap) + extra_len + name_len, 8);
}

void bitmaps_encode(const struct bitmap_entry *e, const void *extra, const char *name, void *out)
{
	struct disk_bitmap d = {
		.table_offset = be64_make(e->table_offset),
		.table_size = be32_make(e->table_size),
		.flags = be32_make(e->flags),
		.type = 1,
		.granularity_bits = e->granularity_bits,
		.name_len = be16_make(e->name_len),
		.extra_len = be32_make(e->extra_len),
	};
	unsigned char *p = out;

	memset(p, 0, bitmaps_entry_bytes(e->name_len, e->extra_len));
	memcpy(p, &d, sizeof(d));
	if (e->extra_len)
		memcpy(p + sizeof(d), extra, e->extra_len);
	memcpy(p + sizeof(d) + e->extra_len, name, e->name_len);
}

void bitmaps_encode_ext(const struct bitmap_dir *dir, unsigned char out[BITMAPS_EXT_BYTES])
{
	struct disk_bitmaps_ext d = {
		.n = be32_make(dir->n),
		.bytes = be64_make(dir->bytes),
		.off = be64_make(dir->off),
	};

	memcpy(out, &d, sizeof(d));
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
		if (fault)
			break;
		n = div_up(div_up(h->size, UINT64_C(1) << e.granularity_bits), 8);
		n = div_up(n, cluster);
		*bytes += n * cluster + round_up(n * 8, cluster);
		names += bitmaps_entry_bytes(e.name_len, 0);
	}
	*bytes += round_up(names, cluster);
	return fault ? io_corrupt(file, err, at, "bitmap directory: %s", fault) : 0;
}
