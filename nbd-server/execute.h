/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What commands do to an export, but for READ and BLOCK_STATUS: these are done by replying. */
#ifndef IMGKIT_NBD_EXECUTE_H
#define IMGKIT_NBD_EXECUTE_H

#include "nbd-server/connection.h"

/*
 * For the owner of the connection: executes a request and puts its reply, or adds it to the work
 * that others do. A WRITE's data are in r->data, or were written already.
 */
void execute(struct worker *w, struct request *r);

/* Whether requests of this kind are better not done by who receives. */
bool execute_slow(const struct connection *c);

/* A bounded part of what r asks for. True: that was all. */
bool execute_step(struct worker *w, struct request *r);
/* Whether r is to be answered only when all that was written before is on stable storage. */
bool execute_wants_flush(const struct request *r);

/* r failed with this errno (negative) while it did something; w->err has the text, for the log. */
void execute_failed(struct worker *w, struct request *r, int code);

#endif
