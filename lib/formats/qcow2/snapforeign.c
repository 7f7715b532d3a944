// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Snapshots that come from another image: whether they can be here, and where the state of a machine
 * lies. QEMU docs/interop/qcow2, "Snapshots": behind what the tables for the disk cover, the disk
 * being as large as in the snapshot.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/qcow2/build.h"
#include "formats/qcow2/qcow2.h"

static uint64_t state_at(const struct header *h, uint64_t disk_size)
{
	return header_l1_entries(h, disk_size) * header_l1_covers(h);
}

uint64_t qcow2_state_at(const struct img *img, uint64_t disk_size)
{
	return state_at(&((const struct qcow2 *)(const void *)img)->h, disk_size);
}

static int check_foreign(const struct header *h, const struct snapshot *s, struct err *err)
{
	uint64_t max = header_max_size(h), at = state_at(h, s->disk_size);

	if (h->version < 3 && s->disk_size != h->size)
		return err_set(err, ENOTSUP,
			       "Snapshot '%s' has a disk of %" PRIu64 " bytes, not of %" PRIu64
			       ": a version 2 image cannot go back to it (compat=1.1 can)",
			       s->name, s->disk_size, h->size);
	if (s->disk_size > max || (s->vm_state_size && (at > max || s->vm_state_size > max - at)))
		return err_set(err, EFBIG,
			       "Snapshot '%s' is too large: a disk of %" PRIu64
			       " bytes, a state of %" PRIu64 " (try using a larger cluster size)",
			       s->name, s->disk_size, s->vm_state_size);
	return 0;
}

static int check_all_foreign(const struct header *h, const struct snapshot *s, unsigned n,
			     struct err *err)
{
	int r = 0;

	if (n && h->refcount_order == 0)
		return err_set(err, ERANGE,
			       "Refcounts of 1 bit do not permit snapshots (try a larger "
			       "refcount_bits)");
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = check_foreign(h, &s[i], err);
	return r;
}

int qcow2_snapshots_creatable(const struct create_args *args, const struct snapshot *s, unsigned n,
			      struct err *err)
{
	struct qcow2_build_options o = {0};
	int r = qcow2_build_options(args, &o, err);

	if (r == 0)
		r = check_all_foreign(&o.h, s, n, err);
	header_free(&o.h);
	return r;
}

int qcow2_snapshots_acceptable(struct img *img, const struct snapshot *s, unsigned n,
			       struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int r = qcow2_snapshots_possible(q, err);

	return r < 0 ? r : check_all_foreign(&q->h, s, n, err);
}
