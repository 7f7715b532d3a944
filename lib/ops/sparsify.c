// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Freeing zeros in place; see sparsify.h. Workers take pieces of what is stored from one cursor, read
 * them, and clear the runs of whole grains that are zeros.
 */
#include "ops/sparsify.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "io/file.h"

#define PIECE       (2 * MiB)
#define GRANULE_MIN 4096 /* of a raw file: what file systems punch */

struct sparsify {
	struct img *img;
	struct job *job;
	/* Bytes, powers of two: what can become zeros, of data, and of the rest. */
	uint64_t fine, coarse;
	pthread_mutex_t lock;
	uint64_t next; /* offset to look at */
	bool ended;    /* somebody failed */
	_Atomic uint64_t scanned, freed, kept;
};

/* A part of the disk that is stored here, in whole granules but for the disk's end. */
struct piece {
	uint64_t off, len, granule;
	bool zero; /* known without reading: space set aside */
};

/* Makes p the next piece of an extent. False: the extent has nothing to free. */
static bool take_piece(struct sparsify *s, const struct extent *ext, struct piece *p)
{
	uint64_t size = io_size(&s->img->io), end = ext->off + ext->len;

	s->next = end;
	if (ext->kind == EXT_ABSENT || (ext->kind == EXT_ZERO && ext->host == EXT_NO_HOST))
		return false;
	/* Of a raw file a hole is an extent of zeros with a place: nothing is stored there. */
	if (ext->kind == EXT_ZERO && s->img->unit == 1)
		return false;
	p->zero = ext->kind == EXT_ZERO;
	p->granule = ext->kind == EXT_DATA ? s->fine : s->coarse;
	p->off = round_up(ext->off, p->granule);
	if (end < size)
		end = round_down(end, p->granule);
	if (!p->zero)
		end = min_u64(end, p->off + max_u64(PIECE, p->granule));
	if (end <= p->off)
		return false;
	p->len = end - p->off;
	s->next = end;
	return true;
}

/* What is stored at `from`. Of an external data file holes are nothing that could be freed. */
static int map_stored(struct sparsify *s, uint64_t from, struct extent *ext, struct err *err)
{
	struct io *data = s->img->data;
	struct extent part;
	uint64_t stop;
	int r = img_map_layer(s->img, from, io_size(&s->img->io) - from, ext, err);

	if (r < 0 || ext->kind != EXT_DATA || data == s->img->file || ext->host >= io_size(data))
		return r;
	r = io_map(data, ext->host, min_u64(ext->len, io_size(data) - ext->host), &part, err);
	if (r < 0)
		return r;
	stop = ext->off + part.len;
	if (part.kind == EXT_DATA) {
		stop = round_up(stop, s->fine);
	} else if (part.len == ext->len || round_down(stop, s->fine) > ext->off) {
		ext->kind = EXT_ABSENT;
		stop = part.len == ext->len ? stop : round_down(stop, s->fine);
	} else { /* a granule that is a hole in part */
		stop = round_up(ext->off + 1, s->fine);
	}
	ext->len = min_u64(ext->len, stop - ext->off);
	return 0;
}

/* 1: p is the next piece; 0: there is none. */
static int next_piece(struct sparsify *s, struct piece *p, struct err *err)
{
	uint64_t size = io_size(&s->img->io);
	struct extent ext;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	while (r == 0 && s->next < size && !s->ended) {
		uint64_t from = s->next;

		if (job_cancelled(s->job))
			r = err_set(err, ECANCELED, "%s: cancelled", s->img->io.name);
		else
			r = map_stored(s, from, &ext, err);
		if (r == 0) {
			r = take_piece(s, &ext, p);
			job_advance(s->job, s->next - from);
		}
	}
	if (r < 0)
		s->ended = true;
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int clear(struct sparsify *s, uint64_t off, uint64_t len, struct err *err)
{
	int r = io_zero(&s->img->io, off, len, IO_ZERO_UNMAP | IO_ZERO_FAST, err);

	if (r == -ENOTSUP) {
		atomic_fetch_add(&s->kept, len);
		return 0;
	}
	if (r == 0)
		atomic_fetch_add(&s->freed, len);
	return r;
}

/* Clears the runs of granules that are zeros. */
static int clear_runs(struct sparsify *s, const struct piece *p, const unsigned char *buf,
		      struct err *err)
{
	uint64_t run = 0; /* bytes of zeros before `at` */
	int r = 0;

	for (uint64_t at = 0; r == 0 && at < p->len; at += p->granule) {
		uint64_t n = min_u64(p->granule, p->len - at);
		bool zero = bytes_are_zero(buf + at, n);

		if (zero)
			run += n;
		if (run && (!zero || at + n == p->len)) {
			uint64_t end = zero ? at + n : at;

			r = clear(s, p->off + end - run, run, err);
			run = 0;
		}
	}
	return r;
}

static int scan(void *ctx, unsigned worker, struct err *err)
{
	struct sparsify *s = ctx;
	uint64_t most = max_u64(PIECE, s->coarse);
	CLEANUP_FREE unsigned char *buf = malloc(most);
	struct piece p = {0};
	int r;

	(void)worker;
	if (!buf)
		return err_nomem(err, most, "what is scanned");
	while ((r = next_piece(s, &p, err)) > 0) {
		if (p.zero)
			r = clear(s, p.off, p.len, err);
		else
			r = io_pread(&s->img->io, buf, p.len, p.off, err);
		if (r == 0 && !p.zero)
			r = clear_runs(s, &p, buf, err);
		if (r < 0)
			break;
		atomic_fetch_add(&s->scanned, p.len);
	}
	if (r < 0) {
		pthread_mutex_lock(&s->lock);
		s->ended = true;
		pthread_mutex_unlock(&s->lock);
	}
	return r;
}

static uint64_t storage_of(struct io *io)
{
	struct file_stat st;

	return io_is_file(io) && file_stat(io, &st, NULL) == 0 ? st.allocated : 0;
}

static uint64_t storage(const struct img *img)
{
	return storage_of(img->file) + (img->data != img->file ? storage_of(img->data) : 0);
}

int sparsify_run(struct img *img, unsigned workers, struct sparsify_result *res, struct job *job,
		 struct err *err)
{
	struct sparsify s = {.img = img, .job = job, .lock = PTHREAD_MUTEX_INITIALIZER};
	int r, settled;

	memset(res, 0, sizeof(*res));
	if (img->io.caps & IO_RDONLY)
		return err_set(err, EROFS, "%s: sparsify: opened read-only", img->io.name);
	if (!(img->fmt->caps & FMT_WRITE))
		return err_set(err, ENOTSUP, "%s: images of the format '%s' cannot be sparsified",
			       img->io.name, img->fmt->name);
	s.coarse = img->unit > 1 ? img->unit : GRANULE_MIN;
	s.fine = img->unit > 1 ? img->grain : GRANULE_MIN;
	job_total(job, io_size(&img->io));
	res->storage_before = storage(img);
	r = work_run(workers ? workers : work_cpus(), scan, &s, err);
	settled = img_settle(img, r < 0 ? NULL : err);
	res->scanned = atomic_load(&s.scanned);
	res->freed = atomic_load(&s.freed);
	res->kept = atomic_load(&s.kept);
	res->storage_after = storage(img);
	return r < 0 ? r : settled;
}
