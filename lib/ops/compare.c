// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Comparing two disks; see compare.h.
 *
 * A cursor walks both maps in guest order and cuts what has to be read into chunks. A worker that
 * finds a difference lowers `limit`: nobody takes chunks behind it any more, and those before it
 * were all taken already, so the lowest difference wins whoever finds it.
 */
#include "ops/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "ops/pair.h"

/* Both sides of a chunk, and what they were read from, fit into the cache of a CPU. */
#define CHUNK  (256 * KiB)
#define SECTOR 512

struct compare {
	const struct compare_args *args;
	struct job *job;
	struct compare_result *res;

	pthread_mutex_t lock; /* guards all below, and res */
	struct pair pair;
	uint64_t pos, size;
	uint64_t limit;   /* where the first difference so far is; size: none */
	atomic_bool stop; /* somebody failed */
};

/* ---- the cursor ---- */

static int fail(struct compare *c, enum compare_step step, int r)
{
	LOCK_SCOPE(&c->lock);

	if (!atomic_exchange(&c->stop, true))
		c->res->failed = step;
	return r;
}

/* A difference at `at`. Under the lock. */
static void found(struct compare *c, enum compare_kind kind, uint64_t at)
{
	if (at >= c->limit)
		return;
	c->limit = at;
	c->res->kind = kind;
	c->res->offset = at;
}

static bool status_differs(const struct compare *c)
{
	const struct pair_side *a = &c->pair.a, *b = &c->pair.b;

	return c->args->strict && (a->kind != b->kind || a->stored != b->stored);
}

/* One step of the cursor. Under the lock. *len 0: nothing to read here, go on. */
static int step(struct compare *c, uint64_t *off, uint64_t *len, enum pair_need *need,
		struct err *err)
{
	uint64_t n = 0, end;
	int r = pair_look(&c->pair, c->pos, c->size, &n, err);

	*len = 0;
	if (r < 0)
		return r;
	if (status_differs(c)) {
		found(c, COMPARE_STATUS, c->pos);
		return 0;
	}
	*need = pair_need(&c->pair);
	*off = c->pos;
	if (*need == PAIR_EQUAL) {
		c->pos += n;
		job_advance(c->job, n);
		return 0;
	}
	/* As long as it goes on like this. */
	end = min_u64(c->size, c->pos + CHUNK);
	for (c->pos += n; c->pos < end; c->pos += n) {
		r = pair_look(&c->pair, c->pos, end, &n, err);
		if (r < 0)
			return r;
		if (status_differs(c) || pair_need(&c->pair) != *need)
			break;
	}
	c->pos = min_u64(c->pos, end);
	*len = c->pos - *off;
	return 0;
}

/* The next chunk. 1, 0 at the end, -errno. */
static int take_chunk(struct compare *c, uint64_t *off, uint64_t *len, enum pair_need *need,
		      struct err *err)
{
	LOCK_SCOPE(&c->lock);

	while (c->pos < c->limit) {
		int r;

		if (job_cancelled(c->job))
			return err_set(err, ECANCELED, "cancelled");
		r = step(c, off, len, need, err);
		if (r < 0)
			return r;
		if (*len)
			return 1;
	}
	return 0;
}

/* ---- workers ---- */

/* Offset of the first byte that differs, or n. */
static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t n)
{
	size_t at = 0;

	if (memcmp(a, b, n) == 0)
		return n;
	while (n - at > SECTOR && memcmp(a + at, b + at, SECTOR) == 0)
		at += SECTOR;
	while (a[at] == b[at])
		at++;
	return at;
}

static size_t first_nonzero(const unsigned char *p, size_t n)
{
	size_t at = 0;

	if (bytes_are_zero(p, n))
		return n;
	while (!p[at])
		at++;
	return at;
}

static int compare_chunk(struct compare *c, unsigned char *buf, uint64_t off, uint64_t len,
			 enum pair_need need, struct err *err)
{
	size_t at;
	int r = 0;

	if (need != PAIR_ONLY_B)
		r = pair_read(c->pair.a.io, buf, off, len, err);
	if (r == 0 && need != PAIR_ONLY_A)
		r = pair_read(c->pair.b.io, buf + CHUNK, off, len, err);
	if (r < 0)
		return fail(c, COMPARE_READ, r);
	if (need == PAIR_BOTH)
		at = first_difference(buf, buf + CHUNK, len);
	else
		at = first_nonzero(need == PAIR_ONLY_A ? buf : buf + CHUNK, len);
	if (at < len) {
		LOCK_SCOPE(&c->lock);
		found(c, COMPARE_CONTENT, round_down(off + at, SECTOR));
	}
	job_advance(c->job, len);
	return 0;
}

static int work(void *ctx, unsigned index, struct err *err)
{
	struct compare *c = ctx;
	CLEANUP_FREE unsigned char *buf = NULL;
	uint64_t off = 0, len = 0;
	enum pair_need need = PAIR_EQUAL;
	int r;

	(void)index;
	if (posix_memalign((void **)&buf, 4096, 2 * CHUNK))
		return fail(c, COMPARE_READ, err_nomem(err, 2 * CHUNK, "compare buffers"));
	while (!atomic_load(&c->stop)) {
		r = take_chunk(c, &off, &len, &need, err);
		if (r < 0)
			return fail(c, COMPARE_MAP, r);
		if (r == 0)
			break;
		r = compare_chunk(c, buf, off, len, need, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Compares up to c->size from c->pos on. */
static int run_part(struct compare *c, uint64_t end, struct err *err)
{
	unsigned n = c->args->workers ? c->args->workers : work_cpus();

	c->size = c->limit = end;
	return work_run(n, work, c, err);
}

int compare_run(const struct compare_args *args, struct job *job, struct compare_result *res,
		struct err *err)
{
	uint64_t size_a = io_size(args->a), size_b = io_size(args->b);
	struct compare c = {.args = args, .job = job, .res = res};
	int r;

	*res = (struct compare_result){.kind = COMPARE_SAME};
	if (args->strict && size_a != size_b) {
		res->kind = COMPARE_SIZE;
		return 0;
	}
	c.pair.a.io = args->a;
	c.pair.b.io = args->b;
	pthread_mutex_init(&c.lock, NULL);
	job_total(job, max_u64(size_a, size_b));
	r = run_part(&c, min_u64(size_a, size_b), err);
	if (r == 0 && res->kind == COMPARE_SAME && size_a != size_b) {
		res->sizes_differ = true;
		r = run_part(&c, max_u64(size_a, size_b), err);
	}
	pthread_mutex_destroy(&c.lock);
	return r;
}
