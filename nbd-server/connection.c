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
	if (r->buffered)
		atomic_fetch_sub(&w->server->buffered, r->buffered);
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

/* Whether nothing is under way, nor held back by us. Locked. */
static bool quiet(const struct connection *c)
{
	return !c->running && !c->out && !c->stalled && !c->resuming && !c->writing &&
	       !c->pause_until;
}

/* When it has to be looked at, though nothing happens. Locked. */
static void set_times(struct connection *c)
{
	uint64_t idle_ms = c->server->config.idle_ms;

	if (!c->handshake)
		c->deadline = idle_ms && quiet(c) ? now_ns() + idle_ms * UINT64_C(1000000) : 0;
	if (c->deadline)
		server_look_at(c->server, c->deadline);
	if (c->pause_until)
		server_look_at(c->server, c->pause_until);
}

/* What the connection waits for now; nobody owns it. Locked. */
static void wait_for_more(struct connection *c)
{
	bool room = !full(c) && !c->finished && !c->pause_until;
	bool stalled = c->stalled && !c->resuming; /* who is sending now comes by here afterwards */
	short also = c->channel->duplex ? 0 : c->channel->waiting; /* TLS: may be the other way */

	if (c->dead)
		return; /* others finish what they do for it */
	set_times(c);
	if (c->handshake && c->handshake->state == HANDSHAKE_TLS && !c->greeting)
		arm(c, also & POLLIN, also & POLLOUT);
	else
		/* A socket with room is reported at once, when those before it had their turn. */
		arm(c, room && !c->greeting, stalled || (room && (c->more || also & POLLOUT)));
}

/* ---- begin and end ---- */

int connection_start(struct server *s, struct channel *channel, struct err *err)
{
	struct connection *c = server_join(s);
	int r = c ? 0 : err_nomem(err, sizeof(*c), "a connection");

	if (!c)
		return r;
	c->handshake = handshake_new(&s->shaking);
	if (!c->handshake) {
		server_left(s, c);
		return err_nomem(err, sizeof(struct handshake), "a connection");
	}
	if (!server_crowded(s))
		channel_widen(channel);
	pthread_mutex_lock(&c->lock);
	c->channel = channel;
	r = watch(c, EPOLL_CTL_ADD, channel->in, EPOLLIN | EPOLLOUT);
	if (r == 0 && channel->in != channel->out)
		r = watch(c, EPOLL_CTL_ADD, channel->out, EPOLLOUT);
	c->armed_in = c->armed_out = true;
	c->deadline = now_ns() + s->config.handshake_ms * UINT64_C(1000000);
	server_look_at(s, c->deadline);
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

/* The next client that has this memory begins with nothing. */
static void forget(struct connection *c)
{
	pthread_mutex_lock(&c->lock);
	c->channel = NULL;
	c->export = NULL;
	c->flusher = NULL;
	c->mode = MODE_SIMPLE;
	c->contexts = c->deadline = c->pause_until = 0;
	c->n_rest = 0;
	c->n_late = 0;
	c->vain = c->unlooked = 0;
	c->n_failed = 0;
	c->greeting = c->more = c->warned = false;
	c->owned = c->stalled = c->resuming = false;
	c->finished = c->dead = false;
	pthread_mutex_unlock(&c->lock);
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
	if (c->export) {
		atomic_fetch_sub(&c->export->clients, 1);
		if (c->server->config.stats)
			atomic_fetch_sub(&c->server->config.stats->clients, 1);
	}
	forget(c);
	server_left(c->server, c);
}

/* ---- turns ---- */

static void shake_hands(struct connection *c)
{
	int r = handshake_run(c, &c->greeting);
	struct handshake *h = c->handshake;

	handshake_count(h);
	pthread_mutex_lock(&c->lock);
	c->stalled = r == -EAGAIN && c->greeting;
	if (r == 0) {
		c->handshake = NULL;
		c->deadline = 0;
	} else if (r != -EAGAIN || atomic_load(&c->server->stopping)) {
		connection_kill(c);
	}
	pthread_mutex_unlock(&c->lock);
	if (r == 0) {
		handshake_free(h);
		server_served(c->server);
	}
}

/* Locked. */
static bool over(const struct connection *c)
{
	return c->finished && !c->running && !c->resuming && (c->dead || (!c->out && !c->stalled));
}

/* The server stops: after one more turn, and when nothing is under way, the connection ends. Locked. */
static void wind_up(struct connection *c)
{
	c->pause_until = 0;
	if (c->warned && quiet(c))
		c->finished = true;
	c->more = !c->warned;
	c->warned = true;
}

/* Gives the connection back, or ends it. Locked; unlocks. */
static void leave(struct worker *w, struct connection *c)
{
	bool ends;

	if (atomic_load(&c->server->stopping))
		wind_up(c);
	ends = over(c);
	c->owned = ends;
	if (!ends)
		wait_for_more(c);
	pthread_mutex_unlock(&c->lock);
	if (ends)
		end(w, c);
}

bool connection_claim(struct connection *c)
{
	if (!c->channel || c->owned)
		return false;
	c->owned = true;
	/* An event that comes from now on is ignored, and epoll reports no other before it is asked. */
	c->armed_in = c->armed_out = false;
	return true;
}

bool connection_is_greedy(const struct connection *c)
{
	/* What its owner changes is looked at only where there is none. */
	return c->channel && !c->owned && c->handshake && c->handshake->counted > SHAKING_FREE;
}

void connection_owner_turn(struct worker *w, struct connection *c)
{
	bool shaking = c->handshake;

	if (shaking)
		shake_hands(c);
	else
		reply_resume(w, c);
	if (!c->handshake && !c->finished && !c->pause_until)
		receive_turn(w, c);
	pthread_mutex_lock(&c->lock);
	leave(w, c);
	work_start(w);
	if (shaking)
		server_trim(w);
}

void connection_turn(struct worker *w, struct connection *c)
{
	bool ours;

	pthread_mutex_lock(&c->lock);
	ours = connection_claim(c);
	pthread_mutex_unlock(&c->lock);
	if (ours)
		connection_owner_turn(w, c);
}

void connection_done(struct worker *w, struct connection *c)
{
	pthread_mutex_lock(&c->lock);
	c->running--;
	if (c->owned)
		pthread_mutex_unlock(&c->lock); /* its owner sees to it */
	else
		leave(w, c);
}

/* ---- time ---- */

bool connection_due(struct connection *c, uint64_t now, bool stop, uint64_t *next)
{
	if (!c->channel || c->owned || c->dead)
		return false; /* its owner asks for the next look */
	if (stop || (c->deadline && c->deadline <= now))
		return connection_claim(c);
	if (c->pause_until && c->pause_until <= now) {
		c->pause_until = 0;
		wait_for_more(c);
	}
	if (c->deadline)
		*next = min_u64(*next, c->deadline);
	if (c->pause_until)
		*next = min_u64(*next, c->pause_until);
	return false;
}

void connection_drop(struct worker *w, struct connection *c)
{
	pthread_mutex_lock(&c->lock);
	connection_kill(c);
	leave(w, c);
}

void connection_expire(struct worker *w, struct connection *c)
{
	const char *why = c->handshake ? "the handshake took too long" : "it was idle for too long";

	if (atomic_load(&c->server->stopping))
		why = "it did not come to an end when the server stopped";
	server_say(c->server, c, SERVER_WARNING, "dropped: %s", why);
	connection_drop(w, c);
}
