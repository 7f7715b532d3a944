/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Everything that the appliance can be asked about a disk that nobody knows: each call must end in
 * success or in an error with a text, and the agent must still be there. Else: die.
 */
#ifndef IMGKIT_TESTS_EXPLORE_H
#define IMGKIT_TESTS_EXPLORE_H

#include "appliance/appliance.h"

/* Mounts what there is, for reading, and looks at all of it. The number of calls that worked. */
unsigned explore_read(struct appliance *a);
/* Mounts it and changes it in every way. */
unsigned explore_write(struct appliance *a);
/* Nothing but the volumes. */
unsigned explore_volumes(struct appliance *a);
/* The agent ends as one does that was treated well. */
void explore_end(struct appliance *a);

#endif
