// SPDX-License-Identifier: GPL-2.0-or-later
/* See disk.h. */
#include "disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "image/build.h"
#include "tell.h"

struct io *disk_new(const char *name)
{
	struct err e = {0};
	struct io *io;

	must(mem_open(name, 0, &io, &e), &e);
	return io;
}

struct io *disk_from_bytes(const void *bytes, uint64_t len, const char *name)
{
	struct io *io = disk_new(name);
	struct err e = {0};

	must(io_resize(io, len, &e), &e);
	/* Holes stay holes. */
	for (uint64_t at = 0; at < len; at += 65536) {
		uint64_t n = min_u64(len - at, 65536);

		if (!bytes_are_zero((const char *)bytes + at, n))
			must(io_pwrite(io, (const char *)bytes + at, n, at, &e), &e);
	}
	return io;
}

unsigned char *disk_bytes(struct io *io, uint64_t *len)
{
	unsigned char *p = malloc(io_size(io) ? io_size(io) : 1);
	struct err e = {0};

	expect(p);
	*len = io_size(io);
	must(io_pread(io, p, *len, 0, &e), &e);
	return p;
}

struct io *disk_copy(struct io *from, const char *name)
{
	uint64_t len;
	unsigned char *p = disk_bytes(from, &len);
	struct io *io = disk_from_bytes(p, len, name);

	free(p);
	return io;
}

struct io *disk_load(const char *path)
{
	FILE *f = fopen(path, "rb");
	unsigned char *p;
	struct io *io;
	long len;

	if (!f || fseek(f, 0, SEEK_END) || (len = ftell(f)) < 0)
		die("%s: cannot be read", path);
	rewind(f);
	p = malloc((size_t)len + 1);
	expect(p && fread(p, 1, (size_t)len, f) == (size_t)len);
	fclose(f);
	io = disk_from_bytes(p, (uint64_t)len, path);
	free(p);
	return io;
}

void bytes_save(const void *bytes, uint64_t len, const char *path)
{
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(bytes, 1, len, f) != len || fclose(f))
		die("%s: cannot be written", path);
}

void disk_save(struct io *io, const char *path)
{
	uint64_t len;
	unsigned char *p = disk_bytes(io, &len);

	bytes_save(p, len, path);
	free(p);
}

struct io *disk_borrow(struct io *inner)
{
	static struct trace_stats stats; /* nobody looks at the sums */
	struct err e = {0};
	struct io *io;

	must(trace_open(inner, false, &stats, &io, &e), &e);
	return io;
}

static struct build *begin(struct io *file, const char *format, const struct fill_args *args)
{
	const struct format *fmt = format_find(format);
	struct create_args create = {.size = args->size,
				     .backing = args->backing,
				     .backing_format = args->backing_format,
				     .data = args->external};
	struct opts opts = {0};
	struct build *b = NULL;
	struct err e = {0};

	if (args->opts && *args->opts)
		must(opts_parse(&opts, args->opts, &e), &e);
	create.opts = &opts;
	must(fmt->build(file, &create, 0, &b, &e), &e);
	opts_free(&opts);
	return b;
}

static void finish(struct build *b)
{
	struct err e = {0};

	must(build_finish(b, &e), &e);
	build_close(b);
}

void disk_create(struct io *file, const char *format, uint64_t size, const char *opts,
		 const char *backing, const char *backing_format)
{
	struct fill_args args = {
		.size = size, .opts = opts, .backing = backing, .backing_format = backing_format};

	finish(begin(file, format, &args));
}

void disk_create_data(struct io *file, struct io *data, uint64_t size, const char *opts)
{
	struct fill_args args = {.size = size, .opts = opts, .external = data};

	finish(begin(file, "qcow2", &args));
}

struct img *disk_open_data(struct io *file, struct io *data, unsigned flags, struct img *backing)
{
	struct img *img = disk_open(file, "qcow2", flags, backing);
	struct io *io = disk_borrow(data);
	struct err e = {0};

	must(img_set_data_file(img, io, &e), &e);
	return img;
}

struct img *disk_open(struct io *file, const char *format, unsigned flags, struct img *backing)
{
	struct io *io = disk_borrow(file);
	struct err e = {0};
	struct img *img;

	must(img_open_io(io, format, flags, backing, &img, &e), &e);
	return img;
}

/* Cluster at `off` compressed; false when it does not get smaller. */
static bool put_coded(struct build *b, struct codec_encoder *enc, uint64_t off,
		      const unsigned char *cluster)
{
	unsigned char *out = malloc(b->unit);
	struct err e = {0};
	uint64_t host;
	int64_t n;

	expect(out);
	n = codec_encode(enc, cluster, b->unit, out, b->unit - 1, &e);
	must(n, &e);
	if (n) {
		must(build_reserve_coded(b, off, (size_t)n, &host, &e), &e);
		must(io_pwrite(b->file, out, (size_t)n, host, &e), &e);
	}
	free(out);
	return n != 0;
}

static void put_data(struct build *b, uint64_t off, const unsigned char *cluster)
{
	struct err e = {0};
	uint64_t host;

	must(build_reserve(b, off, b->unit, &host, &e), &e);
	must(io_pwrite(b->file, cluster, b->unit, host, &e), &e);
}

static void put(struct build *b, struct codec_encoder *enc, uint64_t off,
		const unsigned char *cluster, enum fill kind)
{
	struct err e = {0};
	int r;

	switch (kind) {
	case FILL_CODED:
		if (!put_coded(b, enc, off, cluster))
			put_data(b, off, cluster);
		break;
	case FILL_DATA:
		put_data(b, off, cluster);
		break;
	case FILL_ZERO:
		r = build_zero(b, off, b->unit, &e);
		if (r == -ENOTSUP)
			put_data(b, off, cluster);
		else
			must(r, &e);
		break;
	case FILL_NONE:
		break;
	}
}

void disk_fill(struct io *file, const char *format, const struct fill_args *args)
{
	struct build *b = begin(file, format, args);
	struct codec_params params = {.type = b->codec, .narrow = true};
	struct codec_encoder *enc = NULL;
	unsigned char *cluster = malloc(b->unit);
	struct err e = {0};

	expect(cluster);
	must(codec_encoder_open(&params, &enc, &e), &e);
	for (uint64_t off = 0; off < args->size; off += b->unit) {
		uint64_t n = min_u64(b->unit, args->size - off);

		memcpy(cluster, args->data + off, n);
		memset(cluster + n, 0, b->unit - n);
		put(b, enc, off, cluster, args->kind(args->ctx, off / b->unit));
	}
	codec_encoder_close(enc);
	free(cluster);
	finish(b);
}
