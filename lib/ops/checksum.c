// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Hashing a disk as a tree; see checksum.h for what is computed.
 *
 * A cursor walks the map and gives chunks of whole subtrees to the workers, in guest order. A worker
 * hashes its chunk down to one node and then waits for its turn to add it to the right edge of the
 * tree: a stack of finished subtrees of falling height, as in binary addition. Memory grows with
 * the height only.
 */
#include "ops/checksum.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "ops/extent.h"

#define CHUNK_HEIGHT 4 /* 16 blocks, 1 MiB */
#define CHUNK        ((uint64_t)CHECKSUM_BLOCK << CHUNK_HEIGHT)
#define MAX_HEIGHT   48 /* 2^63 bytes / 2^16 */

enum { TAG_LEAF = 0, TAG_NODE = 1, TAG_SUM = 2 };

struct node {
	unsigned char hash[CHECKSUM_MAX];
};

struct sum {
	struct io *src;
	const struct checksum_hash *hash;
	struct job *job;
	struct node zero[MAX_HEIGHT + 1]; /* by height: subtrees of zeros */

	pthread_mutex_t plan_lock;
	uint64_t pos, size; /* bytes; pos is a multiple of CHUNK */
	uint64_t tickets;
	struct extent ext;

	pthread_mutex_t turn_lock;
	pthread_cond_t turn_cond;
	uint64_t turn;  /* the ticket that is next */
	uint64_t added; /* blocks in the tree so far: its bits are the heights on the stack */
	struct node stack[MAX_HEIGHT + 1]; /* by height */
	bool stop;
};

/* ---- hashing ---- */

static int digest(const struct sum *s, void *ctx, unsigned char tag, const void *data, size_t len,
		  struct node *out, struct err *err)
{
	if (s->hash->digest(ctx, tag, data, len, out->hash))
		return 0;
	return err_set(err, EIO, "the hash function failed");
}

static int join(const struct sum *s, void *ctx, const struct node *left, const struct node *right,
		struct node *out, struct err *err)
{
	unsigned char both[2 * CHECKSUM_MAX];
	size_t len = s->hash->len;

	memcpy(both, left->hash, len);
	memcpy(both + len, right->hash, len);
	return digest(s, ctx, TAG_NODE, both, 2 * len, out, err);
}

/* The subtree of 2^height blocks at buf. */
static int hash_tree(const struct sum *s, void *ctx, const unsigned char *buf, unsigned height,
		     struct node *out, struct err *err)
{
	size_t len = (size_t)CHECKSUM_BLOCK << height;
	struct node left, right;
	int r;

	if (bytes_are_zero(buf, len)) {
		*out = s->zero[height];
		return 0;
	}
	if (!height)
		return digest(s, ctx, TAG_LEAF, buf, len, out, err);
	r = hash_tree(s, ctx, buf, height - 1, &left, err);
	if (r == 0)
		r = hash_tree(s, ctx, buf + len / 2, height - 1, &right, err);
	return r < 0 ? r : join(s, ctx, &left, &right, out, err);
}

static int hash_zeros(struct sum *s, void *ctx, struct err *err)
{
	int r = digest(s, ctx, TAG_LEAF, zero_buf, CHECKSUM_BLOCK, &s->zero[0], err);

	for (unsigned h = 0; r == 0 && h < MAX_HEIGHT; h++)
		r = join(s, ctx, &s->zero[h], &s->zero[h], &s->zero[h + 1], err);
	return r;
}

/* Adds a subtree; `added` is a multiple of its size. */
static int add_tree(struct sum *s, void *ctx, const struct node *node, unsigned height,
		    struct err *err)
{
	struct node carry = *node;
	unsigned h = height;
	int r = 0;

	assert(is_aligned(s->added, UINT64_C(1) << height));
	for (; r == 0 && (s->added >> h & 1); h++)
		r = join(s, ctx, &s->stack[h], &carry, &carry, err);
	s->stack[h] = carry;
	s->added += UINT64_C(1) << height;
	return r;
}

/* Adds blocks of zeros up to `until`, in the largest subtrees that fit. */
static int add_zeros(struct sum *s, void *ctx, uint64_t until, struct err *err)
{
	int r = 0;

	while (r == 0 && s->added < until) {
		unsigned h = 0;

		while (h < MAX_HEIGHT && is_aligned(s->added, UINT64_C(2) << h) &&
		       until - s->added >= UINT64_C(2) << h)
			h++;
		r = add_tree(s, ctx, &s->zero[h], h, err);
	}
	return r;
}

/* ---- the cursor ---- */

static int find_extent(struct sum *s, uint64_t at, struct err *err)
{
	struct extent *e = &s->ext;
	int r;

	if (at >= e->off && at - e->off < e->len)
		return 0;
	r = io_map(s->src, at, s->size - at, e, err);
	if (r == 0)
		r = extent_look_below(s->src, e, err);
	if (r < 0)
		e->len = 0;
	return r;
}

