/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Agents outside of cages, for tests: an ordinary process at the other end of a socket pair. */
#ifndef IMGKIT_TESTS_ATTACHED_H
#define IMGKIT_TESTS_ATTACHED_H

#include <sys/types.h>

#include "appliance/appliance.h"

/* Forks a process that runs main_fn(fd, arg) with its end of the conversation, and exits with what
 * that returns; dies when the conversation cannot begin. */
struct appliance *attach_fork(int (*main_fn)(int fd, void *arg), void *arg);
/* The same, but an error of the beginning is returned. */
int try_attach_fork(int (*main_fn)(int fd, void *arg), void *arg, struct appliance **a,
		    struct err *err);
/* The agent of the build, as an ordinary program, on these files. Ends with NULL. */
struct appliance *attach_native(const char *const *disks, bool writable);

#endif
