// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The server's threads: a few workers that wait in one epoll for all there is: listening sockets,
 * connections, the order to stop. Who gets an event deals with it, and waits again. Nobody waits for
 * anything else, but for the image.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "nbd-server/engine.h"
#include "nbd-server/handshake.h"

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
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

/* ---- clients come and go ---- */

static void arm_listeners(struct server *s)
{
	for (unsigned i = 0; i < s->config.n_listeners; i++)
		watch(s, &s->listener[i], EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT);
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
	c->next = s->unused;
	s->unused = c;
	s->n_connections--;
	if (s->paused && !s->stopping) {
		s->paused = false;
		arm_listeners(s);
	}
	if (s->n_connections)
		return;
	if (s->stopping || s->config.single || (s->served && !s->config.persistent))
		finish(s);
}

void server_served(struct server *s)
{
	LOCK_SCOPE(&s->lock);
	s->served = true;
}

static void accept_client(struct server *s, struct source *l)
{
	struct channel *channel;
	struct err err = {0};
	int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int r;

	if (fd < 0)
		return;
	r = channel_socket(fd, &channel, &err);
	if (r < 0)
		close(fd);
	if (r == 0) {
		r = connection_start(s, channel, &err);
		if (r < 0)
			channel->ops->close(channel);
	}
	if (r < 0)
		server_say(s, NULL, SERVER_WARNING, "a client was turned away: %s", err.msg);
}

static void listener_turn(struct server *s, struct source *l)
{
	bool room;

	pthread_mutex_lock(&s->lock);
	room = !s->config.max_clients || s->n_connections < s->config.max_clients;
	s->paused |= !room;
	room &= !s->stopping;
	pthread_mutex_unlock(&s->lock);
	if (!room)
		return;
	accept_client(s, l);
	watch(s, l, EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT);
}

/* ---- stopping ---- */

void server_stop(struct server *s)
{
	signal_fd(s->stop.fd);
}

static void stop_turn(struct server *s, struct worker *w)
{
	struct connection *c;

	(void)w;
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->stopping, true);
	for (c = s->connections; c; c = c->next) {
		pthread_mutex_lock(&c->lock);
		if (c->channel)
			shutdown(c->channel->in, SHUT_RD);
		pthread_mutex_unlock(&c->lock);
	}
	if (!s->n_connections)
		finish(s);
	pthread_mutex_unlock(&s->lock);
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
	case SOURCE_STOP:
		stop_turn(w->server, w);
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

static int open_source(struct server *s, struct source *source, int kind, struct err *err)
{
	int r;

	source->kind = kind;
	source->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = source->fd < 0 ? -errno
			   : watch(s, source, EPOLL_CTL_ADD,
				   EPOLLIN | (kind == SOURCE_STOP ? EPOLLONESHOT : 0u));
	return r < 0 ? err_sys(err, -r, "eventfd") : 0;
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

	s->n_workers = s->config.threads ? s->config.threads : work_cpus() + 2;
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
	r = open_source(s, &s->stop, SOURCE_STOP, err);
	if (r == 0)
		r = open_source(s, &s->end, SOURCE_END, err);
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
	s->epoll = s->stop.fd = s->end.fd = -1;
	pthread_mutex_init(&s->lock, NULL);
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

	return r < 0 ? r : f;
}

void server_close(struct server *s)
{
	struct connection *c;

	if (!s)
		return;
	for (unsigned i = 0; s->worker && i < s->n_workers; i++)
		close_worker(&s->worker[i]);
	while ((c = s->unused)) {
		s->unused = c->next;
		pthread_mutex_destroy(&c->lock);
		free(c);
	}
	free(s->worker);
	free(s->listener);
	cleanup_fd(&s->epoll);
	cleanup_fd(&s->stop.fd);
	cleanup_fd(&s->end.fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->log_lock);
	free(s);
}
