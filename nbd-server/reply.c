// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Replies.
 *
 * A reply is a row of messages: one simple reply, or chunks. Each message is planned (what it tells
 * of), put into the worker's arena, and sent with those of other requests. What a message looks like
 * follows from the request and struct reply_at alone; so when the socket is full, nothing of the
 * arena is kept: the request goes to connection.out with the position, and what is missing is made
 * again, data read from the image again, when there is room.
 *
 *      planned ── in the arena ── sent                          reply_put, reply_flush
 *         ^            │
 *         └── waits ───┘ socket full: connection.stalled        settle, reply_resume
 *
 * Who sends holds connection.lock. Between the parts of a message that is larger than the arena
 * nobody else may send: connection.resuming; the same holds while waiting replies are sent. Replies
 * of others join those that wait.
 *
 * A message is told to be the last one only when all of it was read before. If it has to be made
 * again and reading fails then, or reading fails behind the header of a simple reply, there is no way
 * to say so, and the connection ends.
 */
#include "nbd-server/reply.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/execute.h"
#include "nbd-server/request.h"
#include "nbd-server/status.h"

/* Reads below this are answered as data without looking for holes: the look costs more. */
#define HOLE_MIN (UINT64_C(32) << 10)
/* A hole shorter than this is sent as data: a message of its own costs more than the bytes. */
#define HOLE_WORTH UINT64_C(4096)

#define HEAD_MAX (sizeof(struct nbd_extended_chunk) + sizeof(be64))
/* Bytes of data that fit into the arena behind a header, however it is aligned. */
#define DATA_MAX (256u << 10)

_Static_assert(OUTBOX_ARENA >= DATA_MAX + HEAD_MAX + 4096, "a full chunk fits, aligned");

/* ---- headers ---- */

static size_t put_chunk(unsigned char *p, const struct request *r, uint16_t type, uint32_t len)
{
	uint16_t flags = r->reply.last ? NBD_REPLY_FLAG_DONE : 0;

	if (r->conn->mode == MODE_EXTENDED) {
		struct nbd_extended_chunk c = {
			.magic = be32_make(NBD_EXTENDED_REPLY_MAGIC),
			.flags = be16_make(flags),
			.type = be16_make(type),
			.cookie = be64_make(r->cookie),
			.offset = be64_make(r->offset),
			.length = be64_make(len),
		};
		memcpy(p, &c, sizeof(c));
		return sizeof(c);
	}
	struct nbd_chunk c = {
		.magic = be32_make(NBD_CHUNK_MAGIC),
		.flags = be16_make(flags),
		.type = be16_make(type),
		.cookie = be64_make(r->cookie),
		.length = be32_make(len),
	};
	memcpy(p, &c, sizeof(c));
	return sizeof(c);
}

static size_t put_simple(unsigned char *p, const struct request *r)
{
	struct nbd_simple_reply s = {
		.magic = be32_make(NBD_SIMPLE_REPLY_MAGIC),
		.error = be32_make(r->error),
		.cookie = be64_make(r->cookie),
	};

	memcpy(p, &s, sizeof(s));
	return sizeof(s);
}

/* be32 error, be16 length, text */
static size_t put_error(unsigned char *p, const struct request *r)
{
	size_t text = strlen(r->why);
	be32 error = be32_make(r->error);
	be16 len = be16_make((uint16_t)text);
	size_t n = put_chunk(p, r, NBD_REPLY_TYPE_ERROR,
			     (uint32_t)(sizeof(error) + sizeof(len) + text));

	memcpy(p + n, &error, sizeof(error));
	memcpy(p + n + sizeof(error), &len, sizeof(len));
	memcpy(p + n + sizeof(error) + sizeof(len), r->why, text);
	return n + sizeof(error) + sizeof(len) + text;
}

/* Whole messages without payload of their own: success, or an error. */
#define STATUS_MAX 256u
static size_t put_status(unsigned char *p, const struct request *r)
{
	enum reply_mode mode = r->conn->mode;

	/* A simple reply is allowed, and shorter, where there is nothing to tell. */
	if (mode == MODE_SIMPLE ||
	    (mode == MODE_STRUCTURED && !r->error && r->type != NBD_CMD_READ))
		return put_simple(p, r);
	if (r->error)
		return put_error(p, r);
	return put_chunk(p, r, NBD_REPLY_TYPE_NONE, 0);
}

