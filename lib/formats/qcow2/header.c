// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * qcow2 header: read → decode → validate, and encode. QEMU docs/interop/qcow2, "Header" and "Header
 * extensions". Nothing outside cluster 0 is looked at here; every length and offset is bounded
 * before it is used.
 */
#include "formats/qcow2/header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* Features that the code knows; others in `incompatible` forbid opening. */
#define KNOWN_INCOMPAT                                                                   \
	(INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_DATA_FILE | INCOMPAT_COMPRESSION | \
	 INCOMPAT_EXTL2)

static const struct disk_feature feature_names[] = {
	{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

/* A place in cluster 0 while it is decoded. */
struct cursor {
	const unsigned char *buf;
	uint64_t at, end;
};

static unsigned entry_bits(const struct header *h)
{
	return h->incompat & INCOMPAT_EXTL2 ? 4 : 3;
}

uint64_t header_l1_covers(const struct header *h)
{
	return UINT64_C(1) << (h->cluster_bits + h->cluster_bits - entry_bits(h));
}

uint64_t header_l1_entries(const struct header *h, uint64_t size)
{
	return div_up(size, header_l1_covers(h));
}

void header_free(struct header *h)
{
	for (unsigned i = 0; i < h->n_ext; i++)
		free(h->ext[i].data);
	free(h->ext);
	free(h->unknown);
	free(h->backing_name);
	free(h->backing_format);
	free(h->data_file);
	free(h->names.data);
	memset(h, 0, sizeof(*h));
}

static void decode_fixed(const unsigned char *buf, struct header *h)
{
	struct disk_header d;

	memcpy(&d, buf, sizeof(d));
	h->version = be32_get(d.version);
	h->cluster_bits = be32_get(d.cluster_bits);
	h->size = be64_get(d.size);
	h->crypt_method = be32_get(d.crypt_method);
	h->l1_size = be32_get(d.l1_size);
	h->l1_offset = be64_get(d.l1_table_offset);
	h->reftable_offset = be64_get(d.refcount_table_offset);
	h->reftable_clusters = be32_get(d.refcount_table_clusters);
	h->nb_snapshots = be32_get(d.nb_snapshots);
	h->snapshots_offset = be64_get(d.snapshots_offset);
	h->refcount_order = 4;
	h->header_length = QCOW2_V2_HEADER;
	if (h->version < 3)
		return;
	h->incompat = be64_get(d.incompatible_features);
	h->compat = be64_get(d.compatible_features);
	h->autoclear = be64_get(d.autoclear_features);
	h->refcount_order = be32_get(d.refcount_order);
	h->header_length = be32_get(d.header_length);
	if (h->header_length > offsetof(struct disk_header, compression_type))
		h->compression = d.compression_type;
}

uint64_t header_max_size(const struct header *h)
{
	uint64_t clusters = QCOW2_MAX_L1_BYTES / 8 << (h->cluster_bits - entry_bits(h));

	return min_u64(clusters << h->cluster_bits, INT64_MAX);
}

/* A table of `bytes` at `off`: aligned to clusters, and the end fits a file offset. */
static int check_table(struct io *file, const struct header *h, const char *what, uint64_t field,
		       uint64_t off, uint64_t bytes, struct err *err)
{
	uint64_t end;

	if (!is_aligned(off, UINT64_C(1) << h->cluster_bits))
		return io_corrupt(file, err, field,
				  "%s offset 0x%" PRIx64 " is not cluster-aligned", what, off);
	if (!add_ok(off, bytes, &end) || end > INT64_MAX)
		return io_corrupt(file, err, field, "%s offset 0x%" PRIx64 " is out of range", what,
				  off);
	if (bytes && !off)
		return io_corrupt(file, err, field, "%s would overlap the header", what);
	return 0;
}

/* What must hold before cluster 0 can be read as a whole. */
static int validate_shape(struct io *file, const struct header *h, struct err *err)
{
	if (h->version == 1)
		return err_set(err, ENOTSUP, "%s: qcow images of version 1 are not supported",
			       file->name);
	if (h->version < 2 || h->version > 3)
		return err_set(err, ENOTSUP, "%s: unsupported qcow2 version %" PRIu32, file->name,
			       h->version);
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return io_corrupt(file, err, 20, "unsupported cluster size: 2^%" PRIu32,
				  h->cluster_bits);
	if (h->version == 2)
		return 0;
	if (h->header_length < QCOW2_V3_HEADER)
		return io_corrupt(file, err, 100, "qcow2 header too short: %" PRIu32 " bytes",
				  h->header_length);
	if (h->header_length > UINT32_C(1) << h->cluster_bits)
		return io_corrupt(file, err, 100,
				  "qcow2 header exceeds cluster size: %" PRIu32 " bytes",
				  h->header_length);
	if (h->header_length % 8)
		return io_corrupt(file, err, 100,
				  "header length %" PRIu32 " is not a multiple of 8",
				  h->header_length);
	if (h->refcount_order > 6)
		return io_corrupt(file, err, 96, "refcount width 2^%" PRIu32 " bits exceeds 64",
				  h->refcount_order);
	return 0;
}

static int validate_tables(struct io *file, const struct header *h, struct err *err)
{
	uint64_t bytes;
	int r;

	if ((h->incompat & INCOMPAT_EXTL2) && h->cluster_bits < 14)
		return io_corrupt(file, err, 72,
				  "extended L2 entries need clusters of at least 16 KiB");
	if (h->crypt_method > 2)
		return err_set(err, ENOTSUP, "%s: unsupported encryption method %" PRIu32,
			       file->name, h->crypt_method);
	bytes = (uint64_t)h->l1_size * 8;
	if (bytes > QCOW2_MAX_L1_BYTES)
		return io_corrupt(file, err, 36, "active L1 table too large: %" PRIu32 " entries",
				  h->l1_size);
	if (h->size > header_max_size(h) || h->l1_size < header_l1_entries(h, h->size))
		return io_corrupt(file, err, 36,
				  "L1 table is too small: %" PRIu32 " entries for %" PRIu64
				  " bytes",
				  h->l1_size, h->size);
	r = check_table(file, h, "active L1 table", 40, h->l1_offset, bytes, err);
	if (r < 0)
		return r;
	if (!h->reftable_clusters)
		return io_corrupt(file, err, 56, "image does not contain a refcount table");
	bytes = (uint64_t)h->reftable_clusters << h->cluster_bits;
	if (bytes > QCOW2_MAX_REFTABLE)
		return io_corrupt(file, err, 56, "refcount table too large: %" PRIu64 " bytes",
				  bytes);
	r = check_table(file, h, "refcount table", 48, h->reftable_offset, bytes, err);
	if (r < 0)
		return r;
	if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS)
		return io_corrupt(file, err, 60, "snapshot table too large: %" PRIu32 " entries",
				  h->nb_snapshots);
	return check_table(file, h, "snapshot table", 64, h->snapshots_offset,
			   (uint64_t)h->nb_snapshots * sizeof(struct disk_snapshot), err);
}

static int keep_ext(struct header *h, uint32_t type, const unsigned char *data, uint32_t len,
		    struct err *err)
{
	unsigned char *copy;

	/* Room for 1, 2, 4, 8, …: a cluster of 2 MiB holds a quarter of a million of them. */
	if ((h->n_ext & (h->n_ext - 1)) == 0) {
		struct header_ext *v = realloc(h->ext, (h->n_ext ? h->n_ext * 2 : 1) * sizeof(*v));

		if (!v)
			return err_nomem(err, h->n_ext * sizeof(*v), "header extensions");
		h->ext = v;
	}
	copy = malloc(len ? len : 1);
	if (!copy)
		return err_nomem(err, len, "a header extension");
	memcpy(copy, data, len);
	h->ext[h->n_ext++] = (struct header_ext){.type = type, .len = len, .data = copy};
	return 0;
}

int header_set_ext(struct header *h, uint32_t type, const void *data, uint32_t len, struct err *err)
{
	for (unsigned i = 0; i < h->n_ext; i++) {
		if (h->ext[i].type != type || h->ext[i].len != len)
			continue;
		memcpy(h->ext[i].data, data, len);
		return 0;
	}
	header_drop_ext(h, type);
	return keep_ext(h, type, data, len, err);
}

void header_drop_ext(struct header *h, uint32_t type)
{
	unsigned n = 0;

	for (unsigned i = 0; i < h->n_ext; i++) {
		if (h->ext[i].type == type)
			free(h->ext[i].data);
		else
			h->ext[n++] = h->ext[i];
	}
	h->n_ext = n;
}

/* A string of the header into *out; a second one of the same kind is an error. */
static int keep_text(struct io *file, char **out, const char *what, uint64_t at,
		     const unsigned char *data, uint32_t len, struct err *err)
{
	if (*out)
		return io_corrupt(file, err, at, "second %s extension", what);
	*out = strndup((const char *)data, len);
	return *out ? 0 : err_nomem(err, len, what);
}

/* Somebody's names for bits that are unknown here must not get lost. Of several the last counts. */
static int keep_names(struct header *h, const unsigned char *data, uint32_t len, struct err *err)
{
	unsigned char *copy = malloc(len ? len : 1);

	if (!copy)
		return err_nomem(err, len, "the feature name table");
	memcpy(copy, data, len);
	free(h->names.data);
	h->names = (struct header_ext){.type = EXT_TYPE_FEATURES, .len = len, .data = copy};
	h->has_features = true;
	return 0;
}

static int decode_ext(struct io *file, struct header *h, uint32_t type, const unsigned char *data,
		      uint32_t len, uint64_t at, struct err *err)
{
	switch (type) {
	case EXT_TYPE_BACKING:
		if (len > QCOW2_MAX_BACKING_FMT)
			return io_corrupt(file, err, at,
					  "backing format name too long: %" PRIu32 " bytes", len);
		return keep_text(file, &h->backing_format, "backing format", at, data, len, err);
	case EXT_TYPE_DATAFILE:
		return keep_text(file, &h->data_file, "data file", at, data, len, err);
	case EXT_TYPE_FEATURES:
		return keep_names(h, data, len, err);
	default:
		return keep_ext(h, type, data, len, err);
	}
}

/* The area of extensions: from the end of the header to the backing name or the cluster's end. */
static struct cursor ext_area(const unsigned char *buf, const struct header *h,
			      uint64_t backing_offset)
{
	struct cursor c = {.buf = buf, .at = h->header_length};

	c.end = backing_offset ? backing_offset : UINT64_C(1) << h->cluster_bits;
	return c;
}

/* The next extension, its data at *data. 1: there is one; 0: end of list; -EUCLEAN. */
static int next_ext(struct io *file, struct cursor *c, uint32_t *type, uint32_t *len,
		    const unsigned char **data, struct err *err)
{
	struct disk_ext d;

	/* A list that runs up to the end of its area needs no end marker. */
	if (c->at >= c->end || c->end - c->at < sizeof(d))
		return 0;
	memcpy(&d, c->buf + c->at, sizeof(d));
	*type = be32_get(d.type);
	*len = be32_get(d.len);
	if (*type == EXT_TYPE_END)
		return 0;
	if (*len > c->end - c->at - sizeof(d))
		return io_corrupt(file, err, c->at,
				  "header extension 0x%08" PRIx32 " too large: %" PRIu32 " bytes",
				  *type, *len);
	*data = c->buf + c->at + sizeof(d);
	c->at += sizeof(d) + round_up(*len, 8);
	return 1;
}

static int decode_exts(struct io *file, struct header *h, const unsigned char *buf,
		       uint64_t backing_offset, struct err *err)
{
	struct cursor c = ext_area(buf, h, backing_offset);
	const unsigned char *data = NULL;
	uint32_t type = 0, len = 0;
	uint64_t at;
	int r;

	for (at = c.at; (r = next_ext(file, &c, &type, &len, &data, err)) > 0; at = c.at) {
		r = decode_ext(file, h, type, data, len, at, err);
		if (r < 0)
			return r;
	}
	return r;
}

/* Text for unknown incompatible bits, with the names that the image itself gives them. */
static int refuse_features(struct io *file, const struct header *h, const unsigned char *buf,
			   uint64_t backing_offset, struct err *err)
{
	struct cursor c = ext_area(buf, h, backing_offset);
	uint64_t unknown = h->incompat & ~KNOWN_INCOMPAT;
	char list[256] = "";
	size_t n = 0;
	const unsigned char *data = NULL;
	uint32_t type = 0, len = 0;

	while (next_ext(file, &c, &type, &len, &data, NULL) > 0) {
		for (uint32_t i = 0; type == EXT_TYPE_FEATURES && i + 48 <= len; i += 48) {
			struct disk_feature f;

			memcpy(&f, data + i, sizeof(f));
			if (f.type || f.bit > 63 || !(unknown >> f.bit & 1) ||
			    n + 64 > sizeof(list))
				continue;
			unknown &= ~(UINT64_C(1) << f.bit);
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%.46s", n ? ", " : "",
					      f.name);
		}
	}
	if (unknown)
		snprintf(list + n, sizeof(list) - n, "%sUnknown incompatible feature: %" PRIx64,
			 n ? ", " : "", unknown);
	return err_set(err, ENOTSUP, "%s: Unsupported qcow2 feature(s): %s", file->name, list);
}

