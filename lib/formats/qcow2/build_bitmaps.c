// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The bitmaps of an image that is being made: the directory, then for each bitmap its table and those
 * clusters of bits that are not all zeros. The bits are read twice, once to know how many these are.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "formats/qcow2/build.h"

static uint64_t table_clusters(const struct qbuild *q, const struct qbuild_bitmap *b)
{
	return div_up(b->e.table_size * UINT64_C(8), q->cluster);
}

static bool is_used(const struct qbuild_bitmap *b, uint64_t i)
{
	return bit_get(b->used, i);
}

/* Cluster i of the bits. */
static int read_cluster(const struct qbuild *q, const struct qbuild_bitmap *b, uint64_t i,
			void *buf, struct err *err)
{
	uint64_t at = i << q->h.cluster_bits;

	return b->src.read(b->src.ctx, at, buf, min_u64(q->cluster, b->bytes - at), err);
}

static int look_at(struct qbuild *q, struct qbuild_bitmap *b, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = calloc(1, q->cluster);
	int r = 0;

	b->used = calloc(1, b->e.table_size / 8 + 1);
	if (!buf || !b->used)
		return err_nomem(err, q->cluster, "a bitmap");
	for (uint64_t i = 0; r == 0 && i < b->e.table_size; i++) {
		memset(buf, 0, q->cluster);
		r = read_cluster(q, b, i, buf, err);
		if (r < 0 || bytes_are_zero(buf, q->cluster))
			continue;
		b->used[i / 8] |= (unsigned char)(1U << i % 8);
		b->n_used++;
	}
	return r;
}

static int begin_one(struct qbuild *q, const struct create_bitmap *src, struct qbuild_bitmap *b,
		     struct err *err)
{
	unsigned bits = log2_u64(src->granularity);
	uint64_t n = bitmap_entries(q->h.size, bits, q->cluster);

	if (!n || n << q->h.cluster_bits > BITMAP_MAX_DATA)
		return err_set(err, EINVAL,
			       "Failed to create bitmap %s: Too much space will be occupied by "
			       "the bitmap. Use larger granularity",
			       src->name);
	b->src = *src;
	b->bytes = div_up(bitmap_bits(q->h.size, bits), 8);
	b->e = (struct bitmap_entry){
		.table_size = (uint32_t)n,
		.flags = src->enabled ? BITMAP_AUTO : 0,
		.granularity_bits = (uint8_t)bits,
		.name_len = (uint16_t)strlen(src->name),
	};
	return look_at(q, b, err);
}

/* The header with the extension must fit: known now rather than when all is copied. */
static int try_header(struct qbuild *q, struct err *err)
{
	static const unsigned char ext[BITMAPS_EXT_BYTES];
	CLEANUP_FREE unsigned char *buf = malloc(q->cluster);
	int r = buf ? header_set_ext(&q->h, EXT_TYPE_BITMAPS, ext, sizeof(ext), err)
		    : err_nomem(err, q->cluster, "the header");

	q->h.autoclear |= AUTOCLEAR_BITMAPS;
	return r < 0 ? r : header_encode(&q->h, buf, err);
}

int qbuild_bitmaps_begin(struct qbuild *q, const struct create_args *args, struct err *err)
{
	int r = 0;

	if (!args->n_bitmaps)
		return 0;
	if (q->h.version < 3)
		return err_set(err, ENOTSUP, "Format driver 'qcow2' does not support bitmaps");
	q->bitmap = calloc(args->n_bitmaps, sizeof(*q->bitmap));
	if (!q->bitmap)
		return err_nomem(err, args->n_bitmaps * sizeof(*q->bitmap), "bitmaps");
	while (r == 0 && q->n_bitmaps < args->n_bitmaps) {
		struct qbuild_bitmap *b = &q->bitmap[q->n_bitmaps];

		r = begin_one(q, &args->bitmaps[q->n_bitmaps++], b, err);
		q->bitmap_clusters += table_clusters(q, b) + b->n_used;
		q->bitmap_dir_bytes += bitmaps_entry_bytes(b->e.name_len, 0);
	}
	q->bitmap_clusters += div_up(q->bitmap_dir_bytes, q->cluster);
	return r < 0 ? r : try_header(q, err);
}

