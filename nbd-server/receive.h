/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The receiving side of a connection. */
#ifndef IMGKIT_NBD_RECEIVE_H
#define IMGKIT_NBD_RECEIVE_H

#include "nbd-server/connection.h"

/*
 * The owner receives requests, executes them, and sends the replies, until there are no more, or
 * until it is others' turn.
 */
void receive_turn(struct worker *w, struct connection *c);

#endif
