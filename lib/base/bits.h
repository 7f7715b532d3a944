/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Maps of bits as qcow2 stores bitmaps and we keep our own: bit i is bit i % 8 of byte i / 8. */
#ifndef IMGKIT_BASE_BITS_H
#define IMGKIT_BASE_BITS_H

#include <stdbool.h>
#include <stdint.h>

static inline bool bit_get(const unsigned char *map, uint64_t i)
{
	return map[i / 8] >> (i % 8) & 1;
}

/* The first bit of [from, to) that is not `set`, or to. */
uint64_t bits_run_end(const unsigned char *map, uint64_t from, uint64_t to, bool set);

#endif
