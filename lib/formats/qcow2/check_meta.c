// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What a qcow2 file holds beside tables and refcounts: the snapshot table, bitmaps, and the header
 * of the encryption. QEMU docs/interop/qcow2, "Snapshots", "Bitmaps", "Full disk encryption header
 * pointer".
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/check_impl.h"

/* ---- snapshot table ---- */

/* Appends ck->snap[i], which starts at `at`; *end is where the next one may start. */
static int read_snapshot(struct check *ck, uint64_t at, uint64_t *end, struct err *err)
{
	struct snap_ref *s = &ck->snap[ck->n_snap];
	struct disk_snapshot d;
	int r = io_pread_tail(ck->file, &d, sizeof(d), at, err);

	if (r < 0)
		return r;
	*s = (struct snap_ref){
		.at = at,
		.l1_offset = be64_get(d.l1_table_offset),
		.l1_size = be32_get(d.l1_size),
		.extra_len = be32_get(d.extra_len),
		.id_len = be16_get(d.id_len),
		.name_len = be16_get(d.name_len),
	};
	*end = at + sizeof(d) + s->extra_len + s->id_len + s->name_len;
	return 0;
}

/* An entry with more extra data than anybody may have written: the repair cuts it. */
static int check_extra(struct check *ck, const struct snap_ref *s, unsigned i, struct err *err)
{
	if (s->extra_len <= QCOW2_MAX_SNAP_EXTRA)
		return 0;
	if (!(ck->fix & CHECK_FIX_ERRORS)) {
		ck->sum.check_errors++;
		check_report(ck, F_SNAPSHOT,
			     "ERROR failed to read the snapshot table: "
			     "Too much extra metadata in snapshot table entry %u",
			     i);
		check_report(ck, F_SNAPSHOT,
			     "You can force-remove this extra metadata with "
			     "img check -r all");
		return err_set(err, EFBIG,
			       "%s: at offset %" PRIu64 ": snapshot with %" PRIu32
			       " bytes of extra data (repair all to cut it)",
			       ck->file->name, s->at, s->extra_len);
	}
	check_report(ck, F_SNAPSHOT,
		     "Discarding too much extra metadata in snapshot table entry "
		     "%u (%" PRIu32 " > %u)",
		     i, s->extra_len, QCOW2_MAX_SNAP_EXTRA);
	ck->snap_cut++;
	return 0;
}

static int table_too_big(struct check *ck, unsigned left, struct err *err)
{
	if (!(ck->fix & CHECK_FIX_ERRORS)) {
		ck->sum.check_errors++;
		check_report(ck, F_SNAPSHOT,
			     "ERROR failed to read the snapshot table: "
			     "Snapshot table is too big");
		check_report(ck, F_SNAPSHOT,
			     "You can force-remove all %u overhanging snapshots "
			     "with img check -r all",
			     left);
		return err_set(err, EFBIG,
			       "%s: at offset %" PRIu64 ": snapshot table too large (repair all "
			       "to drop the last %u snapshots)",
			       ck->file->name, ck->h->snapshots_offset, left);
	}
	check_report(ck, F_SNAPSHOT,
		     "Discarding %u overhanging snapshots (snapshot table is too "
		     "big)",
		     left);
	ck->snap_dropped += left;
	return 0;
}

static int read_snapshots(struct check *ck, struct err *err)
{
	uint64_t start = ck->h->snapshots_offset, at = start, kept = 0, end;

	for (unsigned i = 0; i < ck->h->nb_snapshots; i++) {
		const struct snap_ref *s = &ck->snap[i];
		int r;

		r = read_snapshot(ck, round_up(at, 8), &end, err);
		if (r == 0)
			r = check_extra(ck, s, i, err);
		if (r < 0)
			return r;
		kept = round_up(kept, 8) + sizeof(struct disk_snapshot) + s->id_len + s->name_len +
		       min_u64(s->extra_len, QCOW2_MAX_SNAP_EXTRA);
		if (kept > QCOW2_MAX_SNAPTABLE || end - start > INT_MAX) {
			r = table_too_big(ck, ck->h->nb_snapshots - i, err);
			if (r < 0)
				return r;
			break;
		}
		ck->n_snap++;
		at = end;
	}
	ck->snap_bytes = at - start;
	return 0;
}

