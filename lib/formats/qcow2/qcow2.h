/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 driver's state, shared by the files of this folder.
 *
 * Crash order. Memory runs ahead of the disk; the disk follows in a turn (turn.c), in phases with
 * a flush between them:
 *
 *	refcount blocks (only ever raised since the last turn), new refcount blocks' table entries
 *	- flush: data, refcounts, and the content of new tables are durable -
 *	- flush of the external data file, if there is one (datafile.c) -
 *	L2 entries, L1 entries
 *	- flush -
 *	refcounts of what was freed are lowered in memory, freed clusters may be used again
 *
 * Invariants on disk at every instant, for images without the dirty bit:
 *	I1  refcount >= number of references, for every cluster
 *	I2  what an entry points to was durable before the entry was written
 *	I5  a freed cluster is not written, reused or punched before its unmapping is durable
 *	I7  COPIED is set only where the refcount is exactly 1
 * Snapshots change COPIED and refcounts of the whole image and run under the dirty bit (snapshot.c).
 *
 * Everything below is guarded by img.meta, except in functions that run under the exclusive gate.
 */
#ifndef IMGKIT_QCOW2_QCOW2_H
#define IMGKIT_QCOW2_QCOW2_H

#include "formats/qcow2/header.h"
#include "image/codec.h"
#include "image/img.h"
#include "image/mcache.h"

enum { CLASS_REFCOUNT, CLASS_L2 };

/* A snapshot table entry with what only the format knows. */
struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size;             /* entries */
	unsigned char *unknown_extra; /* owned: extra data past what we know, kept verbatim */
	uint32_t unknown_len;
	bool short_extra; /* the table on disk lacks what version 3 asks for */
};

/* Which 512-byte sectors of a table in memory differ from the disk. */
struct dirty_sectors {
	uint64_t first, end; /* sector numbers; first >= end: clean */
};

struct qcow2 {
	struct img img; /* first */
	struct header h;
	unsigned cluster_bits;
	uint64_t cluster;       /* bytes */
	unsigned l2_bits;       /* log2 of entries per L2 table */
	unsigned sub_bits;      /* log2 of a subcluster's bytes; cluster_bits without extended L2 */
	unsigned refblock_bits; /* log2 of refcounts per refcount block */
	bool unreadable; /* guest data must not be touched: a feature, a broken table; see open.c */
	const char *unreadable_why;

	be64 *l1; /* owned, h.l1_size entries as on disk */
	struct dirty_sectors l1_dirty;
	be64 *reftable; /* owned, reftable_entries as on disk */
	uint64_t reftable_entries;
	struct dirty_sectors reftable_dirty;
	struct mcache cache;   /* slices of L2 tables and refcount blocks */
	size_t cache_bytes;    /* its bound for clean slices */
	bool lazy_given, lazy; /* refcounts may be late: what the user said against the header */

	uint64_t free_hint; /* cluster index: none below it is free */
	uint64_t coded_at;  /* byte behind the last coded unit, if its cluster has room; 0: none */
	uint64_t *parked;   /* owned: cluster indices to lower by one at the end of the turn */
	size_t n_parked, cap_parked;
	struct ranges punches; /* of img.data: to be punched at the end of the turn */
	unsigned char *guard;  /* owned bitmap: host clusters that hold metadata; NULL: not built */
	uint64_t guard_clusters;
	bool writing;    /* qcow2_begin_write ran */
	bool stale_tail; /* space past the end of the file may not be zeros any more */

	struct snapshot *snap; /* owned, h.nb_snapshots entries */
	struct qcow2_snapshot *snap_disk;
	uint64_t snaptable_bytes;      /* length of the snapshot table on disk */
	struct qcow2_bitmaps *bitmaps; /* owned; NULL: not looked at yet. See bitmap.h */
	struct codec_pool *codecs;
};

static inline struct qcow2 *qcow2_of(struct img *img)
{
	return (struct qcow2 *)(void *)img; /* img is the first member */
}

