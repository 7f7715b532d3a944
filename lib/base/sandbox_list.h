/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For a source that is a list of system calls, of struct sandbox_call: its elements, in short. */
#ifndef IMGKIT_BASE_SANDBOX_LIST_H
#define IMGKIT_BASE_SANDBOX_LIST_H

#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/sandbox.h"

#define ANY(name)                             \
	{                                     \
		SYS_##name, SANDBOX_ANY, 0, 0 \
	}
#define ONLY(name, arg, value)                     \
	{                                          \
		SYS_##name, arg, UINT32_MAX, value \
	}
/* mmap and mprotect: of memory that cannot be executed. */
#define NOT_EXEC(name)                      \
	{                                   \
		SYS_##name, 2, PROT_EXEC, 0 \
	}

#endif
