// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every call of the file and of the backing file fails once, and from then on, with EIO and with
 * ENOSPC, in scripts of reads, writes, snapshots, resizes, checks and repairs. See scenario.h.
 *
 * timeout: 300
 * variants: release asan
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"
#include "scenario.h"
#include "tell.h"

static void arm(struct faults *f)
{
	atomic_store(&f->io->calls, 0);
	f->io->fail_at = f->at;
	f->io->sticky = f->sticky;
	f->io->code = f->code;
}

static void disarm(struct faults *f)
{
	f->io->fail_at = 0;
}

static uint64_t calls(struct faults *f)
{
	return atomic_load(&f->io->calls);
}

int main(void)
{
	struct fault_plan plan = {0}, writes = {.writes_only = true};
	struct faults faults[] = {
		{"EIO", EIO, false, 0, 0, &plan, arm, disarm, calls},
		{"ENOSPC", ENOSPC, false, 0, SANITIZED ? 5 : 0, &writes, arm, disarm, calls},
		{"ENOSPC", ENOSPC, true, 0, 0, &writes, arm, disarm, calls},
		{"EIO", EIO, true, 0, 0, &plan, arm, disarm, calls},
	};
	/* The way of an error is much the same when others follow: with a sanitizer, once will do. */
	size_t n = SANITIZED ? 2 : ARRAY_LEN(faults);

	for (size_t i = 0; i < n; i++) {
		struct sweep_totals sum = {0};

		for (const struct subject *s = subjects; s->format; s++)
			for (const struct script *c = scripts; c->name; c++)
				scenario_sweep(s, c, &faults[i], &sum);
		printf("%s%s: %" PRIu64 " runs, %" PRIu64
		       " ended with an image that refuses writes\n",
		       faults[i].name, faults[i].sticky ? " and on" : "", sum.runs, sum.refused);
		if (!sum.runs)
			return 1;
	}
	return 0;
}