/*
 * With an external data file (img.data) a data cluster's host offset is its guest offset, also 0:
 * there the COPIED flag tells it from nothing. Such clusters have no refcount, and are never coded.
 */
static inline bool qcow2_has_data_file(const struct qcow2 *q)
{
	return q->h.incompat & INCOMPAT_DATA_FILE;
}

/* Whether the data file has to be at any time what the disk reads as. */
static inline bool qcow2_keeps_raw(const struct qcow2 *q)
{
	return qcow2_has_data_file(q) && (q->h.autoclear & AUTOCLEAR_RAW_DATA);
}

/* ---- open.c ---- */
extern const struct format qcow2_format;
/* Forgets what is cached and reads header, L1, refcount table and snapshots again. */
int qcow2_reload(struct qcow2 *q, struct err *err);
/* Reads the refcount table and builds the guard, unless they are there. Changes nothing. */
int qcow2_load_refcounts(struct qcow2 *q, struct err *err);
/* Once before the first change: autoclear bits, the dirty bit of lazy refcounts, the guard. */
int qcow2_begin_write(struct qcow2 *q, struct err *err);
/* Marks the image corrupt on disk (version 3), refuses further writes. Returns -EUCLEAN. */
int qcow2_mark_corrupt(struct qcow2 *q, uint64_t at, struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Reads `entries` be64 of a table into new memory. */
int qcow2_read_table(struct qcow2 *q, uint64_t off, uint64_t entries, const char *what, be64 **out,
		     struct err *err);

/* ---- map.c ---- */
int qcow2_map(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err);
int qcow2_decode(struct img *img, const struct extent *ext, void *buf, size_t len, uint64_t off,
		 struct err *err);
/* Checks an L1 entry and returns its table's offset in *host (0: none). */
int qcow2_l2_offset(struct qcow2 *q, uint64_t l1_index, uint64_t *host, struct err *err);
/* The L2 slice that holds the entry of guest offset `off`, which must have a table at l2. */
int qcow2_l2_slice(struct qcow2 *q, uint64_t l2, uint64_t off, struct mslice **s, struct err *err);
/* Index of the entry of guest offset `off` in its slice, and entries in a slice. */
unsigned qcow2_slice_index(const struct qcow2 *q, uint64_t off);
unsigned qcow2_slice_entries(const struct qcow2 *q);

/*
 * One L2 entry in memory. A cluster has 32 subclusters with extended L2 entries, else it is its only
 * one; bit k of alloc and zero stands for subcluster k. The cluster is at the offset in raw, and
 * subcluster k is k subclusters behind: alloc says that its data is there, zero that it reads as
 * zeros, neither that it is absent. On disk a standard entry says it by its offset and zero flag.
 */
struct l2_entry {
	uint64_t raw;         /* flags and offset, without the zero flag of standard entries */
	uint32_t alloc, zero; /* never both for one subcluster; compressed: both 0 */
};

static inline bool qcow2_extended(const struct qcow2 *q)
{
	return q->sub_bits != q->cluster_bits;
}

/* Bytes of an L2 entry on disk. */
static inline unsigned qcow2_entry_bytes(const struct qcow2 *q)
{
	return qcow2_extended(q) ? 16 : 8;
}

/* The bits of all subclusters of a cluster. */
static inline uint32_t qcow2_all_subs(const struct qcow2 *q)
{
	return qcow2_extended(q) ? UINT32_MAX : 1;
}

/*
 * Whether an entry has a cluster, with or without data; and whether nobody else refers to it. In an
 * external data file offset 0 is a place as any other, which the flag tells from nothing; but not, as
 * for the peer, where a standard entry says zeros.
 */
static inline bool qcow2_entry_placed(const struct qcow2 *q, struct l2_entry e)
{
	bool flag_tells = qcow2_has_data_file(q) && (qcow2_extended(q) || !e.zero);

	return !(e.raw & ENTRY_COMPRESSED) &&
	       (e.raw & (flag_tells ? ENTRY_OFFSET | ENTRY_COPIED : ENTRY_OFFSET));
}

static inline bool qcow2_entry_own(const struct qcow2 *q, struct l2_entry e)
{
	return qcow2_entry_placed(q, e) && (e.raw & ENTRY_COPIED);
}

/* Entry i of a piece of an L2 table in memory. */
static inline struct l2_entry qcow2_entry_load(const struct qcow2 *q, const void *table, unsigned i)
{
	const be64 *t = (const be64 *)table + (qcow2_extended(q) ? i * 2 : i);
	struct l2_entry e = {.raw = be64_get(t[0])};

	if (e.raw & ENTRY_COMPRESSED)
		return e;
	if (qcow2_extended(q)) {
		uint64_t bits = be64_get(t[1]);

		e.alloc = (uint32_t)bits;
		e.zero = (uint32_t)(bits >> 32);
		return e;
	}
	e.zero = e.raw & ENTRY_ZERO;
	e.raw &= ~ENTRY_ZERO;
	e.alloc = !e.zero && qcow2_entry_placed(q, e);
	return e;
}

static inline void qcow2_entry_store(const struct qcow2 *q, void *table, unsigned i,
				     struct l2_entry e)
{
	be64 *t = (be64 *)table + (qcow2_extended(q) ? i * 2 : i);

	if (qcow2_extended(q)) {
		t[0] = be64_make(e.raw);
		t[1] = be64_make((uint64_t)e.zero << 32 | e.alloc);
	} else {
		/* ENTRY_ZERO is the bit of the only subcluster. */
		t[0] = be64_make(e.raw | e.zero);
	}
}

/* Checks what an entry says. at: file offset of the entry, for the message. */
int qcow2_check_entry(struct qcow2 *q, struct l2_entry e, uint64_t at, struct err *err);

/* ---- refcount.c ---- */
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count, struct err *err);
/* The refcounts of n neighbours. */
int qcow2_refcount_load(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *counts,
			struct err *err);
