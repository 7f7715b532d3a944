// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The life of a connection: it waits in epoll, a worker takes it for a turn, gives it back.
 *
 *      join ── waits ⇄ turn: handshake, then requests ── over: finished or dead, nothing under way
 *
 * It is over when nothing more comes (DISC, or the client closed) and all replies have gone, or when
 * sending or receiving failed; but not before what other workers do for it is done.
 */
#include "nbd-server/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "nbd-server/engine.h"
#include "nbd-server/handshake.h"
#include "nbd-server/receive.h"

/* ---- requests ---- */

#define STOCK_MAX (2 * CONNECTION_REQUESTS)

struct request *request_new(struct worker *w, struct connection *c)
{
	struct request *r = w->stock;

	if (r) {
		w->stock = r->next;
		w->n_stock--;
	} else {
		r = malloc(sizeof(*r));
		if (!r)
			return NULL;
	}
	*r = (struct request){.conn = c};
	return r;
}

void request_free(struct worker *w, struct request *r)
{
	if (!r)
		return;
	free(r->data);
	if (w->n_stock >= STOCK_MAX) {
		free(r);
		return;
	}
	r->data = NULL;
	r->next = w->stock;
	w->stock = r;
	w->n_stock++;
}

/* ---- waiting ---- */

static bool full(const struct connection *c)
{
	return c->n_out + c->running >= CONNECTION_REQUESTS;
}

bool connection_full(struct connection *c)
{
	bool yes;

	pthread_mutex_lock(&c->lock);
	yes = full(c);
	pthread_mutex_unlock(&c->lock);
	return yes;
}

static int watch(struct connection *c, int op, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events | EPOLLONESHOT, .data.ptr = c};

	return epoll_ctl(c->server->epoll, op, fd, &ev) < 0 ? -errno : 0;
}

/* Asks epoll to tell when there is something to receive, or room to send. Locked. */
static void arm(struct connection *c, bool in, bool out)
{
	struct channel *ch = c->channel;

	if (in == c->armed_in && out == c->armed_out)
		return;
	if (ch->in == ch->out) {
		watch(c, EPOLL_CTL_MOD, ch->in, (in ? EPOLLIN : 0) | (out ? EPOLLOUT : 0));
	} else {
		watch(c, EPOLL_CTL_MOD, ch->in, in ? EPOLLIN : 0);
		watch(c, EPOLL_CTL_MOD, ch->out, out ? EPOLLOUT : 0);
	}
	c->armed_in = in;
	c->armed_out = out;
}

/* again: there is something to do already. A socket with room is reported at once, in its turn. */
static void wait_for_more(struct connection *c, bool again)
{
	bool room = !full(c) && !c->finished;

	if (c->handshake && c->handshake->state == HANDSHAKE_TLS) {
		arm(c, c->channel->waiting & POLLIN, c->channel->waiting & POLLOUT);
		return;
	}
	arm(c, room && !c->greeting, c->stalled || (room && again));
}

/* ---- begin and end ---- */

int connection_start(struct server *s, struct channel *channel, struct err *err)
{
	struct connection *c = server_join(s);
	int r = c ? 0 : err_nomem(err, sizeof(*c), "a connection");

	if (!c)
		return r;
	c->handshake = handshake_new();
	if (!c->handshake) {
		server_left(s, c);
		return err_nomem(err, sizeof(struct handshake), "a connection");
	}
	pthread_mutex_lock(&c->lock);
	c->channel = channel;
	r = watch(c, EPOLL_CTL_ADD, channel->in, EPOLLIN | EPOLLOUT);
	if (r == 0 && channel->in != channel->out)
		r = watch(c, EPOLL_CTL_ADD, channel->out, EPOLLOUT);
	c->armed_in = c->armed_out = true;
	if (r < 0)
		c->channel = NULL;
	pthread_mutex_unlock(&c->lock);
	if (r == 0)
		return 0;
	handshake_free(take(c->handshake));
	server_left(s, c);
	return err_sys(err, -r, "could not watch a connection");
}

void connection_kill(struct connection *c)
{
	c->dead = c->finished = c->stalled = true;
}

void connection_free_rest(struct connection *c)
{
	if (c->rest)
		atomic_fetch_sub(&c->server->kept, c->n_rest);
	free(take(c->rest));
}

/* Nobody knows it any more but this worker. */
static void end(struct worker *w, struct connection *c)
{
	struct channel *ch = c->channel;

	server_say(c->server, c, SERVER_DEBUG, "disconnected");
	epoll_ctl(c->server->epoll, EPOLL_CTL_DEL, ch->in, NULL);
	if (ch->out != ch->in)
		epoll_ctl(c->server->epoll, EPOLL_CTL_DEL, ch->out, NULL);
	ch->ops->close(ch);
	reply_drop(w, c);
	request_free(w, take(c->writing));
	handshake_free(take(c->handshake));
	connection_free_rest(c);
	if (c->export)
		atomic_fetch_sub(&c->export->clients, 1);
	/* The next client that has this memory begins with nothing. */
	c->export = NULL;
	c->contexts = 0;
	c->mode = MODE_SIMPLE;
	c->n_rest = 0;
	c->greeting = false;
	pthread_mutex_lock(&c->lock);
	c->channel = NULL;
	c->deadline = 0;
	c->owned = c->stalled = c->resuming = false;
	c->finished = c->dead = false;
	pthread_mutex_unlock(&c->lock);
	server_left(c->server, c);
}

/* ---- turns ---- */

/* True: the connection became one that takes requests, or ended. */
static void shake_hands(struct connection *c)
{
	int r = handshake_run(c, &c->greeting);
	struct handshake *h = c->handshake;

	pthread_mutex_lock(&c->lock);
	c->stalled = r == -EAGAIN && c->greeting;
	if (r == 0) {
		c->handshake = NULL;
		c->deadline = 0;
	} else if (r != -EAGAIN) {
		connection_kill(c);
	}
	pthread_mutex_unlock(&c->lock);
	if (r == 0) {
		handshake_free(h);
		server_served(c->server);
	}
}

static bool over(const struct connection *c)
{
	return c->finished && !c->running && !c->resuming && (c->dead || (!c->out && !c->stalled));
}

/* The owner gives the connection back. */
static void leave(struct worker *w, struct connection *c, bool again)
{
	bool ends;

	pthread_mutex_lock(&c->lock);
	ends = over(c);
	if (!ends) {
		c->owned = false;
		wait_for_more(c, again);
	}
	pthread_mutex_unlock(&c->lock);
	if (ends)
		end(w, c);
}

void connection_turn(struct worker *w, struct connection *c)
{
	bool again = false;

	pthread_mutex_lock(&c->lock);
	if (!c->channel || c->owned) {
		pthread_mutex_unlock(&c->lock);
		return;
	}
	c->owned = true;
	c->armed_in = c->armed_out = false;
	pthread_mutex_unlock(&c->lock);
	if (c->handshake)
		shake_hands(c);
	else
		reply_resume(w, c);
	if (!c->handshake && !c->finished)
		again = receive_turn(w, c);
	leave(w, c, again);
}
