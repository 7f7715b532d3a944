// SPDX-License-Identifier: LGPL-2.1-or-later
/* The tables of an image that is being made, in memory; see build.h. */
#include "formats/qcow2/build.h"

#include <assert.h>
#include <stdlib.h>

#define MAX_PAGE_BITS 6

/* ---- L2 entries ---- */

int l2_tables_init(struct l2_tables *t, uint64_t l1_entries, unsigned l2_bits, bool extended,
		   struct err *err)
{
	t->extended = extended;
	t->l2_bits = l2_bits;
	t->page_bits = l2_bits < MAX_PAGE_BITS ? l2_bits : MAX_PAGE_BITS;
	return l2_tables_grow(t, l1_entries, err);
}

static unsigned words(const struct l2_tables *t)
{
	return t->extended ? 2 : 1;
}

static uint64_t pages_per_table(const struct l2_tables *t)
{
	return UINT64_C(1) << (t->l2_bits - t->page_bits);
}

void l2_tables_free(struct l2_tables *t)
{
	for (uint64_t i = 0; i < t->n; i++) {
		if (!t->table[i])
			continue;
		for (uint64_t k = 0; k < pages_per_table(t); k++)
			free(t->table[i][k]);
		free(t->table[i]);
	}
	free(t->table);
	t->table = NULL;
	t->n = 0;
}

int l2_tables_grow(struct l2_tables *t, uint64_t l1_entries, struct err *err)
{
	be64 ***v;

	if (l1_entries <= t->n)
		return 0;
	/* calloc of a large table takes memory only for what is touched: no copy if there is none. */
	if (!t->n) {
		v = calloc(l1_entries, sizeof(*v));
	} else {
		v = reallocarray(t->table, l1_entries, sizeof(*v));
		if (v)
			memset(v + t->n, 0, (l1_entries - t->n) * sizeof(*v));
	}
	if (!v)
		return err_nomem(err, l1_entries * sizeof(*v), "the L1 table");
	t->table = v;
	t->n = l1_entries;
	return 0;
}

int l2_tables_prepare(struct l2_tables *t, uint64_t first, uint64_t n, struct err *err)
{
	for (uint64_t p = first >> t->page_bits; p <= (first + n - 1) >> t->page_bits; p++) {
		uint64_t i = p >> (t->l2_bits - t->page_bits);
		be64 **page;

		assert(i < t->n);
		if (!t->table[i]) {
			t->table[i] = calloc(pages_per_table(t), sizeof(be64 *));
			if (!t->table[i])
				return err_nomem(err, pages_per_table(t) * sizeof(be64 *),
						 "an L2 table");
			t->used++;
		}
		page = &t->table[i][p & (pages_per_table(t) - 1)];
		if (!*page)
			*page = calloc((size_t)words(t) << t->page_bits, sizeof(be64));
		if (!*page)
			return err_nomem(err, sizeof(be64) << t->page_bits, "an L2 table");
	}
	return 0;
}

/* The words of an entry; NULL: nothing was prepared there. */
static be64 *slot(const struct l2_tables *t, uint64_t index)
{
	be64 **table = t->table[index >> t->l2_bits];
	be64 *page = table ? table[(index >> t->page_bits) & (pages_per_table(t) - 1)] : NULL;

	return page ? page + (index & ((UINT64_C(1) << t->page_bits) - 1)) * words(t) : NULL;
}

void l2_tables_set(struct l2_tables *t, uint64_t index, uint64_t entry)
{
	*slot(t, index) = be64_make(entry);
}

void l2_tables_hole(struct l2_tables *t, uint64_t index, uint32_t mask, bool hidden)
{
	be64 *v = slot(t, index);
	uint64_t holes = be64_get(v[1]) | mask;

	v[1] = be64_make(hidden ? holes | (uint64_t)mask << 32 : holes);
}

