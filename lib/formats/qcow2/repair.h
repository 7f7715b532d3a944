/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by repair*.c; the overview is at the head of repair.c. */
#ifndef IMGKIT_QCOW2_REPAIR_H
#define IMGKIT_QCOW2_REPAIR_H

#include "formats/qcow2/check_impl.h"

/*
 * What a repair of errors changes besides counters and flags. New structures lie in one stretch of
 * clusters that nothing refers to: blocks, then the refcount table, then the snapshot table.
 */
struct plan {
	uint64_t *block;   /* owned: per entry of the table, offset of its block, 0: none */
	uint64_t entries;  /* of the table as it will be */
	uint64_t first, n; /* the new clusters */
	uint64_t new_blocks, first_offset, new_bytes; /* where the new blocks are */
	bool move_table, move_snaps;
	uint64_t table_offset, table_clusters;
	uint64_t snaps_offset, snaps_bytes;
};

/* ---- repair_plan.c ---- */
/* Makes ck->plan; -EFBIG, -ENOSPC, -ENOMEM. */
int repair_plan(struct check *ck, struct err *err);
void repair_plan_free(struct plan *plan);
/* Changes the references of the loaded window to what they are when the plan is done. */
int repair_plan_apply(struct check *ck, struct err *err);
/* Whether entry i gets a block that is not on disk yet. */
bool repair_block_new(const struct plan *plan, uint64_t i);
/* Writes a new refcount table and a new snapshot table to their unused clusters. */
int repair_write_tables(struct check *ck, struct err *err);
/* Makes the image use what is new. All of it must be durable; so is this on return. */
int repair_switch(struct check *ck, struct err *err);

/* ---- repair_snap.c ---- */
/* Bytes of the snapshot table as it will be written. */
uint64_t repair_snaps_bytes(const struct check *ck);
int repair_write_snaps(struct check *ck, uint64_t off, struct err *err);

/* ---- repair_copied.c ---- */
enum repair_flags { REPAIR_CLEAR_FLAGS, REPAIR_ALL_FLAGS };
/*
 * Mends the COPIED flags of the loaded window that are wrong: those to clear, or all. *fixed:
 * entries that were changed; *left: wrong ones in tables that may not be written to.
 */
int repair_copied(struct check *ck, enum repair_flags which, uint64_t *fixed, uint64_t *left,
		  struct err *err);

#endif
