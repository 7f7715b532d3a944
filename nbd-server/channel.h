/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A byte stream to a client that never blocks: a plain socket (or a pair of pipes), or TLS over one.
 *
 * One thread at a time calls functions of a channel, except where a kind says that recv and send may
 * run beside each other (channel.duplex).
 */
#ifndef IMGKIT_NBD_CHANNEL_H
#define IMGKIT_NBD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/err.h"

struct channel;

struct channel_ops {
	const char *name; /* "unix", "tcp", "tls", …: for messages */
	/*
	 * Bytes, > 0; 0: the client closed; -EAGAIN: none now; -errno: broken. Less than asked for does
	 * not mean that there are no more.
	 */
	ssize_t (*recv)(struct channel *, void *, size_t);
	/*
	 * Bytes taken, > 0, maybe less than all; -EAGAIN; -errno. more: others follow at once. Where there
	 * is a flush, what was taken may not have gone yet.
	 */
	ssize_t (*send)(struct channel *, const struct iovec *, unsigned n, bool more);
	/* Sends the rest of what was taken. 0: all has gone; -EAGAIN; -errno. NULL: it has, always. */
	int (*flush)(struct channel *);
	/* TLS: goes on with the handshake. 0: done; -EAGAIN; -errno with a text. NULL: has none. */
	int (*handshake)(struct channel *, struct err *);
	/* Whether recv has bytes that poll does not know of. NULL: never. */
	bool (*pending)(struct channel *);
	/* Says good-bye if that does not block, closes the descriptors, frees. */
	void (*close)(struct channel *);
};

struct channel {
	const struct channel_ops *ops;
	int in, out;   /* descriptors; the same one for sockets */
	bool duplex;   /* recv and send may run in two threads at once */
	bool secure;   /* TLS */
	short waiting; /* POLLIN, POLLOUT: what the last -EAGAIN waits for */
	char peer[80]; /* who: address, or PID and UID of a Unix socket; for messages */
};

static inline int channel_flush(struct channel *c)
{
	return c->ops->flush ? c->ops->flush(c) : 0;
}

/* A connected socket, made non-blocking; owned on success. */
int channel_socket(int fd, struct channel **out, struct err *err);
/*
 * Lets the kernel keep a whole reply of 256 KiB for a client that reads slowly, so that it need not be
 * made in two parts. For Unix sockets; TCP has its own way to find a size.
 */
void channel_widen(struct channel *ch);
/* Standard input and output of an inetd-like service, also when they are pipes. */
int channel_pipes(int in, int out_fd, struct channel **out, struct err *err);

#endif
