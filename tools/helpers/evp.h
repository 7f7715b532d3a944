/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hash functions of libcrypto, for the helper programs. */
#ifndef IMGKIT_TOOLS_EVP_H
#define IMGKIT_TOOLS_EVP_H

#include <openssl/evp.h>

#include "base/hash.h"
#include "cli.h"

struct evp_hash {
	struct checksum_hash hash; /* first */
	EVP_MD *md;
};

static inline void *evp_open(const struct checksum_hash *hash)
{
	const struct evp_hash *h = (const struct evp_hash *)(const void *)hash;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (ctx && EVP_DigestInit_ex2(ctx, h->md, NULL))
		return ctx;
	EVP_MD_CTX_free(ctx);
	return NULL;
}

static inline void evp_close(void *ctx)
{
	EVP_MD_CTX_free(ctx);
}

static inline bool evp_digest(void *ctx, unsigned char tag, const void *data, size_t len,
			      unsigned char *out)
{
	/* NULL: the algorithm of last time. */
	return EVP_DigestInit_ex2(ctx, NULL, NULL) && EVP_DigestUpdate(ctx, &tag, 1) &&
	       EVP_DigestUpdate(ctx, data, len) && EVP_DigestFinal_ex(ctx, out, NULL);
}

static inline bool evp_find(const struct cli *cli, const char *name, struct evp_hash *h)
{
	h->md = EVP_MD_fetch(NULL, name, NULL);
	if (h->md && EVP_MD_get_size(h->md) > 0 && EVP_MD_get_size(h->md) <= CHECKSUM_MAX &&
	    !(EVP_MD_get_flags(h->md) & EVP_MD_FLAG_XOF)) {
		h->hash = (struct checksum_hash){
			.len = (size_t)EVP_MD_get_size(h->md),
			.open = evp_open,
			.close = evp_close,
			.digest = evp_digest,
		};
		return true;
	}
	cli_error(cli, "Unknown hash function '%s' (see 'openssl list -digest-algorithms')", name);
	return false;
}

#endif