/* One more than the last cluster below `end` that is in use; 0: none. */
int qcow2_used_end(struct qcow2 *q, uint64_t end, uint64_t *used, struct err *err);
/* Adds delta (+1, -1). Over the maximum: -ERANGE; below zero: -EUCLEAN. */
int qcow2_refcount_add(struct qcow2 *q, uint64_t cluster, int delta, struct err *err);
/*
 * Takes up to n neighbouring free clusters (refcount 1 each). *first is the cluster index, *got
 * (1 … n) how many; *zeroed: their space reads as zeros.
 */
int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *first, uint64_t *got, bool *zeroed,
		struct err *err);
/*
 * Takes the first n neighbouring free clusters that lie below `limit` (inside what is in use): 1,
 * they begin at *first and have refcount 1; 0, there are none.
 */
int qcow2_take_below(struct qcow2 *q, uint64_t n, uint64_t limit, uint64_t *first, struct err *err);
/* Offset of the refcount block that covers a cluster; 0: there is none. */
int qcow2_refcount_block(struct qcow2 *q, uint64_t cluster, uint64_t *host, struct err *err);
/*
 * Space for a coded unit, at most a cluster: where the last one ended, or in a new cluster. Adds a
 * reference to each cluster that it touches.
 */
int qcow2_alloc_bytes(struct qcow2 *q, size_t len, uint64_t *host, struct err *err);
/* Exactly n neighbours, for tables; marks them in the guard. Content is undefined. */
int qcow2_alloc_table(struct qcow2 *q, uint64_t n, uint64_t *host, struct err *err);
/*
 * Before a part of a table at host gets its first entry: of a new image it may be a hole of the file. If
 * the disk were full when it is written, what it names would be lost: the space is taken now. -ENOSPC.
 */
int qcow2_fill_hole(struct qcow2 *q, const void *part, uint64_t len, uint64_t host,
		    struct err *err);
