// SPDX-License-Identifier: GPL-2.0-or-later
/* Codecs: what they write can be read here and by the peer's way of reading; hostile streams. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "image/codec.h"
#include "lib/rng.h"

#define CLUSTER 65536

static struct err e;
static struct codec_pool *pool;
static unsigned char in[CLUSTER], coded[2 * CLUSTER], out[CLUSTER];

static int setup(void **state)
{
	(void)state;
	e = (struct err){0};
	return codec_pool_open(&pool, &e);
}

static int teardown(void **state)
{
	(void)state;
	codec_pool_close(pool);
	return 0;
}

/* Text-like: compresses to about a third, with matches both near and far. */
static void fill_text(uint64_t seed)
{
	struct rng rng = {.state = seed};
	size_t n = 0;

	while (n < CLUSTER) {
		char word[32];
		int len = snprintf(word, sizeof(word), "word%u ", (unsigned)rng_below(&rng, 3000));

		for (int i = 0; i < len && n < CLUSTER; i++)
			in[n++] = (unsigned char)word[i];
	}
}

static void fill_random(uint64_t seed)
{
	struct rng rng = {.state = seed};

	for (size_t i = 0; i < CLUSTER; i++)
		in[i] = (unsigned char)rng_below(&rng, 256);
}

static size_t encode(const struct codec_params *params, size_t room)
{
	struct codec_encoder *enc = NULL;
	int64_t n;

	ok(codec_encoder_open(params, &enc, &e), &e);
	n = codec_encode(enc, in, CLUSTER, coded, room, &e);
	codec_encoder_close(enc);
	assert_true(n >= 0);
	return (size_t)n;
}

static void round_trip(enum codec_type type, bool narrow)
{
	for (int level = 0; level <= 12 && level <= (narrow ? 9 : 12); level++) {
		const struct codec_params params = {.type = type, .level = level, .narrow = narrow};
		size_t n;

		fill_text((uint64_t)level + 1);
		n = encode(&params, CLUSTER - 1);
		assert_in_range(n, 1000, CLUSTER / 2);
		memset(out, 0xee, sizeof(out));
		ok(codec_decode(pool, type, coded, n, out, CLUSTER, &e), &e);
		assert_memory_equal(in, out, CLUSTER);
	}
}

static void reads_what_it_wrote(void **state)
{
	(void)state;
	round_trip(CODEC_DEFLATE, false);
	round_trip(CODEC_DEFLATE, true);
	round_trip(CODEC_ZSTD, false);
}

static void random_data_does_not_fit(void **state)
{
	const struct codec_params all[] = {{.type = CODEC_DEFLATE},
					   {.type = CODEC_DEFLATE, .narrow = true},
					   {.type = CODEC_ZSTD}};

	(void)state;
	fill_random(1);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(encode(&all[i], CLUSTER - 1), 0);
}

/* An encoder that had something that did not fit is as good as new. */
static void encoder_recovers(void **state)
{
	const struct codec_params all[] = {{.type = CODEC_DEFLATE},
					   {.type = CODEC_DEFLATE, .narrow = true},
					   {.type = CODEC_ZSTD}};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct codec_encoder *enc;
		int64_t n;

		ok(codec_encoder_open(&all[i], &enc, &e), &e);
		fill_random(2);
		assert_int_equal(codec_encode(enc, in, CLUSTER, coded, 1000, &e), 0);
		fill_text(3);
		n = codec_encode(enc, in, CLUSTER, coded, CLUSTER - 1, &e);
		assert_true(n > 0);
		ok(codec_decode(pool, all[i].type, coded, (size_t)n, out, CLUSTER, &e), &e);
		assert_memory_equal(in, out, CLUSTER);
		codec_encoder_close(enc);
	}
}

static void levels_have_limits(void **state)
{
	struct codec_encoder *enc;
	struct codec_params params = {.type = CODEC_DEFLATE, .level = 13};

	(void)state;
	assert_int_equal(codec_max_level(&params), 12);
	fails(codec_encoder_open(&params, &enc, &e), -EINVAL, &e, "between 1 and 12");
	params.narrow = true;
	params.level = 10;
	fails(codec_encoder_open(&params, &enc, &e), -EINVAL, &e, "between 1 and 9");
	params = (struct codec_params){.type = CODEC_ZSTD, .level = 99};
	fails(codec_encoder_open(&params, &enc, &e), -EINVAL, &e, "level 99");
	params.level = -1;
	fails(codec_encoder_open(&params, &enc, &e), -EINVAL, &e, "level -1");
}

/* The promise of "narrow": no reference goes back further than 4 KiB. */
static void narrow_window_is_enough(void **state)
{
	const struct codec_params narrow = {.type = CODEC_DEFLATE, .narrow = true}, wide = {0};
	size_t n[2];

	(void)state;
	fill_text(5);
	n[0] = encode(&wide, CLUSTER - 1);
	n[1] = encode(&narrow, CLUSTER - 1);
	assert_true(n[1] > n[0]);
	/* In small pieces, so that zlib has nothing but its window of 4 KiB. */
	z_stream s = {.next_in = coded, .avail_in = (unsigned)n[1]};

	assert_int_equal(inflateInit2(&s, -12), Z_OK);
	for (size_t at = 0; at < CLUSTER; at += 512) {
		s.next_out = out + at;
		s.avail_out = 512;
		assert_true(inflate(&s, Z_SYNC_FLUSH) >= 0);
		assert_int_equal(s.avail_out, 0);
	}
	inflateEnd(&s);
	assert_memory_equal(in, out, CLUSTER);
}

