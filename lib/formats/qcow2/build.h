/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making qcow2 images offline; see image/build.h for the contract.
 *
 *	normal          header, data, refcount table, refcount blocks, L1, L2 tables, bitmaps
 *	empty, stream   header, refcount table, refcount blocks, L1, L2 tables, bitmaps, data
 *	preallocated    the same, and every L2 entry is there from the beginning
 *	data file       as empty; the data is elsewhere, at its guest offsets
 */
#ifndef IMGKIT_QCOW2_BUILD_H
#define IMGKIT_QCOW2_BUILD_H

#include "formats/qcow2/bitmaps.h"
#include "image/build.h"

extern const struct opt qcow2_create_opts[];

/*
 * Begins an image in file, which is empty or a device. flags: BUILD_…. -EINVAL: the options
 * contradict each other, with the peer's text. -EFBIG: the disk is too large for the cluster size.
 * -ENOTSUP: an option that is not supported.
 */
int qcow2_build(struct io *file, const struct create_args *args, unsigned flags, struct build **out,
		struct err *err);

/* What the options say. Zero-initialise; header_free(&o.h) afterwards, also after an error. */
struct qcow2_build_options {
	struct header h; /* all but the places of the tables */
	int prealloc;    /* PREALLOC_… */
};
int qcow2_build_options(const struct create_args *args, struct qcow2_build_options *o,
			struct err *err);

/* ---- private to build*.c ---- */

/*
 * L2 entries in memory: an array by L1 index, of arrays of pages, made when they are touched. A
 * page holds 64 entries, which is the smallest L2 table there is: so a disk with little on it
 * takes little, and one that is full takes as much as its tables on disk.
 */
struct l2_tables {
	be64 ***table; /* by L1 index: its pages, NULL where all zeros; NULL: no such table on disk */
	uint64_t n;    /* L1 entries */
	uint64_t used;      /* tables that are not NULL */
	unsigned l2_bits;   /* log2 of entries per table */
	unsigned page_bits; /* log2 of entries per page */
	bool extended; /* on disk, and here, an entry takes 16 bytes: its subclusters without data */
};

int l2_tables_init(struct l2_tables *t, uint64_t l1_entries, unsigned l2_bits, bool extended,
		   struct err *err);
void l2_tables_free(struct l2_tables *t);
int l2_tables_grow(struct l2_tables *t, uint64_t l1_entries, struct err *err);
/* Makes room for entries [first, first+n) (guest cluster numbers), so that setting cannot fail. */
int l2_tables_prepare(struct l2_tables *t, uint64_t first, uint64_t n, struct err *err);
void l2_tables_set(struct l2_tables *t, uint64_t index, uint64_t entry);
/* Copies table i in disk form, adding shift to the host offsets; false: there is none. */
bool l2_tables_copy(const struct l2_tables *t, uint64_t i, uint64_t shift, be64 *out);
/*
 * Subclusters `mask` of an extended entry hold no data: they are zeros, or, not hidden, absent. Only
 * once l2_tables_prepare made room; an entry that says zeros as a whole stays so.
 */
void l2_tables_hole(struct l2_tables *t, uint64_t index, uint32_t mask, bool hidden);
/* The extended entry `index` in disk form, with another offset and other flags than it was given. */
void l2_tables_put(const struct l2_tables *t, uint64_t index, uint64_t entry, be64 *out);

/*
 * Refcounts of data clusters, numbered from the first one that reserve gave away. As long as there
 * are no compressed units all are 1 and nothing is stored; then they are kept as on disk.
 */
struct data_refs {
	unsigned char **block; /* of `cluster` bytes each */
	uint64_t n;            /* blocks */
	uint64_t ones;         /* clusters below this have the count 1 and are not stored */
	unsigned order;
	unsigned block_bits; /* log2 of counts per block */
	bool counting;
};

