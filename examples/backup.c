// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Keeps a copy of a disk up to date by copying only what was written to it since the last time:
 *
 *     backup IMAGE COPY
 *
 * A persistent bitmap in the image, "backup", remembers what was written. The first time there is
 * none: everything is copied, to a new image, and the bitmap is made. COPY is qcow2.
 *
 *     cc backup.c $(pkg-config --cflags --libs imgkit) -o backup
 */
#include <imgkit.h>
#include <stdio.h>
#include <string.h>

#define BITMAP "backup"
#define CHUNK  65536

struct backup {
	struct imgkit_image *from, *to;
	struct imgkit_err err;
	uint64_t copied;
};

/* One stretch of what was written. */
static int copy(void *ctx, uint64_t off, uint64_t len)
{
	static unsigned char buf[CHUNK];
	struct backup *b = ctx;

	while (len) {
		size_t n = len < CHUNK ? (size_t)len : CHUNK;
		int r = imgkit_pread(b->from, buf, n, off, &b->err);

		if (r == 0)
			r = imgkit_pwrite(b->to, buf, n, off, &b->err);
		if (r)
			return r;
		b->copied += n;
		off += n;
		len -= n;
	}
	return 0;
}

/* All of the disk that is not zeros. */
static int copy_all(struct backup *b)
{
	uint64_t size = imgkit_size(b->from);
	struct imgkit_extent ext;
	int r = 0;

	for (uint64_t off = 0; r == 0 && off < size; off += ext.len) {
		r = imgkit_map(b->from, off, size - off, &ext, &b->err);
		if (r == 0 && (ext.kind == IMGKIT_DATA || ext.kind == IMGKIT_COMPRESSED))
			r = copy(b, ext.off, ext.len);
	}
	return r;
}

/* The copy is on stable storage before the bitmap is told: what fails in between is copied again. */
static int backup(struct backup *b, const char *path, int first)
{
	IMGKIT_OPTS(imgkit_open_opts, writable);
	int r = 0;

	writable.flags = IMGKIT_RDWR;
	if (first)
		r = imgkit_create(path, "qcow2", imgkit_size(b->from), NULL, &b->err);
	if (r == 0)
		r = imgkit_open(path, &writable, &b->to, &b->err);
	if (r == 0)
		r = first ? copy_all(b) : imgkit_bitmap_each(b->from, BITMAP, copy, b, &b->err);
	if (r == 0)
		r = imgkit_flush(b->to, &b->err);
	if (r == 0 && first)
		r = imgkit_bitmap_add(b->from, BITMAP, 0, 0, &b->err);
	else if (r == 0)
		r = imgkit_bitmap_clear(b->from, BITMAP, &b->err);
	return r;
}

static int has_bitmap(struct imgkit_image *image)
{
	struct imgkit_bitmap bitmap;

	for (unsigned n = 0; imgkit_bitmap_get(image, n, &bitmap, sizeof(bitmap), NULL) == 0; n++)
		if (strcmp(bitmap.name, BITMAP) == 0)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	IMGKIT_OPTS(imgkit_open_opts, writable);
	struct backup b = {0};
	int r;

	if (argc != 3) {
		fprintf(stderr, "usage: backup IMAGE COPY\n");
		return 2;
	}
	/* For writing, as the bitmap changes; and so nobody else writes to the disk meanwhile. */
	writable.flags = IMGKIT_RDWR;
	r = imgkit_open(argv[1], &writable, &b.from, &b.err);
	if (r == 0)
		r = backup(&b, argv[2], !has_bitmap(b.from));
	imgkit_close(b.to);
	imgkit_close(b.from);
	if (r) {
		fprintf(stderr, "backup: %s\n", b.err.msg);
		return 1;
	}
	printf("%llu bytes copied\n", (unsigned long long)b.copied);
	return 0;
}
