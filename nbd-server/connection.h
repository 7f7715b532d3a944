/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection, and the requests that came over it.
 *
 * At any time at most one worker owns a connection: it alone receives, and changes what is marked
 * "owner's". It takes the connection when epoll reports it (the registration is for one event), has
 * its turn, and gives it back. Events are hints: whoever gets one looks at what there is, so one too
 * many does no harm; and as a connection's memory is used again but not returned while the server
 * runs, not even an event for a connection that has ended meanwhile does.
 *
 * Locks, in order:
 *   1. server.lock       the list of connections, counts
 *   2. connection.lock   sending, and what is marked "locked"; no call under it can block
 *   3. server.work_lock  the queue of work, the timer; flusher.lock
 *   4. server.log_lock
 * No lock is held while the image is read or written.
 */
#ifndef IMGKIT_NBD_CONNECTION_H
#define IMGKIT_NBD_CONNECTION_H

#include <pthread.h>

#include "nbd-server/channel.h"
#include "nbd-server/export.h"

struct connection;
struct flusher;
struct handshake;
struct server;
struct worker;

/* What was negotiated: how replies look. */
enum reply_mode { MODE_SIMPLE, MODE_STRUCTURED, MODE_EXTENDED };

/* What a message of a reply is. */
enum reply_kind {
	REPLY_UNPLANNED, /* not known yet */
	REPLY_STATUS,    /* success or an error; ends the reply */
	REPLY_DATA,      /* of a READ */
	REPLY_HOLE,      /* of a READ */
	REPLY_EXTENTS,   /* of a BLOCK_STATUS */
};

/* How far a reply got. Together with the request it is all that is needed to go on. */
struct reply_at {
	uint64_t done;  /* READ: bytes before the message at hand. BLOCK_STATUS: contexts */
	uint32_t chunk; /* READ: bytes that it tells of. EXTENTS: bytes behind the header */
	uint32_t sent;  /* bytes of the message that have gone, its header included */
	uint8_t kind;   /* enum reply_kind */
	bool last;      /* it ends the reply */
	bool pad;       /* reading failed in its middle: the rest is zeros */
};

struct request {
	struct request *next;
	struct connection *conn;
	uint64_t cookie, offset;
	uint64_t length;    /* bytes of the export that it is about */
	uint64_t done;      /* bytes of it that were written, zeroed, discarded */
	uint64_t contexts;  /* BLOCK_STATUS: bits, the contexts that are asked for */
	uint32_t payload;   /* bytes behind the header */
	uint32_t buffered;  /* bytes of data that count in server.buffered */
	uint32_t swallowed; /* bytes of the payload that were received */
	uint16_t type, flags;
	uint16_t error;      /* NBD_E…; 0: none (yet) */
	bool waiting;        /* it is in connection.out */
	const char *why;     /* with error: for a human; static */
	unsigned char *data; /* owned: payload, or the rest of extents that were half sent */
	struct reply_at reply;
};

struct source {
	enum {
		SOURCE_CONNECTION,
		SOURCE_LISTENER,
		SOURCE_WORK,
		SOURCE_TIMER,
		SOURCE_STOP,
		SOURCE_END,
	} kind;
	int fd;
};

#define CONNECTION_HEAD 32 /* sizeof(struct nbd_extended_request) */

struct connection {
	struct source source;           /* first: what epoll hands out */
	struct connection *next, *prev; /* server.lock */
	struct server *server;
	pthread_mutex_t lock;

	/* owner's */
	struct channel
		*channel; /* owned; NULL: this is no connection now. Changed: owner, locked */
	struct handshake *handshake; /* owned; NULL: it is over */
	bool greeting;               /* the handshake's replies wait for room in the socket */
	struct nbd_export *export;   /* borrowed; whose client it is */
	enum reply_mode mode;
	uint64_t contexts;       /* bits: what the client selected of export->context */
	struct request *writing; /* owned: its payload is being received */
	/* Received bytes that were not used yet: n_rest of them, in head if they fit. */
	unsigned char head[CONNECTION_HEAD];
	unsigned char *rest; /* owned */
	uint32_t n_rest;
	uint8_t vain, unlooked; /* looks for more that found nothing; turns without one */
	unsigned n_late;        /* requests that came while the server stops */

	bool more;               /* there may be input that epoll does not know of */
	bool warned;             /* it had a turn since the server stops */
	uint64_t pause_until;    /* ns: nothing is received before, because of a limit; 0: none */
	struct flusher *flusher; /* borrowed: of the export */
	struct connection *also; /* a list of connections that one worker owns */

	_Atomic unsigned n_failed; /* requests */

	/* locked */
	bool owned;
	bool armed_in, armed_out;       /* epoll will tell */
	bool stalled;                   /* the socket is full: replies go to `out` */
	bool resuming;                  /* one worker has the sole right to send */
	atomic_bool finished;           /* nothing more will be received */
	atomic_bool dead;               /* nothing more can be sent either */
	struct request *out, *out_last; /* replies that wait, the first one maybe half sent */
	unsigned n_out;
	unsigned running;  /* requests that other workers are at */
	uint64_t deadline; /* ns: when the handshake, or idleness, has to end; 0: none */
};

/* Requests of a connection, being worked on or waiting for room in the socket. */
#define CONNECTION_REQUESTS 128u

/* A connection of this channel, which it owns on success; its turn begins when there is something. */
int connection_start(struct server *s, struct channel *channel, struct err *err);

/* The worker's turn, when epoll reported the connection. */
void connection_turn(struct worker *w, struct connection *c);
/* Makes the caller its owner; false: somebody is, or it has ended. Locked. */
bool connection_claim(struct connection *c);
/* A turn for who owns it already. */
void connection_owner_turn(struct worker *w, struct connection *c);
/* One of the requests that others did for it is answered. */
void connection_done(struct worker *w, struct connection *c);

/* Whether its handshake keeps more than any client needs that goes on at once. Locked. */
bool connection_is_greedy(const struct connection *c);

/*
 * Time has passed: whether the connection has to end; it is owned by the caller then, who calls
 * connection_expire. *next: made earlier if the connection has to be looked at earlier. Locked.
 */
bool connection_due(struct connection *c, uint64_t now, bool stop, uint64_t *next);
void connection_expire(struct worker *w, struct connection *c);
/* Ends it, as soon as others are done with it. By its owner. */
void connection_drop(struct worker *w, struct connection *c);

/* Whether as many requests are under way as may be. */
bool connection_full(struct connection *c);
void connection_free_rest(struct connection *c);

/* Nothing can be sent or received any more. Locked. */
void connection_kill(struct connection *c);

/* A request of a worker's own stock. NULL: out of memory. */
struct request *request_new(struct worker *w, struct connection *c);
void request_free(struct worker *w, struct request *r);

#endif
