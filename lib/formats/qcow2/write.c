// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * qcow2's part of the allocation protocol (image/write.c), and zero and discard. Everything here
 * changes memory only, except that a new L2 table is written whole before anything points to it.
 */
#include "formats/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"

static be64 *entries_of(struct mslice *s)
{
	return (be64 *)(void *)s->data;
}

/* Content for a new table: a copy of the old one, or empty. */
static int write_new_table(struct qcow2 *q, uint64_t old, uint64_t host, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = calloc(1, q->cluster);
	int r = 0;

	if (!buf)
		return err_nomem(err, q->cluster, "an L2 table");
	/* Slice by slice through the cache: the old table may be dirty in memory. */
	for (uint64_t at = 0; old && r == 0 && at < q->cluster; at += q->cache.slice) {
		struct mslice *s;

		r = mcache_get(&q->cache, old + at, "L2 table", &s, err);
		if (r == 0)
			memcpy(buf + at, s->data, q->cache.slice);
	}
	return r < 0 ? r : io_pwrite(q->img.file, buf, q->cluster, host, err);
}

/* Makes sure that guest offset `off` has an L2 table of its own (refcount 1), and where it is. */
static int own_l2(struct qcow2 *q, uint64_t off, uint64_t *l2, struct err *err)
{
	uint64_t i = off >> (q->l2_bits + q->cluster_bits), old;
	int r = qcow2_l2_offset(q, i, &old, err);

	if (r < 0)
		return r;
	*l2 = old;
	if (old && (be64_get(q->l1[i]) & ENTRY_COPIED))
		return 0;
	r = qcow2_alloc_table(q, 1, l2, err);
	if (r < 0)
		return r;
	r = write_new_table(q, old, *l2, err);
	if (r < 0) {
		qcow2_unalloc(q, *l2 >> q->cluster_bits, 1);
		return r;
	}
	qcow2_set_l1(q, i, *l2 | ENTRY_COPIED);
	if (old)
		qcow2_park(q, old >> q->cluster_bits, 1);
	return 0;
}

static int begin(struct qcow2 *q, struct err *err)
{
	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why);
	return q->writing ? 0 : qcow2_begin_write(q, err);
}

/* Entries from i on that are plain data of our own at neighbouring host offsets. */
static unsigned own_run(const struct qcow2 *q, const be64 *table, unsigned i, unsigned end)
{
	uint64_t first = be64_get(table[i]);
	unsigned n = 0;

	if (qcow2_l2_type(q, first) != L2_NORMAL || !(first & ENTRY_COPIED))
		return 0;
	while (i + n < end && be64_get(table[i + n]) == first + ((uint64_t)n << q->cluster_bits))
		n++;
	return n;
}

/* Entries from i on that need new space: neither data nor zeroed space of our own. */
static unsigned new_run(const struct qcow2 *q, const be64 *table, unsigned i, unsigned end)
{
	unsigned n = 0;

	for (; i + n < end; n++) {
		uint64_t entry = be64_get(table[i + n]);
		enum l2_type type = qcow2_l2_type(q, entry);

		if ((type == L2_NORMAL || type == L2_ZERO_ALLOC) && (entry & ENTRY_COPIED))
			break;
	}
	return n;
}

/* Fills p for `n` whole clusters of new or reused space that begins with off's cluster. */
static void place_fresh(struct qcow2 *q, struct placement *p, uint64_t host, uint64_t n)
{
	uint64_t end;

	p->fresh = true;
	p->host = host;
	p->start = round_down(p->off, q->cluster);
	p->span = n << q->cluster_bits;
	end = min_u64(p->start + p->span, p->off + p->len);
	p->len = end - p->off;
}

/* Whether what entries i … i+n-1 refer to may be written to or given back. */
static int guard_run(struct qcow2 *q, const struct mslice *s, unsigned i, unsigned n,
		     struct err *err)
{
	int r = 0;

	for (unsigned end = i + n; r == 0 && i < end; i++)
		r = qcow2_guard_entry(q, be64_get(((const be64 *)(const void *)s->data)[i]),
				      s->host + (uint64_t)i * 8, err);
	return r;
}

/*
 * A place past the end of the file that an entry calls its own: only if its clusters are in use.
 * Otherwise a damaged entry would make a file of any length. The slice may be gone afterwards.
 */
static int check_beyond(struct qcow2 *q, uint64_t host, uint64_t len, uint64_t at, struct err *err)
{
	uint64_t c = max_u64(host, round_up(io_size(q->img.file), q->cluster)) >> q->cluster_bits;
	uint64_t end = div_up(host + len, q->cluster), count;

	for (; c < end; c++) {
		int r = qcow2_refcount_get(q, c, &count, err);

		if (r < 0)
			return r;
		if (!count)
			return qcow2_mark_corrupt(q, at, err,
						  "L2 entry points to unused space beyond the end "
						  "of the file");
	}
	return 0;
}

