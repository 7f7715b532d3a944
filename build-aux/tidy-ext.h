/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Included before the files of the ext driver when clang-tidy reads them, as tidy.h is: what its
 * functions for errors give. super.c, which has them, is read without.
 */
#include "build-aux/tidy-agent.h"

#include "appliance/agent/ext/ext.h"

#define ext_corrupt(...) tidy_negative(ext_corrupt(__VA_ARGS__))
#define ext_error(x, code, ...)                                                                    \
	({                                                                                         \
		errcode_t tidy_code = (code);                                                      \
		int tidy_n = ext_error(x, tidy_code, __VA_ARGS__);                                 \
		if (tidy_code ? tidy_n >= 0 : tidy_n != 0)                                         \
			__builtin_unreachable();                                                   \
		tidy_n;                                                                            \
	})
