// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Internal snapshots: create, apply, remove, view. Each runs under the exclusive gate, starts from
 * a quiet image (nothing dirty, nothing parked) and leaves everything durable.
 *
 * Order on disk (I7, I8). Version 3 images carry the dirty bit from before the first step until
 * after the last, so whoever opens one after a crash rebuilds COPIED and refcounts; a version 2
 * image that crashes in between has leaks, or COPIED flags that are missing, which is safe.
 *
 *	create	copy of the L1 table, new snapshot table | clear COPIED in the active tree - flush -
 *		raise the tree's refcounts - flush - header - flush - free the old table - flush
 *	remove	new snapshot table | flush - header - flush - lower the tree's refcounts - flush -
 *		set COPIED where the refcount is 1 again - flush
 *	apply	new L1 table | raise the snapshot tree's refcounts - flush - header - flush -
 *		lower the old active tree's refcounts - flush
 *
 * What stands before the bar may run out of space, and then nothing has changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"

/* The lists of an image's snapshots while they are changed. */
struct list {
	struct snapshot *snap;
	struct qcow2_snapshot *disk;
	unsigned n;
};

static const struct snapshot *snapshots_list(struct img *img, unsigned *n)
{
	struct qcow2 *q = qcow2_of(img);

	*n = q->snap ? q->h.nb_snapshots : 0;
	return q->snap;
}

/* Writes refcounts as they are in memory, durably. */
static int sync_refcounts(struct qcow2 *q, struct err *err)
{
	return qcow2_quiesce(q, err);
}

/* Writes L2 and L1 entries as they are in memory, durably. Nothing new may be allocated. */
static int sync_pointers(struct qcow2 *q, struct err *err)
{
	int r = mcache_write(&q->cache, CLASS_L2, err);

	if (r == 0)
		r = qcow2_write_l1(q, err);
	return r < 0 ? r : qcow2_flush(q, BARRIER_COPIED, err);
}

static int sync_header(struct qcow2 *q, struct err *err)
{
	int r = header_update(q->img.file, &q->h, err);

	return r < 0 ? r : qcow2_flush(q, BARRIER_SNAPSHOTS, err);
}

static void note_all_l1(struct qcow2 *q)
{
	q->l1_dirty = (struct dirty_sectors){0, div_up(q->h.l1_size, 64)};
}

static uint64_t clusters_of(const struct qcow2 *q, uint64_t bytes)
{
	return div_up(bytes, q->cluster);
}

/* Lowers the refcounts of a range that nothing on disk refers to any more. Leaks on failure. */
static int drop_range(struct qcow2 *q, uint64_t host, uint64_t bytes, struct err *err)
{
	int r = 0;

	qcow2_guard_set(q, host, bytes, false);
	for (uint64_t i = 0; r == 0 && i < clusters_of(q, bytes); i++)
		r = qcow2_refcount_add(q, (host >> q->cluster_bits) + i, -1, err);
	return r;
}

int qcow2_snapshots_possible(struct qcow2 *q, struct err *err)
{
	if (!qcow2_has_data_file(q))
		return 0;
	return err_set(err, ENOTSUP,
		       "%s: an image with an external data file cannot have internal snapshots",
		       q->img.io.name);
}

static int start(struct qcow2 *q, struct err *err)
{
	int r;

	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why);
	r = qcow2_snapshots_possible(q, err);
	if (r < 0)
		return r;
	r = q->writing ? 0 : qcow2_begin_write(q, err);
	return r < 0 ? r : qcow2_quiesce(q, err);
}

/* After a failure in the middle nothing may be written: the next open repairs. */
static int end(struct qcow2 *q, int r, struct err *err)
{
	if (r == 0)
		r = qcow2_set_dirty_bit(q, false, err);
	if (r < 0)
		atomic_store(&q->img.broken, r == -EUCLEAN ? EUCLEAN : -r);
	q->writing = false; /* lazy refcounts: the next write sets the dirty bit again */
	return r;
}

