// SPDX-License-Identifier: GPL-2.0-or-later
/* See oracle.h. Written from the specification (QEMU docs/interop/qcow2), not from our driver. */
#include "oracle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tell.h"

static uint32_t get32(const unsigned char *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

static uint64_t get64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return __builtin_bswap64(v);
}

#define HOST UINT64_C(0x00fffffffffffe00)

static void note(struct oracle *o, unsigned *counter, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void note(struct oracle *o, unsigned *counter, const char *fmt, ...)
{
	va_list ap;

	++*counter;
	if (o->text[0])
		return;
	va_start(ap, fmt);
	vsnprintf(o->text, sizeof(o->text), fmt, ap);
	va_end(ap);
}

static void bad_pointer(struct oracle *o, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void bad_pointer(struct oracle *o, const char *fmt, ...)
{
	va_list ap;

	o->errors++;
	if (o->bad_pointers++)
		return;
	va_start(ap, fmt);
	vsnprintf(o->pointer_text, sizeof(o->pointer_text), fmt, ap);
	va_end(ap);
	if (!o->text[0])
		memcpy(o->text, o->pointer_text, sizeof(o->text));
}

/* Bytes [off, off+n) of the file, or NULL. */
static const unsigned char *at(const struct oracle *o, uint64_t off, uint64_t n)
{
	return off <= o->len && n <= o->len - off ? o->p + off : NULL;
}

static bool bad_header(struct oracle *o, const char *what)
{
	o->errors++;
	snprintf(o->text, sizeof(o->text), "header: %s", what);
	return false;
}

static bool read_header(struct oracle *o)
{
	const unsigned char *p = at(o, 0, 104);
	uint64_t incompat;

	if (!p || get32(p) != 0x514649fb)
		return bad_header(o, "no magic");
	o->version = get32(p + 4);
	o->cluster_bits = get32(p + 20);
	o->size = get64(p + 24);
	o->l1_size = get32(p + 36);
	o->l1 = get64(p + 40);
	o->reftable = get64(p + 48);
	o->reftable_clusters = get32(p + 56);
	o->n_snapshots = get32(p + 60);
	o->snapshots = get64(p + 64);
	if (o->version != 2 && o->version != 3)
		return bad_header(o, "version");
	if (o->cluster_bits < 9 || o->cluster_bits > 21)
		return bad_header(o, "cluster_bits");
	o->cluster = UINT64_C(1) << o->cluster_bits;
	incompat = o->version == 3 ? get64(p + 72) : 0;
	o->refcount_order = o->version == 3 ? get32(p + 96) : 4;
	o->autoclear = o->version == 3 ? get64(p + 88) : 0;
	o->dirty = incompat & 1;
	o->corrupt_bit = incompat & 2;
	o->entry = incompat & 16 ? 16 : 8;
	o->grain = o->entry == 16 ? o->cluster / 32 : o->cluster;
	if (incompat & ~UINT64_C(27) || o->refcount_order > 6)
		return bad_header(o, "features or refcount_order");
	if (!at(o, o->l1, (uint64_t)o->l1_size * 8) || o->l1 % o->cluster)
		return bad_header(o, "L1 table");
	if (!at(o, o->reftable, o->reftable_clusters * o->cluster) || o->reftable % o->cluster)
		return bad_header(o, "refcount table");
	if (o->entry == 16 && o->cluster_bits < 14)
		return bad_header(o, "subclusters of less than 512 bytes");
	if ((uint64_t)o->l1_size * (o->cluster / o->entry) << o->cluster_bits < o->size)
		return bad_header(o, "L1 table too small for the disk");
	return true;
}

/* One reference to each cluster that [host, host+n) touches. */
static void refer(struct oracle *o, uint64_t host, uint64_t n, const char *what)
{
	uint64_t first = host >> o->cluster_bits, last = (host + n - 1) >> o->cluster_bits;

	if (!n)
		return;
	if (last >= o->n_refs) {
		bad_pointer(o, "%s at %" PRIu64 " lies beyond the end (%" PRIu64 ")", what, host,
			    o->len);
		return;
	}
	for (; first <= last; first++)
		o->refs[first]++;
}

/* The refcount block that covers cluster c, or NULL; *k: the index in it. */
static const unsigned char *block_of(const struct oracle *o, uint64_t c, uint64_t *k)
{
	unsigned bits = o->cluster_bits + 3 - o->refcount_order;
	uint64_t i = c >> bits, block;

	*k = c & ((UINT64_C(1) << bits) - 1);
	if (i >= o->reftable_clusters * o->cluster / 8)
		return NULL;
	block = get64(o->p + o->reftable + i * 8) & ~UINT64_C(0x1ff);
	return block ? at(o, block, o->cluster) : NULL;
}

static inline uint64_t load(const struct oracle *o, const unsigned char *b, uint64_t k)
{
	unsigned bits = 1u << o->refcount_order;
	uint64_t v = 0;

	if (bits == 16)
		return (uint64_t)b[k * 2] << 8 | b[k * 2 + 1];
	if (bits < 8)
		return b[k * bits / 8] >> (k * bits % 8) & ((1u << bits) - 1);
	for (unsigned n = 0; n < bits / 8; n++)
		v = v << 8 | b[k * bits / 8 + n];
	return v;
}

static uint64_t stored_refcount(const struct oracle *o, uint64_t c)
{
	uint64_t k;
	const unsigned char *b = block_of(o, c, &k);

	return b ? load(o, b, k) : 0;
}

/* The COPIED flag of an entry of the active tree that points to cluster c. */
static void judge_copied(struct oracle *o, bool copied, uint64_t c, const char *what,
			 uint64_t where)
{
	uint64_t count = stored_refcount(o, c);

	if (copied && count != 1)
		note(o, &o->copied_wrong, "%s %" PRIu64 " is COPIED, refcount %" PRIu64, what,
		     where, count);
	if (!copied && count == 1) {
		o->copied_missing++;
		if (o->version == 3 && !o->dirty && !o->text[0])
			snprintf(o->text, sizeof(o->text), "%s %" PRIu64 " is not COPIED", what,
				 where);
	}
}

/* The second half of an entry: low bits say allocated, high bits zero. */
static bool bitmap_fits(uint64_t e, uint64_t bitmap)
{
	if (e >> 62 & 1)
		return !bitmap;
	return !(bitmap >> 32 & bitmap) && (e & HOST || !(uint32_t)bitmap);
}

static void count_l2_entry(struct oracle *o, const unsigned char *p, uint64_t where, bool active)
{
	unsigned shift = 62 - (o->cluster_bits - 8);
	uint64_t e = get64(p), host, zero_flag = o->entry == 8;

	if (o->entry == 16 && !bitmap_fits(e, get64(p + 8)))
		bad_pointer(o, "L2 entry at %" PRIu64 ": %" PRIx64 " with bitmap %" PRIx64, where,
			    e, get64(p + 8));
	if (e >> 62 & 1) {
		host = e & ((UINT64_C(1) << shift) - 1);
		if (e >> 63)
			note(o, &o->copied_wrong, "compressed entry at %" PRIu64 " is COPIED",
			     where);
		e &= (UINT64_C(1) << 62) - 1;
		refer(o, host, ((e >> shift) + 1) * 512 - host % 512, "compressed data");
		return;
	}
	host = e & HOST;
	if (!host) {
		if (e & ~zero_flag)
			bad_pointer(o, "L2 entry at %" PRIu64 ": %" PRIx64, where, e);
		return;
	}
	if (host % o->cluster || e & UINT64_C(0x3f000000000001fe) ||
	    ((o->version == 2 || !zero_flag) && (e & 1))) {
		bad_pointer(o, "L2 entry at %" PRIu64 ": %" PRIx64, where, e);
		return;
	}
	refer(o, host, o->cluster, "data");
	if (active)
		judge_copied(o, e >> 63, host >> o->cluster_bits, "L2 entry at", where);
}

static void count_tree(struct oracle *o, uint64_t l1, uint32_t n, bool active)
{
	const unsigned char *t = at(o, l1, (uint64_t)n * 8);

	if (!t) {
		bad_pointer(o, "L1 table at %" PRIu64 " lies beyond the end", l1);
		return;
	}
	refer(o, l1, (uint64_t)n * 8, "L1 table");
	for (uint32_t i = 0; i < n; i++) {
		uint64_t e = get64(t + i * 8), host = e & HOST;
		const unsigned char *l2;

		if (!host)
			continue;
		if (host % o->cluster || e & UINT64_C(0x7f000000000001ff)) {
			bad_pointer(o, "L1 entry %" PRIu32 ": %" PRIx64, i, e);
			continue;
		}
		refer(o, host, o->cluster, "L2 table");
		if (active)
			judge_copied(o, e >> 63, host >> o->cluster_bits, "L1 entry", i);
		l2 = at(o, host, o->cluster);
		for (uint64_t k = 0; l2 && k < o->cluster; k += o->entry)
			if (get64(l2 + k) || (o->entry == 16 && get64(l2 + k + 8)))
				count_l2_entry(o, l2 + k, host + k, active);
	}
}

/* Finds the bitmaps extension. */
static void find_bitmaps(struct oracle *o)
{
	uint64_t off = get32(o->p + 100);

	if (o->version < 3 || !(o->autoclear & 1))
		return;
	for (const unsigned char *p; (p = at(o, off, 32)) && off + 32 <= o->cluster && get32(p);
	     off += 8 + (get32(p + 4) + UINT64_C(7)) / 8 * 8) {
		if (get32(p) != 0x23852875)
			continue;
		o->n_bitmaps = get32(p + 8);
		o->bitmap_dir_len = get64(p + 16);
		o->bitmap_dir = get64(p + 24);
	}
	if (!o->n_bitmaps || !at(o, o->bitmap_dir, o->bitmap_dir_len)) {
		bad_pointer(o, "bitmap directory at %" PRIu64, o->bitmap_dir);
		o->n_bitmaps = 0;
	}
}

static void count_bitmaps(struct oracle *o)
{
	struct oracle_bitmap b;

	find_bitmaps(o);
	if (!o->n_bitmaps)
		return;
	refer(o, o->bitmap_dir, o->bitmap_dir_len, "bitmap directory");
	for (uint32_t i = 0; i < o->n_bitmaps; i++) {
		const unsigned char *t;

		if (!oracle_bitmap(o, i, &b) || !(t = at(o, b.table, b.table_size * UINT64_C(8)))) {
			bad_pointer(o, "bitmap %" PRIu32, i);
			return;
		}
		refer(o, b.table, b.table_size * UINT64_C(8), "bitmap table");
		for (uint32_t k = 0; k < b.table_size; k++) {
			uint64_t e = get64(t + k * UINT64_C(8));

			if (e & HOST)
				refer(o, e & HOST, o->cluster, "bits");
			if (e & ~HOST || e % o->cluster)
				bad_pointer(o, "bitmap table entry %" PRIx64, e);
		}
	}
}

/* Entry at *off, which it moves on. NULL: beyond the end. */
static const unsigned char *next_snapshot(const struct oracle *o, uint64_t *off)
{
	const unsigned char *p = at(o, *off, 40);
	uint64_t len;

	if (!p)
		return NULL;
	len = 40 + (uint64_t)get32(p + 36) + (p[12] << 8 | p[13]) + (p[14] << 8 | p[15]);
	if (!at(o, *off, len))
		return NULL;
	*off = (*off + len + 7) & ~UINT64_C(7);
	return p;
}

static void count_snapshots(struct oracle *o)
{
	uint64_t off = o->snapshots;

	for (uint32_t i = 0; i < o->n_snapshots; i++) {
		const unsigned char *s = next_snapshot(o, &off);

		if (!s) {
			bad_pointer(o, "snapshot %" PRIu32 " lies beyond the end", i);
			return;
		}
		count_tree(o, get64(s), get32(s + 8), false);
	}
	refer(o, o->snapshots, off - o->snapshots, "snapshot table");
}

static void count_refcounts(struct oracle *o)
{
	refer(o, o->reftable, o->reftable_clusters * o->cluster, "refcount table");
	for (uint64_t i = 0; i < o->reftable_clusters * o->cluster / 8; i++) {
		uint64_t e = get64(o->p + o->reftable + i * 8);

		if (!e)
			continue;
		if (e % o->cluster)
			bad_pointer(o, "refcount table entry %" PRIu64 ": %" PRIx64, i, e);
		else if (!at(o, e, o->cluster))
			bad_pointer(o, "refcount block %" PRIu64 " lies beyond the end", i);
		else
			refer(o, e, o->cluster, "refcount block");
	}
}

static void compare(struct oracle *o)
{
	const unsigned char *block = NULL;
	uint64_t k = 0;

	for (uint64_t c = 0; c < o->n_refs; c++, k++) {
		uint64_t stored;

		if (!c || k == o->cluster * 8 >> o->refcount_order)
			block = block_of(o, c, &k);
		stored = block ? load(o, block, k) : 0;
		if (stored < o->refs[c])
			note(o, &o->errors,
			     "cluster %" PRIu64 ": refcount %" PRIu64 ", %" PRIu32 " references", c,
			     stored, o->refs[c]);
		else if (stored > o->refs[c])
			o->leaks++;
	}
}

bool oracle_judge(struct oracle *o, const unsigned char *p, uint64_t len)
{
	uint32_t *refs = o->refs;
	uint64_t cap = o->cap_refs;

	*o = (struct oracle){.p = p, .len = len, .refs = refs, .cap_refs = cap};
	if (!read_header(o))
		return false;
	/* A last cluster that is cut short counts; a region may not begin behind it. */
	o->n_refs = (len + o->cluster - 1) >> o->cluster_bits;
	if (o->n_refs > cap) {
		free(o->refs);
		o->cap_refs = o->n_refs * 2;
		o->refs = malloc(o->cap_refs * sizeof(*o->refs));
		expect(o->refs);
	}
	memset(o->refs, 0, o->n_refs * sizeof(*o->refs));
	refer(o, 0, o->cluster, "header");
	count_refcounts(o);
	count_tree(o, o->l1, o->l1_size, true);
	count_snapshots(o);
	count_bitmaps(o);
	compare(o);
	return true;
}

void oracle_free(struct oracle *o)
{
	free(o->refs);
	o->refs = NULL;
	o->cap_refs = 0;
}

struct place oracle_place(const struct oracle *o, uint64_t l1, uint32_t l1_size, uint64_t off)
{
	uint64_t cluster = off >> o->cluster_bits, per_table = o->cluster / o->entry, e, bitmap;
	const unsigned char *p;

	if (cluster / per_table >= l1_size)
		return (struct place){.kind = PLACE_NONE};
	p = at(o, l1 + cluster / per_table * 8, 8);
	e = p ? get64(p) & HOST : 0;
	p = e ? at(o, e + cluster % per_table * o->entry, o->entry) : NULL;
	e = p ? get64(p) : 0;
	if (e >> 62 & 1)
		return (struct place){.kind = PLACE_CODED, .host = e};
	if (p && o->entry == 16) { /* said in the words of a standard entry */
		bitmap = get64(p + 8) >> (off % o->cluster / o->grain);
		e = bitmap >> 32 & 1 ? 1 : bitmap & 1 ? e & HOST : 0;
	}
	if (e & 1)
		return (struct place){.kind = PLACE_ZERO};
	if (e & HOST)
		return (struct place){.kind = PLACE_DATA, .host = (e & HOST) + off % o->cluster};
	return (struct place){.kind = PLACE_NONE};
}

bool oracle_snapshot(const struct oracle *o, unsigned i, struct oracle_snapshot *s)
{
	uint64_t off = o->snapshots;
	const unsigned char *p = NULL;
	size_t extra, id, name;

	if (i >= o->n_snapshots)
		return false;
	for (unsigned k = 0; k <= i; k++) {
		p = next_snapshot(o, &off);
		if (!p)
			return false;
	}
	extra = get32(p + 36);
	id = (size_t)(p[12] << 8 | p[13]);
	name = (size_t)(p[14] << 8 | p[15]);
	*s = (struct oracle_snapshot){
		.l1 = get64(p),
		.l1_size = get32(p + 8),
		.disk_size = extra >= 16 ? get64(p + 48) : o->size,
	};
	name = name < sizeof(s->name) ? name : sizeof(s->name) - 1;
	memcpy(s->name, p + 40 + extra + id, name);
	return true;
}

bool oracle_bitmap(const struct oracle *o, unsigned i, struct oracle_bitmap *b)
{
	uint64_t off = o->bitmap_dir, name_len = 0, extra = 0;
	const unsigned char *p = NULL;

	for (unsigned k = 0; k <= i; k++) {
		p = at(o, off, 24);
		if (!p || off + 24 > o->bitmap_dir + o->bitmap_dir_len)
			return false;
		name_len = (uint64_t)p[18] << 8 | p[19];
		extra = get32(p + 20);
		if (!at(o, off, 24 + extra + name_len))
			return false;
		off += (24 + extra + name_len + 7) / 8 * 8;
	}
	*b = (struct oracle_bitmap){
		.flags = get32(p + 12),
		.granularity_bits = p[17],
		.table = get64(p),
		.table_size = get32(p + 8),
	};
	memcpy(b->name, p + 24 + extra,
	       name_len < sizeof(b->name) ? name_len : sizeof(b->name) - 1);
	return true;
}

bool oracle_bit(const struct oracle *o, const struct oracle_bitmap *b, uint64_t off)
{
	uint64_t bit = off >> b->granularity_bits, per = o->cluster * 8, e;
	const unsigned char *p;

	if (bit / per >= b->table_size)
		return false;
	p = at(o, b->table + bit / per * 8, 8);
	e = p ? get64(p) : 0;
	if (e & 1)
		return true;
	p = e & HOST ? at(o, (e & HOST) + bit % per / 8, 1) : NULL;
	return p && *p >> bit % 8 & 1;
}
