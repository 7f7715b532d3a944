// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random operations on a qcow2 image and on a copy in plain memory: both must always say the same,
 * and the file must be sound whenever it is settled, for us and for qemu-img.
 *
 * timeout: 300
 *
 * SEED=n runs one image; SOAK_SECONDS=n new ones for so long; OPS=n operations for each; TRACE=1 tells
 * every operation; JUDGE=n judges the file after each from the n-th on (which settles it, so the run is another one).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "model.h"
#include "mix.h"
#include "ops/compact.h"
#include "ops/dedup.h"
#include "ops/sparsify.h"
#include "peer.h"
#include "tell.h"

/* ---- where and how much ---- */

struct span {
	uint64_t off, len;
};

/* A range inside the disk: often small, often near the same places, often on cluster bounds. */
static struct span some_span(struct model *m)
{
	uint64_t cluster = UINT64_C(1) << m->c.cluster_bits, size = m->disk.size;
	struct span s;

	if (rng_percent(&m->rng, 50)) /* hot: collisions matter */
		s.off = rng_below(&m->rng, min_u64(size, 12 * cluster));
	else
		s.off = rng_below(&m->rng, size);
	switch (rng_below(&m->rng, 8)) {
	case 0:
		s.len = rng_range(&m->rng, 1, 64 * cluster);
		break;
	case 1:
	case 2:
		s.off = round_down(s.off, cluster);
		s.len = cluster * rng_range(&m->rng, 1, 5);
		break;
	case 3:
		s.off = round_down(s.off, 512);
		s.len = 512 * rng_range(&m->rng, 1, 20);
		break;
	case 4:
		if (m->c.extended) { /* whole subclusters */
			s.off = round_down(s.off, cluster / 32);
			s.len = cluster / 32 * rng_range(&m->rng, 1, 40);
			break;
		}
		/* fall through */
	default:
		s.len = rng_range(&m->rng, 1, 3 * cluster);
		break;
	}
	if (rng_percent(&m->rng, 2))
		s.off = size - min_u64(size, s.len); /* up to the very end */
	s.len = min_u64(min_u64(s.len, size - s.off), MODEL_MAX_LEN);
	return s;
}

/* ---- operations ---- */

static void do_write(struct model *m)
{
	struct span s = some_span(m);
	struct err e = {0};

	if (rng_percent(&m->rng, 10))
		memset(m->buf, (int)rng_below(&m->rng, 3), s.len);
	else
		rng_fill(&m->rng, m->buf, s.len);
	must(io_pwrite(&m->img->io, m->buf, s.len, s.off, &e), &e);
	memcpy(m->disk.bytes + s.off, m->buf, s.len);
	model_bitmaps_changed(m, s.off, s.len, GRANULE_DIRTY);
}

static void do_read(struct model *m)
{
	struct span s = some_span(m);
	struct err e = {0};

	must(io_pread(&m->img->io, m->buf, s.len, s.off, &e), &e);
	for (uint64_t i = 0; i < s.len; i++)
		if (m->buf[i] != m->disk.bytes[s.off + i])
			die("after %" PRIu64 " operations: byte %" PRIu64 " of the read at %" PRIu64
			    " is %02x, not %02x",
			    m->ops, i, s.off, m->buf[i], m->disk.bytes[s.off + i]);
}

static void do_zero(struct model *m)
{
	static const unsigned flags[] = {0, IO_ZERO_UNMAP, IO_ZERO_UNMAP, IO_ZERO_FAST,
					 IO_ZERO_FAST | IO_ZERO_UNMAP};
	unsigned f = flags[rng_below(&m->rng, ARRAY_LEN(flags))];
	struct span s = some_span(m);
	struct err e = {0};
	int r = io_zero(&m->img->io, s.off, s.len, f, &e);

	model_bitmaps_changed(m, s.off, s.len, r == 0 ? GRANULE_DIRTY : GRANULE_MAYBE);
	if (r == 0) {
		memset(m->disk.bytes + s.off, 0, s.len);
		return;
	}
	if (r != -ENOTSUP || !(f & IO_ZERO_FAST))
		die("zero: %s", e.msg);
	/* Some of it may be done. */
	must(io_pread(&m->img->io, m->buf, s.len, s.off, &e), &e);
	for (uint64_t i = 0; i < s.len; i++)
		expect(!m->buf[i] || m->buf[i] == m->disk.bytes[s.off + i]);
	memcpy(m->disk.bytes + s.off, m->buf, s.len);
}

