/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What listen.c and listen_adopt.c share. */
#ifndef IMGKIT_NBD_LISTEN_IMPL_H
#define IMGKIT_NBD_LISTEN_IMPL_H

#include "nbd-server/listen.h"

/* Adds a socket, which is owned on success; -EMFILE when there are too many. */
int listen_add(struct listen_set *set, int fd, struct listener **out, struct err *err);

/* Takes the sockets away again that came after the first n. */
void listen_shrink(struct listen_set *set, unsigned n);

/* Asks the socket for its family, port, path, and for an address that clients can use. */
int listen_learn(struct listener *l, struct err *err);

/* What accepted TCP sockets inherit: no delay, and a dead peer is noticed. */
void listen_tune(int fd);

#endif
