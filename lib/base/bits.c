// SPDX-License-Identifier: LGPL-2.1-or-later
/* Runs of equal bits; see bits.h. */
#include "base/bits.h"

#include <string.h>

#include "base/bytes.h"

uint64_t bits_run_end(const unsigned char *map, uint64_t from, uint64_t to, bool set)
{
	while (from < to) {
		le64 word;
		uint64_t other;

		if (!is_aligned(from, 64) || to - from < 64) {
			if (bit_get(map, from) != set)
				return from;
			from++;
			continue;
		}
		memcpy(&word, map + from / 8, sizeof(word));
		other = set ? ~le64_get(word) : le64_get(word);
		if (other)
			return from + (unsigned)__builtin_ctzll(other);
		from += 64;
	}
	return to;
}