/* What a discarded cluster may read as: itself, or zeros. */
static void adopt_discarded(struct model *m, uint64_t off, uint64_t len, bool whole)
{
	bool same = !memcmp(m->buf, m->disk.bytes + off, len);

	if (!same && !(whole && bytes_are_zero(m->buf, len)))
		die("after %" PRIu64 " operations: discard: %" PRIu64 " bytes at %" PRIu64
		    " read as neither what they were nor zeros",
		    m->ops, len, off);
	memcpy(m->disk.bytes + off, m->buf, len);
}

static void do_discard(struct model *m)
{
	uint64_t cluster = UINT64_C(1) << m->c.cluster_bits, n;
	struct span s = some_span(m);
	struct err e = {0};

	must(io_discard(&m->img->io, s.off, s.len, &e), &e);
	model_bitmaps_changed(m, s.off, s.len, GRANULE_DIRTY);
	for (uint64_t at = s.off; at < s.off + s.len; at += n) {
		uint64_t end = round_down(at, cluster) + cluster;
		bool whole;

		n = min_u64(s.off + s.len, end) - at;
		whole = at % cluster == 0 && (n == cluster || at + n == m->disk.size);
		must(io_pread(&m->img->io, m->buf, n, at, &e), &e);
		adopt_discarded(m, at, n, whole);
	}
}

static void do_flush(struct model *m)
{
	struct err e = {0};

	must(io_flush(&m->img->io, &e), &e);
}

static void do_map(struct model *m)
{
	struct span s = some_span(m);
	struct err e = {0};
	struct extent x;

	must(io_map(&m->img->io, s.off, s.len, &x, &e), &e);
	expect(x.off == s.off && x.len >= 1 && x.len <= s.len);
	if (x.kind == EXT_ABSENT || x.kind == EXT_ZERO)
		expect(bytes_are_zero(m->disk.bytes + s.off, x.len));
}

static void do_resize(struct model *m)
{
	uint64_t size = rng_range(&m->rng, 1, m->c.size * 3 / 1024) * 512;
	int mode = rng_percent(&m->rng, 20) ? (int)rng_below(&m->rng, 4) : PREALLOC_OFF;
	struct err e = {0};
	int r;

	if (rng_percent(&m->rng, 30)) /* nearby */
		size = round_up(m->disk.size, 512) + rng_below(&m->rng, 40) * 512;
	if (size < m->disk.size)
		mode = PREALLOC_OFF;
	r = img_resize(m->img, size, mode, &e);
	if (r == -ENOTSUP && m->c.version == 2 && m->n_snap)
		return;
	must(r, &e);
	m->disk.bytes = realloc(m->disk.bytes, size);
	expect(m->disk.bytes);
	if (size > m->disk.size)
		memset(m->disk.bytes + m->disk.size, 0, size - m->disk.size);
	m->disk.size = size;
	model_bitmaps_resized(m);
}

static struct model_disk copy_of(const struct model_disk *d)
{
	struct model_disk copy = {malloc(d->size), d->size};

	expect(copy.bytes);
	memcpy(copy.bytes, d->bytes, d->size);
	return copy;
}

static unsigned index_of(struct model *m, unsigned i)
{
	struct err e = {0};
	unsigned index = 0;

	must(img_snapshot_find(m->img, m->snap_name[i], &index, &e), &e);
	return index;
}

