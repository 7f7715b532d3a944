// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Operations on a sound qcow2 image against a copy in plain memory. Input: what kind of image, then
 * one operation after the other, each a byte and its parameters.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "formats/qcow2/check.h"
#include "image/build.h"
#include "image/img.h"
#include "input.h"

#define MOST      (96 * KiB) /* of the disk, ever */
#define MAX_OPS   200
#define SNAPSHOTS 4

struct state {
	struct input in;
	struct io *file, *below; /* owned; below may be NULL */
	struct img *img;
	unsigned version, refcount_bits;
	uint64_t size;
	unsigned char disk[MOST];
	unsigned char shot[SNAPSHOTS][MOST];
	uint64_t shot_size[SNAPSHOTS];
	char shot_name[SNAPSHOTS][8];
	unsigned n_shots, next_shot;
	unsigned char buf[MOST];
	uint8_t fill;
};

/* ---- the image ---- */

static void create(struct state *s, uint8_t kind)
{
	static const unsigned clusters[] = {512, 1024, 4096, 16384};
	struct create_args args = {.size = s->size};
	struct opts opts = {0};
	struct build *b;
	char text[128];

	s->version = kind & 4 ? 2 : 3;
	s->refcount_bits = s->version == 2 ? 16 : 1u << (kind >> 4) % 7;
	snprintf(text, sizeof(text), "cluster_size=%u,compat=%s,refcount_bits=%u%s",
		 clusters[kind & 3], s->version == 2 ? "0.10" : "1.1", s->refcount_bits,
		 s->version == 3 && (kind & 8) ? ",lazy_refcounts=on" : "");
	require(opts_parse(&opts, text, NULL) == 0);
	args.opts = &opts;
	if (s->below) {
		args.backing = "below";
		args.backing_format = "raw";
	}
	require(format_find("qcow2")->build(s->file, &args, 0, &b, NULL) == 0);
	require(build_finish(b, NULL) == 0);
	build_close(b);
	opts_free(&opts);
}

static void open_image(struct state *s)
{
	struct img *backing = NULL;

	if (s->below)
		require(img_open_io(input_borrow(s->below), "raw", 0, NULL, &backing, NULL) == 0);
	require(img_open_io(input_borrow(s->file), "qcow2", IMG_RDWR, backing, &s->img, NULL) == 0);
}

static void begin(struct state *s)
{
	uint8_t kind = input_u8(&s->in);
	uint64_t below = input_below(&s->in, 2) ? (1 + input_below(&s->in, MOST / 512)) * 512 : 0;

	s->size = (1 + input_below(&s->in, MOST / 512)) * 512;
	s->file = input_file("", 0, "ops.qcow2");
	if (below) {
		memset(s->disk, 0xbb, min_u64(below, s->size));
		memset(s->buf, 0xbb, below);
		s->below = input_file(s->buf, below, "below");
	}
	create(s, kind);
	open_image(s);
}

/* ---- operations ---- */

static void some_range(struct state *s, uint64_t *off, uint64_t *len)
{
	*off = (uint64_t)input_below(&s->in, MOST / 128) * 128;
	*len = 1 + input_below(&s->in, input_below(&s->in, 2) ? 40000 : 1500);
	if (*off >= s->size)
		*off %= s->size;
	*len = min_u64(*len, s->size - *off);
}

static void op_write(struct state *s)
{
	uint64_t off, len;

	some_range(s, &off, &len);
	memset(s->disk + off, ++s->fill, len);
	require(io_pwrite(&s->img->io, s->disk + off, len, off, NULL) == 0);
}

static void op_zero(struct state *s)
{
	unsigned flags = input_below(&s->in, 2) ? IO_ZERO_UNMAP : 0;
	uint64_t off, len;

	some_range(s, &off, &len);
	require(io_zero(&s->img->io, off, len, flags, NULL) == 0);
	memset(s->disk + off, 0, len);
}

static void op_discard(struct state *s)
{
	uint64_t off, len;

	some_range(s, &off, &len);
	require(io_discard(&s->img->io, off, len, NULL) == 0);
	require(io_pread(&s->img->io, s->buf, len, off, NULL) == 0);
	for (uint64_t i = 0; i < len; i++)
		require(!s->buf[i] || s->buf[i] == s->disk[off + i]);
	memcpy(s->disk + off, s->buf, len);
}