/* Of the message with data of a READ. */
static size_t put_data_head(unsigned char *p, const struct request *r)
{
	be64 offset = be64_make(r->offset + r->reply.done);
	size_t n;

	if (r->conn->mode == MODE_SIMPLE)
		return put_simple(p, r);
	n = put_chunk(p, r, NBD_REPLY_TYPE_OFFSET_DATA, (uint32_t)sizeof(offset) + r->reply.chunk);
	memcpy(p + n, &offset, sizeof(offset));
	return n + sizeof(offset);
}

static size_t put_hole(unsigned char *p, const struct request *r)
{
	be64 offset = be64_make(r->offset + r->reply.done);
	be32 len = be32_make(r->reply.chunk);
	size_t n = put_chunk(p, r, NBD_REPLY_TYPE_OFFSET_HOLE, sizeof(offset) + sizeof(len));

	memcpy(p + n, &offset, sizeof(offset));
	memcpy(p + n + sizeof(offset), &len, sizeof(len));
	return n + sizeof(offset) + sizeof(len);
}

/* ---- sending ---- */

static void queue_last(struct connection *c, struct request *r)
{
	r->next = NULL;
	r->waiting = true;
	if (c->out)
		c->out_last->next = r;
	else
		c->out = r;
	c->out_last = r;
	c->n_out++;
}

static void queue_first(struct connection *c, struct request *first, struct request *last,
			unsigned n)
{
	last->next = c->out;
	if (!c->out)
		c->out_last = last;
	c->out = first;
	c->n_out += n;
}

/* A message of extents was sent in part: the rest of it is kept, for it may be another one later. */
static int keep_extents(struct request *r, const struct piece *p, size_t sent)
{
	uint32_t rest = p->bytes - (uint32_t)sent;
	unsigned char *copy = malloc(rest);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, p->start + sent, rest);
	free(r->data);
	r->data = copy;
	r->reply.chunk = rest;
	return 0;
}

/* The request of a piece of which `sent` bytes have gone goes back to there. */
static void step_back(struct request *r, const struct piece *p, size_t sent)
{
	r->reply = p->at;
	r->reply.sent += (uint32_t)sent;
	r->waiting = true;
	if (!r->reply.sent)
		r->reply.kind = REPLY_UNPLANNED;
	else if (r->reply.kind == REPLY_EXTENTS && keep_extents(r, p, sent) < 0)
		connection_kill(r->conn);
}

/*
 * What was put and not sent, the first `sent` bytes aside: the requests wait again, before others if
 * this worker was the one to send. Locked.
 */
static void keep_unsent(struct worker *w, size_t sent, bool before)
{
	struct outbox *o = &w->out;
	struct request *first = NULL, *last = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < o->n_pieces; i++) {
		struct piece *p = &o->piece[i];
		struct request *r = p->req;

		if (sent >= p->bytes) {
			sent -= p->bytes;
			if (p->ends)
				request_free(w, r);
			continue;
		}
		if (r->waiting)
			continue; /* a later part of a request that waits from an earlier one on */
		step_back(r, p, sent);
		sent = 0;
		if (!before) {
			queue_last(o->conn, r);
			continue;
		}
		if (last)
			last->next = r;
		else
			first = r;
		last = r;
		n++;
	}
	if (first)
		queue_first(o->conn, first, last, n);
}

static void free_sent(struct worker *w)
{
	struct outbox *o = &w->out;

	for (unsigned i = 0; i < o->n_pieces; i++)
		if (o->piece[i].ends)
			request_free(w, o->piece[i].req);
}

/* Takes n bytes off the front of the vector. */
static void advance(struct outbox *o, unsigned *first, size_t n)
{
	while (n && n >= o->iov[*first].iov_len)
		n -= o->iov[(*first)++].iov_len;
	if (n) {
		o->iov[*first].iov_base = (char *)o->iov[*first].iov_base + n;
		o->iov[*first].iov_len -= n;
	}
}