int qcow2_snapshot_l1(struct qcow2 *q, const struct qcow2_snapshot *d, uint64_t least, be64 **out,
		      uint32_t *entries, struct err *err)
{
	CLEANUP_FREE be64 *t = NULL;
	uint64_t n = max_u64(d->l1_size, least);
	int r;

	if (n > QCOW2_MAX_L1_BYTES / 8)
		return io_corrupt(q->img.file, err, d->l1_offset,
				  "snapshot L1 table too large: %" PRIu64 " entries", n);
	if (!is_aligned(d->l1_offset, q->cluster) || d->l1_offset >= INT64_MAX)
		return io_corrupt(q->img.file, err, d->l1_offset,
				  "snapshot L1 table offset is not cluster-aligned");
	t = calloc(n ? n : 1, 8);
	if (!t)
		return err_nomem(err, n * 8, "a snapshot's L1 table");
	if (d->l1_size && d->l1_offset >= io_size(q->img.file))
		return io_corrupt(q->img.file, err, d->l1_offset,
				  "snapshot L1 table lies beyond the end of the file");
	r = io_pread_tail(q->img.file, t, (uint64_t)d->l1_size * 8, d->l1_offset, err);
	if (r < 0)
		return r;
	*out = take(t);
	*entries = (uint32_t)n;
	return 0;
}

/* Writes a table to new clusters. On failure nothing is taken. */
static int write_copy(struct qcow2 *q, const void *data, uint64_t bytes, uint64_t *host,
		      struct err *err)
{
	int r;

	*host = 0;
	if (!bytes)
		return 0;
	r = qcow2_alloc_table(q, clusters_of(q, bytes), host, err);
	if (r < 0)
		return r;
	r = io_pwrite(q->img.file, data, bytes, *host, err);
	if (r < 0)
		qcow2_unalloc(q, *host >> q->cluster_bits, clusters_of(q, bytes));
	return r;
}

/* A snapshot table written to new clusters, not known to the header yet. */
struct table {
	uint64_t host, len; /* bytes */
};

static int write_table(struct qcow2 *q, const struct list *list, struct table *t, struct err *err)
{
	CLEANUP_FREE unsigned char *bytes = NULL;
	int r = qcow2_snapshots_encode(list->snap, list->disk, list->n, &bytes, &t->len, err);

	return r < 0 ? r : write_copy(q, bytes, t->len, &t->host, err);
}

/* Takes back what write_copy took. */
static void forget_copy(struct qcow2 *q, uint64_t host, uint64_t bytes)
{
	if (host)
		qcow2_unalloc(q, host >> q->cluster_bits, clusters_of(q, bytes));
}

/*
 * Makes `list`, written at t, the image's snapshots: switches the header, frees the old table. q's
 * own lists are replaced by the caller.
 */
static int switch_table(struct qcow2 *q, const struct list *list, const struct table *t,
			struct err *err)
{
	uint64_t old = q->h.snapshots_offset, old_len = q->snaptable_bytes;
	uint32_t old_n = q->h.nb_snapshots;
	int r = sync_refcounts(q, err); /* also makes the table durable */

	if (r < 0)
		return r;
	q->h.snapshots_offset = t->host;
	q->h.nb_snapshots = list->n;
	r = sync_header(q, err);
	if (r < 0) {
		q->h.snapshots_offset = old;
		q->h.nb_snapshots = old_n;
		return r;
	}
	q->snaptable_bytes = t->len;
	return drop_range(q, old, old_len, err);
}

int qcow2_snapshots_rewrite(struct qcow2 *q, struct err *err)
{
	const struct list list = {q->snap, q->snap_disk, q->h.nb_snapshots};
	struct table t = {0};
	int r = start(q, err);

	if (r == 0)
		r = write_table(q, &list, &t, err);
	if (r < 0)
		return r;
	/* Two tables that say the same: whichever the header names, no flag and no count is wrong. */
	r = switch_table(q, &list, &t, err);
	if (r == 0)
		r = sync_refcounts(q, err);
	return end(q, r, err);
}

/* ---- create ---- */

/* The next id: one more than the largest number in use, as the peer. */
static char *next_id(const struct qcow2 *q)
{
	unsigned long max = 0;
	char text[32];

	for (unsigned i = 0; i < q->h.nb_snapshots; i++) {
		unsigned long id = strtoul(q->snap[i].id, NULL, 10);

		max = id > max ? id : max;
	}
	snprintf(text, sizeof(text), "%lu", max + 1);
	return strdup(text);
}

/* A list with room for one more, whose strings are still q's. */
static int copy_list(const struct qcow2 *q, struct list *list, struct err *err)
{
	list->n = q->h.nb_snapshots;
	list->snap = calloc(list->n + 1, sizeof(*list->snap));
	list->disk = calloc(list->n + 1, sizeof(*list->disk));
	if (!list->snap || !list->disk) {
		free(list->snap);
		free(list->disk);
		return err_nomem(err, (list->n + 1) * sizeof(*list->snap), "the snapshot list");
	}
	if (list->n) {
		memcpy(list->snap, q->snap, list->n * sizeof(*list->snap));
		memcpy(list->disk, q->snap_disk, list->n * sizeof(*list->disk));
	}
	return 0;
}