static int decode_backing(struct io *file, struct header *h, const unsigned char *buf,
			  uint64_t offset, uint32_t len, struct err *err)
{
	uint64_t cluster = UINT64_C(1) << h->cluster_bits;

	if (!offset)
		return 0;
	if (offset > cluster)
		return io_corrupt(file, err, 8, "invalid backing file offset %" PRIu64, offset);
	if (len > QCOW2_MAX_BACKING_NAME || len > cluster - offset)
		return io_corrupt(file, err, 16, "backing file name too long: %" PRIu32 " bytes",
				  len);
	if (!len)
		return 0;
	h->backing_name = strndup((const char *)buf + offset, len);
	return h->backing_name ? 0 : err_nomem(err, len, "the backing file name");
}

static int decode_rest(struct io *file, struct header *h, const unsigned char *buf, struct err *err)
{
	struct disk_header d;
	uint64_t backing_offset;
	int r;

	memcpy(&d, buf, sizeof(d));
	backing_offset = be64_get(d.backing_file_offset);
	r = decode_backing(file, h, buf, backing_offset, be32_get(d.backing_file_size), err);
	if (r < 0)
		return r;
	if (backing_offset && backing_offset < h->header_length)
		return io_corrupt(file, err, 8,
				  "backing file name at %" PRIu64 " is inside the header",
				  backing_offset);
	if (h->incompat & ~KNOWN_INCOMPAT)
		return refuse_features(file, h, buf, backing_offset, err);
	if (h->compression > COMPRESSION_ZSTD)
		return err_set(err, ENOTSUP, "%s: unsupported compression type %u", file->name,
			       h->compression);
	if (!h->compression != !(h->incompat & INCOMPAT_COMPRESSION))
		return io_corrupt(file, err, 72, "compression type %u and its feature bit disagree",
				  h->compression);
	if (h->header_length > sizeof(d)) {
		size_t n = h->header_length - sizeof(d);

		h->unknown = malloc(n);
		if (!h->unknown)
			return err_nomem(err, n, "the header");
		memcpy(h->unknown, buf + sizeof(d), n);
	}
	return decode_exts(file, h, buf, backing_offset, err);
}

