/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server's inside: what its threads share, and what each has for itself. See engine.c. */
#ifndef IMGKIT_NBD_ENGINE_H
#define IMGKIT_NBD_ENGINE_H

#include <stdarg.h>

#include "nbd-server/connection.h"
#include "nbd-server/limit.h"
#include "nbd-server/reply.h"
#include "nbd-server/server.h"
#include "nbd-server/status.h"
#include "nbd-server/work.h"

#define WORKER_IN (UINT64_C(512) << 10) /* bytes that a worker receives at once, at most */

/* Bytes that a worker receives for one connection, and deals with, before others have their turn. */
#define TURN_BYTES (UINT64_C(4) << 20)

/* Bytes that may be kept of all connections together, beside 4 KiB of each. */
#define KEPT_MAX (UINT64_C(16) << 20)
/* Bytes that handshakes may keep, in the same way. */
#define SHAKING_MAX  (UINT64_C(16) << 20)
#define SHAKING_FREE 4096u
/* Payload that is buffered as a whole: bytes of all requests together, and of one. */
#define BUFFERED_MAX (UINT64_C(64) << 20)
#define BUFFERED_ONE (UINT64_C(1) << 20)

struct worker {
	struct server *server;
	pthread_t thread;
	unsigned char *in; /* owned: WORKER_IN bytes */
	struct outbox out;
	unsigned char extents[STATUS_BYTES]; /* of the message that is being put */
	struct request *stock;               /* requests for use */
	unsigned n_stock;
	struct request *later, *later_last; /* for work_start */
	unsigned n_samples;
	struct err err;
};

struct server {
	struct server_config config;
	int epoll;
	struct source work;      /* reported once for each write: there is work */
	struct source timer;     /* reported when timer_at has come */
	struct source stop;      /* readable: server_stop was called */
	struct source end;       /* readable: the threads go home */
	struct source *listener; /* owned: config.n_listeners of them */
	struct worker *worker;
	unsigned n_workers;
	struct flusher *flusher; /* owned: one for each export */
	struct limit read_limit, write_limit;
	atomic_bool stopping;
	atomic_bool looking;    /* a worker waits for a client without sleeping */
	atomic_size_t buffered; /* bytes of payload in requests that are worked on, of all */
	atomic_size_t kept;     /* bytes of connection.rest, of all */
	atomic_size_t shaking;  /* bytes of options and replies in handshakes, of all */

	pthread_mutex_t lock; /* 1 */
	struct connection *connections, *oldest;
	struct connection *unused; /* memory for connections */
	atomic_uint n_connections; /* changed under the lock */
	unsigned n_coming;         /* being accepted */
	bool paused;               /* listeners are not armed */
	bool poor;                 /* the last client could not be accepted for lack of resources */
	uint64_t stop_at; /* ns: when patience with clients ends; 0: the server does not stop */
	bool served;      /* a client got as far as requests */
	bool ended;

	pthread_mutex_t work_lock; /* 3 */
	struct request *work_first, *work_last;
	uint64_t timer_at; /* ns; 0: the timer does not run */

	pthread_mutex_t log_lock; /* 4 */
	/* Warnings: of handshakes, which anybody can make fail, and others. */
	struct told {
		uint64_t until; /* ns: see log.c */
		unsigned left_out;
	} told[2];
};

/* Says something about a connection (NULL: about the server). Control characters are made visible. */
void server_say(struct server *s, const struct connection *c, enum server_event event,
		const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Says how many warnings were left out, of which nothing was said yet. */
void server_say_rest(struct server *s);

/* Of connection.c: the connection is no more. */
void server_left(struct server *s, struct connection *c);
/* So many clients that none gets more memory of the kernel than it is born with. */
bool server_crowded(struct server *s);
/* Memory for a connection, in the list; NULL: none, or no more connections are wanted. */
struct connection *server_join(struct server *s);
/* A client got through the handshake. */
void server_served(struct server *s);
/* A handshake has had its turn: while all of them keep too much, the oldest of those that do ends. */
void server_trim(struct worker *w);

/* Another worker looks at the queue of work. */
void server_wake(struct server *s);
/* Looks after the connections at this time, or earlier. Takes work_lock. */
void server_look_at(struct server *s, uint64_t ns);

uint64_t now_ns(void);

#endif
