/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regular files and block devices as a struct io.
 *
 * Holes are found by SEEK_DATA/SEEK_HOLE, zeroed and punched by fallocate (a refusal is remembered
 * and zeros are written instead), block devices by BLKZEROOUT/BLKDISCARD.
 *
 * Locks: QEMU's byte-range image locks as open-file-description locks (qemu block/file-posix.c):
 * byte 100+n is held shared while permission n is in use, byte 200+n while permission n must not be
 * given to others. So imgkit and a running QEMU exclude each other in the same way as two QEMUs.
 */
#ifndef IMGKIT_IO_FILE_H
#define IMGKIT_IO_FILE_H

#include <sys/types.h>

#include "io/io.h"

enum {
	FILE_WRITE = 1 << 0,       /* read and write; without it read-only */
	FILE_CREATE = 1 << 1,      /* create it; fails with EEXIST unless FILE_TRUNC */
	FILE_TRUNC = 1 << 2,       /* with FILE_CREATE: take an existing file and empty it */
	FILE_DIRECT = 1 << 3,      /* O_DIRECT; unaligned requests are bounced inside */
	FILE_UNSAFE = 1 << 4,      /* flush does nothing (cache mode "unsafe") */
	FILE_SHARE = 1 << 5,       /* -U: take no locks and look all the same; read-only opens */
	FILE_NO_DEVICE = 1 << 6,   /* accept regular files only */
	FILE_OURS = 1 << 7,        /* refuse what somebody else may have put there: see file_open */
	FILE_SHARE_WRITE = 1 << 8, /* reader beside whom others may write */
	FILE_KEEP_SPACE = 1 << 9,  /* never free space: discard does nothing */
	FILE_DATA = 1 << 10,       /* an image's external data file: others may write, not resize */
	FILE_PRIVATE = 1 << 11,    /* with FILE_CREATE: for its owner only (mode 0600) */
};

/*
 * Opens path. Only regular files and block devices are accepted; FIFOs, character devices and
 * sockets are refused without blocking. A lock that another process holds: -EBUSY with the peer's
 * text, `Failed to get "write" lock` and a second line `Is another process using the image [PATH]?`.
 * FILE_TRUNC empties the file only after its lock was taken.
 *
 * FILE_OURS is for names that others can foresee: symbolic links fail, so do hard links, and in a
 * sticky directory that others can write to, files that neither we own nor its owner.
 */
int file_open(const char *path, unsigned flags, struct io **out, struct err *err);

/* Wraps an open descriptor; the io owns it on success. No locks are taken. */
int file_from_fd(int fd, const char *name, unsigned flags, struct io **out, struct err *err);

/* Bytes of storage the file uses (st_blocks), its identity, or whether it is a block device. */
struct file_stat {
	uint64_t allocated; /* bytes */
	dev_t dev;
	ino_t ino;
	bool block_device;
	uint32_t mem_align; /* bytes: of buffers that need not be copied */
};
int file_stat(struct io *io, struct file_stat *st, struct err *err);

/* Whether io was made by file_open or file_from_fd. */
bool io_is_file(const struct io *io);

/* Descriptor of a file io, for copy_file_range and reflinks; borrowed. -1 when it has none. */
int file_fd(const struct io *io);

/* Reserves space for [off, off+len) (fallocate without a hole). -ENOTSUP when it cannot. */
int file_allocate(struct io *io, uint64_t off, uint64_t len, struct err *err);

/*
 * The same for data that is about to be written where nothing is yet, if it makes the writing
 * cheaper; otherwise, and on what is not a file, nothing. What file_allocate fails with.
 */
int file_reserve(struct io *io, uint64_t off, uint64_t len, struct err *err);

/*
 * For work that writes much, each place once, and flushes in the end: from now on the kernel begins
 * to write back while the rest is on its way, so that the flush has little left to wait for. Before
 * threads share the io; nothing on what is not a file.
 */
void file_write_behind(struct io *io);

#endif
