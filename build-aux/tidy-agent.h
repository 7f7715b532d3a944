/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Included before the agent's files when clang-tidy reads them, as tidy.h is: these functions give
 * 0 and their outputs, or a negative errno, and nothing else.
 */
#include "build-aux/tidy.h"

#include "appliance/agent/agent.h"

#define tidy_not_positive(call)                                                                    \
	({                                                                                         \
		int tidy_n = (call);                                                               \
		if (tidy_n > 0)                                                                    \
			__builtin_unreachable();                                                   \
		tidy_n;                                                                            \
	})

#define call_args(...)	 tidy_not_positive(call_args(__VA_ARGS__))
#define call_flags(...)	 tidy_not_positive(call_flags(__VA_ARGS__))
#define tree_find(...)	 tidy_not_positive(tree_find(__VA_ARGS__))
#define tree_place(...)	 tidy_not_positive(tree_place(__VA_ARGS__))
#define tree_lookup(...) tidy_not_positive(tree_lookup(__VA_ARGS__))
#define tree_stat(...)	 tidy_not_positive(tree_stat(__VA_ARGS__))
