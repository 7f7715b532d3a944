// SPDX-License-Identifier: GPL-2.0-or-later
/* base/err: codes, context, truncation, and NULL for "no text wanted". */
#include "unit.h"

#include <errno.h>

static void set_keeps_code_and_text(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(err_set(&e, EINVAL, "field %s is %d", "size", 7), -EINVAL);
	assert_int_equal(e.code, EINVAL);
	assert_string_equal(e.msg, "field size is 7");
	assert_int_equal(err_set(NULL, EINVAL, "nobody reads %d", 1), -EINVAL);
}

static void sys_appends_reason(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(err_sys(&e, ENOENT, "Could not open '%s'", "x"), -ENOENT);
	assert_string_equal(e.msg, "Could not open 'x': No such file or directory");
	assert_int_equal(err_sys(NULL, ENOSPC, "x"), -ENOSPC);
}

static void long_text_keeps_reason(void **state)
{
	char name[1024];
	struct err e = {0};
	const char *why = ": File name too long";

	(void)state;
	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(err_sys(&e, ENAMETOOLONG, "Could not open '%s'", name), -ENAMETOOLONG);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_string_equal(e.msg + strlen(e.msg) - strlen(why), why);
}

static void context_goes_in_front(void **state)
{
	struct err e = {0};
	int r = err_set(&e, EIO, "bad sector");

	(void)state;
	r = err_ctx(&e, r, "reading %s", "L1");
	assert_int_equal(err_ctx(&e, r, "Could not open '%s'", "a.img"), -EIO);
	assert_int_equal(e.code, EIO);
	assert_string_equal(e.msg, "Could not open 'a.img': reading L1: bad sector");
	assert_int_equal(err_ctx(NULL, -EIO, "context"), -EIO);
}

static void corrupt_names_file_and_offset(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(err_corrupt(&e, "a.img", 4096, "%s is %d", "entry", 5), -EUCLEAN);
	assert_int_equal(e.code, EUCLEAN);
	assert_string_equal(e.msg, "a.img: at offset 4096: entry is 5");
	assert_int_equal(err_corrupt(NULL, "a.img", 0, "x"), -EUCLEAN);
}

static void nomem_says_how_much(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(err_nomem(&e, 4096, "a table"), -ENOMEM);
	assert_string_equal(e.msg, "out of memory (4096 bytes for a table)");
}

/* Whatever does not fit is cut; the text stays terminated and the code is kept. */
static void long_texts_are_cut(void **state)
{
	char name[2000];
	struct err e = {0};

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	err_set(&e, EINVAL, "%s", name);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	err_sys(&e, EINVAL, "%s", name);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_int_equal(err_corrupt(&e, name, 1, "fact"), -EUCLEAN);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	err_set(&e, EIO, "fact");
	assert_int_equal(err_ctx(&e, -EIO, "%s", name), -EIO);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_int_equal(e.code, EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_keeps_code_and_text),
		cmocka_unit_test(sys_appends_reason),
		cmocka_unit_test(long_text_keeps_reason),
		cmocka_unit_test(context_goes_in_front),
		cmocka_unit_test(corrupt_names_file_and_offset),
		cmocka_unit_test(nomem_says_how_much),
		cmocka_unit_test(long_texts_are_cut),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
