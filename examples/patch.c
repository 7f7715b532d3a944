// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Makes one disk like another by writing only what differs:
 *
 *     patch NEW OLD
 *
 * With an overlay as OLD this records the difference between NEW and the overlay's backing file.
 *
 *     cc patch.c $(pkg-config --cflags --libs imgkit) -o patch
 */
#include <imgkit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536

struct patch {
	struct imgkit_image *from, *to;
	unsigned char a[CHUNK], b[CHUNK];
	uint64_t copied, zeroed;
};

/* Copies those of len (at most CHUNK) bytes that differ. */
static int patch_data(struct patch *p, uint64_t off, size_t len, struct imgkit_err *err)
{
	int r;

	r = imgkit_pread(p->from, p->a, len, off, err);
	if (r == 0)
		r = imgkit_pread(p->to, p->b, len, off, err);
	if (r || memcmp(p->a, p->b, len) == 0)
		return r;
	p->copied += len;
	return imgkit_pwrite(p->to, p->a, len, off, err);
}

/* Zeroes len (at most CHUNK) bytes that are not zero yet. */
static int patch_zero(struct patch *p, uint64_t off, size_t len, struct imgkit_err *err)
{
	static const unsigned char zeros[CHUNK];
	int r = imgkit_pread(p->to, p->b, len, off, err);

	if (r || memcmp(p->b, zeros, len) == 0)
		return r;
	p->zeroed += len;
	return imgkit_zero(p->to, off, len, IMGKIT_ZERO_UNMAP, err);
}

/* The same for any length: what the target holds as zeros already is not read. */
static int patch_hole(struct patch *p, uint64_t off, uint64_t end, struct imgkit_err *err)
{
	while (off < end) {
		uint64_t len = CHUNK - off % CHUNK;
		struct imgkit_extent ext;
		int r = imgkit_map(p->to, off, end - off, &ext, err);

		if (r)
			return r;
		if (ext.kind == IMGKIT_ABSENT || ext.kind == IMGKIT_ZERO) {
			off += ext.len;
			continue;
		}
		len = len < ext.len ? len : ext.len;
		r = patch_zero(p, off, len, err);
		if (r)
			return r;
		off += len;
	}
	return 0;
}

static int patch_extent(struct patch *p, const struct imgkit_extent *ext, struct imgkit_err *err)
{
	uint64_t end = ext->off + ext->len;

	if (ext->kind == IMGKIT_ABSENT || ext->kind == IMGKIT_ZERO)
		return patch_hole(p, ext->off, end, err);
	for (uint64_t off = ext->off; off < end;) {
		uint64_t len = CHUNK - off % CHUNK;
		int r = patch_data(p, off, len < end - off ? len : end - off, err);

		if (r)
			return r;
		off += len;
	}
	return 0;
}

static int patch(struct patch *p, struct imgkit_err *err)
{
	uint64_t size = imgkit_size(p->from);
	struct imgkit_extent ext;
	int r;

	if (imgkit_size(p->to) != size) {
		r = imgkit_resize(p->to, size, IMGKIT_PREALLOC_OFF, err);
		if (r)
			return r;
	}
	for (uint64_t off = 0; off < size; off += ext.len) {
		r = imgkit_map(p->from, off, size - off, &ext, err);
		if (r == 0)
			r = patch_extent(p, &ext, err);
		if (r)
			return r;
	}
	/* Closing cannot tell of errors, so ask for them now. */
	return imgkit_flush(p->to, err);
}

int main(int argc, char **argv)
{
	static struct patch p;
	struct imgkit_err err = {0};
	IMGKIT_OPTS(imgkit_open_opts, writable);
	int r;

	if (argc != 3) {
		fprintf(stderr, "usage: patch NEW OLD\n");
		return 2;
	}
	writable.flags = IMGKIT_RDWR;
	r = imgkit_open(argv[1], NULL, &p.from, &err);
	if (r == 0)
		r = imgkit_open(argv[2], &writable, &p.to, &err);
	if (r == 0)
		r = patch(&p, &err);
	imgkit_close(p.from);
	imgkit_close(p.to);
	if (r) {
		fprintf(stderr, "patch: %s\n", err.msg);
		return 1;
	}
	printf("%llu bytes written, %llu bytes zeroed\n", (unsigned long long)p.copied,
	       (unsigned long long)p.zeroed);
	return 0;
}
