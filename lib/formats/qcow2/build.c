// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The builder of qcow2 images; see build.h and image/build.h.
 *
 * Clusters are given away one after the other, so with one reservation after the other in guest
 * order the data lies in the file in guest order. Compressed units are packed back to back into
 * clusters that are set aside for them a few at a time: a plain cluster in between (data that does
 * not compress) does not cut the packing short.
 */
#include "formats/qcow2/build.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* Set aside at once for compressed units: an eighth of the file so far, and not more than this. */
#define CODED_AREA_MAX (1 * MiB)

#define HEADER_PIECE 4096

static int check_length(const struct qbuild *q, uint64_t end, struct err *err)
{
	if (end <= ENTRY_OFFSET - q->cluster)
		return 0;
	return err_set(err, EFBIG, "%s: the image file would become too large",
		       q->build.file->name);
}

/* n clusters at the end of what was given away so far: *host is relative to the first of all. */
static int take_clusters(struct qbuild *q, uint64_t n, uint64_t *host, struct err *err)
{
	uint64_t len = n << q->h.cluster_bits;
	int r = check_length(q, q->next + len, err);

	if (r < 0)
		return r;
	*host = q->next;
	q->next += len;
	return 0;
}

/* The same entry for n units; of preallocated ones only what they are given counts. */
static int note_units(struct qbuild *q, uint64_t first, uint64_t n, uint64_t entry, struct err *err)
{
	int r = n ? l2_tables_prepare(&q->l2, first, n, err) : 0;

	for (uint64_t i = 0; r == 0 && i < n; i++)
		l2_tables_set(&q->l2, first + i, entry);
	return r;
}

static int qbuild_reserve(struct build *b, uint64_t off, uint64_t len, uint64_t *host,
			  struct err *err)
{
	struct qbuild *q = qbuild_of(b);
	uint64_t first = off >> q->h.cluster_bits, n = len >> q->h.cluster_bits, at = 0;
	int r;

	if (q->prealloc != PREALLOC_OFF) {
		*host = q->base + off;
		return q->l2.extended ? note_units(q, first, n, ENTRY_COPIED, err) : 0;
	}
	r = n ? l2_tables_prepare(&q->l2, first, n, err) : 0;
	if (q->external) {
		for (uint64_t i = 0; r == 0 && i < n; i++)
			l2_tables_set(&q->l2, first + i,
				      ENTRY_COPIED | (first + i) << q->h.cluster_bits);
		*host = off;
		return r;
	}
	if (r == 0 && n && q->refs.counting)
		r = data_refs_prepare(&q->refs, q->next >> q->h.cluster_bits, n, err);
	if (r == 0)
		r = take_clusters(q, n, &at, err);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t entry = ENTRY_COPIED | (at + (i << q->h.cluster_bits));

		l2_tables_set(&q->l2, first + i, entry);
		if (q->refs.counting)
			data_refs_add(&q->refs, (at >> q->h.cluster_bits) + i);
	}
	*host = q->base + at;
	return 0;
}

/* Whether one more unit may begin in the cluster of q->coded. */
static bool may_share(const struct qbuild *q)
{
	if (is_aligned(q->coded, q->cluster))
		return true; /* nobody is there yet */
	return data_refs_get(&q->refs, q->coded >> q->h.cluster_bits) <
	       refcount_max(q->h.refcount_order);
}

/* Makes room for len bytes at q->coded. */
static int coded_room(struct qbuild *q, size_t len, struct err *err)
{
	uint64_t area = round_up(min_u64(q->next / 8 + 1, CODED_AREA_MAX), q->cluster), at;
	int r;

	if (q->coded < q->coded_end && !may_share(q))
		q->coded = round_up(q->coded, q->cluster);
	if (q->coded + len <= q->coded_end)
		return 0;
	r = take_clusters(q, area >> q->h.cluster_bits, &at, err);
	if (r < 0)
		return r;
	if (at != q->coded_end || !q->refs.counting)
		q->coded = at;
	q->coded_end = at + area;
	data_refs_start(&q->refs, at >> q->h.cluster_bits);
	return 0;
}

static int qbuild_reserve_coded(struct build *b, uint64_t off, size_t len, uint64_t *host,
				struct err *err)
{
	struct qbuild *q = qbuild_of(b);
	uint64_t first, n, limit = UINT64_C(1) << coded_shift(q->h.cluster_bits);
	int r = l2_tables_prepare(&q->l2, off >> q->h.cluster_bits, 1, err);

