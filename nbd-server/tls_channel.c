// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A channel that is TLS over another channel.
 *
 * OpenSSL writes into `out`, which always takes everything; sending is then a matter of this file:
 * several records go out in one call, and OpenSSL never has to be told to try again. What was
 * encrypted is taken; while some of it has not gone, no more is.
 *
 * A client can make OpenSSL work without ever sending a byte of data (key updates, empty records). So
 * what is read without any data coming out is counted in `quiet`, and bounded.
 */
#include "nbd-server/tls_impl.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "base/bytes.h"

enum {
	RECORD = 16 << 10,         /* bytes of data in a record, at most */
	PIECE = 2 * RECORD,        /* bytes that are encrypted before they are sent */
	READ_AHEAD = 64 << 10,     /* bytes read at once */
	MAX_QUIET = 64 << 10,      /* bytes without data, in a connection */
	MAX_HANDSHAKE = 256 << 10, /* bytes of a handshake */
	MAX_OUT = 1 << 20,         /* never reached: bytes that wait to be sent */
	USER_SHOWN = 48,           /* bytes of a name in messages */
};

struct tls_channel {
	struct channel channel;
	struct channel *plain; /* owned */
	const struct tls *tls; /* borrowed */
	SSL *ssl;
	unsigned char *out; /* records to be sent: bytes [out_at, out_len) of room */
	size_t out_at, out_len, room;
	size_t quiet;              /* bytes read since there was data */
	bool up;                   /* the handshake is done, but for what is in out */
	bool eof;                  /* the client has closed the plain channel */
	bool fetched;              /* no more is to be read in this call */
	bool partial;              /* what OpenSSL has read is less than a record */
	int broken;                /* -errno: of the plain channel, or of ours; 0: none */
	char user[USER_SHOWN + 1]; /* who it says, or is known, to be; cleaned */
	bool stranger;             /* there is no such user */
};

static struct tls_channel *of(struct channel *c)
{
	return container_of(c, struct tls_channel, channel);
}

/* ---- OpenSSL's side ---- */

static int bio_write(BIO *bio, const char *data, size_t len, size_t *written)
{
	struct tls_channel *tc = BIO_get_data(bio);
	size_t end;

	if (!add_ok(tc->out_len, len, &end) || end > MAX_OUT) {
		tc->broken = -EPROTO;
		return 0;
	}
	if (end > tc->room) {
		size_t room = max_u64(end, tc->up ? PIECE + RECORD : 0);
		unsigned char *out = realloc(tc->out, room);

		if (!out) {
			tc->broken = -ENOMEM;
			return 0;
		}
		tc->out = out;
		tc->room = room;
	}
	memcpy(tc->out + tc->out_len, data, len);
	tc->out_len = end;
	*written = len;
	return 1;
}

static int bio_read(BIO *bio, char *data, size_t len, size_t *got)
{
	struct tls_channel *tc = BIO_get_data(bio);
	ssize_t n = -EAGAIN;

	BIO_clear_retry_flags(bio);
	if (tc->broken || tc->eof)
		return 0;
	if (tc->quiet >= (tc->up ? MAX_QUIET : MAX_HANDSHAKE))
		n = -EPROTO;
	else if (!tc->fetched)
		n = tc->plain->ops->recv(tc->plain, data, len);
	if (n > 0) {
		tc->quiet += (size_t)n;
		*got = (size_t)n;
		return 1;
	}
	if (n == 0)
		tc->eof = true;
	else if (n == -EAGAIN)
		BIO_set_retry_read(bio);
	else
		tc->broken = (int)n;
	return 0;
}

static long bio_ctrl(BIO *bio, int command, long arg, void *p)
{
	const struct tls_channel *tc = BIO_get_data(bio);

	(void)arg;
	(void)p;
	if (command == BIO_CTRL_EOF)
		return tc->eof;
	return command == BIO_CTRL_FLUSH; /* see flush */
}

BIO_METHOD *tls_channel_bio(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "channel");

	if (method && BIO_meth_set_write_ex(method, bio_write) &&
	    BIO_meth_set_read_ex(method, bio_read) && BIO_meth_set_ctrl(method, bio_ctrl))
		return method;
	BIO_meth_free(method);
	return NULL;
}

/* For messages: what a client, or who signed for it, calls it may be anything. */
static void show(char text[USER_SHOWN + 1], const char *name)
{
	size_t i;

	for (i = 0; name[i] && i < USER_SHOWN; i++)
		text[i] = name[i] >= ' ' && name[i] < 0x7f ? name[i] : '?';
	text[i] = '\0';
}

void tls_channel_user(SSL *ssl, const char *name, bool known)
{
	struct tls_channel *tc = SSL_get_app_data(ssl);

	if (!tc)
		return;
	tc->stranger = !known;
	show(tc->user, name);
}

/* ---- sending ---- */