/* Sends until all has gone or nothing goes any more. Locked. Bytes sent; *r: 0, -EAGAIN, -errno. */
static size_t send_all(struct outbox *o, int *r)
{
	struct channel *ch = o->conn->channel;
	unsigned first = 0;
	size_t sent = 0;

	*r = 0;
	while (first < o->n_iov) {
		ssize_t n = ch->ops->send(ch, o->iov + first, o->n_iov - first, false);

		if (n < 0) {
			*r = (int)n;
			break;
		}
		sent += (size_t)n;
		advance(o, &first, (size_t)n);
	}
	return sent;
}

/* Whether the last message in the arena is there in part only. */
static bool in_middle(const struct outbox *o)
{
	const struct piece *p = &o->piece[o->n_pieces - 1];

	return !p->ends && p->req->reply.sent;
}

/* Whether this worker's replies have to wait. Locked. */
static bool must_wait(const struct outbox *o)
{
	const struct connection *c = o->conn;

	return c->dead || (!o->resuming && (c->stalled || c->resuming));
}

/* Nothing was sent, or not all. Locked. */
static void stall(struct worker *w, size_t sent, bool before)
{
	struct outbox *o = &w->out;

	keep_unsent(w, sent, before);
	o->conn->stalled = true;
	if (o->resuming)
		o->conn->resuming = o->resuming = false;
}

/* Sends what is in the arena. True: `current`, which is being put, is in its place to wait. */
static bool flush(struct worker *w, struct request *current)
{
	struct outbox *o = &w->out;
	struct connection *c = o->conn;
	size_t sent = 0;
	bool waits;
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (must_wait(o)) {
		stall(w, 0, false);
	} else if (o->n_pieces) {
		sent = send_all(o, &r);
		/* What the channel has not sent yet waits like a reply, but not within a message. */
		if (r == 0 && !in_middle(o))
			r = channel_flush(c->channel);
		if (r < 0)
			stall(w, sent, true);
		else if (in_middle(o))
			c->resuming = o->resuming = true;
		if (r == 0)
			free_sent(w);
		if (r < 0 && r != -EAGAIN)
			connection_kill(c);
	}
	waits = must_wait(o);
	if (waits && current && !current->waiting) {
		/* What is not begun is planned again: w->extents will be those of another. */
		if (!current->reply.sent)
			current->reply.kind = REPLY_UNPLANNED;
		queue_last(c, current);
	}
	pthread_mutex_unlock(&c->lock);
	o->n_pieces = o->n_iov = 0;
	o->used = 0;
	return waits;
}

/* ---- putting messages into the arena ---- */

static size_t room(const struct outbox *o)
{
	if (o->n_pieces == OUTBOX_PIECES || o->n_iov == OUTBOX_PIECES)
		return 0;
	return OUTBOX_ARENA - o->used;
}

/* `bytes` at `start` of the arena are a part of r's message, which gets on by as much. */
static void add_piece(struct outbox *o, struct request *r, size_t start, uint32_t bytes)
{
	struct iovec *last = o->n_iov ? &o->iov[o->n_iov - 1] : NULL;
	unsigned char *p = o->arena + start;

	o->piece[o->n_pieces++] =
		(struct piece){.req = r, .at = r->reply, .start = p, .bytes = bytes};
	if (last && (unsigned char *)last->iov_base + last->iov_len == p)
		last->iov_len += bytes;
	else
		o->iov[o->n_iov++] = (struct iovec){p, bytes};
	o->used = start + bytes;
	r->reply.sent += bytes;
}

/* What came of putting a message. */
enum put { PUT_MORE, PUT_LAST, PUT_FULL };

/* The message is in the arena as a whole. */
static enum put message_done(struct outbox *o, struct request *r)
{
	struct reply_at *at = &r->reply;

	o->piece[o->n_pieces - 1].ends = at->last;
	if (at->kind == REPLY_DATA || at->kind == REPLY_HOLE)
		at->done += at->chunk;
	else if (at->kind == REPLY_EXTENTS)
		at->done++;
	at->kind = REPLY_UNPLANNED;
	at->sent = 0;
	at->pad = false;
	return at->last ? PUT_LAST : PUT_MORE;
}

/* A small message, made at once. */
static enum put put_small(struct worker *w, struct request *r)
{
	struct outbox *o = &w->out;
	unsigned char *p = o->arena + o->used;
	size_t n, skip = r->reply.sent;

