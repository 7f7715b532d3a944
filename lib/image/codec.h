/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compression of single clusters (grains): raw deflate (RFC 1951) and Zstandard (RFC 8878).
 *
 * Decoding always fills a buffer of known size, so what a hostile stream claims about itself never
 * decides how much memory is used: there is no window buffer, the output is the window. Contexts
 * are kept in a pool per image; there is no global state.
 */
#ifndef IMGKIT_IMAGE_CODEC_H
#define IMGKIT_IMAGE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum codec_type {
	CODEC_DEFLATE, /* raw deflate, no header, no checksum */
	CODEC_ZSTD,    /* one or more Zstandard frames */
};

/* ---- decoding: one pool per image, thread-safe ---- */
struct codec_pool;

int codec_pool_open(struct codec_pool **pool, struct err *err);
void codec_pool_close(struct codec_pool *pool); /* NULL is fine; no decode may be running */

/*
 * Decodes `in` to exactly out_len bytes. The stream may end before in_len (what follows is not
 * looked at), and a deflate stream may go on after the output is full, as the peer allows; the last
 * zstd frame must be complete. -EUCLEAN with the fact, without file and offset: the caller puts
 * them in front. -ENOMEM. The content of `out` is undefined after an error.
 */
int codec_decode(struct codec_pool *pool, enum codec_type type, const void *in, size_t in_len,
		 void *out, size_t out_len, struct err *err);

/* ---- encoding: one encoder per worker thread ---- */
struct codec_encoder;

struct codec_params {
	enum codec_type type;
	int level;   /* 0: the default; see codec_max_level */
	size_t unit; /* bytes that are compressed at a time, for the default; 0: many */
	bool narrow; /* deflate: refer back 4 KiB at most, for readers that keep no more */
};

/* Highest level that codec_encoder_open takes; the lowest is 1. */
int codec_max_level(const struct codec_params *params);

/* -EINVAL: no such level. -ENOMEM. */
int codec_encoder_open(const struct codec_params *params, struct codec_encoder **enc,
		       struct err *err);
void codec_encoder_close(struct codec_encoder *enc); /* NULL is fine */

/* The coded length, 0 when it would take more than `room` bytes, or -ENOMEM. */
int64_t codec_encode(struct codec_encoder *enc, const void *in, size_t in_len, void *out,
		     size_t room, struct err *err);

#endif
