// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What TLS of this server is: versions, suites, who may come in; see tls.h. RFC 8446, RFC 5246,
 * RFC 4279.
 *
 * There is no resumption of sessions, so every connection shows a certificate, or knows a key, itself.
 */
#include "nbd-server/tls_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* TLS 1.2: ephemeral keys and authenticated encryption only. */
#define SUITES_X509 "ECDHE+AESGCM:ECDHE+CHACHA20"
/* There is no AES-GCM with ECDHE and pre-shared keys in OpenSSL 3.0. */
#define SUITES_PSK                                                       \
	"ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES128-GCM-SHA256:DHE-PSK-" \
	"AES256-GCM-SHA384:DHE-PSK-CHACHA20-POLY1305"
/* TLS 1.3. The first is the fastest, and good enough for all that a disk may hold. */
#define SUITES_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

enum { MAX_CERTIFICATES = 64 << 10 }; /* bytes, of a client */

int tls_error(struct err *err, int code, const char *what)
{
	/* The first is the cause, the others are who passed it on. */
	const unsigned long e = ERR_get_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	if (ERR_SYSTEM_ERROR(e))
		reason = strerror(ERR_GET_REASON(e));
	return err_set(err, code, "%s: %s", what, reason ? reason : "not understood");
}

/* ---- who may come in ---- */

static bool is_allowed(const struct tls *tls, const X509 *certificate)
{
	char name[TLS_MAX_NAME];

	if (tls_name(X509_get_subject_name(certificate), name) < 0)
		return false;
	for (unsigned i = 0; i < tls->n_allowed; i++) {
		if (tls_name_matches(tls->allowed[i], name))
			return true;
	}
	return tls->n_allowed == 0;
}

/* OpenSSL asks for each certificate of a client's chain, the client's own last. */
static int judge(int fine, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	if (!fine || X509_STORE_CTX_get_error_depth(store) > 0 ||
	    is_allowed(tls, X509_STORE_CTX_get_current_cert(store)))
		return fine;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
	return 0;
}

/*
 * The key of a user. OpenSSL asks here for TLS 1.2 and, as there is no other callback, for TLS 1.3,
 * with SHA-256, which is what GnuTLS uses. A stranger gets a key that nobody knows: what it sees does
 * not tell whether the name or the key was wrong.
 */
static unsigned give_key(SSL *ssl, const char *name, unsigned char *key, unsigned room)
{
	const struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const struct psk_user *user = psk_find(&tls->psk, name ? name : "");
	const unsigned char *from = user ? user->key : tls->psk.nobody;
	size_t len = user ? user->key_len : sizeof(tls->psk.nobody);

	tls_channel_user(ssl, name ? name : "", user);
	if (len > room)
		return 0;
	memcpy(key, from, len);
	return (unsigned)len;
}

/* ---- the context ---- */

/* Suites, and the means to prove who is who. */
static int set_credentials(struct tls *tls, const struct tls_args *args, struct err *err)
{
	const bool psk = args->psk_file;
	int r;

	if (SSL_CTX_set_cipher_list(tls->ctx, psk ? SUITES_PSK : SUITES_X509) != 1 ||
	    SSL_CTX_set_ciphersuites(tls->ctx, SUITES_13) != 1)
		return tls_error(err, ENOTSUP, "TLS: the cipher suites");
	if (psk) {
		r = psk_open(args, &tls->psk, err);
		SSL_CTX_set_psk_server_callback(tls->ctx, give_key);
		SSL_CTX_set_dh_auto(tls->ctx, 1);
		return r;
	}
	r = tls_load(tls->ctx, args, err);
	if (r == 0 && args->verify) {
		tls->verify = true;
		SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
				   judge);
	}
	return r;
}

static int set_rules(SSL_CTX *ctx, struct err *err)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS |
				      SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_max_cert_list(ctx, MAX_CERTIFICATES);
	/* The system's policy may be stricter. */
	if (SSL_CTX_get_security_level(ctx) < 2)
		SSL_CTX_set_security_level(ctx, 2);
	if (SSL_CTX_get_min_proto_version(ctx) < TLS1_2_VERSION &&
	    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
		return tls_error(err, ENOTSUP, "TLS 1.2");
	if (SSL_CTX_set_num_tickets(ctx, 0) != 1)
		return tls_error(err, ENOTSUP, "TLS: sessions");
	return 0;
}

/* ---- a handshake with itself ---- */

static unsigned use_first_key(SSL *ssl, const char *hint, char *name, unsigned name_room,
			      unsigned char *key, unsigned key_room)
{
	const struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const struct psk_user *user = &tls->psk.users[0];

	(void)hint;
	if (user->name_len >= name_room || user->key_len > key_room)
		return 0;
	memcpy(name, user->name, user->name_len);
	name[user->name_len] = '\0';
	memcpy(key, user->key, user->key_len);
	return (unsigned)user->key_len;
}

