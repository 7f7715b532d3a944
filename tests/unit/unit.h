/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For unit tests: cmocka with the headers that it wants, and the assertions that all tests use. */
#ifndef IMGKIT_TESTS_UNIT_H
#define IMGKIT_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

/* A call that must succeed; its error text is shown when it does not. */
#define ok(call, e)                                          \
	do {                                                 \
		if ((call) < 0)                              \
			fail_msg("%s: %s", #call, (e)->msg); \
	} while (0)

/* A call that must fail with this code (negative errno), with `part` in the error text. */
#define fails(call, code, e, part)                                                  \
	do {                                                                        \
		*(e) = (struct err){0};                                             \
		assert_int_equal(call, code);                                       \
		if (!strstr((e)->msg, part))                                        \
			fail_msg("%s: \"%s\" lacks \"%s\"", #call, (e)->msg, part); \
	} while (0)

#endif
