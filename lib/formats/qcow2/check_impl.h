/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by check*.c and repair*.c; the overview is at the head of check.c. */
#ifndef IMGKIT_QCOW2_CHECK_IMPL_H
#define IMGKIT_QCOW2_CHECK_IMPL_H

#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/check_map.h"

/* Kinds of lines: each is limited on its own. The names are in check_report.c. */
enum finding {
	F_L1_RESERVED,
	F_L1_ALIGN,
	F_REGION,
	F_L2_RESERVED,
	F_L2_CODED,
	F_L2_BITMAP,
	F_L2_ALIGN,
	F_SNAPSHOT,
	F_BITMAP,
	F_OVERFLOW,
	F_REFTABLE,
	F_REFBLOCK,
	F_UNREADABLE,
	F_CLUSTER,
	F_COPIED,
	F_NOTE,
	F_KINDS,
};

/* Where a table of pointers lies, and how often it is one: see check_sweep.c. */
struct table_ref {
	uint64_t off, bytes;
	unsigned active; /* 1: the active L1 table */
};

/* A stretch of table entries that belongs to so many tables. */
struct stretch {
	struct check *ck;
	uint64_t active, total;
};

/* A list of tables; zero-initialise. */
struct table_refs {
	struct table_ref *v; /* owned */
	size_t n, cap;
};

/* An L2 table: how many entries of the active L1 table, and of all L1 tables, point to it. */
struct l2_ref {
	uint64_t off, active, total;
};

/* An entry of the snapshot table. */
struct snap_ref {
	uint64_t at; /* offset in the file of the entry */
	uint64_t l1_offset;
	uint32_t l1_size, extra_len;
	uint16_t id_len, name_len;
};

/* What is wrong with an L2 entry; each bit is one corruption in the counters. */
enum {
	BAD_RESERVED = 1 << 0,
	BAD_CODED_COPIED = 1 << 1,
	BAD_CODED_DATAFILE = 1 << 2,
	BAD_CODED_BITMAP = 1 << 3,
	BAD_BITMAP = 1 << 4,
	BAD_ALIGN_ZERO = 1 << 5, /* space of a zero cluster: may be dropped */
	BAD_ALIGN_DATA = 1 << 6,
	BAD_UNALLOC_BITMAP = 1 << 7,
	BAD_REGION = 1 << 8,
};

/* A decoded L2 entry. */
struct entry {
	uint64_t raw, bitmap; /* bitmap: of extended L2 entries, else 0 */
	bool coded, stored;   /* compressed, or has a cluster of its own */
	uint64_t off, bytes;  /* host bytes to count; bytes 0: none */
	uint64_t size;        /* as bytes, also when the place is outside the file */
	unsigned bad;         /* BAD_… */
};

/* Offsets of L2 tables to look at again, for the report and the repair. */
struct bad_tables {
	uint64_t *v; /* owned, sorted and unique after check_bad_sort */
	size_t n, cap;
	bool all; /* too many to list: look at every table */
};

/* What the threads of a scan add up. */
struct tally {
	uint64_t corruptions; /* of L1 and L2 entries */
	uint64_t copied;      /* wrong COPIED flags, of active L1 and L2 entries */
	uint64_t zero_fixes;  /* BAD_ALIGN_ZERO entries that the repair drops */
	uint64_t allocated, compressed, fragmented;
	uint64_t outside; /* lowest cluster past the end of the file that something refers to */
};

/* What a check found so far; the sums of the peer. */
struct counts {
	uint64_t corruptions;       /* of tables and other metadata: no repair mends them */
	uint64_t blocks;            /* wrong refcount table entries and blocks */
	uint64_t too_low, too_high; /* refcounts below and above the references */
	uint64_t copied;
	uint64_t check_errors;
	uint64_t unreadable; /* of those: refcounts, which new blocks replace */
	uint64_t zero_fixes;
	bool unreadable_said;
	bool rebuild; /* something needs new refcount blocks: only -r all */
};

/* How much memory a check may use. Windows are multiples of what one refcount block covers. */
struct check_bounds {
	uint64_t window;     /* clusters that are counted in one pass, at most */
	uint64_t min_window; /* clusters; a check that cannot do with that fails */
	uint64_t budget;     /* bytes for each of the two maps */
};
/* qcow2_check_file with other bounds: for tests. */
int check_file_bounded(const struct check_bounds *bounds, struct io *file, struct header *h,
		       unsigned fix, struct check_result *res, const struct check_sink *sink,
		       struct job *job, struct err *err);