static void compare(struct state *s)
{
	require(io_size(&s->img->io) == s->size);
	require(io_pread(&s->img->io, s->buf, s->size, 0, NULL) == 0);
	require(!memcmp(s->buf, s->disk, s->size));
}

static void op_read(struct state *s)
{
	uint64_t off, len;

	some_range(s, &off, &len);
	require(io_pread(&s->img->io, s->buf, len, off, NULL) == 0);
	require(!memcmp(s->buf, s->disk + off, len));
}

static void op_flush(struct state *s)
{
	require(io_flush(&s->img->io, NULL) == 0);
}

static void op_resize(struct state *s)
{
	uint64_t size = (1 + input_below(&s->in, MOST / 512)) * 512;
	int r = img_resize(s->img, size, PREALLOC_OFF, NULL);

	if (r == -ENOTSUP && s->version == 2 && s->n_shots)
		return;
	require(r == 0);
	if (size > s->size)
		memset(s->disk + s->size, 0, size - s->size);
	s->size = size;
}

static void op_snapshot(struct state *s)
{
	unsigned n = s->n_shots;
	int r;

	if (n == SNAPSHOTS)
		return;
	snprintf(s->shot_name[n], sizeof(s->shot_name[n]), "s%u", s->next_shot++ % 1000);
	r = img_snapshot_create(s->img, s->shot_name[n], NULL, NULL);
	if (r == -EINVAL && s->refcount_bits < 4)
		return;
	require(r == 0);
	memcpy(s->shot[n], s->disk, s->size);
	s->shot_size[n] = s->size;
	s->n_shots++;
}

static unsigned some_shot(struct state *s, unsigned *index)
{
	unsigned i = input_below(&s->in, s->n_shots);

	require(img_snapshot_find(s->img, s->shot_name[i], index, NULL) == 0);
	return i;
}

static void op_apply(struct state *s)
{
	unsigned i, index;
	int r;

	if (!s->n_shots)
		return;
	i = some_shot(s, &index);
	r = img_snapshot_apply(s->img, index, NULL);
	if (r == -EINVAL && s->refcount_bits < 4)
		return;
	require(r == 0);
	memcpy(s->disk, s->shot[i], s->shot_size[i]);
	s->size = s->shot_size[i];
}

static void op_remove(struct state *s)
{
	unsigned i, index, last = s->n_shots - 1;

	if (!s->n_shots)
		return;
	i = some_shot(s, &index);
	require(img_snapshot_remove(s->img, index, NULL) == 0);
	memcpy(s->shot[i], s->shot[last], MOST);
	memcpy(s->shot_name[i], s->shot_name[last], sizeof(s->shot_name[i]));
	s->shot_size[i] = s->shot_size[last];
	s->n_shots--;
}

/* Closed, or dropped as by a crash after a flush. */
static void op_reopen(struct state *s)
{
	if (input_below(&s->in, 2)) {
		op_flush(s);
		atomic_store(&s->img->broken, EIO);
	}
	io_close(&s->img->io);
	open_image(s);
	compare(s);
}

/* ---- the end ---- */

static void check_clean(struct state *s)
{
	struct check_result res;

	require(img_settle(s->img, NULL) == 0);
	require(img_check(s->img, 0, &res, NULL, NULL, NULL) == 0);
	require(!res.corruptions && !res.check_errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const ops[])(struct state *) = {
		op_write, op_write,    op_write, op_zero,    op_discard, op_read,
		op_flush, op_snapshot, op_apply, op_remove,  op_resize,  op_reopen,
		op_write, op_write,    op_flush, op_discard,
	};
	static struct state state; /* large, and mostly never touched */
	struct state *s = &state;

	*s = (struct state){.in = {data, size}};
	begin(s);
	for (unsigned i = 0; i < MAX_OPS && s->in.len; i++)
		ops[input_u8(&s->in) % ARRAY_LEN(ops)](s);
	compare(s);
	check_clean(s);
	io_close(&s->img->io);
	io_close(s->file);
	io_close(s->below);
	return 0;
}
