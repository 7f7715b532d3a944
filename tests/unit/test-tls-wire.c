// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nbd-server/tls: wires that are slow, narrow or broken, and clients that do not keep to the rules.
 *
 * link: -lssl -lcrypto
 */
#include "tlstest.h"

/* ---- the wire ---- */

static void bytes_may_come_one_by_one(void **state)
{
	struct err e;

	(void)state;
	use_certificates(true, NULL, 0);
	connect_ends(0);
	show_certificate("pki");
	ends.in.step = ends.out.step = 1;
	ends.in.hiccups = ends.out.hiccups = true;
	ok(shake(&e), &e);
	client_sends(3000);
	server_sends(3000);
	finish();
}

static void little_room_is_waited_for(void **state)
{
	struct err e;

	(void)state;
	use_psk();
	ends.psk_name = "bob";
	ends.psk_key = "bob-bob-bob-bob-bob-";
	connect_ends(0);
	ends.out.room = ends.in.room = 700;
	ok(shake(&e), &e);
	server_sends(1 << 20);
	client_sends(1 << 20);
	ends.out.hiccups = ends.in.hiccups = true;
	server_sends(100000);
	client_sends(100000);
	finish();
}

/* What was taken goes, whatever is asked for next. */
static void what_was_taken_goes(void **state)
{
	unsigned char text[] = "0123456789", got[32];
	const struct iovec all = {text, 10}, head = {text, 4};
	struct err e;
	size_t n;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(0);
	ok(shake(&e), &e);
	SSL_do_handshake(ends.client);
	ends.out.room = waiting(&ends.out) + 7;
	assert_int_equal(ends.server->ops->send(ends.server, &all, 1, false), 10);
	assert_int_equal(channel_flush(ends.server), -EAGAIN);
	assert_int_equal(ends.server->waiting, POLLOUT);
	/* No more, while there is no room. */
	assert_int_equal(ends.server->ops->send(ends.server, &head, 1, false), -EAGAIN);
	ends.out.room = SIZE_MAX;
	assert_int_equal(channel_flush(ends.server), 0);
	assert_int_equal(SSL_read_ex(ends.client, got, sizeof(got), &n), 1);
	assert_int_equal(n, 10);
	assert_memory_equal(got, "0123456789", 10);
	assert_int_equal(ends.server->ops->send(ends.server, &head, 1, false), 4);
	assert_int_equal(SSL_read_ex(ends.client, got, sizeof(got), &n), 1);
	assert_int_equal(n, 4);
	ends.out.closed = true;
	assert_int_equal(channel_flush(ends.server), 0);
	finish();
}

static void good_byes_are_said(void **state)
{
	struct err e;
	char c;
	size_t n;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(0);
	ok(shake(&e), &e);
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), -EAGAIN);
	SSL_shutdown(ends.client);
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), 0);
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), 0);
	hang_up();

	/* One that is just gone is gone, too. */
	connect_ends(0);
	ok(shake(&e), &e);
	ends.in.closed = true;
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), 0);
	/* The server's. */
	ends.server->ops->close(ends.server);
	assert_int_equal(SSL_read_ex(ends.client, &c, 1, &n), 0);
	assert_int_equal(SSL_get_error(ends.client, 0), SSL_ERROR_ZERO_RETURN);
	ends.server = NULL;
	finish();
}

static void wires_that_break_are_told(void **state)
{
	struct iovec v = {&v, sizeof(v)};
	struct err e;
	char c;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(0);
	ends.in.closed = true;
	fails(ends.server->ops->handshake(ends.server, &e), -ECONNRESET, &e, "TLS handshake: ");
	hang_up();

	connect_ends(0);
	ok(shake(&e), &e);
	ends.out.closed = true;
	assert_int_equal(ends.server->ops->send(ends.server, &v, 1, false), -EPIPE);
	hang_up();

	connect_ends(0);
	ok(shake(&e), &e);
	put(&ends.in, "GET / HTTP/1.0\r\n\r\n", 18);
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), -EPROTO);
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), -EPROTO);
	assert_int_equal(ends.server->ops->send(ends.server, &v, 1, false), -EPROTO);
	finish();
}

/* ---- rules ---- */

static void old_versions_and_weak_suites_are_refused(void **state)
{
	struct err e;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(TLS1_1_VERSION);
	SSL_set_security_level(ends.client, 0);
	assert_true(shake(&e) < 0);
	assert_non_null(strstr(e.msg, "unsupported protocol"));
	hang_up();
	connect_ends(TLS1_2_VERSION);
	SSL_set_cipher_list(ends.client, "AES128-SHA:ECDHE-ECDSA-AES128-SHA");
	fails(shake(&e), -EPROTO, &e, "no shared cipher");
	finish();
}