static void adopt_list(struct qcow2 *q, const struct list *list)
{
	free(q->snap);
	free(q->snap_disk);
	q->snap = list->snap;
	q->snap_disk = list->disk;
}

static int describe(struct qcow2 *q, const char *name, const struct snapshot *meta,
		    struct snapshot *s, struct err *err)
{
	bool foreign = meta && meta->id;

	if (meta)
		*s = *meta;
	s->id = foreign ? strdup(meta->id) : next_id(q);
	s->name = strdup(name);
	if (!meta)
		s->icount = UINT64_MAX;
	if (!foreign) {
		s->disk_size = q->h.size;
		s->vm_state_size = 0;
	}
	return s->id && s->name ? 0 : err_nomem(err, strlen(name), "a snapshot");
}

/* The steps of create that run under the dirty bit. */
static int create_steps(struct qcow2 *q, const struct list *list, const struct table *t,
			struct err *err)
{
	int r = qcow2_set_dirty_bit(q, true, err);

	if (r == 0)
		r = qcow2_tree_copied(q, q->l1, q->h.l1_size, true, err);
	note_all_l1(q);
	if (r == 0)
		r = sync_pointers(q, err);
	if (r == 0)
		r = qcow2_tree_refcounts(q, q->l1, q->h.l1_size, +1, err);
	if (r == 0)
		r = switch_table(q, list, t, err);
	if (r == 0)
		r = sync_refcounts(q, err);
	return end(q, r, err);
}

/* Entries that are worth keeping: behind the disk there may be room for a state, without one. */
static uint32_t used_l1(const struct qcow2 *q)
{
	uint64_t least = max_u64(header_l1_entries(&q->h, io_size(&q->img.io)), 1);
	uint32_t n = q->h.l1_size;

	while (n > least && !be64_get(q->l1[n - 1]))
		n--;
	return n;
}

/* The copy of the L1 table that the snapshot keeps: no entry is COPIED. */
static int copy_l1(struct qcow2 *q, struct qcow2_snapshot *d, struct err *err)
{
	uint32_t n = used_l1(q);
	CLEANUP_FREE be64 *copy = calloc(n ? n : 1, 8);

	if (!copy)
		return err_nomem(err, (uint64_t)n * 8, "the L1 table");
	for (uint32_t i = 0; i < n; i++)
		copy[i] = be64_make(be64_get(q->l1[i]) & ~ENTRY_COPIED);
	d->l1_size = n;
	return write_copy(q, copy, (uint64_t)d->l1_size * 8, &d->l1_offset, err);
}

/* Everything that may run out of space comes first: after it the image is as it was. */
static int create_listed(struct qcow2 *q, struct list *list, struct err *err)
{
	struct qcow2_snapshot *d = &list->disk[list->n - 1];
	struct table t = {0};
	int r = copy_l1(q, d, err);

	if (r < 0)
		return r;
	r = write_table(q, list, &t, err);
	if (r < 0) {
		forget_copy(q, d->l1_offset, (uint64_t)d->l1_size * 8);
		return r;
	}
	return create_steps(q, list, &t, err);
}

static int snapshot_create(struct img *img, const char *name, const struct snapshot *meta,
			   struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct list list;
	int r;

	if (strlen(name) > UINT16_MAX)
		return err_set(err, ENAMETOOLONG, "%s: snapshot name too long", img->io.name);
	if (q->h.nb_snapshots >= QCOW2_MAX_SNAPSHOTS)
		return err_set(err, EFBIG, "%s: no more than %d snapshots are possible",
			       img->io.name, QCOW2_MAX_SNAPSHOTS);
	r = start(q, err);
	if (r == 0)
		r = qcow2_tree_check(q, q->l1, q->h.l1_size, +1, err);
	if (r == 0)
		r = copy_list(q, &list, err);
	if (r)
		return r;
	r = describe(q, name, meta, &list.snap[list.n++], err);
	if (r == 0)
		r = create_listed(q, &list, err);
	if (q->h.nb_snapshots == list.n) { /* the header was switched: this is the list now */
		adopt_list(q, &list);
	} else {
		qcow2_snapshot_free_one(&list.snap[list.n - 1], &list.disk[list.n - 1]);
		free(list.snap);
		free(list.disk);
	}
	return r < 0 ? err_ctx(err, r, "Could not create snapshot '%s'", name) : 0;
}