void data_refs_free(struct data_refs *refs);
/* From now on, what is at or above `next` is counted. */
void data_refs_start(struct data_refs *refs, uint64_t next);
/* Makes room, so that adding to [first, first+n) cannot fail. */
int data_refs_prepare(struct data_refs *refs, uint64_t first, uint64_t n, struct err *err);
void data_refs_add(struct data_refs *refs, uint64_t cluster);
uint64_t data_refs_get(const struct data_refs *refs, uint64_t cluster);

/* A bitmap of the new image. */
struct qbuild_bitmap {
	struct create_bitmap src;
	struct bitmap_entry e;
	uint64_t bytes;      /* of bits */
	unsigned char *used; /* owned bitmap: clusters of bits that are not all zeros */
	uint64_t n_used;
};

/* How far they are written. */
struct bitmap_cursor {
	uint64_t dir;            /* clusters of the directory */
	unsigned bitmap;         /* this bitmap now, and of it: */
	uint64_t tables, stored; /* clusters of the table, of bits */
	uint64_t entry, host;    /* the next ones */
};

struct qbuild {
	struct build build; /* first */
	struct header h;
	int prealloc;
	bool external;    /* the data is in build.data, an external data file */
	bool front;       /* tables before the data: stream, preallocated */
	uint64_t cluster; /* bytes */
	struct l2_tables l2;
	struct data_refs refs;
	struct qbuild_bitmap *bitmap; /* owned, n_bitmaps */
	unsigned n_bitmaps;
	uint64_t bitmap_dir_bytes;
	unsigned char *bitmap_dir; /* owned, as on disk */
	struct bitmap_cursor bitmap_at;
	uint64_t bitmap_clusters; /* directory, tables, bits: one after the other */

	uint64_t base; /* added to the offsets that reserve answers; see build.two_pass */
	/* Host bytes, relative to the first data cluster: */
	uint64_t next;      /* where the next cluster will be */
	uint64_t coded;     /* where the next compressed unit may begin */
	uint64_t coded_end; /* end of the clusters that were set aside for them */
};

static inline struct qbuild *qbuild_of(struct build *b)
{
	return (struct qbuild *)(void *)b; /* build is the first member */
}

/* Whether what is not written reads as zeros: a new file, as against a device or a pipe. */
static inline bool qbuild_is_sparse(const struct qbuild *q)
{
	return (q->build.file->caps & (IO_GROWS | IO_STREAM)) == IO_GROWS;
}

/* Where finish puts what; offsets in bytes. */
struct layout {
	uint64_t data_start; /* first data cluster */
	uint64_t data;       /* clusters from there to the last one given away */
	uint64_t reftable, refblocks, l1, l2, bitmaps;
	uint64_t n_reftable, n_refblocks, n_l1, n_l2; /* clusters */
	uint64_t end;                                 /* of the file */
};

/* build_bitmaps.c. Looks at the bits, and takes place in the header. -ENOTSUP: version 2. */
int qbuild_bitmaps_begin(struct qbuild *q, const struct create_args *args, struct err *err);
void qbuild_bitmaps_free(struct qbuild *q);
/* Decides where what is, from l->bitmaps on, and says so in the header. */
int qbuild_bitmaps_place(struct qbuild *q, const struct layout *l, struct err *err);
/* Their next cluster, up to bitmap_clusters times; buf is zeroed. */
int qbuild_bitmaps_next(struct qbuild *q, void *buf, struct err *err);

/* build_write.c. -EFBIG: more refcounts than a refcount table may hold. */
int qbuild_layout(const struct qbuild *q, struct layout *l, struct err *err);

int qbuild_write_tables(struct qbuild *q, const struct layout *l, struct err *err);
int qbuild_preallocate(struct qbuild *q, const struct layout *l, struct err *err);
/* Makes an external data file as long as the disk. -ENOSPC: a device that is not. */
int qbuild_size_data(struct qbuild *q, struct err *err);

#endif
