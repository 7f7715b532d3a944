/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server: a few threads that wait in one epoll for all connections. See engine.c for who
 * does what when, connection.h for the life of a connection.
 */
#ifndef IMGKIT_NBD_SERVER_H
#define IMGKIT_NBD_SERVER_H

#include "nbd-server/channel.h"
#include "nbd-server/export.h"
#include "nbd-server/tls.h"

enum server_tls {
	SERVER_TLS_OFF,      /* STARTTLS is refused */
	SERVER_TLS_ON,       /* for who asks */
	SERVER_TLS_REQUIRED, /* nothing but STARTTLS and ABORT before it */
};

/* What the server says; lines without newline. Called from any thread, one at a time. */
enum server_event { SERVER_DEBUG, SERVER_INFO, SERVER_WARNING };
struct server_log {
	void (*line)(void *ctx, enum server_event, const char *text);
	void *ctx;
};

/* What happens, for who watches; may be in memory that is shared with another process. */
struct server_stats {
	_Atomic uint64_t clients;       /* now, that have an export */
	_Atomic uint64_t requests;      /* so far; all of them */
	_Atomic uint64_t read, written; /* bytes, so far: of READ, of WRITE */
};

struct server_config {
	struct nbd_export *const *exports; /* borrowed; names are different */
	unsigned n_exports;
	const int *listeners; /* listening sockets, borrowed, made non-blocking */
	unsigned n_listeners;
	struct channel *single; /* the only client (stdin and stdout), owned on success; or NULL */
	struct tls *tls;        /* borrowed; NULL with SERVER_TLS_OFF */
	enum server_tls tls_mode;
	bool list_exports;     /* answer NBD_OPT_LIST, else ERR_POLICY */
	bool persistent;       /* go on when the last client has left */
	unsigned max_clients;  /* at a time; others are not accepted until one leaves; 0: any */
	unsigned handshake_ms; /* for a whole handshake */
	unsigned idle_ms;      /* without a request, while none is in flight; 0: for ever */
	uint64_t read_rate, write_rate; /* bytes per second, of all connections together; 0: any */
	unsigned threads;               /* 0: chosen */
	struct server_log log;
	struct server_stats *stats; /* borrowed; NULL: nobody wants to know */
};

struct server;

/* Starts no thread yet: what follows (dropping of rights) holds for all. */
int server_open(const struct server_config *config, struct server **out, struct err *err);

/*
 * Serves until server_stop, or until the last client has left when it is not persistent. Requests
 * that were received are finished, exports flushed (not settled). 0, or why it could not go on.
 */
int server_run(struct server *s, struct err *err);

/* Async-signal-safe, any number of times. */
void server_stop(struct server *s);

void server_close(struct server *s);

#endif
