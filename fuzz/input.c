// SPDX-License-Identifier: GPL-2.0-or-later
/* See input.h. */
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/doubles.h"

uint8_t input_u8(struct input *in)
{
	if (!in->len)
		return 0;
	in->len--;
	return *in->p++;
}

uint32_t input_u32(struct input *in)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 4; i++)
		v = v << 8 | input_u8(in);
	return v;
}

uint32_t input_below(struct input *in, uint32_t n)
{
	uint32_t v = input_u8(in);

	if (n > 256)
		v = v << 8 | input_u8(in);
	if (n > 65536)
		v = v << 16 | (uint32_t)input_u8(in) << 8 | input_u8(in);
	return v % n;
}

const char *input_text(struct input *in, char *buf, size_t room)
{
	size_t n = strnlen((const char *)in->p, in->len);

	n = n < room ? n : room - 1;
	if (n)
		memcpy(buf, in->p, n);
	buf[n] = '\0';
	in->p += n;
	in->len -= n;
	if (in->len) /* the zero byte, or one that was cut off */
		input_u8(in);
	return buf;
}

struct io *input_file(const void *bytes, size_t len, const char *name)
{
	struct io *io;

	require(mem_open(name, 0, &io, NULL) == 0);
	require(io_pwrite(io, bytes, len, 0, NULL) == 0);
	return io;
}

struct io *input_borrow(struct io *inner)
{
	static struct trace_stats stats;
	struct io *io;

	require(trace_open(inner, false, &stats, &io, NULL) == 0);
	return io;
}

void input_abort(const char *file, int line, const char *text)
{
	fprintf(stderr, "%s:%d: not true: %s\n", file, line, text);
	abort();
}