static void sessions_are_not_resumed(void **state)
{
	static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
	struct err e;

	(void)state;
	use_certificates(true, NULL, 0);
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		SSL_SESSION *session;
		size_t n;
		char c;

		connect_ends(versions[i]);
		show_certificate("pki");
		ok(shake(&e), &e);
		SSL_do_handshake(ends.client);
		/* Tickets would come here. */
		assert_int_equal(SSL_read_ex(ends.client, &c, 1, &n), 0);
		session = SSL_get1_session(ends.client);
		assert_false(SSL_SESSION_has_ticket(session));
		SSL_shutdown(ends.client);
		hang_up();

		connect_ends(versions[i]);
		SSL_set_session(ends.client, session);
		fails(shake(&e), -EPROTO, &e, "did not return a certificate");
		SSL_SESSION_free(session);
		hang_up();
	}
	tls_close(tls);
}

static void renegotiation_is_refused(void **state)
{
	struct err e;
	char c;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(TLS1_2_VERSION);
	ok(shake(&e), &e);
	SSL_do_handshake(ends.client);
	assert_int_equal(SSL_renegotiate(ends.client), 1);
	SSL_do_handshake(ends.client);
	assert_true(waiting(&ends.in) > 0);
	/* A warning goes back, and nothing else happens. */
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), -EAGAIN);
	assert_true(waiting(&ends.out) > 0 && waiting(&ends.out) < 100);
	finish();
}

/* One that keeps us busy with nothing. */
static void endless_key_updates_are_cut_off(void **state)
{
	struct err e;
	ssize_t r = -EAGAIN;
	char c;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(TLS1_3_VERSION);
	ok(shake(&e), &e);
	SSL_do_handshake(ends.client);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(SSL_key_update(ends.client, SSL_KEY_UPDATE_REQUESTED), 1);
		SSL_do_handshake(ends.client);
	}
	assert_int_equal(ends.server->ops->recv(ends.server, &c, 1), -EAGAIN);
	server_sends(1000);
	for (int i = 0; i < 6000 && r == -EAGAIN; i++) {
		SSL_key_update(ends.client, SSL_KEY_UPDATE_NOT_REQUESTED);
		SSL_do_handshake(ends.client);
		r = ends.server->ops->recv(ends.server, &c, 1);
	}
	assert_int_equal(r, -EPROTO);
	finish();
}

static void garbage_is_not_a_handshake(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *message;
	} cases[] = {
		{"IHAVEOPT\0\0\0\7\0\0\0\0", 16, "TLS: "},
		{"GET / HTTP/1.1\r\n", 16, "TLS: http request"},
		/* A ClientHello that says that it is the longest possible. */
		{"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03", 11, NULL},
		{"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10, "TLS: "},
		{"\x17\x03\x03\x00\x01\x00", 6, "TLS: "},
		{"\x15\x03\x01\x00\x02\x02\x28", 7, "TLS: "},
	};
	struct err e;

	(void)state;
	use_certificates(false, NULL, 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int r;

		connect_ends(0);
		put(&ends.in, cases[i].bytes, cases[i].len);
		e = (struct err){0};
		r = ends.server->ops->handshake(ends.server, &e);
		if (cases[i].message)
			assert_true(r < 0 && r != -EAGAIN && strstr(e.msg, cases[i].message));
		else
			assert_int_equal(r, -EAGAIN);
		hang_up();
	}
	tls_close(tls);
}

/* As long a hello as the record layer lets through, again and again: it has to end. */
static void endless_handshakes_are_cut_off(void **state)
{
	static const unsigned char empty[] = {0x16, 0x03, 0x01, 0x00, 0x00};
	unsigned char record[5 + (16 << 10)] = {0x16, 0x03, 0x01, 0x40, 0x00,
						0x01, 0x01, 0xff, 0xff};
	size_t sent = 0;
	struct err e = {0};
	int r = -EAGAIN;

	(void)state;
	use_certificates(false, NULL, 0);
	connect_ends(0);
	while (r == -EAGAIN && sent < MiB) {
		put(&ends.in, record, sizeof(record));
		sent += sizeof(record);
		r = ends.server->ops->handshake(ends.server, &e);
	}
	assert_true(r < 0 && r != -EAGAIN);
	hang_up();
	connect_ends(0);
	for (r = -EAGAIN, sent = 0; r == -EAGAIN && sent < MiB; sent += sizeof(empty)) {
		put(&ends.in, empty, sizeof(empty));
		r = ends.server->ops->handshake(ends.server, &e);
	}
	assert_true(r < 0 && r != -EAGAIN);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_may_come_one_by_one),
		cmocka_unit_test(little_room_is_waited_for),
		cmocka_unit_test(what_was_taken_goes),
		cmocka_unit_test(good_byes_are_said),
		cmocka_unit_test(wires_that_break_are_told),
		cmocka_unit_test(old_versions_and_weak_suites_are_refused),
		cmocka_unit_test(sessions_are_not_resumed),
		cmocka_unit_test(renegotiation_is_refused),
		cmocka_unit_test(endless_key_updates_are_cut_off),
		cmocka_unit_test(garbage_is_not_a_handshake),
		cmocka_unit_test(endless_handshakes_are_cut_off),
	};

	return run_tls_tests("tls-wire", tests, ARRAY_LEN(tests));
}
