/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header in memory: decoded from, validated against, and encoded to cluster 0. */
#ifndef IMGKIT_QCOW2_HEADER_H
#define IMGKIT_QCOW2_HEADER_H

#include "formats/qcow2/layout.h"
#include "io/io.h"

/* A header extension that this code does not interpret: kept byte for byte. */
struct header_ext {
	uint32_t type, len;
	unsigned char *data; /* owned */
};

struct header {
	uint32_t version;      /* 2, 3 */
	uint32_t cluster_bits; /* 9 … 21 */
	uint64_t size;         /* bytes */
	uint32_t crypt_method;
	uint32_t l1_size; /* entries */
	uint64_t l1_offset;
	uint64_t reftable_offset;
	uint32_t reftable_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	uint64_t incompat, compat, autoclear;
	uint32_t refcount_order;
	uint32_t header_length; /* bytes, as found; encode writes at least 112 for version 3 */
	uint8_t compression;    /* COMPRESSION_… */
	unsigned char *unknown; /* owned: header bytes from 112 to header_length, kept verbatim */

	char *backing_name;      /* owned; NULL: none */
	char *backing_format;    /* owned; NULL: not stored */
	char *data_file;         /* owned; name in the data file extension, NULL: none */
	bool has_features;       /* the file carries a feature name table */
	struct header_ext names; /* it, as found; data NULL: encode writes the peer's */
	struct header_ext *ext;  /* owned: bitmaps, crypto, unknown ones, in file order */
	unsigned n_ext;
};

/*
 * Reads cluster 0 of file and decodes it with every check that needs nothing but the header: limits,
 * alignment, unknown incompatible features, extension bounds. Zero-initialise h; header_free also
 * after an error. -EMEDIUMTYPE: no qcow2 at all. -EUCLEAN, -ENOTSUP.
 */
int header_read(struct io *file, struct header *h, struct err *err);
void header_free(struct header *h);

/* Sets or adds, and removes, an extension in memory. */
int header_set_ext(struct header *h, uint32_t type, const void *data, uint32_t len,
		   struct err *err);
void header_drop_ext(struct header *h, uint32_t type);

/*
 * Encodes into buf, which is one cluster. The feature name table is written for version 3 with
 * clusters above 4 KiB, as the peer does. -ENOSPC when names and extensions do not fit.
 */
int header_encode(const struct header *h, unsigned char *buf, struct err *err);

/* Bytes that header_encode fills before the name of the backing file, and before the extensions. */
size_t header_bytes(const struct header *h);
size_t header_fixed_bytes(const struct header *h);

/*
 * Writes the fixed fields (the first 72 or 112 bytes, within one sector, so atomic) of an existing
 * header; the backing file name's place is left as it stands in the file. Not flushed.
 */
int header_update(struct io *file, const struct header *h, struct err *err);

/* Largest virtual size that an L1 table of the allowed size can map, bytes. */
uint64_t header_max_size(const struct header *h);

/* Bytes of the disk that one L1 entry stands for. */
uint64_t header_l1_covers(const struct header *h);

/* L1 entries that a disk of `size` bytes needs. */
uint64_t header_l1_entries(const struct header *h, uint64_t size);

#endif
