// SPDX-License-Identifier: LGPL-2.1-or-later
/* Where the tables of a new qcow2 image lie, and writing them in file order; see build.h. */
#include "formats/qcow2/build.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "io/file.h"

/* ---- layout ---- */

static uint64_t clusters_of(const struct qbuild *q, uint64_t bytes)
{
	return div_up(bytes, q->cluster);
}

/*
 * Refcount blocks and table count themselves: grow both until they cover everything. Each round can
 * only add, and soon adds nothing.
 */
static int size_refcounts(const struct qbuild *q, struct layout *l, struct err *err)
{
	uint64_t per_block = q->cluster * 8 >> q->h.refcount_order;
	uint64_t others = 1 + l->data + l->n_l1 + l->n_l2 + q->bitmap_clusters;

	l->n_reftable = l->n_refblocks = 1;
	for (;;) {
		uint64_t blocks = div_up(others + l->n_reftable + l->n_refblocks, per_block);
		uint64_t table = clusters_of(q, blocks * 8);

		if (table * q->cluster > QCOW2_MAX_REFTABLE)
			return err_set(err, EFBIG,
				       "%s: the refcount table would become too large (try using a "
				       "larger cluster size)",
				       q->build.file->name);
		if (blocks <= l->n_refblocks && table <= l->n_reftable)
			return 0;
		l->n_refblocks = max_u64(blocks, l->n_refblocks);
		l->n_reftable = max_u64(table, l->n_reftable);
	}
}

int qbuild_layout(const struct qbuild *q, struct layout *l, struct err *err)
{
	bool front = q->front || !q->next;
	uint64_t at;
	int r;

	*l = (struct layout){.data = q->next >> q->h.cluster_bits,
			     .n_l2 = q->prealloc != PREALLOC_OFF ? q->l2.n : q->l2.used};
	l->n_l1 = clusters_of(q, q->l2.n * 8);
	r = size_refcounts(q, l, err);
	if (r < 0)
		return r;
	at = q->cluster;
	if (!front) {
		l->data_start = at;
		at += q->next;
	}
	l->reftable = at;
	l->refblocks = l->reftable + l->n_reftable * q->cluster;
	l->l1 = l->refblocks + l->n_refblocks * q->cluster;
	l->l2 = l->l1 + l->n_l1 * q->cluster;
	l->bitmaps = l->l2 + l->n_l2 * q->cluster;
	l->end = l->bitmaps + q->bitmap_clusters * q->cluster;
	if (front) {
		l->data_start = l->end;
		l->end += q->next;
	}
	/* As the peer's empty images: the L1 table need not fill its last cluster. */
	if (l->end == l->l2)
		l->end = l->l1 + q->l2.n * 8;
	if (!l->n_l1)
		l->l1 = 0;
	return 0;
}

/* ---- writing ---- */

#define PIECE   4096       /* bytes: tables are looked at in these … */
#define MIN_GAP (32 * KiB) /* … for stretches of zeros that are worth a second write */

/* Collects what goes to ascending offsets without gaps into large writes. */
struct appender {
	struct io *io;
	unsigned char *buf;
	size_t cap, fill;
	uint64_t at; /* where buf goes */
	bool sparse; /* what is not written reads as zeros: large clusters are mostly empty */
};

static size_t zeros_at(const struct appender *a, size_t from)
{
	size_t at = from;

	while (at < a->fill && bytes_are_zero(a->buf + at, min_u64(PIECE, a->fill - at)))
		at += PIECE;
	return min_u64(at, a->fill) - from;
}

/* Where the stretch to be written from `from` on ends. */
static size_t data_end(const struct appender *a, size_t from)
{
	size_t at = from, gap;

	for (; at < a->fill; at += gap ? gap : PIECE) {
		gap = a->sparse ? zeros_at(a, at) : 0;
		if (gap >= MIN_GAP || (gap && at + gap == a->fill))
			return at;
	}
	return a->fill;
}

static int append_flush(struct appender *a, struct err *err)
{
	int r = 0;

	for (size_t from = 0, end; r == 0 && from < a->fill; from = end) {
		end = data_end(a, from);
		r = io_pwrite(a->io, a->buf + from, end - from, a->at + from, err);
		if (a->sparse)
			end += zeros_at(a, end);
	}
	a->at += a->fill;
	a->fill = 0;
	return r;
}

