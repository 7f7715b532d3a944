/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys for TLS to a server, that the user gave by name (`--object tls-creds-x509,id=…`). */
#ifndef IMGKIT_BASE_CREDS_H
#define IMGKIT_BASE_CREDS_H

#include "base/opt.h"

/* Of a client. Strings are owned. */
struct cred {
	char *id;
	char *dir;      /* X.509: ca-cert.pem, client-cert.pem, client-key.pem; else NULL */
	char *psk_file; /* pre-shared keys, lines NAME:HEX; else NULL */
	char *user;     /* whose key */
	bool verify;    /* the server's certificate */
};

/* Zero-initialise; free with creds_free. */
struct creds {
	struct cred *v;
	unsigned n;
};

/* Whether type is one that creds_add takes: tls-creds-x509, tls-creds-psk. */
bool creds_is_type(const char *type);

/*
 * Adds what `id`, `dir`, `endpoint`, and `verify-peer` or `username` in opts say, as QEMU's objects of
 * that type. Files are read when somebody connects. -EINVAL, -ENOTSUP (endpoint=server), -ENOMEM.
 */
int creds_add(struct creds *creds, const char *type, const struct opts *opts, struct err *err);

/* NULL: there are none. */
const struct cred *creds_find(const struct creds *creds, const char *id);

void creds_free(struct creds *creds);

#endif
