// SPDX-License-Identifier: GPL-2.0-or-later
/* --object secret: what is stored, and what is refused. */
#include "base/secrets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "unit.h"

static int add(struct secrets *s, const char *text, struct err *e)
{
	struct opts opts = {0};
	int r = opts_parse(&opts, text, e);

	if (r == 0)
		r = secrets_add(s, &opts, e);
	opts_free(&opts);
	return r;
}

static void holds(const char *text, const char *data, size_t len)
{
	struct secrets s = {0};
	const struct secret *found;
	struct err e = {0};

	ok(add(&s, text, &e), &e);
	found = secrets_find(&s, "s");
	assert_non_null(found);
	assert_int_equal(found->len, len);
	assert_memory_equal(found->data, data, len + 1);
	assert_null(secrets_find(&s, "t"));
	secrets_free(&s);
}

static void refused(const char *text, int code, const char *says)
{
	struct secrets s = {0};
	struct err e = {0};

	ok(add(&s, "id=other,data=x", &e), &e);
	fails(add(&s, text, &e), code, &e, says);
	assert_int_equal(s.n, 1);
	secrets_free(&s);
}

static void test_data(void **state)
{
	(void)state;
	holds("id=s,data=abc", "abc", 3);
	holds("id=s,data=", "", 0);
	holds("id=s,data=a,,b,format=raw", "a,b", 3);
}

/* The vectors of RFC 4648, section 10. */
static void test_base64(void **state)
{
	(void)state;
	holds("id=s,format=base64,data=", "", 0);
	holds("id=s,format=base64,data=Zg==", "f", 1);
	holds("id=s,format=base64,data=Zm8=", "fo", 2);
	holds("id=s,format=base64,data=Zm9v", "foo", 3);
	holds("id=s,format=base64,data=Zm9vYg==", "foob", 4);
	holds("id=s,format=base64,data=Zm9vYmE=", "fooba", 5);
	holds("id=s,format=base64,data=Zm9v\nYmFy\n", "foobar", 6);
	holds("id=s,format=base64,data=AP/+", "\0\377\376", 3);
	refused("id=s,format=base64,data=Zg", -EINVAL, "Base64");
	refused("id=s,format=base64,data=Zh==", -EINVAL, "Base64"); /* bits that no byte has */
	refused("id=s,format=base64,data=Z===", -EINVAL, "Base64");
	refused("id=s,format=base64,data=Zg==Zg==", -EINVAL, "Base64");
	refused("id=s,format=base64,data=Zm9-", -EINVAL, "Base64");
}

static void test_file(void **state)
{
	FILE *f = fopen("pw", "w");

	(void)state;
	fwrite("Zm9v\n", 1, 5, f);
	fclose(f);
	holds("id=s,file=pw", "Zm9v\n", 5);
	holds("id=s,file=pw,format=base64", "foo", 3);
	refused("id=s,file=missing", -ENOENT, "missing");
	refused("id=s,file=.", -EISDIR, "Unable to read .");
	assert_int_equal(truncate("pw", SECRET_MAX + 1), 0);
	refused("id=s,file=pw", -EFBIG, "more than");
}

static void test_refused(void **state)
{
	(void)state;
	refused("data=x", -EINVAL, "'id' is missing");
	refused("id=,data=x", -EINVAL, "identifier");
	refused("id=1a,data=x", -EINVAL, "identifier");
	refused("id=a b,data=x", -EINVAL, "identifier");
	refused("id=s", -EINVAL, "Either 'file' or 'data'");
	refused("id=s,data=x,file=y", -EINVAL, "mutually exclusive");
	refused("id=s,data=x,format=hex", -EINVAL, "'hex'");
	refused("id=s,data=x,size=4", -EINVAL, "'size' is unexpected");
	refused("id=other,data=x", -EINVAL, "duplicate");
	refused("id=s,data=x,keyid=nosuch", -EINVAL, "No secret with id 'nosuch'");
	refused("id=s,data=x,keyid=other,iv=AA==", -ENOTSUP, "not supported");
	refused("id=s,data=x,iv=AA==", -ENOTSUP, "not supported");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
