/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS for clients, by OpenSSL: TLS 1.2 and 1.3, X.509 certificates or pre-shared keys. Files have the
 * names and layouts that the peers use, so that a directory made for QEMU or nbdkit works.
 */
#ifndef IMGKIT_NBD_TLS_H
#define IMGKIT_NBD_TLS_H

#include <stdbool.h>

#include "base/err.h"
#include "nbd-server/channel.h"

struct tls;

struct tls_args {
	/* X.509: server-cert.pem, server-key.pem, and for verify ca-cert.pem (ca-crl.pem) */
	const char *directory;
	const char *psk_file; /* lines NAME:HEX; one of the two is given */
	bool verify;          /* clients must have a certificate that the CA signed */
	/*
	 * With verify: who may come in, patterns for the distinguished name as in RFC 4514
	 * ("CN=alice,O=Example,C=GB"). Of fnmatch within one attribute; an attribute "*" stands for any
	 * number of them. None: all whom the CA signed.
	 */
	const char *const *allowed;
	unsigned n_allowed;
	/* Hears of secrets that others can read; or NULL. */
	void (*warn)(void *ctx, const char *text);
	void *warn_ctx;
};

/*
 * Reads all files, and makes a handshake with itself: nothing is read or loaded any more later, so a
 * sandbox may follow. -ENOENT, -EACCES, -EINVAL (broken, expired, keys that do not fit) with the
 * file's name.
 */
int tls_open(const struct tls_args *args, struct tls **out, struct err *err);
void tls_close(struct tls *tls);

/*
 * The server's side of TLS over a plain channel, which it owns from now on and becomes: *channel is
 * changed. The caller drives ops->handshake until it is done.
 */
int tls_start(struct tls *tls, struct channel **channel, struct err *err);

#endif
