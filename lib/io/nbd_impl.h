/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the NBD backend share: nbd*.c. Private to them. */
#ifndef IMGKIT_IO_NBD_IMPL_H
#define IMGKIT_IO_NBD_IMPL_H

#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "io/nbd.h"

/* ---- nbd_load.c: libnbd, found at run time ---- */

/* clang-format off */
#define NBD_CALLS(X) \
	X(create) X(close) X(get_error) X(get_errno) X(set_debug) X(set_debug_callback) X(clear_debug_callback) \
	X(set_export_name) X(set_tls) X(set_tls_certificates) X(set_tls_verify_peer) \
	X(set_tls_username) X(set_tls_psk_file) X(supports_tls) X(add_meta_context) \
	X(can_meta_context) X(aio_connect_unix) X(aio_connect_tcp) X(aio_get_fd) \
	X(aio_get_direction) X(aio_notify_read) X(aio_notify_write) X(aio_is_ready) \
	X(aio_is_dead) X(aio_is_closed) X(aio_disconnect) X(get_size) X(get_block_size) \
	X(is_read_only) X(can_flush) X(can_trim) X(can_zero) X(can_fast_zero) X(can_multi_conn) \
	X(aio_pread_structured) X(aio_pwrite) X(aio_zero) X(aio_trim) X(aio_flush) X(aio_block_status) \
	X(set_opt_mode) X(aio_is_negotiating) X(aio_opt_list) X(aio_opt_info) \
	X(aio_opt_list_meta_context) X(aio_opt_abort) X(can_fua) X(is_rotational) X(can_df) X(can_cache)
/* clang-format on */

#define NBD_MEMBER(name) __typeof__(nbd_##name) *name;
struct nbd_lib {
	void *so;
	NBD_CALLS(NBD_MEMBER)
};

/* -ENOTSUP: it is not installed, or too old. */
int nbd_load(struct nbd_lib *lib, struct err *err);
void nbd_unload(struct nbd_lib *lib);

/* ---- nbd_conn.c: connections; nbd_run.c: requests ---- */

#define NBD_MAX_CONNS 4
#define NBD_WINDOW    16 /* pieces of one request that are in flight together */

struct nbd_batch;

/* What the server said of the export; the same on all connections. */
struct nbd_facts {
	uint64_t size;     /* bytes */
	uint32_t min, max; /* bytes of a request: a multiple of, at most */
	bool read_only, flush, trim, zero, fast_zero, multi;
};

struct nbd_conn {
	struct nbd_handle *h;
	int wake;              /* eventfd: the leader shall look again at what to wait for */
	_Atomic unsigned load; /* requests that use it */

	/* Of what follows, and of every call of the library with h. */
	pthread_mutex_t lock;
	bool led;                  /* somebody waits for the server, the others for him */
	struct nbd_batch *waiting; /* the others */
	char words[256];           /* what the server said when it refused; "": nothing */
	char why[256];             /* it is lost; "": it is not */
	int code;                  /* the same as a positive errno */
};

/* The last answer about base:allocation. */
struct nbd_seen {
	pthread_mutex_t lock;
	uint64_t changes; /* how often something was written: a late answer may be older */
	uint64_t off;     /* bytes: where v begins */
	struct nbd_run {
		uint32_t len, flags;
	} * v; /* owned */
	size_t n;
	/* Where the last question ended: the next one is mostly behind it. */
	size_t at;
	uint64_t at_off;
};

struct nbd_io {
	struct io io; /* first */
	struct nbd_lib lib;
	struct nbd_where where;
	unsigned flags; /* NBD_… */
	bool options;   /* connections stay in the options' phase; see nbd_list.c */
	struct job *job;
	char *contexts[NBD_CONTEXTS_MAX + 1]; /* owned: base:allocation first */
	bool has[NBD_CONTEXTS_MAX + 1];       /* negotiated */
	unsigned n_contexts;
	struct nbd_facts facts;

	pthread_mutex_t grow; /* one more connection is being opened */
	struct nbd_conn *conn[NBD_MAX_CONNS];
	_Atomic unsigned n_conns;
	unsigned max_conns;
	atomic_bool no_more;
	atomic_bool lost; /* a connection was: some of what was written may be, too */

	pthread_mutex_t edge; /* read-modify-write of partial blocks */
	struct nbd_seen seen;
};

static inline struct nbd_io *nbd_of(struct io *io)
{
	return (struct nbd_io *)(void *)io; /* io is the first member */
}

enum nbd_kind { NBD_READ, NBD_PUT, NBD_ZERO, NBD_TRIM, NBD_FLUSH, NBD_STATUS };

struct nbd_request {
	enum nbd_kind kind;
	void *buf; /* READ, PUT: len bytes; PUT only reads them */
	uint64_t off, len;
	uint64_t piece; /* bytes: it is cut into these */
	uint32_t flags; /* LIBNBD_CMD_FLAG_… */
	/* STATUS: one piece. */
	int (*extents)(void *ctx, const char *context, const uint32_t *entries, size_t n);
	void *ctx;
};

/*
 * Does a request of whole blocks. -ENOTSUP without text: the server has no such thing, or not in
 * this way. -ECANCELED: the job is.
 */
int nbd_run(struct nbd_io *n, const struct nbd_request *req, struct err *err);

/*
 * A connection that has shaken hands, in the options' phase if the wish is so and the server has one.
 * wait_ms: for all of it. nbd_conn_close(n, NULL) is fine.
 */
int nbd_conn_open(struct nbd_io *n, int wait_ms, struct nbd_conn **out, struct err *err);
void nbd_conn_close(struct nbd_io *n, struct nbd_conn *c);
/* Until there is an answer to an option, or all are through. Under the lock. */
int nbd_conn_await(struct nbd_io *n, struct nbd_conn *c, int wait_ms, struct err *err);
/* Why the last call of the library failed, in the server's words too. Returns what it is as -errno. */
int nbd_conn_refused(struct nbd_io *n, const struct nbd_conn *c, struct err *err);

/* The first connection: fills in facts and has. */
int nbd_connect(struct nbd_io *n, struct err *err);
void nbd_disconnect(struct nbd_io *n);

/* The connection that is least busy, maybe a new one; nbd_conn_release when the request is done. */
struct nbd_conn *nbd_conn_choose(struct nbd_io *n);
void nbd_conn_release(struct nbd_conn *c);

/* Under the lock, which step drops while it waits: for the socket, or that somebody writes to wake. */
void nbd_conn_step(struct nbd_io *n, struct nbd_conn *c, int timeout_ms);
/* Ends it: what is in flight fails, everything that follows too. */
void nbd_conn_lose(struct nbd_io *n, struct nbd_conn *c, int code, const char *why);
/* The same after a call of the library that failed. */
void nbd_conn_failed(struct nbd_io *n, struct nbd_conn *c);
bool nbd_conn_is_over(struct nbd_io *n, const struct nbd_conn *c);
/* What the library says of the call that just failed; until its next one. */
const char *nbd_conn_error(struct nbd_io *n, int *code);
int64_t nbd_now_ms(void);

/* ---- nbd_io_map.c ---- */

int nbd_io_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err);
/* Something is about to change, or has: what was seen may be no more. */
void nbd_forget(struct nbd_io *n);

#endif
