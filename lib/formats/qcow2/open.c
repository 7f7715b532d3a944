// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The qcow2 driver: opening (read → decode → validate → build), closing, what `info` shows, and the
 * table of the driver.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "formats/qcow2/bitmap.h"
#include "formats/qcow2/build.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/qcow2.h"

/* Bound of clean tables in memory: 16 MiB of L2 map 128 GiB at 64 KiB clusters. */
#define CACHE_BYTES (16 * MiB)
/* What a user may ask for: enough for 2 TiB in clusters of 16 KiB. */
#define CACHE_MIN (64 * KiB)
#define CACHE_MAX (1 * GiB)
#define SLICE_MAX 4096

static int qcow2_probe(const struct probe *probe)
{
	be32 magic, version;

	if (probe->head_len < 8)
		return 0;
	memcpy(&magic, probe->head, sizeof(magic));
	memcpy(&version, probe->head + 4, sizeof(version));
	/* Version 1, which shares the magic, is refused by open: it must not be taken for raw. */
	return be32_get(magic) == QCOW2_MAGIC && be32_get(version) >= 1 ? 100 : 0;
}

int qcow2_read_table(struct qcow2 *q, uint64_t off, uint64_t entries, const char *what, be64 **out,
		     struct err *err)
{
	CLEANUP_FREE be64 *t = NULL;
	int r;

	if (entries && off >= io_size(q->img.file))
		return io_corrupt(q->img.file, err, off, "%s lies beyond the end of the file",
				  what);
	t = calloc(entries ? entries : 1, 8);
	if (!t)
		return err_nomem(err, entries * 8, what);
	r = io_pread_tail(q->img.file, t, entries * 8, off, err);
	if (r == 0)
		*out = take(t);
	return r;
}

/* Features that forbid reading or writing guest data; the rest of the image can be looked at. */
static void note_unreadable(struct qcow2 *q)
{
	q->unreadable = true;
	if (q->h.crypt_method)
		q->unreadable_why = "the image is encrypted, which is not supported";
	else
		q->unreadable = false;
}

static int publish_data_file(struct qcow2 *q, struct err *err)
{
	struct img *img = &q->img;

	free(img->data_name);
	img->data_name = NULL;
	if (!qcow2_has_data_file(q))
		return 0;
	img->data_name = strdup(q->h.data_file ? q->h.data_file : "");
	return img->data_name ? 0 : err_nomem(err, 1, "the data file name");
}

/* Copies what the generic part of the image needs from the header. */
static int publish_header(struct qcow2 *q, struct err *err)
{
	struct img *img = &q->img;
	unsigned entry_bits = q->h.incompat & INCOMPAT_EXTL2 ? 4 : 3;

	q->cluster_bits = q->h.cluster_bits;
	q->cluster = UINT64_C(1) << q->cluster_bits;
	q->l2_bits = q->cluster_bits - entry_bits;
	q->sub_bits = q->cluster_bits - (q->h.incompat & INCOMPAT_EXTL2 ? 5 : 0);
	q->refblock_bits = q->cluster_bits + 3 - q->h.refcount_order;
	note_unreadable(q);
	img->io.size = q->h.size;
	img->unit = q->cluster;
	img->grain = UINT64_C(1) << q->sub_bits;
	img->codec = q->h.compression == COMPRESSION_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE;
	free(img->backing_name);
	free(img->backing_format);
	img->backing_name = img->backing_format = NULL;
	if (q->h.backing_name)
		img->backing_name = strdup(q->h.backing_name);
	if (q->h.backing_name && q->h.backing_format)
		img->backing_format = strdup(q->h.backing_format);
	if ((q->h.backing_name && !img->backing_name) ||
	    (img->backing_name && q->h.backing_format && !img->backing_format))
		return err_nomem(err, QCOW2_MAX_BACKING_NAME, "the backing file name");
	return publish_data_file(q, err);
}

static int read_tables(struct qcow2 *q, struct err *err)
{
	bool lenient = q->img.open_flags & IMG_FOR_CHECK;
	int r;

	r = qcow2_read_table(q, q->h.l1_offset, q->h.l1_size, "active L1 table", &q->l1, err);
	if (r < 0 && !(lenient && r == -EUCLEAN))
		return r;
	if (r < 0) {
		q->unreadable = true;
		q->unreadable_why = "the active L1 table cannot be read";
	}
	r = qcow2_snapshots_read(q, err);
	if (r < 0 && lenient && r != -ENOMEM) {
		qcow2_snapshots_free(q);
		q->unreadable = true;
		q->unreadable_why = "the snapshot table cannot be read";
		r = 0;
	}
	return r;
}