/* The next chunk that has data, from pos on, and its ticket. 1; 0 at the end; -errno. */
static int take_chunk(struct sum *s, uint64_t *off, uint64_t *ticket, struct err *err)
{
	LOCK_SCOPE(&s->plan_lock);
	uint64_t at = s->pos;

	while (at < s->size) {
		int r = job_cancelled(s->job) ? err_set(err, ECANCELED, "cancelled")
					      : find_extent(s, at, err);

		if (r < 0)
			return r;
		if (extent_is_data(&s->ext))
			break;
		at = s->ext.off + s->ext.len;
	}
	*off = at < s->size ? round_down(at, CHUNK) : s->size;
	if (s->pos < s->size)
		job_advance(s->job, *off - s->pos);
	s->pos = *off + CHUNK;
	*ticket = s->tickets++;
	return at < s->size;
}

/* ---- workers ---- */

static void stop_all(struct sum *s)
{
	LOCK_SCOPE(&s->turn_lock);

	s->stop = true;
	pthread_cond_broadcast(&s->turn_cond);
}

/* Chunks that are before this one in the tree are added first; the gap between them is zeros. */
static int add_chunk(struct sum *s, void *ctx, uint64_t ticket, uint64_t off,
		     const struct node *node, struct err *err)
{
	LOCK_SCOPE(&s->turn_lock);
	int r;

	while (s->turn != ticket && !s->stop)
		pthread_cond_wait(&s->turn_cond, &s->turn_lock);
	if (s->stop)
		return 0;
	r = add_zeros(s, ctx, off / CHECKSUM_BLOCK, err);
	if (r == 0)
		r = add_tree(s, ctx, node, CHUNK_HEIGHT, err);
	s->turn++;
	pthread_cond_broadcast(&s->turn_cond);
	return r;
}

static bool stopped(struct sum *s)
{
	LOCK_SCOPE(&s->turn_lock);

	return s->stop;
}

static int hash_chunks(struct sum *s, void *ctx, unsigned char *buf, struct err *err)
{
	uint64_t off = 0, ticket = 0;
	struct node node;
	int r = 0;

	while (!stopped(s)) {
		size_t len;

		r = take_chunk(s, &off, &ticket, err);
		if (r <= 0)
			break;
		len = (size_t)min_u64(CHUNK, s->size - off);
		r = io_pread(s->src, buf, len, off, err);
		if (r < 0) {
			err_ctx(err, r, "error while reading at byte %" PRIu64, off);
			break;
		}
		memset(buf + len, 0, CHUNK - len);
		r = hash_tree(s, ctx, buf, CHUNK_HEIGHT, &node, err);
		if (r == 0)
			r = add_chunk(s, ctx, ticket, off, &node, err);
		if (r < 0)
			break;
		job_advance(s->job, len);
	}
	return r;
}

static int work(void *arg, unsigned index, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = NULL;
	struct sum *s = arg;
	void *ctx = s->hash->open(s->hash);
	int r;

	(void)index;
	if (!ctx || posix_memalign((void **)&buf, 4096, CHUNK))
		r = err_nomem(err, CHUNK, "hashing");
	else
		r = hash_chunks(s, ctx, buf, err);
	if (r < 0)
		stop_all(s);
	if (ctx)
		s->hash->close(ctx);
	return r;
}

/* ---- the whole ---- */

static int finish(struct sum *s, void *ctx, unsigned char *out, struct err *err)
{
	unsigned char last[8 + CHECKSUM_MAX];
	uint64_t blocks = div_up(s->size, CHECKSUM_BLOCK);
	le64 size = le64_make(s->size);
	struct node sum;
	unsigned h = CHUNK_HEIGHT;
	int r;

	while (UINT64_C(1) << h < blocks)
		h++;
	r = add_zeros(s, ctx, UINT64_C(1) << h, err);
	if (r < 0)
		return r;
	memcpy(last, &size, sizeof(size));
	memcpy(last + sizeof(size), s->stack[h].hash, s->hash->len);
	r = digest(s, ctx, TAG_SUM, last, sizeof(size) + s->hash->len, &sum, err);
	if (r == 0)
		memcpy(out, sum.hash, s->hash->len);
	return r;
}

static int run(struct sum *s, unsigned workers, unsigned char *out, struct err *err)
{
	void *ctx = s->hash->open(s->hash);
	int r;

	if (!ctx)
		return err_nomem(err, 0, "hashing");
	r = hash_zeros(s, ctx, err);
	if (r == 0)
		r = work_run(workers ? workers : work_cpus(), work, s, err);
	if (r == 0)
		r = finish(s, ctx, out, err);
	s->hash->close(ctx);
	return r;
}

int checksum_run(struct io *src, const struct checksum_hash *hash, unsigned workers,
		 unsigned char *out, struct job *job, struct err *err)
{
	struct sum *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_nomem(err, sizeof(*s), "hashing");
	s->src = src;
	s->hash = hash;
	s->job = job;
	s->size = io_size(src);
	pthread_mutex_init(&s->plan_lock, NULL);
	pthread_mutex_init(&s->turn_lock, NULL);
	pthread_cond_init(&s->turn_cond, NULL);
	job_total(job, s->size);
	r = run(s, workers, out, err);
	pthread_mutex_destroy(&s->plan_lock);
	pthread_mutex_destroy(&s->turn_lock);
	pthread_cond_destroy(&s->turn_cond);
	free(s);
	return r;
}
