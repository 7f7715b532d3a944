// SPDX-License-Identifier: GPL-2.0-or-later
/* See workload.h. */
#include "workload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/opt.h"
#include "ops/bitmap.h"
#include "mix.h"
#include "ops/compact.h"
#include "ops/dedup.h"
#include "ops/sparsify.h"
#include "tell.h"

#define SECTOR  512
#define BACKING UINT64_C(0xb0000000) /* "number" of what the backing file holds */
#define INITIAL UINT64_C(0xa0000000) /* of what the image holds at the beginning */
#define TWIN    UINT64_C(0xd0000000) /* of clusters that all hold the same */

/* While it runs. */
struct runner {
	struct workload *w;
	struct rng rng;
	struct io *mem, *file; /* file records on its way to mem */
	struct img *img;
	uint64_t size;     /* sectors now */
	uint64_t *current; /* value of each sector */
	struct shots shots;
	unsigned version, refcount_bits; /* now */
	char bitmap[16];                 /* name of the bitmap; "": none */
	unsigned n_done, n_names;
	unsigned char *buf; /* one disk */
	uint64_t hot[10];   /* clusters that most operations meet at */
};

/* ---- choosing ---- */

static void choose(struct workload *w)
{
	struct rng r = {w->seed * 104729 + 7};
	uint64_t cluster;

	w->version = rng_percent(&r, 30) ? 2 : 3;
	w->cluster_bits = rng_percent(&r, 55) ? 9 : rng_percent(&r, 80) ? 12 : 13;
	w->refcount_bits = w->version == 2 ? 16 : 1u << rng_below(&r, 7);
	if (w->refcount_bits == 1 && rng_percent(&r, 70))
		w->refcount_bits = 2; /* no snapshots with 1 */
	w->lazy = w->version == 3 && rng_percent(&r, 30);
	w->coded = rng_percent(&r, 35);
	w->near_growth = rng_percent(&r, 12);
	if (w->near_growth) { /* the refcount table is nearly full */
		w->version = 3;
		w->cluster_bits = 9;
		w->refcount_bits = 64;
		w->coded = false;
	}
	w->extended = w->version == 3 && !w->near_growth && rng_percent(&r, 25);
	if (w->extended) /* subclusters of one sector, or of two */
		w->cluster_bits = rng_percent(&r, 40) ? 14 : 15;
	cluster = UINT64_C(1) << w->cluster_bits;
	w->size = rng_range(&r, cluster / 8 * 64, cluster / 8 * 250) * SECTOR;
	w->size = w->near_growth ? 2000 * KiB : min_u64(w->size, 5 * MiB);
	w->n_sectors = (w->size + w->size / 4) / SECTOR;
	if (rng_percent(&r, 35) && !w->near_growth)
		w->backing_size = rng_range(&r, 8, w->n_sectors) * SECTOR;
	if (w->backing_size) { /* a long one does not fit into the first sector with version 3 */
		unsigned more = w->cluster_bits > 9 && rng_percent(&r, 70) ? 200 : 0;

		for (unsigned i = 0; i < more; i++)
			strcat(w->backing_name, "./");
		strcat(w->backing_name, "base.img");
	}
	w->autoclear = w->version == 3 && rng_percent(&r, 30);
	w->n_ops = (unsigned)rng_range(&r, 30, 120);
	snprintf(w->text, sizeof(w->text),
		 "SEED=%" PRIu64 " v%u cluster=%" PRIu64 " refcount_bits=%u%s%s%s%s%s size=%" PRIu64
		 " backing=%" PRIu64,
		 w->seed, w->version, cluster, w->refcount_bits, w->lazy ? " lazy" : "",
		 w->coded ? " compressed" : "", w->near_growth ? " near-growth" : "",
		 w->autoclear ? " autoclear" : "", w->extended ? " extended-l2" : "", w->size,
		 w->backing_size);
}

/* ---- the beginning ---- */

struct filling {
	struct workload *w;
	struct rng rng;
};

static enum fill initial_kind(void *ctx, uint64_t cluster)
{
	struct filling *f = ctx;
	struct workload *w = f->w;
	uint64_t per = (UINT64_C(1) << w->cluster_bits) / SECTOR, first = cluster * per;
	uint64_t end = min_u64(first + per, w->size / SECTOR);
	unsigned data = w->near_growth ? 96 : cluster < 12 ? 40 : 2;

	if (!rng_percent(&f->rng, data))
		return FILL_NONE;
	for (uint64_t s = first; s < end; s++) {
		w->initial[s] = INITIAL << 32 | s;
		w->hot[s] = true;
	}
	/* The builder took the bytes before it asked: they were written for all sectors. */
	return w->coded && rng_percent(&f->rng, 50) ? FILL_CODED : FILL_DATA;
}