/* 0: all is sent; -EAGAIN; -errno. */
static int flush(struct tls_channel *tc, bool more)
{
	while (tc->out_at < tc->out_len) {
		const struct iovec v = {tc->out + tc->out_at, tc->out_len - tc->out_at};
		ssize_t n = tc->plain->ops->send(tc->plain, &v, 1, more);

		if (n < 0) {
			tc->channel.waiting = POLLOUT;
			return (int)n;
		}
		tc->out_at += (size_t)n;
	}
	free(tc->out);
	tc->out = NULL;
	tc->out_at = tc->out_len = tc->room = 0;
	tc->channel.waiting = POLLIN;
	return 0;
}

/* What an SSL function has failed with, after the handshake. */
static int failure(const struct tls_channel *tc)
{
	ERR_clear_error();
	if (tc->broken)
		return tc->broken;
	return tc->eof ? -ECONNRESET : -EPROTO;
}

/* A walk through the bytes of a list of buffers. */
struct cursor {
	const struct iovec *v, *end;
	size_t at; /* of *v */
};

/* Bytes that lie together, at least one of them; 0: the end. */
static size_t span(struct cursor *c)
{
	while (c->v < c->end && c->at == c->v->iov_len) {
		c->v++;
		c->at = 0;
	}
	return c->v < c->end ? c->v->iov_len - c->at : 0;
}

static const unsigned char *here(const struct cursor *c)
{
	return (const unsigned char *)c->v->iov_base + c->at;
}

/* Fills a record out of several buffers: headers and small replies share one. */
static size_t gather(struct cursor *c, unsigned char *record)
{
	size_t n = 0, len;

	while (n < RECORD && (len = span(c)) > 0) {
		len = min_u64(len, RECORD - n);
		memcpy(record + n, here(c), len);
		c->at += len;
		n += len;
	}
	return n;
}

/* Encrypts up to PIECE bytes; how many: 0: there are none. Or -errno. */
static ssize_t encrypt(struct tls_channel *tc, struct cursor *c)
{
	unsigned char record[RECORD];
	size_t done = 0, len;

	while (done < PIECE && (len = span(c)) > 0) {
		const unsigned char *p = here(c);

		if (len >= RECORD) {
			len = min_u64(round_down(len, RECORD), round_up(PIECE - done, RECORD));
			c->at += len;
		} else {
			len = gather(c, record);
			p = record;
		}
		ERR_clear_error();
		if (SSL_write_ex(tc->ssl, p, len, &len) != 1)
			return failure(tc);
		done += len;
	}
	return (ssize_t)done;
}

static ssize_t tls_send(struct channel *c, const struct iovec *v, unsigned n, bool more)
{
	struct tls_channel *tc = of(c);
	struct cursor cursor = {v, v + n, 0};
	ssize_t len;
	int r = tc->broken ? tc->broken : flush(tc, true);

	if (r < 0)
		return r;
	len = encrypt(tc, &cursor);
	if (len <= 0)
		return len;
	r = flush(tc, more);
	return r < 0 && r != -EAGAIN ? r : len;
}

static int tls_flush(struct channel *c)
{
	return flush(of(c), false);
}

/* ---- receiving ---- */

/* One SSL_read, as channel_ops.recv. */
static ssize_t read_some(struct tls_channel *tc, void *buf, size_t len)
{
	size_t n = 0;
	int r;

	ERR_clear_error();
	if (SSL_read_ex(tc->ssl, buf, len, &n) == 1) {
		tc->quiet = 0;
		return (ssize_t)n;
	}
	r = SSL_get_error(tc->ssl, 0);
	if (r == SSL_ERROR_WANT_READ && !tc->broken)
		return -EAGAIN;
	if (r == SSL_ERROR_ZERO_RETURN) {
		ERR_clear_error();
		return 0;
	}
	r = failure(tc);
	tc->broken = r;
	return r;
}

static ssize_t tls_recv(struct channel *c, void *buf, size_t len)
{
	struct tls_channel *tc = of(c);
	size_t done = 0;
	ssize_t n;

	tc->partial = false;
	do {
		n = read_some(tc, (unsigned char *)buf + done, len - done);
		if (n > 0)
			done += (size_t)n;
		/* What has come with it, but no more: others want to be served, too. */
		tc->fetched = true;
	} while (n > 0 && done < len && SSL_has_pending(tc->ssl));
	tc->fetched = false;
	tc->partial = n == -EAGAIN;
	/* OpenSSL may have answered by itself (alerts). If that is stuck, it goes with what is next. */
	flush(tc, false);
	if (n == -EAGAIN)
		c->waiting = POLLIN;
	/* An error, or the end, comes again when it is asked for again. */
	return done ? (ssize_t)done : n;
}

static bool tls_pending(struct channel *c)
{
	struct tls_channel *tc = of(c);

	return SSL_pending(tc->ssl) > 0 || (SSL_has_pending(tc->ssl) && !tc->partial);
}

/* ---- handshake ---- */