/* Host offsets grow in the low bits of every entry that has one. */
static be64 shift_entry(be64 entry, uint64_t shift)
{
	uint64_t e = be64_get(entry);

	return (e & ENTRY_COMPRESSED) || (e & ENTRY_COPIED) ? be64_make(e + shift) : entry;
}

/*
 * All subclusters are alike, zeros, data or nothing, as `given`, a standard entry, says; but those in
 * the lower half of `holes` are not data, and those in the upper half are zeros.
 */
static void put_extended(uint64_t entry, uint64_t given, uint64_t holes, be64 *out)
{
	uint64_t all = UINT32_MAX, bitmap = 0;

	if (!(entry & ENTRY_COMPRESSED)) {
		entry &= ~ENTRY_ZERO;
		if (given & ENTRY_ZERO)
			bitmap = all << 32;
		else if (given)
			bitmap = (all & ~holes) | (holes & all << 32);
	}
	out[0] = be64_make(entry);
	out[1] = be64_make(bitmap);
}

void l2_tables_put(const struct l2_tables *t, uint64_t index, uint64_t entry, be64 *out)
{
	const be64 *v = slot(t, index);

	put_extended(entry, v ? be64_get(v[0]) : 0, v ? be64_get(v[1]) : 0, out);
}

bool l2_tables_copy(const struct l2_tables *t, uint64_t i, uint64_t shift, be64 *out)
{
	uint64_t page_entries = UINT64_C(1) << t->page_bits, n = words(t);

	if (!t->table[i])
		return false;
	for (uint64_t k = 0; k < pages_per_table(t); k++, out += page_entries * n) {
		const be64 *page = t->table[i][k];

		if (!page)
			memset(out, 0, page_entries * n * sizeof(*out));
		for (uint64_t e = 0; page && e < page_entries; e++) {
			be64 entry = shift_entry(page[e * n], shift);

			if (t->extended)
				put_extended(be64_get(entry), be64_get(entry),
					     be64_get(page[e * n + 1]), out + e * n);
			else
				out[e] = entry;
		}
	}
	return true;
}

/* ---- refcounts ---- */

void data_refs_free(struct data_refs *refs)
{
	for (uint64_t i = 0; i < refs->n; i++)
		free(refs->block[i]);
	free(refs->block);
	refs->block = NULL;
	refs->n = 0;
}

void data_refs_start(struct data_refs *refs, uint64_t next)
{
	if (refs->counting)
		return;
	refs->counting = true;
	refs->ones = next;
}

int data_refs_prepare(struct data_refs *refs, uint64_t first, uint64_t n, struct err *err)
{
	uint64_t need = ((first + n - 1 - refs->ones) >> refs->block_bits) + 1;
	size_t bytes = ((size_t)1 << refs->block_bits << refs->order) / 8;

	while (refs->n < need) {
		unsigned char **v = reallocarray(refs->block, refs->n + 1, sizeof(*v));

		if (v)
			refs->block = v;
		if (v)
			v[refs->n] = calloc(1, bytes);
		if (!v || !v[refs->n])
			return err_nomem(err, bytes, "a refcount block");
		refs->n++;
	}
	return 0;
}

void data_refs_add(struct data_refs *refs, uint64_t cluster)
{
	uint64_t i = cluster - refs->ones, mask = (UINT64_C(1) << refs->block_bits) - 1;
	unsigned char *block = refs->block[i >> refs->block_bits];

	refcount_store(block, refs->order, i & mask,
		       refcount_load(block, refs->order, i & mask) + 1);
}

uint64_t data_refs_get(const struct data_refs *refs, uint64_t cluster)
{
	uint64_t i = cluster - refs->ones;

	if (!refs->counting || cluster < refs->ones)
		return 1;
	if (i >> refs->block_bits >= refs->n)
		return 0;
	return refcount_load(refs->block[i >> refs->block_bits], refs->order,
			     i & ((UINT64_C(1) << refs->block_bits) - 1));
}
