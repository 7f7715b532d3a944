/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Allocations that fail on command. Programs that use it are linked with --wrap for each of the
 * functions, so only calls from objects of this project count.
 */
#ifndef IMGKIT_TESTS_ALLOC_H
#define IMGKIT_TESTS_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* From now on allocations count, in all threads; the at-th fails (0: none), or all from it on. */
void alloc_arm(uint64_t at, bool sticky);
void alloc_disarm(void);
/* Allocations since alloc_arm. */
uint64_t alloc_calls(void);
/* Not these, for what the test itself allocates in between. Nests. */
void alloc_pause(void);
void alloc_resume(void);

#endif