/* Refuses, or repairs, what must not be written to as it is. */
static int prepare_writing(struct qcow2 *q, struct err *err)
{
	if (q->img.open_flags & IMG_FOR_CHECK)
		return 0;
	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why);
	if (q->h.incompat & INCOMPAT_CORRUPT)
		return err_set(
			err, EACCES,
			"%s: image is corrupt; cannot be opened read/write (check -r all may "
			"repair it)",
			q->img.io.name);
	if (q->h.incompat & INCOMPAT_DIRTY)
		return qcow2_repair_dirty(q->img.file, &q->h, err);
	return 0;
}

/* ---- options for opening ---- */

static const struct opt open_opts[] = {
	{.name = "lazy-refcounts", .type = OPT_BOOL, .help = "Postpone refcount updates"},
	{.name = "cache-size",
	 .type = OPT_SIZE,
	 .help = "Maximum combined metadata (L2 tables and refcount blocks) cache size"},
	{.name = "l2-cache-size", .type = OPT_SIZE, .help = "Maximum L2 table cache size"},
	{.name = "refcount-cache-size",
	 .type = OPT_SIZE,
	 .help = "Maximum refcount block cache size"},
	{.name = "cache-clean-interval", .type = OPT_UINT, .refused = true},
	{.name = "discard-no-unref", .type = OPT_BOOL, .refused = true},
	{.name = "encrypt.format", .type = OPT_STRING, .refused = true},
	{.name = "encrypt.key-secret", .type = OPT_STRING, .refused = true},
	{.name = "l2-cache-entry-size", .type = OPT_SIZE, .refused = true},
	{.name = "overlap-check", .type = OPT_STRING, .refused = true},
	{.name = "overlap-check.template", .type = OPT_STRING, .refused = true},
	{.name = "pass-discard-other", .type = OPT_BOOL, .refused = true},
	{.name = "pass-discard-request", .type = OPT_BOOL, .refused = true},
	{.name = "pass-discard-snapshot", .type = OPT_BOOL, .refused = true},
	{.name = NULL},
};

/* One cache holds what the peer keeps in two: it gets the room of both. */
static int choose_cache(struct qcow2 *q, const struct opts *opts, struct err *err)
{
	bool total = opts_get(opts, "cache-size"), tables = opts_get(opts, "l2-cache-size"),
	     blocks = opts_get(opts, "refcount-cache-size");
	uint64_t size = CACHE_BYTES, l2 = CACHE_BYTES, refs = 0;
	int r = opts_size(opts, "cache-size", &size, err);

	if (r == 0)
		r = opts_size(opts, "l2-cache-size", &l2, err);
	if (r == 0)
		r = opts_size(opts, "refcount-cache-size", &refs, err);
	if (r < 0)
		return r;
	if (total && tables && blocks)
		return err_set(err, EINVAL,
			       "cache-size, l2-cache-size and refcount-cache-size may not be set "
			       "at the same time");
	if (total && tables && l2 > size)
		return err_set(err, EINVAL, "l2-cache-size may not exceed cache-size");
	if (total && blocks && refs > size)
		return err_set(err, EINVAL, "refcount-cache-size may not exceed cache-size");
	if (!total && (tables || blocks))
		size = l2 + refs < l2 ? UINT64_MAX : l2 + refs;
	if (size > CACHE_MAX)
		return err_set(err, EINVAL, "A metadata cache may have %" PRIu64 " bytes at most",
			       (uint64_t)CACHE_MAX);
	q->cache_bytes = (size_t)max_u64(size, CACHE_MIN);
	return 0;
}

static int choose_lazy(struct qcow2 *q, const struct opts *opts, struct err *err)
{
	q->lazy_given = opts_get(opts, "lazy-refcounts");
	if (opts_bool(opts, "lazy-refcounts", &q->lazy, err) < 0)
		return -EINVAL;
	if (q->lazy && q->h.version < 3)
		return err_set(err, EINVAL,
			       "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
			       "compatibility level");
	return 0;
}

static bool lazy_refcounts(const struct qcow2 *q)
{
	return q->lazy_given ? q->lazy : q->h.compat & COMPAT_LAZY_REFCOUNTS;
}

