/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent: reads requests on fd 0, answers on fd 1, and knows nothing of where it runs. This file
 * starts it; the calls are in the table of calls.c.
 */
#include "agent.h"

static const struct fs_driver *const drivers[] = {&ext_driver, NULL};

int main(void)
{
	static struct agent agent; /* of zeros: the program is not larger for it */
	struct err err = {0};
	int r = disks_init(&agent.disks, &err);

	agent.drivers = drivers;
	if (r == 0)
		r = agent_serve(&agent, AGENT_FD_IN, AGENT_FD_OUT, &err);
	disks_free(&agent.disks);
	return r < 0;
}
