// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nbd-server/tls: who may come in, and what is wrong with files. Other clients than OpenSSL are in
 * tests/interop/nbd-tls.py.
 *
 * link: -lssl -lcrypto
 */
#include "tlstest.h"

/* ---- pre-shared keys ---- */

static void keys_let_their_users_in(void **state)
{
	static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
	struct err e;

	(void)state;
	use_psk();
	assert_int_equal(warned.code, 0);
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		ends.psk_name = "alice";
		ends.psk_key = "alice-alice-alice-";
		connect_ends(versions[i]);
		ok(shake(&e), &e);
		assert_string_equal(ends.server->peer, "test, alice");
		assert_true(ends.server->secure);
		assert_false(ends.server->duplex);
		server_sends(200000);
		client_sends(200000);
		assert_int_equal(SSL_version(ends.client), versions[i]);
		hang_up();
	}
	tls_close(tls);
}

static void other_keys_and_users_do_not(void **state)
{
	static const struct {
		int version;
		const char *name, *key, *message;
	} cases[] = {
		{TLS1_3_VERSION, "alice", "bob-bob-bob-bob-bob-", "(user alice)"},
		{TLS1_2_VERSION, "alice", "bob-bob-bob-bob-bob-", "(user alice)"},
		{TLS1_3_VERSION, "eve", "alice-alice-alice-", "TLS: there is no user eve"},
		{TLS1_2_VERSION, "eve\n\x1b[2J", "alice-alice-alice-",
		 "TLS: there is no user eve??[2J"},
		{TLS1_3_VERSION, "alic", "alice-alice-alice-", "TLS: there is no user alic"},
		{0, NULL, NULL, "TLS: no suitable signature algorithm"},
		{TLS1_2_VERSION, NULL, NULL, "TLS: no shared cipher"},
	};
	struct err e;

	(void)state;
	use_psk();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		ends.psk_name = cases[i].name;
		ends.psk_key = cases[i].key;
		connect_ends(cases[i].version);
		assert_true(shake(&e) < 0);
		if (!strstr(e.msg, cases[i].message))
			fail_msg("%zu: \"%s\" lacks \"%s\"", i, e.msg, cases[i].message);
		/* It stays so. */
		assert_true(ends.server->ops->handshake(ends.server, &e) < 0);
		assert_true(ends.server->ops->recv(ends.server, &e, sizeof(e)) < 0);
		hang_up();
	}
	tls_close(tls);
}

/* What a stranger sees is what one with a wrong key sees. */
static void strangers_do_not_learn_names(void **state)
{
	static const char *const names[] = {"alice", "eve"};
	unsigned long seen[2] = {0};
	struct err e;

	(void)state;
	use_psk();
	for (int i = 0; i < 2; i++) {
		ends.psk_name = names[i];
		ends.psk_key = "wrong-wrong-wrong-";
		connect_ends(TLS1_3_VERSION);
		assert_true(shake(&e) < 0);
		ERR_clear_error();
		assert_int_equal(SSL_do_handshake(ends.client), -1);
		seen[i] = ERR_get_error();
		hang_up();
	}
	assert_int_not_equal(seen[0], 0);
	assert_int_equal(seen[0], seen[1]);
	tls_close(tls);
}

