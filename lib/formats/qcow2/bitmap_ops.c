// SPDX-License-Identifier: LGPL-2.1-or-later
/* Adding, removing and changing persistent bitmaps; see bitmap.h for the order of writing. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"

static bool ops_supported(const struct img *img)
{
	const struct qcow2 *q = (const struct qcow2 *)(const void *)img;

	return q->h.version >= 3;
}

static bool ops_creatable(const struct opts *opts)
{
	const char *compat = opts_get(opts, "compat");

	return !compat || (strcmp(compat, "0.10") != 0 && strcmp(compat, "v2") != 0);
}

static int ops_load(struct img *img, unsigned *n, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int r = qcow2_bitmaps_load(q, err);

	*n = r < 0 ? 0 : q->bitmaps->dir.n;
	return r;
}

static void ops_get(struct img *img, unsigned index, struct bitmap *out)
{
	const struct qcow2_bitmaps *m = qcow2_of(img)->bitmaps;
	const struct qcow2_bitmap *b = &m->v[index];

	*out = (struct bitmap){
		.name = b->name,
		.granularity = UINT64_C(1) << b->e.granularity_bits,
		.size = m->size,
		.enabled = b->enabled,
		.inconsistent = b->inconsistent,
		.in_use = b->e.flags & BITMAP_IN_USE,
	};
}

/* Before every change. */
static int start(struct qcow2 *q, struct err *err)
{
	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why);
	return q->writing ? 0 : qcow2_begin_write(q, err);
}

/* ---- add ---- */

static int check_new(const struct qcow2 *q, const struct qcow2_bitmap *b, struct err *err)
{
	uint64_t bytes = bitmaps_entry_bytes(b->e.name_len, 0) + q->bitmaps->dir.bytes;

	if (q->h.version < 3)
		return err_set(err, EINVAL, "Cannot store dirty bitmaps in qcow2 v2 files");
	if (!q->h.size)
		return err_set(err, EINVAL, "A disk of 0 bytes cannot have bitmaps");
	if ((uint64_t)b->e.table_size << q->cluster_bits > BITMAP_MAX_DATA)
		return err_set(
			err, EINVAL,
			"Too much space will be occupied by the bitmap. Use larger granularity");
	if (q->bitmaps->dir.n >= BITMAPS_MAX)
		return err_set(err, EFBIG,
			       "Maximum number of persistent bitmaps is already reached");
	if (bytes > BITMAPS_MAX_DIR)
		return err_set(err, EFBIG, "Not enough space in the bitmap directory");
	return 0;
}

/* An empty table, in new clusters. */
static int write_empty_table(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	uint64_t n = div_up(b->e.table_size * UINT64_C(8), q->cluster);
	int r = qcow2_alloc_table(q, n, &b->e.table_offset, err);

	if (r < 0)
		return r;
	r = io_zero(q->img.file, b->e.table_offset, n << q->cluster_bits, 0, err);
	if (r < 0)
		qcow2_unalloc(q, b->e.table_offset >> q->cluster_bits, n);
	return r;
}

/* A list of the bitmaps with n entries, which are still the old list's. */
static struct qcow2_bitmap *copy_list(const struct qcow2 *q, uint32_t n, struct err *err)
{
	struct qcow2_bitmap *v = calloc(n ? n : 1, sizeof(*v));

	if (!v)
		err_nomem(err, n * sizeof(*v), "bitmaps");
	else if (q->bitmaps->dir.n)
		memcpy(v, q->bitmaps->v, min_u64(n, q->bitmaps->dir.n) * sizeof(*v));
	return v;
}

static int add_described(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	struct qcow2_bitmap *v, *old = m->v;
	int r = check_new(q, b, err);

	if (r < 0)
		return r;
	v = copy_list(q, m->dir.n + 1, err);
	if (!v)
		return -ENOMEM;
	r = write_empty_table(q, b, err);
	if (r < 0) {
		free(v);
		return r;
	}
	v[m->dir.n] = *b;
	r = qcow2_bitmaps_switch(q, v, m->dir.n + 1, err);
	if (r < 0) {
		if (!atomic_load(&q->img.broken))
			qcow2_unalloc(q, b->e.table_offset >> q->cluster_bits,
				      div_up(b->e.table_size * UINT64_C(8), q->cluster));
		free(v);
		return r;
	}
	free(old);
	return 0;
}

