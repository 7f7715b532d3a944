// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Sharing of equal clusters in a qcow2 file: finding them. Clusters of data are read in the order of
 * the file and hashed by several threads; the first of each content is remembered in a table, later
 * ones form pairs with it, which dedup_share.c makes one when there are enough of them.
 *
 * COPIED says that a cluster's refcount is 1 (I7). Nobody who gives up one of two references looks for
 * the other one to set it there; in the tables of a snapshot that does not matter, and when a snapshot
 * goes, flags are set anew. So of the references to a shared cluster at most one is the disk's own,
 * unless the caller wants otherwise (within).
 *
 * Memory is bounded: where the table would be too large, several passes look at a share of all
 * hashes each.
 */
#include "formats/qcow2/dedup.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/work.h"

#define TABLE_BYTES   (256 * MiB)
#define SEGMENT_BYTES (64 * MiB) /* hashed at a time */
#define SEGMENT_MAX   65536      /* clusters */
#define HASH_THREADS  8

/* ---- which clusters ---- */

static void note(struct dedup *d, uint64_t k, bool data)
{
	if (k < d->clusters)
		dedup_set(data ? d->data : d->other, k, true);
}

static int note_table(void *ctx, const be64 *l1, uint32_t n, struct err *err)
{
	struct dedup *d = ctx;

	(void)err;
	for (uint32_t i = 0; i < n; i++)
		note(d, (be64_get(l1[i]) & ENTRY_OFFSET) >> d->q->cluster_bits, false);
	return 0;
}

static int note_entry(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	struct dedup *d = ctx;
	uint64_t first = 0, n;

	(void)at;
	(void)err;
	qcow2_entry_clusters(d->q, *e, &first, &n);
	for (uint64_t k = first; k < first + n; k++)
		note(d, k, e->alloc != 0);
	return 0;
}

static int note_active(void *ctx, struct l2_entry *e, uint64_t at, struct err *err)
{
	uint64_t first = 0, n;
	struct dedup *d = ctx;

	(void)at;
	(void)err;
	qcow2_entry_clusters(d->q, *e, &first, &n);
	if (n && first < d->clusters)
		dedup_set(d->active, first, true);
	return 0;
}

/* Fills the bitmaps of data. *n: how many. */
static int find_data(struct dedup *d, uint64_t *n, struct err *err)
{
	int r = qcow2_trees_each(d->q, note_table, note_entry, d, err);

	*n = 0;
	if (r == 0)
		r = qcow2_tree_each(d->q, d->q->l1, d->q->h.l1_size, note_active, d, err);
	for (uint64_t k = 0; r == 0 && k < d->clusters; k++) {
		if (bit_get(d->other, k) ||
		    qcow2_guarded(d->q, k << d->q->cluster_bits, d->q->cluster))
			dedup_set(d->data, k, false);
		*n += bit_get(d->data, k);
	}
	return r;
}

/* ---- the table: open addressing, never full ---- */

struct seen {
	uint64_t key[2];
	uint64_t cluster; /* 0: free */
	uint64_t count;   /* its refcount with all that pairs add */
};

struct table {
	struct seen *v; /* owned */
	uint64_t size;  /* a power of two */
	uint64_t n;
	unsigned passes;
};

static int make_table(struct table *t, uint64_t clusters, struct err *err)
{
	uint64_t most = TABLE_BYTES / sizeof(struct seen);

	t->size = 64;
	while (t->size < clusters * 2 && t->size * 2 <= most)
		t->size *= 2;
	/* Twice as many passes as an even spread needs. */
	t->passes = (unsigned)div_up(clusters * 2, t->size);
	t->v = malloc(t->size * sizeof(*t->v));
	return t->v ? 0 : err_nomem(err, t->size * sizeof(*t->v), "the table of hashes");
}

static struct seen *find(struct table *t, const uint64_t *key)
{
	uint64_t i = key[0] & (t->size - 1);

	while (t->v[i].cluster && memcmp(t->v[i].key, key, DEDUP_KEY) != 0)
		i = (i + 1) & (t->size - 1);
	return &t->v[i];
}

/* Cluster k has this hash: remembers it, or makes a pair. */
static int meet(struct dedup *d, struct table *t, uint64_t k, const uint64_t *key, struct err *err)
{
	uint64_t max = refcount_max(d->q->h.refcount_order), count;
	struct seen *s = find(t, key);
	int r = qcow2_refcount_get(d->q, k, &count, err);

	if (r < 0 || !count)
		return r;
	if (s->cluster && !d->within && bit_get(d->active, k) && bit_get(d->active, s->cluster))
		return 0;
	if (s->cluster && count <= max - s->count) {
		s->count += count;
		if (bit_get(d->active, k))
			dedup_set(d->active, s->cluster, true);
		d->pair[d->n_pair++] = (struct dedup_pair){.gone = k, .kept = s->cluster};
		return d->n_pair == DEDUP_PAIRS ? dedup_share(d, err) : 0;
	}
	if (!s->cluster && t->n * 4 >= t->size * 3)
		return 0; /* hashes do not spread: what does not fit is not shared */
	t->n += !s->cluster;
	*s = (struct seen){.cluster = k, .count = count};
	memcpy(s->key, key, DEDUP_KEY);
	return 0;
}

/* ---- hashing ---- */

struct segment {
	struct dedup *d;
	uint64_t *cluster;  /* owned */
	uint64_t (*key)[2]; /* owned */
	uint64_t n, room;
	_Atomic uint64_t next;
};

