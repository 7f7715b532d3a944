/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent dirty bitmaps of an image that is open. QEMU docs/interop/qcow2, "Bitmaps".
 *
 * Order on disk. A bitmap whose bits change carries IN_USE in the directory: what it says is then
 * void, and a power cut leaves it so (inconsistent), never silently wrong.
 *
 *	first change	IN_USE - flush - the guest's data, or the bits
 *	store (settle)	bits | refcounts - flush - tables - flush - no IN_USE - flush - frees
 *	new directory	directory, tables | refcounts - flush - header (qcow2_replace_header) - frees
 *
 * Flags of the directory are changed where they stand: each lies in one sector. All other changes
 * of the directory (a bitmap is added or removed, a table moves) write a new one. What stands before
 * the bar may run out of space, and then nothing has changed.
 *
 * Memory: 16 bytes for a cluster of bits of each bitmap that is looked at, at most
 * BITMAPS_TABLE_MEMORY, beyond which the image is refused; and the clusters of bits that change, of
 * all bitmaps together not much more than BITMAPS_BIT_MEMORY: then they are written ahead of time,
 * which is fine under IN_USE. A disk of 16 TiB with a granularity of 64 KiB has 32 MiB of bits.
 *
 * Guarded by img.meta, or under the exclusive gate.
 */
#ifndef IMGKIT_QCOW2_BITMAP_H
#define IMGKIT_QCOW2_BITMAP_H

#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/qcow2.h"

#define BITMAPS_TABLE_MEMORY (256 * MiB)
#define BITMAPS_BIT_MEMORY   (64 * MiB)

/* Host clusters that are free once nothing on disk refers to them any more. */
struct bitmap_frees {
	struct bitmap_run {
		uint64_t first, n;
	} * v; /* owned */
	size_t n, cap;
};

/* Room for the bits of a disk of another size. */
struct bitmap_bits {
	be64 *table; /* owned */
	uint64_t entries;
	unsigned char **chunk; /* owned */
};

struct qcow2_bitmap {
	char *name;            /* owned */
	unsigned char *extra;  /* owned: extra data, kept verbatim */
	struct bitmap_entry e; /* as in the directory on disk */
	bool enabled;
	bool inconsistent; /* not to be used: found in use, or with extra data that forbids it */
	bool in_use;       /* we have set IN_USE: to be stored */

	uint64_t bits; /* of the disk that they cover */
	/* NULL, or loaded: */
	be64 *table; /* owned; as it is to be on disk */
	uint64_t entries;
	unsigned char **chunk;     /* owned: clusters of bits that differ from the disk */
	struct bitmap_bits next;   /* while the disk changes its size */
	bool claimed;              /* the clusters of bits are in the guard */
	struct bitmap_frees frees; /* clusters that the table on disk still refers to */
};

struct qcow2_bitmaps {
	struct bitmap_dir dir;             /* n 0: none */
	struct qcow2_bitmap *v;            /* owned, dir.n */
	uint64_t size;                     /* of the disk that they cover, bytes */
	uint32_t enabled;                  /* how many are kept up to date */
	uint64_t table_memory, bit_memory; /* bytes in use */
	uint64_t bit_budget;               /* BITMAPS_BIT_MEMORY; other values: for tests */
	struct bitmap_frees frees;         /* nothing on disk refers to these */
};

/* ---- bitmap_dir.c: the directory ---- */
/* Reads the directory with every check that the specification asks for. -EUCLEAN. */
int qcow2_bitmaps_load(struct qcow2 *q, struct err *err);
void qcow2_bitmaps_free(struct qcow2 *q);
/* Counts those that follow the guest's writes: after a change of the list or of flags. */
void qcow2_bitmaps_count(struct qcow2 *q);
void qcow2_bitmap_free_one(struct qcow2 *q, struct qcow2_bitmap *b);
/* Sets IN_USE, durably, for those for which `which` is true. */
typedef bool bitmap_filter(const struct qcow2_bitmap *b, const struct qcow2_bitmap *arg);
bitmap_filter bitmap_is, bitmap_is_enabled, bitmap_is_any;
int qcow2_bitmaps_mark(struct qcow2 *q, bitmap_filter *which, const struct qcow2_bitmap *arg,
		       struct err *err);
/*
 * Writes the directory as it is in memory where it stands, durably: flags, or places of tables that
 * hold the same as the old ones, which may be on disk in any mixture.
 */
int qcow2_bitmaps_write_directory(struct qcow2 *q, enum barrier barrier, struct err *err);
/*
 * Writes a directory of the n bitmaps in v to new clusters and switches the header to it; v becomes
 * the list (the caller frees the old array). n 0: no directory. The old
 * directory is noted to be freed.
 */
int qcow2_bitmaps_switch(struct qcow2 *q, struct qcow2_bitmap *v, uint32_t n, struct err *err);
/* Names a copy of the directory, which the caller made at `to`, in the header. -ENOSPC: no room. */
int qcow2_bitmaps_move_directory(struct qcow2 *q, uint64_t to, struct err *err);
void qcow2_bitmaps_note_free(struct qcow2 *q, struct bitmap_frees *f, uint64_t host,
			     uint64_t bytes);
/* Moves a list to those that nothing on disk refers to. */
void qcow2_bitmaps_ripen(struct qcow2 *q, struct bitmap_frees *f);
/* Gives back what nothing on disk refers to. Durable on return. */
int qcow2_bitmaps_release(struct qcow2 *q, struct err *err);

/* ---- bitmap_bits.c: one bitmap's bits ---- */
int qcow2_bits_load(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err);
/* Loads and takes the clusters into the guard, before a change. */
int qcow2_bits_claim(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err);
void qcow2_bits_drop(struct qcow2 *q, struct qcow2_bitmap *b);
/* Sets the bits of guest bytes [off, off+len), len > 0, inside the disk. */
int qcow2_bits_set(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t off, uint64_t len,
		   struct err *err);
/* All bits zero; clusters are noted to be freed. */
void qcow2_bits_clear(struct qcow2 *q, struct qcow2_bitmap *b);
/*
 * Bits for a disk of another size; new ones are zero. All that can fail is prepared before, but for
 * what had to make room meanwhile.
 */
int qcow2_bits_prepare(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t size, struct err *err);
void qcow2_bits_cancel(struct qcow2 *q, struct qcow2_bitmap *b);
int qcow2_bits_resize(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t size, struct err *err);
/* Bytes [at, at+len) of the bits as a stream, lowest bit first; zeros behind the last bit. */
int qcow2_bits_read(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t at, void *buf, size_t len,
		    struct err *err);
/* Writes changed clusters of bits, not flushed, and forgets them. The table changes in memory. */
int qcow2_bits_write(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err);

/* ---- bitmap_store.c ---- */
/* The metadata of bitmaps for the guard; each must have its clusters for itself. */
int qcow2_bitmaps_guard(struct qcow2 *q, struct err *err);
/* Of format.changing. */
int qcow2_changing(struct img *img, uint64_t off, uint64_t len, struct err *err);
/* Stores what is in use; for settle. */
int qcow2_bitmaps_store(struct qcow2 *q, struct err *err);
/* Before and after the disk changes its size. -ESTALE: one is inconsistent. -EFBIG. */
int qcow2_bitmaps_begin_resize(struct qcow2 *q, uint64_t size, struct err *err);
int qcow2_bitmaps_end_resize(struct qcow2 *q, struct err *err);

/* ---- bitmap_ops.c ---- */
extern const struct bitmap_ops qcow2_bitmap_ops;

#endif