/* Takes back an allocation that nothing refers to yet. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n);
/* Lowers the refcounts at the end of the next turn. Never fails: at worst clusters leak. */
void qcow2_park(struct qcow2 *q, uint64_t first, uint64_t n);
/* Parks what an L2 entry refers to (nothing, a cluster, the clusters of a compressed stream). */
void qcow2_park_entry(struct qcow2 *q, struct l2_entry e);
/* The host clusters that an entry refers to: *first, *n (0: none). */
void qcow2_entry_clusters(const struct qcow2 *q, struct l2_entry e, uint64_t *first, uint64_t *n);
/* ---- guard.c: the host clusters that hold metadata ---- */
/* From the tables in memory. -EUCLEAN, marked as corrupt: two of them share a cluster. */
int qcow2_guard_build(struct qcow2 *q, struct err *err);
/* Whether a host range (len > 0) touches metadata; marks a range as metadata or not. */
bool qcow2_guarded(const struct qcow2 *q, uint64_t host, uint64_t len);
void qcow2_guard_set(struct qcow2 *q, uint64_t host, uint64_t len, bool metadata);
/* Notes a structure, which must have its clusters for itself: else marked as corrupt. -EUCLEAN. */
int qcow2_guard_claim(struct qcow2 *q, uint64_t host, uint64_t len, const char *what,
		      struct err *err);
/*
 * Whether what an L2 entry refers to may be written to in place, or given back. at: file offset of
 * the entry. -EUCLEAN: misaligned, or it is metadata; the image is then marked as corrupt.
 */
int qcow2_guard_entry(struct qcow2 *q, struct l2_entry e, uint64_t at, struct err *err);

/* ---- write.c ---- */
int qcow2_place(struct img *img, uint64_t off, uint64_t len, struct placement *p, struct err *err);
int qcow2_place_coded(struct img *img, uint64_t off, size_t len, struct placement *p,
		      struct err *err);
int qcow2_link(struct img *img, const struct placement *p, struct err *err);
/* The same for space that holds nothing yet: only extended L2 entries can say so. */
int qcow2_link_space(struct qcow2 *q, const struct placement *p, struct err *err);
void qcow2_unplace(struct img *img, const struct placement *p);
int qcow2_zero(struct img *img, uint64_t off, uint64_t len, unsigned flags, uint64_t *did,
	       struct err *err);
int qcow2_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *did, struct err *err);
/* Discard for the driver's own use: gives the space back whatever the range then reads as. */
int qcow2_unmap(struct img *img, uint64_t off, uint64_t len, uint64_t *did, struct err *err);

/* What an entry refers to goes; guest: the offset that it is for. */
void qcow2_free_entry(struct qcow2 *q, struct l2_entry e, uint64_t guest);
/* Forgets clusters, so that the backing file is seen. */
int qcow2_drop(struct img *img, uint64_t off, uint64_t len, uint64_t *did, struct err *err);

/* ---- datafile.c: an external data file ---- */
/* An entry's host offset must be the guest offset. at: file offset of the entry. -EUCLEAN. */
int qcow2_data_check(struct qcow2 *q, uint64_t host, uint64_t guest, uint64_t at, struct err *err);
/* Whether nothing was written at or behind off yet: it reads as zeros. */
bool qcow2_data_fresh(const struct qcow2 *q, uint64_t off);
/* No entry says any more that this range of an external data file holds data. */
void qcow2_data_freed(struct qcow2 *q, uint64_t off, uint64_t len);
/*
 * Raw flag: makes zeros at the beginning of the range, and says in *len how far it came. 1: they need
 * no entries. 0: entries have to change, too; or the flag is not set, and nothing was done.
 */
int qcow2_data_zero(struct qcow2 *q, uint64_t off, uint64_t *len, unsigned flags, struct err *err);
/* A file of this size, or a device that is large enough. */
int qcow2_data_resize(struct qcow2 *q, uint64_t size, struct err *err);

