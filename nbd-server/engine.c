// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The server's threads: a few workers that wait in one epoll for all there is: listening sockets,
 * connections, the order to stop. Who gets an event deals with it, and waits again. Nobody waits for
 * anything else, but for the image.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "nbd-server/engine.h"
#include "nbd-server/handshake.h"

#define NS UINT64_C(1000000000)
/* How long clients have to take what they asked for when the server stops. */
#define PATIENCE_NS (5 * NS)
/* When it is tried again to accept clients, after there were no resources for one. */
#define RETRY_NS (NS / 10)

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* ---- events ---- */

static int watch(struct server *s, struct source *source, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = source};

	return epoll_ctl(s->epoll, op, source->fd, &ev) < 0 ? -errno : 0;
}

static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t n;

	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

void server_wake(struct server *s)
{
	signal_fd(s->work.fd);
}

void server_look_at(struct server *s, uint64_t ns)
{
	struct itimerspec t = {
		.it_value = {.tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS)}};
	LOCK_SCOPE(&s->work_lock);

	if (s->timer_at && s->timer_at <= ns)
		return;
	s->timer_at = ns;
	timerfd_settime(s->timer.fd, TFD_TIMER_ABSTIME, &t, NULL);
}

/* ---- clients come and go ---- */

/* After a pause; should it still be too early, there is another one. Locked. */
static void resume_listening(struct server *s)
{
	if (!s->paused || atomic_load(&s->stopping))
		return;
	s->paused = false;
	for (unsigned i = 0; i < s->config.n_listeners; i++)
		watch(s, &s->listener[i], EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT);
}

/* Connections whose replies the kernel may keep whole: see channel_widen. */
#define WIDE_CONNECTIONS 32u

bool server_crowded(struct server *s)
{
	LOCK_SCOPE(&s->lock);
	return s->n_connections > WIDE_CONNECTIONS;
}

struct connection *server_join(struct server *s)
{
	LOCK_SCOPE(&s->lock);
	struct connection *c = s->unused;

	if (c) {
		s->unused = c->next;
	} else {
		c = calloc(1, sizeof(*c));
		if (!c)
			return NULL;
		pthread_mutex_init(&c->lock, NULL);
		c->server = s;
	}
	c->next = s->connections;
	c->prev = NULL;
	if (c->next)
		c->next->prev = c;
	else
		s->oldest = c;
	s->connections = c;
	s->n_connections++;
	return c;
}

/* All threads go home. Locked. */
static void finish(struct server *s)
{
	s->ended = true;
	signal_fd(s->end.fd);
}

void server_left(struct server *s, struct connection *c)
{
	LOCK_SCOPE(&s->lock);

	if (c->prev)
		c->prev->next = c->next;
	else
		s->connections = c->next;
	if (c->next)
		c->next->prev = c->prev;
	else
		s->oldest = c->prev;
	c->next = s->unused;
	s->unused = c;
	s->n_connections--;
	resume_listening(s);
	if (s->n_connections)
		return;
	if (atomic_load(&s->stopping) || s->config.single || (s->served && !s->config.persistent))
		finish(s);
}

void server_served(struct server *s)
{
	LOCK_SCOPE(&s->lock);
	s->served = true;
}

/* The handshake that keeps much and began first; the caller owns it. */
static struct connection *claim_greedy(struct server *s)
{
	LOCK_SCOPE(&s->lock);

	for (struct connection *c = s->oldest; c; c = c->prev) {
		bool ours;

		pthread_mutex_lock(&c->lock);
		ours = connection_is_greedy(c) && connection_claim(c);
		pthread_mutex_unlock(&c->lock);
		if (ours)
			return c;
	}
	return NULL;
}

void server_trim(struct worker *w)
{
	struct server *s = w->server;
	struct connection *c;

	/* Those that others own are looked at again by their owners. */
	while (atomic_load(&s->shaking) > SHAKING_MAX && (c = claim_greedy(s))) {
		server_say(
			s, c, SERVER_WARNING,
			"dropped in the handshake: too much is kept of clients that do not go on");
		connection_drop(w, c);
	}
}

/* 0, also if there was none; -errno: there are no resources for one. */
static int accept_client(struct server *s, int listener)
{
	struct channel *channel;
	struct err err = {0};
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int r;

	if (fd < 0) {
		r = errno;
		return r == EMFILE || r == ENFILE || r == ENOBUFS || r == ENOMEM ? -r : 0;
	}
	r = channel_socket(fd, &channel, &err);
	if (r < 0) {
		close(fd);
	} else {
		r = connection_start(s, channel, &err);
		if (r < 0)
			channel->ops->close(channel);
	}
	if (r < 0)
		server_say(s, NULL, SERVER_WARNING, "a client was turned away: %s", err.msg);
	return 0;
}

/* Whether there may be one more client; it counts as coming then. Else nobody listens for a while. */
static bool make_way(struct server *s)
{
	LOCK_SCOPE(&s->lock);
	unsigned max = s->config.max_clients;

	if (atomic_load(&s->stopping))
		return false;
	if (max && s->n_connections + s->n_coming >= max) {
		s->paused = true;
		return false;
	}
	s->n_coming++;
	return true;
}

