// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receiving: as much as there is, into the worker's buffer; the requests in it are executed, and
 * their replies sent together. Of a WRITE's payload the pieces go from the buffer to the image as
 * they come, cut at the export's preferred block. What is left when nothing more comes is the
 * beginning of a header, kept in the connection, or less than a block of payload, kept in
 * connection.rest.
 */
#include "nbd-server/receive.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "nbd-server/engine.h"
#include "nbd-server/execute.h"
#include "nbd-server/request.h"
#include "nbd-server/status.h"

/* A turn ends when it had so many, or TURN_BYTES, so that others have theirs. */
#define TURN_REQUESTS 256u

#define LOOK_NS       60000u /* how long a client is waited for without sleeping */
#define LOOKS_IN_VAIN 4u     /* so often in a row */
#define LOOK_EVERY    64u    /* then in one of so many turns */

/* Where in the worker's buffer the bytes are that were received and not used yet. */
struct input {
	unsigned char *p;
	size_t n;
	/* of this turn */
	unsigned requests;
	uint64_t weight;
};

static bool had_its_turn(const struct input *in)
{
	return in->requests >= TURN_REQUESTS || in->weight >= TURN_BYTES;
}

static void use(struct input *in, size_t n)
{
	in->p += n;
	in->n -= n;
}

static void end_receiving(struct connection *c, bool dead)
{
	pthread_mutex_lock(&c->lock);
	c->finished = true;
	if (dead)
		connection_kill(c);
	pthread_mutex_unlock(&c->lock);
}

/* ---- payload ---- */

/* How much of n bytes that came is to be written now, before more comes. */
static size_t piece_size(const struct connection *c, const struct request *r, size_t n)
{
	uint64_t block = min_u64(c->export->preferred_block, WORKER_IN / 2);
	uint64_t at = r->offset + r->done, end = round_down(at + n, block);

	if (r->done + n == r->length)
		return n;
	return end > at ? (size_t)(end - at) : 0;
}

static void write_piece(struct worker *w, struct request *r, const unsigned char *p, size_t n)
{
	struct stopwatch begun = cost_begin(w, r->conn->export);
	int code = io_pwrite(r->conn->export->io, p, n, r->offset + r->done, &w->err);

	cost_end(&r->conn->export->cost, &begun, n);
	if (code < 0)
		execute_failed(w, r, code);
	r->done += n;
}

static void payload_done(struct worker *w, struct connection *c)
{
	struct request *r = take(c->writing);

	if (r->type == NBD_CMD_BLOCK_STATUS && !r->error)
		status_filter(r, r->data, io_size(c->export->io));
	execute(w, r);
}

/* Payload came, or has to be taken for what it is because nothing more fits. */
static void take_payload(struct worker *w, struct connection *c, struct input *in)
{
	struct request *r = c->writing;
	size_t n = min_u64(in->n, r->payload - r->swallowed);

	if (r->data) {
		memcpy(r->data + r->swallowed, in->p, n);
	} else if (!r->error && r->type == NBD_CMD_WRITE) {
		n = piece_size(c, r, n);
		if (n)
			write_piece(w, r, in->p, n);
	}
	r->swallowed += (uint32_t)n;
	use(in, n);
	if (r->swallowed == r->payload)
		payload_done(w, c);
}

/* ---- headers ---- */

/*
 * Room for the payload of a request that others will do, or that has to be whole. Without memory a
 * WRITE is done as it comes.
 */
static void buffer_payload(struct connection *c, struct request *r)
{
	atomic_size_t *buffered = &c->server->buffered;

	if (r->error)
		return;
	if (r->type == NBD_CMD_WRITE && (!execute_slow(c) || r->payload > BUFFERED_ONE ||
					 atomic_load(buffered) + r->payload > BUFFERED_MAX))
		return;
	r->data = malloc(r->payload);
	if (r->data && r->type == NBD_CMD_WRITE) {
		r->buffered = r->payload;
		atomic_fetch_add(buffered, r->payload);
	}
	if (!r->data && r->type != NBD_CMD_WRITE)
		request_fail(r, NBD_ENOMEM, "out of memory");
}

