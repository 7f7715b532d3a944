/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An agent in a thread of this process, for tests that need thousands of them. */
#ifndef IMGKIT_TESTS_INSIDE_H
#define IMGKIT_TESTS_INSIDE_H

#include "appliance/appliance.h"

/* The agent's only disk: takes fd, which becomes file descriptor AGENT_FD_DISK. Before all else. */
void inside_disk(int fd);

/* The agent with its real drivers; what it leaves behind is freed when it ends. One at a time. */
struct appliance *attach_inside(bool writable);

/* The same with another end of the conversation: fd is what the agent reads and writes. Returns what
 * agent_serve does. */
int serve_inside(int fd, bool writable, struct err *err);

#endif
