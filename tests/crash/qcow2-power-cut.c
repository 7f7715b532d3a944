// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Power cuts: random operations on a qcow2 image are recorded, with every change of the file and
 * every flush; then the file is put together as a power cut at any moment may leave it, and judged.
 *
 *	- version 3 without the dirty bit: refcounts cover all references, COPIED is right
 *	- with the dirty bit: opening for writing repairs it, also when that is cut short
 *	- version 2: as above, but COPIED may be missing while a snapshot operation runs
 *	- every sector holds what was flushed last, or something written to it since: nothing else
 *	- the header is whole: its extensions, the name of the backing file
 *	- a bitmap that is not in use has every bit that it must have, and none is after settling
 *	- snapshots are those before or after the operation that runs, and hold what they should
 *
 * timeout: 300
 * variants: release asan
 *
 * SEED=n runs one workload; SOAK_SECONDS=n new ones for so long. One state in DRIVER=n goes through
 * the driver, one in PEER=n through qemu-img.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "judge.h"
#include "peer.h"
#include "replay.h"
#include "tell.h"

struct sweep {
	struct workload w;
	struct truth truth;
	struct judge judge;
	struct replay replay;
	struct rng rng;
	unsigned epoch;
	uint64_t n; /* states */
	uint64_t per_driver, per_peer;
	uint64_t by_driver, by_peer;
};

static bool judge_now(struct sweep *s)
{
	const struct replay *r = &s->replay;

	const struct op *op = s->truth.running;
	/* What writes and flushes leave behind is much the same; look closer at the others. */
	uint64_t per_driver = op && op->rare ? s->per_driver / 4 + 1 : s->per_driver;

	s->n++;
	if (!judge_state(&s->judge, &s->truth, r->p, r->len, s->n % 32 == 0))
		return false;
	if (s->n % per_driver == 0) {
		s->by_driver++;
		if (!judge_driver(&s->judge, &s->truth, r->p, r->len, &s->rng))
			return false;
	}
	if (s->n % s->per_peer == 0 && peer_here()) {
		s->by_peer++;
		if (!judge_peer(&s->judge, &s->truth, r->p, r->len))
			return false;
	}
	return true;
}

/* ---- when something is wrong ---- */

static bool still_wrong(struct sweep *s, const struct cut *c)
{
	bool fine;

	replay_cut(&s->replay, c);
	fine = judge_state(&s->judge, &s->truth, s->replay.p, s->replay.len, true);
	replay_undo(&s->replay);
	return !fine;
}

/* The fewest lost changes that still show it. */
static void shrink(struct sweep *s, struct cut *c)
{
	int torn = c->torn;

	if (!still_wrong(s, c))
		return; /* needs the driver to be seen */
	c->torn = -1;
	if (torn >= 0) {
		c->take[torn] = false;
		if (!still_wrong(s, c)) {
			c->take[torn] = true;
			c->torn = still_wrong(s, c) ? -1 : torn;
		}
	}
	for (unsigned i = 0; i < c->n; i++) {
		if (c->take[i])
			continue;
		c->take[i] = true;
		if (!still_wrong(s, c))
			c->take[i] = false;
	}
	still_wrong(s, c); /* for the text */
}

static void show_cut(const struct sweep *s, const struct cut *c)
{
	static const char *const kinds[] = {"write", "zero", "resize", "flush", "mark"};

	fprintf(stderr, "epoch %u, %u changes since the last flush; running: %s\n", s->epoch, c->n,
		s->truth.running ? s->truth.running->name : "nothing");
	for (unsigned i = 0; i < c->n; i++)
		fprintf(stderr, "  %s %-6s %8" PRIu64 " +%" PRIu64 "\n",
			(int)i == c->torn ? "torn"
			: c->take[i]      ? "done"
					  : "LOST",
			kinds[c->rec[i]->kind], c->rec[i]->off, c->rec[i]->len);
}

static bool visit(void *ctx, const struct cut *c)
{
	struct sweep *s = ctx;
	struct cut least;
	bool fine;

	replay_cut(&s->replay, c);
	fine = judge_now(s);
	if (!fine && getenv("KEEP"))
		bytes_save(s->replay.p, s->replay.len, getenv("KEEP"));
	replay_undo(&s->replay);
	if (fine)
		return true;
	least = *c;
	shrink(s, &least);
	show_cut(s, &least);
	return false;
}

