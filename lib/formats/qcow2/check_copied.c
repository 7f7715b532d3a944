// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The COPIED flag of active L1 and L2 entries: set if and only if the refcount is exactly 1.
 *
 * A check compares it with the refcounts on disk; a repair, with what they are going to be.
 */
#include <errno.h>

#include "formats/qcow2/check_impl.h"

/* The refcount on disk: from the map if that is sure of it, else from the block. */
static int stored_count(struct check *ck, uint64_t k, uint64_t *count, struct err *err)
{
	if (!ck->bad_blocks && refmap_has(&ck->stored, k)) {
		*count = refmap_get(&ck->stored, k);
		if (*count < 3)
			return 0;
	}
	return check_stored_exact(ck, k, count, err);
}

int check_final_count(struct check *ck, uint64_t k, uint64_t *count, struct err *err)
{
	uint64_t refs;
	int r = 0;

	if (k >= ck->clusters || !ck->settled)
		return stored_count(ck, k, count, err);
	refs = refmap_get(&ck->refs, k);
	if (ck->settled & CHECK_FIX_ERRORS) {
		*count = refs;
		return 0;
	}
	r = stored_count(ck, k, count, err);
	*count = min_u64(*count, refs);
	return r;
}

int check_copied_wrong(struct check *ck, uint64_t entry, uint64_t k, bool data, bool *wrong,
		       uint64_t *count, struct err *err)
{
	int r = 0;

	*wrong = false;
	*count = 1;
	if (!data || !ck->data_file)
		r = check_final_count(ck, k, count, err);
	if (r == -EIO) /* found and counted elsewhere */
		return 0;
	*wrong = r == 0 && (*count == 1) != !!(entry & ENTRY_COPIED);
	return r;
}

bool check_copied_due(const struct check *ck, uint64_t k)
{
	return ck->check_copied &&
	       (refmap_has(&ck->stored, k) || (k >= ck->span && ck->first_pass));
}

bool check_copied_run_fine(const struct check *ck, bool copied, uint64_t k, uint64_t n)
{
	const struct refmap *map = ck->settled ? &ck->refs : &ck->stored;

	if (!refmap_has(map, k) || !refmap_has(map, k + n - 1) || ck->settled == CHECK_FIX_LEAKS)
		return false;
	return refmap_ones(map, k, n, copied);
}
