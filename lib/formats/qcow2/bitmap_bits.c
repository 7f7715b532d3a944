// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The bits of a persistent bitmap: a table of clusters of bits, of which those that change are in
 * memory until they are written. See bitmap.h for the order of writing. Bit i is bit i % 8 of byte
 * i / 8, for the guest's bytes from i << granularity on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/bitmap.h"

static uint64_t chunk_bits(const struct qcow2 *q)
{
	return q->cluster * 8;
}

static uint64_t offset_of(const struct qcow2_bitmap *b, uint64_t i)
{
	return be64_get(b->table[i]) & ENTRY_OFFSET;
}

static bool all_ones(const struct qcow2_bitmap *b, uint64_t i)
{
	return be64_get(b->table[i]) & BITMAP_ALL_ONES;
}

/* ---- the table ---- */

static int check_entry(struct qcow2 *q, const struct qcow2_bitmap *b, uint64_t i, struct err *err)
{
	uint64_t v = be64_get(b->table[i]), off = v & ENTRY_OFFSET;

	if (!(v & BITMAP_TABLE_RESERVED) && is_aligned(off, q->cluster) &&
	    !(off && (v & BITMAP_ALL_ONES)) && off < max_u64(io_size(q->img.file), 1))
		return 0;
	return io_corrupt(q->img.file, err, b->e.table_offset + i * 8,
			  "entry 0x%016" PRIx64 " of the table of bitmap '%s' is invalid", v,
			  b->name);
}

static int reserve_memory(struct qcow2 *q, uint64_t entries, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	uint64_t bytes = entries * (sizeof(be64) + sizeof(void *));

	if (m->table_memory + bytes > BITMAPS_TABLE_MEMORY)
		return err_set(err, EFBIG,
			       "%s: the tables of its bitmaps need more than %" PRIu64
			       " MiB of memory",
			       q->img.io.name, BITMAPS_TABLE_MEMORY / MiB);
	m->table_memory += bytes;
	return 0;
}

static void return_memory(struct qcow2 *q, uint64_t entries)
{
	q->bitmaps->table_memory -= entries * (sizeof(be64) + sizeof(void *));
}

int qcow2_bits_load(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	uint64_t n = b->e.table_size;
	int r;

	if (b->table)
		return 0;
	/* One that is in use may be of another size; its clusters are of interest all the same. */
	if (!b->inconsistent && n != div_up(div_up(b->bits, 8), q->cluster))
		return io_corrupt(q->img.file, err, b->e.table_offset,
				  "the table of bitmap '%s' has %" PRIu64
				  " entries, which does not fit the disk",
				  b->name, n);
	r = reserve_memory(q, n, err);
	if (r < 0)
		return r;
	r = qcow2_read_table(q, b->e.table_offset, n, "bitmap table", &b->table, err);
	if (r == 0) {
		b->entries = n;
		b->chunk = calloc(n ? n : 1, sizeof(*b->chunk));
		if (!b->chunk)
			r = err_nomem(err, n * sizeof(*b->chunk), "a bitmap");
	} else {
		return_memory(q, n);
	}
	for (uint64_t i = 0; r == 0 && i < n; i++)
		r = check_entry(q, b, i, err);
	if (r < 0)
		qcow2_bits_drop(q, b);
	return r;
}

static void drop_chunk(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t i)
{
	if (!b->chunk[i])
		return;
	free(take(b->chunk[i]));
	q->bitmaps->bit_memory -= q->cluster;
}

void qcow2_bits_drop(struct qcow2 *q, struct qcow2_bitmap *b)
{
	qcow2_bits_cancel(q, b);
	if (!b->table)
		return;
	for (uint64_t i = 0; b->chunk && i < b->entries; i++)
		drop_chunk(q, b, i);
	return_memory(q, b->entries);
	free(take(b->chunk));
	free(take(b->table));
	b->entries = 0;
}

/* Takes back what claim_from did for the entries below `end`. */
static void unclaim(struct qcow2 *q, const struct qcow2_bitmap *b, uint64_t end)
{
	for (uint64_t i = 0; i < end; i++)
		if (offset_of(b, i))
			qcow2_guard_set(q, offset_of(b, i), q->cluster, false);
}

/*
 * A cluster that the guard knows, or that counts as free, must be neither written nor given back:
 * it is something else's.
 */
