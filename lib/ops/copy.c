// SPDX-License-Identifier: LGPL-2.1-or-later
/* The engine of convert; see copy.h. */
#include "ops/copy.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "ops/copy_impl.h"

/*
 * Large enough that system calls do not count, small enough that a chunk is still in the cache of
 * its CPU when it is written.
 */
#define CHUNK (1 * MiB)
/* Of zeros, that is worth another request. Over an image that stays, all are told. */
#define MIN_GAP (256 * KiB)
/* Runs of zeros are looked for in chunks that are as long: it bounds the memory of a worker. */
#define MAX_SPARSE (16 * MiB)

/* ---- turns ---- */

/* False: somebody failed, it will never come. */
static bool turn_wait(struct copy *copy, uint64_t ticket)
{
	LOCK_SCOPE(&copy->turn_lock);

	while (copy->turn != ticket && !atomic_load(&copy->stop))
		pthread_cond_wait(&copy->turn_cond, &copy->turn_lock);
	return copy->turn == ticket;
}

static void turn_pass(struct copy *copy)
{
	LOCK_SCOPE(&copy->turn_lock);

	copy->turn++;
	pthread_cond_broadcast(&copy->turn_cond);
}

static void stop_all(struct copy *copy)
{
	LOCK_SCOPE(&copy->turn_lock);

	atomic_store(&copy->stop, true);
	pthread_cond_broadcast(&copy->turn_cond);
	copy_note_stop(copy);
}

/* ---- one chunk ---- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Sleeps until `len` bytes may be moved; in short steps, to see a cancel. */
static void throttle(struct copy *copy, uint64_t len)
{
	uint64_t start, now = now_ns();

	if (!copy->args->rate)
		return;
	pthread_mutex_lock(&copy->rate_lock);
	start = max_u64(copy->rate_next, now);
	copy->rate_next = start + (uint64_t)((double)len * 1e9 / (double)copy->args->rate);
	pthread_mutex_unlock(&copy->rate_lock);
	while (now < start && !job_cancelled(copy->job) && !atomic_load(&copy->stop)) {
		uint64_t ns = min_u64(start - now, 50000000);
		struct timespec ts = {.tv_nsec = (long)ns};

		nanosleep(&ts, NULL);
		now = now_ns();
	}
}

/* In the turn: a place for everything, and the data too if that has to be in order. 1: it never came. */
static int do_turn(struct worker *w, const struct chunk *c, struct err *err)
{
	struct copy *copy = w->copy;
	int r;

	if (!copy->any_order && !turn_wait(copy, c->ticket))
		return 1;
	r = c->zero ? copy_zero(copy, c, err) : copy_place(w, err);
	if (r == 0 && !c->zero && copy->writing && copy->write_in_turn)
		r = copy_write(w, err);
	if (r == 0 && !copy->any_order)
		turn_pass(copy);
	return r;
}

/* All of it as one run, without looking at it. */
static int offload_chunk(struct worker *w, const struct chunk *c, struct err *err)
{
	uint64_t len = round_up(c->len, w->copy->unit);
	int r;

	w->run[0] = (struct run){
		.kind = RUN_DATA, .off = c->off, .len = len, .mem = w->buf, .mem_len = len};
	w->n_runs = 1;
	r = do_turn(w, c, err);
	if (r != 0 || copy_offload(w, c))
		return r;
	r = copy_read(w, c, err);
	return r < 0 ? r : copy_write(w, err);
}

