// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Block status: what the server says of ranges of its export.
 *
 * The map is asked for from front to back, extent by extent: so the server is asked for a long
 * range, and what it answers is handed out until something is written. An answer that comes after a
 * change began is handed out once and not kept.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/nbd_impl.h"

#define ASK      (1 * GiB)            /* bytes that the server is asked for at once */
#define MAX_RUNS ((size_t)256 * 1024) /* of an answer, that are kept: 4 KiB each in that range */

/* ---- one question ---- */

struct answer {
	const char *context;
	struct nbd_run *v; /* owned */
	size_t n, room;
	bool given;
};

static int take_answer(void *ctx, const char *context, const uint32_t *entries, size_t n)
{
	struct answer *a = ctx;

	if (strcmp(context, a->context) != 0)
		return 0;
	if (a->given || n < 2)
		return -EPROTO;
	a->given = true;
	a->n = (size_t)min_u64(n / 2, a->room);
	a->v = malloc(a->n * sizeof(*a->v));
	if (!a->v)
		return -ENOMEM;
	for (size_t i = 0; i < a->n; i++) {
		a->v[i] = (struct nbd_run){.len = entries[2 * i], .flags = entries[2 * i + 1]};
		if (a->v[i].len == 0)
			return -EPROTO;
	}
	return 0;
}

/* off, len: whole blocks. a->context and room are set; v is the caller's to free. */
static int ask(struct nbd_io *n, uint64_t off, uint64_t len, struct answer *a, struct err *err)
{
	const struct nbd_request req = {
		.kind = NBD_STATUS,
		.off = off,
		.len = len,
		.piece = len,
		.flags = a->room == 1 ? LIBNBD_CMD_FLAG_REQ_ONE : 0,
		.extents = take_answer,
		.ctx = a,
	};
	int r = nbd_run(n, &req, err);

	if (r == 0 && !a->given)
		r = err_set(err, EPROTO, "%s: the server does not answer for %s at offset %" PRIu64,
			    n->io.name, a->context, off);
	return r;
}

/* The range to ask for, of whole blocks: what is wanted, and more. */
static uint64_t ask_range(const struct nbd_io *n, uint64_t *off, uint64_t len)
{
	uint64_t end = round_up(*off + len, n->facts.min);

	*off = round_down(*off, n->facts.min);
	end = min_u64(end, n->facts.size);
	return min_u64(end - *off, ASK);
}

/* ---- any context ---- */

static int find_context(const struct nbd_io *n, const char *context)
{
	for (unsigned i = 0; i < n->n_contexts; i++) {
		if (n->has[i] && strcmp(n->contexts[i], context) == 0)
			return (int)i;
	}
	return -1;
}

bool nbd_has_context(const struct io *io, const char *context)
{
	return find_context((const struct nbd_io *)(const void *)io, context) >= 0;
}

int nbd_extents(struct io *io, const char *context, uint64_t off, uint64_t len,
		struct nbd_extent *v, size_t room, size_t *n_out, struct err *err)
{
	struct nbd_io *n = nbd_of(io);
	struct answer a = {.context = context, .room = (size_t)min_u64(room, MAX_RUNS)};
	uint64_t at = off, end = off + len;
	int r;

	if (find_context(n, context) < 0)
		return err_set(err, EINVAL, "%s: the server has no meta context '%s'", io->name,
			       context);
	if (len == 0 || room == 0 || !add_ok(off, len, &end) || end > n->facts.size)
		return err_set(err, EINVAL,
			       "%s: no extents of %" PRIu64 " bytes at offset %" PRIu64, io->name,
			       len, off);
	len = ask_range(n, &at, len);
	r = ask(n, at, len, &a, err);
	*n_out = 0;
	for (size_t i = 0; r == 0 && i < a.n && at < end; i++) {
		uint64_t stop = min_u64(at + a.v[i].len, end);

		if (stop > off)
			v[(*n_out)++] = (struct nbd_extent){.off = max_u64(at, off),
							    .len = stop - max_u64(at, off),
							    .flags = a.v[i].flags};
		at += a.v[i].len;
	}
	free(a.v);
	if (r == 0 && *n_out == 0)
		r = err_set(err, EPROTO, "%s: the server says nothing of offset %" PRIu64, io->name,
			    off);
	return r;
}