/* The place is known. n: clusters that are to be made; own: that are there. */
static int place_in_data_file(struct qcow2 *q, struct placement *p, unsigned own, unsigned n,
			      uint64_t entry, uint64_t at, struct err *err)
{
	uint64_t start = round_down(p->off, q->cluster);
	int r = 0;

	if (qcow2_l2_type(q, entry) == L2_NORMAL || qcow2_l2_type(q, entry) == L2_ZERO_ALLOC)
		r = qcow2_data_check(q, entry & ENTRY_OFFSET, start, at, err);
	if (r < 0)
		return r;
	if (own) {
		p->host = p->off;
		p->len = min_u64(p->len, start + ((uint64_t)own << q->cluster_bits) - p->off);
		return 0;
	}
	p->zeroed = qcow2_data_fresh(q, start);
	place_fresh(q, p, start, n);
	return 0;
}

static int place_in_slice(struct qcow2 *q, struct mslice *s, struct placement *p, struct err *err)
{
	unsigned i = qcow2_slice_index(q, p->off), end, own, fresh;
	uint64_t in_cluster = p->off & (q->cluster - 1), entry, first, got;
	uint64_t at = s->host + (uint64_t)i * 8;
	be64 *table = entries_of(s);
	int r;

	end = (unsigned)min_u64(qcow2_slice_entries(q),
				i + div_up(in_cluster + p->len, q->cluster));
	entry = be64_get(table[i]);
	own = own_run(q, table, i, end);
	fresh = own ? 0 : new_run(q, table, i, end);
	r = guard_run(q, s, i, own ? own : fresh ? fresh : 1, err);
	if (r < 0)
		return r;
	if (qcow2_has_data_file(q))
		return place_in_data_file(q, p, own, own || !fresh ? 1 : fresh, entry, at, err);
	if (own) {
		p->host = (entry & ENTRY_OFFSET) + in_cluster;
		p->len = min_u64(p->len, ((uint64_t)own << q->cluster_bits) - in_cluster);
		return check_beyond(q, p->host, p->len, at, err);
	}
	if (!fresh) { /* zeroed space of our own: one cluster at a time */
		place_fresh(q, p, entry & ENTRY_OFFSET, 1);
		p->reuse = true;
		return check_beyond(q, p->host, q->cluster, at, err);
	}
	r = qcow2_alloc(q, fresh, &first, &got, &p->zeroed, err);
	if (r == 0)
		place_fresh(q, p, first << q->cluster_bits, got);
	return r;
}

int qcow2_place(struct img *img, uint64_t off, uint64_t len, struct placement *p, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct mslice *s;
	uint64_t l2;
	int r = begin(q, err);

	*p = (struct placement){.off = off, .len = len};
	if (r == 0)
		r = own_l2(q, off, &l2, err);
	if (r == 0)
		r = qcow2_l2_slice(q, l2, off, &s, err);
	return r ? r : place_in_slice(q, s, p, err);
}

int qcow2_place_coded(struct img *img, uint64_t off, size_t len, struct placement *p,
		      struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t l2;
	int r = begin(q, err);

	*p = (struct placement){
		.off = off,
		.len = q->cluster,
		.fresh = true,
		.start = off,
		.span = q->cluster,
		.coded = len,
	};
	if (r == 0 && qcow2_has_data_file(q))
		r = err_set(err, ENOTSUP, "%s: an external data file holds no compressed clusters",
			    img->io.name);
	if (r == 0)
		r = own_l2(q, off, &l2, err);
	return r < 0 ? r : qcow2_alloc_bytes(q, len, &p->host, err);
}

/* What entry k of a placement becomes. */
static uint64_t placed_entry(const struct qcow2 *q, const struct placement *p, uint64_t k)
{
	if (p->coded)
		return coded_entry(p->host, p->coded, q->cluster_bits);
	return (p->host + (k << q->cluster_bits)) | ENTRY_COPIED;
}

int qcow2_link(struct img *img, const struct placement *p, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t n = p->span >> q->cluster_bits, l2;
	unsigned i = qcow2_slice_index(q, p->start);
	struct mslice *s;
	int r = own_l2(q, p->start, &l2, err);

	if (r == 0)
		r = qcow2_l2_slice(q, l2, p->start, &s, err);
	if (r < 0)
		return r;
	for (uint64_t k = 0; k < n; k++) {
		be64 *e = &entries_of(s)[i + k];

		if (!p->reuse)
			qcow2_park_entry(q, be64_get(*e));
		*e = be64_make(placed_entry(q, p, k));
	}
	mcache_mark(&q->cache, s, CLASS_L2);
	if (qcow2_has_data_file(q))
		qcow2_data_used(q, p->start, p->span);
	return 0;
}

void qcow2_unplace(struct img *img, const struct placement *p)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t first = p->host >> q->cluster_bits, n = p->span >> q->cluster_bits;

	if (p->coded)
		n = ((p->host + p->coded - 1) >> q->cluster_bits) - first + 1;
	if (qcow2_has_data_file(q))
		q->stale_tail = true;
	else if (!p->reuse)
		qcow2_unalloc(q, first, n);
}

/* ---- zero and discard ---- */

/* How much of [off, off+len) lies in the slice of off, in clusters. */
static unsigned slice_part(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	return (unsigned)min_u64(qcow2_slice_entries(q) - qcow2_slice_index(q, off),
				 div_up(len, q->cluster));
}

