// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The queue of work.
 *
 * While storage is fast, the worker that receives a request executes it: handing it over would cost
 * more than doing it. When the average says that it is slow, the owner of a connection only
 * collects requests, gives the connection back, so that another worker can go on receiving, puts all
 * but one into the queue, and does that one itself. So at depth 1 nothing is ever handed over.
 *
 * Long requests (zeroing a whole disk) are done in steps, and go to the end of the queue after each:
 * a few of them cannot occupy all workers.
 *
 * Flushes of an export that come while one runs wait for the next one, which does for all of them.
 */
#include "nbd-server/work.h"

#include <sys/resource.h>

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/execute.h"

/* ---- averages ---- */

#define SLOW_NS 30000u
/* Copying out of a cache, or into one, is not slow: it takes at most a ns for so many bytes. */
#define COPY_BYTES_PER_NS 4u
/* Of fast storage one of so many requests is measured. */
#define SAMPLE 16u

bool cost_slow(uint32_t cost)
{
	return cost > SLOW_NS;
}

static void count_switches(struct stopwatch *t)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	t->waits = u.ru_nvcsw;
	t->pushed = u.ru_nivcsw;
}

struct stopwatch cost_begin_always(void)
{
	struct stopwatch t = {.at = now_ns()};

	count_switches(&t);
	return t;
}

struct stopwatch cost_begin(struct worker *w, const struct nbd_export *e)
{
	uint32_t cost = atomic_load_explicit(&e->cost, memory_order_relaxed);

	if (!cost_slow(cost) && ++w->n_samples % SAMPLE)
		return (struct stopwatch){0};
	return cost_begin_always();
}

/*
 * A thread that had to give its CPU to others must not make storage look slow, least of all because
 * its like are many: if it did not wait for anything, but lost its CPU, the time says nothing. One
 * that takes very long counts little.
 */
void cost_end(_Atomic uint32_t *cost, const struct stopwatch *begun, uint64_t bytes)
{
	struct stopwatch end = {.at = begun->at ? now_ns() : 0};
	uint64_t took, copying = bytes / COPY_BYTES_PER_NS;
	uint32_t old, ns;

	if (!begun->at)
		return;
	count_switches(&end);
	if (end.waits == begun->waits && end.pushed != begun->pushed)
		return;
	took = end.at - begun->at;
	ns = (uint32_t)min_u64(took - min_u64(took, copying), UINT64_C(4) * SLOW_NS);
	old = atomic_load_explicit(cost, memory_order_relaxed);
	/* Two that average at once lose one sample, which does not matter. */
	atomic_store_explicit(cost, old - old / 8 + ns / 8, memory_order_relaxed);
}

/* ---- the queue ---- */

static void push(struct server *s, struct request *r)
{
	r->next = NULL;
	pthread_mutex_lock(&s->work_lock);
	if (s->work_first)
		s->work_last->next = r;
	else
		s->work_first = r;
	s->work_last = r;
	pthread_mutex_unlock(&s->work_lock);
	server_wake(s);
}

static struct request *pop(struct server *s, bool *more)
{
	struct request *r;

	pthread_mutex_lock(&s->work_lock);
	r = s->work_first;
	if (r)
		s->work_first = r->next;
	*more = s->work_first != NULL;
	pthread_mutex_unlock(&s->work_lock);
	return r;
}

static void answer(struct worker *w, struct request *r)
{
	struct connection *c = r->conn;

	reply_put(w, r);
	reply_finish(w);
	connection_done(w, c);
}

/* ---- flushes ---- */

static void flush_all(struct worker *w, struct flusher *f, struct request *list)
{
	struct io *io = list->conn->export->io;
	struct stopwatch begun = cost_begin_always();
	struct request *r;
	int code = io_flush(io, &w->err);

	cost_end(&f->cost, &begun, 0);
	while ((r = list)) {
		list = r->next;
		if (code < 0)
			execute_failed(w, r, code);
		answer(w, r);
	}
}

/* Joins those that wait for a flush; the first one does it for all. */
static void join_flush(struct worker *w, struct request *r)
{
	struct flusher *f = r->conn->flusher;

	pthread_mutex_lock(&f->lock);
	r->next = NULL;
	if (f->waiting)
		f->waiting_last->next = r;
	else
		f->waiting = r;
	f->waiting_last = r;
	if (f->running) {
		pthread_mutex_unlock(&f->lock);
		return;
	}
	f->running = true;
	while (f->waiting) {
		struct request *list = f->waiting;

		f->waiting = NULL;
		pthread_mutex_unlock(&f->lock);
		flush_all(w, f, list);
		pthread_mutex_lock(&f->lock);
	}
	f->running = false;
	pthread_mutex_unlock(&f->lock);
}

/* ---- doing it ---- */

static void run(struct worker *w, struct request *r)
{
	if (!execute_step(w, r))
		push(w->server, r);
	else if (execute_wants_flush(r))
		join_flush(w, r);
	else
		answer(w, r);
}

void work_add(struct worker *w, struct request *r)
{
	struct connection *c = r->conn;

	pthread_mutex_lock(&c->lock);
	c->running++;
	pthread_mutex_unlock(&c->lock);
	r->next = NULL;
	if (w->later)
		w->later_last->next = r;
	else
		w->later = r;
	w->later_last = r;
}

void work_start(struct worker *w)
{
	struct request *r;

	while ((r = w->later)) {
		w->later = r->next;
		if (w->later)
			push(w->server, r);
		else
			run(w, r);
	}
}

void work_turn(struct worker *w)
{
	bool more;
	struct request *r = pop(w->server, &more);

	if (more)
		server_wake(w->server); /* several wakes at once may have become one */
	if (r)
		run(w, r);
}
