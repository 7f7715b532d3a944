// SPDX-License-Identifier: LGPL-2.1-or-later
/* COPIED flags of the active L1 and L2 tables, put right on disk. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/repair.h"

struct fixer {
	struct check *ck;
	bool set;
	uint64_t fixed, left;
	unsigned char *table; /* one L2 table */
};

/* Whether the flag of `entry` is wrong, and this pass is the one that mends it. */
static int due(struct fixer *f, uint64_t entry, uint64_t k, bool data, bool *fix, struct err *err)
{
	uint64_t count;
	int r;

	*fix = false;
	if (!check_copied_due(f->ck, k))
		return 0;
	r = check_copied_wrong(f->ck, entry, k, data, fix, &count, err);
	*fix = *fix && f->set == !(entry & ENTRY_COPIED);
	return r;
}

static int fix_l2(struct fixer *f, uint64_t off, struct err *err)
{
	struct check *ck = f->ck;
	uint64_t changed = 0;
	int r = io_pread_tail(ck->file, f->table, ck->cluster, off, err);

	for (uint64_t i = 0; r == 0 && i < check_l2_entries(ck); i++) {
		be64 *v = (be64 *)(f->table + i * ck->entry_size);
		struct entry e;
		bool fix;

		check_decode(ck, f->table, i, &e);
		if (!e.stored)
			continue;
		r = due(f, e.raw, e.off >> ck->cluster_bits, true, &fix, err);
		if (r < 0 || !fix)
			continue;
		*v = be64_make(e.raw ^ ENTRY_COPIED);
		changed++;
	}
	if (r < 0 || !changed)
		return r;
	if (check_bad_has(&ck->unsafe, off)) {
		f->left += changed;
		return 0;
	}
	f->fixed += changed;
	return io_pwrite(ck->file, f->table, ck->cluster, off, err);
}

static int fix_l1_entry(void *ctx, uint64_t at, uint64_t value, struct err *err)
{
	struct fixer *f = ctx;
	struct check *ck = f->ck;
	uint64_t off = value & ENTRY_OFFSET;
	bool fix;
	int r;

	if (!off)
		return 0;
	r = due(f, value, off >> ck->cluster_bits, false, &fix, err);
	if (r == 0 && fix) {
		be64 v = be64_make(value ^ ENTRY_COPIED);

		if (ck->l1_shared) {
			f->left++;
		} else {
			f->fixed++;
			r = io_pwrite(ck->file, &v, sizeof(v), at, err);
		}
	}
	if (r == 0 && check_bad_has(&ck->bad_copied, off))
		r = fix_l2(f, off, err);
	return r;
}

int repair_copied(struct check *ck, bool set, uint64_t *fixed, uint64_t *left, struct err *err)
{
	CLEANUP_FREE unsigned char *table = malloc(ck->cluster);
	struct fixer f = {.ck = ck, .set = set, .table = table};
	int r;

	if (!table)
		return err_nomem(err, ck->cluster, "an L2 table");
	r = check_each_entry(ck, ck->h->l1_offset, ck->h->l1_size * UINT64_C(8), fix_l1_entry, &f,
			     err);
	*fixed = f.fixed;
	*left = f.left;
	return r;
}
