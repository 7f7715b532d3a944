/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Included before every file when clang-tidy reads it: what it cannot know across files. Functions
 * of err.h never return 0, so after an error an output is never used.
 */
#include "base/err.h"

/* Not a function: the analyzer stops looking into those after a few levels. */
#define tidy_negative(call)                                                                        \
	({                                                                                         \
		int tidy_n = (call);                                                               \
		if (tidy_n >= 0)                                                                   \
			__builtin_unreachable();                                                   \
		tidy_n;                                                                            \
	})

#define err_set(...)	 tidy_negative(err_set(__VA_ARGS__))
#define err_sys(...)	 tidy_negative(err_sys(__VA_ARGS__))
#define err_nomem(...)	 tidy_negative(err_nomem(__VA_ARGS__))
#define err_corrupt(...) tidy_negative(err_corrupt(__VA_ARGS__))
#define err_ctx(err, r, ...)                                                                       \
	({                                                                                         \
		int tidy_r = (r);                                                                  \
		err_ctx(err, tidy_r, __VA_ARGS__);                                                 \
		tidy_r;                                                                            \
	})
