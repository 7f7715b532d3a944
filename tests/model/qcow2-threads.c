// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Several threads on one qcow2 image: each owns bytes, in clusters of its own and in clusters that it
 * shares with others, and always reads what it last wrote there. Meanwhile another thread flushes,
 * settles, makes and removes snapshots and a bitmap. What other bitmaps say in the end is what was written.
 *
 * threads
 * timeout: 300
 *
 * SEED=n runs one image; SOAK_SECONDS=n new ones for so long.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "model.h"
#include "ops/bitmap.h"
#include "peer.h"
#include "tell.h"

#define WRITERS 4
#define ROUNDS  3

struct run {
	uint64_t off, len;
	unsigned owner;
};

struct shared {
	struct model m; /* m.disk: each thread touches the bytes that it owns only */
	struct run *run;
	size_t n_runs;
	uint64_t ops; /* of each thread in a round */
	atomic_uint working;
};

struct worker {
	struct shared *s;
	pthread_t thread;
	unsigned id;
	struct rng rng;
	unsigned char *buf;
};

/* First half: owners change inside clusters. Second half: long runs. */
static void split_disk(struct shared *s)
{
	uint64_t cluster = UINT64_C(1) << s->m.c.cluster_bits, size = s->m.disk.size;

	s->run = malloc((size / 64 + 2) * sizeof(*s->run));
	expect(s->run);
	for (uint64_t at = 0, n; at < size; at += n) {
		uint64_t most = at < size / 2 ? 2 * cluster : 64 * cluster;

		n = min_u64(size - at, min_u64(rng_range(&s->m.rng, 64, most), MODEL_MAX_LEN));
		s->run[s->n_runs++] = (struct run){at, n, (unsigned)rng_below(&s->m.rng, WRITERS)};
	}
}

static struct run some_part(struct worker *w)
{
	struct rng *r = &w->rng;
	struct run part;

	do {
		/* Few places: threads should meet. */
		uint64_t n = rng_percent(r, 70) ? min_u64(w->s->n_runs, 40) : w->s->n_runs;

		part = w->s->run[rng_below(r, n)];
	} while (part.owner != w->id && !rng_percent(r, 1));
	if (part.owner != w->id) /* the disk is small and this thread has nothing */
		part.len = 0;
	if (part.len && rng_percent(r, 60)) {
		uint64_t skip = rng_below(r, part.len);

		part.off += skip;
		part.len = rng_range(r, 1, part.len - skip);
	}
	return part;
}

static void verify(struct worker *w, const struct run *p)
{
	struct err e = {0};

	must(io_pread(&w->s->m.img->io, w->buf, p->len, p->off, &e), &e);
	for (uint64_t i = 0; i < p->len; i++)
		if (w->buf[i] != w->s->m.disk.bytes[p->off + i])
			die("thread %u: byte %" PRIu64 " is %02x, not %02x", w->id, p->off + i,
			    w->buf[i], w->s->m.disk.bytes[p->off + i]);
}

static void discard(struct worker *w, const struct run *p)
{
	unsigned char *mine = w->s->m.disk.bytes + p->off;
	struct err e = {0};

	must(io_discard(&w->s->m.img->io, p->off, p->len, &e), &e);
	must(io_pread(&w->s->m.img->io, w->buf, p->len, p->off, &e), &e);
	for (uint64_t i = 0; i < p->len; i++)
		if (w->buf[i] && w->buf[i] != mine[i])
			die("thread %u: byte %" PRIu64 " is %02x after a discard, was %02x", w->id,
			    p->off + i, w->buf[i], mine[i]);
	memcpy(mine, w->buf, p->len);
	model_bitmaps_changed(&w->s->m, p->off, p->len, GRANULE_DIRTY);
}

static void write_part(struct worker *w, const struct run *p)
{
	struct err e = {0};

	rng_fill(&w->rng, w->buf, p->len);
	must(io_pwrite(&w->s->m.img->io, w->buf, p->len, p->off, &e), &e);
	memcpy(w->s->m.disk.bytes + p->off, w->buf, p->len);
	model_bitmaps_changed(&w->s->m, p->off, p->len, GRANULE_DIRTY);
}

static void *writer(void *arg)
{
	struct worker *w = arg;
	struct io *io = &w->s->m.img->io;
	struct err e = {0};

	for (uint64_t i = 0; i < w->s->ops; i++) {
		struct run p = some_part(w);
		uint64_t pick = rng_below(&w->rng, 100);
		struct extent x;

		if (!p.len)
			continue;
		if (pick < 45) {
			write_part(w, &p);
		} else if (pick < 57) {
			must(io_zero(io, p.off, p.len, pick % 2 ? IO_ZERO_UNMAP : 0, &e), &e);
			memset(w->s->m.disk.bytes + p.off, 0, p.len);
			model_bitmaps_changed(&w->s->m, p.off, p.len, GRANULE_DIRTY);
		} else if (pick < 65) {
			discard(w, &p);
		} else if (pick < 70) {
			must(io_map(io, p.off, p.len, &x, &e), &e);
		} else if (pick < 72) {
			must(io_flush(io, &e), &e);
		} else {
			verify(w, &p);
		}
	}
	atomic_fetch_sub(&w->s->working, 1);
	return NULL;
}