static void make_values(struct workload *w)
{
	w->initial = calloc(w->n_sectors, 8);
	w->backing = calloc(w->n_sectors, 8);
	w->hot = calloc(w->n_sectors, sizeof(*w->hot));
	expect(w->initial && w->backing && w->hot);
	for (uint64_t s = 0; s < w->backing_size / SECTOR; s++)
		w->backing[s] = BACKING << 32 | s;
	memcpy(w->initial, w->backing, w->n_sectors * 8);
}

static struct io *make_image(struct workload *w)
{
	struct filling filling = {.w = w, .rng = {w->seed}};
	struct fill_args args = {.size = w->size, .kind = initial_kind, .ctx = &filling};
	struct io *file = disk_new("crash.qcow2");
	unsigned char *bytes = malloc(w->n_sectors * SECTOR);
	struct err e = {0};
	char opts[128];

	expect(bytes);
	make_values(w);
	if (w->backing_size) {
		sectors_fill(bytes, w->backing, w->backing_size / SECTOR);
		w->backing_file = disk_from_bytes(bytes, w->backing_size, "base.img");
		args.backing = w->backing_name;
		args.backing_format = "raw";
	}
	for (uint64_t s = 0; s < w->size / SECTOR; s++) {
		uint64_t v = INITIAL << 32 | s;

		sectors_fill(bytes + s * SECTOR, &v, 1);
	}
	snprintf(opts, sizeof(opts), "cluster_size=%u,compat=%s,refcount_bits=%u%s%s",
		 1u << w->cluster_bits, w->version == 2 ? "0.10" : "1.1", w->refcount_bits,
		 w->lazy ? ",lazy_refcounts=on" : "", w->extended ? ",extended_l2=on" : "");
	args.opts = opts;
	args.data = bytes;
	disk_fill(file, "qcow2", &args);
	if (w->autoclear)
		must(io_pwrite(file, "\x20", 1, 95, &e), &e);
	/* What lies behind the old end when the disk grows over it is not the backing's. */
	memset(w->initial + w->size / SECTOR, 0, (w->n_sectors - w->size / SECTOR) * 8);
	free(bytes);
	return file;
}

struct img *workload_open(const struct workload *w, struct io *file, unsigned flags)
{
	struct img *backing = w->backing_file ? disk_open(w->backing_file, "raw", 0, NULL) : NULL;

	return disk_open(file, "qcow2", flags, backing);
}

/* ---- operations ---- */

static struct op *begin_op(struct runner *r, const char *name, uint64_t first, uint64_t n)
{
	struct op *op = &r->w->ops[r->n_done];

	op->name = name;
	op->first = first;
	op->n = n;
	op->value = calloc(n ? n : 1, 8);
	op->after = calloc(n ? n : 1, 8);
	op->size = r->size * SECTOR;
	op->shots = r->shots;
	expect(op->value && op->after);
	return op;
}

static void issue(struct runner *r)
{
	expect(!crash_mark(r->file, r->n_done * 2));
}

static void returned(struct runner *r)
{
	struct op *op = &r->w->ops[r->n_done];

	memcpy(r->current + op->first, op->after, op->n * 8);
	r->size = op->size / SECTOR;
	r->shots = op->shots;
	for (uint64_t i = 0; i < op->n; i++)
		if (op->value[i] != r->w->initial[op->first + i])
			r->w->hot[op->first + i] = true;
	expect(!crash_mark(r->file, r->n_done * 2 + 1));
	r->n_done++;
}

/* Sectors inside the disk, mostly near a hot cluster. */
static void some_sectors(struct runner *r, uint64_t *first, uint64_t *n)
{
	uint64_t per = (UINT64_C(1) << r->w->cluster_bits) / SECTOR;

	*first = r->hot[rng_below(&r->rng, ARRAY_LEN(r->hot))] * per;
	*n = per * rng_range(&r->rng, 1, 3);
	if (rng_percent(&r->rng, 50)) { /* not on cluster bounds */
		*first += rng_below(&r->rng, per);
		*n = rng_range(&r->rng, 1, 2 * per);
	}
	if (rng_percent(&r->rng, 5))
		*first = rng_below(&r->rng, r->size);
	if (*first >= r->size)
		*first %= r->size;
	*n = min_u64(*n, r->size - *first);
}

