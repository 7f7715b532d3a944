/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a qcow2 file looks like on disk: docs/interop/qcow2 of QEMU. All integers are big-endian.
 * Section names below refer to that document.
 */
#ifndef IMGKIT_QCOW2_LAYOUT_H
#define IMGKIT_QCOW2_LAYOUT_H

#include <assert.h>

#include "base/bytes.h"

#define QCOW2_MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */

/* "Header". Version 2 ends after `snapshots_offset` (72 bytes). */
struct disk_header {
	be32 magic;                   /* 0 */
	be32 version;                 /* 4: 2 or 3 */
	be64 backing_file_offset;     /* 8: in cluster 0; 0 = none */
	be32 backing_file_size;       /* 16: <= 1023, no terminator */
	be32 cluster_bits;            /* 20: 9 … 21 */
	be64 size;                    /* 24: bytes */
	be32 crypt_method;            /* 32: 0 none, 1 AES, 2 LUKS */
	be32 l1_size;                 /* 36: entries */
	be64 l1_table_offset;         /* 40 */
	be64 refcount_table_offset;   /* 48 */
	be32 refcount_table_clusters; /* 56 */
	be32 nb_snapshots;            /* 60 */
	be64 snapshots_offset;        /* 64 */
	/* version 3: */
	be64 incompatible_features; /* 72 */
	be64 compatible_features;   /* 80 */
	be64 autoclear_features;    /* 88 */
	be32 refcount_order;        /* 96: width is 1 << order bits, 0 … 6 */
	be32 header_length;         /* 100: multiple of 8 */
	uint8_t compression_type;   /* 104: 0 deflate, 1 zstd */
	uint8_t padding[7];         /* 105 */
};
static_assert(sizeof(struct disk_header) == 112, "qcow2 header");
static_assert(offsetof(struct disk_header, incompatible_features) == 72, "qcow2 header");
static_assert(offsetof(struct disk_header, compression_type) == 104, "qcow2 header");
#define QCOW2_V2_HEADER 72
#define QCOW2_V3_HEADER 104 /* the least that a version 3 file has */

/* incompatible_features */
#define INCOMPAT_DIRTY       (UINT64_C(1) << 0)
#define INCOMPAT_CORRUPT     (UINT64_C(1) << 1)
#define INCOMPAT_DATA_FILE   (UINT64_C(1) << 2)
#define INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define INCOMPAT_EXTL2       (UINT64_C(1) << 4)
/* compatible_features */
#define COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
/* autoclear_features */
#define AUTOCLEAR_BITMAPS  (UINT64_C(1) << 0)
#define AUTOCLEAR_RAW_DATA (UINT64_C(1) << 1)

/* "Header extensions": type, length, data padded to 8 bytes. */
struct disk_ext {
	be32 type, len;
};
#define EXT_TYPE_END      UINT32_C(0)
#define EXT_TYPE_BACKING  UINT32_C(0xe2792aca)
#define EXT_TYPE_FEATURES UINT32_C(0x6803f857)
#define EXT_TYPE_BITMAPS  UINT32_C(0x23852875)
#define EXT_TYPE_CRYPTO   UINT32_C(0x0537be77)
#define EXT_TYPE_DATAFILE UINT32_C(0x44415441)

/* "Feature name table" entry. */
struct disk_feature {
	uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
	uint8_t bit;
	char name[46];
};
static_assert(sizeof(struct disk_feature) == 48, "qcow2 feature name");

/* L1 and L2 entries. */
#define ENTRY_OFFSET     UINT64_C(0x00fffffffffffe00)
#define ENTRY_COPIED     (UINT64_C(1) << 63)
#define ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define ENTRY_ZERO       UINT64_C(1)
#define L1_RESERVED      UINT64_C(0x7f000000000001ff)
#define L2_RESERVED      UINT64_C(0x3f000000000001fe)
/* refcount table entries */
#define REFTABLE_OFFSET   UINT64_C(0xfffffffffffffe00)
#define REFTABLE_RESERVED UINT64_C(0x1ff)

