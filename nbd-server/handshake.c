// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The handshake (doc/proto.md, "Newstyle negotiation"). Bytes are received exactly as far as they
 * belong to the message at hand, never further: what a client sends in clear behind STARTTLS is
 * left for TLS to reject, and what it sends behind GO is left for the first turn of requests.
 *
 * Replies are collected and sent; while they have not gone, nothing more is received, so that a
 * client that asks and asks and does not read costs one reply.
 */
#include "nbd-server/handshake.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "nbd-server/engine.h"

#define GOODBYE_MAX (256u << 10) /* bytes that are read of a client that is to go */

/* ---- data of options ---- */

/* A big-endian number of n bytes. */
static bool option_number(struct option_data *d, unsigned n, uint32_t *v)
{
	if (d->left < n)
		return false;
	d->left -= n;
	for (*v = 0; n; n--)
		*v = *v << 8 | *d->p++;
	return true;
}

bool option_u16(struct option_data *d, uint16_t *v)
{
	uint32_t x;

	if (!option_number(d, sizeof(*v), &x))
		return false;
	*v = (uint16_t)x;
	return true;
}

bool option_u32(struct option_data *d, uint32_t *v)
{
	return option_number(d, sizeof(*v), v);
}

bool option_bytes(struct option_data *d, uint32_t len, const char **s)
{
	if (len > d->left)
		return false;
	*s = (const char *)d->p;
	d->p += len;
	d->left -= len;
	return true;
}

/* ---- replies ---- */

int handshake_raw(struct handshake *h, const void *data, size_t len)
{
	size_t need = h->n_out + len;

	if (need > h->out_room) {
		size_t room = max_u64(need, 2 * h->out_room);
		unsigned char *p = realloc(h->out, room);

		if (!p)
			return -ENOMEM;
		h->out = p;
		h->out_room = room;
	}
	if (len)
		memcpy(h->out + h->n_out, data, len);
	h->n_out = need;
	return 0;
}

int option_reply(struct handshake *h, uint32_t type, const void *data, size_t len)
{
	struct nbd_option_reply reply = {
		.magic = be64_make(NBD_REP_MAGIC),
		.option = be32_make(h->option),
		.type = be32_make(type),
		.length = be32_make((uint32_t)len),
	};
	int r = handshake_raw(h, &reply, sizeof(reply));

	return r < 0 ? r : handshake_raw(h, data, len);
}

int option_error(struct handshake *h, uint32_t type, const char *text)
{
	return option_reply(h, type, text, strlen(text));
}

/* ---- begin and end ---- */

struct handshake *handshake_new(atomic_size_t *total)
{
	struct nbd_greeting greeting = {
		.magic = be64_make(NBD_MAGIC),
		.ihaveopt = be64_make(NBD_IHAVEOPT),
		.flags = be16_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};
	struct handshake *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->total = total;
	h->length = sizeof(be32);
	if (handshake_raw(h, &greeting, sizeof(greeting)) < 0) {
		handshake_free(h);
		return NULL;
	}
	return h;
}

void handshake_free(struct handshake *h)
{
	if (!h)
		return;
	atomic_fetch_sub(h->total, h->counted);
	free(h->in);
	free(h->out);
	free(h);
}

void handshake_count(struct handshake *h)
{
	size_t now = h->room + h->out_room;

	atomic_fetch_add(h->total, now - h->counted); /* modulo 2^64: it may become less */
	h->counted = now;
}

/* ---- states ---- */

static int drop(struct connection *c, const char *why)
{
	server_say(c->server, c, SERVER_WARNING, "dropped in the handshake: %s", why);
	return -ECONNRESET;
}

/* The next message is awaited: `length` bytes. */
static void expect(struct handshake *h, enum handshake_state state, uint32_t length)
{
	h->state = state;
	h->length = length;
	h->have = 0;
}

static void expect_option(struct handshake *h)
{
	free(take(h->in));
	h->room = 0;
	expect(h, HANDSHAKE_OPTION, sizeof(struct nbd_option));
}