static void do_snapshot(struct model *m)
{
	struct err e = {0};
	char name[16];
	int r;

	if (m->n_snap == MODEL_SNAPSHOTS)
		return;
	snprintf(name, sizeof(name), "s%u-%u", m->next_snap++ % 1000, m->n_snap);
	r = img_snapshot_create(m->img, name, NULL, &e);
	if (r == -EINVAL && m->c.refcount_bits <= 4)
		return; /* does not fit into the refcounts */
	must(r, &e);
	m->snap[m->n_snap] = copy_of(&m->disk);
	strcpy(m->snap_name[m->n_snap++], name);
}

static void do_apply(struct model *m)
{
	struct err e = {0};
	unsigned i;
	int r;

	if (!m->n_snap)
		return;
	i = (unsigned)rng_below(&m->rng, m->n_snap);
	r = img_snapshot_apply(m->img, index_of(m, i), &e);
	if (r == -EINVAL && m->c.refcount_bits <= 4)
		return;
	if (r == -EBUSY && m->n_bitmap)
		return;
	must(r, &e);
	free(m->disk.bytes);
	m->disk = copy_of(&m->snap[i]);
}

static void do_remove(struct model *m)
{
	struct err e = {0};
	unsigned i;

	if (!m->n_snap)
		return;
	i = (unsigned)rng_below(&m->rng, m->n_snap);
	must(img_snapshot_remove(m->img, index_of(m, i), &e), &e);
	free(m->snap[i].bytes);
	m->n_snap--;
	memmove(&m->snap[i], &m->snap[i + 1], (m->n_snap - i) * sizeof(m->snap[0]));
	memmove(&m->snap_name[i], &m->snap_name[i + 1], (m->n_snap - i) * sizeof(m->snap_name[0]));
}

/* A snapshot read through a second, read-only opening. */
static void do_view(struct model *m)
{
	struct model_disk now = m->disk;
	struct img *backing = NULL, *img = m->img;
	struct err e = {0};
	unsigned i;

	if (!m->n_snap)
		return;
	i = (unsigned)rng_below(&m->rng, m->n_snap);
	must(img_settle(m->img, &e), &e);
	if (m->c.backing)
		backing = disk_open(m->backing_file, m->c.backing, 0, NULL);
	m->img = disk_open(m->file, "qcow2", 0, backing);
	must(img_snapshot_view(m->img, index_of(m, i), &e), &e);
	m->disk = m->snap[i];
	model_compare(m);
	io_close(&m->img->io);
	m->img = img;
	m->disk = now;
}

static void do_reopen(struct model *m)
{
	model_reopen(m, true);
}

/* What was not written back may leak, and the repair finds it. */
static void do_crash(struct model *m)
{
	struct check_result res;
	struct err e = {0};

	model_reopen(m, false);
	model_bitmaps_crashed(m);
	must(img_check(m->img, CHECK_FIX_LEAKS, &res, NULL, NULL, &e), &e);
	if (res.corruptions || res.leaks || res.check_errors)
		die("after %" PRIu64 " operations: check after a crash: %" PRIu64
		    " corruptions, %" PRIu64 " leaks",
		    m->ops, res.corruptions, res.leaks);
}

static void do_check(struct model *m)
{
	struct check_result res;
	struct err e = {0};

	must(img_check(m->img, 0, &res, NULL, NULL, &e), &e);
	if (res.corruptions || res.check_errors)
		die("after %" PRIu64 " operations: check: %" PRIu64 " corruptions", m->ops,
		    res.corruptions);
}

static void do_compact(struct model *m)
{
	struct compact_result res;
	struct err e = {0};

	int r = compact_run(m->img, &res, NULL, &e);

	if (r != -ENOTSUP || !m->n_bitmap)
		must(r, &e);
}

static void do_dedup(struct model *m)
{
	struct dedup_result res;
	struct err e = {0};

	int r = dedup_run(m->img, &(struct dedup_args){.hash = &mix_hash}, &res, NULL, &e);

	if (r != -ENOTSUP || !m->n_bitmap)
		must(r, &e);
}

