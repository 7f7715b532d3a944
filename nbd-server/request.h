/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests: from bytes to struct request, and whether they can be done. */
#ifndef IMGKIT_NBD_REQUEST_H
#define IMGKIT_NBD_REQUEST_H

#include "nbd-server/connection.h"

/* What a request is judged by. */
struct request_rules {
	enum reply_mode mode;
	uint64_t size;     /* bytes of the export */
	uint16_t flags;    /* NBD_FLAG_… of the export */
	uint64_t contexts; /* bits: those that the client selected */
	uint32_t max_block;
};

/* Bytes of a header. */
size_t request_head_size(enum reply_mode mode);

/*
 * Decodes a header of request_head_size bytes into *r (which is otherwise zero), and sets r->error
 * and r->why if it cannot be done; r->payload bytes follow all the same. -EPROTO: this is no
 * request, or more follows than anybody would wait for: the connection must end.
 */
int request_decode(const struct request_rules *rules, const unsigned char *head, struct request *r,
		   struct err *err);

/* r cannot be done. */
void request_fail(struct request *r, uint16_t error, const char *why);

/* "read", "write", …: for messages. */
const char *request_name(uint16_t type);

/* Whether the command changes the export. */
bool request_changes(uint16_t type);

/*
 * What it takes of a turn: bytes of the export that are sent, zeroed, discarded or looked at for it.
 * Those of a WRITE count when they come.
 */
uint64_t request_weight(const struct request *r);

/* The code on the wire for an errno (positive). */
uint16_t request_error(int code);

#endif
