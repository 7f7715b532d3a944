/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A second, independent reader of qcow2 files: the judge of the crash sweep. It shares no code with
 * the driver and its check, works on the bytes of a file in memory, and is made for speed: a small
 * image is judged in some microseconds.
 */
#ifndef IMGKIT_TESTS_ORACLE_H
#define IMGKIT_TESTS_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct oracle {
	/* The file. */
	const unsigned char *p;
	uint64_t len;
	/* Its header. */
	unsigned version, cluster_bits, refcount_order;
	unsigned entry; /* bytes of an L2 entry: 8, or 16 with subclusters */
	uint64_t grain; /* bytes that have one place: a cluster, or a subcluster */
	uint64_t cluster, size, l1, reftable, snapshots;
	uint32_t l1_size, reftable_clusters, n_snapshots;
	bool dirty, corrupt_bit;
	uint64_t autoclear; /* feature bits */
	uint64_t bitmap_dir, bitmap_dir_len;
	uint32_t n_bitmaps; /* 0 without the feature bit */
	/* References that were counted, by host cluster. */
	uint32_t *refs;
	uint64_t n_refs, cap_refs;
	/* What was found. */
	unsigned errors;         /* refcount < references, and bad pointers */
	unsigned bad_pointers;   /* that cannot be: reserved bits, alignment, beyond the end */
	unsigned leaks;          /* clusters with refcount > references */
	unsigned copied_wrong;   /* COPIED where the refcount is not 1 */
	unsigned copied_missing; /* refcount 1 without COPIED, in the active tree */
	char text[200];          /* the first error or wrong flag */
	char pointer_text[200];  /* the first bad pointer */
};

/* Judges the file. False when the header cannot be understood (text says why). */
bool oracle_judge(struct oracle *o, const unsigned char *p, uint64_t len);
void oracle_free(struct oracle *o);

enum place_kind { PLACE_NONE, PLACE_ZERO, PLACE_DATA, PLACE_CODED };
struct place {
	enum place_kind kind;
	uint64_t host; /* PLACE_DATA: of the very byte; PLACE_CODED: the L2 entry */
};
/* Where guest byte `off` is, by the L1 table at l1 (l1_size entries). After oracle_judge. */
struct place oracle_place(const struct oracle *o, uint64_t l1, uint32_t l1_size, uint64_t off);

/* Entry i of the snapshot table. False when there is no such. */
struct oracle_snapshot {
	uint64_t l1, disk_size;
	uint32_t l1_size;
	char name[32]; /* cut when longer */
};
bool oracle_snapshot(const struct oracle *o, unsigned i, struct oracle_snapshot *s);

/* Entry i of the bitmap directory. False when there is no such. */
struct oracle_bitmap {
	uint32_t flags; /* 1 in use, 2 enabled */
	unsigned granularity_bits;
	uint64_t table;
	uint32_t table_size;
	char name[32]; /* cut when longer */
};
bool oracle_bitmap(const struct oracle *o, unsigned i, struct oracle_bitmap *b);
/* The bit of guest byte `off`. */
bool oracle_bit(const struct oracle *o, const struct oracle_bitmap *b, uint64_t off);

#endif