/* ---- base:allocation, for io_map ---- */

void nbd_forget(struct nbd_io *n)
{
	struct nbd_seen *s = &n->seen;
	LOCK_SCOPE(&s->lock);

	s->changes++;
	s->n = 0;
}

static void to_extent(struct nbd_io *n, uint32_t flags, struct extent *ext)
{
	ext->kind = flags & NBD_EXTENT_ZERO ? EXT_ZERO : EXT_DATA;
	ext->host = ext->off;
	ext->io = &n->io;
}

/* From what was seen. Under its lock. */
static bool look_up(struct nbd_io *n, uint64_t off, uint64_t len, struct extent *ext)
{
	struct nbd_seen *s = &n->seen;
	uint32_t flags;
	uint64_t stop;

	if (s->n == 0 || off < s->off)
		return false;
	if (off < s->at_off) {
		s->at = 0;
		s->at_off = s->off;
	}
	while (s->at < s->n && s->at_off + s->v[s->at].len <= off)
		s->at_off += s->v[s->at++].len;
	if (s->at == s->n)
		return false;
	flags = s->v[s->at].flags & NBD_EXTENT_ZERO;
	stop = s->at_off + s->v[s->at].len;
	for (size_t i = s->at + 1; i < s->n && stop - off < len; i++) {
		if ((s->v[i].flags & NBD_EXTENT_ZERO) != flags)
			break;
		stop += s->v[i].len;
	}
	ext->len = min_u64(len, stop - off);
	to_extent(n, flags, ext);
	return true;
}

static int ask_allocation(struct nbd_io *n, uint64_t off, struct answer *a, uint64_t *changes,
			  struct err *err)
{
	struct nbd_seen *s = &n->seen;

	pthread_mutex_lock(&s->lock);
	*changes = s->changes;
	pthread_mutex_unlock(&s->lock);
	return ask(n, off, min_u64(n->facts.size - off, ASK), a, err);
}

/* From an answer for [start, …), as look_up. False: it ends before off. */
static bool find_run(struct nbd_io *n, const struct answer *a, uint64_t start, uint64_t len,
		     struct extent *ext)
{
	for (size_t i = 0; i < a->n; i++) {
		start += a->v[i].len;
		if (start > ext->off) {
			ext->len = min_u64(len, start - ext->off);
			to_extent(n, a->v[i].flags, ext);
			return true;
		}
	}
	return false;
}

int nbd_io_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	struct nbd_io *n = nbd_of(io);
	struct nbd_seen *s = &n->seen;
	struct answer a = {.context = n->contexts[0], .room = MAX_RUNS};
	uint64_t start = round_down(off, n->facts.min), changes;
	int r;

	if (!n->has[0])
		return 0; /* data, as the wrapper has it */
	pthread_mutex_lock(&s->lock);
	r = look_up(n, off, len, ext);
	pthread_mutex_unlock(&s->lock);
	if (r)
		return 0;
	r = ask_allocation(n, start, &a, &changes, err);
	if (r == 0) {
		LOCK_SCOPE(&s->lock);

		if (!find_run(n, &a, start, len, ext))
			r = err_set(err, EPROTO, "%s: the server says nothing of offset %" PRIu64,
				    io->name, off);
		if (r == 0 && s->changes == changes) {
			free(s->v);
			s->v = take(a.v);
			s->n = a.n;
			s->off = s->at_off = start;
			s->at = 0;
			look_up(n, off, len, ext);
		}
	}
	free(a.v);
	return r;
}
