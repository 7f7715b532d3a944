// SPDX-License-Identifier: LGPL-2.1-or-later
/* Placing and writing what a chunk consists of. */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "io/file.h"
#include "ops/copy_impl.h"

/* A target that holds something already: zeros where nothing will be written, if that is cheap. */
static int clear_target(struct copy *copy, struct err *err)
{
	struct io *out = copy->out;
	/* What lies behind the source's end in a larger target is not ours. */
	uint64_t len = copy->plan.stream ? 0 : min_u64(copy->plan.size, io_size(out));
	int r = -ENOTSUP;

	if (len)
		r = io_zero(out, 0, len, IO_ZERO_UNMAP | IO_ZERO_FAST, err);
	copy->plan.want_zeros = r < 0;
	copy->skip_zeros = r == 0;
	return r == -ENOTSUP ? 0 : r;
}

static int prepare_build(struct copy *copy, struct err *err)
{
	struct build *b = copy->args->build;
	bool fresh = copy->out->caps & IO_GROWS;

	copy->any_order = b->identity || b->preallocated;
	copy->write_in_turn = copy->out->caps & IO_STREAM;
	copy->skip_zeros = fresh || b->preallocated;
	copy->reserve = fresh && !b->preallocated;
	copy->plan.want_zeros = copy->args->layer != NULL;
	if (copy->write_in_turn)
		copy->any_order = false;
	/* A device under a raw image holds what it held before. */
	return b->identity && !copy->skip_zeros ? clear_target(copy, err) : 0;
}

static int prepare_image(struct copy *copy, struct err *err)
{
	struct img *img = io_is_img(copy->out) ? io_img(copy->out) : NULL;
	bool allocates = img && img->fmt->place;

	if (copy->args->above && allocates && (img->data->caps & IO_CLONES))
		copy->clone = img;
	copy->any_order = !allocates;
	copy->write_in_turn = allocates;
	copy->skip_zeros = copy->args->dst_zero;
	copy->plan.want_zeros = !copy->args->dst_zero;
	if (copy->args->dst_zero || copy->args->layer || copy->args->above || copy->args->base ||
	    copy->args->only || (img && img->backing))
		return 0;
	return clear_target(copy, err);
}

int copy_prepare_target(struct copy *copy, struct err *err)
{
	int r = copy->args->build ? prepare_build(copy, err) : prepare_image(copy, err);

	if (copy->args->unordered && !(copy->out->caps & IO_STREAM)) {
		copy->any_order = true;
		copy->write_in_turn = false;
	}
	/* "Write all zeros" goes before "zeros are there". The kernel needs zeros to be there. */
	if (!copy->min_zero)
		copy->skip_zeros = false;
	if (!copy->skip_zeros || copy->write_in_turn || copy->args->compress)
		atomic_store(&copy->offload, false);
	return r;
}

/*
 * Where an image that was there before ends for us: its last unit may be cut short, and behind the end
 * of the source it keeps what it has.
 */
static uint64_t target_end(const struct copy *copy)
{
	uint64_t size = io_size(copy->out);

	return copy->args->build ? size : min_u64(size, copy->plan.size);
}

/* ---- places ---- */

static int write_failed(const struct run *run, int r, struct err *err)
{
	return err_ctx(err, r, "error while writing at byte %" PRIu64, run->off);
}

static void note_placed(struct copy *copy, uint64_t len)
{
	/* Otherwise nobody asks, and workers may be here at the same time. */
	if (copy->args->build && copy->args->build->two_pass)
		copy->placed += len;
}

/* Zeros as data, for formats without marks for them. */
static int write_zeros(struct copy *copy, uint64_t off, uint64_t len, struct err *err)
{
	struct build *b = copy->args->build;
	uint64_t host = copy->placed + b->data_start;
	int r = 0;

	if (copy->placing)
		r = build_reserve(b, off, len, &host, err);
	note_placed(copy, len);
	return r < 0 || !copy->writing ? r : io_zero(copy->out, host, len, 0, err);
}