	if (room(o) < STATUS_MAX)
		return PUT_FULL;
	n = r->reply.kind == REPLY_HOLE ? put_hole(p, r) : put_status(p, r);
	memmove(p, p + skip, n - skip);
	add_piece(o, r, o->used, (uint32_t)(n - skip));
	return message_done(o, r);
}

/* The extents are in w->extents, the rest of a message that was half sent is in r->data. */
static enum put put_extents(struct worker *w, struct request *r)
{
	struct outbox *o = &w->out;
	unsigned char *p = o->arena + o->used;
	uint32_t len = r->reply.chunk;
	size_t n = 0;

	if (room(o) < HEAD_MAX + len)
		return PUT_FULL;
	if (!r->reply.sent)
		n = put_chunk(p, r,
			      r->conn->mode == MODE_EXTENDED ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
							     : NBD_REPLY_TYPE_BLOCK_STATUS,
			      len);
	memcpy(p + n, r->reply.sent ? r->data : w->extents, len);
	add_piece(o, r, o->used, (uint32_t)n + len);
	return message_done(o, r);
}

/* Reading failed. False: there is no way to tell, the connection ends. */
static bool read_failed(struct worker *w, struct request *r, int code)
{
	bool begun = r->reply.sent > 0;

	execute_failed(w, r, code);
	if (!begun) {
		r->reply.kind = REPLY_STATUS;
		r->reply.last = true;
		return true;
	}
	if (r->reply.last)
		return false;
	r->reply.pad = true;
	return true;
}

/* Where in the arena data go: aligned where the image has use for it. */
static size_t data_start(const struct outbox *o, const struct request *r, size_t head)
{
	size_t start = o->used + head;

	return r->conn->export->io->align > 1 ? round_up(start, 4096) : start;
}

static int read_data(struct worker *w, struct request *r, void *buf, size_t n, uint64_t off)
{
	struct nbd_export *e = r->conn->export;
	struct stopwatch begun = cost_begin(w, e);
	int code = io_pread(e->io, buf, n, off, &w->err);

	cost_end(&e->cost, &begun, n);
	return code;
}

static void die(struct connection *c)
{
	pthread_mutex_lock(&c->lock);
	connection_kill(c);
	pthread_mutex_unlock(&c->lock);
}

/* A part of a message with data: as much as there is room for in an empty arena. */
static enum put put_data(struct worker *w, struct request *r)
{
	struct outbox *o = &w->out;
	struct reply_at *at = &r->reply;
	unsigned char head[HEAD_MAX];
	size_t n_head = put_data_head(head, r), skip, start, n;
	uint64_t from = at->sent > n_head ? at->sent - n_head : 0;
	int code = 0;

	skip = min_u64(at->sent, n_head);
	n_head -= skip;
	start = data_start(o, r, n_head);
	n = min_u64(at->chunk - from, DATA_MAX);
	if (room(o) < start - o->used + n)
		return PUT_FULL;
	if (at->pad)
		memset(o->arena + start, 0, n);
	else
		code = read_data(w, r, o->arena + start, n, r->offset + at->done + from);
	if (code < 0) {
		if (read_failed(w, r, code))
			return PUT_MORE; /* an error instead of data, or zeros and then an error */
		die(r->conn);
		return PUT_FULL;
	}
	memcpy(o->arena + start - n_head, head + skip, n_head);
	add_piece(o, r, start - n_head, (uint32_t)(n_head + n));
	return from + n == at->chunk ? message_done(o, r) : PUT_MORE;
}

/* ---- planning ---- */

static void plan_status(struct request *r)
{
	r->reply.kind = REPLY_STATUS;
	r->reply.last = true;
}

/* The next message of a READ that may be sparse: data up to a hole, or a hole. rest: > 0. */
static void plan_sparse(struct worker *w, struct request *r, uint64_t rest)
{
	struct io *io = r->conn->export->io;
	uint64_t at = r->offset + r->reply.done, data = 0;
	struct extent ext;

	do {
		if (io_map(io, at + data, rest - data, &ext, NULL) < 0)
			ext = (struct extent){.kind = EXT_DATA, .len = rest - data};
		if (ext.kind != EXT_DATA && ext.kind != EXT_CODED && ext.len >= HOLE_WORTH)
			break;
		data += ext.len;
	} while (data < rest && data < DATA_MAX);
	r->reply.kind = data ? REPLY_DATA : REPLY_HOLE;
	r->reply.chunk = (uint32_t)(data ? min_u64(data, DATA_MAX) : ext.len);
	r->reply.last = r->reply.chunk == rest;
	(void)w;
}