/* Why it failed. */
static int refused(struct tls_channel *tc, struct err *err)
{
	const long verdict = tc->tls->verify ? SSL_get_verify_result(tc->ssl) : X509_V_OK;
	struct err why = {0};

	flush(tc, false); /* the alert; if it does not go out, it is lost */
	tc->channel.waiting = POLLIN;
	tls_error(&why, EPROTO, "TLS");
	if (tc->broken || tc->eof) {
		tc->broken = tc->broken ? tc->broken : -ECONNRESET;
		return err_sys(err, -tc->broken, "TLS handshake");
	}
	tc->broken = -EPROTO;
	if (verdict == X509_V_ERR_CERT_REJECTED)
		return err_set(err, EACCES,
			       "TLS: the certificate's name is not one of those allowed");
	if (verdict != X509_V_OK)
		return err_set(err, EACCES, "TLS: the client's certificate: %s",
			       X509_verify_cert_error_string(verdict));
	if (tc->stranger)
		return err_set(err, EACCES, "TLS: there is no user %s", tc->user);
	if (tc->user[0])
		return err_set(err, EPROTO, "%s (user %s)", why.msg, tc->user);
	return err_set(err, EPROTO, "%s", why.msg);
}

/* Adds who the client is to what messages call it. */
static void note_name(struct tls_channel *tc)
{
	const X509 *x = tc->tls->verify ? SSL_get0_peer_certificate(tc->ssl) : NULL;
	const size_t at = strlen(tc->channel.peer);
	char name[TLS_MAX_NAME];

	if (x && tls_name(X509_get_subject_name(x), name) == 0)
		show(tc->user, name);
	if (tc->user[0])
		snprintf(tc->channel.peer + at, sizeof(tc->channel.peer) - at, ", %s", tc->user);
}

/* What OpenSSL has judged is judged again, by what is there: nobody comes in by an oversight. */
static int admit(struct tls_channel *tc, struct err *err)
{
	const bool named =
		SSL_get0_peer_certificate(tc->ssl) && SSL_get_verify_result(tc->ssl) == X509_V_OK;

	if ((tc->tls->verify && !named) || (tc->tls->psk.n && (tc->stranger || !tc->user[0]))) {
		tc->broken = -EACCES;
		return err_set(err, EACCES, "TLS: the client did not say who it is");
	}
	note_name(tc);
	tc->up = true;
	tc->quiet = 0;
	SSL_set_read_ahead(tc->ssl, 1);
	SSL_set_default_read_buffer_len(tc->ssl, READ_AHEAD);
	return 0;
}

static int tls_handshake(struct channel *c, struct err *err)
{
	struct tls_channel *tc = of(c);
	int r = 0, sent;

	if (tc->broken)
		return err_sys(err, -tc->broken, "TLS handshake");
	if (!tc->up) {
		ERR_clear_error();
		r = SSL_do_handshake(tc->ssl);
		if (r != 1 && (SSL_get_error(tc->ssl, r) != SSL_ERROR_WANT_READ || tc->broken))
			return refused(tc, err);
		r = r == 1 ? admit(tc, err) : -EAGAIN;
		if (r < 0 && r != -EAGAIN)
			return r;
	}
	c->waiting = POLLIN;
	sent = flush(tc, false);
	if (sent < 0 && sent != -EAGAIN)
		return err_sys(err, -sent, "TLS handshake");
	return sent < 0 ? sent : r;
}

/* ---- life ---- */

static void tls_channel_close(struct channel *c)
{
	struct tls_channel *tc = of(c);

	if (tc->up && !tc->broken)
		SSL_shutdown(tc->ssl);
	/* Good-bye, or an alert; it is lost if the client does not read. */
	flush(tc, false);
	ERR_clear_error();
	SSL_free(tc->ssl);
	tc->plain->ops->close(tc->plain);
	free(tc->out);
	free(tc);
}

static const struct channel_ops tls_ops = {
	.name = "tls",
	.recv = tls_recv,
	.send = tls_send,
	.flush = tls_flush,
	.handshake = tls_handshake,
	.pending = tls_pending,
	.close = tls_channel_close,
};

int tls_start(struct tls *tls, struct channel **channel, struct err *err)
{
	struct channel *plain = *channel;
	struct tls_channel *tc = calloc(1, sizeof(*tc));
	SSL *ssl = SSL_new(tls->ctx);
	BIO *bio = BIO_new(tls->bio);

	if (!tc || !ssl || !bio) {
		free(tc);
		SSL_free(ssl);
		BIO_free(bio);
		ERR_clear_error();
		return err_nomem(err, sizeof(*tc), "TLS");
	}
	*tc = (struct tls_channel){.channel = *plain, .plain = plain, .tls = tls, .ssl = ssl};
	tc->channel.ops = &tls_ops;
	tc->channel.duplex = false;
	tc->channel.secure = true;
	tc->channel.waiting = POLLIN;
	BIO_set_data(bio, tc);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_app_data(ssl, tc);
	SSL_set_accept_state(ssl);
	*channel = &tc->channel;
	return 0;
}
