/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors: a negative errno as the return value, and a caller-owned struct err for the text.
 *
 * Text is written once, where the fact is known (file, offset, field, value); callers may prepend
 * context. No heap, so reporting an error cannot fail; every function takes NULL for "no text
 * wanted". A struct err belongs to one thread at a time: each worker has its own.
 */
#ifndef IMGKIT_BASE_ERR_H
#define IMGKIT_BASE_ERR_H

#include <stdint.h>

struct err {
	int code; /* positive errno; 0 = none */
	char msg[480];
};

/* Sets code (positive errno) and text. Returns -code. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Like err_set, and appends ": " strerror(code). */
int err_sys(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prepends "context: " to the text in err. Returns r unchanged, so `return err_ctx(err, r, …)`. */
int err_ctx(struct err *err, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * The one funnel for "this image is corrupt": text "NAME: at offset AT: fact". `at` is the byte
 * offset in the file of the field that is wrong. Returns -EUCLEAN.
 */
int err_corrupt(struct err *err, const char *name, uint64_t at, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* -ENOMEM with "out of memory (BYTES bytes for WHAT)". */
int err_nomem(struct err *err, uint64_t bytes, const char *what);

#endif
