// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Compressed clusters: any bytes as a stream to decode; and what is encoded decodes to the same.
 * Input: flags, output length, then the stream or the data.
 */
#include <stdlib.h>
#include <string.h>

#include "image/codec.h"
#include "input.h"

#define MOST 65536

static struct codec_pool *pool;

static void decode(enum codec_type type, const struct input *in, size_t out_len)
{
	unsigned char *out = malloc(out_len);
	struct err err = {0};
	int r;

	require(out);
	r = codec_decode(pool, type, in->p, in->len, out, out_len, &err);
	require(r <= 0 && (r == 0 || err.msg[0]));
	free(out);
}

static void round_trip(const struct codec_params *params, const struct input *in)
{
	unsigned char *coded = malloc(in->len + 1), *back = malloc(in->len + 1);
	struct codec_encoder *enc;
	int64_t n;

	require(coded && back);
	require(codec_encoder_open(params, &enc, NULL) == 0);
	n = codec_encode(enc, in->p, in->len, coded, in->len, NULL);
	require(n >= 0 && (uint64_t)n <= in->len);
	if (n) {
		require(codec_decode(pool, params->type, coded, (size_t)n, back, in->len, NULL) ==
			0);
		require(!memcmp(back, in->p, in->len));
	}
	codec_encoder_close(enc);
	free(coded);
	free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint8_t flags = input_u8(&in);
	struct codec_params params = {
		.type = flags & 1 ? CODEC_ZSTD : CODEC_DEFLATE,
		.narrow = flags & 2,
	};
	size_t out_len = 1 + input_below(&in, MOST);

	if (!pool)
		require(codec_pool_open(&pool, NULL) == 0);
	if (flags & 4) {
		params.level = 1 + (flags >> 3) % codec_max_level(&params);
		round_trip(&params, &in);
	} else {
		decode(params.type, &in, out_len);
	}
	return 0;
}
