/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scope cleanup: `CLEANUP_FREE char *p = NULL;` frees at end of scope; `take(p)` gives p away. */
#ifndef IMGKIT_BASE_CLEANUP_H
#define IMGKIT_BASE_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_unlock(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_FD   __attribute__((cleanup(cleanup_fd)))

#define CLEANUP_JOIN_(a, b) a##b
#define CLEANUP_JOIN(a, b)  CLEANUP_JOIN_(a, b)

/* Locks a pthread mutex until the end of the enclosing scope. */
#define LOCK_SCOPE(m)                                                                   \
	__attribute__((cleanup(cleanup_unlock), unused)) pthread_mutex_t *CLEANUP_JOIN( \
		lock_scope_, __COUNTER__) = (pthread_mutex_lock(m), (m))

/* Takes the value of an lvalue pointer and leaves NULL in its place. */
#define take(p)                            \
	({                                 \
		__typeof__(p) take_ = (p); \
		(p) = NULL;                \
		take_;                     \
	})

#endif
