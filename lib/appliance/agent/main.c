/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent: reads requests on fd 0, answers on fd 1, and knows nothing of where it runs. This file
 * starts it; the calls are in the table of calls.c.
 */
#include <limits.h>
#include <malloc.h>

#include "agent.h"
#include "base/bytes.h"

static const struct fs_driver *const drivers[] = {&ext_driver, NULL};

/*
 * Memory comes from one heap that never shrinks, and grows in large steps: it is all the agent's, and
 * each system call is dear.
 */
static void set_up_memory(void)
{
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	mallopt(M_TOP_PAD, (int)(8 * MiB));
}

int main(void)
{
	static struct agent agent; /* of zeros: the program is not larger for it */
	struct err err = {0};
	int r;

	set_up_memory();
	r = disks_init(&agent.disks, &err);
	agent.drivers = drivers;
	if (r == 0)
		r = agent_serve(&agent, AGENT_FD_IN, AGENT_FD_OUT, &err);
	disks_free(&agent.disks);
	return r < 0;
}
