// SPDX-License-Identifier: GPL-2.0-or-later
/* qcow2 files in memory, sound and damaged; see damage.h. */
#include "damage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tell.h"

#define DISK_SIZE (1 * MiB)

static enum fill mixed(void *ctx, uint64_t cluster)
{
	static const enum fill kinds[] = {FILL_DATA, FILL_DATA, FILL_NONE, FILL_CODED,
					  FILL_DATA, FILL_ZERO, FILL_CODED};

	(void)ctx;
	return kinds[cluster % ARRAY_LEN(kinds)];
}

struct io *damage_image(const char *opts)
{
	struct io *file = disk_new("image");
	unsigned char *data = malloc(DISK_SIZE);
	struct fill_args args = {.size = DISK_SIZE, .opts = opts, .data = data, .kind = mixed};

	expect(data);
	/* Repetitive enough to be compressed, different enough to tell clusters apart. */
	for (uint64_t i = 0; i < DISK_SIZE; i++)
		data[i] = (unsigned char)(i / 512 + i % 7);
	disk_fill(file, "qcow2", &args);
	free(data);
	return file;
}

static struct io *with_snapshots(const char *opts, unsigned n)
{
	struct io *file = damage_image(opts);
	struct err e = {0};

	for (unsigned i = 0; i < n; i++) {
		struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		struct snapshot meta = {0};
		char name[16];

		snprintf(name, sizeof(name), "snap %u", i);
		must(img_snapshot_create(img, name, &meta, &e), &e);
		must(io_pwrite(&img->io, "written after a snapshot", 24,
			       i * 70000 % (DISK_SIZE - 24), &e),
		     &e);
		must(img_settle(img, &e), &e);
		io_close(&img->io);
	}
	return file;
}

/* Images that were made once, and are copied. */
static struct made {
	const char *opts;
	unsigned snapshots;
	struct io *file;
} made[32];

struct io *damage_image_with_snapshots(const char *opts, unsigned n)
{
	struct made *m = made;

	while (m->file && (m->snapshots != n || strcmp(m->opts, opts) != 0))
		m++;
	expect(m < made + ARRAY_LEN(made) - 1);
	if (!m->file)
		*m = (struct made){opts, n, with_snapshots(opts, n)};
	return disk_copy(m->file, "image");
}

void damage_forget(void)
{
	for (struct made *m = made; m->file; m++) {
		io_close(m->file);
		m->file = NULL;
	}
}

uint64_t damage_get(struct io *file, uint64_t off)
{
	struct err e = {0};
	be64 v;

	must(io_pread_tail(file, &v, sizeof(v), off, &e), &e);
	return be64_get(v);
}

void damage_put(struct io *file, uint64_t off, uint64_t value)
{
	struct err e = {0};
	be64 v = be64_make(value);

	must(io_pwrite(file, &v, sizeof(v), off, &e), &e);
}

struct layout_of damage_layout(struct io *file)
{
	struct header h = {0};
	struct err e = {0};
	struct layout_of l;

	must(header_read(file, &h, &e), &e);
	l = (struct layout_of){
		.cluster = UINT64_C(1) << h.cluster_bits,
		.l1 = h.l1_offset,
		.l1_size = h.l1_size,
		.reftable = h.reftable_offset,
		.block = damage_get(file, h.reftable_offset) & REFTABLE_OFFSET,
		.size = h.size,
		.order = h.refcount_order,
		.version = h.version,
		.entry = h.incompat & INCOMPAT_EXTL2 ? 16 : 8,
	};
	header_free(&h);
	return l;
}

uint64_t damage_l2(struct io *file, uint64_t off)
{
	struct layout_of l = damage_layout(file);
	uint64_t i = off / l.cluster, per_table = l.cluster / l.entry;
	uint64_t table = damage_get(file, l.l1 + i / per_table * 8) & ENTRY_OFFSET;

	expect(table);
	return table + i % per_table * l.entry;
}

/* The block of a cluster's refcount, in memory; *i: its index there. */
static unsigned char *block_of(struct io *file, uint64_t cluster, uint64_t *off, uint64_t *i)
{
	struct layout_of l = damage_layout(file);
	uint64_t per_block = l.cluster * 8 >> l.order;
	unsigned char *block = malloc(l.cluster);
	struct err e = {0};

	*off = damage_get(file, l.reftable + cluster / per_block * 8) & REFTABLE_OFFSET;
	*i = cluster % per_block;
	expect(*off && block);
	must(io_pread_tail(file, block, l.cluster, *off, &e), &e);
	return block;
}

uint64_t damage_refcount(struct io *file, uint64_t cluster)
{
	uint64_t off, i, value;
	unsigned char *block = block_of(file, cluster, &off, &i);

	value = refcount_load(block, damage_layout(file).order, i);
	free(block);
	return value;
}