static int hash_one(struct segment *g, uint64_t i, void *ctx, void *buf, struct err *err)
{
	struct dedup *d = g->d;
	unsigned char out[CHECKSUM_MAX];
	int r = io_pread_tail(d->q->img.file, buf, d->q->cluster,
			      g->cluster[i] << d->q->cluster_bits, err);

	if (r < 0)
		return r;
	if (!d->hash->digest(ctx, 0, buf, d->q->cluster, out))
		return err_set(err, EIO, "%s: the hash function failed", d->q->img.io.name);
	memcpy(g->key[i], out, DEDUP_KEY);
	job_advance(d->job, d->q->cluster);
	return 0;
}

static int hash_some(void *arg, unsigned worker, struct err *err)
{
	struct segment *g = arg;
	CLEANUP_FREE void *buf = malloc(g->d->q->cluster);
	void *ctx = g->d->hash->open(g->d->hash);
	uint64_t i;
	int r = 0;

	(void)worker;
	if (!buf || !ctx)
		r = err_nomem(err, g->d->q->cluster, "a cluster");
	while (r == 0 && (i = atomic_fetch_add(&g->next, 1)) < g->n) {
		if (job_cancelled(g->d->job))
			r = err_set(err, ECANCELED, "%s: cancelled", g->d->q->img.io.name);
		else
			r = hash_one(g, i, ctx, buf, err);
	}
	if (r < 0)
		atomic_store(&g->next, g->n);
	if (ctx)
		g->d->hash->close(ctx);
	return r;
}

/* Hashes the clusters of data from *at on, as many as a segment has. */
static int hash_segment(struct segment *g, uint64_t *at, struct err *err)
{
	struct dedup *d = g->d;

	for (g->n = 0; g->n < g->room && *at < d->clusters; ++*at)
		if (bit_get(d->data, *at))
			g->cluster[g->n++] = *at;
	atomic_store(&g->next, 0);
	if (!g->n)
		return 0;
	return work_run((unsigned)min_u64(min_u64(work_cpus(), HASH_THREADS), div_up(g->n, 64)),
			hash_some, g, err);
}

/* One pass over all data; looks at the hashes that are its share. */
static int pass(struct dedup *d, struct segment *g, struct table *t, unsigned number,
		struct err *err)
{
	uint64_t at = 0;
	int r = 0;

	memset(t->v, 0, t->size * sizeof(*t->v));
	t->n = 0;
	while (r == 0 && at < d->clusters) {
		r = hash_segment(g, &at, err);
		for (uint64_t i = 0; r == 0 && i < g->n; i++)
			if (g->key[i][1] % t->passes == number)
				r = meet(d, t, g->cluster[i], g->key[i], err);
	}
	return r < 0 ? r : dedup_share(d, err);
}

static int passes(struct dedup *d, struct segment *g, uint64_t n, struct err *err)
{
	struct table t = {0};
	int r = make_table(&t, n, err);

	if (r == 0 && d->job)
		job_total(d->job,
			  atomic_load(&d->job->total) + (n << d->q->cluster_bits) * t.passes);
	for (unsigned i = 0; r == 0 && i < t.passes; i++)
		r = pass(d, g, &t, i, err);
	free(t.v);
	return r;
}

/* ---- the whole ---- */

static int run(struct dedup *d, struct err *err)
{
	struct segment g = {.d = d};
	uint64_t n;
	int r = find_data(d, &n, err);

	if (r < 0 || n < 2)
		return r;
	d->res->scanned = n << d->q->cluster_bits;
	g.room = min_u64(max_u64(SEGMENT_BYTES >> d->q->cluster_bits, 64), SEGMENT_MAX);
	g.room = min_u64(g.room, n);
	g.cluster = malloc(g.room * sizeof(*g.cluster));
	g.key = malloc(g.room * sizeof(*g.key));
	if (g.cluster && g.key)
		r = passes(d, &g, n, err);
	else
		r = err_nomem(err, g.room * (sizeof(*g.cluster) + sizeof(*g.key)), "hashes");
	free(g.cluster);
	free(g.key);
	return r;
}

static int make_maps(struct dedup *d, struct err *err)
{
	uint64_t bytes = d->clusters / 8 + 1;

	d->data = calloc(1, bytes);
	d->other = calloc(1, bytes);
	d->batch = calloc(1, bytes);
	d->active = calloc(1, bytes);
	d->pair = malloc(DEDUP_PAIRS * sizeof(*d->pair));
	if (d->data && d->other && d->batch && d->active && d->pair)
		return 0;
	return err_nomem(err, 4 * bytes, "the lists of clusters");
}

static int may_dedup(struct qcow2 *q, const struct checksum_hash *hash, struct err *err)
{
	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", q->img.io.name, q->unreadable_why);
	if (qcow2_has_data_file(q))
		return err_set(err, ENOTSUP,
			       "%s: the clusters of an external data file cannot be shared",
			       q->img.io.name);
	if (hash->len < DEDUP_KEY)
		return err_set(err, EINVAL, "the hash function is too short");
	return 0;
}

int qcow2_dedup(struct img *img, const struct dedup_args *args, struct dedup_result *res,
		struct job *job, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct dedup d = {
		.q = q, .job = job, .hash = args->hash, .within = args->within, .res = res};
	int r = may_dedup(q, args->hash, err), ended;

	if (r == 0 && !q->writing)
		r = qcow2_begin_write(q, err);
	if (r == 0)
		r = qcow2_quiesce(q, err);
	if (r < 0)
		return r;
	d.clusters = div_up(io_size(img->file), q->cluster);
	r = make_maps(&d, err);
	if (r == 0)
		r = run(&d, err);
	/* Also after a failure of reading, and when cancelled: what is shared stays so. */
	ended = dedup_end_change(&d, r < 0 ? NULL : err);
	free(d.data);
	free(d.other);
	free(d.batch);
	free(d.active);
	free(d.pair);
	return r < 0 ? r : ended;
}
