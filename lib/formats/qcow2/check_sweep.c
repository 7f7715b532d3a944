// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Tables of pointers, each stretch of the file read once.
 *
 * L1 tables of snapshots and bitmap tables of a sane image do not overlap. Those of a hostile one
 * may all lie on top of each other, 65536 times 32 MiB. So they are not read one by one: a sweep
 * over the sorted starts and ends tells for each stretch of the file how many tables share it, and
 * its entries count as often. The work is bounded by the size of the file, whatever it says.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/check_impl.h"

struct event {
	uint64_t at;
	int64_t active, total; /* change of the numbers of tables from here on */
};

int check_refs_push(struct table_refs *list, uint64_t off, uint64_t bytes, unsigned active)
{
	if (list->n == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : 64;
		struct table_ref *v = realloc(list->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		list->v = v;
		list->cap = cap;
	}
	list->v[list->n++] = (struct table_ref){off, bytes, active};
	return 0;
}

static int event_order(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

int check_sweep(const struct table_refs *list, check_stretch_fn *fn, void *ctx, struct err *err)
{
	CLEANUP_FREE struct event *ev = NULL;
	int64_t active = 0, total = 0;
	int r = 0;

	if (!list->n)
		return 0;
	ev = malloc(2 * list->n * sizeof(*ev));
	if (!ev)
		return err_nomem(err, 2 * list->n * sizeof(*ev), "the list of tables");
	for (size_t i = 0; i < list->n; i++) {
		const struct table_ref *t = &list->v[i];

		ev[2 * i] = (struct event){t->off, (int64_t)t->active, 1};
		ev[2 * i + 1] = (struct event){t->off + t->bytes, -(int64_t)t->active, -1};
	}
	qsort(ev, 2 * list->n, sizeof(*ev), event_order);
	for (size_t i = 0; r == 0 && i + 1 < 2 * list->n; i++) {
		active += ev[i].active;
		total += ev[i].total;
		if (total > 0 && ev[i + 1].at > ev[i].at)
			r = fn(ctx, ev[i].at, ev[i + 1].at - ev[i].at, (uint64_t)active,
			       (uint64_t)total, err);
	}
	return r;
}

bool check_hole(struct check *ck, struct extent *seen, uint64_t off, uint64_t bytes)
{
	if (off >= ck->file_size)
		return true;
	bytes = min_u64(bytes, ck->file_size - off);
	if (!seen->len || off < seen->off || off >= seen->off + seen->len) {
		if (io_map(ck->file, off, ck->file_size - off, seen, NULL) < 0) {
			seen->len = 0;
			return false;
		}
	}
	return (seen->kind == EXT_ZERO || seen->kind == EXT_ABSENT) &&
	       bytes <= seen->off + seen->len - off;
}

static int each_in_buffer(const be64 *v, size_t n, uint64_t at, check_entry_fn *fn, void *ctx,
			  struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t value = be64_get(v[i]);
		int r = value ? fn(ctx, at + i * 8, value, err) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

#define ENTRY_BUFFER (64 * KiB)

int check_each_entry(struct check *ck, uint64_t off, uint64_t bytes, check_entry_fn *fn, void *ctx,
		     struct err *err)
{
	CLEANUP_FREE be64 *buf = malloc(ENTRY_BUFFER);
	struct extent seen = {0};
	uint64_t end = off >= ck->file_size ? off : off + min_u64(bytes, ck->file_size - off);
	int r = 0;

	if (!buf)
		return err_nomem(err, ENTRY_BUFFER, "a table");
	for (size_t n; r == 0 && off < end; off += n) {
		n = (size_t)min_u64(bytes, ENTRY_BUFFER);
		bytes -= n;
		if (job_cancelled(ck->job))
			return err_set(err, ECANCELED, "cancelled");
		if (check_hole(ck, &seen, off, n))
			continue;
		r = io_pread_tail(ck->file, buf, n, off, err);
		if (r == 0 && !bytes_are_zero(buf, n))
			r = each_in_buffer(buf, n / 8, off, fn, ctx, err);
	}
	return r;
}