int header_read(struct io *file, struct header *h, struct err *err)
{
	unsigned char fixed[sizeof(struct disk_header)];
	CLEANUP_FREE unsigned char *buf = NULL;
	be32 magic;
	int r;

	r = io_pread_tail(file, fixed, sizeof(fixed), 0, err);
	if (r < 0)
		return r;
	memcpy(&magic, fixed, sizeof(magic));
	if (be32_get(magic) != QCOW2_MAGIC)
		return err_set(err, EMEDIUMTYPE, "%s: Image is not in qcow2 format", file->name);
	decode_fixed(fixed, h);
	r = validate_shape(file, h, err);
	if (r < 0)
		return r;
	buf = malloc((size_t)1 << h->cluster_bits);
	if (!buf)
		return err_nomem(err, UINT64_C(1) << h->cluster_bits, "the header cluster");
	r = io_pread_tail(file, buf, (size_t)1 << h->cluster_bits, 0, err);
	if (r < 0)
		return r;
	r = decode_rest(file, h, buf, err);
	if (r < 0)
		return r;
	return validate_tables(file, h, err);
}

/* ---- encode ---- */

struct writer {
	unsigned char *buf;
	size_t at, room;
	bool full;
};

static void put(struct writer *w, const void *data, size_t len, size_t padded)
{
	if (w->full || padded > w->room - w->at) {
		w->full = true;
		return;
	}
	memcpy(w->buf + w->at, data, len);
	w->at += padded;
}