/* ---- turn.c ---- */
/* The flushes that the crash order needs: what must be on the disk - before what follows. */
enum barrier {
	BARRIER_BLOCKS = 1, /* new refcount blocks - the table entries that name them */
	BARRIER_REFCOUNTS,  /* data, new tables, refcounts - entries that point to them */
	BARRIER_POINTERS,   /* L2, L1 entries - another use of what they pointed to before */
	BARRIER_SETTLED,    /* all refcounts - the end of the dirty bit */
	BARRIER_DIRTY,      /* the dirty bit - refcounts that are wrong */
	BARRIER_COPIED,     /* COPIED flags, cleared - raised refcounts; set - the next change */
	BARRIER_SNAPSHOTS,  /* a header with other snapshots, or L1 - the old ones are freed */
	BARRIER_REFTABLE,   /* a new refcount table - the header that names it */
	BARRIER_SIZE,       /* a header with another size - the end of the file is cut */
	BARRIER_HEADER,     /* what a new header refers to behind the first sector - that sector */
	BARRIER_HEADER_SWITCH, /* a new header - a change of its fields, or what it permits */
	BARRIER_AUTOCLEAR,     /* cleared feature bits - changes that these features do not see */
	BARRIER_BITMAP_IN_USE, /* "in use" of bitmaps - what they have to follow */
	BARRIER_BITMAP_TABLES, /* tables of bitmaps - the end of "in use" */
	BARRIER_BITMAP_STORED, /* the end of "in use" - a settled image */
	BARRIER_DATA,          /* data in an external file - entries that say it is there */
	BARRIERS,
};
/*
 * Flushes the file, BARRIER_DATA the external data file. After a failure nobody knows what is on the
 * disk, so all writing ends.
 */
int qcow2_flush(struct qcow2 *q, enum barrier barrier, struct err *err);
bool qcow2_pressure(struct img *img);
int qcow2_turn(struct img *img, struct err *err);
int qcow2_settle(struct img *img, struct err *err);
/*
 * A range of img.data that is ours holds nothing any more: at the end of the turn it goes back to the
 * file system. Or it holds data again.
 */
void qcow2_punch_later(struct qcow2 *q, uint64_t host, uint64_t len);
void qcow2_punch_not(struct qcow2 *q, uint64_t host, uint64_t len);
/* Writes L1 or refcount table entry i: sets it and notes the sector. */
void qcow2_set_l1(struct qcow2 *q, uint64_t i, uint64_t value);
void qcow2_set_reftable(struct qcow2 *q, uint64_t i, uint64_t value);
/* Writes the dirty sectors of the L1 table. No flush. */
int qcow2_write_l1(struct qcow2 *q, struct err *err);
/* A turn, then all refcounts on disk as they are in memory, nothing parked; durable. */
int qcow2_quiesce(struct qcow2 *q, struct err *err);
/* Sets or clears the dirty bit on disk, durably; nothing to do for version 2. */
int qcow2_set_dirty_bit(struct qcow2 *q, bool dirty, struct err *err);

/* ---- tree.c: walks over everything that an L1 table refers to ---- */
/*
 * Whether every entry points to a sane place, whose refcount can change by delta (+1, -1). Changes
 * nothing. -EUCLEAN; -EINVAL: a refcount is too narrow.
 */
int qcow2_tree_check(struct qcow2 *q, const be64 *l1, uint32_t n, int delta, struct err *err);
/* Adds delta to the refcount of every table and cluster. Memory only. */
int qcow2_tree_refcounts(struct qcow2 *q, const be64 *l1, uint32_t n, int delta, struct err *err);
/* Sets COPIED where the refcount is 1 and clears it elsewhere (all: everywhere). Memory only. */
int qcow2_tree_copied(struct qcow2 *q, be64 *l1, uint32_t n, bool clear_all, struct err *err);
/*
 * Calls fn for every L2 entry that is not 0; what fn makes of it goes to the cache, and from there,
 * in parts and without a flush, to the disk: what the new entries need must be durable before.
 */
