/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handshake, from the greeting until requests begin: a state machine that takes what bytes there
 * are, so that a silent client costs no thread. handshake.c has the states, options.c one function
 * for each option, contexts.c those about meta contexts.
 */
#ifndef IMGKIT_NBD_HANDSHAKE_H
#define IMGKIT_NBD_HANDSHAKE_H

#include "nbd-server/connection.h"

enum handshake_state {
	HANDSHAKE_FLAGS,   /* the client's flags are awaited */
	HANDSHAKE_OPTION,  /* the header of an option */
	HANDSHAKE_DATA,    /* its data */
	HANDSHAKE_TLS,     /* TLS has its own handshake */
	HANDSHAKE_GOODBYE, /* it failed: the client's end is awaited */
};

/* What follows when all replies have gone. */
enum handshake_next { NEXT_OPTION, NEXT_TLS, NEXT_REQUESTS, NEXT_CLOSE };

struct handshake {
	enum handshake_state state;
	enum handshake_next next;
	enum reply_mode mode;
	bool no_zeroes; /* the client wants no padding behind EXPORT_NAME */
	bool fixed;     /* it knows more options than EXPORT_NAME */
	unsigned n_options;
	struct nbd_export *context_export; /* whose contexts were selected; NULL: none */
	uint64_t contexts;

	/* the option at hand */
	uint32_t option, length;
	uint32_t have, room; /* bytes of `in`: filled, allocated */
	unsigned char *in;   /* owned: header, then data */
	unsigned char fixed_in[16];

	/* replies */
	unsigned char *out; /* owned */
	size_t n_out, out_room, out_sent;

	atomic_size_t *total; /* borrowed: bytes of `in` and `out` of all handshakes; … */
	size_t counted;       /* … those of this one in it */
};

/* Greets. NULL: out of memory. */
struct handshake *handshake_new(atomic_size_t *total);
void handshake_free(struct handshake *h);
/* Brings *total up to date. */
void handshake_count(struct handshake *h);

/*
 * Goes on as far as it can. 0: requests begin, the connection has all that was negotiated;
 * -EAGAIN: waits, for the socket if *output, else for the client (TLS: see channel.waiting);
 * -ECONNRESET: it is over.
 */
int handshake_run(struct connection *c, bool *output);

/* ---- for options.c and contexts.c ---- */

/* A cursor over the data of an option. */
struct option_data {
	const unsigned char *p;
	uint32_t left;
};
bool option_u16(struct option_data *d, uint16_t *v);
bool option_u32(struct option_data *d, uint32_t *v);
/* A string of len bytes, which may contain anything but is no longer than NBD_MAX_STRING. */
bool option_bytes(struct option_data *d, uint32_t len, const char **s);

/* Adds a reply; the text of an error is optional. 0 or -ENOMEM. */
int option_reply(struct handshake *h, uint32_t type, const void *data, size_t len);
int option_error(struct handshake *h, uint32_t type, const char *text);
/* Bytes that are no reply: of EXPORT_NAME. */
int handshake_raw(struct handshake *h, const void *data, size_t len);

/* Handles the option at hand: 0, or negative to end the connection. */
int option_handle(struct connection *c, struct option_data d);
int option_list_contexts(struct connection *c, struct option_data d);
int option_set_contexts(struct connection *c, struct option_data d);

/*
 * The export that data begin with the name of (be32 length, name). 0, or the error that
 * option_refuse replies.
 */
uint32_t option_export(struct connection *c, struct option_data *d, struct nbd_export **e);
int option_refuse(struct handshake *h, uint32_t type);

#endif