static void put_ext(struct writer *w, uint32_t type, const void *data, size_t len)
{
	struct disk_ext d = {be32_make(type), be32_make((uint32_t)len)};

	put(w, &d, sizeof(d), sizeof(d));
	put(w, data, len, round_up(len, 8));
}

/* The peer's order: backing format, data file, crypto, feature names, bitmaps, others, end. */
static void put_exts(struct writer *w, const struct header *h)
{
	if (h->backing_format)
		put_ext(w, EXT_TYPE_BACKING, h->backing_format, strlen(h->backing_format));
	if (h->data_file)
		put_ext(w, EXT_TYPE_DATAFILE, h->data_file, strlen(h->data_file));
	for (unsigned i = 0; i < h->n_ext; i++)
		if (h->ext[i].type == EXT_TYPE_CRYPTO)
			put_ext(w, h->ext[i].type, h->ext[i].data, h->ext[i].len);
	if (h->has_features && h->names.data)
		put_ext(w, EXT_TYPE_FEATURES, h->names.data, h->names.len);
	else if (h->has_features)
		put_ext(w, EXT_TYPE_FEATURES, feature_names, sizeof(feature_names));
	for (unsigned i = 0; i < h->n_ext; i++)
		if (h->ext[i].type != EXT_TYPE_CRYPTO)
			put_ext(w, h->ext[i].type, h->ext[i].data, h->ext[i].len);
	put_ext(w, EXT_TYPE_END, "", 0);
}

