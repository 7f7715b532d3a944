// SPDX-License-Identifier: LGPL-2.1-or-later
/* Pipes and sockets; see stream.h. */
#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

struct stream {
	struct io io; /* first; io.size is the position */
	int fd;
	int own_fd;      /* owned: fd again, but such that a write does not wait; -1: none */
	struct job *job; /* borrowed, may be NULL */
};

static struct stream *stream_of(struct io *io)
{
	return (struct stream *)(void *)io; /* io is the first member */
}

#define LOOK_UP_MS 100 /* how often a waiting stream looks whether it shall still wait */

/* Until the descriptor can be used, or fails: then the call that follows says why. */
static int wait_ready(struct stream *s, short events, struct err *err)
{
	struct pollfd p = {.fd = s->fd, .events = events};

	for (;;) {
		int n = poll(&p, 1, s->job ? LOOK_UP_MS : -1);

		if (job_cancelled(s->job))
			return err_set(err, ECANCELED, "%s: cancelled", s->io.name);
		if (n > 0 || (n < 0 && errno != EINTR))
			return 0;
	}
}

static bool is_transient(int code)
{
	return code == EINTR || code == EAGAIN;
}

static int write_all(struct stream *s, const void *buf, size_t len, struct err *err)
{
	const char *p = buf;

	while (len) {
		ssize_t n;
		int r = wait_ready(s, POLLOUT, err);

		if (r < 0)
			return r;
		/* The wait is before, where a cancel is seen, and not in the write: a pipe that is
		 * ready takes PIPE_BUF bytes at once, and nobody promises more. */
		if (s->own_fd >= 0)
			n = write(s->own_fd, p, len);
		else
			n = write(s->fd, p, min_u64(len, PIPE_BUF));
		if (n < 0 && is_transient(errno))
			continue;
		if (n < 0)
			return err_sys(err, errno, "%s: cannot write at offset %" PRIu64,
				       s->io.name, io_size(&s->io));
		p += n;
		len -= (size_t)n;
		io_note_end(&s->io, io_size(&s->io) + (uint64_t)n);
	}
	return 0;
}

/* Zeros up to off. */
static int fill_gap(struct stream *s, uint64_t off, struct err *err)
{
	if (off < io_size(&s->io))
		return err_set(err, ESPIPE,
			       "%s: cannot go back from offset %" PRIu64 " to %" PRIu64
			       " in a pipe",
			       s->io.name, io_size(&s->io), off);
	while (io_size(&s->io) < off) {
		size_t n = (size_t)min_u64(off - io_size(&s->io), ZERO_BUF_SIZE);
		int r = write_all(s, zero_buf, n, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int stream_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct stream *s = stream_of(io);
	int r = fill_gap(s, off, err);

	return r < 0 ? r : write_all(s, buf, len, err);
}

static int stream_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	size_t got = 0;
	int r = 0;

	if (off != io_size(io))
		return err_set(err, ESPIPE, "%s: cannot go to offset %" PRIu64 " of a pipe",
			       io->name, off);
	r = stream_read(io, buf, len, &got, err);
	if (r == 0 && got < len)
		return err_set(err, EIO, "%s: the stream ends at offset %" PRIu64, io->name,
			       io_size(io));
	return r;
}

static int stream_resize(struct io *io, uint64_t size, struct err *err)
{
	return fill_gap(stream_of(io), size, err);
}

static void stream_close(struct io *io)
{
	struct stream *s = stream_of(io);

	if (s->own_fd >= 0)
		close(s->own_fd);
	free(s);
}

static const struct io_ops stream_ops = {
	.name = "stream",
	.pread = stream_pread,
	.pwrite = stream_pwrite,
	.resize = stream_resize,
	.close = stream_close,
};

/*
 * Opens a pipe once more: O_NONBLOCK belongs to an opening, and that of fd is shared with who knows
 * whom. -1: not a pipe, or not ours.
 */
static int open_again(int fd)
{
	struct stat st;
	char path[32];

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
}

int stream_open(int fd, const char *name, bool writable, struct job *job, struct io **out,
		struct err *err)
{
	struct stream *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_nomem(err, sizeof(*s), "a stream");
	r = io_init(&s->io, &stream_ops, name, err);
	if (r < 0) {
		free(s);
		return r;
	}
	s->fd = fd;
	s->own_fd = writable ? open_again(fd) : -1;
	s->job = job;
	s->io.caps = IO_STREAM | (writable ? IO_GROWS : IO_RDONLY);
	*out = &s->io;
	return 0;
}

int stream_read(struct io *io, void *buf, size_t len, size_t *got, struct err *err)
{
	struct stream *s = stream_of(io);

	*got = 0;
	while (*got < len) {
		ssize_t n;
		int r = wait_ready(s, POLLIN, err);

		if (r < 0)
			return r;
		n = read(s->fd, (char *)buf + *got, len - *got);
		if (n < 0 && is_transient(errno))
			continue;
		if (n < 0)
			return err_sys(err, errno, "%s: cannot read at offset %" PRIu64, io->name,
				       io_size(io));
		if (n == 0)
			break;
		*got += (size_t)n;
		io_note_end(io, io_size(io) + (uint64_t)n);
	}
	return 0;
}
