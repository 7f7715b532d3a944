// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every allocation of the library fails once, and from then on, in the scripts of scenario.h.
 *
 * timeout: 300
 * variants: release asan
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=strdup,--wrap=strndup
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "alloc.h"
#include "base/bytes.h"
#include "scenario.h"
#include "tell.h"

static void arm(struct faults *f)
{
	alloc_arm(f->at, f->sticky);
}

static void disarm(struct faults *f)
{
	(void)f;
	alloc_disarm();
}

static uint64_t calls(struct faults *f)
{
	(void)f;
	return alloc_calls();
}

int main(void)
{
	struct fault_plan none = {0};
	struct faults faults[] = {
		{"no memory", ENOMEM, false, 0, 0, &none, arm, disarm, calls},
		{"no memory", ENOMEM, true, 0, 0, &none, arm, disarm, calls},
	};
	size_t n = SANITIZED ? 1 : ARRAY_LEN(faults);

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