static void do_write(struct runner *r)
{
	struct err e = {0};
	uint64_t per = (UINT64_C(1) << r->w->cluster_bits) / SECTOR;
	bool twin = rng_percent(&r->rng, 20);
	uint64_t first, n;
	struct op *op;

	some_sectors(r, &first, &n);
	op = begin_op(r, "write", first, n);
	for (uint64_t i = 0; i < n; i++)
		op->value[i] = op->after[i] = twin ? TWIN << 32 | (first + i) % per
						   : (uint64_t)(r->n_done + 1) << 32 | (first + i);
	sectors_fill(r->buf, op->value, n);
	issue(r);
	must(io_pwrite(&r->img->io, r->buf, n * SECTOR, first * SECTOR, &e), &e);
	returned(r);
}

static void do_zero(struct runner *r)
{
	unsigned flags = rng_percent(&r->rng, 60) ? IO_ZERO_UNMAP : 0;
	struct err e = {0};
	uint64_t first, n;

	some_sectors(r, &first, &n);
	begin_op(r, "zero", first, n);
	issue(r);
	must(io_zero(&r->img->io, first * SECTOR, n * SECTOR, flags, &e), &e);
	returned(r);
}

static void do_discard(struct runner *r)
{
	struct err e = {0};
	uint64_t first, n;
	struct op *op;

	some_sectors(r, &first, &n);
	op = begin_op(r, "discard", first, n);
	issue(r);
	must(io_discard(&r->img->io, first * SECTOR, n * SECTOR, &e), &e);
	must(io_pread(&r->img->io, r->buf, n * SECTOR, first * SECTOR, &e), &e);
	for (uint64_t i = 0; i < n; i++) {
		op->after[i] = sector_value(r->buf + i * SECTOR);
		expect(!op->after[i] || op->after[i] == r->current[first + i]);
	}
	returned(r);
}

static void do_flush(struct runner *r)
{
	struct err e = {0};

	begin_op(r, "flush", 0, 0)->durable = true;
	issue(r);
	must(io_flush(&r->img->io, &e), &e);
	returned(r);
}

/* Forgets what an operation would have changed: it was refused. */
static bool refused(struct runner *r, struct op *op, int code, int fine, bool may, struct err *e)
{
	if (code != fine || !may) {
		must(code, e);
		return false;
	}
	op->size = r->size * SECTOR;
	op->shots = r->shots;
	op->n = 0;
	op->durable = false;
	return true;
}

static void do_create(struct runner *r)
{
	struct workload *w = r->w;
	struct err e = {0};
	struct shot *s;
	struct op *op;

	if (r->shots.n == SHOTS)
		return;
	s = calloc(1, sizeof(*s));
	expect(s);
	snprintf(s->name, sizeof(s->name), "s%u", r->n_names++);
	s->size = r->size * SECTOR;
	s->value = malloc(w->n_sectors * 8);
	expect(s->value);
	memcpy(s->value, r->current, w->n_sectors * 8);
	w->shot[w->n_shot++] = s;
	op = begin_op(r, "snapshot create", 0, 0);
	op->shots.v[op->shots.n++] = s;
	op->durable = op->snapshot = op->rare = true;
	issue(r);
	refused(r, op, img_snapshot_create(r->img, s->name, NULL, &e), -EINVAL,
		r->refcount_bits <= 8, &e);
	returned(r);
}

static unsigned index_of(struct runner *r, unsigned i)
{
	struct err e = {0};
	unsigned index = 0;

	must(img_snapshot_find(r->img, r->shots.v[i]->name, &index, &e), &e);
	return index;
}

static void do_remove(struct runner *r)
{
	struct err e = {0};
	struct op *op;
	unsigned i;

	if (!r->shots.n)
		return;
	i = (unsigned)rng_below(&r->rng, r->shots.n);
	op = begin_op(r, "snapshot remove", 0, 0);
	op->shots.n--;
	memmove(&op->shots.v[i], &op->shots.v[i + 1], (op->shots.n - i) * sizeof(op->shots.v[0]));
	op->durable = op->snapshot = op->rare = true;
	issue(r);
	must(img_snapshot_remove(r->img, index_of(r, i), &e), &e);
	returned(r);
}

static void do_apply(struct runner *r)
{
	struct workload *w = r->w;
	const struct shot *s;
	struct err e = {0};
	struct op *op;
	unsigned i;

	if (!r->shots.n || *r->bitmap)
		return;
	i = (unsigned)rng_below(&r->rng, r->shots.n);
	s = r->shots.v[i];
	op = begin_op(r, "snapshot apply", 0, w->n_sectors);
	memcpy(op->value, s->value, w->n_sectors * 8);
	memcpy(op->after, s->value, w->n_sectors * 8);
	op->size = s->size;
	op->durable = op->snapshot = op->rare = true;
	issue(r);
	refused(r, op, img_snapshot_apply(r->img, index_of(r, i), &e), -EINVAL,
		r->refcount_bits <= 8, &e);
	returned(r);
}