static void listener_turn(struct server *s, struct source *l)
{
	int r;

	if (!make_way(s))
		return;
	r = accept_client(s, l->fd);
	pthread_mutex_lock(&s->lock);
	s->n_coming--;
	if (r < 0 && !s->poor)
		server_say(s, NULL, SERVER_WARNING, "no client can be accepted now: %s",
			   strerror(-r));
	s->poor = r < 0;
	if (r < 0) {
		s->paused = true; /* until one leaves, or some time has passed */
		server_look_at(s, now_ns() + RETRY_NS);
	} else if (!atomic_load(&s->stopping)) {
		watch(s, l, EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- stopping, and the passing of time ---- */

void server_stop(struct server *s)
{
	int saved = errno;

	signal_fd(s->stop.fd);
	errno = saved;
}

/* The connections that nobody owns; the caller owns them then. Locked. */
static struct connection *claim_all(struct server *s)
{
	struct connection *list = NULL;

	for (struct connection *c = s->connections; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		if (connection_claim(c)) {
			c->also = list;
			list = c;
		}
		pthread_mutex_unlock(&c->lock);
	}
	return list;
}

static void stop_turn(struct worker *w)
{
	struct server *s = w->server;
	struct connection *c, *list;

	pthread_mutex_lock(&s->lock);
	atomic_store(&s->stopping, true);
	s->stop_at = now_ns() + PATIENCE_NS;
	server_look_at(s, s->stop_at);
	list = claim_all(s);
	if (!s->n_connections)
		finish(s);
	pthread_mutex_unlock(&s->lock);
	while ((c = list)) {
		list = c->also;
		connection_owner_turn(w, c);
	}
}

/* Those whose time has come; the caller owns them. Locked. */
static struct connection *claim_due(struct server *s, uint64_t now, uint64_t *next)
{
	struct connection *list = NULL;
	bool stop = s->stop_at && s->stop_at <= now;

	for (struct connection *c = s->connections; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		if (connection_due(c, now, stop, next)) {
			c->also = list;
			list = c;
		}
		pthread_mutex_unlock(&c->lock);
	}
	/* One that is owned now is looked at again, and again, until it has gone. */
	if (stop)
		*next = min_u64(*next, now + RETRY_NS);
	return list;
}

static void timer_turn(struct worker *w)
{
	struct server *s = w->server;
	uint64_t now = now_ns(), next = UINT64_MAX;
	struct connection *c, *list;

	pthread_mutex_lock(&s->work_lock);
	s->timer_at = 0;
	pthread_mutex_unlock(&s->work_lock);
	pthread_mutex_lock(&s->lock);
	list = claim_due(s, now, &next);
	if (s->stop_at > now)
		next = min_u64(next, s->stop_at);
	resume_listening(s);
	if (next != UINT64_MAX)
		server_look_at(s, next);
	pthread_mutex_unlock(&s->lock);
	while ((c = list)) {
		list = c->also;
		connection_expire(w, c);
	}
}

/* ---- workers ---- */

static void handle(struct worker *w, struct source *source)
{
	switch (source->kind) {
	case SOURCE_CONNECTION:
		connection_turn(w, (struct connection *)source);
		break;
	case SOURCE_LISTENER:
		listener_turn(w->server, source);
		break;
	case SOURCE_WORK:
		work_turn(w);
		break;
	case SOURCE_TIMER:
		timer_turn(w);
		break;
	case SOURCE_STOP:
		stop_turn(w);
		break;
	case SOURCE_END:
		break;
	}
}

static int work(void *ctx, unsigned i, struct err *err)
{
	struct server *s = ctx;
	struct worker *w = &s->worker[i];
	struct epoll_event ev;
	int n;

	(void)err;
	for (;;) {
		/* One at a time: while this one is dealt with, others can take the next. */
		n = epoll_wait(s->epoll, &ev, 1, -1);
		if (n < 1)
			continue;
		if (ev.data.ptr == &s->end)
			return 0;
		handle(w, ev.data.ptr);
	}
}

static void close_worker(struct worker *w)
{
	struct request *r;

	while ((r = w->stock)) {
		w->stock = r->next;
		free(r);
	}
	free(w->in);
	free(w->out.arena);
}

static int open_worker(struct worker *w, struct server *s, struct err *err)
{
	w->server = s;
	w->in = malloc(WORKER_IN);
	w->out.arena = aligned_alloc(4096, OUTBOX_ARENA);
	return w->in && w->out.arena ? 0 : err_nomem(err, WORKER_IN + OUTBOX_ARENA, "a worker");
}

/* ---- open, run, close ---- */

static int open_source(struct server *s, struct source *source, int fd, uint32_t events,
		       struct err *err)
{
	int r = fd < 0 ? -errno : 0;

	source->fd = fd;
	if (r == 0)
		r = watch(s, source, EPOLL_CTL_ADD, events);
	return r < 0 ? err_sys(err, -r, "could not make a descriptor to wait for") : 0;
}

/* Those that are read never: reported at each write (ET), once (ONESHOT), to all (neither). */
static int open_sources(struct server *s, struct err *err)
{
	int flags = EFD_CLOEXEC | EFD_NONBLOCK, r;

	r = open_source(s, &s->work, eventfd(0, flags), EPOLLIN | EPOLLET, err);
	if (r == 0)
		r = open_source(s, &s->timer,
				timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
				EPOLLIN | EPOLLET, err);
	if (r == 0)
		r = open_source(s, &s->stop, eventfd(0, flags), EPOLLIN | EPOLLONESHOT, err);
	if (r == 0)
		r = open_source(s, &s->end, eventfd(0, flags), EPOLLIN, err);
	return r;
}

static int open_flushers(struct server *s, struct err *err)
{
	s->flusher = calloc(s->config.n_exports + 1, sizeof(*s->flusher));
	if (!s->flusher)
		return err_nomem(err, sizeof(*s->flusher), "exports");
	for (unsigned i = 0; i < s->config.n_exports; i++)
		pthread_mutex_init(&s->flusher[i].lock, NULL);
	return 0;
}

static int open_listeners(struct server *s, struct err *err)
{
	int r = 0;

	s->listener = calloc(s->config.n_listeners + 1, sizeof(*s->listener));
	if (!s->listener)
		return err_nomem(err, sizeof(*s->listener), "listening sockets");
	for (unsigned i = 0; r == 0 && i < s->config.n_listeners; i++) {
		s->listener[i] = (struct source){SOURCE_LISTENER, s->config.listeners[i]};
		r = watch(s, &s->listener[i], EPOLL_CTL_ADD, EPOLLIN | EPOLLONESHOT);
	}
	return r < 0 ? err_sys(err, -r, "could not watch a listening socket") : 0;
}

static int open_workers(struct server *s, struct err *err)
{
	int r = 0;

	s->n_workers = s->config.threads ? s->config.threads : work_cpus() + 3;
	s->worker = calloc(s->n_workers, sizeof(*s->worker));
	if (!s->worker)
		return err_nomem(err, s->n_workers * sizeof(*s->worker), "workers");
	for (unsigned i = 0; r == 0 && i < s->n_workers; i++)
		r = open_worker(&s->worker[i], s, err);
	return r;
}

static int open_all(struct server *s, struct err *err)
{
	int r;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0)
		return err_sys(err, errno, "epoll");
	r = open_sources(s, err);
	if (r == 0)
		r = open_flushers(s, err);
	if (r == 0)
		r = open_listeners(s, err);
	if (r == 0)
		r = open_workers(s, err);
	if (r == 0 && s->config.single)
		r = connection_start(s, s->config.single, err);
	return r;
}

int server_open(const struct server_config *config, struct server **out, struct err *err)
{
	struct server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_nomem(err, sizeof(*s), "the server");
	s->config = *config;
	s->epoll = -1;
	s->work = (struct source){SOURCE_WORK, -1};
	s->timer = (struct source){SOURCE_TIMER, -1};
	s->stop = (struct source){SOURCE_STOP, -1};
	s->end = (struct source){SOURCE_END, -1};
	s->read_limit.rate = config->read_rate;
	s->write_limit.rate = config->write_rate;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->work_lock, NULL);
	pthread_mutex_init(&s->log_lock, NULL);
	r = open_all(s, err);
	if (r < 0)
		server_close(s);
	else
		*out = s;
	return r;
}

static int flush_exports(struct server *s, struct err *err)
{
	int first = 0;

	for (unsigned i = 0; i < s->config.n_exports; i++) {
		struct io *io = s->config.exports[i]->io;
		int r = io->caps & IO_RDONLY ? 0 : io_flush(io, first ? NULL : err);

		if (r < 0 && !first)
			first = r;
	}
	return first;
}

int server_run(struct server *s, struct err *err)
{
	int r = work_run(s->n_workers, work, s, err), f = flush_exports(s, r < 0 ? NULL : err);

	server_say_rest(s);
	return r < 0 ? r : f;
}

void server_close(struct server *s)
{
	struct connection *c;

	if (!s)
		return;
	/* One that never had a turn, or that came when all had gone. */
	while ((c = s->connections))
		connection_drop(&s->worker[0], c);
	for (unsigned i = 0; s->worker && i < s->n_workers; i++)
		close_worker(&s->worker[i]);
	while ((c = s->unused)) {
		s->unused = c->next;
		pthread_mutex_destroy(&c->lock);
		free(c);
	}
	for (unsigned i = 0; s->flusher && i < s->config.n_exports; i++)
		pthread_mutex_destroy(&s->flusher[i].lock);
	free(s->flusher);
	free(s->worker);
	free(s->listener);
	cleanup_fd(&s->epoll);
	cleanup_fd(&s->work.fd);
	cleanup_fd(&s->timer.fd);
	cleanup_fd(&s->stop.fd);
	cleanup_fd(&s->end.fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->work_lock);
	pthread_mutex_destroy(&s->log_lock);
	free(s);
}
