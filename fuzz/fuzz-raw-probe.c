// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Files of unknown format: probing is total, a raw disk that was found by probing reads as its bytes,
 * and its guest cannot turn it into another format.
 * Input: offset and length of a write, then the file; its tail is what is written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "image/img.h"
#include "input.h"

/* NULL: it is of a format that we know by its header only. */
static const struct format *probe(struct io *file)
{
	const struct format *fmt = NULL;
	int r = img_probe(file, &fmt, NULL);

	require(r == -ENOTSUP || (r == 0 && fmt));
	return r == 0 ? fmt : NULL;
}

static void read_raw(struct img *img, const struct input *in)
{
	uint64_t size = io_size(&img->io);
	unsigned char *buf = malloc(size + 1);

	require(buf);
	require(size == round_up(in->len, 512));
	require(io_pread(&img->io, buf, size, 0, NULL) == 0);
	require(!in->len || !memcmp(buf, in->p, in->len));
	require(bytes_are_zero(buf + in->len, size - in->len));
	free(buf);
}

/* Raw stays raw, whatever is written. */
static void write_raw(struct img *img, struct io *file, const uint8_t *p, size_t len, uint64_t off)
{
	struct err err = {0};
	int r;

	off = min_u64(off, io_size(&img->io));
	len = min_u64(len, io_size(&img->io) - off);
	r = io_pwrite(&img->io, p, len, off, &err);
	require(r == 0 || (r == -EPERM && err.msg[0]));
	require(probe(file) == img->fmt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint64_t off = input_below(&in, 65536);
	size_t len = input_below(&in, 4096);
	struct io *file = input_file(in.p, in.len, "probed");
	const struct format *fmt = probe(file);
	struct err err = {0};
	struct img *img;
	struct io *io = input_borrow(file);
	int r = img_open_io(io, NULL, IMG_RDWR, NULL, &img, &err);

	if (r < 0) {
		/* Recognised and broken is an error, never raw. */
		require(err.msg[0] && (!fmt || strcmp(fmt->name, "raw")));
		io_close(io);
	} else {
		require(img->fmt == fmt);
		if (!strcmp(fmt->name, "raw")) {
			read_raw(img, &in);
			len = min_u64(len, in.len);
			write_raw(img, file, in.p + in.len - len, len, off);
		}
		io_close(&img->io);
	}
	io_close(file);
	return 0;
}
