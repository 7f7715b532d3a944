/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server's inside: what its threads share, and what each has for itself. See engine.c. */
#ifndef IMGKIT_NBD_ENGINE_H
#define IMGKIT_NBD_ENGINE_H

#include <stdarg.h>

#include "nbd-server/connection.h"
#include "nbd-server/reply.h"
#include "nbd-server/server.h"
#include "nbd-server/status.h"

#define WORKER_IN (UINT64_C(512) << 10) /* bytes that a worker receives at once, at most */

/* Bytes that may be kept of all connections together, beside 4 KiB of each. */
#define KEPT_MAX (UINT64_C(16) << 20)

struct worker {
	struct server *server;
	pthread_t thread;
	unsigned char *in; /* owned: WORKER_IN bytes */
	struct outbox out;
	unsigned char extents[STATUS_BYTES]; /* of the message that is being put */
	struct request *stock;               /* requests for use */
	unsigned n_stock;
	struct err err;
};

struct server {
	struct server_config config;
	int epoll;
	struct source stop;      /* readable: server_stop was called */
	struct source end;       /* readable: the threads go home */
	struct source *listener; /* owned: config.n_listeners of them */
	struct worker *worker;
	unsigned n_workers;
	atomic_bool stopping;
	atomic_size_t kept; /* bytes of connection.rest, of all */

	pthread_mutex_t lock; /* 1 */
	struct connection *connections;
	struct connection *unused; /* memory for connections */
	unsigned n_connections;
	bool paused; /* listeners are not armed: there are max_clients */
	bool served; /* a client got as far as requests */
	bool ended;

	pthread_mutex_t log_lock; /* 4 */
};

/* Says something about a connection (NULL: about the server). Control characters are made visible. */
void server_say(struct server *s, const struct connection *c, enum server_event event,
		const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Of connection.c: the connection is no more. */
void server_left(struct server *s, struct connection *c);
/* Memory for a connection, in the list; NULL: none, or no more connections are wanted. */
struct connection *server_join(struct server *s);
/* A client got through the handshake. */
void server_served(struct server *s);

uint64_t now_ns(void);

#endif
