/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The last step before a cell runs: the cage's process keeps only what running it takes. */
#ifndef IMGKIT_APPLIANCE_JAIL_H
#define IMGKIT_APPLIANCE_JAIL_H

#include "base/err.h"

/* See sandbox_seal; the list is in jail.c. */
int jail_seal(struct err *err);

#endif