/* 1: it was not done, because somebody failed. What has its place is finished in any case. */
static int do_chunk(struct worker *w, const struct chunk *c, struct err *err)
{
	struct copy *copy = w->copy;
	int r;

	w->n_runs = 0;
	if (copy->kept && !c->zero)
		throttle(copy, c->len);
	if (copy->kept)
		return copy_verify(w, c, err);
	if (c->zero)
		return do_turn(w, c, err);
	throttle(copy, c->len);
	if (copy->clone)
		return copy_clone(w, c, err);
	if (atomic_load(&copy->offload))
		return offload_chunk(w, c, err);
	r = copy_read(w, c, err);
	if (r == 0)
		r = copy_scan(w, c, err);
	if (r == 0)
		r = do_turn(w, c, err);
	if (r == 0 && copy->writing && !copy->write_in_turn)
		r = copy_write(w, err);
	return r;
}

/* ---- workers ---- */

static void worker_free(struct worker *w)
{
	codec_encoder_close(w->encoder);
	free(w->buf);
	free(w->out);
	free(w->run);
}

static int worker_init(struct worker *w, struct copy *copy, struct err *err)
{
	const struct copy_args *a = copy->args;
	size_t step = (size_t)max_u64(copy->unit, a->compress ? 1 : copy->granule);
	size_t runs = copy->cap / step + 2;

	*w = (struct worker){.copy = copy};
	w->run = calloc(runs, sizeof(*w->run));
	if (!w->run || posix_memalign((void **)&w->buf, 4096, copy->cap) ||
	    ((a->compress || copy->kept) && posix_memalign((void **)&w->out, 4096, copy->cap)))
		return err_nomem(err, copy->cap, "a copy buffer");
	if (a->compress && !copy->kept) {
		const struct codec_params params = {
			.type = copy->codec,
			.level = a->level,
			.unit = copy->unit,
			.narrow = a->narrow,
		};

		return codec_encoder_open(&params, &w->encoder, err);
	}
	return 0;
}

/* The next chunk; like plan_next. */
static int take_chunk(struct worker *w, struct chunk *c, struct err *err)
{
	struct copy *copy = w->copy;
	LOCK_SCOPE(&copy->plan_lock);
	int r = plan_next(&copy->plan, c, w->buf, err);

	if (r > 0)
		copy_note_take(copy, c);
	if (r <= 0 || !copy->plan.stream)
		return r;
	if (copy->args->build) {
		int s = build_set_size(copy->args->build, copy->plan.size, err);

		return s < 0 ? s : r;
	}
	if (copy->plan.size > io_size(copy->out))
		return err_set(err, ENOSPC, "output file is smaller than input file");
	return r;
}

static int copy_chunks(struct worker *w, struct err *err)
{
	struct copy *copy = w->copy;
	struct chunk c;
	int r = 0;

	while (!atomic_load(&copy->stop)) {
		if (job_cancelled(copy->job))
			return err_set(err, ECANCELED, "cancelled");
		r = take_chunk(w, &c, err);
		if (r <= 0)
			break;
		r = do_chunk(w, &c, err);
		if (r == 0)
			r = copy_note_done(w, &c, err);
		if (r != 0)
			break;
		if (copy->writing)
			job_advance(copy->job, c.len);
	}
	return r;
}

static int work(void *ctx, unsigned index, struct err *err)
{
	struct copy *copy = ctx;
	struct worker w;
	int r = worker_init(&w, copy, err);

	(void)index;
	if (r == 0)
		r = copy_chunks(&w, err);
	if (r < 0)
		stop_all(copy);
	worker_free(&w);
	return r;
}

/* ---- the whole ---- */

int copy_pass(struct copy *copy, struct err *err)
{
	const struct copy_args *a = copy->args;
	unsigned n = a->workers ? a->workers : work_cpus();

	copy->plan.pos = copy->start;
	copy->plan.tickets = copy->turn = 0;
	copy->plan.ext.len = 0;
	copy->plan.count = copy->writing;
	return work_run(n, work, copy, err);
}