static int qcow2_open(struct img *img, const struct opts *opts, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	size_t slice;
	int r = header_read(img->file, &q->h, err);

	if (r == 0)
		r = publish_header(q, err);
	if (r == 0)
		r = choose_cache(q, opts, err);
	if (r == 0)
		r = choose_lazy(q, opts, err);
	if (r < 0)
		return r;
	slice = (size_t)min_u64(q->cluster, SLICE_MAX);
	r = mcache_init(&q->cache, img->file, slice, q->cache_bytes, err);
	if (r == 0 && (img->open_flags & IMG_RDWR))
		r = prepare_writing(q, err);
	if (r == 0)
		r = read_tables(q, err);
	if (r == 0)
		r = codec_pool_open(&q->codecs, err);
	return r;
}

static void drop_tables(struct qcow2 *q)
{
	mcache_free(&q->cache);
	qcow2_bitmaps_free(q);
	qcow2_snapshots_free(q);
	header_free(&q->h);
	free(take(q->l1));
	free(take(q->reftable));
	free(take(q->guard));
	free(take(q->parked));
	ranges_free(&q->punches);
	q->reftable_entries = q->guard_clusters = q->n_parked = q->cap_parked = 0;
	q->free_hint = q->coded_at = 0;
	q->l1_dirty = q->reftable_dirty = (struct dirty_sectors){0};
	q->writing = false;
}

static void qcow2_close(struct img *img)
{
	struct qcow2 *q = qcow2_of(img);

	drop_tables(q);
	codec_pool_close(q->codecs);
}

int qcow2_reload(struct qcow2 *q, struct err *err)
{
	size_t slice = q->cache.slice;
	int r;

	drop_tables(q);
	r = header_read(q->img.file, &q->h, err);
	if (r == 0)
		r = publish_header(q, err);
	if (r == 0)
		r = mcache_init(&q->cache, q->img.file, slice, q->cache_bytes, err);
	if (r == 0)
		r = read_tables(q, err);
	if (r < 0) /* nothing usable is in memory any more */
		atomic_store(&q->img.broken, -r);
	return r;
}

int qcow2_load_refcounts(struct qcow2 *q, struct err *err)
{
	int r = qcow2_bitmaps_load(q, err);

	if (r == 0 && !q->reftable) {
		q->reftable_entries = (uint64_t)q->h.reftable_clusters << q->cluster_bits >> 3;
		r = qcow2_read_table(q, q->h.reftable_offset, q->reftable_entries, "refcount table",
				     &q->reftable, err);
	}
	if (r == 0 && !q->guard)
		r = qcow2_guard_build(q, err);
	return r;
}

int qcow2_begin_write(struct qcow2 *q, struct err *err)
{
	uint64_t autoclear = q->h.autoclear, kept = qcow2_keeps_raw(q) ? AUTOCLEAR_RAW_DATA : 0;
	int r = qcow2_load_refcounts(q, err);

	/* What we do not keep up to date must not look up to date; version 2 has no such bits. */
	if (r == 0 && q->bitmaps->dir.n)
		kept |= AUTOCLEAR_BITMAPS;
	if (r == 0 && (autoclear & ~kept)) {
		q->h.autoclear = autoclear & kept;
		r = header_update(q->img.file, &q->h, err);
		if (r == 0)
			r = qcow2_flush(q, BARRIER_AUTOCLEAR, err);
		if (r < 0)
			q->h.autoclear = autoclear;
	}
	if (r == 0 && lazy_refcounts(q))
		r = qcow2_set_dirty_bit(q, true, err);
	q->writing = r == 0;
	return r;
}

int qcow2_mark_corrupt(struct qcow2 *q, uint64_t at, struct err *err, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (q->h.version >= 3 && !(q->h.incompat & INCOMPAT_CORRUPT)) {
		q->h.incompat |= INCOMPAT_CORRUPT;
		/* The error below is what matters; a disk that also fails to write changes nothing. */
		if (header_update(q->img.file, &q->h, NULL) == 0)
			io_flush(q->img.file, NULL);
	}
	atomic_store(&q->img.broken, EUCLEAN);
	return io_corrupt(q->img.file, err, at, "%s; marked as corrupt, no more writes", text);
}

/* ---- info ---- */