/* ---- remove ---- */

static int remove_steps(struct qcow2 *q, const struct list *list, const struct qcow2_snapshot *gone,
			const be64 *l1, uint32_t n, struct err *err)
{
	struct table t = {0};
	int r = write_table(q, list, &t, err);

	if (r < 0)
		return r;
	r = qcow2_set_dirty_bit(q, true, err);
	if (r == 0)
		r = switch_table(q, list, &t, err);
	if (r == 0)
		r = qcow2_tree_refcounts(q, l1, n, -1, err);
	if (r == 0)
		r = drop_range(q, gone->l1_offset, (uint64_t)gone->l1_size * 8, err);
	if (r == 0)
		r = sync_refcounts(q, err);
	if (r == 0)
		r = qcow2_tree_copied(q, q->l1, q->h.l1_size, false, err);
	note_all_l1(q);
	if (r == 0)
		r = sync_pointers(q, err);
	return end(q, r, err);
}

static bool shares(const struct qcow2_snapshot *d, uint64_t off, uint64_t bytes)
{
	return d->l1_size && bytes && overlaps(d->l1_offset, (uint64_t)d->l1_size * 8, off, bytes);
}

/*
 * The L1 table of the snapshot is about to be given back: nothing else may be in its clusters. In a
 * sane image nothing is.
 */
static int check_own(struct qcow2 *q, unsigned index, struct err *err)
{
	const struct qcow2_snapshot *d = &q->snap_disk[index];
	bool shared = shares(d, 0, q->cluster) ||
		      shares(d, q->h.l1_offset, (uint64_t)q->h.l1_size * 8) ||
		      shares(d, q->h.reftable_offset, q->reftable_entries * 8) ||
		      shares(d, q->h.snapshots_offset, q->snaptable_bytes);

	for (uint64_t i = 0; !shared && i < q->h.l1_size; i++)
		shared = shares(d, be64_get(q->l1[i]) & ENTRY_OFFSET, q->cluster);
	for (uint64_t i = 0; !shared && i < q->reftable_entries; i++)
		shared = shares(d, be64_get(q->reftable[i]) & REFTABLE_OFFSET, q->cluster);
	for (unsigned i = 0; !shared && i < q->h.nb_snapshots; i++)
		shared = i != index && shares(d, q->snap_disk[i].l1_offset,
					      (uint64_t)q->snap_disk[i].l1_size * 8);
	if (!shared)
		return 0;
	return io_corrupt(q->img.file, err, d->l1_offset,
			  "the L1 table of snapshot '%s' overlaps other metadata",
			  q->snap[index].name);
}

static int snapshot_remove(struct img *img, unsigned index, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	CLEANUP_FREE be64 *l1 = NULL;
	struct qcow2_snapshot gone_disk;
	struct snapshot gone;
	struct list list;
	uint32_t n;
	int r = start(q, err);

	if (r == 0)
		r = qcow2_snapshot_l1(q, &q->snap_disk[index], 0, &l1, &n, err);
	if (r == 0)
		r = check_own(q, index, err);
	if (r == 0)
		r = qcow2_tree_check(q, l1, n, -1, err);
	if (r == 0)
		r = copy_list(q, &list, err);
	if (r)
		return r;
	gone = list.snap[index];
	gone_disk = list.disk[index];
	list.n--;
	memmove(&list.snap[index], &list.snap[index + 1], (list.n - index) * sizeof(*list.snap));
	memmove(&list.disk[index], &list.disk[index + 1], (list.n - index) * sizeof(*list.disk));
	r = remove_steps(q, &list, &gone_disk, l1, n, err);
	if (q->h.nb_snapshots == list.n) { /* the header was switched: this is the list now */
		adopt_list(q, &list);
		qcow2_snapshot_free_one(&gone, &gone_disk);
		return r;
	}
	free(list.snap);
	free(list.disk);
	return r;
}

/* ---- apply ---- */

/* What apply changes in the header, in one sector. */
struct active {
	be64 *l1;
	uint64_t offset, size;
	uint32_t entries;
};

static int switch_active(struct qcow2 *q, struct active *new, struct active *old, struct err *err)
{
	int r;

	*old = (struct active){q->l1, q->h.l1_offset, q->h.size, q->h.l1_size};
	q->h.l1_offset = new->offset;
	q->h.l1_size = new->entries;
	q->h.size = new->size;
	r = sync_header(q, err);
	if (r < 0) {
		q->h.l1_offset = old->offset;
		q->h.l1_size = old->entries;
		q->h.size = old->size;
		return r;
	}
	q->l1 = new->l1;
	q->img.io.size = new->size;
	q->l1_dirty = (struct dirty_sectors){0};
	return 0;
}