static int run_two_passes(struct copy *copy, struct err *err)
{
	uint64_t placed;
	int r;

	copy->writing = false;
	r = copy_pass(copy, err);
	if (r == 0)
		r = build_finish(copy->args->build, err);
	if (r < 0)
		return r;
	placed = copy->placed;
	copy->placed = 0;
	copy->placing = false;
	copy->writing = true;
	r = copy_pass(copy, err);
	if (r == 0 && copy->placed != placed)
		return err_set(err, EIO, "%s: the source changed while it was read",
			       copy->args->src->name);
	return r;
}

static void init_target(struct copy *copy)
{
	const struct copy_args *args = copy->args;
	struct img *img = args->dst && io_is_img(args->dst) ? io_img(args->dst) : NULL;

	copy->out = args->build ? args->build->data : args->dst;
	if (args->build) {
		copy->unit = args->build->unit;
		copy->codec = args->build->codec;
		return;
	}
	copy->unit = img ? img->unit : 1;
	if (!args->compress)
		return;
	assert(img && img->fmt->place_coded);
	copy->coded_out = img;
	copy->codec = img->codec;
}

static void init(struct copy *copy, const struct copy_args *args, struct job *job)
{
	uint64_t sparse = min_u64(args->sparse, MAX_SPARSE);

	*copy = (struct copy){.args = args, .job = job, .placing = true, .writing = true};
	pthread_mutex_init(&copy->plan_lock, NULL);
	pthread_mutex_init(&copy->turn_lock, NULL);
	pthread_mutex_init(&copy->rate_lock, NULL);
	pthread_mutex_init(&copy->warn_lock, NULL);
	pthread_cond_init(&copy->turn_cond, NULL);
	init_target(copy);
	copy->min_zero = sparse;
	copy->granule = sparse ? UINT64_C(1) << (63 - __builtin_clzll(max_u64(sparse, 512))) : 4096;
	atomic_init(&copy->offload, args->offload);
	copy->plan = (struct plan){
		.src = args->src,
		.job = job,
		.layer = args->layer,
		.below = args->layer && args->layer->backing ? io_size(&args->layer->backing->io)
							     : 0,
		.backing_size = args->backing_size,
		.above = args->above,
		.base = args->base,
		.only = args->only,
		.stream = args->src->caps & IO_STREAM,
		.all_data = !sparse && !args->above,
		.salvage = args->salvage,
		.align = max_u64(copy->unit, copy->granule),
		.size = io_size(args->src),
	};
	copy->plan.gap = args->above || args->only ? copy->plan.align : MIN_GAP;
	copy->plan.chunk = max_u64(CHUNK, copy->plan.align);
	copy->cap = copy->plan.chunk;
}

static void destroy(struct copy *copy)
{
	pthread_mutex_destroy(&copy->plan_lock);
	pthread_mutex_destroy(&copy->turn_lock);
	pthread_mutex_destroy(&copy->rate_lock);
	pthread_mutex_destroy(&copy->warn_lock);
	pthread_cond_destroy(&copy->turn_cond);
}

/* One pass, behind what a journal says is done. */
static int run_one_pass(struct copy *copy, struct err *err)
{
	int r = copy_notes_open(copy, err);

	if (r == 0 && copy->args->journal)
		r = copy_resume(copy, err);
	if (r == 0) {
		int last;

		r = copy_pass(copy, err);
		/* After a failure, too: that is what it is for. */
		last = copy_note_last(copy, r < 0 ? NULL : err);
		r = r < 0 ? r : last;
	}
	copy_notes_close(copy);
	if (r == 0 && copy->args->build)
		r = build_finish(copy->args->build, err);
	return r;
}

int copy_run(const struct copy_args *args, struct job *job, struct err *err)
{
	struct build *b = args->build;
	struct copy copy;
	int r;

	init(&copy, args, job);
	if (!args->part)
		job_total(job, copy.plan.stream ? 0 : copy.plan.size);
	r = copy_prepare_target(&copy, err);
	if (r == 0)
		r = b && b->two_pass ? run_two_passes(&copy, err) : run_one_pass(&copy, err);
	destroy(&copy);
	return r;
}