/* A reader knows the length of a stream in sectors only. */
static void garbage_behind_a_stream_is_ignored(void **state)
{
	const struct codec_params all[] = {{.type = CODEC_DEFLATE}, {.type = CODEC_ZSTD}};

	(void)state;
	fill_text(7);
	for (size_t i = 0; i < 2; i++) {
		size_t n = encode(&all[i], CLUSTER - 1);

		memset(coded + n, 0xa5, 511);
		ok(codec_decode(pool, all[i].type, coded, n + 511, out, CLUSTER, &e), &e);
		assert_memory_equal(in, out, CLUSTER);
	}
}

static void truncated_streams_are_errors(void **state)
{
	const struct codec_params all[] = {{.type = CODEC_DEFLATE}, {.type = CODEC_ZSTD}};

	(void)state;
	fill_text(8);
	for (size_t i = 0; i < 2; i++) {
		size_t n = encode(&all[i], CLUSTER - 1);

		for (size_t len = 0; len < n; len += 1 + n / 97)
			fails(codec_decode(pool, all[i].type, coded, len, out, CLUSTER, &e),
			      -EUCLEAN, &e, "of 65536 bytes");
	}
}

static void short_streams_are_errors(void **state)
{
	const struct codec_params all[] = {{.type = CODEC_DEFLATE}, {.type = CODEC_ZSTD}};

	(void)state;
	fill_text(9);
	for (size_t i = 0; i < 2; i++) {
		struct codec_encoder *enc;
		int64_t n;

		ok(codec_encoder_open(&all[i], &enc, &e), &e);
		n = codec_encode(enc, in, CLUSTER - 1, coded, CLUSTER, &e);
		codec_encoder_close(enc);
		fails(codec_decode(pool, all[i].type, coded, (size_t)n, out, CLUSTER, &e), -EUCLEAN,
		      &e, "ends after 65535 of 65536");
	}
}

/* As the peer: what comes after the output is full does not matter. */
static void deflate_may_go_on(void **state)
{
	const struct codec_params params = {.type = CODEC_DEFLATE};
	size_t n;

	(void)state;
	fill_text(10);
	n = encode(&params, CLUSTER - 1);
	ok(codec_decode(pool, CODEC_DEFLATE, coded, n, out, CLUSTER / 2, &e), &e);
	assert_memory_equal(in, out, CLUSTER / 2);
}

/* … but a zstd frame has to be complete. */
static void zstd_must_end(void **state)
{
	const struct codec_params params = {.type = CODEC_ZSTD};
	size_t n;

	(void)state;
	fill_text(11);
	n = encode(&params, CLUSTER - 1);
	fails(codec_decode(pool, CODEC_ZSTD, coded, n, out, CLUSTER / 2, &e), -EUCLEAN, &e,
	      "invalid");
}

static void zstd_frames_may_follow_each_other(void **state)
{
	static const unsigned char skippable[12] = {0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0};
	size_t n = 0;

	(void)state;
	fill_text(12);
	for (size_t at = 0; at < CLUSTER; at += CLUSTER / 4) {
		memcpy(coded + n, skippable, sizeof(skippable));
		n += sizeof(skippable);
		n += ZSTD_compress(coded + n, sizeof(coded) - n, in + at, CLUSTER / 4, 1);
	}
	ok(codec_decode(pool, CODEC_ZSTD, coded, n, out, CLUSTER, &e), &e);
	assert_memory_equal(in, out, CLUSTER);
	fails(codec_decode(pool, CODEC_ZSTD, coded, n - 1, out, CLUSTER, &e), -EUCLEAN, &e,
	      "after 49152 of 65536");
}

/* A few bytes that stand for a terabyte cost what the cluster costs. */
static void bombs_are_errors(void **state)
{
	/* Magic, a frame header with a window of 2 TiB, and blocks of 128 KiB of one byte. */
	static const unsigned char zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x02,
					     0x00, 0x10, 'x',  0x03, 0x00, 0x10, 'x'};
	static unsigned char big[4 * 1024 * 1024];
	z_stream s = {.next_in = big, .avail_in = sizeof(big)};

	(void)state;
	fails(codec_decode(pool, CODEC_ZSTD, zstd, sizeof(zstd), out, CLUSTER, &e), -EUCLEAN, &e,
	      "invalid");
	assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -15, 9, 0), Z_OK);
	s.next_out = coded;
	s.avail_out = sizeof(coded);
	assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
	ok(codec_decode(pool, CODEC_DEFLATE, coded, s.total_out, out, CLUSTER, &e), &e);
	assert_memory_equal(out, big, CLUSTER);
	deflateEnd(&s);
}

static void noise_is_an_error(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 300; seed++) {
		fill_random(seed + 100);
		in[0] = (unsigned char)seed;
		fails(codec_decode(pool, CODEC_DEFLATE, in, 600, out, CLUSTER, &e), -EUCLEAN, &e,
		      "deflate data");
		fails(codec_decode(pool, CODEC_ZSTD, in, 600, out, CLUSTER, &e), -EUCLEAN, &e,
		      "zstd data");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_it_wrote),
		cmocka_unit_test(random_data_does_not_fit),
		cmocka_unit_test(encoder_recovers),
		cmocka_unit_test(levels_have_limits),
		cmocka_unit_test(narrow_window_is_enough),
		cmocka_unit_test(garbage_behind_a_stream_is_ignored),
		cmocka_unit_test(truncated_streams_are_errors),
		cmocka_unit_test(short_streams_are_errors),
		cmocka_unit_test(deflate_may_go_on),
		cmocka_unit_test(zstd_must_end),
		cmocka_unit_test(zstd_frames_may_follow_each_other),
		cmocka_unit_test(bombs_are_errors),
		cmocka_unit_test(noise_is_an_error),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
