// SPDX-License-Identifier: LGPL-2.1-or-later
/* Zero detection; see bytes.h. */
#include "base/bytes.h"

const unsigned char zero_buf[ZERO_BUF_SIZE];

/*
 * GCC's vector extension: 64 bytes per step in whatever registers the target has. Unaligned loads
 * via memcpy compile to plain vector loads. Most non-zero data shows in its first bytes, so the
 * head is tested alone before the wide loop starts.
 */
typedef uint64_t vec64 __attribute__((vector_size(64)));

bool bytes_are_zero(const void *p, size_t n)
{
	const unsigned char *b = p;
	uint64_t w, acc = 0;

	while (n >= 64) {
		vec64 v;

		memcpy(&v, b, sizeof(v));
		if (v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7])
			return false;
		b += 64;
		n -= 64;
	}
	for (; n >= 8; n -= 8, b += 8) {
		memcpy(&w, b, 8);
		acc |= w;
	}
	for (; n; n--, b++)
		acc |= *b;
	return acc == 0;
}
