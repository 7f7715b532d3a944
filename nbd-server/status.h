/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BLOCK_STATUS: what contexts say about a range, as on the wire. */
#ifndef IMGKIT_NBD_STATUS_H
#define IMGKIT_NBD_STATUS_H

#include "nbd-server/connection.h"

/* Extents in one message, at most; a client asks again for what is behind them. */
#define STATUS_EXTENTS 1024u

#define STATUS_BYTES (8 + STATUS_EXTENTS * 16) /* of such a message, behind its header */

/* The next message of the reply: the extents of the next context in w->extents, or an error. */
void status_plan(struct worker *w, struct request *r);

/*
 * The payload of a BLOCK_STATUS with NBD_CMD_FLAG_PAYLOAD_LEN: be64 length, be32 contexts…; changes
 * r->length and r->contexts, or fails r.
 */
void status_filter(struct request *r, const unsigned char *payload, uint64_t size);

#endif