/* ---- bitmaps ---- */

/* The bitmap begins anew; or goes on, but for n sectors. */
static void add_shade(struct runner *r, uint64_t first, uint64_t n)
{
	struct workload *w = r->w;
	struct shade *s = &w->shade[w->n_shade++];

	memcpy(s->name, r->bitmap, sizeof(s->name));
	s->from = r->n_done;
	s->base = malloc(w->n_sectors * 8);
	expect(s->base);
	memcpy(s->base, n ? s[-1].base : r->current, w->n_sectors * 8);
	for (uint64_t i = first; i < first + n; i++)
		s->base[i] = CELL_UNKNOWN;
}

static void do_bitmap(struct runner *r)
{
	struct err e = {0};
	struct op *op;

	if (r->version < 3)
		return;
	if (!*r->bitmap) {
		snprintf(r->bitmap, sizeof(r->bitmap), "b%u", r->n_names++);
		op = begin_op(r, "bitmap add", 0, 0);
		op->durable = op->rare = true;
		add_shade(r, 0, 0);
		issue(r);
		must(bitmap_add(r->img, r->bitmap, UINT64_C(512) << rng_below(&r->rng, 4), true,
				&e),
		     &e);
	} else if (rng_percent(&r->rng, 40)) {
		op = begin_op(r, "bitmap remove", 0, 0);
		op->durable = op->rare = true;
		issue(r);
		must(bitmap_remove(r->img, r->bitmap, &e), &e);
		*r->bitmap = 0;
	} else {
		begin_op(r, "bitmap clear", 0, 0)->rare = true;
		add_shade(r, 0, 0);
		issue(r);
		must(bitmap_clear(r->img, r->bitmap, &e), &e);
	}
	returned(r);
}

static void do_resize(struct runner *r)
{
	uint64_t new = rng_range(&r->rng, r->w->n_sectors / 2, r->w->n_sectors), low, high;
	int mode = PREALLOC_OFF;
	struct err e = {0};
	struct op *op;

	low = min_u64(new, r->size);
	high = max_u64(new, r->size);
	/* The part that comes or goes reads as zeros, as far as it can be read. */
	op = begin_op(r, "resize", low, high - low);
	if (*r->bitmap)
		add_shade(r, low, high - low);
	op->size = new *SECTOR;
	op->durable = op->rare = true;
	if (new > r->size && rng_percent(&r->rng, 30))
		mode = PREALLOC_METADATA;
	issue(r);
	refused(r, op, img_resize(r->img, new *SECTOR, mode, &e), -ENOTSUP,
		r->version == 2 && r->shots.n, &e);
	returned(r);
}

/* What amend is asked for; v and bits: what the image has afterwards. */
static void choose_amend(struct runner *r, char *text, size_t room, unsigned *v, unsigned *bits)
{
	static const char *const lazy[] = {"", "", ",lazy_refcounts=on", ",lazy_refcounts=off"};
	const char *more = lazy[rng_below(&r->rng, ARRAY_LEN(lazy))];

	*v = r->version;
	*bits = r->refcount_bits;
	if (rng_percent(&r->rng, 60) && !r->w->extended)
		*v = 5 - r->version;
	if (rng_percent(&r->rng, 50))
		*bits = 1u << rng_below(&r->rng, 7);
	if (*v == 2) {
		*bits = 16;
		more = "";
	}
	snprintf(text, room, "compat=%s,refcount_bits=%u%s", *v == 2 ? "0.10" : "1.1", *bits, more);
}

static void do_amend(struct runner *r)
{
	unsigned v, bits;
	struct opts opts = {0};
	struct err e = {0};
	char text[80];
	struct op *op;
	int code;

	choose_amend(r, text, sizeof(text), &v, &bits);
	must(opts_parse(&opts, text, &e), &e);
	op = begin_op(r, "amend", 0, 0);
	op->durable = op->rare = true;
	issue(r);
	code = img_amend(r->img, &opts, 0, NULL, &e);
	opts_free(&opts);
	/* A refcount is too large, or snapshots are of another size than the disk. */
	if (code == -ERANGE && bits < r->refcount_bits) {
		refused(r, op, code, code, true, &e);
	} else if (!refused(r, op, code, -ENOTSUP, v < r->version && (r->shots.n || *r->bitmap),
			    &e)) {
		r->version = v;
		r->refcount_bits = bits;
		r->w->n_amended++;
	}
	returned(r);
}

