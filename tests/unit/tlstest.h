/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the tests of nbd-server/tls: a server's channel and a client (OpenSSL's) at the ends of a wire in
 * memory that delivers as little, or as late, as the test wants; and the files that they need.
 */
#ifndef IMGKIT_TESTS_UNIT_TLSTEST_H
#define IMGKIT_TESTS_UNIT_TLSTEST_H

#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/bytes.h"
#include "nbd-server/tls_impl.h"

struct wire {
	unsigned char *data;
	size_t at, len;
	size_t step;  /* bytes per call, at most */
	size_t room;  /* bytes that fit, of those that nobody has read */
	bool hiccups; /* every second call finds nothing */
	unsigned puts, gets;
	bool closed;
};

extern struct ends {
	struct wire in, out; /* as the server sees it */
	struct channel *server;
	bool server_closed;
	SSL_CTX *ctx;
	SSL *client;
	const char *psk_name, *psk_key; /* of the client; NULL: certificates */
} ends;

extern struct tls *tls;   /* what the test has opened */
extern struct err warned; /* by it */

size_t waiting(const struct wire *w);
ssize_t put(struct wire *w, const void *data, size_t len);
ssize_t get(struct wire *w, void *data, size_t len);

/* A client of this version, 0: any; nothing has been said yet. */
void connect_ends(int version);
/* It has the certificate of a directory. */
void show_certificate(const char *directory);
/* Both sides go on until the server is done or fails; what it says. */
int shake(struct err *e);
/* One side sends len bytes, the other reads and compares them. */
void server_sends(size_t len);
void client_sends(size_t len);
void hang_up(void);
/* hang_up and tls_close. */
void finish(void);

#define KEY_A "616c6963652d616c6963652d616c6963652d"     /* "alice-alice-alice-" */
#define KEY_B "626f622d626f622d626f622d626f622d626f622d" /* "bob-bob-bob-bob-bob-" */

/* tls_open of a file of keys with this text. */
int open_psk(const char *text, mode_t mode, struct err *e);
/* Of alice and bob. */
void use_psk(void);
/* Of the directory pki. */
void use_certificates(bool verify, const char *const *allowed, unsigned n);

/*
 * Directories: pki (server and client), other (of another authority), old and new (server, not valid any
 * more, or yet); crl.pem (has pki's client), oldcrl.pem (expired).
 */
int run_tls_tests(const char *name, const struct CMUnitTest *tests, size_t n);

#endif
