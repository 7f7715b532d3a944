// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * How far a copy is, for its journal.
 *
 * Chunks are handed out in guest order and finished in any. Each one that was taken has an entry in
 * a ring; when the first of them is done, and those behind it, their runs move to the end of one
 * list: so the list is in the order of the tickets, which is the order in which the places were
 * given, and everything below its end is written. Now and then a worker flushes the target and puts
 * the list into the journal, while the others go on.
 *
 * Invariant: a checkpoint is appended after a flush that began when all its data was written.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "ops/copy_impl.h"

/* A flush has to be rare enough to cost little, and what a crash can undo must be little. */
#define INTERVAL_MIN (8 * MiB)
#define INTERVAL_MAX (256 * MiB)

int copy_notes_open(struct copy *copy, struct err *err)
{
	const struct copy_args *a = copy->args;
	struct notes *notes;

	if (!a->journal)
		return 0;
	assert(a->build && (copy->out->caps & IO_GROWS) && !(copy->out->caps & IO_STREAM));
	assert(!copy->plan.stream && !a->unordered && !a->salvage && !a->build->preallocated);
	notes = calloc(1, sizeof(*notes));
	if (!notes)
		return err_nomem(err, sizeof(*notes), "the notes for a journal");
	pthread_mutex_init(&notes->lock, NULL);
	pthread_cond_init(&notes->cond, NULL);
	notes->interval = a->checkpoint ? a->checkpoint : INTERVAL_MIN;
	copy->notes = notes;
	return 0;
}

void copy_notes_close(struct copy *copy)
{
	struct notes *notes = copy->notes;

	copy->notes = NULL;
	if (!notes)
		return;
	for (size_t i = 0; i < NOTED_MAX; i++)
		free(notes->ring[i].run);
	free(notes->run);
	pthread_mutex_destroy(&notes->lock);
	pthread_cond_destroy(&notes->cond);
	free(notes);
}

void copy_note_stop(struct copy *copy)
{
	if (!copy->notes)
		return;
	LOCK_SCOPE(&copy->notes->lock);
	pthread_cond_broadcast(&copy->notes->cond);
}

static struct noted *entry_of(struct notes *notes, uint64_t ticket)
{
	return &notes->ring[ticket % NOTED_MAX];
}

void copy_note_take(struct copy *copy, const struct chunk *c)
{
	struct notes *notes = copy->notes;

	if (!notes || copy->kept)
		return;
	LOCK_SCOPE(&notes->lock);
	/* The slowest one holds no lock that is held here. */
	while (notes->tail - notes->head == NOTED_MAX && !atomic_load(&copy->stop))
		pthread_cond_wait(&notes->cond, &notes->lock);
	if (notes->tail - notes->head == NOTED_MAX || c->ticket != notes->tail)
		return; /* after a stop: what is not noted is done again */
	*entry_of(notes, notes->tail++) = (struct noted){
		.end = c->off + c->len,
		.len = c->zero ? 0 : c->len,
	};
}

/* ---- what was done ---- */

/* Adds a run to a list that has room, or to its last element. */
static size_t add_run(struct journal_run *list, size_t n, struct journal_run run)
{
	struct journal_run *last = n ? &list[n - 1] : NULL;

	if (last && last->kind == run.kind && run.kind != JOURNAL_CODED &&
	    last->off + last->len == run.off) {
		last->len += run.len;
		return n;
	}
	list[n] = run;
	return n + 1;
}