void damage_set_refcount(struct io *file, uint64_t cluster, uint64_t value)
{
	uint64_t off, i;
	unsigned char *block = block_of(file, cluster, &off, &i);
	struct err e = {0};

	refcount_store(block, damage_layout(file).order, i, value);
	must(io_pwrite(file, block, damage_layout(file).cluster, off, &e), &e);
	free(block);
}

/* ---- random damage ---- */

static uint64_t some_cluster(struct io *file, const struct layout_of *l, struct rng *rng)
{
	return rng_below(rng, io_size(file) / l->cluster + 2) * l->cluster;
}

static uint64_t some_entry(struct io *file, const struct layout_of *l, struct rng *rng)
{
	switch (rng_below(rng, 6)) {
	case 0:
		return 0;
	case 1: /* version 2 knows no zero clusters */
		return l->version < 3 ? 0 : rng_below(rng, io_size(file) / 512) * 512 | ENTRY_ZERO;
	case 2:
		return ENTRY_COMPRESSED | rng_below(rng, io_size(file));
	case 3:
		return rng_next(rng) >> rng_below(rng, 40);
	default:
		return (some_cluster(file, l, rng) + l->cluster) |
		       (rng_below(rng, 2) ? ENTRY_COPIED : 0);
	}
}

static void damage_once(struct io *file, const struct layout_of *l, struct rng *rng)
{
	uint64_t clusters = io_size(file) / l->cluster, off = rng_below(rng, DISK_SIZE);
	uint64_t l1 = l->l1 + rng_below(rng, l->l1_size) * 8, n;
	uint64_t table = damage_get(file, l->l1 + off / l->cluster / (l->cluster / 8) * 8);

	switch (rng_below(rng, 10)) {
	case 0:
	case 1:
	case 2: /* refcounts */
		n = rng_below(rng, min_u64(clusters, l->cluster * 8 >> l->order));
		if (l->block && l->block % l->cluster == 0 && l->block < io_size(file))
			damage_set_refcount(file, n, rng_below(rng, 4) & refcount_max(l->order));
		break;
	case 3: /* flags */
		if (damage_get(file, l1))
			damage_put(file, l1, damage_get(file, l1) ^ ENTRY_COPIED);
		break;
	case 4:
		damage_put(file, l1, some_cluster(file, l, rng) | ENTRY_COPIED);
		break;
	case 5: /* the refcount table */
		damage_put(file, l->reftable + rng_below(rng, 3) * 8,
			   rng_below(rng, 2) ? 0 : some_cluster(file, l, rng));
		break;
	case 6: /* space that nothing refers to */
		n = io_size(file) + rng_below(rng, 3 * l->cluster);
		io_resize(file, n, NULL);
		break;
	default:
		if (!(table & ENTRY_OFFSET) || (table & ENTRY_OFFSET) >= io_size(file))
			return;
		n = damage_l2(file, off);
		if (rng_below(rng, 2))
			damage_put(file, n, some_entry(file, l, rng));
		else if (damage_get(file, n) & ENTRY_OFFSET)
			damage_put(file, n, damage_get(file, n) ^ ENTRY_COPIED);
	}
}

void damage_random(struct io *file, struct rng *rng)
{
	for (uint64_t n = 1 + rng_below(rng, 4); n; n--) {
		struct layout_of l = damage_layout(file);

		damage_once(file, &l, rng);
	}
}

/* ---- checking ---- */

void findings_line(void *ctx, const char *text)
{
	struct findings *f = ctx;
	size_t n = strlen(text);

	/* In large steps: under a sanitizer every realloc is a copy. */
	if (f->len + n + 2 > f->room) {
		f->room = (f->len + n + 2) * 2;
		f->text = realloc(f->text, f->room);
		expect(f->text);
	}
	memcpy(f->text + f->len, text, n);
	memcpy(f->text + f->len + n, "\n", 2);
	f->len += n + 1;
	f->lines++;
}

void findings_free(struct findings *f)
{
	free(f->text);
	f->text = NULL;
	f->len = f->room = f->lines = 0;
}

int damage_check(struct io *file, unsigned fix, const struct check_bounds *bounds,
		 struct check_result *res, struct findings *f, struct err *err)
{
	struct check_sink sink = {.line = findings_line,
				  .ctx = f,
				  .max_lines = f ? f->max_lines : 0};
	struct header h = {0};
	int r = header_read(file, &h, err);

	if (f)
		findings_free(f);
	if (r == 0 && bounds)
		r = check_file_bounded(bounds, file, &h, fix, res, f ? &sink : NULL, NULL, err);
	else if (r == 0)
		r = qcow2_check_file(file, &h, fix, res, f ? &sink : NULL, NULL, err);
	header_free(&h);
	return r;
}