int qcow2_bits_claim(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	int r = qcow2_bits_load(q, b, err);

	for (uint64_t i = 0; r == 0 && !b->claimed && i < b->entries; i++) {
		uint64_t host = offset_of(b, i), count;

		if (!host)
			continue;
		r = qcow2_refcount_get(q, host >> q->cluster_bits, &count, err);
		if (r == 0 && (!count || qcow2_guarded(q, host, q->cluster)))
			r = io_corrupt(q->img.file, err, b->e.table_offset + i * 8,
				       "a cluster of bitmap '%s' is %s", b->name,
				       count ? "other metadata too" : "not allocated");
		if (r == 0)
			qcow2_guard_set(q, host, q->cluster, true);
		else
			unclaim(q, b, i);
	}
	if (r == 0)
		b->claimed = true;
	return r;
}

/* ---- clusters of bits ---- */

/* Whether the cluster belongs to this bitmap alone, so that it may be written where it is. */
static int is_own(struct qcow2 *q, uint64_t host, bool *own, struct err *err)
{
	uint64_t count;
	int r = qcow2_refcount_get(q, host >> q->cluster_bits, &count, err);

	*own = count == 1;
	return r;
}

static int write_chunk(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t i, struct err *err)
{
	uint64_t host = offset_of(b, i), fresh;
	bool own = false;
	int r = host ? is_own(q, host, &own, err) : 0;

	if (r < 0)
		return r;
	if (own)
		return io_pwrite(q->img.file, b->chunk[i], q->cluster, host, err);
	if (!host && bytes_are_zero(b->chunk[i], q->cluster)) {
		b->table[i] = be64_make(0);
		return 0;
	}
	r = qcow2_alloc_table(q, 1, &fresh, err);
	if (r < 0)
		return r;
	r = io_pwrite(q->img.file, b->chunk[i], q->cluster, fresh, err);
	if (r < 0) {
		qcow2_unalloc(q, fresh >> q->cluster_bits, 1);
		return r;
	}
	if (host)
		qcow2_bitmaps_note_free(q, &b->frees, host, q->cluster);
	b->table[i] = be64_make(fresh);
	return 0;
}

int qcow2_bits_write(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < b->entries; i++) {
		if (!b->chunk[i])
			continue;
		r = write_chunk(q, b, i, err);
		if (r == 0)
			drop_chunk(q, b, i);
	}
	return r;
}

/* Room for one more cluster of bits in memory: those of all bitmaps are written when it is full. */
static int make_room(struct qcow2 *q, struct err *err)
{
	struct qcow2_bitmaps *m = q->bitmaps;
	int r = 0;

	if (m->bit_memory + q->cluster <= m->bit_budget)
		return 0;
	for (uint32_t i = 0; r == 0 && i < m->dir.n; i++)
		if (m->v[i].table)
			r = qcow2_bits_write(q, &m->v[i], err);
	return r;
}

/* Cluster i in memory, to be changed. */
static int open_chunk(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t i, struct err *err)
{
	CLEANUP_FREE unsigned char *p = NULL;
	int r = b->chunk[i] ? 0 : make_room(q, err);

	if (r < 0 || b->chunk[i])
		return r;
	p = calloc(1, q->cluster);
	if (!p)
		return err_nomem(err, q->cluster, "a bitmap");
	if (all_ones(b, i))
		memset(p, 0xff, q->cluster);
	else if (offset_of(b, i))
		r = io_pread_tail(q->img.file, p, q->cluster, offset_of(b, i), err);
	if (r < 0)
		return r;
	if (all_ones(b, i))
		b->table[i] = be64_make(0);
	b->chunk[i] = take(p);
	q->bitmaps->bit_memory += q->cluster;
	return 0;
}

/* Sets, or clears, bits [from, to) of a cluster. */
static void fill_bits(unsigned char *p, uint64_t from, uint64_t to, bool set)
{
	for (; from < to && from % 8; from++)
		p[from / 8] = (unsigned char)(set ? p[from / 8] | 1U << from % 8
						  : p[from / 8] & ~(1U << from % 8));
	if (from + 8 <= to) {
		memset(p + from / 8, set ? 0xff : 0, (to - from) / 8);
		from = round_down(to, 8);
	}
	for (; from < to; from++)
		p[from / 8] = (unsigned char)(set ? p[from / 8] | 1U << from % 8
						  : p[from / 8] & ~(1U << from % 8));
}

int qcow2_bits_set(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t off, uint64_t len,
		   struct err *err)
{
	uint64_t from = off >> b->e.granularity_bits;
	uint64_t to = ((off + len - 1) >> b->e.granularity_bits) + 1;
	uint64_t per = chunk_bits(q);

