// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io/nbd where libnbd is missing, or too old: an error that says so and names the package.
 *
 * link: -Wl,--wrap=dlopen,--wrap=dlsym
 */
#include "unit.h"

#include <errno.h>

#include "io/nbd.h"

static bool missing, old;

void *__real_dlopen(const char *file, int mode);
void *__real_dlsym(void *so, const char *name);
void *__wrap_dlopen(const char *file, int mode);
void *__wrap_dlsym(void *so, const char *name);

void *__wrap_dlopen(const char *file, int mode)
{
	return __real_dlopen(missing ? "libnobody-has-this.so.0" : file, mode);
}

void *__wrap_dlsym(void *so, const char *name)
{
	return __real_dlsym(so, old && strcmp(name, "nbd_aio_flush") == 0 ? "nbd_none" : name);
}

static void refused(const char *says, int code)
{
	const struct nbd_args args = {0};
	struct nbd_where w;
	struct err e = {0};
	struct io *io;

	ok(nbd_where_parse("nbd+unix:///?socket=nobody", &w, &e), &e);
	fails(nbd_open(&w, &args, &io, &e), code, &e, says);
	assert_string_equal(w.path, "nobody"); /* still the caller's */
	nbd_where_free(&w);
}

static void test_missing(void **state)
{
	(void)state;
	missing = true;
	refused("libnbd0", -ENOTSUP);
	missing = false;
}

static void test_old(void **state)
{
	(void)state;
	old = true;
	refused("nbd_aio_flush", -ENOTSUP);
	old = false;
}

static void test_there(void **state)
{
	(void)state;
	refused("No such file or directory", -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_missing),
		cmocka_unit_test(test_old),
		cmocka_unit_test(test_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