static void do_compact(struct runner *r)
{
	struct compact_result res;
	struct err e = {0};
	struct op *op = begin_op(r, "compact", 0, 0);

	op->durable = op->rare = true;
	issue(r);
	must(compact_run(r->img, &res, NULL, &e), &e);
	returned(r);
}

static void do_dedup(struct runner *r)
{
	struct dedup_result res;
	struct err e = {0};
	struct op *op = begin_op(r, "dedup", 0, 0);

	op->durable = op->rare = op->flags = true;
	issue(r);
	must(dedup_run(r->img, &(struct dedup_args){.hash = &mix_hash}, &res, NULL, &e), &e);
	returned(r);
}

static void do_sparsify(struct runner *r)
{
	struct sparsify_result res;
	struct err e = {0};
	struct op *op = begin_op(r, "sparsify", 0, 0);

	op->durable = op->rare = true;
	issue(r);
	must(sparsify_run(r->img, 1, &res, NULL, &e), &e);
	returned(r);
}

static void do_reopen(struct runner *r)
{
	struct err e = {0};

	begin_op(r, "reopen", 0, 0)->durable = true;
	issue(r);
	must(img_settle(r->img, &e), &e);
	io_close(&r->img->io);
	r->img = workload_open(r->w, r->file, IMG_RDWR);
	returned(r);
}

/* ---- running ---- */

static void do_one(struct runner *r)
{
	static const struct {
		unsigned weight;
		void (*run)(struct runner *);
	} ops[] = {
		{24, do_write},   {8, do_zero},  {8, do_discard}, {14, do_flush}, {9, do_create},
		{7, do_remove},   {4, do_apply}, {3, do_resize},  {3, do_reopen}, {4, do_compact},
		{2, do_sparsify}, {4, do_amend}, {6, do_bitmap},  {4, do_dedup},
	};
	uint64_t pick = rng_below(&r->rng, 100);

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (pick < ops[i].weight) {
			ops[i].run(r);
			return;
		}
		pick -= ops[i].weight;
	}
}

static void choose_hot(struct runner *r)
{
	uint64_t clusters = r->size * SECTOR >> r->w->cluster_bits;

	for (size_t i = 0; i < ARRAY_LEN(r->hot); i++)
		r->hot[i] = i < 5 ? i : rng_below(&r->rng, clusters ? clusters : 1);
}

static void list_hot(struct workload *w)
{
	w->hot_sectors = malloc(w->n_sectors * 8);
	expect(w->hot_sectors);
	for (uint64_t s = 0; s < w->n_sectors; s++)
		if (w->hot[s])
			w->hot_sectors[w->n_hot++] = s;
}

void workload_run(struct workload *w, uint64_t seed)
{
	struct runner r = {.w = w, .rng = {seed}};
	struct err e = {0};

	*w = (struct workload){.seed = seed};
	choose(w);
	context("%s", w->text);
	r.mem = make_image(w);
	must(crash_open(r.mem, true, &w->log, &r.file, &e), &e);
	w->ops = calloc(w->n_ops, sizeof(*w->ops));
	w->shot = calloc(w->n_ops, sizeof(struct shot *));
	w->shade = calloc(w->n_ops + 1, sizeof(*w->shade));
	r.current = malloc(w->n_sectors * 8);
	r.buf = malloc(w->n_sectors * SECTOR);
	expect(w->ops && w->shot && w->shade && r.current && r.buf);
	memcpy(r.current, w->initial, w->n_sectors * 8);
	r.size = w->size / SECTOR;
	r.version = w->version;
	r.refcount_bits = w->refcount_bits;
	choose_hot(&r);
	r.img = workload_open(w, r.file, IMG_RDWR);
	while (r.n_done < w->n_ops)
		do_one(&r);
	io_close(&r.img->io);
	io_close(r.file);
	free(r.current);
	free(r.buf);
	list_hot(w);
}

void workload_free(struct workload *w)
{
	for (unsigned i = 0; w->ops && i < w->n_ops; i++) {
		free(w->ops[i].value);
		free(w->ops[i].after);
	}
	for (size_t i = 0; i < w->n_shade; i++)
		free(w->shade[i].base);
	free(w->shade);
	for (size_t i = 0; i < w->n_shot; i++) {
		free(w->shot[i]->value);
		free(w->shot[i]);
	}
	free(w->ops);
	free(w->shot);
	free(w->initial);
	free(w->backing);
	free(w->hot);
	free(w->hot_sectors);
	io_close(w->backing_file);
	crash_log_free(&w->log);
}
