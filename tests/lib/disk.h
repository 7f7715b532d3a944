/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files in memory and the images in them, for tests. Whatever fails here ends the program (die). */
#ifndef IMGKIT_TESTS_DISK_H
#define IMGKIT_TESTS_DISK_H

#include "image/img.h"
#include "io/doubles.h"

/* A new, empty file in memory. */
struct io *disk_new(const char *name);
/* The content of a file, or of another io, in memory. */
struct io *disk_load(const char *path);
struct io *disk_copy(struct io *from, const char *name);
struct io *disk_from_bytes(const void *bytes, uint64_t len, const char *name);
/* All bytes of an io; the caller frees them. */
unsigned char *disk_bytes(struct io *io, uint64_t *len);
/* Writes the content to a file. */
void disk_save(struct io *io, const char *path);
void bytes_save(const void *bytes, uint64_t len, const char *path);
/* An io that can be closed without closing `inner`. */
struct io *disk_borrow(struct io *inner);

/* A new image; opts as in `-o`. backing may be NULL. */
void disk_create(struct io *file, const char *format, uint64_t size, const char *opts,
		 const char *backing, const char *backing_format);

/* Opens an image on a borrowed file. */
struct img *disk_open(struct io *file, const char *format, unsigned flags, struct img *backing);

/* qcow2 with the data in an external file, which is borrowed. */
void disk_create_data(struct io *file, struct io *data, uint64_t size, const char *opts);
struct img *disk_open_data(struct io *file, struct io *data, unsigned flags, struct img *backing);

/*
 * Writes `data` (the whole disk, len bytes) through a builder: cluster i becomes compressed, plain,
 * zeros or nothing as kind(ctx, i) says.
 */
enum fill { FILL_NONE, FILL_ZERO, FILL_DATA, FILL_CODED };
typedef enum fill fill_fn(void *ctx, uint64_t cluster);
struct fill_args {
	uint64_t size; /* bytes */
	const char *opts, *backing, *backing_format;
	struct io *external; /* data file, for opts with data_file= */
	const unsigned char *data;
	fill_fn *kind;
	void *ctx;
};
void disk_fill(struct io *file, const char *format, const struct fill_args *args);

#endif