static void key_files_are_checked(void **state)
{
	static const struct {
		const char *text, *message;
	} bad[] = {
		{"", "keys: no keys in it"},
		{"\n\n", "keys: no keys in it"},
		{"alice\n", "keys: line 1: not NAME:KEY"},
		{"\nalice:" KEY_A "\nbob:12345\n", "keys: line 3: the key is not in hexadecimal"},
		{"alice:0011223344556677889900112233445x", "line 1: the key is not in hex"},
		{"alice:00112233445566778899aabbccddee", "line 1: a key has 16 to 64 bytes"},
		{"alice:" KEY_A KEY_A KEY_A KEY_A, "line 1: a key has 16 to 64 bytes"},
		{":" KEY_A, "line 1: a name has 1 to 128 bytes"},
		{"#:" KEY_A, "line 1: a name has 1 to 128 bytes"},
		{"#6100:" KEY_A, "none of them 0"},
		{"#6x:" KEY_A, "line 1: the name is not in hexadecimal"},
		{"a:" KEY_A "\nb:" KEY_A "\n#61:" KEY_B, "line 3: the name stood above already"},
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		fails(open_psk(bad[i].text, 0600, &e), -EINVAL, &e, bad[i].message);
	unlink("keys");
	fails(tls_open(&(struct tls_args){.psk_file = "keys"}, &tls, &e), -ENOENT, &e, "keys: No");
	fails(tls_open(&(struct tls_args){.psk_file = "/dev/zero"}, &tls, &e), -EFBIG, &e,
	      "/dev/zero: longer than");
	fails(tls_open(&(struct tls_args){.psk_file = "."}, &tls, &e), -EISDIR, &e, ".: Is a dir");
	fails(tls_open(&(struct tls_args){.psk_file = "keys", .verify = true}, &tls, &e), -EINVAL,
	      &e, "not both");

	/* Lines as Windows has them, names in hexadecimal, secrets that are none. */
	ok(open_psk("#c3a9:" KEY_A "\r\nbob:" KEY_B "\r\n", 0644, &e), &e);
	assert_non_null(strstr(warned.msg, "keys: any user can read this secret"));
	assert_non_null(psk_find(&tls->psk, "\xc3\xa9"));
	assert_non_null(psk_find(&tls->psk, "bob"));
	assert_null(psk_find(&tls->psk, "bo"));
	assert_null(psk_find(&tls->psk, ""));
	tls_close(tls);
}

/* ---- certificates ---- */

static void certificates_are_verified(void **state)
{
	static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
	struct err e;

	(void)state;
	use_certificates(true, NULL, 0);
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		connect_ends(versions[i]);
		show_certificate("pki");
		ok(shake(&e), &e);
		assert_string_equal(ends.server->peer, "test, CN=client,O=imgkit");
		server_sends(100000);
		client_sends(100000);
		hang_up();

		connect_ends(versions[i]);
		fails(shake(&e), -EPROTO, &e, "TLS: peer did not return a certificate");
		hang_up();

		connect_ends(versions[i]);
		show_certificate("other");
		fails(shake(&e), -EACCES, &e, "TLS: the client's certificate: ");
		hang_up();
	}
	tls_close(tls);

	/* Nobody asks for one. */
	use_certificates(false, NULL, 0);
	connect_ends(0);
	ok(shake(&e), &e);
	assert_string_equal(ends.server->peer, "test");
	finish();
}

static void names_are_authorised(void **state)
{
	static const char *const no[] = {"CN=clien,O=imgkit", "CN=client", "CN=*"};
	static const char *const yes[] = {"CN=nobody", "CN=cl*,O=imgkit"};
	struct err e;

	(void)state;
	use_certificates(true, no, ARRAY_LEN(no));
	connect_ends(0);
	show_certificate("pki");
	fails(shake(&e), -EACCES, &e, "name is not one of those allowed");
	finish();
	use_certificates(true, yes, ARRAY_LEN(yes));
	connect_ends(0);
	show_certificate("pki");
	ok(shake(&e), &e);
	finish();
}

