// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Codecs; see codec.h.
 *
 * Deflate is libdeflate: about three times as fast as zlib in both directions. It decodes whole
 * streams only, so streams that are cut exactly where the output is full, which QEMU accepts, get a
 * second try with zlib. zlib also writes the narrow window (libdeflate has only the 32 KiB one).
 * Zstandard frames are decoded in one call each, straight into the output.
 */
#include "image/codec.h"

#include <errno.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/*
 * Defaults: the fastest levels whose output on disks with a Linux system is not larger than what
 * the peer writes (zlib level 6 with a 4 KiB window; zstd level 3). In small units the wide window
 * is no advantage.
 */
#define DEFLATE_DEFAULT 4
#define DEFLATE_SMALL   5
#define SMALL_UNIT      (32 * KiB)
#define NARROW_DEFAULT  6
#define ZSTD_DEFAULT    3
/*
 * The tables that level 3 has for large inputs, for all: with them there are fewer collisions in a
 * unit of 64 KiB, which makes it some percent faster, and the output a little smaller. They need not
 * be cleared between units, and are still within the second cache.
 */
#define ZSTD_HASH_LOG  17
#define ZSTD_CHAIN_LOG 16

#define NARROW_WINDOW_BITS 12
#define NARROW_MEM_LEVEL   9

/* One thread's worth of decoders; each is made when it is first needed. */
struct decoder {
	struct decoder *next;
	struct libdeflate_decompressor *deflate;
	ZSTD_DCtx *zstd;
};

struct codec_pool {
	pthread_mutex_t lock; /* guards idle */
	struct decoder *idle; /* as many as were ever in use at once */
};

int codec_pool_open(struct codec_pool **pool, struct err *err)
{
	struct codec_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return err_nomem(err, sizeof(*p), "decoders");
	pthread_mutex_init(&p->lock, NULL);
	*pool = p;
	return 0;
}

static void decoder_free(struct decoder *d)
{
	if (d->deflate)
		libdeflate_free_decompressor(d->deflate);
	ZSTD_freeDCtx(d->zstd);
	free(d);
}

void codec_pool_close(struct codec_pool *pool)
{
	if (!pool)
		return;
	while (pool->idle) {
		struct decoder *d = pool->idle;

		pool->idle = d->next;
		decoder_free(d);
	}
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

static struct decoder *decoder_get(struct codec_pool *pool)
{
	LOCK_SCOPE(&pool->lock);
	struct decoder *d = pool->idle;

	if (!d)
		return calloc(1, sizeof(*d));
	pool->idle = d->next;
	return d;
}

static void decoder_put(struct codec_pool *pool, struct decoder *d)
{
	LOCK_SCOPE(&pool->lock);
	d->next = pool->idle;
	pool->idle = d;
}

/* zlib with the output full is a success, whether or not the stream says that it ends there. */
static int inflate_zlib(const void *in, size_t in_len, void *out, size_t out_len, struct err *err)
{
	z_stream s = {
		.next_in = (void *)(uintptr_t)in,
		.avail_in = (unsigned)in_len,
		.next_out = out,
		.avail_out = (unsigned)out_len,
	};
	int r = inflateInit2(&s, -MAX_WBITS);

	if (r != Z_OK)
		return err_nomem(err, 0, "an inflate state");
	r = inflate(&s, Z_FINISH);
	size_t left = s.avail_out;
	inflateEnd(&s);
	if (r == Z_MEM_ERROR)
		return err_nomem(err, 0, "an inflate state");
	if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && left == 0)
		return 0;
	if (r == Z_STREAM_END || r == Z_BUF_ERROR)
		return err_set(err, EUCLEAN, "deflate data ends after %zu of %zu bytes",
			       out_len - left, out_len);
	return err_set(err, EUCLEAN, "deflate data is invalid after %zu of %zu bytes",
		       out_len - left, out_len);
}

static int decode_deflate(struct decoder *d, const void *in, size_t in_len, void *out,
			  size_t out_len, struct err *err)
{
	size_t used, got;

	if (!d->deflate)
		d->deflate = libdeflate_alloc_decompressor();
	if (!d->deflate)
		return err_nomem(err, 0, "an inflate state");
	if (libdeflate_deflate_decompress_ex(d->deflate, in, in_len, out, out_len, &used, &got) ==
		    LIBDEFLATE_SUCCESS &&
	    got == out_len)
		return 0;
	return inflate_zlib(in, in_len, out, out_len, err);
}