static void encode_fixed(const struct header *h, uint32_t length, struct disk_header *d)
{
	d->magic = be32_make(QCOW2_MAGIC);
	d->version = be32_make(h->version);
	d->cluster_bits = be32_make(h->cluster_bits);
	d->size = be64_make(h->size);
	d->crypt_method = be32_make(h->crypt_method);
	d->l1_size = be32_make(h->l1_size);
	d->l1_table_offset = be64_make(h->l1_offset);
	d->refcount_table_offset = be64_make(h->reftable_offset);
	d->refcount_table_clusters = be32_make(h->reftable_clusters);
	d->nb_snapshots = be32_make(h->nb_snapshots);
	d->snapshots_offset = be64_make(h->snapshots_offset);
	if (h->version < 3)
		return;
	d->incompatible_features = be64_make(h->incompat);
	d->compatible_features = be64_make(h->compat);
	d->autoclear_features = be64_make(h->autoclear);
	d->refcount_order = be32_make(h->refcount_order);
	d->header_length = be32_make(length);
	d->compression_type = h->compression;
}

size_t header_fixed_bytes(const struct header *h)
{
	if (h->unknown)
		return h->header_length;
	return h->version < 3 ? QCOW2_V2_HEADER : sizeof(struct disk_header);
}

static size_t ext_bytes(uint64_t len)
{
	return sizeof(struct disk_ext) + round_up(len, 8);
}

size_t header_bytes(const struct header *h)
{
	size_t n = header_fixed_bytes(h) + ext_bytes(0);

	if (h->backing_format)
		n += ext_bytes(strlen(h->backing_format));
	if (h->data_file)
		n += ext_bytes(strlen(h->data_file));
	if (h->has_features)
		n += ext_bytes(h->names.data ? h->names.len : sizeof(feature_names));
	for (unsigned i = 0; i < h->n_ext; i++)
		n += ext_bytes(h->ext[i].len);
	return n;
}

int header_encode(const struct header *h, unsigned char *buf, struct err *err)
{
	struct writer w = {.buf = buf, .room = (size_t)1 << h->cluster_bits};
	struct disk_header d = {0};
	size_t length = header_fixed_bytes(h);
	size_t name_len = h->backing_name ? strlen(h->backing_name) : 0;

	memset(buf, 0, w.room);
	encode_fixed(h, (uint32_t)length, &d);
	w.at = h->version < 3 ? QCOW2_V2_HEADER : sizeof(d);
	if (h->unknown)
		put(&w, h->unknown, length - sizeof(d), length - sizeof(d));
	put_exts(&w, h);
	if (name_len) {
		d.backing_file_offset = be64_make(w.at);
		d.backing_file_size = be32_make((uint32_t)name_len);
		put(&w, h->backing_name, name_len, name_len);
	}
	if (w.full || name_len > QCOW2_MAX_BACKING_NAME)
		return err_set(err, ENOSPC,
			       "the header does not fit into a cluster of %zu bytes (backing file "
			       "name of %zu bytes)",
			       w.room, name_len);
	memcpy(buf, &d, h->version < 3 ? QCOW2_V2_HEADER : sizeof(d));
	return 0;
}

int header_update(struct io *file, const struct header *h, struct err *err)
{
	size_t len = h->version < 3 ? QCOW2_V2_HEADER : min_u64(h->header_length, 112);
	struct disk_header d, old;
	int r = io_pread(file, &old, len, 0, err);

	if (r < 0)
		return r;
	d = old;
	encode_fixed(h, h->header_length, &d);
	return io_pwrite(file, &d, len, 0, err);
}
