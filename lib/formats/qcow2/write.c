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

#define L1_PART 512 /* entries: about a block of the file system */

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

static int reserve_l1(struct qcow2 *q, uint64_t i, struct err *err)
{
	uint64_t first = round_down(i, L1_PART), n = min_u64(q->h.l1_size - first, L1_PART);

	return qcow2_fill_hole(q, q->l1 + first, n * sizeof(be64),
			       q->h.l1_offset + first * sizeof(be64), err);
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
	r = reserve_l1(q, i, err);
	if (r == 0)
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

/* File offset of entry i of a slice, for messages. */
static uint64_t entry_at(const struct qcow2 *q, const struct mslice *s, unsigned i)
{
	return s->host + (uint64_t)i * qcow2_entry_bytes(q);
}

/* The subclusters of a cluster that its bytes [from, to) touch, to > from. */
static uint32_t sub_mask(const struct qcow2 *q, uint64_t from, uint64_t to)
{
	unsigned first = (unsigned)(from >> q->sub_bits);
	unsigned last = (unsigned)((to - 1) >> q->sub_bits);

	return UINT32_MAX >> (31 - last) & UINT32_MAX << first;
}

/*
 * Bytes from p->off on, at most p->len, that are data of our own at neighbouring host offsets: they
 * can be written in place. 0: none.
 */
static uint64_t own_data(const struct qcow2 *q, const struct mslice *s, const struct placement *p)
{
	unsigned i = qcow2_slice_index(q, p->off), end = qcow2_slice_entries(q);
	uint64_t at = p->off & (q->cluster - 1), did = 0;
	uint64_t next = qcow2_entry_load(q, s->data, i).raw;

	for (; did < p->len && i < end; i++, at = 0, next += q->cluster) {
		struct l2_entry e = qcow2_entry_load(q, s->data, i);
		uint64_t to = min_u64(q->cluster, at + p->len - did);
		uint32_t missing = sub_mask(q, at, to) & ~e.alloc;

		if (!qcow2_entry_own(q, e) || e.raw != next)
			break;
		if (missing) /* up to the first subcluster that is not there */
			to = (uint64_t)__builtin_ctz(missing) << q->sub_bits;
		did += to > at ? to - at : 0;
		if (missing)
			break;
	}
	return did;
}

/* Entries from i on, at most n, that have no cluster of their own. */
static unsigned new_run(const struct qcow2 *q, const struct mslice *s, unsigned i, uint64_t n)
{
	unsigned run = 0, most = (unsigned)min_u64(n, qcow2_slice_entries(q) - i);

	while (run < most && !qcow2_entry_own(q, qcow2_entry_load(q, s->data, i + run)))
		run++;
	return run;
}

/* Whether what entries i … i+n-1, the first of which is for `guest`, refer to may be changed. */
static int guard_run(struct qcow2 *q, const struct mslice *s, unsigned i, uint64_t n,
		     uint64_t guest, struct err *err)
{
	int r = 0;

	for (uint64_t k = 0; r == 0 && k < n; k++) {
		unsigned at = i + (unsigned)k;
		struct l2_entry e = qcow2_entry_load(q, s->data, at);

		r = qcow2_guard_entry(q, e, entry_at(q, s, at), err);
		if (r == 0 && qcow2_has_data_file(q) && qcow2_entry_placed(q, e))
			r = qcow2_data_check(q, e.raw & ENTRY_OFFSET,
					     guest + (k << q->cluster_bits), entry_at(q, s, at),
					     err);
	}
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

	if (qcow2_has_data_file(q))
		return 0; /* the place is the guest's */
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

/* A write into space of our own: in place, or where no data is yet, one cluster at a time. */
static int place_own(struct qcow2 *q, const struct mslice *s, struct placement *p, struct err *err)
{
	unsigned i = qcow2_slice_index(q, p->off);
	uint64_t in_cluster = p->off & (q->cluster - 1), did = own_data(q, s, p);
	uint64_t sub = UINT64_C(1) << q->sub_bits, at = entry_at(q, s, i);
	struct l2_entry e = qcow2_entry_load(q, s->data, i);
	uint64_t host = e.raw & ENTRY_OFFSET;
	uint32_t data;
	int r = guard_run(q, s, i, did ? div_up(in_cluster + did, q->cluster) : 1,
			  p->off - in_cluster, err);

	if (r < 0)
		return r;
	if (did) {
		p->host = host + in_cluster;
		p->len = did;
		return check_beyond(q, p->host, p->len, at, err);
	}
	/* Up to the end of the cluster, or to the next subcluster that has data. */
	p->len = min_u64(p->len, q->cluster - in_cluster);
	data = e.alloc & sub_mask(q, in_cluster, q->cluster);
	if (data)
		p->len = min_u64(p->len,
				 ((uint64_t)__builtin_ctz(data) << q->sub_bits) - in_cluster);
	p->fresh = p->reuse = true;
	p->start = round_down(p->off, sub);
	p->span = round_up(p->off + p->len, sub) - p->start;
	p->host = host + (p->start & (q->cluster - 1));
	p->zeroed = qcow2_has_data_file(q) && qcow2_data_fresh(q, p->start);
	return check_beyond(q, p->host, p->span, at, err);
}

/* The subclusters that hold what the guest must find again when the cluster moves. */
static uint32_t held(const struct qcow2 *q, struct l2_entry e)
{
	return e.raw & ENTRY_COMPRESSED ? qcow2_all_subs(q) : e.alloc;
}

/*
 * How far the write has to begin before p->off, and to end behind `end`: up to whole subclusters,
 * and to take along what the first and the last cluster hold. In bytes from the clusters' start.
 */
static void widen(const struct qcow2 *q, const struct mslice *s, const struct placement *p,
		  uint64_t *from, uint64_t *to)
{
	unsigned i = qcow2_slice_index(q, p->off);
	uint64_t at = p->off & (q->cluster - 1), last = (at + p->len - 1) >> q->cluster_bits;
	uint32_t below = held(q, qcow2_entry_load(q, s->data, i)), above = 0;

	*from = at >> q->sub_bits;
	if (below)
		*from = min_u64(*from, (unsigned)__builtin_ctz(below));
	*to = ((at + p->len - 1) & (q->cluster - 1)) >> q->sub_bits;
	if (i + last < qcow2_slice_entries(q))
		above = held(q, qcow2_entry_load(q, s->data, (unsigned)(i + last)));
	if (above)
		*to = max_u64(*to, 31 - (unsigned)__builtin_clz(above));
	*from <<= q->sub_bits;
	*to = (*to + 1) << q->sub_bits;
}

/* Space for up to *n clusters of the guest, from the one at `guest` on. */
static int take_space(struct qcow2 *q, uint64_t guest, uint64_t *n, struct placement *p,
		      struct err *err)
{
	uint64_t first;
	int r;

	p->host = guest;
	p->zeroed = qcow2_has_data_file(q) && qcow2_data_fresh(q, guest);
	if (qcow2_has_data_file(q))
		return 0;
	r = qcow2_alloc(q, *n, &first, n, &p->zeroed, err);
	p->host = first << q->cluster_bits;
	return r;
}

/* A write that needs new space. */
static int place_new(struct qcow2 *q, const struct mslice *s, struct placement *p, struct err *err)
{
	unsigned i = qcow2_slice_index(q, p->off);
	uint64_t in_cluster = p->off & (q->cluster - 1), want, n, from, to;
	int r;

	want = div_up(in_cluster + p->len, q->cluster);
	n = new_run(q, s, i, want);
	r = guard_run(q, s, i, n, p->off - in_cluster, err);
	if (r < 0)
		return r;
	widen(q, s, p, &from, &to); /* before space is taken, which may push the slice out */
	r = take_space(q, p->off - in_cluster, &n, p, err);
	if (r < 0)
		return r;
	if (n < want) { /* less than asked for ends with a cluster */
		p->len = (n << q->cluster_bits) - in_cluster;
		to = q->cluster;
	}
	p->fresh = true;
	p->start = p->off - in_cluster + from;
	p->span = ((n - 1) << q->cluster_bits) + to - from;
	p->host += from;
	return 0;
}

static int place_in_slice(struct qcow2 *q, struct mslice *s, struct placement *p, struct err *err)
{
	struct l2_entry e = qcow2_entry_load(q, s->data, qcow2_slice_index(q, p->off));

	return qcow2_entry_own(q, e) ? place_own(q, s, p, err) : place_new(q, s, p, err);
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

/* What an entry becomes when subclusters `mask` were written to their place in `cluster`. */
static struct l2_entry linked_entry(struct l2_entry old, uint32_t mask, uint64_t cluster,
				    bool reuse)
{
	/* Of what moved nothing stays behind; what was reused keeps its other subclusters. */
	return (struct l2_entry){
		.raw = cluster | ENTRY_COPIED,
		.alloc = reuse ? old.alloc | mask : mask,
		.zero = old.zero & ~mask,
	};
}

/* space: the subclusters stay what they are; there is only a place for them now. */
static int link_entries(struct qcow2 *q, const struct placement *p, bool space, struct err *err)
{
	uint64_t at = p->start, end = p->start + p->span, to, l2;
	unsigned i = qcow2_slice_index(q, p->start);
	struct mslice *s;
	int r = own_l2(q, p->start, &l2, err);

	if (r == 0)
		r = qcow2_l2_slice(q, l2, p->start, &s, err);
	if (r < 0)
		return r;
	for (; at < end; at = to, i++) {
		struct l2_entry old = qcow2_entry_load(q, s->data, i), new;
		uint64_t in_cluster = at & (q->cluster - 1);
		uint64_t cluster = p->host + (at - p->start) - in_cluster;
		uint32_t mask;

		to = min_u64(end, at - in_cluster + q->cluster);
		mask = space ? 0 : sub_mask(q, in_cluster, in_cluster + to - at);
		if (!p->reuse)
			qcow2_park_entry(q, old);
		new = linked_entry(old, mask, cluster, p->reuse);
		if (p->coded)
			new = (struct l2_entry){
				.raw = coded_entry(p->host, p->coded, q->cluster_bits)};
		qcow2_entry_store(q, s->data, i, new);
	}
	mcache_mark(&q->cache, s, CLASS_L2);
	qcow2_punch_not(q, p->host, p->coded ? p->coded : p->span);
	return 0;
}

int qcow2_link(struct img *img, const struct placement *p, struct err *err)
{
	return link_entries(qcow2_of(img), p, false, err);
}

int qcow2_link_space(struct qcow2 *q, const struct placement *p, struct err *err)
{
	return link_entries(q, p, true, err);
}

void qcow2_unplace(struct img *img, const struct placement *p)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t first = p->host >> q->cluster_bits;
	uint64_t end = div_up(p->host + (p->coded ? p->coded : p->span), q->cluster);

	if (qcow2_has_data_file(q))
		q->stale_tail = true;
	else if (!p->reuse)
		qcow2_unalloc(q, first, end - first);
}

/* ---- zero and discard ---- */

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
	bool drop;    /* it becomes absent */
};

/* What an entry becomes when its subclusters `mask` are cleared; a compressed one only as a whole. */
static struct l2_entry cleared_entry(const struct qcow2 *q, struct l2_entry e, uint32_t mask,
				     struct clear how)
{
	bool absent = !(e.raw & ENTRY_COMPRESSED) && !qcow2_entry_placed(q, e) && !(e.zero & mask);

	if (q->h.version < 3)
		return (struct l2_entry){0};
	if (absent && !how.drop && (how.discard || (!q->img.backing_name && !how.mark)))
		return e;
	e.zero = how.drop ? e.zero & ~mask : e.zero | mask;
	e.alloc &= ~mask;
	if (!qcow2_entry_placed(q, e) || (!how.keep && !e.alloc))
		e.raw = 0;
	return e;
}

void qcow2_free_entry(struct qcow2 *q, struct l2_entry e, uint64_t guest)
{
	if (!qcow2_has_data_file(q))
		qcow2_park_entry(q, e);
	else if (qcow2_entry_placed(q, e) || e.zero)
		qcow2_data_freed(q, guest, q->cluster);
}

/*
 * Clears a prefix of [off, off+len), whole subclusters of one slice. -ENOTSUP: the first cluster is
 * compressed, and only a part of it is to go.
 */
static int clear_slice(struct qcow2 *q, uint64_t off, uint64_t len, struct clear how, uint64_t *did,
		       struct err *err)
{
	unsigned i = qcow2_slice_index(q, off);
	uint64_t l2, part;
	struct mslice *s;
	int r = own_l2(q, off, &l2, err);

	if (r == 0)
		r = qcow2_l2_slice(q, l2, off, &s, err);
	for (*did = 0; r == 0 && *did < len && i < qcow2_slice_entries(q); *did += part, i++) {
		uint64_t at = (off + *did) & (q->cluster - 1);
		struct l2_entry old = qcow2_entry_load(q, s->data, i), new;
		uint32_t mask;

		part = min_u64(q->cluster - at, len - *did);
		mask = sub_mask(q, at, at + part);
		if ((old.raw & ENTRY_COMPRESSED) && mask != qcow2_all_subs(q))
			return *did ? 0 : -ENOTSUP;
		new = cleared_entry(q, old, mask, how);
		if (!memcmp(&new, &old, sizeof(new)))
			continue;
		r = guard_run(q, s, i, 1, off + *did - at, err);
		if (r < 0)
			break;
		if (!qcow2_entry_placed(q, new))
			qcow2_free_entry(q, old, off + *did - at);
		else if (!how.keep && qcow2_entry_own(q, old) && !qcow2_keeps_raw(q))
			qcow2_punch_later(q, (old.raw & ENTRY_OFFSET) + at, part);
		qcow2_entry_store(q, s->data, i, new);
		mcache_mark(&q->cache, s, CLASS_L2);
	}
	return r;
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
