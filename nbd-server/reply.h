/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replies: collected in a worker's arena, sent with few calls, and continued later where the socket
 * was full. See reply.c.
 */
#ifndef IMGKIT_NBD_REPLY_H
#define IMGKIT_NBD_REPLY_H

#include <sys/uio.h>

#include "nbd-server/connection.h"

#define OUTBOX_ARENA  ((256u << 10) + 8192) /* bytes: a READ of 256 KiB fits in whole */
#define OUTBOX_BATCH  (64u << 10) /* bytes: they are sent, although others may follow at once */
#define OUTBOX_PIECES 256u

/* A message of a reply in the arena, or a part of one. */
struct piece {
	struct request *req;
	struct reply_at at; /* of its first byte */
	const unsigned char *start;
	uint32_t bytes;
	bool ends; /* the reply ends with it */
};

/* What one worker is about to send over one connection. */
struct outbox {
	struct connection *conn;
	unsigned char *arena; /* owned: OUTBOX_ARENA bytes */
	size_t used;
	struct iovec iov[OUTBOX_PIECES];
	struct piece piece[OUTBOX_PIECES];
	unsigned n_iov, n_pieces;
	bool resuming; /* connection.resuming is ours */
};

/*
 * Adds the reply to a request, which it owns from now on. What r->error and r->reply say is sent;
 * READ and BLOCK_STATUS are executed by it.
 */
void reply_put(struct worker *w, struct request *r);

/* Sends what was put. Afterwards the connection may be stalled or dead. */
void reply_finish(struct worker *w);

/* The socket may have room again: goes on with what waits. */
void reply_resume(struct worker *w, struct connection *c);

/* Frees the replies that wait. */
void reply_drop(struct worker *w, struct connection *c);

#endif
