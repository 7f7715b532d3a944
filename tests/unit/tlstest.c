// SPDX-License-Identifier: GPL-2.0-or-later
/* What the tests of nbd-server/tls share; see tlstest.h. */
#include "tlstest.h"

#include <fcntl.h>
#include <sys/stat.h>

/* ---- a wire ---- */

size_t waiting(const struct wire *w)
{
	return w->len - w->at;
}

ssize_t put(struct wire *w, const void *data, size_t len)
{
	len = min_u64(min_u64(len, w->step), w->room - waiting(w));
	if ((w->hiccups && w->puts++ % 2 == 0) || len == 0)
		return -EAGAIN;
	w->data = realloc(w->data, w->len + len);
	assert_non_null(w->data);
	memcpy(w->data + w->len, data, len);
	w->len += len;
	return (ssize_t)len;
}

ssize_t get(struct wire *w, void *data, size_t len)
{
	len = min_u64(min_u64(len, w->step), waiting(w));
	if (len == 0 && w->closed)
		return 0;
	if ((w->hiccups && w->gets++ % 2 == 0) || len == 0)
		return -EAGAIN;
	memcpy(data, w->data + w->at, len);
	w->at += len;
	return (ssize_t)len;
}

/* ---- both ends ---- */

struct ends ends;
struct tls *tls;
struct err warned;

static ssize_t wire_recv(struct channel *c, void *data, size_t len)
{
	(void)c;
	return get(&ends.in, data, len);
}

static ssize_t wire_send(struct channel *c, const struct iovec *v, unsigned n, bool more)
{
	(void)c;
	(void)more;
	assert_true(n >= 1);
	if (ends.out.closed)
		return -EPIPE;
	return put(&ends.out, v->iov_base, v->iov_len);
}

static void wire_close(struct channel *c)
{
	ends.server_closed = true;
	free(c);
}

static const struct channel_ops wire_ops = {
	.name = "wire", .recv = wire_recv, .send = wire_send, .close = wire_close};

static int client_read(BIO *bio, char *data, size_t len, size_t *got)
{
	ssize_t n = get(&ends.out, data, len);

	BIO_clear_retry_flags(bio);
	if (n == -EAGAIN)
		BIO_set_retry_read(bio);
	*got = n > 0 ? (size_t)n : 0;
	return n > 0;
}

static int client_write(BIO *bio, const char *data, size_t len, size_t *written)
{
	ssize_t n = put(&ends.in, data, len);

	BIO_clear_retry_flags(bio);
	if (n == -EAGAIN)
		BIO_set_retry_write(bio);
	*written = n > 0 ? (size_t)n : 0;
	return n > 0;
}

static long client_ctrl(BIO *bio, int command, long arg, void *p)
{
	(void)bio;
	(void)arg;
	(void)p;
	return command == BIO_CTRL_FLUSH;
}

static unsigned client_psk(SSL *ssl, const char *hint, char *name, unsigned room,
			   unsigned char *key, unsigned key_room)
{
	size_t n = strlen(ends.psk_key);

	(void)ssl;
	(void)hint;
	assert_true(strlen(ends.psk_name) < room && n <= key_room);
	strcpy(name, ends.psk_name);
	memcpy(key, ends.psk_key, n);
	return (unsigned)n;
}

static BIO_METHOD *client_bio;

/* A client of this version, 0: any; nothing has been said yet. */
void connect_ends(int version)
{
	struct err e = {0};
	BIO *bio;

	/* What a test that failed has left. */
	ends = (struct ends){.psk_name = ends.psk_name, .psk_key = ends.psk_key};
	ends.in.step = ends.out.step = ends.in.room = ends.out.room = SIZE_MAX;
	ends.server = calloc(1, sizeof(*ends.server));
	assert_non_null(ends.server);
	*ends.server = (struct channel){.ops = &wire_ops, .in = -1, .out = -1, .duplex = true};
	strcpy(ends.server->peer, "test");
	ok(tls_start(tls, &ends.server, &e), &e);

	ends.ctx = SSL_CTX_new(TLS_client_method());
	assert_non_null(ends.ctx);
	SSL_CTX_set_min_proto_version(ends.ctx, version);
	SSL_CTX_set_max_proto_version(ends.ctx, version);
	if (ends.psk_name) {
		SSL_CTX_set_psk_client_callback(ends.ctx, client_psk);
		SSL_CTX_set_cipher_list(ends.ctx, "PSK");
	}
	ends.client = SSL_new(ends.ctx);
	bio = BIO_new(client_bio);
	assert_non_null(bio);
	BIO_set_init(bio, 1);
	SSL_set_bio(ends.client, bio, bio);
	SSL_set_connect_state(ends.client);
}

void hang_up(void)
{
	if (ends.server)
		ends.server->ops->close(ends.server);
	assert_true(ends.server_closed);
	SSL_free(ends.client);
	SSL_CTX_free(ends.ctx);
	free(ends.in.data);
	free(ends.out.data);
	ERR_clear_error();
	ends = (struct ends){0};
}

/* Both sides go on until the server is done or fails; what it says. */
int shake(struct err *e)
{
	*e = (struct err){0};
	for (int i = 0; i < 200000; i++) {
		int c = SSL_do_handshake(ends.client),
		    r = ends.server->ops->handshake(ends.server, e);

		if (r != -EAGAIN)
			return r;
		assert_true(ends.server->waiting == POLLIN || ends.server->waiting == POLLOUT);
		/* The client may fail first: it leaves. */
		if (c <= 0 && SSL_get_error(ends.client, c) == SSL_ERROR_SSL)
			ends.in.closed = true;
	}
	fail_msg("a handshake without an end");
	return 0;
}