struct check {
	const struct check_bounds *bounds;
	struct io *file;
	struct header *h;
	unsigned fix;
	struct check_result *res;
	const struct check_sink *sink;
	struct job *job;
	uint64_t work; /* bytes that job->total knows of */
	uint64_t reported[F_KINDS];
	uint64_t shown; /* lines */
	bool muted;     /* counts again what was reported already */

	uint64_t file_size, cluster;
	unsigned cluster_bits, entry_size; /* bytes of an L2 entry */
	unsigned refblock_bits;            /* log2 of refcounts per block */
	bool data_file;
	uint64_t clusters; /* that are compared: of the file, and one that something reaches into */
	uint64_t span;     /* that the maps cover: more than the file when repairing */
	uint64_t window;   /* clusters that are counted in one pass */

	be64 *reftable; /* owned */
	uint64_t reftable_entries;
	uint64_t bad_blocks;   /* entries whose block cannot be read */
	unsigned char *shared; /* owned bitmap: blocks that share their cluster */
	bool table_shared;     /* so does the refcount table */
	struct snap_ref *snap; /* owned */
	unsigned n_snap;
	uint64_t snap_bytes; /* length of the snapshot table */
	unsigned snap_dropped, snap_cut, snap_incomplete;
	struct bitmap_dir bitmaps;
	struct table_refs bitmap_tables;
	bool drop_bitmaps; /* the repair does so: nothing of them counts */
	uint64_t crypto_offset, crypto_length;

	/* Of one pass over a window: */
	struct refmap refs;   /* references that were found */
	struct refmap stored; /* refcounts on disk, values above 2 as 3 */
	bool counting;        /* adds references; else only looks at COPIED flags */
	bool first_pass;      /* counts what does not belong to a cluster of the window */
	bool check_copied;    /* compares COPIED flags with final counts, see check_copied.c */
	unsigned settled;     /* CHECK_FIX_… that final counts take as done */
	struct tally tally;
	struct bad_tables bad, bad_copied;
	struct bad_tables unsafe; /* L2 tables that share their cluster: not to be written */
	struct l2_ref *l2;        /* owned: tables that wait for a scan, or, not split, all */
	size_t n_l2, cap_l2;
	bool l2_split;
	bool l1_shared; /* the active L1 table shares a cluster: not to be written */

	/* Over all windows: */
	struct counts sum;
	struct counts base;    /* of the metadata that is looked at only once */
	uint64_t outside;      /* see struct tally */
	uint64_t highest;      /* last cluster with a reference or a refcount */
	uint64_t highest_said; /* the same in the result: of refcounts that can be read */
	unsigned char *need;   /* owned bitmap: refcount blocks that cover a reference */
	struct plan *plan;     /* of a repair: see repair.c */
	bool unsafe_known;     /* entries in `unsafe` tables stay as they are, see repair.c */
	bool mend_copied;      /* the repair puts COPIED flags right */
	uint64_t copied_left;  /* flags that it may not touch */
};