/* Goes on as far as is possible; whether it may end well. */
static bool step(SSL *ssl, bool *done)
{
	int r = SSL_do_handshake(ssl);

	*done = r == 1;
	return *done || SSL_get_error(ssl, r) == SSL_ERROR_WANT_READ;
}

/* Both sides take turns until both are done, or nothing more happens. */
static bool shake_hands(SSL *server, SSL *client)
{
	bool client_done = false, server_done = false;

	for (int turn = 0; turn < 16 && !(client_done && server_done); turn++) {
		if (!step(client, &client_done) || !step(server, &server_done))
			return false;
	}
	return client_done && server_done;
}

static bool connect_both(SSL *server, SSL *client)
{
	BIO *to_server = BIO_new(BIO_s_mem()), *to_client = BIO_new(BIO_s_mem());

	if (!to_server || !to_client || !BIO_up_ref(to_server) || !BIO_up_ref(to_client)) {
		BIO_free(to_server);
		BIO_free(to_client);
		return false;
	}
	BIO_set_mem_eof_return(to_server, -1);
	BIO_set_mem_eof_return(to_client, -1);
	SSL_set_bio(server, to_server, to_client);
	SSL_set_bio(client, to_client, to_server);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	return true;
}

/*
 * Shows that what was loaded serves, and makes OpenSSL load what it loads only when it is needed: in a
 * sandbox it could not.
 */
static int warm_up(struct tls *tls, const struct tls_args *args, struct err *err)
{
	const char *what = args->psk_file ? args->psk_file : args->directory;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *client = ctx ? SSL_new(ctx) : NULL, *server = SSL_new(tls->ctx);
	int r = 0;

	if (client && server && connect_both(server, client)) {
		SSL_CTX_set_app_data(ctx, tls);
		SSL_set_verify(server, SSL_VERIFY_NONE, NULL);
		if (tls->psk.n)
			SSL_set_psk_client_callback(client, use_first_key);
		if (!shake_hands(server, client))
			r = tls_error(err, EINVAL, what);
	} else {
		r = tls_error(err, ENOMEM, what);
	}
	SSL_free(client);
	SSL_free(server);
	SSL_CTX_free(ctx);
	return r < 0 ? err_ctx(err, r, "no TLS handshake is possible") : 0;
}

/* ---- opening ---- */

static int check_args(const struct tls_args *args, struct err *err)
{
	assert(!args->directory != !args->psk_file);
	if (args->psk_file && args->verify)
		return err_set(err, EINVAL,
			       "TLS: clients have pre-shared keys, or certificates that are "
			       "verified, not both");
	if (args->n_allowed && !args->verify)
		return err_set(err, EINVAL,
			       "TLS: names of clients are known only if their certificates are "
			       "verified");
	return 0;
}

static int copy_allowed(struct tls *tls, const struct tls_args *args, struct err *err)
{
	if (!args->n_allowed)
		return 0;
	tls->allowed = calloc(args->n_allowed, sizeof(*tls->allowed));
	for (unsigned i = 0; tls->allowed && i < args->n_allowed; i++) {
		tls->allowed[i] = strdup(args->allowed[i]);
		if (!tls->allowed[i])
			return err_nomem(err, strlen(args->allowed[i]), "a name");
		tls->n_allowed++;
	}
	return tls->allowed ? 0 : err_nomem(err, args->n_allowed, "names");
}

static int open_context(struct tls *tls, const struct tls_args *args, struct err *err)
{
	int r;

	tls->ctx = SSL_CTX_new(TLS_server_method());
	if (!tls->ctx)
		return tls_error(err, ENOMEM, "TLS");
	SSL_CTX_set_app_data(tls->ctx, tls);
	r = set_rules(tls->ctx, err);
	if (r == 0)
		r = set_credentials(tls, args, err);
	if (r == 0)
		r = warm_up(tls, args, err);
	return r;
}

int tls_open(const struct tls_args *args, struct tls **out, struct err *err)
{
	struct tls *tls;
	int r = check_args(args, err);

	if (r < 0)
		return r;
	ERR_clear_error();
	tls = calloc(1, sizeof(*tls));
	if (!tls)
		return err_nomem(err, sizeof(*tls), "TLS");
	tls->bio = tls_channel_bio();
	r = tls->bio ? copy_allowed(tls, args, err) : err_nomem(err, 0, "TLS");
	if (r == 0)
		r = open_context(tls, args, err);
	if (r < 0) {
		tls_close(tls);
		return r;
	}
	*out = tls;
	return 0;
}

void tls_close(struct tls *tls)
{
	if (!tls)
		return;
	for (unsigned i = 0; i < tls->n_allowed; i++)
		free(tls->allowed[i]);
	free(tls->allowed);
	SSL_CTX_free(tls->ctx);
	BIO_meth_free(tls->bio);
	psk_close(&tls->psk);
	free(tls);
}