/* A piece of the buffer, zeroed, of len <= cap bytes; NULL: the flush failed. */
static void *append(struct appender *a, size_t len, int *r, struct err *err)
{
	unsigned char *p;

	if (a->fill + len > a->cap) {
		*r = append_flush(a, err);
		if (*r < 0)
			return NULL;
	}
	p = a->buf + a->fill;
	memset(p, 0, len);
	a->fill += len;
	return p;
}

/* A table of be64: entry i is first + i * step for the i that are `used`. */
static int append_offsets(struct appender *a, const struct qbuild *q, uint64_t clusters,
			  uint64_t entries, uint64_t first, struct err *err)
{
	uint64_t per_cluster = q->cluster / 8;
	int r = 0;

	for (uint64_t c = 0; c < clusters; c++) {
		be64 *p = append(a, q->cluster, &r, err);
		uint64_t n = min_u64(per_cluster, entries - c * per_cluster);

		if (!p)
			return r;
		for (uint64_t i = 0; i < n; i++)
			p[i] = be64_make(first + (c * per_cluster + i) * q->cluster);
	}
	return 0;
}

static int append_refblocks(struct appender *a, const struct qbuild *q, const struct layout *l,
			    struct err *err)
{
	uint64_t per_block = q->cluster * 8 >> q->h.refcount_order;
	uint64_t data = l->data_start >> q->h.cluster_bits, total = clusters_of(q, l->end);
	int r = 0;

	for (uint64_t b = 0; b < l->n_refblocks; b++) {
		unsigned char *p = append(a, q->cluster, &r, err);
		uint64_t first = b * per_block;

		if (!p)
			return r;
		for (uint64_t c = first; c < min_u64(total, first + per_block); c++) {
			bool is_data = c >= data && c - data < l->data;
			uint64_t n = is_data ? data_refs_get(&q->refs, c - data) : 1;

			refcount_store(p, q->h.refcount_order, c - first, n);
		}
	}
	return 0;
}

static int append_l1(struct appender *a, const struct qbuild *q, const struct layout *l,
		     struct err *err)
{
	uint64_t per_cluster = q->cluster / 8, table = l->l2;
	int r = 0;

	for (uint64_t c = 0; c < l->n_l1; c++) {
		uint64_t n = min_u64(per_cluster, q->l2.n - c * per_cluster);
		be64 *p = append(a, l->l2 < l->end ? q->cluster : n * 8, &r, err);

		if (!p)
			return r;
		for (uint64_t i = 0; i < n; i++) {
			if (q->prealloc == PREALLOC_OFF && !q->l2.table[c * per_cluster + i])
				continue;
			p[i] = be64_make(ENTRY_COPIED | table);
			table += q->cluster;
		}
	}
	return 0;
}

/*
 * Table i of an image in which every cluster is where its number says. Standard entries make it data
 * at once; extended ones can say that the space is there and holds nothing yet, but for a data file
 * that has to read as the disk, whoever wrote to it.
 */
static void identity_table(const struct qbuild *q, const struct layout *l, uint64_t i, be64 *out)
{
	uint64_t per_table = UINT64_C(1) << q->l2.l2_bits;
	uint64_t start = q->external ? 0 : l->data_start;
	uint64_t data = q->external ? clusters_of(q, q->h.size) : l->data;
	uint64_t n = min_u64(per_table, data - i * per_table);

	for (uint64_t k = 0; k < n; k++) {
		uint64_t index = i * per_table + k;
		uint64_t entry = ENTRY_COPIED | (start + (index << q->h.cluster_bits));

		if (!q->l2.extended) {
			out[k] = be64_make(entry);
		} else if (q->h.autoclear & AUTOCLEAR_RAW_DATA) {
			out[2 * k] = be64_make(entry);
			out[2 * k + 1] = be64_make(UINT32_MAX);
		} else {
			l2_tables_put(&q->l2, index, entry, out + 2 * k);
		}
	}
}