/* Units that have to read as zeros. */
static int zero_run(struct copy *copy, uint64_t off, uint64_t len, struct err *err)
{
	struct build *b = copy->args->build;
	int r;

	if (!b || b->identity)
		return io_zero(copy->out, off, min_u64(len, target_end(copy) - off), IO_ZERO_UNMAP,
			       err);
	/* Saying it in both passes of a stream does no harm. */
	r = build_zero(b, off, round_up(len, b->unit), err);
	return r == -ENOTSUP ? write_zeros(copy, off, round_up(len, b->unit), err) : r;
}

static int place_run(struct copy *copy, struct run *run, struct err *err)
{
	struct build *b = copy->args->build;

	if (run->kind == RUN_ZERO)
		return copy->plan.want_zeros ? zero_run(copy, run->off, run->len, err) : 0;
	if (!copy->placing) { /* they lie one behind the other */
		run->host = copy->placed + b->data_start;
		note_placed(copy, run->len);
		return 0;
	}
	note_placed(copy, run->len);
	run->host = run->off;
	if (!b)
		return 0;
	if (run->kind == RUN_CODED)
		return build_reserve_coded(b, run->off, run->mem_len, &run->host, err);
	return build_reserve(b, run->off, run->len, &run->host, err);
}

int copy_place(struct worker *w, struct err *err)
{
	for (size_t i = 0; i < w->n_runs; i++) {
		int r = place_run(w->copy, &w->run[i], err);

		if (r < 0)
			return write_failed(&w->run[i], r, err);
	}
	return 0;
}

int copy_zero(struct copy *copy, const struct chunk *c, struct err *err)
{
	const struct run run = {.off = c->off};
	int r = zero_run(copy, c->off, c->len, err);

	return r < 0 ? write_failed(&run, r, err) : 0;
}

/* ---- data ---- */

static int write_at(struct copy *copy, const void *mem, size_t len, uint64_t host, struct err *err)
{
	int r = 0;

	if (!copy->args->build)
		len = (size_t)min_u64(len, target_end(copy) - host);
	if (copy->reserve)
		r = file_reserve(copy->out, host, len, err);
	return r < 0 ? r : io_pwrite(copy->out, mem, len, host, err);
}

/* Zeros in a place that reads so, from guest offset off on: nothing to write. */
void copy_note_hole(struct copy *copy, uint64_t off, uint64_t len)
{
	if (copy->args->build)
		build_hole(copy->args->build, off, len);
}

/* Parts of a data run that are zeros stay holes. */
static int write_sparse(struct copy *copy, const struct run *run, struct err *err)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < run->mem_len) {
		bool zero;
		size_t n = copy_same(copy, run->mem, at, run->mem_len, &zero);

		if (zero)
			copy_note_hole(copy, run->off + at, n);
		else
			r = write_at(copy, run->mem + at, n, run->host + at, err);
		at += n;
	}
	return r;
}

int copy_write(struct worker *w, struct err *err)
{
	struct copy *copy = w->copy;
	bool sparse = copy->skip_zeros && copy->unit > copy->granule;
	size_t i = 0;

	while (i < w->n_runs) {
		const struct run *run = &w->run[i++];
		uint64_t len = run->mem_len;
		int r;

		if (run->kind == RUN_ZERO)
			continue;
		if (run->kind == RUN_CODED && copy->coded_out) {
			r = img_write_coded(copy->coded_out, run->mem, run->mem_len, run->off, err);
			if (r < 0)
				return write_failed(run, r, err);
			continue;
		}
		/* Neighbours here and there: compressed units above all. */
		while (i < w->n_runs && !(sparse && run->kind == RUN_DATA) &&
		       w->run[i].kind == run->kind && w->run[i].mem == run->mem + len &&
		       w->run[i].host == run->host + len)
			len += w->run[i++].mem_len;
		if (sparse && run->kind == RUN_DATA)
			r = write_sparse(copy, run, err);
		else
			r = write_at(copy, run->mem, (size_t)len, run->host, err);
		if (r < 0)
			return write_failed(run, r, err);
	}
	return 0;
}
