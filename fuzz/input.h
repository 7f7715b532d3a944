/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the fuzz targets share: decisions taken from the input, files in memory, and complaints. */
#ifndef IMGKIT_FUZZ_INPUT_H
#define IMGKIT_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/io.h"

/* The rest of the input. When it has ended, all numbers are 0. */
struct input {
	const uint8_t *p;
	size_t len;
};

uint8_t input_u8(struct input *in);
uint32_t input_u32(struct input *in);
/* 0 … n-1. */
uint32_t input_below(struct input *in, uint32_t n);

/* The rest as a C string of at most room-1 bytes, up to its first zero byte. */
const char *input_text(struct input *in, char *buf, size_t room);

/* A file in memory. */
struct io *input_file(const void *bytes, size_t len, const char *name);
/* An io that can be closed without closing `inner`. */
struct io *input_borrow(struct io *inner);

/* Ends the program as a finding. */
#define require(cond)                                           \
	do {                                                    \
		if (!(cond))                                    \
			input_abort(__FILE__, __LINE__, #cond); \
	} while (0)
_Noreturn void input_abort(const char *file, int line, const char *text);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
