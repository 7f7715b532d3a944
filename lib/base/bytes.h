/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * On-disk integers as types, checked arithmetic, and alignment.
 *
 * be32, le64 … are byte arrays: they have no alignment, cannot be used without conversion, and a
 * disk struct made of them has no padding. All inline: the compiler folds them to one bswap.
 */
#ifndef IMGKIT_BASE_BYTES_H
#define IMGKIT_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

#define ARRAY_LEN(a)                  (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

/* clang-format off */
#define IMGKIT_DISK_INT(order, bits)                                                               \
	typedef struct { unsigned char b[(bits) / 8]; } order##bits;                               \
	static inline uint##bits##_t order##bits##_get(order##bits v)                              \
	{ uint##bits##_t x; memcpy(&x, v.b, sizeof(x)); return order##bits##toh(x); }              \
	static inline order##bits order##bits##_make(uint##bits##_t x)                             \
	{ order##bits v; x = hto##order##bits(x); memcpy(v.b, &x, sizeof(x)); return v; }
/* clang-format on */

IMGKIT_DISK_INT(be, 16)
IMGKIT_DISK_INT(be, 32)
IMGKIT_DISK_INT(be, 64)
IMGKIT_DISK_INT(le, 16)
IMGKIT_DISK_INT(le, 32)
IMGKIT_DISK_INT(le, 64)

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* align: a power of two. round_up must not overflow: check with add_ok first when x is hostile. */
static inline uint64_t round_down(uint64_t x, uint64_t align)
{
	return x & ~(align - 1);
}

static inline uint64_t round_up(uint64_t x, uint64_t align)
{
	return (x + align - 1) & ~(align - 1);
}

static inline uint64_t div_up(uint64_t x, uint64_t d)
{
	return x / d + (x % d != 0);
}

static inline bool is_aligned(uint64_t x, uint64_t align)
{
	return (x & (align - 1)) == 0;
}

static inline bool is_pow2(uint64_t x)
{
	return x && !(x & (x - 1));
}

/* log2 of a power of two. */
static inline unsigned log2_u64(uint64_t x)
{
	return (unsigned)__builtin_ctzll(x);
}

/* True and *sum = a + b when that does not wrap. */
static inline bool add_ok(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool mul_ok(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

/* Whether [a, a+alen) and [b, b+blen) share a byte; the ranges must not wrap. */
static inline bool overlaps(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

/* Whether all n bytes are zero. Vectorised; stops early when they are not. */
bool bytes_are_zero(const void *p, size_t n);

/* A read-only buffer of zeros, ZERO_BUF_SIZE bytes, never written. */
#define ZERO_BUF_SIZE 65536
extern const unsigned char zero_buf[ZERO_BUF_SIZE];

#endif