static void patterns_match_by_attributes(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool match;
	} cases[] = {
		{"CN=a,O=b", "CN=a,O=b", true},
		{"CN=a,O=b", "CN=a,O=b,C=c", false},
		{"CN=a,O=b,C=c", "CN=a,O=b", false},
		{"CN=*,O=b", "CN=anything,O=b", true},
		{"CN=*", "CN=a,O=b", false},
		{"CN=a,*", "CN=a,O=b,C=c", true},
		{"CN=a,*", "CN=a", true},
		{"*,O=b", "CN=a,OU=x,O=b", true},
		{"*,O=b", "CN=a\\,O=b", false},
		{"*,O=b,*", "CN=a\\,O=b,C=c", false},
		{"*,O=b,*", "CN=a,O=b,C=c", true},
		{"*,O=b,*,O=b", "O=b,O=b", true},
		{"*,O=b,*,O=b", "O=b,O=x", false},
		{"*", "CN=a,O=b", true},
		{"*", "", true},
		{"", "CN=a", false},
		{"CN=a\\,O=b", "CN=a\\,O=b", true},
		{"CN=a?", "CN=a\\,", false},
		{"CN=[ab]", "CN=b", true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (tls_name_matches(cases[i].pattern, cases[i].name) != cases[i].match)
			fail_msg("%s on %s", cases[i].pattern, cases[i].name);
}

static void revoked_certificates_are_refused(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(system("cp crl.pem pki/ca-crl.pem"), 0);
	use_certificates(true, NULL, 0);
	connect_ends(0);
	show_certificate("pki");
	fails(shake(&e), -EACCES, &e, "certificate revoked");
	finish();
	unlink("pki/ca-crl.pem");
}

static void broken_directories_are_refused(void **state)
{
	static const struct {
		const char *command, *message;
		int code;
	} cases[] = {
		{"rm bad/server-cert.pem", "bad/server-cert.pem: No such file", -ENOENT},
		{"rm bad/server-key.pem", "bad/server-key.pem: No such file", -ENOENT},
		{"rm bad/ca-cert.pem", "bad/ca-cert.pem: No such file", -ENOENT},
		{"echo x > bad/server-cert.pem", "bad/server-cert.pem: no start line", -EINVAL},
		{"cp pki/client-key.pem bad/server-key.pem",
		 "bad/server-key.pem: key values mismatch", -EINVAL},
		{"openssl ec -in pki/server-key.pem -aes128 -passout pass:x -out "
		 "bad/server-key.pem 2>&-",
		 "bad/server-key.pem: the key is encrypted", -EINVAL},
		{"cp old/server-cert.pem old/server-key.pem bad",
		 "bad/server-cert.pem: expired at Jan  2 00:00:00 2020 GMT", -EINVAL},
		{"cp new/server-cert.pem new/server-key.pem bad",
		 "bad/server-cert.pem: not valid before Jan  1", -EINVAL},
		{"echo x > bad/ca-cert.pem", "bad/ca-cert.pem: no certificate in it", -EINVAL},
		{"cp pki/client-cert.pem bad/ca-cert.pem",
		 "bad/ca-cert.pem: has a certificate that is not of an authority", -EINVAL},
		{"echo x > bad/ca-crl.pem", "bad/ca-crl.pem: no revocation list", -EINVAL},
		{"cp oldcrl.pem bad/ca-crl.pem", "bad/ca-crl.pem: expired at", -EINVAL},
		{"mkdir bad/ca-crl.pem", "bad/ca-crl.pem: Is a directory", -EISDIR},
		{"sed -i '2s/./!/' bad/server-cert.pem", "bad/server-cert.pem: bad base64",
		 -EINVAL},
		{"head -c 300 pki/server-cert.pem >> bad/ca-cert.pem", "bad/ca-cert.pem: bad end",
		 -EINVAL},
	};
	const struct tls_args args = {.directory = "bad", .verify = true};
	char command[256];
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(command, sizeof(command),
			 "rm -rf bad pki/ca-crl.pem && cp -r pki bad && %s", cases[i].command);
		assert_int_equal(system(command), 0);
		fails(tls_open(&args, &tls, &e), cases[i].code, &e, cases[i].message);
	}
	fails(tls_open(&(struct tls_args){.directory = "pki",
					  .allowed = (const char *const[]){"*"},
					  .n_allowed = 1},
		       &tls, &e),
	      -EINVAL, &e, "only if their certificates are verified");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_let_their_users_in),
		cmocka_unit_test(other_keys_and_users_do_not),
		cmocka_unit_test(strangers_do_not_learn_names),
		cmocka_unit_test(key_files_are_checked),
		cmocka_unit_test(certificates_are_verified),
		cmocka_unit_test(names_are_authorised),
		cmocka_unit_test(patterns_match_by_attributes),
		cmocka_unit_test(revoked_certificates_are_refused),
		cmocka_unit_test(broken_directories_are_refused),
	};

	return run_tls_tests("tls", tests, ARRAY_LEN(tests));
}
