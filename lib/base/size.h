/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write them: "10G", "512k", "1.5T"; and as the peer prints them: "9.5 GiB". */
#ifndef IMGKIT_BASE_SIZE_H
#define IMGKIT_BASE_SIZE_H

#include <stdint.h>

#include "base/err.h"

/*
 * Decimal number (fraction allowed with a suffix above b) and an optional suffix b k K M G T P E,
 * 1024-based; no suffix means bytes. -EINVAL, -ERANGE (above INT64_MAX).
 */
int size_parse(const char *text, uint64_t *bytes, struct err *err);

/* "%0.3g UNIT" with IEC units, the unit switching at 1000, as qemu's size_to_str. buf >= 32. */
const char *size_format(uint64_t bytes, char *buf, unsigned room);

#endif
