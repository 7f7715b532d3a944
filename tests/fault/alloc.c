// SPDX-License-Identifier: GPL-2.0-or-later
/* See alloc.h. */
#include "alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

static _Atomic uint64_t calls, fail_at;
static atomic_bool armed, for_good;
static _Thread_local unsigned paused;

void alloc_arm(uint64_t at, bool sticky)
{
	atomic_store(&calls, 0);
	atomic_store(&fail_at, at);
	atomic_store(&for_good, sticky);
	atomic_store(&armed, true);
}

void alloc_disarm(void)
{
	atomic_store(&armed, false);
}

uint64_t alloc_calls(void)
{
	return atomic_load(&calls);
}

void alloc_pause(void)
{
	paused++;
}

void alloc_resume(void)
{
	paused--;
}

static bool fails(void)
{
	uint64_t n, at;

	if (!atomic_load(&armed) || paused)
		return false;
	n = atomic_fetch_add(&calls, 1) + 1;
	at = atomic_load(&fail_at);
	if (!at || (atomic_load(&for_good) ? n < at : n != at))
		return false;
	errno = ENOMEM;
	return true;
}

/* clang-format off */
#define WRAP(type, name, params, args)                  \
	type __real_##name params;                      \
	type __wrap_##name params;                      \
	type __wrap_##name params                       \
	{                                               \
		return fails() ? NULL : __real_##name args; \
	}
/* clang-format on */

WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *p, size_t n), (p, n))
WRAP(void *, reallocarray, (void *p, size_t n, size_t size), (p, n, size))
WRAP(char *, strdup, (const char *s), (s))
WRAP(char *, strndup, (const char *s, size_t n), (s, n))