static int ops_add(struct img *img, const char *name, uint64_t granularity, bool enabled,
		   struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmap b = {.enabled = enabled};
	int r = start(q, err);

	if (r < 0)
		return r;
	b.e.granularity_bits = (uint8_t)log2_u64(granularity);
	b.e.flags = enabled ? BITMAP_AUTO : 0;
	b.e.name_len = (uint16_t)strlen(name);
	b.bits = bitmap_bits(q->h.size, b.e.granularity_bits);
	b.e.table_size =
		(uint32_t)min_u64(bitmap_entries(q->h.size, b.e.granularity_bits, q->cluster),
				  UINT32_MAX);
	b.name = strdup(name);
	r = b.name ? add_described(q, &b, err) : err_nomem(err, b.e.name_len, "a bitmap");
	if (r < 0)
		free(b.name);
	return r < 0 ? r : qcow2_bitmaps_release(q, err);
}

/* ---- remove ---- */

/* Whether its clusters can be given back: a table that makes no sense leaves them to the check. */
static int claim_if_sane(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	int r = qcow2_bits_claim(q, b, err);

	return r == -EUCLEAN ? 0 : r;
}

static void free_clusters(struct qcow2 *q, struct qcow2_bitmap *b)
{
	uint64_t bytes = b->e.table_size * UINT64_C(8);

	if (b->claimed)
		qcow2_bits_clear(q, b);
	qcow2_bitmaps_ripen(q, &b->frees);
	/* A table that is said to be outside the file has no clusters. */
	if (b->e.table_offset + bytes <= round_up(io_size(q->img.file), q->cluster))
		qcow2_bitmaps_note_free(q, &q->bitmaps->frees, b->e.table_offset, bytes);
}

static int ops_remove(struct img *img, unsigned index, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmap *v, *old, gone;
	uint32_t n;
	int r = start(q, err);

	if (r == 0)
		r = claim_if_sane(q, &q->bitmaps->v[index], err);
	if (r < 0)
		return r;
	n = q->bitmaps->dir.n - 1;
	v = copy_list(q, n + 1, err);
	if (!v)
		return -ENOMEM;
	old = q->bitmaps->v;
	gone = v[index];
	memmove(&v[index], &v[index + 1], (n - index) * sizeof(*v));
	r = qcow2_bitmaps_switch(q, v, n, err);
	if (r < 0) {
		free(v);
		return r;
	}
	free(old);
	free_clusters(q, &gone);
	qcow2_bitmap_free_one(q, &gone);
	return qcow2_bitmaps_release(q, err);
}

/* ---- changes ---- */

static int usable(const struct qcow2_bitmap *b, struct err *err)
{
	if (!b->inconsistent)
		return 0;
	return err_set(err, ESTALE, "Bitmap '%s' is inconsistent and cannot be used", b->name);
}

static int ops_enable(struct img *img, unsigned index, bool enable, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmap *b;
	uint32_t flags;
	int r = start(q, err);

	if (r < 0)
		return r;
	b = &q->bitmaps->v[index];
	r = usable(b, err);
	if (r < 0 || b->enabled == enable)
		return r;
	flags = b->e.flags;
	b->e.flags = enable ? flags | BITMAP_AUTO : flags & ~BITMAP_AUTO;
	r = qcow2_bitmaps_write_directory(q, BARRIER_BITMAP_STORED, err);
	if (r < 0) {
		b->e.flags = flags;
		return r;
	}
	b->enabled = enable;
	qcow2_bitmaps_count(q);
	return 0;
}

/* Before the bits of a bitmap are changed. */
static int begin_bits(struct qcow2 *q, unsigned index, struct qcow2_bitmap **b, struct err *err)
{
	int r = start(q, err);

	if (r < 0)
		return r;
	*b = &q->bitmaps->v[index];
	r = usable(*b, err);
	if (r == 0)
		r = qcow2_bits_claim(q, *b, err);
	return r < 0 ? r : qcow2_bitmaps_mark(q, bitmap_is, *b, err);
}

static int ops_clear(struct img *img, unsigned index, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmap *b;
	int r = begin_bits(q, index, &b, err);

	if (r == 0)
		qcow2_bits_clear(q, b);
	return r;
}

static int ops_set(struct img *img, unsigned index, uint64_t off, uint64_t len, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmap *b;
	int r = begin_bits(q, index, &b, err);

	return r < 0 || !len ? r : qcow2_bits_set(q, b, off, len, err);
}

static int ops_read(struct img *img, unsigned index, uint64_t at, void *buf, size_t len,
		    struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmap *b = &q->bitmaps->v[index];
	int r = usable(b, err);

	return r < 0 ? r : qcow2_bits_read(q, b, at, buf, len, err);
}

const struct bitmap_ops qcow2_bitmap_ops = {
	.supported = ops_supported,
	.creatable = ops_creatable,
	.load = ops_load,
	.get = ops_get,
	.add = ops_add,
	.remove = ops_remove,
	.enable = ops_enable,
	.clear = ops_clear,
	.set = ops_set,
	.read = ops_read,
};
