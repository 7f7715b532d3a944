// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A file in memory that behaves like a regular file: a write past the end extends it, gaps and what
 * a shrink cut off read as zeros, holes can be punched and are told by map.
 *
 * Pieces of 64 KiB are kept in a vector sorted by index; those that are missing are holes, so a
 * sparse disk of any size costs what is written to it. One rwlock: readers in parallel.
 *
 * clone copies, where bounds are those of blocks; a test that wants it sets IO_CLONES.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "io/doubles.h"

#define PIECE (64 * KiB)
#define BLOCK 4096 /* bytes: what can be cloned */

struct piece {
	uint64_t index; /* of bytes [index * PIECE, (index + 1) * PIECE) */
	unsigned char *data;
};

struct mem {
	struct io io; /* first */
	pthread_rwlock_t lock;
	struct piece *v;
	size_t n, cap;
};

static struct mem *mem_of(struct io *io)
{
	return (struct mem *)(void *)io; /* io is the first member */
}

/* Position of the first piece with this index or a higher one. */
static size_t lower_bound(const struct mem *m, uint64_t index)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->v[mid].index < index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* NULL: a hole. */
static unsigned char *piece_data(const struct mem *m, uint64_t index)
{
	size_t i = lower_bound(m, index);

	return i < m->n && m->v[i].index == index ? m->v[i].data : NULL;
}

/* As piece_data, but makes the piece; NULL: no memory. */
static unsigned char *piece_make(struct mem *m, uint64_t index)
{
	size_t i = lower_bound(m, index);
	unsigned char *data;

	if (i < m->n && m->v[i].index == index)
		return m->v[i].data;
	if (m->n == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 64;
		struct piece *v = reallocarray(m->v, cap, sizeof(*v));

		if (!v)
			return NULL;
		m->v = v;
		m->cap = cap;
	}
	data = calloc(1, PIECE);
	if (!data)
		return NULL;
	memmove(m->v + i + 1, m->v + i, (m->n - i) * sizeof(*m->v));
	m->v[i] = (struct piece){.index = index, .data = data};
	m->n++;
	return data;
}

/* Frees the pieces with an index in [first, end). */
static void drop_pieces(struct mem *m, uint64_t first, uint64_t end)
{
	size_t from = lower_bound(m, first), to = lower_bound(m, end);

	if (from >= to)
		return;
	for (size_t i = from; i < to; i++)
		free(m->v[i].data);
	memmove(m->v + from, m->v + to, (m->n - to) * sizeof(*m->v));
	m->n -= to - from;
}

/* Bytes of the request that lie in the piece of `off`. */
static size_t in_piece(uint64_t off, uint64_t len)
{
	return (size_t)min_u64(len, PIECE - off % PIECE);
}

static int mem_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct mem *m = mem_of(io);
	unsigned char *p = buf;

	(void)err;
	pthread_rwlock_rdlock(&m->lock);
	while (len) {
		size_t n = in_piece(off, len);
		const unsigned char *data = piece_data(m, off / PIECE);

		if (data)
			memcpy(p, data + off % PIECE, n);
		else
			memset(p, 0, n);
		p += n;
		off += n;
		len -= n;
	}
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static int mem_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct mem *m = mem_of(io);
	const unsigned char *p = buf;
	int r = 0;

	pthread_rwlock_wrlock(&m->lock);
	while (len) {
		size_t n = in_piece(off, len);
		unsigned char *data = piece_make(m, off / PIECE);

		if (!data) {
			r = err_nomem(err, PIECE, io->name);
			break;
		}
		memcpy(data + off % PIECE, p, n);
		p += n;
		off += n;
		len -= n;
	}
	pthread_rwlock_unlock(&m->lock);
	return r;
}

static int mem_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
		     struct err *err)
{
	unsigned char *buf;
	int r;

	if ((off | at | len) % BLOCK)
		return -ENOTSUP;
	buf = malloc(len);
	if (!buf)
		return err_nomem(err, len, io->name);
	r = io_pread(src, buf, len, at, err);
	if (r == 0)
		r = mem_pwrite(io, buf, len, off, err);
	free(buf);
	return r;
}

/* Zeros a range with the lock held: whole pieces become holes if `punch`. */
static void clear(struct mem *m, uint64_t off, uint64_t len, bool punch)
{
	uint64_t end = off + len;
	size_t i = lower_bound(m, off / PIECE);

	for (; i < m->n && m->v[i].index * PIECE < end; i++) {
		uint64_t start = m->v[i].index * PIECE;
		uint64_t from = max_u64(off, start) - start;

		memset(m->v[i].data + from, 0,
		       (size_t)(min_u64(end, start + PIECE) - start - from));
	}
	if (punch)
		drop_pieces(m, div_up(off, PIECE), end / PIECE);
}

static int mem_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct mem *m = mem_of(io);

	(void)err;
	pthread_rwlock_wrlock(&m->lock);
	clear(m, off, len, flags & IO_ZERO_UNMAP);
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static int mem_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	return mem_zero(io, off, len, IO_ZERO_UNMAP, err);
}

static int mem_flush(struct io *io, struct err *err)
{
	(void)io;
	(void)err;
	return 0;
}

static int mem_resize(struct io *io, uint64_t size, struct err *err)
{
	struct mem *m = mem_of(io);

	(void)err;
	pthread_rwlock_wrlock(&m->lock);
	drop_pieces(m, div_up(size, PIECE), UINT64_MAX);
	if (size % PIECE)
		clear(m, size, PIECE - size % PIECE, false);
	atomic_store(&io->size, size);
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static int mem_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	struct mem *m = mem_of(io);
	uint64_t index = off / PIECE, end;
	size_t i;

	(void)err;
	pthread_rwlock_rdlock(&m->lock);
	i = lower_bound(m, index);
	if (i < m->n && m->v[i].index == index) {
		for (end = index + 1, i++; i < m->n && m->v[i].index == end; i++)
			end++;
		ext->len = min_u64(len, end * PIECE - off);
	} else {
		ext->kind = EXT_ZERO;
		if (i < m->n)
			ext->len = min_u64(len, m->v[i].index * PIECE - off);
	}
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static void mem_close(struct io *io)
{
	struct mem *m = mem_of(io);

	drop_pieces(m, 0, UINT64_MAX);
	free(m->v);
	pthread_rwlock_destroy(&m->lock);
	free(m);
}

static const struct io_ops mem_ops = {
	.name = "mem",
	.pread = mem_pread,
	.pwrite = mem_pwrite,
	.clone = mem_clone,
	.zero = mem_zero,
	.discard = mem_discard,
	.flush = mem_flush,
	.resize = mem_resize,
	.map = mem_map,
	.close = mem_close,
};

int mem_open(const char *name, uint64_t size, struct io **out, struct err *err)
{
	struct mem *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_nomem(err, sizeof(*m), "a file in memory");
	r = io_init(&m->io, &mem_ops, name, err);
	if (r < 0) {
		free(m);
		return r;
	}
	m->io.caps = IO_GROWS | IO_SPARSE | IO_FASTZERO;
	atomic_init(&m->io.size, size);
	pthread_rwlock_init(&m->lock, NULL);
	*out = &m->io;
	return 0;
}
