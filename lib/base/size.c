// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Sizes as text; see size.h.
 *
 * Accepts what qemu-img 7.2 accepts (util/cutils.c, qemu_strtosz): leading blanks, one '+', decimal
 * with an optional fraction, or hexadecimal without one; one suffix letter in either case. In
 * 64.64 fixed point, so nothing depends on the locale.
 */
#include "base/size.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef unsigned __int128 u128;

static int size_invalid(const char *text, struct err *err)
{
	return err_set(err, EINVAL,
		       "'%.100s' is not a size: a number and an optional suffix k, M, G, T, P or E "
		       "is expected",
		       text);
}

static int size_range(const char *text, struct err *err)
{
	return err_set(err, ERANGE, "size '%.100s' is too large", text);
}

/* -1: not a suffix. Otherwise the shift, 0 for b. */
static int suffix_shift(char c)
{
	static const char suffixes[] = "bkmgtpe";
	const char *s;

	if (c >= 'A' && c <= 'Z')
		c = (char)(c - 'A' + 'a');
	s = c ? strchr(suffixes, c) : NULL;
	return s ? (int)(s - suffixes) * 10 : -1;
}

static int digit_value(char c, unsigned base)
{
	int v = c >= '0' && c <= '9'   ? c - '0'
		: c >= 'a' && c <= 'f' ? c - 'a' + 10
		: c >= 'A' && c <= 'F' ? c - 'A' + 10
				       : 16;

	return v < (int)base ? v : -1;
}

/* Reads digits at *p; the value sticks at UINT64_MAX+1 when it overflows. False: no digit. */
static bool read_digits(const char **p, unsigned base, u128 *value)
{
	const u128 limit = (u128)UINT64_MAX + 1;
	bool any = false;
	int d;

	*value = 0;
	while ((d = digit_value(**p, base)) >= 0) {
		*value = *value * base + (unsigned)d;
		if (*value > limit)
			*value = limit;
		any = true;
		(*p)++;
	}
	return any;
}

/* Reads the digits after the point as a fraction of 2^64, rounded down; the 19th and later ones
 * do not count. */
static uint64_t read_fraction(const char **p)
{
	uint64_t num = 0, den = 1;
	double rounded;

	for (; **p >= '0' && **p <= '9'; (*p)++) {
		if (den < UINT64_C(1000000000000000000)) {
			num = num * 10 + (unsigned)(**p - '0');
			den *= 10;
		}
	}
	/* The peer keeps a double: round to 53 bits as it does, for the same size to the byte. */
	rounded = (double)(uint64_t)(((u128)num << 64) / den);
	return rounded < 0x1p64 ? (uint64_t)rounded : UINT64_MAX;
}

int size_parse(const char *text, uint64_t *bytes, struct err *err)
{
	const char *p = text;
	uint64_t frac = 0;
	bool hex;
	int shift;
	u128 whole;

	p += strspn(p, " \t\n\v\f\r");
	p += *p == '+';
	hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
	p += hex ? 2 : 0;
	if (!read_digits(&p, hex ? 16 : 10, &whole))
		return size_invalid(text, err);
	if (!hex && *p == '.') {
		p++;
		frac = read_fraction(&p);
	}
	shift = suffix_shift(*p);
	if (shift >= 0)
		p++;
	if (*p || (shift <= 0 && frac))
		return size_invalid(text, err);
	if (shift > 0) {
		u128 part = (u128)frac << shift;

		/* 0.5 byte rounds up. */
		whole = (whole << shift) + (part >> 64) + ((uint64_t)part >> 63);
	}
	if (whole > INT64_MAX)
		return size_range(text, err);
	*bytes = (uint64_t)whole;
	return 0;
}

const char *size_format(uint64_t bytes, char *buf, unsigned room)
{
	static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
	int exp;

	/* The unit switches where the number would reach 1000, not 1024. */
	frexp((double)bytes / (1000.0 / 1024.0), &exp);
	exp = exp > 0 ? (exp - 1) / 10 : 0;
	snprintf(buf, room, "%0.3g %sB", (double)bytes / (double)(UINT64_C(1) << (exp * 10)),
		 units[exp]);
	return buf;
}
