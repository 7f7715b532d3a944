// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Records every change on its way to the inner io, and every flush, so that a test can replay what
 * a power loss may leave on the disk.
 *
 * One mutex around "apply and record": the order of the log is the order in which the changes took
 * effect, and a flush record stands behind exactly the changes that were complete when the flush
 * began. A discard is recorded as CRASH_ZERO: the data is gone from then on. A clone is a write: it
 * may be lost or kept like one.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "io/doubles.h"
#include "io/doubles/pass.h"

struct crash {
	struct pass pass; /* first */
	struct crash_log *log;
	pthread_mutex_t lock;
};

static struct crash *crash_of(struct io *io)
{
	return (struct crash *)(void *)io; /* pass.io is the first member */
}

/* Makes sure that one more record fits. */
static int reserve(struct crash_log *log, struct err *err)
{
	size_t cap = log->cap ? log->cap * 2 : 256;
	struct crash_rec *rec;

	if (log->n < log->cap)
		return 0;
	rec = reallocarray(log->rec, cap, sizeof(*rec));
	if (!rec)
		return err_nomem(err, cap * sizeof(*rec), "the crash log");
	log->rec = rec;
	log->cap = cap;
	return 0;
}

/* Room was reserved. */
static void append(struct crash_log *log, struct crash_rec rec)
{
	log->rec[log->n++] = rec;
}

static int crash_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	return io_pread(pass_of(io)->inner, buf, len, off, err);
}

static int crash_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct crash *c = crash_of(io);
	unsigned char *data = malloc(len);
	int r;

	if (!data)
		return err_nomem(err, len, "the crash log");
	memcpy(data, buf, len);
	pthread_mutex_lock(&c->lock);
	r = reserve(c->log, err);
	if (r == 0)
		r = io_pwrite(c->pass.inner, buf, len, off, err);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_WRITE, off, len, data});
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		free(data);
	return r;
}

static int crash_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
		       struct err *err)
{
	struct crash *c = crash_of(io);
	unsigned char *data = malloc(len);
	int r;

	if (!data)
		return err_nomem(err, len, "the crash log");
	r = io_pread(src, data, len, at, err);
	pthread_mutex_lock(&c->lock);
	if (r == 0)
		r = reserve(c->log, err);
	if (r == 0)
		r = io_clone(c->pass.inner, off, src, at, len, err);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_WRITE, off, len, data});
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		free(data);
	return r;
}

static int crash_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct crash *c = crash_of(io);
	int r;

	pthread_mutex_lock(&c->lock);
	r = reserve(c->log, err);
	if (r == 0)
		r = io_zero(c->pass.inner, off, len, flags, err);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_ZERO, off, len, NULL});
	pthread_mutex_unlock(&c->lock);
	return r;
}

static int crash_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	struct crash *c = crash_of(io);
	int r;

	pthread_mutex_lock(&c->lock);
	r = reserve(c->log, err);
	if (r == 0)
		r = io_discard(c->pass.inner, off, len, err);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_ZERO, off, len, NULL});
	pthread_mutex_unlock(&c->lock);
	return r;
}

static int crash_flush(struct io *io, struct err *err)
{
	struct crash *c = crash_of(io);
	int r;

	pthread_mutex_lock(&c->lock);
	r = reserve(c->log, err);
	if (r == 0)
		r = io_flush(c->pass.inner, err);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_FLUSH, 0, 0, NULL});
	pthread_mutex_unlock(&c->lock);
	return r;
}

static int crash_resize(struct io *io, uint64_t size, struct err *err)
{
	struct crash *c = crash_of(io);
	int r;

	pthread_mutex_lock(&c->lock);
	r = reserve(c->log, err);
	if (r == 0)
		r = pass_resize(io, size, err);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_RESIZE, size, 0, NULL});
	pthread_mutex_unlock(&c->lock);
	return r;
}

static void crash_close(struct io *io)
{
	pthread_mutex_destroy(&crash_of(io)->lock);
	pass_close(io);
}

static const struct io_ops crash_ops = {
	.name = "crash",
	.pread = crash_pread,
	.pwrite = crash_pwrite,
	.clone = crash_clone,
	.zero = crash_zero,
	.discard = crash_discard,
	.flush = crash_flush,
	.resize = crash_resize,
	.map = pass_map,
	.close = crash_close,
};

int crash_mark(struct io *io, uint64_t value)
{
	struct crash *c = crash_of(io);
	int r;

	assert(io->ops == &crash_ops);
	pthread_mutex_lock(&c->lock);
	r = reserve(c->log, NULL);
	if (r == 0)
		append(c->log, (struct crash_rec){CRASH_MARK, value, 0, NULL});
	pthread_mutex_unlock(&c->lock);
	return r;
}

void crash_log_free(struct crash_log *log)
{
	for (size_t i = 0; i < log->n; i++)
		free(log->rec[i].data);
	free(log->rec);
	free(log->base);
	*log = (struct crash_log){0};
}

/* Starts an empty log with the content that inner has now. */
static int begin_log(struct crash_log *log, struct io *inner, struct err *err)
{
	uint64_t size = io_size(inner);
	int r;

	*log = (struct crash_log){.base_size = size};
	log->base = malloc(size ? (size_t)size : 1);
	if (!log->base)
		return err_nomem(err, size, "the crash log");
	r = io_pread(inner, log->base, (size_t)size, 0, err);
	if (r < 0)
		crash_log_free(log);
	return r;
}

int crash_open(struct io *inner, bool own, struct crash_log *log, struct io **out, struct err *err)
{
	struct crash *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_nomem(err, sizeof(*c), "a crash io");
	r = begin_log(log, inner, err);
	if (r < 0) {
		free(c);
		return r;
	}
	r = pass_init(&c->pass, &crash_ops, inner, own, err);
	if (r < 0) {
		crash_log_free(log);
		free(c);
		return r;
	}
	c->log = log;
	pthread_mutex_init(&c->lock, NULL);
	*out = &c->pass.io;
	return 0;
}
