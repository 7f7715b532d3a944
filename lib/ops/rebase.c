// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * See rebase.h. Two passes over the overlay, each with a cursor that hands out chunks to workers:
 *
 *	keep	where it holds nothing: what the old backing file has and the new one has not
 *	drop	where it holds something (if asked for): what the new backing file has as well
 *
 * Between them the header changes. What is equal by the maps alone is not read: above all the images
 * that both chains have in common.
 */
#include "ops/rebase.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "io/file.h"
#include "ops/extent.h"
#include "ops/pair.h"

#define CHUNK (1 * MiB)

/* A part of the disk that one worker looks at: whole units. */
struct chunk {
	uint64_t off, len;
	bool equal;          /* by the maps; nothing else counts then */
	bool a_zero, b_zero; /* this side reads as zeros */
};

struct pass {
	const struct rebase_args *args;
	struct job *job;
	struct img *overlay;
	bool drop;
	bool clones;    /* the overlay may share blocks with other files */
	uint64_t unit;  /* bytes: what is equal or not: a unit of the overlay; drop: a grain */
	uint64_t chunk; /* bytes: the most that a worker takes */
	uint64_t size;

	pthread_mutex_t lock; /* guards the cursor */
	struct pair pair;     /* keep: old and new backing; drop: overlay and backing */
	struct extent layer;  /* of the overlay, where the cursor is */
	uint64_t pos;
	atomic_bool stop; /* somebody failed */
};

struct worker {
	struct pass *pass;
	unsigned char *buf;            /* two chunks: what either side has */
	unsigned char *out;            /* a unit in coded form */
	struct codec_encoder *encoder; /* NULL: nothing is to be compressed */
};

/* ---- the cursor ---- */

/* Makes p->layer the overlay's extent at `at`. */
static int find_layer(struct pass *p, uint64_t at, struct err *err)
{
	struct extent *e = &p->layer;
	int r;

	if (e->len && at >= e->off && at - e->off < e->len)
		return 0;
	r = img_map_layer(p->overlay, at, p->size - at, e, err);
	if (r < 0)
		e->len = 0;
	return r;
}

/* Whether the extent of the cursor is a matter for this pass. */
static bool concerns(const struct pass *p)
{
	return (p->layer.kind != EXT_ABSENT) == p->drop;
}

/* The end of what concerns this pass, from `at` on, as far as it matters for one chunk. */
static int find_end(struct pass *p, uint64_t at, uint64_t *end, struct err *err)
{
	uint64_t enough = min_u64(p->size, at + p->chunk);
	int r = 0;

	for (*end = at; *end < enough; *end = p->layer.off + p->layer.len) {
		r = find_layer(p, *end, err);
		if (r < 0 || !concerns(p))
			return r;
	}
	return 0;
}

/* The last bound of units at or before `at`; the end of the disk is one. */
static uint64_t unit_end(const struct pass *p, uint64_t at)
{
	return at >= p->size ? p->size : round_down(at, p->unit);
}

/* Collects units that are not equal by the maps, from c->off to at most `end`. */
static int collect(struct pass *p, struct chunk *c, uint64_t end, struct err *err)
{
	/* A coded unit, which goes as a whole, must not be cut. */
	uint64_t limit = min_u64(end, round_down(c->off + p->chunk, p->overlay->unit));
	uint64_t at = c->off, n = 0;

	for (; at < limit; at += n) {
		uint64_t first = round_up(at, p->unit);
		int r = pair_look(&p->pair, at, limit, &n, err);

		if (r < 0)
			return r;
		c->a_zero &= !extent_is_data(&p->pair.a.ext);
		c->b_zero &= !extent_is_data(&p->pair.b.ext);
		if (pair_need(&p->pair) == PAIR_EQUAL && first > c->off &&
		    unit_end(p, at + n) > first)
			limit = first;
	}
	c->len = limit - c->off;
	return 0;
}

static int look_at(struct pass *p, struct chunk *c, uint64_t end, struct err *err)
{
	uint64_t n = 0;
	int r = pair_look(&p->pair, c->off, end, &n, err);

	if (r < 0)
		return r;
	c->equal = pair_need(&p->pair) == PAIR_EQUAL;
	if (c->equal && c->off + n < end)
		n = max_u64(unit_end(p, c->off + n), c->off) - c->off;
	c->len = n;
	if (c->equal && n)
		return 0;
	c->equal = false;
	c->a_zero = c->b_zero = true;
	return collect(p, c, end, err);
}