typedef int qcow2_entry_fn(void *ctx, struct l2_entry *e, uint64_t at, struct err *err);
int qcow2_tree_each(struct qcow2 *q, const be64 *l1, uint32_t n, qcow2_entry_fn *fn, void *ctx,
		    struct err *err);

/* The same for the active tree and those of all snapshots; table sees each L1 table before. */
typedef int qcow2_l1_fn(void *ctx, const be64 *l1, uint32_t n, struct err *err);
int qcow2_trees_each(struct qcow2 *q, qcow2_l1_fn *table, qcow2_entry_fn *entry, void *ctx,
		     struct err *err);

/* ---- snapshot.c, snaptable.c ---- */
extern const struct snapshot_ops qcow2_snapshot_ops;
int qcow2_snapshots_read(struct qcow2 *q, struct err *err);
void qcow2_snapshots_free(struct qcow2 *q);
/* The table on disk of n snapshots as bytes; the caller frees *out. */
int qcow2_snapshots_encode(const struct snapshot *s, const struct qcow2_snapshot *d, unsigned n,
			   unsigned char **out, uint64_t *len, struct err *err);
/* Writes the table anew, with all that version 3 asks for. Durable. */
int qcow2_snapshots_rewrite(struct qcow2 *q, struct err *err);
void qcow2_snapshot_free_one(struct snapshot *s, struct qcow2_snapshot *d);
/* Reads a snapshot's L1 table, padded to at least `least` entries; the caller frees *out. */
int qcow2_snapshot_l1(struct qcow2 *q, const struct qcow2_snapshot *d, uint64_t least, be64 **out,
		      uint32_t *entries, struct err *err);

/* Two versions of a cluster would need two places: -ENOTSUP with an external data file. */
int qcow2_snapshots_possible(struct qcow2 *q, struct err *err);

/* ---- snapforeign.c: see snapshot_ops ---- */
int qcow2_snapshots_creatable(const struct create_args *args, const struct snapshot *s, unsigned n,
			      struct err *err);
int qcow2_snapshots_acceptable(struct img *img, const struct snapshot *s, unsigned n,
			       struct err *err);
uint64_t qcow2_state_at(const struct img *img, uint64_t disk_size);

/* ---- used.c ---- */
int qcow2_count_used(struct img *img, uint64_t limit, uint64_t *n, struct err *err);

/* ---- resize.c ---- */
int qcow2_resize(struct img *img, uint64_t size, int prealloc, struct err *err);
/* See snapshot_ops. */
int qcow2_reach(struct img *img, uint64_t end, struct err *err);
/* Cuts the file behind the last cluster in use. */
int qcow2_truncate_file(struct qcow2 *q, struct err *err);

/* ---- compact.c ---- */
int qcow2_compact(struct img *img, struct compact_result *res, struct job *job, struct err *err);
/* Whether that is possible at all, for an image of this version. -EINVAL, -ENOTSUP, -EFBIG. */
int qcow2_may_resize(struct qcow2 *q, uint64_t size, unsigned version, int prealloc,
		     struct err *err);

/* ---- header_replace.c ---- */
/*
 * Writes q->h with all its extensions and names over the header on disk, which stays whole until the
 * new one is; durable but for the feature name table. -ENOSPC: it does not fit, nothing has changed.
 */
int qcow2_replace_header(struct qcow2 *q, struct err *err);

/* ---- amend.c ---- */
extern const struct opt qcow2_amend_opts[];
int qcow2_amend(struct img *img, const struct opts *opts, unsigned flags, struct job *job,
		struct err *err);

/* ---- empty.c ---- */
int qcow2_empty(struct img *img, struct err *err);

/* ---- backing.c ---- */
int qcow2_set_backing(struct img *img, const char *name, const char *format, struct err *err);

/* ---- dedup.c ---- */
int qcow2_dedup(struct img *img, const struct dedup_args *args, struct dedup_result *res,
		struct job *job, struct err *err);

#endif
