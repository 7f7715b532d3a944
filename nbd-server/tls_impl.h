/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the server's TLS share: tls.c, tls_files.c, tls_psk.c, tls_names.c, tls_channel.c. */
#ifndef IMGKIT_NBD_TLS_IMPL_H
#define IMGKIT_NBD_TLS_IMPL_H

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "nbd-server/tls.h"

/* ---- files ---- */

#define TLS_MAX_FILE (1u << 20) /* bytes */

/* A file in memory that is kept out of swap where the system permits it, and wiped when freed. */
struct tls_file {
	char *path; /* owned: for messages */
	char *text; /* owned; a 0 byte follows */
	size_t len;
};

/* path: NULL, or the directory of name. secret: others should not be able to read it. */
int tls_file_read(const struct tls_args *args, const char *directory, const char *name, bool secret,
		  struct tls_file *file, struct err *err);
void tls_file_free(struct tls_file *file);

/* The certificates, the key and the lists of args->directory, into a context. */
int tls_load(SSL_CTX *ctx, const struct tls_args *args, struct err *err);

/* ---- pre-shared keys ---- */

struct psk_user {
	const char *name; /* in the file's text, and the key too */
	size_t name_len;
	const unsigned char *key;
	size_t key_len;
};
struct psk {
	struct tls_file file;
	struct psk_user *users; /* owned */
	unsigned n;
	unsigned char
		nobody[32]; /* the key of users that are not there, so that they look the same */
};

int psk_open(const struct tls_args *args, struct psk *psk, struct err *err);
void psk_close(struct psk *psk);
/* NULL: there is no such user. Takes as long for all names of a length. */
const struct psk_user *psk_find(const struct psk *psk, const char *name);

/* ---- names ---- */

/* A distinguished name as RFC 4514 has it, escaped, in UTF-8. -EINVAL: too long, or broken. */
#define TLS_MAX_NAME 2048
int tls_name(const X509_NAME *name, char text[TLS_MAX_NAME]);
/* Whether a pattern of tls_args.allowed means the name. */
bool tls_name_matches(const char *pattern, const char *name);

/* ---- all of it ---- */

struct tls {
	SSL_CTX *ctx;
	BIO_METHOD *bio; /* of channels */
	bool verify;
	char **allowed; /* owned */
	unsigned n_allowed;
	struct psk psk; /* n 0: certificates */
};

/* Sets the text to what OpenSSL says is wrong, after "what: ", and empties its queue. Returns -code. */
int tls_error(struct err *err, int code, const char *what);

/* How SSLs read and write channels. NULL: no memory. */
BIO_METHOD *tls_channel_bio(void);

/* Of the connection that an SSL belongs to, NULL: of none: who the client says that it is. */
void tls_channel_user(SSL *ssl, const char *name, bool known);

#endif