static void do_sparsify(struct model *m)
{
	struct sparsify_result res;
	struct err e = {0};

	must(sparsify_run(m->img, 2, &res, NULL, &e), &e);
	model_bitmaps_changed(m, 0, m->disk.size, GRANULE_MAYBE); /* what became zeros */
}

static void do_bitmap(struct model *m)
{
	unsigned i, pick = (unsigned)rng_below(&m->rng, 8);

	if (!m->c.bitmaps)
		return;
	if (pick < 2 && m->n_bitmap < MODEL_BITMAPS)
		model_bitmap_add(m, rng_percent(&m->rng, 80));
	if (!m->n_bitmap)
		return;
	i = (unsigned)rng_below(&m->rng, m->n_bitmap);
	switch (pick) {
	case 2:
		model_bitmap_remove(m, i);
		break;
	case 3:
		model_bitmap_clear(m, i);
		break;
	case 4:
	case 5:
		model_bitmap_enable(m, i, rng_percent(&m->rng, 60));
		break;
	case 6:
	case 7:
		model_bitmap_merge(m, i, (unsigned)rng_below(&m->rng, m->n_bitmap));
		break;
	default:
		break;
	}
}

static const struct {
	unsigned weight;
	const char *name;
	void (*run)(struct model *);
} operations[] = {
	{420, "write", do_write},     {120, "read", do_read},        {100, "zero", do_zero},
	{80, "discard", do_discard},  {60, "flush", do_flush},       {20, "map", do_map},
	{20, "resize", do_resize},    {20, "snapshot", do_snapshot}, {10, "apply", do_apply},
	{15, "remove", do_remove},    {5, "view", do_view},          {5, "reopen", do_reopen},
	{5, "crash", do_crash},       {3, "check", do_check},        {4, "compact", do_compact},
	{4, "sparsify", do_sparsify}, {4, "dedup", do_dedup},        {25, "bitmap", do_bitmap},
};

static bool trace;
static uint64_t judge;

static void do_one(struct model *m)
{
	unsigned total = 0, pick;

	for (size_t i = 0; i < ARRAY_LEN(operations); i++)
		total += operations[i].weight;
	pick = (unsigned)rng_below(&m->rng, total);
	for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
		if (pick < operations[i].weight) {
			if (trace)
				fprintf(stderr, "%" PRIu64 " %s\n", m->ops, operations[i].name);
			operations[i].run(m);
			break;
		}
		pick -= operations[i].weight;
	}
	m->ops++;
}

/* ---- one image ---- */

static void run(uint64_t seed, uint64_t ops, bool ask)
{
	struct model_config c;
	struct model m;
	struct err e = {0};

	model_config_random(&c, seed);
	model_open(&m, &c);
	model_compare(&m);
	for (unsigned phase = 0; phase < 4; phase++) {
		for (uint64_t i = 0; i < ops / 4; i++) {
			do_one(&m);
			if (judge && m.ops >= judge) {
				must(img_settle(m.img, &e), &e);
				model_judge(&m, false);
			}
		}
		model_compare(&m);
		must(img_settle(m.img, &e), &e);
		model_judge(&m, false);
	}
	if (ask)
		model_ask_peer(&m);
	model_close(&m);
}

int main(void)
{
	uint64_t ops = env_u64("OPS", 400), images = 0, asked = 0;
	unsigned every = SANITIZED ? 4 : 2;
	struct seeds s;

	trace = env_u64("TRACE", 0);
	judge = env_u64("JUDGE", 0);
	seeds_init(&s, 1, SANITIZED ? 40 : 120);
	while (seeds_next(&s)) {
		bool ask = peer_here() && (images % every == 0 || getenv("SEED"));

		run(s.seed, ops, ask);
		images++;
		asked += ask;
	}
	printf("%" PRIu64 " images, %" PRIu64 " operations; qemu-img agreed on %" PRIu64 "\n",
	       images, images * ops, asked);
	return !images;
}
