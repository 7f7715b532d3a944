/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pipes and sockets as an io: what can only be read or written once, from front to back. Not
 * thread-safe; the io's size is where it is now.
 */
#ifndef IMGKIT_IO_STREAM_H
#define IMGKIT_IO_STREAM_H

#include "base/job.h"
#include "io/io.h"

/*
 * Wraps an open descriptor, borrowed. Writes go to ascending offsets, gaps are filled with zeros;
 * io_resize fills up to the end. Going back is -ESPIPE. job (may be NULL): when it is cancelled,
 * waiting for the other side ends with -ECANCELED.
 */
int stream_open(int fd, const char *name, bool writable, struct job *job, struct io **out,
		struct err *err);

/* The next len bytes, less only at the end: *got. */
int stream_read(struct io *io, void *buf, size_t len, size_t *got, struct err *err);

#endif
