/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the file backend share: file.c, space.c, direct.c, lock.c. Private to them. */
#ifndef IMGKIT_IO_FILE_IMPL_H
#define IMGKIT_IO_FILE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "io/file.h"

struct file_io {
	struct io io; /* first */
	int fd;
	bool device;      /* a block device, else a regular file */
	bool device_fast; /* the device has an offload for writing zeros */
	bool direct;      /* fd has O_DIRECT */
	bool unsafe;      /* flush does nothing */
	bool keep_space;  /* nothing is freed */
	bool reserves;    /* file_reserve is worth a system call */
	uint32_t block; /* bytes, power of two: device sector, or what O_DIRECT asks for; else 1 */
	uint32_t mem_align;      /* bytes, power of two: of buffers for O_DIRECT */
	_Atomic int flush_error; /* positive errno of the first fdatasync that failed */
	bool behind;             /* written back as it comes; see file_write_behind */
	_Atomic uint64_t sent;   /* with behind: bytes written */

	/* What the kernel refused once is not asked again. */
	atomic_bool no_punch, no_zero_range, no_allocate, no_discard, no_seek;

	/*
	 * Changes of the end of a regular file. Shared: a write that may extend the file.
	 * Exclusive: ftruncate beside other requests, which must not cut off what such a write
	 * just added. Writes below io.size need no lock.
	 */
	pthread_rwlock_t extend;
	/* O_DIRECT: read-modify-write of partial blocks. Order: edge, then extend. */
	pthread_mutex_t edge;
	/* The last run of data that map saw; empty: start == end. */
	pthread_mutex_t seen_lock;
	uint64_t seen_start, seen_end; /* bytes */
};

static inline struct file_io *file_of(struct io *io)
{
	return (struct file_io *)(void *)io; /* io is the first member */
}

/* In place of an errno: the file ends before the last byte asked for. No errno is that large. */
#define FD_EOF 100000

/* Plain loops over pread and pwrite: EINTR and short transfers. 0, -errno or -FD_EOF. */
int fd_pread(int fd, void *buf, size_t len, uint64_t off);
int fd_pwrite(int fd, const void *buf, size_t len, uint64_t off);

/* ---- file.c ---- */
/* "NAME: cannot VERB LEN bytes at offset OFF: reason". code is a positive errno,
 * or FD_EOF. Returns -errno. */
int file_error(struct file_io *f, int code, const char *verb, uint64_t len, uint64_t off,
	       struct err *err);

/* ---- space.c: zeros, holes, allocation ---- */
int file_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err);
int file_discard(struct io *io, uint64_t off, uint64_t len, struct err *err);
int file_map(struct io *io, uint64_t off, uint64_t len, struct extent *ext, struct err *err);
/* To be called after data may have become a hole. */
void file_forget_data(struct file_io *f);
/* Sets device_fast from sysfs. */
void file_ask_device(struct file_io *f, dev_t rdev);

/* ---- direct.c: O_DIRECT ---- */
/* Finds the alignment that the kernel wants and sets block, mem_align and io.align. */
void direct_setup(struct file_io *f);
int direct_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err);
int direct_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err);

/* ---- lock.c: QEMU's image locks ---- */
/* Locks fd for what flags (FILE_…) say; released when the last copy of fd is closed. */
int file_lock(int fd, const char *path, unsigned flags, struct err *err);

#endif
