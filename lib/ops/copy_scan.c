// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What of a chunk goes to the target, and in which form.
 *
 * Zeros are looked for in granules; what is written are units (clusters of the target), each of
 * which is data as soon as it holds one granule of data.
 */
#include <assert.h>
#include <errno.h>

#include "base/bytes.h"
#include "ops/copy_impl.h"

/* Bytes from `at` on that are zeros, in whole granules. */
static size_t zeros_at(const struct copy *copy, const unsigned char *buf, size_t at, size_t len)
{
	size_t p = at;

	while (p < len) {
		size_t n = (size_t)min_u64(copy->granule, len - p);

		if (!bytes_are_zero(buf + p, n))
			break;
		p += n;
	}
	return p - at;
}

size_t copy_same(const struct copy *copy, const unsigned char *buf, size_t at, size_t len,
		 bool *zero)
{
	size_t p = at, z = 0;

	while (p < len) {
		z = zeros_at(copy, buf, p, len);
		/* At the edges of a chunk it may be part of a longer one. */
		if (z && (z >= copy->min_zero || p == 0 || p + z == len))
			break;
		p += z;
		if (p < len)
			p += (size_t)min_u64(copy->granule, len - p);
	}
	*zero = p == at;
	return *zero ? z : p - at;
}

static void add_run(struct worker *w, enum run_kind kind, uint64_t base, size_t at, size_t len)
{
	struct run *last = w->n_runs ? &w->run[w->n_runs - 1] : NULL;

	if (last && last->kind == kind && last->off + last->len == base + at) {
		last->len += len;
		last->mem_len += kind == RUN_DATA ? len : 0;
		return;
	}
	w->run[w->n_runs++] = (struct run){
		.kind = kind,
		.off = base + at,
		.len = len,
		.mem = w->buf + at,
		.mem_len = kind == RUN_DATA ? len : 0,
	};
}

/* Units [from, to) of the chunk; whole ones. */
static void scan_plain(struct worker *w, const struct chunk *c, size_t len)
{
	const struct copy *copy = w->copy;
	size_t at = 0, done = 0; /* everything before done is in a run */

	while (at < len) {
		bool zero = false;
		size_t n = copy->min_zero ? copy_same(copy, w->buf, at, len, &zero) : len - at;
		size_t start = zero ? round_up(at, copy->unit) : round_down(at, copy->unit);
		size_t end = zero ? round_down(at + n, copy->unit) : round_up(at + n, copy->unit);

		at += n;
		start = max_u64(start, done);
		if (start >= end)
			continue;
		add_run(w, zero ? RUN_ZERO : RUN_DATA, c->off, start, end - start);
		done = end;
	}
	assert(done == len);
}

/* One unit: compressed if that makes it smaller. *used: bytes of w->out. */
static int scan_unit(struct worker *w, const struct chunk *c, size_t at, size_t *used,
		     struct err *err)
{
	const struct copy *copy = w->copy;
	int64_t n;

	if (copy->min_zero && bytes_are_zero(w->buf + at, copy->unit)) {
		add_run(w, RUN_ZERO, c->off, at, copy->unit);
		return 0;
	}
	n = codec_encode(w->encoder, w->buf + at, copy->unit, w->out + *used, copy->unit - 1, err);
	if (n < 0)
		return (int)n;
	if (n == 0) {
		add_run(w, RUN_DATA, c->off, at, copy->unit);
		return 0;
	}
	w->run[w->n_runs++] = (struct run){
		.kind = RUN_CODED,
		.off = c->off + at,
		.len = copy->unit,
		.mem = w->out + *used,
		.mem_len = (size_t)n,
	};
	*used += (size_t)n;
	return 0;
}

int copy_scan(struct worker *w, const struct chunk *c, struct err *err)
{
	size_t len = (size_t)round_up(c->len, w->copy->unit), used = 0;
	int r = 0;

	w->n_runs = 0;
	if (!w->encoder) {
		scan_plain(w, c, len);
		return 0;
	}
	for (size_t at = 0; r == 0 && at < len; at += w->copy->unit)
		r = scan_unit(w, c, at, &used, err);
	return r;
}
