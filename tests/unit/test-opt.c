// SPDX-License-Identifier: GPL-2.0-or-later
/* base/opt: the grammar of -o, tables, typed access; texts as qemu-img 7.2 prints them. */
#include "unit.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/opt.h"

static const char *const modes[] = {"off", "metadata", "full", NULL};

static const struct opt table[] = {
	{.name = "lazy", .type = OPT_BOOL},
	{.name = "bits", .type = OPT_UINT},
	{.name = "cluster", .type = OPT_SIZE},
	{.name = "file", .type = OPT_STRING},
	{.name = "mode", .type = OPT_ENUM, .choices = modes},
	{.name = NULL},
};

static void values_are_found(void **state)
{
	struct opts o = {0};
	struct err e = {0};

	(void)state;
	ok(opts_parse(&o, "a=1,b=x=y,c=,d", &e), &e);
	assert_int_equal(o.n, 4);
	assert_string_equal(opts_get(&o, "a"), "1");
	assert_string_equal(opts_get(&o, "b"), "x=y");
	assert_string_equal(opts_get(&o, "d"), "on");
	assert_string_equal(opts_get(&o, "c"), "");
	assert_null(opts_get(&o, "e"));
	assert_null(opts_get(NULL, "a"));
	opts_free(&o);
	assert_null(opts_get(&o, "a"));
}

static void double_commas_are_one(void **state)
{
	struct opts o = {0};
	struct err e = {0};

	(void)state;
	ok(opts_parse(&o, "file=a,,b,,,,c,bits=8", &e), &e);
	assert_string_equal(opts_get(&o, "file"), "a,b,,c");
	assert_string_equal(opts_get(&o, "bits"), "8");
	opts_free(&o);
	ok(opts_parse(&o, "file=x,,", &e), &e);
	assert_string_equal(opts_get(&o, "file"), "x,");
	opts_free(&o);
}

static void flags_may_be_negated(void **state)
{
	struct opts o = {0};
	struct err e = {0};
	bool lazy = true;

	(void)state;
	ok(opts_parse(&o, "nolazy", &e), &e);
	assert_string_equal(opts_get(&o, "lazy"), "off");
	ok(opts_bool(&o, "lazy", &lazy, &e), &e);
	assert_false(lazy);
	/* Only without a value. */
	ok(opts_parse(&o, "node=5,no", &e), &e);
	assert_string_equal(opts_get(&o, "node"), "5");
	assert_string_equal(opts_get(&o, "no"), "on");
	opts_free(&o);
}

static void later_values_win(void **state)
{
	struct opts o = {0};
	struct err e = {0};

	(void)state;
	ok(opts_parse(&o, "a=1,a=2", &e), &e);
	ok(opts_set(&o, "b", "1,=x", &e), &e);
	assert_string_equal(opts_get(&o, "a"), "2");
	ok(opts_parse(&o, "a=3", &e), &e);
	assert_string_equal(opts_get(&o, "a"), "3");
	assert_string_equal(opts_get(&o, "b"), "1,=x");
	assert_int_equal(o.n, 2);
	opts_free(&o);
}

static void empty_elements_are_refused(void **state)
{
	static const char *const bad[] = {"", ",", "a=1,", ",a=1", "a=,", "a,,,"};
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct opts o = {0};

		fails(opts_parse(&o, bad[i], &e), -EINVAL, &e, "Invalid option list: ");
		opts_free(&o);
	}
}

static void check_names_the_option(void **state)
{
	static const struct {
		const char *text, *message;
	} bad[] = {
		{"foo=1", "Invalid parameter 'foo'"},
		{"=5", "Invalid parameter ''"},
		{"nofile", NULL}, /* a string: "off" is one */
		{"lazy=maybe", "Parameter 'lazy' expects 'on' or 'off'"},
		{"lazy=On", "Parameter 'lazy' expects 'on' or 'off'"},
		{"bits=abc", "Parameter 'bits' expects a number"},
		{"bits=", "Parameter 'bits' expects a number"},
		{"bits=16k", "Parameter 'bits' expects a number"},
		{"bits=-1", "Parameter 'bits' expects a number"},
		{"bits=99999999999999999999",
		 "Value '99999999999999999999' is too large for parameter 'bits'"},
		{"cluster=1x", "Parameter 'cluster' expects a non-negative number below 2^64"},
		{"cluster", "Parameter 'cluster' expects a non-negative number below 2^64"},
		{"cluster=99E", "Value '99E' is out of range for parameter 'cluster'"},
		{"mode=foo", "Parameter 'mode' does not accept value 'foo'"},
		{"lazy=on,bits=0x10,cluster=64k,file=,mode=full", NULL},
	};
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct opts o = {0};

		ok(opts_parse(&o, bad[i].text, &e), &e);
		if (bad[i].message)
			fails(opts_check(&o, table, &e), -EINVAL, &e, bad[i].message);
		else
			ok(opts_check(&o, table, &e), &e);
		opts_free(&o);
	}
	assert_int_equal(opts_check(NULL, table, NULL), 0);
}

static void formats_without_options_take_none(void **state)
{
	struct opts o = {0};
	struct err e;

	(void)state;
	ok(opts_check(&o, NULL, &e), &e);
	ok(opts_parse(&o, "a=1", &e), &e);
	fails(opts_check(&o, NULL, &e), -EINVAL, &e, "Invalid parameter 'a'");
	opts_free(&o);
}

static void typed_values(void **state)
{
	static const char *const yes[] = {"on", "yes", "true", "y"};
	static const char *const no[] = {"off", "no", "false", "n"};
	struct opts o = {0};
	struct err e = {0};
	uint64_t n = 7;
	bool b = false;
	int index = 9;

	(void)state;
	/* Not given: untouched. */
	ok(opts_uint(&o, "bits", &n, &e), &e);
	ok(opts_size(NULL, "cluster", &n, &e), &e);
	ok(opts_bool(&o, "lazy", &b, &e), &e);
	ok(opts_enum(&o, "mode", modes, &index, &e), &e);
	assert_true(n == 7 && !b && index == 9);

	for (size_t i = 0; i < 4; i++) {
		opts_set(&o, "lazy", yes[i], &e);
		ok(opts_bool(&o, "lazy", &b, &e), &e);
		assert_true(b);
		opts_set(&o, "lazy", no[i], &e);
		ok(opts_bool(&o, "lazy", &b, &e), &e);
		assert_false(b);
	}
	ok(opts_parse(&o, "bits=0x20,cluster=1.5k,mode=metadata", &e), &e);
	ok(opts_uint(&o, "bits", &n, &e), &e);
	assert_int_equal(n, 32);
	ok(opts_size(&o, "cluster", &n, &e), &e);
	assert_int_equal(n, 1536);
	ok(opts_enum(&o, "mode", modes, &index, &e), &e);
	assert_int_equal(index, 1);
	opts_free(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_found),
		cmocka_unit_test(double_commas_are_one),
		cmocka_unit_test(flags_may_be_negated),
		cmocka_unit_test(later_values_win),
		cmocka_unit_test(empty_elements_are_refused),
		cmocka_unit_test(check_names_the_option),
		cmocka_unit_test(formats_without_options_take_none),
		cmocka_unit_test(typed_values),
	};

	return cmocka_run_group_tests_name("opt", tests, NULL, NULL);
}
