/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Giving up rights for good: what a process calls once its files are open and before it looks at
 * anything that a stranger made.
 */
#ifndef IMGKIT_BASE_SANDBOX_H
#define IMGKIT_BASE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A system call that stays allowed: any, or only when (argument & mask) == value. */
struct sandbox_call {
	int nr;
	int arg; /* number of the argument that is looked at, or one of the two */
	uint64_t mask, value;
};
#define SANDBOX_ANY   (-1)
#define SANDBOX_FAILS (-2) /* not allowed, but it only fails, with errno `value` */

/*
 * No new privileges, no path of any file system can be opened or changed any more (Landlock, where
 * the kernel has it), and every system call that is not in the list kills the process. For the
 * calling thread and those that it starts later: call it before there are others.
 */
int sandbox_seal(const struct sandbox_call *calls, size_t n, struct err *err);

/* What the kernel offers: the version of Landlock's interface, 0: none; and filters of calls. */
int sandbox_landlock(void);
bool sandbox_seccomp(void);

#endif