/* A bitmap that only this thread knows, beside those that the model has. */
static void stir_bitmaps(struct worker *w, bool *there)
{
	struct model *m = &w->s->m;
	struct err e = {0};
	unsigned i;

	if (!m->n_bitmap)
		return;
	i = (unsigned)rng_below(&w->rng, m->n_bitmap);
	if (!*there) {
		must(bitmap_add(m->img, "passing", 0, true, &e), &e);
		*there = true;
	} else if (rng_percent(&w->rng, 30)) {
		must(bitmap_remove(m->img, "passing", &e), &e);
		*there = false;
	} else if (rng_percent(&w->rng, 30)) {
		must(bitmap_clear(m->img, "passing", &e), &e);
	} else {
		must(bitmap_merge(m->img, "passing", m->img, m->bitmap[i].name, NULL, &e), &e);
	}
}

/* What excludes the others, again and again until they are done. */
static void *manager(void *arg)
{
	struct worker *w = arg;
	struct img *img = w->s->m.img;
	struct err e = {0};
	bool snapshot = false, bitmap = false;
	unsigned index;
	int r;

	while (atomic_load(&w->s->working)) {
		switch (rng_below(&w->rng, 8)) {
		case 0:
			must(img_settle(img, &e), &e);
			break;
		case 1:
			if (snapshot)
				break;
			r = img_snapshot_create(img, "passing", NULL, &e);
			if (r != -EINVAL || w->s->m.c.refcount_bits > 4)
				must(r, &e);
			snapshot = r == 0;
			break;
		case 2:
			if (!snapshot)
				break;
			must(img_snapshot_find(img, "passing", &index, &e), &e);
			must(img_snapshot_remove(img, index, &e), &e);
			snapshot = false;
			break;
		case 3:
			stir_bitmaps(w, &bitmap);
			break;
		default:
			must(io_flush(&img->io, &e), &e);
			break;
		}
	}
	if (snapshot) {
		must(img_snapshot_find(img, "passing", &index, &e), &e);
		must(img_snapshot_remove(img, index, &e), &e);
	}
	if (bitmap)
		must(bitmap_remove(img, "passing", &e), &e);
	return NULL;
}

static void round_of_work(struct shared *s, struct worker *w)
{
	atomic_store(&s->working, WRITERS);
	for (unsigned i = 0; i <= WRITERS; i++)
		expect(!pthread_create(&w[i].thread, NULL, i < WRITERS ? writer : manager, &w[i]));
	for (unsigned i = 0; i <= WRITERS; i++)
		pthread_join(w[i].thread, NULL);
}

/* A snapshot between two rounds must survive the next ones. */
static void keep_snapshot(struct model *m)
{
	struct err e = {0};
	int r = img_snapshot_create(m->img, "kept", NULL, &e);

	if (r == -EINVAL && m->c.refcount_bits <= 4)
		return;
	must(r, &e);
	m->snap[0] = (struct model_disk){malloc(m->disk.size), m->disk.size};
	expect(m->snap[0].bytes);
	memcpy(m->snap[0].bytes, m->disk.bytes, m->disk.size);
	strcpy(m->snap_name[0], "kept");
	m->n_snap = 1;
}

static void apply_snapshot(struct model *m)
{
	struct err e = {0};
	unsigned index;
	int r;

	if (!m->n_snap)
		return;
	while (m->n_bitmap)
		model_bitmap_remove(m, 0);
	must(img_snapshot_find(m->img, "kept", &index, &e), &e);
	r = img_snapshot_apply(m->img, index, &e);
	if (r == -EINVAL && m->c.refcount_bits <= 4)
		return;
	must(r, &e);
	memcpy(m->disk.bytes, m->snap[0].bytes, m->disk.size);
	model_compare(m);
}

static void run(uint64_t seed, uint64_t ops, bool ask)
{
	struct worker w[WRITERS + 1] = {0};
	struct shared s = {.ops = ops};
	struct model_config c;
	struct err e = {0};

	model_config_random(&c, seed);
	model_open(&s.m, &c);
	split_disk(&s);
	for (unsigned i = 0; c.bitmaps && i < 3; i++)
		model_bitmap_add(&s.m, i > 0);
	for (unsigned i = 0; i <= WRITERS; i++) {
		w[i] = (struct worker){.s = &s, .id = i, .rng = {seed * 31 + i}};
		w[i].buf = malloc(MODEL_MAX_LEN);
		expect(w[i].buf);
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		round_of_work(&s, w);
		model_compare(&s.m);
		must(img_settle(s.m.img, &e), &e);
		model_judge(&s.m, false);
		if (i == 0)
			keep_snapshot(&s.m);
		if (c.bitmaps)
			model_bitmap_merge(&s.m, 0, i);
	}
	apply_snapshot(&s.m);
	must(img_settle(s.m.img, &e), &e);
	model_judge(&s.m, false);
	if (ask)
		model_ask_peer(&s.m);
	for (unsigned i = 0; i <= WRITERS; i++)
		free(w[i].buf);
	free(s.run);
	model_close(&s.m);
}

int main(void)
{
	uint64_t ops = env_u64("OPS", SANITIZED ? 200 : 800), images = 0;
	struct seeds s;

	seeds_init(&s, 1, SANITIZED ? 12 : 30);
	while (seeds_next(&s))
		run(s.seed, ops, peer_here() && images++ % 4 == 0);
	printf("%" PRIu64 " images, %" PRIu64 " operations\n", images,
	       images * ops * WRITERS * ROUNDS);
	return !images;
}