/* What the limits say to a READ or WRITE. */
static void count_bytes(struct connection *c, const struct request *r)
{
	struct limit *l =
		r->type == NBD_CMD_READ ? &c->server->read_limit : &c->server->write_limit;
	uint64_t now, wait;

	if (!l->rate || r->error || (r->type != NBD_CMD_READ && r->type != NBD_CMD_WRITE))
		return;
	now = now_ns();
	wait = limit_take(l, r->length, now);
	if (wait)
		c->pause_until = now + wait;
}

static void tell_stats(struct server_stats *stats, const struct request *r)
{
	atomic_fetch_add_explicit(&stats->requests, 1, memory_order_relaxed);
	if (r->error)
		return;
	if (r->type == NBD_CMD_READ)
		atomic_fetch_add_explicit(&stats->read, r->length, memory_order_relaxed);
	else if (r->type == NBD_CMD_WRITE)
		atomic_fetch_add_explicit(&stats->written, r->length, memory_order_relaxed);
}

static void start_request(struct worker *w, struct connection *c, struct request *r)
{
	if (c->server->config.stats)
		tell_stats(c->server->config.stats, r);
	count_bytes(c, r);
	if (r->type == NBD_CMD_DISC && !r->error) {
		request_free(w, r);
		end_receiving(c, false);
	} else if (r->payload) {
		buffer_payload(c, r);
		c->writing = r;
	} else {
		execute(w, r);
	}
}

/*
 * What was sent before the server was asked to stop is served, as far as one can tell: as many
 * requests as a connection may have in flight. Whoever then sends more finds the connection closed,
 * and not errors: QEMU connects again and repeats what was not answered, but hands errors to its guest.
 */
static bool is_late(struct connection *c)
{
	if (!atomic_load_explicit(&c->server->stopping, memory_order_relaxed))
		return false;
	return c->n_late++ >= CONNECTION_REQUESTS;
}

static void take_header(struct worker *w, struct connection *c, struct input *in)
{
	struct request_rules rules = {
		.mode = c->mode,
		.size = io_size(c->export->io),
		.flags = c->export->flags,
		.contexts = c->contexts,
		.max_block = c->export->max_block,
	};
	struct request *r;

	if (is_late(c)) {
		end_receiving(c, false);
		return;
	}
	r = request_new(w, c);
	if (!r || request_decode(&rules, in->p, r, &w->err) < 0) {
		server_say(c->server, c, SERVER_WARNING, "dropped: %s",
			   r ? w->err.msg : "out of memory");
		if (r)
			request_free(w, r);
		end_receiving(c, true);
		return;
	}
	use(in, request_head_size(c->mode));
	in->requests++;
	in->weight += request_weight(r);
	start_request(w, c, r);
}

/* Uses what is in the buffer; what is left has to wait, for more bytes or for room for replies. */
static void consume(struct worker *w, struct connection *c, struct input *in)
{
	size_t before, head = request_head_size(c->mode);

	do {
		before = in->n;
		if (c->pause_until)
			break;
		if (c->finished)
			in->n = 0; /* behind a DISC nothing comes that matters */
		else if (c->writing)
			take_payload(w, c, in);
		else if (in->n >= head && !had_its_turn(in) && !connection_full(c))
			take_header(w, c, in);
	} while (in->n && in->n != before);
}

/* ---- a turn ---- */

static void load(struct worker *w, struct connection *c, struct input *in)
{
	in->p = w->in;
	in->n = c->n_rest;
	memcpy(in->p, c->rest ? c->rest : c->head, in->n);
	if (c->rest)
		connection_free_rest(c);
	c->n_rest = 0;
}

/* Whether r is a WRITE whose payload goes to the image as it comes. */
static bool streaming(const struct request *r)
{
	return r && r->type == NBD_CMD_WRITE && !r->error && !r->data;
}