static void plan_read(struct worker *w, struct request *r)
{
	uint64_t rest = r->length - r->reply.done;
	bool simple = r->conn->mode == MODE_SIMPLE;

	if (!rest) {
		plan_status(r);
		return;
	}
	if (!simple && !(r->flags & NBD_CMD_FLAG_DF) && rest >= HOLE_MIN) {
		plan_sparse(w, r, rest);
		return;
	}
	r->reply.kind = REPLY_DATA;
	r->reply.chunk = (uint32_t)rest;
	r->reply.last = simple || rest <= DATA_MAX;
}

static void plan(struct worker *w, struct request *r)
{
	r->reply.sent = 0;
	r->reply.pad = false;
	if (r->error)
		plan_status(r);
	else if (r->type == NBD_CMD_READ)
		plan_read(w, r);
	else if (r->type == NBD_CMD_BLOCK_STATUS)
		status_plan(w, r);
	else
		plan_status(r);
}

/* Puts the message at hand, or a part of it. */
static enum put put_message(struct worker *w, struct request *r)
{
	switch ((enum reply_kind)r->reply.kind) {
	case REPLY_DATA:
		return put_data(w, r);
	case REPLY_EXTENTS:
		return put_extents(w, r);
	default:
		return put_small(w, r);
	}
}

void reply_put(struct worker *w, struct request *r)
{
	struct outbox *o = &w->out;
	enum put put;

	assert(!o->n_pieces || o->conn == r->conn);
	o->conn = r->conn;
	/* Nothing is read for a reply that cannot be sent. */
	if (!o->n_pieces && flush(w, r))
		return;
	do {
		if (r->reply.kind == REPLY_UNPLANNED)
			plan(w, r);
		put = put_message(w, r);
		if (put == PUT_FULL && flush(w, r))
			return;
	} while (put != PUT_LAST);
	if (o->used >= OUTBOX_BATCH)
		flush(w, NULL);
}

static struct request *next_waiting(struct connection *c)
{
	struct request *r = c->out;

	if (r) {
		c->out = r->next;
		c->n_out--;
		r->waiting = false;
	}
	return r;
}

/*
 * Sends what waits, until it stalls again or others should have their turn. The connection is
 * resuming for this worker. Locked.
 */
static void drain(struct worker *w, struct connection *c)
{
	struct outbox *o = &w->out;
	struct request *r;
	uint64_t bytes = 0;

	while (o->resuming) {
		r = c->dead || bytes >= TURN_BYTES ? NULL : next_waiting(c);
		if (!r && !o->n_pieces) {
			c->resuming = o->resuming = false;
			c->stalled = c->dead || c->out; /* epoll reports the room that there is */
			return;
		}
		pthread_mutex_unlock(&c->lock);
		if (r)
			bytes += request_weight(r);
		if (r)
			reply_put(w, r);
		else
			flush(w, NULL);
		pthread_mutex_lock(&c->lock);
	}
}

void reply_resume(struct worker *w, struct connection *c)
{
	struct outbox *o = &w->out;
	int r = -EAGAIN;

	pthread_mutex_lock(&c->lock);
	if (c->stalled && !c->resuming && !c->dead)
		r = channel_flush(c->channel);
	if (r < 0 && r != -EAGAIN) {
		connection_kill(c);
	} else if (r == 0) {
		o->conn = c;
		c->resuming = o->resuming = true;
		drain(w, c);
	}
	pthread_mutex_unlock(&c->lock);
}

void reply_finish(struct worker *w)
{
	struct outbox *o = &w->out;

	if (o->n_pieces)
		flush(w, NULL);
	if (!o->resuming)
		return;
	pthread_mutex_lock(&o->conn->lock);
	drain(w, o->conn);
	pthread_mutex_unlock(&o->conn->lock);
}

void reply_drop(struct worker *w, struct connection *c)
{
	struct request *r;

	while ((r = next_waiting(c)))
		request_free(w, r);
}