/* Current frames and skippable ones; old pre-standard formats, which libzstd may know, are not. */
static bool zstd_frame_known(const unsigned char *in, size_t in_len)
{
	le32 magic;

	if (in_len < sizeof(magic))
		return false;
	memcpy(&magic, in, sizeof(magic));
	return le32_get(magic) == ZSTD_MAGICNUMBER ||
	       (le32_get(magic) & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

static int decode_zstd(struct decoder *d, const unsigned char *in, size_t in_len,
		       unsigned char *out, size_t out_len, struct err *err)
{
	size_t done = 0;

	if (!d->zstd)
		d->zstd = ZSTD_createDCtx();
	if (!d->zstd)
		return err_nomem(err, 0, "a zstd state");
	while (done < out_len) {
		if (!zstd_frame_known(in, in_len))
			return err_set(err, EUCLEAN, "zstd data ends after %zu of %zu bytes", done,
				       out_len);
		/* Every frame has a header: n > 0, so this ends. */
		size_t n = ZSTD_findFrameCompressedSize(in, in_len);
		size_t got = ZSTD_isError(n) ? n
					     : ZSTD_decompressDCtx(d->zstd, out + done,
								   out_len - done, in, n);

		if (ZSTD_isError(got))
			return err_set(err, EUCLEAN,
				       "zstd data is invalid after %zu of %zu bytes: %s", done,
				       out_len, ZSTD_getErrorName(got));
		done += got;
		in += n;
		in_len -= n;
	}
	return 0;
}

int codec_decode(struct codec_pool *pool, enum codec_type type, const void *in, size_t in_len,
		 void *out, size_t out_len, struct err *err)
{
	struct decoder *d = decoder_get(pool);
	int r;

	if (!d)
		return err_nomem(err, sizeof(*d), "a decoder");
	if (type == CODEC_ZSTD)
		r = decode_zstd(d, in, in_len, out, out_len, err);
	else
		r = decode_deflate(d, in, in_len, out, out_len, err);
	decoder_put(pool, d);
	return r;
}

struct codec_encoder {
	struct libdeflate_compressor *deflate; /* one of the three is in use */
	ZSTD_CCtx *zstd;
	bool narrow;
	z_stream zlib; /* with narrow */
	int level;
};

int codec_max_level(const struct codec_params *params)
{
	if (params->type == CODEC_ZSTD)
		return ZSTD_maxCLevel();
	return params->narrow ? Z_BEST_COMPRESSION : 12;
}

static int default_level(const struct codec_params *params)
{
	if (params->type == CODEC_ZSTD)
		return ZSTD_DEFAULT;
	if (params->narrow)
		return NARROW_DEFAULT;
	return params->unit && params->unit < SMALL_UNIT ? DEFLATE_SMALL : DEFLATE_DEFAULT;
}

static bool zstd_set(ZSTD_CCtx *ctx, ZSTD_cParameter param, int value)
{
	return !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, param, value));
}

static bool zstd_start(struct codec_encoder *e, const struct codec_params *params)
{
	e->zstd = ZSTD_createCCtx();
	if (!e->zstd || !zstd_set(e->zstd, ZSTD_c_compressionLevel, e->level))
		return false;
	return params->level || (zstd_set(e->zstd, ZSTD_c_hashLog, ZSTD_HASH_LOG) &&
				 zstd_set(e->zstd, ZSTD_c_chainLog, ZSTD_CHAIN_LOG));
}

static bool encoder_start(struct codec_encoder *e, const struct codec_params *params)
{
	if (params->type == CODEC_ZSTD)
		return zstd_start(e, params);
	if (params->narrow) {
		e->narrow = deflateInit2(&e->zlib, e->level, Z_DEFLATED, -NARROW_WINDOW_BITS,
					 NARROW_MEM_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
		return e->narrow;
	}
	e->deflate = libdeflate_alloc_compressor(e->level);
	return e->deflate != NULL;
}

int codec_encoder_open(const struct codec_params *params, struct codec_encoder **enc,
		       struct err *err)
{
	int max = codec_max_level(params);

	if (params->level < 0 || params->level > max)
		return err_set(err, EINVAL, "compression level %d is not between 1 and %d",
			       params->level, max);
	struct codec_encoder *e = calloc(1, sizeof(*e));

	if (!e)
		return err_nomem(err, sizeof(*e), "an encoder");
	e->level = params->level ? params->level : default_level(params);
	if (!encoder_start(e, params)) {
		codec_encoder_close(e);
		return err_nomem(err, 0, "an encoder");
	}
	*enc = e;
	return 0;
}

void codec_encoder_close(struct codec_encoder *enc)
{
	if (!enc)
		return;
	if (enc->deflate)
		libdeflate_free_compressor(enc->deflate);
	if (enc->narrow)
		deflateEnd(&enc->zlib);
	ZSTD_freeCCtx(enc->zstd);
	free(enc);
}

static size_t encode_narrow(z_stream *s, const void *in, size_t in_len, void *out, size_t room)
{
	deflateReset(s);
	s->next_in = (void *)(uintptr_t)in;
	s->avail_in = (unsigned)in_len;
	s->next_out = out;
	s->avail_out = (unsigned)room;
	return deflate(s, Z_FINISH) == Z_STREAM_END ? s->total_out : 0;
}

static int64_t encode_zstd(struct codec_encoder *enc, const void *in, size_t in_len, void *out,
			   size_t room, struct err *err)
{
	size_t n = ZSTD_compress2(enc->zstd, out, room, in, in_len);

	if (!ZSTD_isError(n))
		return (int64_t)n;
	if (ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall)
		return 0;
	return err_set(err, ENOMEM, "zstd: %s", ZSTD_getErrorName(n));
}

int64_t codec_encode(struct codec_encoder *enc, const void *in, size_t in_len, void *out,
		     size_t room, struct err *err)
{
	if (enc->zstd)
		return encode_zstd(enc, in, in_len, out, room, err);
	if (enc->narrow)
		return (int64_t)encode_narrow(&enc->zlib, in, in_len, out, room);
	return (int64_t)libdeflate_deflate_compress(enc->deflate, in, in_len, out, room);
}
