/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Secrets that the user gave by name (`--object secret,id=…`), for images that need one. */
#ifndef IMGKIT_BASE_SECRETS_H
#define IMGKIT_BASE_SECRETS_H

#include <stddef.h>

#include "base/opt.h"

#define SECRET_MAX (1u << 20) /* bytes, as text and decoded */

/* Never in swap where the system allows it, wiped when freed; a 0 byte follows that is not counted. */
struct secret {
	char *id;
	unsigned char *data;
	size_t len; /* bytes */
};

/* Zero-initialise; free with secrets_free. */
struct secrets {
	struct secret *v;
	unsigned n;
};

/*
 * Adds what `id`, `data` or `file`, and `format` (raw, base64) in opts say; reads the file. -EINVAL,
 * -ENOTSUP (`keyid`: encrypted by another secret), -EFBIG, -ENOMEM, or what opening the file gives.
 */
int secrets_add(struct secrets *secrets, const struct opts *opts, struct err *err);

/* NULL: there is none. */
const struct secret *secrets_find(const struct secrets *secrets, const char *id);

void secrets_free(struct secrets *secrets);

#endif
