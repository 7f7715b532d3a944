/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IMGKIT_APPLIANCE_BLOB_H
#define IMGKIT_APPLIANCE_BLOB_H

#include <stddef.h>

/* The agent: a static ELF for x86-64. */
const void *agent_blob(size_t *size);

#endif
