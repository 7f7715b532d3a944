// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Rewriting the snapshot table: every entry gets the extra data that version 3 demands, and none
 * more than anybody may have written. QEMU docs/interop/qcow2, "Snapshots".
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/repair.h"

#define KNOWN_EXTRA sizeof(struct disk_snapshot_extra)

/* Bytes of extra data that the new entry has. */
static uint64_t new_extra(const struct snap_ref *s)
{
	return max_u64(KNOWN_EXTRA, min_u64(s->extra_len, QCOW2_MAX_SNAP_EXTRA));
}

static uint64_t new_length(const struct snap_ref *s)
{
	return round_up(sizeof(struct disk_snapshot) + new_extra(s) + s->id_len + s->name_len, 8);
}

uint64_t repair_snaps_bytes(const struct check *ck)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < ck->n_snap; i++)
		bytes += new_length(&ck->snap[i]);
	return bytes;
}

/* Fills in the known fields that the old entry did not have. */
static void complete_extra(const struct check *ck, const struct snap_ref *s,
			   const struct disk_snapshot *d, struct disk_snapshot_extra *x)
{
	if (s->extra_len < 8)
		x->vm_state_size = be64_make(be32_get(d->vm_state_size));
	if (s->extra_len < 16)
		x->disk_size = be64_make(ck->h->size);
	if (s->extra_len < 24)
		x->icount = be64_make(UINT64_MAX);
}

/* Builds one entry of new_length(s) bytes in buf, which is zeros. */
static int build_entry(struct check *ck, const struct snap_ref *s, unsigned char *buf,
		       struct err *err)
{
	uint64_t keep = min_u64(s->extra_len, QCOW2_MAX_SNAP_EXTRA), extra = new_extra(s);
	struct disk_snapshot d;
	struct disk_snapshot_extra x;
	int r = io_pread_tail(ck->file, &d, sizeof(d), s->at, err);

	if (r == 0)
		r = io_pread_tail(ck->file, buf + sizeof(d), keep, s->at + sizeof(d), err);
	if (r == 0)
		r = io_pread_tail(ck->file, buf + sizeof(d) + extra,
				  (size_t)s->id_len + s->name_len, s->at + sizeof(d) + s->extra_len,
				  err);
	if (r < 0)
		return r;
	memcpy(&x, buf + sizeof(d), sizeof(x));
	complete_extra(ck, s, &d, &x);
	memcpy(buf + sizeof(d), &x, sizeof(x));
	d.extra_len = be32_make((uint32_t)extra);
	memcpy(buf, &d, sizeof(d));
	return 0;
}

int repair_write_snaps(struct check *ck, uint64_t off, struct err *err)
{
	uint64_t room =
		sizeof(struct disk_snapshot) + QCOW2_MAX_SNAP_EXTRA + UINT64_C(2) * UINT16_MAX + 8;
	CLEANUP_FREE unsigned char *buf = malloc(room);
	int r = 0;

	if (!buf)
		return err_nomem(err, room, "a snapshot");
	for (unsigned i = 0; r == 0 && i < ck->n_snap; i++) {
		uint64_t len = new_length(&ck->snap[i]);

		memset(buf, 0, len);
		r = build_entry(ck, &ck->snap[i], buf, err);
		if (r == 0)
			r = io_pwrite(ck->file, buf, len, off, err);
		off += len;
	}
	return r;
}