void qbuild_bitmaps_free(struct qbuild *q)
{
	for (unsigned i = 0; i < q->n_bitmaps; i++)
		free(q->bitmap[i].used);
	free(q->bitmap);
	free(q->bitmap_dir);
}

int qbuild_bitmaps_place(struct qbuild *q, const struct layout *l, struct err *err)
{
	struct bitmap_dir dir = {q->n_bitmaps, l->bitmaps, q->bitmap_dir_bytes};
	uint64_t at = l->bitmaps + round_up(dir.bytes, q->cluster);
	unsigned char ext[BITMAPS_EXT_BYTES];

	if (!q->n_bitmaps)
		return 0;
	for (unsigned i = 0; i < q->n_bitmaps; i++) {
		struct qbuild_bitmap *b = &q->bitmap[i];

		b->e.table_offset = at;
		at += (table_clusters(q, b) + b->n_used) << q->h.cluster_bits;
	}
	bitmaps_encode_ext(&dir, ext);
	return header_set_ext(&q->h, EXT_TYPE_BITMAPS, ext, sizeof(ext), err);
}

/* The whole directory. */
static int encode_dir(struct qbuild *q, struct err *err)
{
	uint64_t bytes = q->bitmap_dir_bytes, at = 0;

	q->bitmap_dir = malloc(bytes);
	if (!q->bitmap_dir)
		return err_nomem(err, bytes, "the bitmap directory");
	for (unsigned k = 0; k < q->n_bitmaps; k++) {
		const struct qbuild_bitmap *b = &q->bitmap[k];

		bitmaps_encode(&b->e, NULL, b->src.name, q->bitmap_dir + at);
		at += bitmaps_entry_bytes(b->e.name_len, 0);
	}
	return 0;
}

/* ---- the clusters, one after the other ---- */

static void next_table(const struct qbuild *q, const struct qbuild_bitmap *b,
		       struct bitmap_cursor *c, be64 *out)
{
	uint64_t end = min_u64((c->tables + 1) * (q->cluster / 8), b->e.table_size);

	if (!c->tables)
		c->host = b->e.table_offset + (table_clusters(q, b) << q->h.cluster_bits);
	for (; c->entry < end; c->entry++, out++) {
		if (!is_used(b, c->entry))
			continue;
		*out = be64_make(c->host);
		c->host += q->cluster;
	}
	c->tables++;
	if (c->entry == b->e.table_size)
		c->entry = 0;
}

static int next_bits(const struct qbuild *q, const struct qbuild_bitmap *b, struct bitmap_cursor *c,
		     void *buf, struct err *err)
{
	while (!is_used(b, c->entry))
		c->entry++;
	c->stored++;
	return read_cluster(q, b, c->entry++, buf, err);
}

int qbuild_bitmaps_next(struct qbuild *q, void *buf, struct err *err)
{
	struct bitmap_cursor *c = &q->bitmap_at;
	uint64_t bytes = q->bitmap_dir_bytes, at = c->dir << q->h.cluster_bits;
	const struct qbuild_bitmap *b = &q->bitmap[c->bitmap];
	int r = 0;

	if (at < bytes) {
		r = q->bitmap_dir ? 0 : encode_dir(q, err);
		if (r == 0)
			memcpy(buf, q->bitmap_dir + at, min_u64(q->cluster, bytes - at));
		c->dir++;
		return r;
	}
	if (c->tables < table_clusters(q, b))
		next_table(q, b, c, buf);
	else
		r = next_bits(q, b, c, buf, err);
	if (c->tables == table_clusters(q, b) && c->stored == b->n_used)
		*c = (struct bitmap_cursor){.dir = c->dir, .bitmap = c->bitmap + 1};
	return r;
}
