/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A hash function that comes from the caller: this library does not depend on a crypto library. */
#ifndef IMGKIT_BASE_HASH_H
#define IMGKIT_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>

#define CHECKSUM_MAX 64 /* bytes of the longest hash */

struct checksum_hash {
	size_t len; /* bytes of the result, 1 … CHECKSUM_MAX */
	/* A context for one thread; NULL: no memory. */
	void *(*open)(const struct checksum_hash *);
	void (*close)(void *ctx);
	/* out = H(tag || data). False: it failed. */
	bool (*digest)(void *ctx, unsigned char tag, const void *data, size_t len,
		       unsigned char *out);
};

#endif