/* The next chunk. 1: there is one; 0: the end; -errno. */
static int take_chunk(struct pass *p, struct chunk *c, struct err *err)
{
	LOCK_SCOPE(&p->lock);

	while (p->pos < p->size) {
		uint64_t end;
		int r = job_cancelled(p->job) ? err_set(err, ECANCELED, "cancelled")
					      : find_layer(p, p->pos, err);

		if (r < 0)
			return r;
		*c = (struct chunk){.off = p->pos};
		if (!concerns(p)) {
			c->equal = true;
			c->len = p->layer.off + p->layer.len - p->pos;
		} else {
			r = find_end(p, p->pos, &end, err);
			if (r == 0)
				r = look_at(p, c, end, err);
			if (r < 0)
				return r;
			if (!c->equal || p->drop) {
				p->pos += c->len;
				return 1;
			}
		}
		p->pos += c->len;
		job_advance(p->job, c->len);
	}
	return 0;
}

/* ---- units ---- */

enum verdict { SAME, DATA, ZERO }; /* DATA, ZERO: they differ, and the first has this */

/* A side that is zeros by its map was not read. */
static bool is_same(const struct chunk *c, const unsigned char *a, const unsigned char *b, size_t n)
{
	if (c->a_zero)
		return c->b_zero || bytes_are_zero(b, n);
	return c->b_zero ? bytes_are_zero(a, n) : !memcmp(a, b, n);
}

static enum verdict judge(const struct chunk *c, const unsigned char *a, const unsigned char *b,
			  size_t n)
{
	if (is_same(c, a, b, n))
		return SAME;
	return c->a_zero || bytes_are_zero(a, n) ? ZERO : DATA;
}

/* The overlay holds zeros itself, although nothing may be below it now. */
static int keep_zeros(struct pass *p, uint64_t off, uint64_t len, struct err *err)
{
	unsigned flags = IO_ZERO_UNMAP | IO_ZERO_FAST | IO_ZERO_MARK;
	int r = io_zero(&p->overlay->io, off, len, flags, err);

	if (r != -ENOTSUP)
		return r;
	/* No mark for zeros: as data, also where zeros are read now, for want of anything below. */
	for (r = 0; r == 0 && len;) {
		uint64_t n = min_u64(len, ZERO_BUF_SIZE);

		r = io_pwrite(&p->overlay->io, zero_buf, n, off, err);
		off += n;
		len -= n;
	}
	return r;
}

/* One unit, compressed if that makes it smaller; the disk may end in it, and its data be reused. */
static int keep_coded(struct worker *w, uint64_t off, uint64_t len, unsigned char *data,
		      struct err *err)
{
	struct img *overlay = w->pass->overlay;
	int64_t n = 0;

	if (is_aligned(off, overlay->unit) &&
	    (len == overlay->unit || off + len == w->pass->size)) {
		memset(data + len, 0, overlay->unit - len);
		n = codec_encode(w->encoder, data, overlay->unit, w->out, overlay->unit - 1, err);
	}
	if (n < 0)
		return (int)n;
	if (n == 0)
		return io_pwrite(&overlay->io, data, len, off, err);
	return img_write_coded(overlay, w->out, (size_t)n, off, err);
}

/* Data that were read from the old backing file; the overlay may share their blocks with it. */
static int keep_plain(struct worker *w, uint64_t off, uint64_t len, unsigned char *data,
		      struct err *err)
{
	struct pass *p = w->pass;
	struct io *old = p->pair.a.io;
	struct extent e = {.len = len};
	int r = 0;

	for (; r == 0 && len; off += e.len, data += e.len, len -= e.len) {
		struct img_source src = {.mem = data, .loaded = true};

		e.len = len;
		if (p->clones && off < io_size(old)) {
			r = io_map(old, off, min_u64(len, io_size(old) - off), &e, err);
			src.io = e.kind == EXT_DATA ? e.io : NULL;
			src.at = e.host;
		}
		if (r == 0)
			r = img_write_from(p->overlay, &src, e.len, off, err);
	}
	return r;
}

