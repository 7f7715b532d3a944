/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An appliance in a cage of our own: the agent that the library carries, and the disks. */
#include "appliance/appliance.h"

#include <stdlib.h>

#include "appliance/blob.h"
#include "appliance/cage.h"

static int finish(void *arg, struct err *err)
{
	struct cage *cage = arg;
	int status, r = cage_wait(cage, &status, err);

	if (!r && status)
		r = err_set(err, EPROTO, "the agent ended with status %d", status);
	free(cage);
	return r;
}

static void kill_cage(void *arg)
{
	cage_kill(arg);
	free(arg);
}

int appliance_launch(const struct appliance_config *config, struct appliance **a, struct err *err)
{
	static const char *const argv[] = {"agent", NULL};
	struct cage_disk disks[AGENT_DISKS_MAX] = {0};
	struct cage_config how = {
		.disks = disks,
		.n_disks = config->n_disks,
		.argv = argv,
		.memory = config->memory,
		.cpu_limit = config->cpu_limit,
		.patience = config->patience ? config->patience : APPLIANCE_PATIENCE,
		.isolation = config->isolation,
		.log = config->log,
	};
	struct appliance_end end = {.finish = finish,
				    .kill = kill_cage,
				    .patience = config->patience};
	struct cage *cage;
	int r;

	if (config->n_disks > AGENT_DISKS_MAX)
		return err_set(err, E2BIG, "more than %u disks", AGENT_DISKS_MAX);
	for (unsigned i = 0; i < config->n_disks; i++)
		disks[i].args = config->disks[i];
	cage = malloc(sizeof(*cage));
	if (!cage)
		return err_nomem(err, sizeof(*cage), "a cage");
	how.program = agent_blob(&how.program_size);
	r = cage_start(cage, &how, err);
	if (r < 0) {
		free(cage);
		return r;
	}
	end.arg = cage;
	end.isolation = cage->isolation;
	end.fallback = cage->fallback;
	return appliance_attach(cage->in, cage->out, &end, a, err);
}