/* ---- check_report.c ---- */
void check_report(struct check *ck, enum finding kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* One line for each kind that had more to say. */
void check_report_end(struct check *ck);
void check_report_region(struct check *ck, uint64_t off, uint64_t bytes);
void check_report_snapshot(struct check *ck, const struct snap_ref *s);
int check_bad_add(struct bad_tables *bad, uint64_t off);
void check_bad_sort(struct bad_tables *bad);
bool check_bad_has(const struct bad_tables *bad, uint64_t off);
/* Prints what is wrong with L1 and L2 tables, in the order of the tables. */
int check_report_tables(struct check *ck, struct err *err);
/* Prints wrong COPIED flags of the active tables. verb: "ERROR" or "Repairing". */
int check_report_copied(struct check *ck, const char *verb, struct err *err);

/* ---- check_meta.c: what is neither L1, L2 nor refcount ---- */
int check_read_meta(struct check *ck, struct err *err);
/* Counts references of the snapshot table, bitmaps, encryption header. */
int check_count_meta(struct check *ck, struct err *err);
/* Whether the check follows the snapshot's L1 table. */
bool check_snap_usable(const struct check *ck, const struct snap_ref *s);

/* ---- check_sweep.c ---- */
int check_refs_push(struct table_refs *list, uint64_t off, uint64_t bytes, unsigned active);
typedef int check_stretch_fn(void *ctx, uint64_t off, uint64_t bytes, uint64_t active,
			     uint64_t total, struct err *err);
/*
 * Calls fn for stretches of the file that the tables cover, each stretch once, with the number of
 * tables (of active ones, of all) that share it. off + bytes of a table may not wrap.
 */
int check_sweep(const struct table_refs *list, check_stretch_fn *fn, void *ctx, struct err *err);
typedef int check_entry_fn(void *ctx, uint64_t at, uint64_t value, struct err *err);
/* Calls fn for each be64 of [off, off+bytes) that is not 0; `at` is its offset in the file. */
int check_each_entry(struct check *ck, uint64_t off, uint64_t bytes, check_entry_fn *fn, void *ctx,
		     struct err *err);
/* Whether [off, off+bytes) is known to read as zeros. seen: the caller's memory, zeroed first. */
bool check_hole(struct check *ck, struct extent *seen, uint64_t off, uint64_t bytes);

/* ---- check_scan.c: L1 and L2 ---- */
int check_count_tables(struct check *ck, struct err *err);
/* Looks at the active tables' COPIED flags only: ck->tally.copied, ck->bad_copied. */
int check_scan_copied(struct check *ck, struct err *err);
/* Adds references to the clusters of [off, off+bytes), which is inside the file. */
int check_add_region(struct check *ck, uint64_t off, uint64_t bytes, uint64_t times,
		     struct err *err);
check_stretch_fn check_stretch_clusters; /* check_add_region for the stretches of a sweep */
bool check_outside(const struct check *ck, uint64_t off, uint64_t bytes);
/* The same for a table, of which at least the beginning must be there. */
bool check_table_outside(const struct check *ck, uint64_t off, uint64_t bytes);
/* Remembers that a region that is outside the file is referred to. */
void check_note_outside(const struct check *ck, struct tally *tally, uint64_t off);
void check_decode(const struct check *ck, const void *table, uint64_t i, struct entry *e);
/* Whether the repair makes a plain zero cluster of the table's entry: then it does not count. */
bool check_drops(const struct check *ck, uint64_t table, const struct entry *e);
/* L2 entries per table. */
uint64_t check_l2_entries(const struct check *ck);
int check_map_error(int r, struct err *err);

/* ---- check_copied.c ---- */
/* The refcount that cluster k has once ck->settled is repaired. -EIO: its block is unreadable. */
int check_final_count(struct check *ck, uint64_t k, uint64_t *count, struct err *err);
/* Whether the COPIED flag of an entry (data: of an L2 table) that refers to cluster k is wrong. */
int check_copied_wrong(struct check *ck, uint64_t entry, uint64_t k, bool data, bool *wrong,
		       uint64_t *count, struct err *err);
/* Whether this pass looks at the flags of entries that refer to cluster k. */
bool check_copied_due(const struct check *ck, uint64_t k);
/* Whether all flags of entries for clusters [k, k+n) are known to be right. */
bool check_copied_run_fine(const struct check *ck, bool copied, uint64_t k, uint64_t n);

/* ---- check_refs.c: refcount table and blocks ---- */
enum block_state { BLOCK_NONE, BLOCK_FINE, BLOCK_RESERVED, BLOCK_MISALIGNED, BLOCK_OUTSIDE };
enum block_state check_block_state(const struct check *ck, uint64_t i);
/* Whether the refcounts of entry i can be read (as zeros when it has no block). */
bool check_block_readable(const struct check *ck, uint64_t i);
uint64_t check_block_offset(const struct check *ck, uint64_t i);
int check_read_reftable(struct check *ck, struct err *err);
int check_load_stored(struct check *ck, struct err *err);
int check_count_blocks(struct check *ck, struct err *err);
/* The refcount on disk of any cluster. -EIO: its block is unreadable (no text). */
int check_stored_exact(struct check *ck, uint64_t k, uint64_t *count, struct err *err);
/* Compares a window. With fix: only reports, saying "Repairing" where fix mends it. */
int check_compare(struct check *ck, unsigned fix, struct err *err);

/* ---- check.c ---- */
unsigned check_threads(uint64_t items);
/* Counts, compares and reports all windows. */
int check_all(struct check *ck, struct err *err);
/* Makes ck->refs and ck->stored cover the window that starts at cluster `first`, silently. */
int check_window(struct check *ck, uint64_t first, struct err *err);

/* ---- repair.c ---- */
/* Mends what the complete check in ck found, as ck->fix allows. */
int check_repair(struct check *ck, struct err *err);

#endif