/* The runs of a chunk that took a place. */
static int copy_runs(struct worker *w, const struct chunk *c, struct noted *out, struct err *err)
{
	static const enum journal_kind kinds[] = {
		[RUN_ZERO] = JOURNAL_ZERO,
		[RUN_DATA] = JOURNAL_DATA,
		[RUN_CODED] = JOURNAL_CODED,
	};
	struct copy *copy = w->copy;

	if (copy->args->build->identity)
		return 0;
	out->run = calloc(w->n_runs + 1, sizeof(*out->run));
	if (!out->run)
		return err_nomem(err, w->n_runs * sizeof(*out->run), "the notes of a chunk");
	if (c->zero) {
		uint64_t len = round_up(c->len, copy->unit);

		out->n = add_run(out->run, 0, (struct journal_run){JOURNAL_ZERO, c->off, len});
	}
	for (size_t i = 0; i < w->n_runs; i++) {
		const struct run *run = &w->run[i];
		uint64_t len = run->kind == RUN_CODED ? run->mem_len : run->len;

		if (run->kind == RUN_ZERO && !copy->plan.want_zeros)
			continue; /* nothing was said about it */
		out->n = add_run(out->run, out->n,
				 (struct journal_run){kinds[run->kind], run->off, len});
	}
	return 0;
}

/* Moves what is done at the head of the ring to the list. */
static int collect(struct notes *notes, struct err *err)
{
	while (notes->head < notes->tail && entry_of(notes, notes->head)->done) {
		struct noted *e = entry_of(notes, notes->head);

		if (notes->n + e->n > notes->cap) {
			size_t cap = max_u64(1024, max_u64(notes->cap * 2, notes->n + e->n));
			void *run = reallocarray(notes->run, cap, sizeof(*notes->run));

			if (!run)
				return err_nomem(err, cap * sizeof(*notes->run),
						 "the notes for a journal");
			notes->run = run;
			notes->cap = cap;
		}
		for (size_t i = 0; i < e->n; i++)
			notes->n = add_run(notes->run, notes->n, e->run[i]);
		free(take(e->run));
		e->n = 0;
		notes->end = e->end;
		notes->len += e->len;
		notes->head++;
	}
	return 0;
}

/* Makes a checkpoint of the list; the lock is not held meanwhile. */
static int make_checkpoint(struct copy *copy, struct err *err)
{
	struct notes *notes = copy->notes;
	CLEANUP_FREE struct journal_run *run = notes->run;
	const struct journal_checkpoint c = {.end = notes->end, .run = run, .n = notes->n};
	int r;

	notes->run = NULL;
	notes->n = notes->cap = 0;
	notes->len = 0;
	notes->busy = true;
	pthread_mutex_unlock(&notes->lock);
	r = io_flush(copy->out, err);
	if (r == 0)
		r = journal_append(copy->args->journal, &c, err);
	pthread_mutex_lock(&notes->lock);
	notes->busy = false;
	notes->failed = r < 0;
	if (!copy->args->checkpoint)
		notes->interval = min_u64(notes->interval * 2, INTERVAL_MAX);
	pthread_cond_broadcast(&notes->cond);
	return r;
}

int copy_note_done(struct worker *w, const struct chunk *c, struct err *err)
{
	struct copy *copy = w->copy;
	struct notes *notes = copy->notes;
	struct noted *e;
	int r;

	if (!notes || copy->kept)
		return 0;
	LOCK_SCOPE(&notes->lock);
	if (c->ticket >= notes->tail)
		return 0;
	e = entry_of(notes, c->ticket);
	r = copy_runs(w, c, e, err);
	if (r < 0)
		return r;
	e->done = true;
	if (c->ticket != notes->head)
		return 0;
	r = collect(notes, err);
	pthread_cond_broadcast(&notes->cond);
	/* Not much more than twice the interval is ever without a checkpoint. */
	while (r == 0 && notes->busy && notes->len >= notes->interval && !atomic_load(&copy->stop))
		pthread_cond_wait(&notes->cond, &notes->lock);
	if (r < 0 || notes->busy || notes->failed || notes->len < notes->interval)
		return r;
	return make_checkpoint(copy, err);
}

int copy_note_last(struct copy *copy, struct err *err)
{
	struct notes *notes = copy->notes;

	if (!notes || notes->failed || notes->end <= journal_end(copy->args->journal))
		return 0;
	LOCK_SCOPE(&notes->lock);
	return make_checkpoint(copy, err);
}
