/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An export of an NBD server as a struct io (libnbd, which is loaded when the first one is opened).
 *
 * Transfers are cut to what the server takes and are in flight together; where the server says that
 * several connections see the same bytes, further ones are opened when the first is busy. A server
 * is not trusted: what it sends is checked, and it cannot make us wait for ever once the job is
 * cancelled. A connection that is lost stays lost: nothing is sent twice.
 *
 * io_map answers from `base:allocation`, and keeps the last answer until something is written
 * through this io: what others write meanwhile may not be seen in the map. nbd_extents reads any
 * context, and keeps nothing.
 */
#ifndef IMGKIT_IO_NBD_H
#define IMGKIT_IO_NBD_H

#include "base/creds.h"
#include "base/job.h"
#include "io/io.h"

/* Where an export is. Strings are owned, or NULL; zero-initialise, free with nbd_where_free. */
struct nbd_where {
	char *host, *port;   /* TCP: both */
	char *path;          /* or a Unix socket */
	char *export;        /* NULL: the default export, "" */
	bool tls;            /* required */
	char *tls_dir;       /* X.509: with ca-cert.pem, client-cert.pem, client-key.pem */
	char *tls_psk;       /* file of pre-shared keys, instead of certificates */
	char *tls_user;      /* whose key */
	bool tls_unverified; /* any certificate is fine */
};

/* Whether a name is one of those that nbd_where_parse takes, by its scheme. */
bool nbd_is_name(const char *name);

/*
 * "nbd://HOST[:PORT][/EXPORT]", "nbd+unix:///[EXPORT]?socket=PATH", the same with nbds (TLS; and
 * then tls-certificates=DIR, tls-psk-file=FILE, USER@), "nbd:HOST:PORT[:exportname=EXPORT]",
 * "nbd:unix:PATH[:exportname=EXPORT]". -EINVAL says what is wrong.
 */
int nbd_where_parse(const char *name, struct nbd_where *where, struct err *err);
void nbd_where_free(struct nbd_where *where);

/* The keys that the user gave by a name. */
int nbd_where_set_cred(struct nbd_where *where, const struct cred *cred, struct err *err);
/* -ENOTSUP: the certificate is to be that of another host than the server is at. */
int nbd_where_check_hostname(const struct nbd_where *where, const char *hostname, struct err *err);

/* The URI, in the peer's spelling; the caller frees. NULL: out of memory. */
char *nbd_where_name(const struct nbd_where *where);

#define NBD_CONTEXTS_MAX 16

enum {
	NBD_WRITE = 1 << 0,      /* read and write; -EROFS: the server does not let us */
	NBD_UNSAFE = 1 << 1,     /* flush does nothing (cache mode "unsafe") */
	NBD_KEEP_SPACE = 1 << 2, /* never free space: discard does nothing */
	NBD_SEALED = 1 << 3,     /* one connection, for which send and recv are enough: no TLS */
};

struct nbd_args {
	unsigned flags; /* NBD_… */
	struct job *
		job; /* borrowed while the io lives: when it is cancelled, waiting ends. NULL: no */
	/* Meta contexts to ask for beside base:allocation; see nbd_has_context. */
	const char *const *contexts;
	unsigned n_contexts;
};

/*
 * Connects. Takes what is in *where on success. -ENOTSUP: libnbd is missing; -EPROTO, -ENOENT (no
 * such export), -ECONNREFUSED, …: the text has what the server says. -ETIMEDOUT: it said nothing.
 */
int nbd_open(struct nbd_where *where, const struct nbd_args *args, struct io **out,
	     struct err *err);

/* Whether io was made by nbd_open. */
bool io_is_nbd(const struct io *io);

/* Whether the server has this one of the contexts that were asked for. */
bool nbd_has_context(const struct io *io, const char *context);

/* What a context says of a run of bytes; flags as the context defines them. */
struct nbd_extent {
	uint64_t off, len; /* bytes */
	uint32_t flags;
};
/* base:allocation; qemu:dirty-bitmap:NAME; in qemu:allocation-depth, flags is the depth. */
enum { NBD_EXTENT_HOLE = 1 << 0, NBD_EXTENT_ZERO = 1 << 1 };
enum { NBD_EXTENT_DIRTY = 1 << 0 };

/*
 * The extents from off on, one behind the other, within [off, off+len), which is in range: at most
 * room (> 0) of them, *n >= 1; they may end before off+len. Neighbours may have equal flags.
 * Thread-safe. -EINVAL: the context was not negotiated.
 */
int nbd_extents(struct io *io, const char *context, uint64_t off, uint64_t len,
		struct nbd_extent *v, size_t room, size_t *n, struct err *err);

/* ---- nbd_list.c: what a server has ---- */

/* Names of the bits of nbd_listed.flags, which are those of the protocol; NULL: has none. */
#define NBD_FLAG_NAMES 12
extern const char *const nbd_flag_names[NBD_FLAG_NAMES];

struct nbd_listed {
	char *name, *description; /* owned; description NULL: none */
	bool known;               /* what follows; false: the server tells the name only */
	uint64_t size;            /* bytes */
	uint32_t flags;
	uint32_t min, preferred, max; /* bytes of a request; 0: it does not say */
	char **contexts;              /* owned, as each of them: meta contexts */
	unsigned n_contexts;
};
struct nbd_list {
	struct nbd_listed *v; /* owned */
	unsigned n;
};

/*
 * The exports of a server, in its order. where->export means nothing; *where stays the caller's. job: as
 * for nbd_open. -E2BIG: they are more than what is taken from a server. The texts are as the server
 * sent them. Free with nbd_list_free, also after an error.
 */
int nbd_list(const struct nbd_where *where, struct job *job, struct nbd_list *list,
	     struct err *err);
void nbd_list_free(struct nbd_list *list);

#endif