/* The server sends what it can of a message of len bytes in pieces, the client reads and compares. */
void server_sends(size_t len)
{
	unsigned char *message = malloc(len), *got = malloc(len);
	size_t sent = 0, have = 0, n;

	for (size_t i = 0; i < len; i++)
		message[i] = (unsigned char)(i * 31 + i / 253);
	while (have < len) {
		if (sent < len) {
			/* A header, a little data, the rest. */
			const size_t cut[3] = {min_u64(28, len - sent),
					       min_u64(5000, len - sent - min_u64(28, len - sent)),
					       0};
			const struct iovec v[3] = {{message + sent, cut[0]},
						   {message + sent + cut[0], cut[1]},
						   {message + sent + cut[0] + cut[1],
						    len - sent - cut[0] - cut[1]}};
			ssize_t r = ends.server->ops->send(ends.server, v, 3, false);

			if (r == -EAGAIN)
				assert_int_equal(ends.server->waiting, POLLOUT);
			else
				assert_true(r > 0 && (size_t)r <= len - sent);
			sent += r > 0 ? (size_t)r : 0;
		} else {
			channel_flush(ends.server);
		}
		if (SSL_read_ex(ends.client, got + have, len - have, &n) == 1)
			have += n;
	}
	assert_int_equal(sent, len);
	assert_memory_equal(message, got, len);
	free(message);
	free(got);
}

void client_sends(size_t len)
{
	unsigned char *message = malloc(len), *got = malloc(len);
	size_t sent = 0, have = 0, n;

	for (size_t i = 0; i < len; i++)
		message[i] = (unsigned char)(i * 7 + i / 251);
	while (have < len) {
		ssize_t r;

		if (sent < len && SSL_write_ex(ends.client, message + sent, len - sent, &n) == 1)
			sent += n;
		r = ends.server->ops->recv(ends.server, got + have, len - have);
		if (r == -EAGAIN) {
			assert_int_equal(ends.server->waiting, POLLIN);
			/* Or poll would wait for what is there already. */
			assert_false(ends.server->ops->pending(ends.server));
		} else {
			assert_true(r > 0 && (size_t)r <= len - have);
		}
		have += r > 0 ? (size_t)r : 0;
	}
	assert_memory_equal(message, got, len);
	free(message);
	free(got);
}

/* ---- files ---- */

static void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	fchmod(fd, mode);
	close(fd);
}

static void warn(void *ctx, const char *text)
{
	assert_ptr_equal(ctx, &warned);
	err_set(&warned, 1, "%s", text);
}

int open_psk(const char *text, mode_t mode, struct err *e)
{
	const struct tls_args args = {.psk_file = "keys", .warn = warn, .warn_ctx = &warned};

	warned = (struct err){0};
	write_file("keys", text, mode);
	return tls_open(&args, &tls, e);
}

void use_psk(void)
{
	struct err e = {0};

	ok(open_psk("alice:" KEY_A "\nbob:" KEY_B "\n", 0600, &e), &e);
}

void use_certificates(bool verify, const char *const *allowed, unsigned n)
{
	const struct tls_args args = {
		.directory = "pki", .verify = verify, .allowed = allowed, .n_allowed = n};
	struct err e = {0};

	ok(tls_open(&args, &tls, &e), &e);
}

void show_certificate(const char *directory)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/client-cert.pem", directory);
	assert_int_equal(SSL_use_certificate_file(ends.client, path, SSL_FILETYPE_PEM), 1);
	snprintf(path, sizeof(path), "%s/client-key.pem", directory);
	assert_int_equal(SSL_use_PrivateKey_file(ends.client, path, SSL_FILETYPE_PEM), 1);
}

void finish(void)
{
	hang_up();
	tls_close(tls);
	tls = NULL;
}

static int make_files(void **state)
{
	char command[1024];

	(void)state;
	snprintf(command, sizeof(command),
		 "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='%s/tests/lib' python3 -c \"\n"
		 "from certificates import Authority\n"
		 "old, new = ('20200101000000Z', '20200102000000Z'), ('29000101000000Z', "
		 "'29010101000000Z')\n"
		 "ca = Authority('ca')\n"
		 "ca.server('pki'); ca.client('pki')\n"
		 "ca.server('old', old); ca.server('new', new)\n"
		 "Authority('ca2').client('other')\n"
		 "ca.revocations('oldcrl.pem', old)\n"
		 "ca.revoke('pki/client-cert.pem'); ca.revocations('crl.pem')\n\"",
		 getenv("TOP") ? getenv("TOP") : ".");
	client_bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
	BIO_meth_set_read_ex(client_bio, client_read);
	BIO_meth_set_write_ex(client_bio, client_write);
	BIO_meth_set_ctrl(client_bio, client_ctrl);
	return system(command);
}

static int free_files(void **state)
{
	(void)state;
	BIO_meth_free(client_bio);
	return 0;
}

int run_tls_tests(const char *name, const struct CMUnitTest *tests, size_t n)
{
	if (system("openssl version >/dev/null 2>&1") != 0) {
		puts("no openssl");
		return 77;
	}
	return _cmocka_run_group_tests(name, tests, n, make_files, free_files);
}