static int check_snapshots(struct check *ck, struct err *err)
{
	int r;

	if (!ck->h->nb_snapshots)
		return 0;
	ck->snap = calloc(ck->h->nb_snapshots, sizeof(*ck->snap));
	if (!ck->snap)
		return err_nomem(err, ck->h->nb_snapshots * sizeof(*ck->snap), "snapshots");
	r = read_snapshots(ck, err);
	for (unsigned i = 0; r == 0 && i < ck->n_snap && ck->h->version >= 3; i++) {
		if (ck->snap[i].extra_len >= offsetof(struct disk_snapshot_extra, icount))
			continue;
		ck->snap_incomplete++;
		ck->sum.corruptions += !(ck->fix & CHECK_FIX_ERRORS);
		check_report(ck, F_SNAPSHOT, "%s snapshot table entry %u is incomplete",
			     ck->fix & CHECK_FIX_ERRORS ? "Repairing" : "ERROR", i);
	}
	return r;
}

bool check_snap_usable(const struct check *ck, const struct snap_ref *s)
{
	return is_aligned(s->l1_offset, ck->cluster) && s->l1_size <= QCOW2_MAX_L1_BYTES / 8;
}

void check_report_snapshot(struct check *ck, const struct snap_ref *s)
{
	char id[64] = "", name[256] = "";
	uint64_t at = s->at + sizeof(struct disk_snapshot) + s->extra_len;

	if (io_pread_tail(ck->file, id, min_u64(s->id_len, sizeof(id) - 1), at, NULL) < 0 ||
	    io_pread_tail(ck->file, name, min_u64(s->name_len, sizeof(name) - 1), at + s->id_len,
			  NULL) < 0)
		return;
	if (!is_aligned(s->l1_offset, ck->cluster))
		check_report(ck, F_SNAPSHOT,
			     "ERROR snapshot %s (%s) l1_offset=%#" PRIx64
			     ": L1 table is not cluster aligned; snapshot table entry corrupted",
			     id, name, s->l1_offset);
	else
		check_report(ck, F_SNAPSHOT,
			     "ERROR snapshot %s (%s) l1_size=%#" PRIx32
			     ": L1 table is too large; snapshot table entry corrupted",
			     id, name, s->l1_size);
}

/* ---- bitmaps ---- */

/* A bitmap that nobody can use, and anybody remove. */
static void bad_bitmap(struct check *ck, const char *what, uint64_t at)
{
	ck->sum.corruptions++;
	check_report(ck, F_BITMAP, "ERROR bitmap directory at offset %" PRIu64 ": %s", at, what);
}

/* Nobody can read the directory, nor, without it, write to the image: the repair drops it. */
static void bad_directory(struct check *ck, const char *what, uint64_t at)
{
	ck->drop_bitmaps = (ck->fix & CHECK_FIX_ERRORS) && (ck->fix & CHECK_DROP_BITMAPS);
	if (!ck->drop_bitmaps) {
		bad_bitmap(ck, what, at);
		return;
	}
	check_report(ck, F_BITMAP,
		     "Dropping all bitmaps, bitmap directory at offset %" PRIu64 ": %s", at, what);
	ck->bitmaps = (struct bitmap_dir){0};
	ck->bitmap_tables.n = 0;
}

/* Reads entry *at, notes its table and name, and moves *at to the next one. */
static int read_bitmap(struct check *ck, uint64_t *at, char **name, const char **fault,
		       struct err *err)
{
	struct bitmap_entry e = {0};
	uint64_t here = *at;
	int r = bitmaps_next(ck->file, ck->h, &ck->bitmaps, at, &e, fault, err);

	if (r < 0 || *fault)
		return r;
	if (check_refs_push(&ck->bitmap_tables, e.table_offset, e.table_size * UINT64_C(8), 0) < 0)
		return err_nomem(err, ck->bitmaps.n * sizeof(struct table_ref), "bitmaps");
	/* In use it may be of another size: a resize that was cut off. */
	if (!(e.flags & BITMAP_IN_USE) &&
	    e.table_size != bitmap_entries(ck->h->size, e.granularity_bits, ck->cluster))
		bad_bitmap(ck, "the table of a bitmap does not fit the disk", here);
	return bitmaps_read_name(ck->file, &e, name, fault, err);
}

/* Collects the tables of all bitmaps; stops at the first entry that makes no sense. */
static int read_directory(struct check *ck, char **names, struct err *err)
{
	uint64_t at = ck->bitmaps.off, here = at;
	const char *fault = NULL;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < ck->bitmaps.n && !fault; i++) {
		here = at;
		r = read_bitmap(ck, &at, &names[i], &fault, err);
	}
	if (r < 0)
		return r;
	if (!fault && at != ck->bitmaps.off + ck->bitmaps.bytes)
		fault = "more bitmaps than the header says";
	if (!fault)
		r = bitmaps_check_names(names, ck->bitmaps.n, &fault, err);
	if (r == 0 && fault)
		bad_directory(ck, fault, here);
	return r;
}