static int keep_data(struct worker *w, uint64_t off, uint64_t len, unsigned char *data,
		     struct err *err)
{
	uint64_t unit = w->pass->overlay->unit;
	int r = 0;

	if (!w->encoder)
		return keep_plain(w, off, len, data, err);
	for (uint64_t n; r == 0 && len; off += n, data += n, len -= n) {
		n = min_u64(len, round_up(off + 1, unit) - off);
		r = keep_coded(w, off, n, data, err);
	}
	return r;
}

/* Units of one verdict. */
static int act(struct worker *w, enum verdict v, uint64_t off, uint64_t len, unsigned char *data,
	       struct err *err)
{
	struct pass *p = w->pass;
	int r = 0;

	if (p->drop)
		r = v == SAME ? img_drop(p->overlay, off, len, err) : 0;
	else if (v == DATA)
		r = keep_data(w, off, len, data, err);
	else if (v == ZERO)
		r = keep_zeros(p, off, len, err);
	return r < 0 ? err_ctx(err, r, "Error while writing to COW image") : 0;
}

static int do_chunk(struct worker *w, const struct chunk *c, struct err *err)
{
	struct pass *p = w->pass;
	unsigned char *a = w->buf, *b = w->buf + p->chunk;
	uint64_t at = 0, done = 0; /* [done, at) has one verdict */
	enum verdict last = SAME;
	int r = 0;

	if (c->equal)
		return act(w, SAME, c->off, c->len, NULL, err);
	if (!c->a_zero)
		r = pair_read(p->pair.a.io, a, c->off, c->len, err);
	if (r == 0 && !c->b_zero)
		r = pair_read(p->pair.b.io, b, c->off, c->len, err);
	while (r == 0 && at < c->len) {
		uint64_t n = min_u64(c->len, round_up(c->off + at + 1, p->unit) - c->off) - at;
		enum verdict v = judge(c, a + at, b + at, n);

		if (v != last && at > done) {
			r = act(w, last, c->off + done, at - done, a + done, err);
			done = at;
		}
		last = v;
		at += n;
	}
	return r < 0 ? r : act(w, last, c->off + done, at - done, a + done, err);
}

static int worker_init(struct worker *w, struct pass *p, struct err *err)
{
	const struct codec_params params = {.type = p->overlay->codec, .unit = p->overlay->unit};

	*w = (struct worker){.pass = p};
	if (posix_memalign((void **)&w->buf, 4096, 2 * p->chunk))
		return err_nomem(err, 2 * p->chunk, "rebase buffers");
	if (p->drop || !p->args->compress)
		return 0;
	w->out = malloc(p->overlay->unit);
	if (!w->out)
		return err_nomem(err, p->overlay->unit, "rebase buffers");
	return codec_encoder_open(&params, &w->encoder, err);
}

static void worker_free(struct worker *w)
{
	codec_encoder_close(w->encoder);
	free(w->buf);
	free(w->out);
}

static int do_chunks(struct worker *w, struct err *err)
{
	struct pass *p = w->pass;
	struct chunk c;
	int r;

	while (!atomic_load(&p->stop)) {
		r = take_chunk(p, &c, err);
		if (r <= 0)
			return r;
		r = do_chunk(w, &c, err);
		if (r < 0)
			return r;
		job_advance(p->job, c.len);
	}
	return 0;
}

static int work(void *ctx, unsigned index, struct err *err)
{
	struct pass *p = ctx;
	struct worker w;
	int r = worker_init(&w, p, err);

	(void)index;
	if (r == 0)
		r = do_chunks(&w, err);
	if (r < 0)
		atomic_store(&p->stop, true);
	worker_free(&w);
	return r;
}

static int run_pass(const struct rebase_args *args, bool drop, struct job *job, struct err *err)
{
	struct img *overlay = args->overlay, *below = drop ? overlay->backing : args->backing;
	struct io *old = overlay->backing ? &overlay->backing->io : NULL;
	struct pass p = {
		.args = args,
		.job = job,
		.overlay = overlay,
		.drop = drop,
		.clones = overlay->data->caps & IO_CLONES,
		.unit = drop ? overlay->grain : overlay->unit,
		.size = io_size(&overlay->io),
		.pair.a.io = drop ? &overlay->io : old,
		.pair.b.io = below ? &below->io : NULL,
	};
	int r;

	p.chunk = max_u64(CHUNK, overlay->unit);
	pthread_mutex_init(&p.lock, NULL);
	r = work_run(args->workers ? args->workers : work_cpus(), work, &p, err);
	pthread_mutex_destroy(&p.lock);
	return r;
}