/* ---- one workload ---- */

static bool sweep_epoch(struct sweep *s, struct cut *c)
{
	bool fine = cuts_visit(c, &s->rng, visit, s);

	for (unsigned i = 0; i < c->n; i++)
		replay_apply(&s->replay, c->rec[i], NULL);
	replay_keep(&s->replay);
	c->n = 0;
	s->epoch++;
	return fine;
}

/* Where the image has just been settled, what is durable must say so. */
static bool settled_now(struct sweep *s, uint64_t mark)
{
	if (mark % 2 == 0 || strcmp(s->w.ops[mark / 2].name, "reopen") != 0)
		return true;
	return judge_settled(&s->judge, s->replay.p, s->replay.len);
}

static bool sweep_log(struct sweep *s)
{
	const struct crash_log *log = &s->w.log;
	static struct cut c;

	c.n = 0;
	for (size_t i = 0; i < log->n; i++) {
		switch (log->rec[i].kind) {
		case CRASH_MARK:
			truth_mark(&s->truth, log->rec[i].off);
			if (!settled_now(s, log->rec[i].off))
				return false;
			break;
		case CRASH_FLUSH:
			if (!sweep_epoch(s, &c))
				return false;
			break;
		default:
			expect(c.n < EPOCH_MAX);
			c.rec[c.n++] = &log->rec[i];
			break;
		}
	}
	return sweep_epoch(s, &c);
}

struct totals {
	uint64_t workloads, states, epochs, dirty, leaking, missing, by_driver, by_peer, amended,
		bitmaps;
};

static void run(uint64_t seed, struct totals *sum)
{
	struct sweep s = {.rng = {seed * 17},
			  .per_driver = env_u64("DRIVER", SANITIZED ? 600 : 300),
			  .per_peer = env_u64("PEER", SANITIZED ? 20000 : 8000)};

	workload_run(&s.w, seed);
	truth_begin(&s.truth, &s.w);
	judge_begin(&s.judge, &s.w);
	replay_begin(&s.replay, &s.w.log);
	/* So that short workloads have their share, too. */
	s.n = rng_below(&s.rng, s.per_peer);
	sum->states -= s.n;
	if (!sweep_log(&s))
		die("%s", s.judge.text);
	sum->workloads++;
	sum->states += s.n;
	sum->epochs += s.epoch;
	sum->dirty += s.judge.dirty;
	sum->leaking += s.judge.leaking;
	sum->missing += s.judge.missing_copied;
	sum->by_driver += s.by_driver;
	sum->by_peer += s.by_peer;
	sum->amended += s.w.n_amended;
	sum->bitmaps += s.judge.bitmaps;
	replay_free(&s.replay);
	judge_free(&s.judge);
	truth_free(&s.truth);
	workload_free(&s.w);
}

/* Defined when the driver was built with QCOW2_LEAVE_OUT: the flush that it leaves out. */
extern unsigned qcow2_left_out __attribute__((weak));

int main(void)
{
	double begin = seconds();
	struct totals sum = {0};
	struct seeds seeds;

	if (&qcow2_left_out)
		qcow2_left_out = (unsigned)env_u64("LEAVE_OUT", 0);
	seeds_init(&seeds, 1, SANITIZED ? 12 : 60);
	while (seeds_next(&seeds))
		run(seeds.seed, &sum);
	printf("%" PRIu64 " workloads, %" PRIu64 " epochs, %" PRIu64 " states (%.0f per second)\n"
	       "%" PRIu64 " with the dirty bit, %" PRIu64 " with leaks, %" PRIu64
	       " of version 2 with COPIED missing; %" PRIu64 " through the driver, %" PRIu64
	       " through qemu-img; %" PRIu64 " changes of options, %" PRIu64 " bitmaps\n",
	       sum.workloads, sum.epochs, sum.states, (double)sum.states / (seconds() - begin),
	       sum.dirty, sum.leaking, sum.missing, sum.by_driver, sum.by_peer, sum.amended,
	       sum.bitmaps);
	return !sum.states || (sum.workloads >= 12 && (!sum.amended || !sum.bitmaps));
}