	if (r == 0)
		r = coded_room(q, len, err);
	if (r < 0)
		return r;
	if (q->base + q->coded + len > limit)
		return err_set(err, EFBIG,
			       "%s: the image file is too large for compressed clusters",
			       b->file->name);
	first = q->coded >> q->h.cluster_bits;
	n = ((q->coded + len - 1) >> q->h.cluster_bits) - first + 1;
	r = data_refs_prepare(&q->refs, first, n, err);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		data_refs_add(&q->refs, first + i);
	l2_tables_set(&q->l2, off >> q->h.cluster_bits,
		      coded_entry(q->coded, len, q->h.cluster_bits));
	*host = q->base + q->coded;
	q->coded += len;
	return 0;
}

static int qbuild_zero(struct build *b, uint64_t off, uint64_t len, struct err *err)
{
	struct qbuild *q = qbuild_of(b);
	uint64_t first = off >> q->h.cluster_bits, n = len >> q->h.cluster_bits;

	/* Preallocated space reads as zeros, but for a backing file: entries are extended then. */
	if (!n || (q->prealloc != PREALLOC_OFF && !q->h.backing_name))
		return 0;
	if (q->h.version < 3)
		return -ENOTSUP; /* has no such entries */
	return note_units(q, first, n, ENTRY_ZERO, err);
}

/* With a backing file they hide what it holds there. */
static void qbuild_hole(struct build *b, uint64_t off, uint64_t len)
{
	struct qbuild *q = qbuild_of(b);

	for (uint64_t end = off + len, to; off < end; off = to) {
		uint64_t in_cluster = off & (q->cluster - 1), first = in_cluster / b->grain, n;

		to = min_u64(end, off - in_cluster + q->cluster);
		n = (to - off) / b->grain;
		l2_tables_hole(&q->l2, off >> q->h.cluster_bits,
			       (uint32_t)(((UINT64_C(1) << n) - 1) << first),
			       q->h.backing_name != NULL);
	}
}

static int qbuild_set_size(struct build *b, uint64_t size, struct err *err)
{
	struct qbuild *q = qbuild_of(b);
	int r;

	if (q->prealloc != PREALLOC_OFF)
		return err_set(err, ENOTSUP, "%s: preallocation needs the size in advance",
			       b->file->name);
	size = round_up(size, 512);
	r = l2_tables_grow(&q->l2, header_l1_entries(&q->h, size), err);
	if (r == 0)
		b->size = size;
	return r;
}

static void set_header(struct qbuild *q, const struct layout *l)
{
	q->h.size = q->build.size;
	q->h.l1_size = (uint32_t)q->l2.n;
	q->h.l1_offset = l->l1;
	q->h.reftable_offset = l->reftable;
	q->h.reftable_clusters = (uint32_t)l->n_reftable;
}

static int write_header(struct qbuild *q, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = calloc(1, q->cluster);
	size_t len = q->cluster;
	int r;

	if (!buf)
		return err_nomem(err, q->cluster, "the header");
	r = header_encode(&q->h, buf, err);
	if (r < 0)
		return r;
	/* The rest of the cluster is a hole, where there are holes. */
	while (qbuild_is_sparse(q) && len > HEADER_PIECE &&
	       bytes_are_zero(buf + len - HEADER_PIECE, HEADER_PIECE))
		len -= HEADER_PIECE;
	return io_pwrite(q->build.file, buf, len, 0, err);
}

/* What was set aside for compressed units and not used. */
static void give_back(struct qbuild *q)
{
	uint64_t end = round_up(q->coded, q->cluster);

	if (q->refs.counting && q->coded_end == q->next && end < q->next)
		q->next = end;
}

static int qbuild_finish(struct build *b, struct err *err)
{
	struct qbuild *q = qbuild_of(b);
	struct io *file = b->file;
	struct layout l;
	int r;

	give_back(q);
	r = qbuild_layout(q, &l, err);
	if (r < 0)
		return r;
	if (l.end > io_size(file) && !(file->caps & IO_GROWS))
		return err_set(err, ENOSPC,
			       "%s: the image needs %" PRIu64 " bytes, the device has %" PRIu64,
			       file->name, l.end, io_size(file));
	set_header(q, &l);
	r = qbuild_bitmaps_place(q, &l, err);
	if (r < 0)
		return r;
	b->data_start = b->two_pass ? l.data_start : 0;
	/* A stream wants it first. Otherwise the file is no qcow2 image before it is whole. */
	if (file->caps & IO_STREAM)
		r = write_header(q, err);
	if (r == 0)
		r = qbuild_write_tables(q, &l, err);
	if (r == 0 && !(file->caps & IO_STREAM))
		r = write_header(q, err);
	/* Longer where space was reserved in advance, shorter where the last data are a hole. */
	if (r == 0 && (file->caps & IO_GROWS) && !(file->caps & IO_STREAM) &&
	    io_size(file) != l.end)
		r = io_resize(file, l.end, err);
	return r < 0 || !q->external ? r : qbuild_size_data(q, err);
}

