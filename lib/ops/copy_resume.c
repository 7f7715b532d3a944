// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Continuing a copy: what the journal says is there is given its places again, compared with the
 * source, and kept.
 *
 * Each checkpoint is gone through by itself, which bounds the memory: the builder is asked for its
 * runs in the order in which it was asked before, then a pass over its part of the source compares
 * all of that, by the same workers as a copy. What is behind the last place that a checkpoint names
 * was written later, is perhaps torn, and is cut off: the rest of the file reads as zeros, as that
 * of a new one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "ops/copy_impl.h"

/* ---- comparing ---- */

static int differs(const struct copy *copy, uint64_t at, struct err *err)
{
	return err_set(err, EUCLEAN,
		       "%s: it differs from the source near offset %" PRIu64
		       ", so it cannot be resumed (remove it to begin anew)",
		       copy->out->name, at);
}

/* The first run that ends behind `at`, or n. */
static size_t first_run(const struct kept *kept, uint64_t at)
{
	size_t low = 0, high = kept->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (kept->run[mid].off + kept->run[mid].len > at)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* Reads what the target holds at [off, off+len) of a run into w->out; len <= cap. */
static int read_run(struct worker *w, const struct kept_run *run, uint64_t off, size_t len,
		    struct err *err)
{
	struct copy *copy = w->copy;
	CLEANUP_FREE unsigned char *coded = NULL;
	int r;

	if (run->kind != RUN_CODED) /* zeros at its end may be a hole that nobody wrote */
		return io_pread_tail(copy->out, w->out, len, run->host + (off - run->off), err);
	coded = malloc(run->mem_len);
	if (!coded)
		return err_nomem(err, run->mem_len, "a compressed cluster");
	r = io_pread_tail(copy->out, coded, run->mem_len, run->host, err);
	if (r < 0)
		return r;
	r = codec_decode(copy->kept->pool, copy->args->build->codec, coded, run->mem_len, w->out,
			 len, NULL);
	return r == -EUCLEAN ? differs(copy, off, err) : r;
}

/*
 * A part of a run against data of the source; NULL: against zeros. Compressed units are parts as a
 * whole: chunks consist of whole units.
 */
static int compare_part(struct worker *w, const struct kept_run *run, const unsigned char *data,
			uint64_t off, uint64_t len, struct err *err)
{
	struct copy *copy = w->copy;

	if (run->kind == RUN_ZERO)
		return !data || bytes_are_zero(data, len) ? 0 : differs(copy, off, err);
	for (uint64_t at = 0, n; at < len; at += n) {
		int r;

		n = min_u64(len - at, copy->cap);
		r = job_cancelled(copy->job) ? err_set(err, ECANCELED, "cancelled")
					     : read_run(w, run, off + at, n, err);
		if (r < 0)
			return r;
		if (data ? memcmp(w->out, data + at, n) != 0 : !bytes_are_zero(w->out, n))
			return differs(copy, off + at, err);
	}
	return 0;
}

/* Between the runs nothing was placed: zeros, and with a layer below not even that. */
static int compare_gap(struct copy *copy, const unsigned char *data, uint64_t off, uint64_t len,
		       struct err *err)
{
	if (!len || (!copy->plan.layer && (!data || bytes_are_zero(data, len))))
		return 0;
	return differs(copy, off, err);
}

/* As copy_write.c did when it wrote this part of a run. */
static void note_holes(struct copy *copy, const unsigned char *data, uint64_t off, uint64_t len)
{
	if (!copy->skip_zeros || copy->unit <= copy->granule)
		return;
	for (size_t at = 0, n; at < len; at += n) {
		bool zero;

		n = copy_same(copy, data, at, len, &zero);
		if (zero)
			copy_note_hole(copy, off + at, n);
	}
}

/* Source and target at [off, end), whole units. */
static int compare_runs(struct worker *w, const unsigned char *data, uint64_t off, uint64_t end,
			struct err *err)
{
	struct kept *kept = w->copy->kept;
	uint64_t at = off;
	int r = 0;

	for (size_t i = first_run(kept, off); r == 0 && at < end; i++) {
		const struct kept_run *run = i < kept->n ? &kept->run[i] : NULL;
		uint64_t start = run ? min_u64(max_u64(run->off, at), end) : end;
		uint64_t stop = run ? min_u64(run->off + run->len, end) : end;

		r = compare_gap(w->copy, data ? data + (at - off) : NULL, at, start - at, err);
		if (r == 0 && start < stop)
			r = compare_part(w, run, data ? data + (start - off) : NULL, start,
					 stop - start, err);
		if (r == 0 && start < stop && data && run->kind == RUN_DATA)
			note_holes(w->copy, data + (start - off), start, stop - start);
		if (start < stop)
			atomic_fetch_add(&kept->checked, stop - start);
		at = max_u64(stop, start);
	}
	return r;
}

/* Of a raw target: a hole in both is not read. */
static int compare_zeros(struct worker *w, uint64_t off, uint64_t len, struct err *err)
{
	const struct kept_run all = {.kind = RUN_DATA, .len = off + len};
	struct io *out = w->copy->out;
	uint64_t end = min_u64(off + len, io_size(out));
	int r = 0;

	while (r == 0 && off < end) {
		struct extent e;

		r = io_map(out, off, end - off, &e, err);
		if (r == 0 && e.kind == EXT_DATA)
			r = compare_part(w, &all, NULL, off, e.len, err);
		off += r == 0 ? e.len : 0;
	}
	return r;
}

int copy_verify(struct worker *w, const struct chunk *c, struct err *err)
{
	const struct kept_run all = {.kind = RUN_DATA, .len = c->off + c->len};
	struct copy *copy = w->copy;
	uint64_t end = round_up(c->off + c->len, copy->unit);
	int r = c->zero ? 0 : copy_read(w, c, err);

	if (r < 0)
		return r;
	if (!copy->args->build->identity)
		return compare_runs(w, c->zero ? NULL : w->buf, c->off, end, err);
	return c->zero ? compare_zeros(w, c->off, c->len, err)
		       : compare_part(w, &all, w->buf, c->off, c->len, err);
}

/* ---- giving the places again ---- */

/* Asks the builder as copy_write.c did. */
static int place_again(struct copy *copy, const struct journal_run *run, struct kept_run *kept,
		       struct err *err)
{
	struct build *b = copy->args->build;
	int r;

	*kept = (struct kept_run){.kind = RUN_DATA, .off = run->off, .len = run->len};
	if (run->kind == JOURNAL_CODED) {
		kept->kind = RUN_CODED;
		kept->len = copy->unit;
		kept->mem_len = run->len;
		if (run->len >= copy->unit)
			return err_set(err, EUCLEAN, "a compressed cluster of %" PRIu64 " bytes",
				       run->len);
		return build_reserve_coded(b, run->off, run->len, &kept->host, err);
	}
	if (run->kind == JOURNAL_DATA)
		return build_reserve(b, run->off, run->len, &kept->host, err);
	kept->kind = RUN_ZERO;
	r = build_zero(b, run->off, run->len, err);
	if (r != -ENOTSUP)
		return r;
	kept->kind = RUN_DATA;
	return build_reserve(b, run->off, run->len, &kept->host, err);
}

/* What the journal can only have got from somebody else. */
static int check_checkpoint(const struct copy *copy, const struct journal_checkpoint *c,
			    struct err *err)
{
	uint64_t size = io_size(copy->args->src), end = round_up(c->end, copy->unit), from = 0;
	/* A part of a long checkpoint ends where a run begins. */
	uint64_t align = copy->args->build->identity ? copy->plan.align : copy->unit;

	if (c->end > size || (c->end < size && !is_aligned(c->end, align)))
		return err_set(err, EUCLEAN, "a checkpoint at offset %" PRIu64, c->end);
	if (c->n && copy->args->build->identity)
		return err_set(err, EUCLEAN, "places in an image that has none");
	for (size_t i = 0; i < c->n; i++) {
		const struct journal_run *run = &c->run[i];
		uint64_t len = run->kind == JOURNAL_CODED ? copy->unit : run->len;

		if (run->off < from || run->off > end || len > end - run->off)
			return err_set(err, EUCLEAN, "a run at offset %" PRIu64, run->off);
		from = run->off + len;
	}
	return 0;
}

/* *host_end: where the data ends that was placed so far. */
static int place_all(struct copy *copy, const struct journal_checkpoint *c, struct kept *kept,
		     uint64_t *host_end, struct err *err)
{
	int r = check_checkpoint(copy, c, err);

	kept->run = calloc(c->n + 1, sizeof(*kept->run));
	if (!kept->run)
		return err_nomem(err, c->n * sizeof(*kept->run), "the runs of a checkpoint");
	for (; r == 0 && kept->n < c->n; kept->n++) {
		struct kept_run *k = &kept->run[kept->n];

		r = place_again(copy, &c->run[kept->n], k, err);
		if (r == 0 && k->kind == RUN_CODED && !kept->pool)
			r = codec_pool_open(&kept->pool, err);
		if (r == 0 && k->kind != RUN_ZERO)
			*host_end =
				max_u64(*host_end, k->host + (k->mem_len ? k->mem_len : k->len));
	}
	if (copy->args->build->identity)
		*host_end = c->end;
	return r;
}

/* ---- the whole ---- */

/* What was placed and not met in the source any more. */
static int check_all_met(const struct copy *copy, struct err *err)
{
	uint64_t len = 0;

	for (size_t i = 0; i < copy->kept->n; i++)
		len += copy->kept->run[i].len;
	return atomic_load(&copy->kept->checked) == len ? 0 : differs(copy, copy->start, err);
}

static int verify_checkpoint(struct copy *copy, const struct journal_checkpoint *c,
			     uint64_t *host_end, struct err *err)
{
	struct kept kept = {0};
	uint64_t size = copy->plan.size;
	int r = place_all(copy, c, &kept, host_end, err);

	if (r < 0) {
		err_ctx(err, r, "the journal of '%s' cannot be", copy->out->name);
	} else {
		copy->kept = &kept;
		copy->plan.size = c->end;
		r = copy_pass(copy, err);
		copy->plan.size = size;
		if (r == 0)
			r = check_all_met(copy, err);
		copy->kept = NULL;
	}
	codec_pool_close(kept.pool);
	free(kept.run);
	return r;
}

/* Everything behind `end` reads as zeros again. */
static int cut_target(struct copy *copy, uint64_t end, struct err *err)
{
	int r = io_resize(copy->out, end, err);

	if (r == 0 && copy->args->build->identity)
		r = io_resize(copy->out, copy->args->build->size, err);
	return r;
}

int copy_resume(struct copy *copy, struct err *err)
{
	struct journal *journal = copy->args->journal;
	bool want_zeros = copy->plan.want_zeros;
	struct journal_checkpoint c;
	uint64_t host_end = 0;
	int r;

	copy->plan.want_zeros = true; /* they are compared, too */
	while ((r = journal_next(journal, &c, err)) > 0) {
		r = verify_checkpoint(copy, &c, &host_end, err);
		if (r < 0)
			break;
		copy->start = c.end;
	}
	copy->plan.want_zeros = want_zeros;
	if (r == 0)
		r = cut_target(copy, host_end, err);
	if (r == 0 && copy->start && copy->args->resumed)
		copy->args->resumed(copy->args->warn_ctx, copy->start);
	return r;
}