static int take_flags(struct connection *c, struct handshake *h)
{
	be32 raw;
	uint32_t flags;

	memcpy(&raw, h->in, sizeof(raw));
	flags = be32_get(raw);
	if (flags & ~(uint32_t)(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
		return drop(c, "it has flags that are not known");
	h->fixed = flags & NBD_FLAG_C_FIXED_NEWSTYLE;
	h->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
	expect_option(h);
	return 0;
}

static int take_data(struct connection *c, struct handshake *h)
{
	struct option_data d = {h->in, h->length};
	int r;

	h->next = NEXT_OPTION;
	r = option_handle(c, d);
	if (r == -ENOMEM)
		return drop(c, "out of memory");
	expect_option(h);
	return r;
}

static int take_option(struct connection *c, struct handshake *h)
{
	struct nbd_option opt;
	uint32_t length;

	memcpy(&opt, h->in, sizeof(opt));
	length = be32_get(opt.length);
	h->option = be32_get(opt.option);
	if (be64_get(opt.magic) != NBD_IHAVEOPT)
		return drop(c, "an option has a wrong magic number");
	if (++h->n_options > NBD_MAX_OPTIONS)
		return drop(c, "too many options");
	if (length > NBD_MAX_OPTION)
		return drop(c, "an option has too much data");
	expect(h, HANDSHAKE_DATA, length);
	return length ? 0 : take_data(c, h);
}

/* Room for what is to come, not more than for twice what has come. */
static int make_room(struct handshake *h)
{
	uint32_t room = (uint32_t)max_u64(64, 2 * (uint64_t)h->room);
	unsigned char *p;

	if (h->have < h->room)
		return 0;
	p = realloc(h->in, room);
	if (!p)
		return -ENOMEM;
	h->in = p;
	h->room = room;
	return 0;
}

/* Receives what belongs to the message at hand. 1: it is whole. */
static int receive(struct connection *c, struct handshake *h)
{
	struct channel *ch = c->channel;
	ssize_t n;

	while (h->have < h->length) {
		if (make_room(h) < 0)
			return drop(c, "out of memory");
		n = ch->ops->recv(ch, h->in + h->have, min_u64(h->room, h->length) - h->have);
		if (n == -EAGAIN)
			return -EAGAIN;
		if (n <= 0)
			return -ECONNRESET;
		h->have += (uint32_t)n;
	}
	return 1;
}

/*
 * TLS failed, and the client was told why. But it may be sending still, and closing a socket with
 * that unread resets the connection: the client's sending would fail before it hears the reason,
 * after which QEMU's monitor was seen to wait for ever. So what it sends is read until it goes, too;
 * the time limit of the handshake still holds.
 */
static int say_goodbye(struct connection *c, struct handshake *h, const char *why)
{
	int r = drop(c, why);

	if (shutdown(c->channel->out, SHUT_WR) < 0)
		return r; /* no socket, or it has gone */
	expect(h, HANDSHAKE_GOODBYE, GOODBYE_MAX);
	return 0;
}

static int wait_for_end(struct connection *c, struct handshake *h)
{
	unsigned char unread[4096];
	ssize_t n = 1;

	while (n > 0 && h->have < h->length) {
		n = recv(c->channel->in, unread, sizeof(unread), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		h->have += n > 0 ? (uint32_t)n : 0;
	}
	return -ECONNRESET;
}

static int start_tls(struct connection *c, struct handshake *h)
{
	struct err err = {0};
	int r;

	pthread_mutex_lock(&c->lock);
	r = tls_start(c->server->config.tls, &c->channel, &err);
	pthread_mutex_unlock(&c->lock);
	if (r < 0)
		return drop(c, err.msg);
	h->state = HANDSHAKE_TLS;
	return 0;
}

/* What was negotiated in clear may have come from anybody: it is forgotten. */
static int finish_tls(struct connection *c, struct handshake *h)
{
	struct err err = {0};
	int r = c->channel->ops->handshake(c->channel, &err);

	if (r == -EAGAIN)
		return r;
	if (r < 0)
		return say_goodbye(c, h, err.msg);
	h->mode = MODE_SIMPLE;
	h->context_export = NULL;
	h->contexts = 0;
	expect_option(h);
	return 0;
}

static int step(struct connection *c, struct handshake *h)
{
	int r;

	if (h->state == HANDSHAKE_TLS)
		return finish_tls(c, h);
	if (h->state == HANDSHAKE_GOODBYE)
		return wait_for_end(c, h);
	r = receive(c, h);
	if (r < 0)
		return r;
	if (h->state == HANDSHAKE_FLAGS)
		return take_flags(c, h);
	if (h->state == HANDSHAKE_OPTION)
		return take_option(c, h);
	return take_data(c, h);
}

/* Sends replies. 0: all have gone. */
static int send_out(struct connection *c, struct handshake *h)
{
	struct channel *ch = c->channel;
	int r;

	while (h->out_sent < h->n_out) {
		struct iovec iov = {h->out + h->out_sent, h->n_out - h->out_sent};
		ssize_t n = ch->ops->send(ch, &iov, 1, false);

		if (n < 0)
			return n == -EAGAIN ? -EAGAIN : -ECONNRESET;
		h->out_sent += (size_t)n;
	}
	r = channel_flush(ch);
	if (r < 0)
		return r == -EAGAIN ? -EAGAIN : -ECONNRESET;
	free(take(h->out));
	h->n_out = h->out_room = h->out_sent = 0;
	return 0;
}

int handshake_run(struct connection *c, bool *output)
{
	struct handshake *h = c->handshake;
	int r = 0;

	for (;;) {
		*output = h->n_out > 0;
		if (h->n_out)
			r = send_out(c, h);
		if (r < 0)
			return r;
		*output = false;
		if (h->next == NEXT_REQUESTS)
			return 0;
		if (h->next == NEXT_CLOSE)
			return -ECONNRESET;
		if (h->next == NEXT_TLS) {
			h->next = NEXT_OPTION;
			r = start_tls(c, h);
		} else {
			r = step(c, h);
		}
		if (r < 0 && !(r == -ECONNRESET && h->n_out))
			return r;
		if (r < 0)
			h->next = NEXT_CLOSE;
		r = 0;
	}
}