/* Keeps what is left until the next turn. False: there is no memory. */
static bool store(struct worker *w, struct connection *c, struct input *in)
{
	atomic_size_t *kept = &c->server->kept;

	if (in->n <= sizeof(c->head)) {
		memcpy(c->head, in->p, in->n);
	} else if (streaming(c->writing) && atomic_load(kept) > KEPT_MAX) {
		write_piece(w, c->writing, in->p, in->n); /* not aligned, but it needs no memory */
		c->writing->swallowed += (uint32_t)in->n;
		return true;
	} else {
		c->rest = malloc(in->n);
		if (!c->rest)
			return false;
		memcpy(c->rest, in->p, in->n);
		atomic_fetch_add(kept, in->n);
	}
	c->n_rest = (uint32_t)in->n;
	return true;
}

/* Bytes to ask for: as what is left of them may have to be kept, less when much is kept already. */
static size_t appetite(const struct server *s, size_t have)
{
	size_t kept = atomic_load_explicit(&s->kept, memory_order_relaxed);
	size_t share = kept < KEPT_MAX ? (KEPT_MAX - kept) / s->n_workers : 0;

	return min_u64(WORKER_IN - have, max_u64(share, 4096));
}

static ssize_t receive(struct worker *w, struct connection *c, struct input *in)
{
	size_t room = appetite(c->server, in->n);
	ssize_t n;

	memmove(w->in, in->p, in->n);
	in->p = w->in;
	if (c->channel->duplex)
		return c->channel->ops->recv(c->channel, in->p + in->n, room);
	pthread_mutex_lock(&c->lock);
	n = c->channel->ops->recv(c->channel, in->p + in->n, room);
	pthread_mutex_unlock(&c->lock);
	return n;
}

/* Whether the connection may have another request now. */
static bool hungry(struct connection *c, const struct input *in, uint64_t bytes)
{
	if (c->finished || c->pause_until || had_its_turn(in) || bytes >= TURN_BYTES)
		return false;
	return c->writing || !connection_full(c);
}

/*
 * A client that has one request at a time under way sends the next one some microseconds after the
 * reply, and many send a WRITE's payload with a call of its own. To sleep until then takes longer than
 * to look again for a moment, and no less of the CPU, which goes to whoever else wants it meanwhile.
 * Only for a client that is alone, and not for one that was waited for in vain, but now and then.
 */
static bool worth_a_look(struct connection *c)
{
	if (atomic_load_explicit(&c->server->n_connections, memory_order_relaxed) > 1)
		return false; /* the CPU has better things to do */
	if (c->vain < LOOKS_IN_VAIN)
		return true;
	c->unlooked = (uint8_t)((c->unlooked + 1) % LOOK_EVERY);
	return c->unlooked == 0;
}

static ssize_t look_again(struct worker *w, struct connection *c, struct input *in)
{
	uint64_t until = now_ns() + LOOK_NS;
	ssize_t n;

	do {
		sched_yield();
		n = receive(w, c, in);
	} while (n == -EAGAIN && now_ns() < until);
	if (n != -EAGAIN)
		c->vain = 0;
	else if (c->vain < LOOKS_IN_VAIN)
		c->vain++;
	return n;
}

void receive_turn(struct worker *w, struct connection *c)
{
	struct input in = {0};
	unsigned before = 0, came = 0; /* requests: so far, and with what was received last */
	uint64_t bytes = 0;
	ssize_t n = 1;

	load(w, c, &in);
	if (in.n) {
		consume(w, c, &in);
		reply_finish(w);
	}
	while (hungry(c, &in, bytes)) {
		n = receive(w, c, &in);
		if (n == -EAGAIN && came == 1 && worth_a_look(c))
			n = look_again(w, c, &in);
		if (n <= 0)
			break;
		before = in.requests;
		in.n += (size_t)n;
		bytes += (uint64_t)n;
		consume(w, c, &in);
		reply_finish(w);
		came = in.requests - before;
	}
	if (n == 0)
		end_receiving(c, false);
	else if ((n < 0 && n != -EAGAIN) || (!c->finished && !store(w, c, &in)))
		end_receiving(c, true);
	c->more = n > 0;
}
