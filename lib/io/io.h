/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct io: the one data-path type. A file, an NBD connection, a window of another io, an opened
 * image, a test double: all are an io, and nest freely.
 *
 * Transfers are all or nothing, at byte offsets. Every function returns 0 or a negative errno and
 * fills err (NULL allowed). pread, pwrite, zero, discard, flush and map may be called from several
 * threads at once; resize and close may not run beside any other call on the same io.
 *
 * Callers use the io_* wrappers below, never a function pointer: the wrappers check range,
 * overflow and read-only, and do the fallbacks.
 */
#ifndef IMGKIT_IO_IO_H
#define IMGKIT_IO_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct io;

enum ext_kind {
	EXT_ABSENT, /* nothing in this layer: ask the backing, or zeros when there is none */
	EXT_ZERO,   /* reads as zeros; `host` may name space that is reserved for it */
	EXT_DATA,   /* stored at `host` of `io` */
	EXT_CODED,  /* stored in a form that the format's decode understands */
};

#define EXT_NO_HOST UINT64_MAX

/* One run of bytes with the same state. */
struct extent {
	enum ext_kind kind;
	unsigned depth; /* layer in the backing chain that answered; 0 is the top */
	uint64_t off;   /* guest offset of the first byte: the one asked for */
	uint64_t len;   /* bytes, 1 … asked length */
	uint64_t host;  /* byte in io, or EXT_NO_HOST; of EXT_CODED: what the driver likes */
	struct io *io;  /* who holds the bytes; NULL when host is EXT_NO_HOST. Borrowed */
};

/* Capabilities, fixed after open. */
enum {
	IO_RDONLY = 1 << 0,
	IO_GROWS = 1 << 1,    /* a write past the end extends it; the gap reads as zeros */
	IO_FASTZERO = 1 << 2, /* zero() of a large range is much cheaper than writing */
	IO_SPARSE = 1 << 3,   /* map() can tell holes; zero with IO_ZERO_UNMAP frees space */
	IO_STREAM = 1 << 4,   /* not seekable: reads or writes only at ascending offsets */
	IO_CLONES = 1 << 5,   /* clone() is worth a try */
};

/* Flags of io_zero. */
enum {
	IO_ZERO_UNMAP = 1 << 0, /* may free the space; without it the space is kept or taken */
	IO_ZERO_FAST = 1 << 1,  /* fail with -ENOTSUP rather than write zeros */
	IO_ZERO_MARK = 1 << 2,  /* an image holds the zeros itself, whatever lies below it later */
};

struct io_ops {
	const char *name; /* "file", "window", "qcow2", …: for messages */
	int (*pread)(struct io *, void *, size_t, uint64_t off, struct err *);
	int (*pwrite)(struct io *, const void *, size_t, uint64_t off, struct err *);
	/* -ENOTSUP (without text): the wrapper writes zeros instead. */
	int (*zero)(struct io *, uint64_t off, uint64_t len, unsigned flags, struct err *);
	/* -ENOTSUP (without text): these bytes cannot be shared; they may have been written. */
	int (*clone)(struct io *, uint64_t off, struct io *src, uint64_t at, uint64_t len,
		     struct err *);
	/* A hint; afterwards the range may read as anything that was never another owner's. */
	int (*discard)(struct io *, uint64_t off, uint64_t len, struct err *);
	/* What was written by calls that returned before this one began is on stable storage. */
	int (*flush)(struct io *, struct err *);
	int (*resize)(struct io *, uint64_t size, struct err *);
	/* One extent that starts at off; len > 0 and in range. NULL op: all is data at host = off. */
	int (*map)(struct io *, uint64_t off, uint64_t len, struct extent *, struct err *);
	void (*close)(struct io *); /* frees; cannot fail. Data safety is flush */
};

struct io {
	const struct io_ops *ops;
	char *name;            /* owned; what messages call it, usually the path */
	_Atomic uint64_t size; /* bytes */
	uint32_t align; /* requests of this alignment and size avoid read-modify-write; >= 1 */
	unsigned caps;
};

/* [off, off+len) must lie inside the io; len 0 succeeds. */
int io_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err);

/* Like io_pread, but bytes past the end read as zeros. For formats whose last cluster may be cut. */
int io_pread_tail(struct io *io, void *buf, size_t len, uint64_t off, struct err *err);

/* Past the end: extends with IO_GROWS, else -ENOSPC. -EROFS on IO_RDONLY. */
int io_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err);

/* The range reads as zeros afterwards; falls back to writing zeros unless IO_ZERO_FAST. */
int io_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err);

/*
 * Like io_pwrite of bytes [at, at+len) of src, which share their place on the medium from then on.
 * -ENOTSUP (without text): they cannot; the caller writes them.
 */
int io_clone(struct io *io, uint64_t off, struct io *src, uint64_t at, uint64_t len,
	     struct err *err);

/* A hint: "not supported" is success. */
int io_discard(struct io *io, uint64_t off, uint64_t len, struct err *err);

int io_flush(struct io *io, struct err *err);

/* Grown space reads as zeros. -ENOTSUP with text where the io cannot change its size. */
int io_resize(struct io *io, uint64_t size, struct err *err);

/* One extent at off, clamped to len. ext->len >= 1. */
int io_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err);

/* io_close(NULL) is fine. */
void io_close(struct io *io);

static inline uint64_t io_size(const struct io *io)
{
	return atomic_load_explicit(&io->size, memory_order_acquire);
}

/* For backends: raise size to at least `end` (concurrent writers that extend a file). */
void io_note_end(struct io *io, uint64_t end);

/* For backends: sets up the common part. name is copied. -ENOMEM. */
int io_init(struct io *io, const struct io_ops *ops, const char *name, struct err *err);

/* "IMAGE: at offset N: …", -EUCLEAN; see err_corrupt. */
#define io_corrupt(io, err, at, ...) err_corrupt(err, (io)->name, at, __VA_ARGS__)

#endif