static int append_l2(struct appender *a, const struct qbuild *q, const struct layout *l,
		     struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; i < q->l2.n; i++) {
		be64 *p;

		if (q->prealloc == PREALLOC_OFF && !q->l2.table[i])
			continue;
		p = append(a, q->cluster, &r, err);
		if (!p)
			return r;
		if (q->prealloc != PREALLOC_OFF)
			identity_table(q, l, i, p);
		else
			l2_tables_copy(&q->l2, i, q->external ? 0 : l->data_start, p);
	}
	return 0;
}

static int append_bitmaps(struct appender *a, struct qbuild *q, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < q->bitmap_clusters; i++) {
		void *p = append(a, q->cluster, &r, err);

		if (p)
			r = qbuild_bitmaps_next(q, p, err);
	}
	return r;
}

int qbuild_write_tables(struct qbuild *q, const struct layout *l, struct err *err)
{
	struct appender a = {.io = q->build.file, .at = l->reftable};
	CLEANUP_FREE unsigned char *buf = NULL;
	int r;

	a.cap = max_u64(q->cluster, 1 * MiB);
	if (posix_memalign((void **)&buf, 4096, a.cap))
		return err_nomem(err, a.cap, "a write buffer");
	a.buf = buf;
	a.sparse = qbuild_is_sparse(q);
	r = append_offsets(&a, q, l->n_reftable, l->n_refblocks, l->refblocks, err);
	if (r == 0)
		r = append_refblocks(&a, q, l, err);
	if (r == 0)
		r = append_l1(&a, q, l, err);
	if (r == 0)
		r = append_l2(&a, q, l, err);
	if (r == 0)
		r = append_bitmaps(&a, q, err);
	return r < 0 ? r : append_flush(&a, err);
}

/* ---- preallocation ---- */

static int write_zeros(struct io *file, uint64_t off, uint64_t len, struct err *err)
{
	int r = 0;

	for (uint64_t n; r == 0 && len; off += n, len -= n) {
		n = min_u64(len, ZERO_BUF_SIZE);
		r = io_pwrite(file, zero_buf, n, off, err);
	}
	return r;
}

int qbuild_size_data(struct qbuild *q, struct err *err)
{
	struct io *data = q->build.data;
	uint64_t size = q->build.size;

	if (data->caps & IO_GROWS)
		return io_size(data) == size ? 0 : io_resize(data, size, err);
	if (io_size(data) >= size)
		return 0;
	return err_set(err, ENOSPC, "%s: the disk needs %" PRIu64 " bytes, the device has %" PRIu64,
		       data->name, size, io_size(data));
}

static int preallocate_data(struct qbuild *q, struct err *err)
{
	struct io *data = q->build.data;
	int r = qbuild_size_data(q, err);

	if (r < 0 || !q->build.size)
		return r;
	if (q->prealloc == PREALLOC_METADATA && (data->caps & IO_GROWS))
		return 0; /* it is new */
	if (q->prealloc == PREALLOC_METADATA)
		return io_zero(data, 0, q->build.size, IO_ZERO_UNMAP, err);
	r = -ENOTSUP;
	if (q->prealloc == PREALLOC_FALLOC)
		r = file_allocate(data, 0, q->build.size, err);
	return r == -ENOTSUP ? write_zeros(data, 0, q->build.size, err) : r;
}

int qbuild_preallocate(struct qbuild *q, const struct layout *l, struct err *err)
{
	struct io *file = q->build.file;
	uint64_t len = l->end - l->data_start;
	int r = -ENOTSUP;

	if (q->external)
		return preallocate_data(q, err);
	if (l->end > io_size(file) && !(file->caps & IO_GROWS))
		return err_set(err, ENOSPC,
			       "%s: the image needs %" PRIu64 " bytes, the device has %" PRIu64,
			       file->name, l->end, io_size(file));
	if (q->prealloc == PREALLOC_FALLOC)
		r = file_allocate(file, 0, l->end, err);
	if (r == -ENOTSUP && q->prealloc != PREALLOC_METADATA)
		return write_zeros(file, l->data_start, len, err);
	if (r != -ENOTSUP)
		return r;
	if (file->caps & IO_GROWS)
		return io_resize(file, l->end, err);
	return io_zero(file, l->data_start, len, IO_ZERO_UNMAP, err);
}