/* ---- the whole ---- */

static bool same_file(const struct img *a, const struct img *b)
{
	struct io *x = img_bottom(a), *y = img_bottom(b);
	struct file_stat sx, sy;

	return x && y && file_stat(x, &sx, NULL) == 0 && file_stat(y, &sy, NULL) == 0 &&
	       sx.dev == sy.dev && sx.ino == sy.ino;
}

int rebase_open_backing(const struct img *overlay, const char *name, const char *format,
			unsigned flags, struct img **out, struct err *err)
{
	struct img_open_args args = {.format = format, .flags = flags};
	const struct io *file = img_bottom(overlay);
	CLEANUP_FREE char *path = NULL;
	struct img *img;
	int r = img_resolve_name(file ? file->name : overlay->io.name, name, &path, err);

	if (r < 0)
		return r;
	args.path = path;
	r = img_open(&args, &img, err);
	if (r < 0)
		return r;
	for (struct img *i = img; i; i = i->backing) {
		if (same_file(i, overlay)) {
			io_close(&img->io);
			return err_set(err, ELOOP, "'%s' would be in its own backing chain",
				       overlay->io.name);
		}
	}
	*out = img;
	return 0;
}

int rebase_check_name(const struct img *overlay, const char *name, struct err *err)
{
	struct io *file = img_bottom(overlay);
	CLEANUP_FREE char *path = NULL;
	struct file_stat now;
	struct stat st;

	/* What cannot be opened as a file has other errors. */
	if (!name || !file || img_resolve_name(file->name, name, &path, NULL) < 0 ||
	    stat(path, &st) < 0 || file_stat(file, &now, NULL) < 0)
		return 0;
	if (now.dev != st.st_dev || now.ino != st.st_ino)
		return 0;
	return err_set(err, ELOOP, "'%s' would be in its own backing chain", overlay->io.name);
}

/* The error of the peer for it. A long name must leave room for the reason. */
static int set_failed(int r, const char *name, struct err *err)
{
	const char *to = name ? name : "";

	if (r == -ENOSPC)
		err_set(err, ENOSPC, "No space left in the file header");
	else if (r == -ENOTSUP)
		err_set(err, ENOTSUP, "Operation not supported");
	return err_ctx(err, r, "Could not change the backing file to '%.250s%s'", to,
		       strlen(to) > 250 ? "…" : "");
}

int rebase_set_backing(struct img *overlay, const char *name, const char *format,
		       struct img *backing, struct err *err)
{
	int r = img_set_backing(overlay, name, format, backing, err);

	return r < 0 ? set_failed(r, name, err) : 0;
}

/* What can be said before anything is written. */
static int check(const struct rebase_args *args, struct err *err)
{
	unsigned n;

	if (!args->overlay->fmt->set_backing)
		return set_failed(-ENOTSUP, args->name, err);
	if (args->name && !args->format)
		return set_failed(err_set(err, EINVAL, "backing format must be specified"),
				  args->name, err);
	if (args->compress &&
	    (!args->overlay->fmt->place_coded || args->overlay->data != args->overlay->file))
		return err_set(err, ENOTSUP, "Compression not supported for this file format");
	img_snapshots(args->overlay, &n);
	if (!n || args->change_snapshots)
		return 0;
	return err_set(err, EPERM,
		       "%s: has internal snapshots, which would change with the backing file",
		       args->overlay->io.name);
}

int rebase_run(const struct rebase_args *args, struct job *job, struct err *err)
{
	struct img *overlay = args->overlay;
	int r = check(args, err);

	job_total(job, io_size(&overlay->io) * (args->drop_equal ? 2 : 1));
	file_write_behind(overlay->data);
	if (r == 0)
		r = run_pass(args, false, job, err);
	if (r == 0)
		r = rebase_set_backing(overlay, args->name, args->format, args->backing, err);
	if (r < 0) {
		if (args->backing)
			io_close(&args->backing->io);
		return r;
	}
	if (args->drop_equal)
		r = run_pass(args, true, job, err);
	return r < 0 ? r : img_settle(overlay, err);
}