static json_t *bitmap_json(const struct qcow2_bitmap *b)
{
	json_t *o = json_object(), *flags = json_array();

	if (b->e.flags & BITMAP_IN_USE)
		json_array_append_new(flags, json_string("in-use"));
	if (b->e.flags & BITMAP_AUTO)
		json_array_append_new(flags, json_string("auto"));
	if (json_object_set_new(o, "flags", flags) < 0 || json_set_text(o, "name", b->name) < 0 ||
	    json_set_u64(o, "granularity", UINT64_C(1) << b->e.granularity_bits) < 0) {
		json_decref(o);
		return NULL;
	}
	return o;
}

/* *list: NULL where there are none. */
static int info_bitmaps(struct qcow2 *q, json_t **list, struct err *err)
{
	int r = qcow2_bitmaps_load(q, err);

	if (r < 0 || !q->bitmaps->dir.n)
		return r;
	*list = json_array();
	for (uint32_t i = 0; i < q->bitmaps->dir.n; i++)
		if (json_array_append_new(*list, bitmap_json(&q->bitmaps->v[i])) < 0)
			return err_nomem(err, 256, "format details");
	return 0;
}

static json_t *info_data(const struct qcow2 *q, json_t *bitmaps)
{
	json_t *d = json_object();

	json_set_text(d, "compat", q->h.version >= 3 ? "1.1" : "0.10");
	json_set_text(d, "compression-type",
		      q->h.compression == COMPRESSION_ZSTD ? "zstd" : "zlib");
	if (q->h.version >= 3)
		json_set_bool(d, "lazy-refcounts", !!(q->h.compat & COMPAT_LAZY_REFCOUNTS));
	if (bitmaps)
		json_object_set(d, "bitmaps", bitmaps);
	json_set_u64(d, "refcount-bits", UINT64_C(1) << q->h.refcount_order);
	if (q->h.data_file)
		json_set_text(d, "data-file", q->h.data_file);
	if (q->h.version >= 3 && (q->h.incompat & INCOMPAT_DATA_FILE))
		json_set_bool(d, "data-file-raw", !!(q->h.autoclear & AUTOCLEAR_RAW_DATA));
	if (q->h.version >= 3) {
		json_set_bool(d, "corrupt", !!(q->h.incompat & INCOMPAT_CORRUPT));
		json_set_bool(d, "extended-l2", !!(q->h.incompat & INCOMPAT_EXTL2));
	}
	return d;
}

static int qcow2_info(struct img *img, struct img_info *info, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	json_t *bitmaps = NULL;
	int r = info_bitmaps(q, &bitmaps, err);

	info->cluster_size = q->cluster;
	info->dirty = q->h.incompat & INCOMPAT_DIRTY;
	info->encrypted = q->h.crypt_method != 0;
	info->specific = json_object();
	if (r == 0 && (json_set_text(info->specific, "type", "qcow2") < 0 ||
		       json_object_set_new(info->specific, "data", info_data(q, bitmaps)) < 0))
		r = err_nomem(err, 256, "format details");
	json_decref(bitmaps);
	return r;
}

const struct format qcow2_format = {
	.name = "qcow2",
	.summary = "QEMU copy-on-write, version 2 and 3",
	.caps = FMT_WRITE | FMT_BACKING | FMT_CODED | FMT_CREATE | FMT_CHECK,
	.img_size = sizeof(struct qcow2),
	.create_opts = qcow2_create_opts,
	.open_opts = open_opts,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.map = qcow2_map,
	.decode = qcow2_decode,
	.changing = qcow2_changing,
	.place = qcow2_place,
	.link = qcow2_link,
	.unplace = qcow2_unplace,
	.place_coded = qcow2_place_coded,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.drop = qcow2_drop,
	.pressure = qcow2_pressure,
	.turn = qcow2_turn,
	.settle = qcow2_settle,
	.resize = qcow2_resize,
	.amend_opts = qcow2_amend_opts,
	.amend = qcow2_amend,
	.empty = qcow2_empty,
	.set_backing = qcow2_set_backing,
	.info = qcow2_info,
	.check = qcow2_check,
	.compact = qcow2_compact,
	.dedup = qcow2_dedup,
	.count_used = qcow2_count_used,
	.measure = qcow2_measure,
	.build = qcow2_build,
	.snapshots = &qcow2_snapshot_ops,
	.bitmaps = &qcow2_bitmap_ops,
};