static void qbuild_close(struct build *b)
{
	struct qbuild *q = qbuild_of(b);

	l2_tables_free(&q->l2);
	data_refs_free(&q->refs);
	qbuild_bitmaps_free(q);
	header_free(&q->h);
	free(q);
}

/* Without reserve_coded: data in an external file is never compressed. */
static const struct build_ops qbuild_external_ops = {
	.reserve = qbuild_reserve,
	.zero = qbuild_zero,
	.hole = qbuild_hole,
	.set_size = qbuild_set_size,
	.finish = qbuild_finish,
	.close = qbuild_close,
};

static const struct build_ops qbuild_ops = {
	.reserve = qbuild_reserve,
	.reserve_coded = qbuild_reserve_coded,
	.zero = qbuild_zero,
	.hole = qbuild_hole,
	.set_size = qbuild_set_size,
	.finish = qbuild_finish,
	.close = qbuild_close,
};

/* The places of a preallocated image are known from the start. */
static int start_preallocated(struct qbuild *q, struct err *err)
{
	struct layout l;
	int r;

	q->build.preallocated = true;
	q->next = q->external ? 0 : round_up(q->h.size, q->cluster);
	r = qbuild_layout(q, &l, err);
	if (r < 0)
		return r;
	q->base = q->external ? 0 : l.data_start;
	return qbuild_preallocate(q, &l, err);
}

static int start(struct qbuild *q, unsigned flags, struct err *err)
{
	bool extended = q->h.incompat & INCOMPAT_EXTL2;
	int r = l2_tables_init(&q->l2, header_l1_entries(&q->h, q->h.size),
			       q->h.cluster_bits - (extended ? 4 : 3), extended, err);

	if (r < 0)
		return r;
	if (extended)
		q->build.grain = q->cluster >> 5;
	q->refs.order = q->h.refcount_order;
	q->refs.block_bits = q->h.cluster_bits + 3 - q->h.refcount_order;
	q->build.max_size = round_down(header_max_size(&q->h), 512);
	q->build.codec = q->h.compression == COMPRESSION_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE;
	q->build.two_pass = flags & BUILD_STREAM;
	q->front = q->prealloc != PREALLOC_OFF || (flags & BUILD_STREAM);
	if (q->prealloc != PREALLOC_OFF)
		return start_preallocated(q, err);
	q->base = q->front ? 0 : q->cluster;
	return 0;
}

int qcow2_build(struct io *file, const struct create_args *args, unsigned flags, struct build **out,
		struct err *err)
{
	struct qcow2_build_options o = {0};
	struct qbuild *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return err_nomem(err, sizeof(*q), "a new image");
	r = qcow2_build_options(args, &o, err);
	if (r == 0 && (flags & BUILD_STREAM) && o.h.data_file)
		r = err_set(err, ENOTSUP, "%s: a stream cannot have an external data file",
			    file->name);
	if (r == 0 && (flags & BUILD_STREAM) && o.prealloc != PREALLOC_OFF)
		r = err_set(err, ENOTSUP, "%s: a stream cannot be preallocated", file->name);
	if (r < 0) {
		header_free(&o.h);
		free(q);
		return r;
	}
	q->h = o.h;
	q->prealloc = o.prealloc;
	q->cluster = UINT64_C(1) << o.h.cluster_bits;
	q->external = o.h.data_file != NULL;
	build_init(&q->build, q->external ? &qbuild_external_ops : &qbuild_ops, file, o.h.size,
		   q->cluster);
	if (q->external)
		q->build.data = args->data;
	r = qbuild_bitmaps_begin(q, args, err);
	if (r == 0)
		r = start(q, flags, err);
	if (r < 0) {
		build_close(&q->build);
		return r;
	}
	*out = &q->build;
	return 0;
}