/* Bytes from off to where the next L2 table begins, at most len. */
static uint64_t table_part(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	uint64_t covers = UINT64_C(1) << (q->l2_bits + q->cluster_bits);

	return min_u64(len, covers - (off & (covers - 1)));
}

/* How a range is cleared. */
struct clear {
	bool keep;    /* zero without giving space back */
	bool discard; /* what is absent may stay absent */
	bool mark;    /* what is absent becomes zeros, also without a backing file */
	bool drop;    /* everything becomes absent */
};

/* What an entry becomes. */
static uint64_t cleared_entry(const struct qcow2 *q, uint64_t entry, struct clear how)
{
	enum l2_type type = qcow2_l2_type(q, entry);

	if (q->h.version < 3 || how.drop)
		return 0;
	if (type == L2_UNALLOCATED && (how.discard || (!q->img.backing_name && !how.mark)))
		return entry;
	if (how.keep && (type == L2_NORMAL || type == L2_ZERO_ALLOC))
		return entry | ENTRY_ZERO;
	return ENTRY_ZERO;
}

void qcow2_free_entry(struct qcow2 *q, uint64_t entry, uint64_t guest)
{
	if (!qcow2_has_data_file(q))
		qcow2_park_entry(q, entry);
	else if (qcow2_l2_type(q, entry) != L2_UNALLOCATED)
		qcow2_data_freed(q, guest, q->cluster);
}

/* Clears the entries of one slice. */
static int clear_slice(struct qcow2 *q, uint64_t off, uint64_t len, struct clear how, uint64_t *did,
		       struct err *err)
{
	unsigned n = slice_part(q, off, len), i = qcow2_slice_index(q, off);
	struct mslice *s;
	uint64_t l2;
	int r = own_l2(q, off, &l2, err);

	if (r == 0)
		r = qcow2_l2_slice(q, l2, off, &s, err);
	if (r < 0)
		return r;
	*did = min_u64(len, (uint64_t)n << q->cluster_bits);
	for (unsigned k = i; k < i + n; k++) {
		uint64_t old = be64_get(entries_of(s)[k]);
		uint64_t new = cleared_entry(q, old, how);

		if (new == old)
			continue;
		r = qcow2_guard_entry(q, old, s->host + (uint64_t)k * 8, err);
		if (r < 0)
			return r;
		if (!(new &ENTRY_OFFSET))
			qcow2_free_entry(q, old, off + ((uint64_t)(k - i) << q->cluster_bits));
		entries_of(s)[k] = be64_make(new);
		mcache_mark(&q->cache, s, CLASS_L2);
	}
	return 0;
}

/* Begins a change of the range that one L2 table covers: where that table is, 0: nowhere. */
static int begin_clear(struct qcow2 *q, uint64_t off, uint64_t *l2, struct err *err)
{
	int r = begin(q, err);

	return r < 0 ? r : qcow2_l2_offset(q, off >> (q->l2_bits + q->cluster_bits), l2, err);
}

int qcow2_zero(struct img *img, uint64_t off, uint64_t len, unsigned flags, uint64_t *did,
	       struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct clear how = {.keep = !(flags & IO_ZERO_UNMAP), .mark = flags & IO_ZERO_MARK};
	bool hides = img->backing_name || how.mark;
	uint64_t l2 = 0;
	int r = begin_clear(q, off, &l2, err);

	if (r < 0)
		return r;
	if (q->h.version < 3 && hides)
		return -ENOTSUP; /* no way to hide the backing but to write zeros */
	r = qcow2_data_zero(q, off, &len, flags, err);
	*did = len;
	if (r)
		return r < 0 ? r : 0;
	if (!l2 && !hides) {
		*did = table_part(q, off, len); /* absent reads as zeros */
		return 0;
	}
	return clear_slice(q, off, len, how, did, err);
}

int qcow2_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *did, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int r = begin(q, err);

	if (r == 0)
		r = qcow2_data_zero(q, off, &len, IO_ZERO_UNMAP, err);
	*did = len;
	if (r)
		return r < 0 ? r : 0;
	/* Version 2 can only unmap, which would bring back what the backing file has there. */
	if (q->h.version < 3 && img->backing_name)
		return 0;
	return qcow2_unmap(img, off, len, did, err);
}

static int clear_tables(struct img *img, uint64_t off, uint64_t len, struct clear how,
			uint64_t *did, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t l2 = 0;
	int r = begin_clear(q, off, &l2, err);

	if (r < 0)
		return r;
	if (!l2) {
		*did = table_part(q, off, len);
		return 0;
	}
	return clear_slice(q, off, len, how, did, err);
}

int qcow2_unmap(struct img *img, uint64_t off, uint64_t len, uint64_t *did, struct err *err)
{
	return clear_tables(img, off, len, (struct clear){.discard = true}, did, err);
}

int qcow2_drop(struct img *img, uint64_t off, uint64_t len, uint64_t *did, struct err *err)
{
	return clear_tables(img, off, len, (struct clear){.drop = true}, did, err);
}