/* "Snapshots": fixed part, then extra data, id, name, padding to 8. */
struct disk_snapshot {
	be64 l1_table_offset; /* 0 */
	be32 l1_size;         /* 8: entries */
	be16 id_len;          /* 12 */
	be16 name_len;        /* 14 */
	be32 date_sec;        /* 16 */
	be32 date_nsec;       /* 20 */
	be64 vm_clock_ns;     /* 24 */
	be32 vm_state_size;   /* 32 */
	be32 extra_len;       /* 36 */
};
static_assert(sizeof(struct disk_snapshot) == 40, "qcow2 snapshot");
struct disk_snapshot_extra {
	be64 vm_state_size; /* 40 */
	be64 disk_size;     /* 48 */
	be64 icount;        /* 56: all ones = none */
};

/* Limits that QEMU enforces; we do too, before any shift, allocation or loop. */
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES     (32 * MiB)
#define QCOW2_MAX_REFTABLE     (8 * MiB)
#define QCOW2_MAX_SNAPSHOTS    65536
#define QCOW2_MAX_SNAPTABLE    (64 * MiB)
#define QCOW2_MAX_SNAP_EXTRA   1024
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_MAX_BACKING_FMT  15

enum { COMPRESSION_ZLIB = 0, COMPRESSION_ZSTD = 1 };

/*
 * "Compressed clusters": how a compressed L2 entry packs a host byte offset (unaligned) and the
 * number of additional 512-byte sectors. x = 62 - (cluster_bits - 8).
 */
static inline unsigned coded_shift(unsigned cluster_bits)
{
	return 62 - (cluster_bits - 8);
}

static inline uint64_t coded_offset(uint64_t entry, unsigned cluster_bits)
{
	return entry & ((UINT64_C(1) << coded_shift(cluster_bits)) - 1) &
	       UINT64_C(0x00ffffffffffffff);
}

/* Bytes that may be read for the stream; the stream itself may be shorter. */
static inline uint64_t coded_length(uint64_t entry, unsigned cluster_bits)
{
	uint64_t sectors =
		(entry & ~(ENTRY_COPIED | ENTRY_COMPRESSED)) >> coded_shift(cluster_bits);

	return (sectors + 1) * 512 - (coded_offset(entry, cluster_bits) & 511);
}

static inline uint64_t coded_entry(uint64_t host, uint64_t len, unsigned cluster_bits)
{
	uint64_t sectors = (host + len - 1) / 512 - host / 512;

	return ENTRY_COMPRESSED | sectors << coded_shift(cluster_bits) | host;
}

/* Refcount i of a block, width 1 << order bits; sub-byte widths start at the low bits. */
static inline uint64_t refcount_load(const void *block, unsigned order, uint64_t i)
{
	const unsigned char *b = block;

	switch (order) {
	case 3:
		return b[i];
	case 4:
		return be16_get(((const be16 *)block)[i]);
	case 5:
		return be32_get(((const be32 *)block)[i]);
	case 6:
		return be64_get(((const be64 *)block)[i]);
	default: { /* 1, 2, 4 bits */
		unsigned width = 1U << order, per_byte = 8 >> order;

		return (b[i / per_byte] >> (i % per_byte * width)) & ((1U << width) - 1);
	}
	}
}

static inline void refcount_store(void *block, unsigned order, uint64_t i, uint64_t v)
{
	unsigned char *b = block;

	switch (order) {
	case 3:
		b[i] = (unsigned char)v;
		break;
	case 4:
		((be16 *)block)[i] = be16_make((uint16_t)v);
		break;
	case 5:
		((be32 *)block)[i] = be32_make((uint32_t)v);
		break;
	case 6:
		((be64 *)block)[i] = be64_make(v);
		break;
	default: {
		unsigned width = 1U << order, per_byte = 8 >> order;
		unsigned shift = (unsigned)(i % per_byte) * width;
		unsigned mask = ((1U << width) - 1) << shift;

		b[i / per_byte] = (unsigned char)((b[i / per_byte] & ~mask) | (v << shift & mask));
	}
	}
}

/* Largest refcount that fits. */
static inline uint64_t refcount_max(unsigned order)
{
	return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1U << order)) - 1;
}

#endif