static int apply_steps(struct qcow2 *q, struct active *new, struct err *err)
{
	struct active old = {0};
	int r;

	for (uint32_t i = 0; i < new->entries; i++)
		new->l1[i] = be64_make(be64_get(new->l1[i]) & ~ENTRY_COPIED);
	r = write_copy(q, new->l1, (uint64_t) new->entries * 8, &new->offset, err);
	if (r < 0)
		return r;
	r = qcow2_set_dirty_bit(q, true, err);
	/* Entries of other tools may carry COPIED in a snapshot's tables; ours never do. */
	if (r == 0)
		r = qcow2_tree_copied(q, new->l1, new->entries, true, err);
	if (r == 0)
		r = mcache_write(&q->cache, CLASS_L2, err);
	if (r == 0)
		r = qcow2_flush(q, BARRIER_COPIED, err);
	if (r == 0)
		r = qcow2_tree_refcounts(q, new->l1, new->entries, +1, err);
	if (r == 0)
		r = sync_refcounts(q, err);
	if (r == 0)
		r = switch_active(q, new, &old, err);
	if (r < 0)
		return end(q, r, err);
	r = qcow2_tree_refcounts(q, old.l1, old.entries, -1, err);
	if (r == 0)
		r = drop_range(q, old.offset, (uint64_t)old.entries * 8, err);
	if (r == 0)
		r = sync_refcounts(q, err);
	for (uint32_t i = 0; i < new->entries; i++)
		if (be64_get(new->l1[i]) & ENTRY_OFFSET)
			qcow2_guard_set(q, be64_get(new->l1[i]) & ENTRY_OFFSET, q->cluster, true);
	free(old.l1);
	new->l1 = NULL; /* q's now */
	return end(q, r, err);
}

static int snapshot_apply(struct img *img, unsigned index, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct active new = {.size = q->snap[index].disk_size};
	uint64_t need;
	int r = start(q, err);

	if (r < 0)
		return r;
	/* They say what was written to the disk as it is now. */
	if (q->bitmaps->dir.n)
		return err_set(err, EBUSY, "Device has active dirty bitmaps");
	if (new.size > header_max_size(&q->h))
		return io_corrupt(img->file, err, q->h.snapshots_offset,
				  "snapshot '%s' has a disk of %" PRIu64 " bytes",
				  q->snap[index].name, new.size);
	if (q->h.version < 3 && new.size != q->h.size)
		return err_set(err, ENOTSUP,
			       "%s: the disk had another size, which a version 2 image cannot undo",
			       img->io.name);
	need = header_l1_entries(&q->h, new.size);
	r = qcow2_snapshot_l1(q, &q->snap_disk[index], need, &new.l1, &new.entries, err);
	if (r == 0)
		r = qcow2_tree_check(q, new.l1, new.entries, +1, err);
	if (r == 0)
		r = qcow2_tree_check(q, q->l1, q->h.l1_size, -1, err);
	if (r == 0)
		r = apply_steps(q, &new, err);
	free(new.l1);
	return r;
}

/* ---- view ---- */

static int snapshot_view(struct img *img, unsigned index, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size = q->snap[index].disk_size;
	be64 *l1;
	uint32_t n;
	int r = qcow2_snapshots_possible(q, err);

	if (r < 0)
		return r;
	if (size > header_max_size(&q->h))
		return io_corrupt(img->file, err, q->h.snapshots_offset,
				  "snapshot '%s' has a disk of %" PRIu64 " bytes",
				  q->snap[index].name, size);
	r = qcow2_snapshot_l1(q, &q->snap_disk[index], header_l1_entries(&q->h, size), &l1, &n,
			      err);
	if (r < 0)
		return r;
	free(q->l1);
	q->l1 = l1;
	q->h.l1_size = n;
	img->io.size = size;
	q->h.size = size;
	return 0;
}

const struct snapshot_ops qcow2_snapshot_ops = {
	.list = snapshots_list,
	.create = snapshot_create,
	.apply = snapshot_apply,
	.remove = snapshot_remove,
	.view = snapshot_view,
	.creatable = qcow2_snapshots_creatable,
	.acceptable = qcow2_snapshots_acceptable,
	.state_at = qcow2_state_at,
	.reach = qcow2_reach,
};