static int read_bitmaps(struct check *ck, struct err *err)
{
	const char *fault = bitmaps_find(ck->h, &ck->bitmaps);
	char **names;
	uint32_t n;
	int r;

	if (fault)
		bad_directory(ck, fault, ck->bitmaps.off);
	n = ck->bitmaps.n;
	if (!n)
		return 0;
	names = calloc(n, sizeof(*names));
	if (!names)
		return err_nomem(err, n * sizeof(*names), "bitmaps");
	r = read_directory(ck, names, err);
	for (uint32_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return r;
}

static void find_crypto(struct check *ck, const struct header_ext *x)
{
	be64 off, len;

	if (x->len != 16)
		return;
	memcpy(&off, x->data, sizeof(off));
	memcpy(&len, x->data + 8, sizeof(len));
	ck->crypto_offset = be64_get(off);
	ck->crypto_length = be64_get(len);
}

int check_read_meta(struct check *ck, struct err *err)
{
	int r = check_snapshots(ck, err);

	for (unsigned i = 0; r == 0 && i < ck->h->n_ext; i++) {
		const struct header_ext *x = &ck->h->ext[i];

		if (x->type == EXT_TYPE_CRYPTO)
			find_crypto(ck, x);
	}
	return r < 0 ? r : read_bitmaps(ck, err);
}

/* ---- counting ---- */

void check_report_region(struct check *ck, uint64_t off, uint64_t bytes)
{
	check_report(ck, F_REGION,
		     "ERROR: counting reference for region exceeding the end of the "
		     "file by one cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
		     off, bytes);
}

/* A piece of metadata: counts it, or says that it is not in the file. */
static int count_piece(struct check *ck, uint64_t off, uint64_t bytes, struct err *err)
{
	if (!bytes || !check_table_outside(ck, off, bytes))
		return check_add_region(ck, off, bytes, 1, err);
	if (off != ck->h->snapshots_offset || !ck->snap_cut) /* that is written anew */
		check_note_outside(ck, &ck->tally, off);
	if (ck->first_pass) {
		ck->sum.corruptions++;
		check_report_region(ck, off, bytes);
	}
	return 0;
}

static int bitmap_entry(void *ctx, uint64_t at, uint64_t value, struct err *err)
{
	struct stretch *p = ctx;
	struct check *ck = p->ck;
	uint64_t off = value & ENTRY_OFFSET;

	if ((value & BITMAP_TABLE_RESERVED) || !is_aligned(off, ck->cluster) ||
	    (off && (value & BITMAP_ALL_ONES))) {
		if (ck->first_pass) {
			ck->sum.corruptions += p->total;
			check_report(ck, F_BITMAP,
				     "ERROR bitmap table entry at offset %" PRIu64
				     " is invalid: %" PRIx64,
				     at, value);
		}
		return 0;
	}
	if (!off)
		return 0;
	if (!check_outside(ck, off, ck->cluster))
		return check_add_region(ck, off, ck->cluster, p->total, err);
	check_note_outside(ck, &ck->tally, off);
	if (ck->first_pass) {
		ck->sum.corruptions += p->total;
		check_report_region(ck, off, ck->cluster);
	}
	return 0;
}

static int bitmap_stretch(void *ctx, uint64_t off, uint64_t bytes, uint64_t active, uint64_t total,
			  struct err *err)
{
	struct stretch p = {ctx, active, total};

	return check_each_entry(ctx, off, bytes, bitmap_entry, &p, err);
}

static int count_bitmaps(struct check *ck, struct err *err)
{
	struct table_refs clusters = {0};
	int r = count_piece(ck, ck->bitmaps.off, ck->bitmaps.bytes, err);

	for (size_t i = 0; r == 0 && i < ck->bitmap_tables.n; i++) {
		const struct table_ref *t = &ck->bitmap_tables.v[i];

		if (check_table_outside(ck, t->off, t->bytes))
			r = count_piece(ck, t->off, t->bytes, err);
		else if (check_refs_push(&clusters, t->off, round_up(t->bytes, ck->cluster), 0) < 0)
			r = err_nomem(err, ck->bitmaps.n * sizeof(*t), "bitmaps");
	}
	if (r == 0)
		r = check_sweep(&clusters, check_stretch_clusters, ck, err);
	free(clusters.v);
	return r < 0 ? r : check_sweep(&ck->bitmap_tables, bitmap_stretch, ck, err);
}

int check_count_meta(struct check *ck, struct err *err)
{
	struct header *h = ck->h;
	int r = count_piece(ck, h->snapshots_offset, ck->snap_bytes, err);

	if (r == 0)
		r = count_piece(ck, h->reftable_offset, ck->reftable_entries * 8, err);
	if (r == 0)
		r = count_piece(ck, ck->crypto_offset, ck->crypto_length, err);
	if (r == 0 && ck->bitmaps.n)
		r = count_bitmaps(ck, err);
	return r;
}