	for (uint64_t next; from < to; from = next) {
		uint64_t i = from / per;
		int r;

		next = min_u64(to, (i + 1) * per);
		if (!b->chunk[i] && all_ones(b, i))
			continue;
		r = open_chunk(q, b, i, err);
		if (r < 0)
			return r;
		fill_bits(b->chunk[i], from - i * per, next - i * per, true);
	}
	return 0;
}

/* Forgets entries [from, …). */
static void cut(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t from)
{
	for (uint64_t i = from; i < b->entries; i++) {
		drop_chunk(q, b, i);
		if (offset_of(b, i))
			qcow2_bitmaps_note_free(q, &b->frees, offset_of(b, i), q->cluster);
		b->table[i] = be64_make(0);
	}
}

void qcow2_bits_clear(struct qcow2 *q, struct qcow2_bitmap *b)
{
	cut(q, b, 0);
}

/* What was prepared for a resize that does not happen. */
void qcow2_bits_cancel(struct qcow2 *q, struct qcow2_bitmap *b)
{
	if (b->next.table)
		return_memory(q, b->next.entries);
	free(b->next.table);
	free(b->next.chunk);
	b->next = (struct bitmap_bits){0};
}

/* The cluster of bits through which the smaller of two disks ends; its number is *last. */
static bool cut_cluster(const struct qcow2 *q, const struct qcow2_bitmap *b, uint64_t bits,
			uint64_t *last)
{
	uint64_t keep = min_u64(bits, b->bits);

	*last = keep / chunk_bits(q);
	return *last < b->entries && keep % chunk_bits(q) &&
	       (be64_get(b->table[*last]) || b->chunk[*last]);
}

int qcow2_bits_prepare(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t size, struct err *err)
{
	uint64_t bits = bitmap_bits(size, b->e.granularity_bits), last;
	struct bitmap_bits *next = &b->next;
	int r;

	qcow2_bits_cancel(q, b);
	if (cut_cluster(q, b, bits, &last)) {
		r = open_chunk(q, b, last, err);
		if (r < 0)
			return r;
	}
	next->entries = bitmap_entries(size, b->e.granularity_bits, q->cluster);
	r = reserve_memory(q, next->entries, err);
	if (r < 0)
		return r;
	next->table = calloc(next->entries, sizeof(*next->table));
	next->chunk = calloc(next->entries, sizeof(*next->chunk));
	if (next->table && next->chunk)
		return 0;
	if (!next->table) /* what cancel goes by */
		return_memory(q, next->entries);
	qcow2_bits_cancel(q, b);
	return err_nomem(err, bits / 8, "a bitmap");
}

int qcow2_bits_resize(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t size, struct err *err)
{
	uint64_t bits = bitmap_bits(size, b->e.granularity_bits), per = chunk_bits(q), last;
	uint64_t keep = min_u64(bits, b->bits), stay = min_u64(b->next.entries, b->entries);
	int r;

	if (cut_cluster(q, b, bits, &last)) {
		r = open_chunk(q, b, last, err); /* unless it had to make room, it is open */
		if (r < 0)
			return r;
		fill_bits(b->chunk[last], keep % per, per, false);
	}
	cut(q, b, min_u64(b->entries, div_up(keep, per)));
	memcpy(b->next.table, b->table, stay * sizeof(*b->table));
	memcpy(b->next.chunk, b->chunk, stay * sizeof(*b->chunk));
	return_memory(q, b->entries);
	free(b->table);
	free(b->chunk);
	b->table = b->next.table;
	b->chunk = b->next.chunk;
	b->entries = b->next.entries;
	b->next = (struct bitmap_bits){0};
	b->bits = bits;
	return 0;
}

int qcow2_bits_read(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t at, void *buf, size_t len,
		    struct err *err)
{
	uint64_t from = at, end = at + len;
	unsigned char *out = buf;
	int r = qcow2_bits_load(q, b, err);

	for (uint64_t n; r == 0 && at < end; at += n) {
		uint64_t i = at >> q->cluster_bits, skip = at & (q->cluster - 1);
		unsigned char *to = out + (at - from);

		n = min_u64(end - at, q->cluster - skip);
		if (i >= b->entries)
			memset(to, 0, n);
		else if (b->chunk[i])
			memcpy(to, b->chunk[i] + skip, n);
		else if (offset_of(b, i))
			r = io_pread_tail(q->img.file, to, n, offset_of(b, i) + skip, err);
		else
			memset(to, all_ones(b, i) ? 0xff : 0, n);
	}
	if (r == 0 && end * 8 > b->bits)
		fill_bits(out, max_u64(b->bits, from * 8) - from * 8, len * UINT64_C(8), false);
	return r;
}
