// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* Streams: ascending writes, gaps of zeros, short pipes, waiting that can be cancelled. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/stream.h"

static struct err e;

/* Everything that comes out of a pipe, read in another thread. */
struct drain {
	int fd;
	unsigned char *buf;
	size_t len, cap;
	pthread_t thread;
};

static void *drain_main(void *arg)
{
	struct drain *d = arg;
	ssize_t n;

	while ((n = read(d->fd, d->buf + d->len, d->cap - d->len)) > 0)
		d->len += (size_t)n;
	close(d->fd);
	return NULL;
}

static int drain_start(struct drain *d, size_t cap)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	*d = (struct drain){.fd = fds[0], .cap = cap, .buf = malloc(cap)};
	assert_int_equal(pthread_create(&d->thread, NULL, drain_main, d), 0);
	return fds[1];
}

static void gaps_are_zeros(void **state)
{
	static unsigned char want[400000];
	struct drain d;
	int fd = drain_start(&d, 2 * sizeof(want));
	struct io *io;

	(void)state;
	ok(stream_open(fd, "pipe", true, NULL, &io, &e), &e);
	memset(want + 5, 'a', 10);
	ok(io_pwrite(io, want + 5, 10, 5, &e), &e);
	memset(want + 200000, 'b', 100000);
	ok(io_pwrite(io, want + 200000, 100000, 200000, &e), &e);
	assert_int_equal(io_size(io), 300000);
	fails(io_pwrite(io, want, 1, 299999, &e), -ESPIPE, &e, "from offset 300000 to 299999");
	ok(io_resize(io, sizeof(want), &e), &e);
	fails(io_resize(io, 1, &e), -ESPIPE, &e, "cannot go back");
	io_close(io);
	close(fd);
	pthread_join(d.thread, NULL);
	assert_int_equal(d.len, sizeof(want));
	assert_memory_equal(d.buf, want, sizeof(want));
	free(d.buf);
}

static void reading_goes_on_to_the_end(void **state)
{
	unsigned char buf[8192];
	struct io *io;
	int fds[2];
	size_t got;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	ok(stream_open(fds[0], "pipe", false, NULL, &io, &e), &e);
	assert_true(io->caps & IO_STREAM);
	assert_int_equal(write(fds[1], "0123456789", 10), 10);
	ok(io_pread(io, buf, 4, 0, &e), &e);
	assert_memory_equal(buf, "0123", 4);
	fails(io_pread(io, buf, 1, 0, &e), -ESPIPE, &e, "offset 0");
	close(fds[1]);
	ok(stream_read(io, buf, sizeof(buf), &got, &e), &e);
	assert_int_equal(got, 6);
	ok(stream_read(io, buf, sizeof(buf), &got, &e), &e);
	assert_int_equal(got, 0);
	fails(io_pread(io, buf, 1, 10, &e), -EIO, &e, "ends at offset 10");
	fails(io_pwrite(io, buf, 1, 10, &e), -EROFS, &e, "read-only");
	io_close(io);
	close(fds[0]);
}

static void nonblocking_pipes_are_waited_for(void **state)
{
	static unsigned char big[1000000];
	struct drain d;
	int fd = drain_start(&d, sizeof(big));
	struct io *io;

	(void)state;
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	memset(big, 'x', sizeof(big));
	ok(stream_open(fd, "pipe", true, NULL, &io, &e), &e);
	ok(io_pwrite(io, big, sizeof(big), 0, &e), &e);
	io_close(io);
	close(fd);
	pthread_join(d.thread, NULL);
	assert_int_equal(d.len, sizeof(big));
	assert_memory_equal(d.buf, big, sizeof(big));
	free(d.buf);
}

static void a_reader_that_is_gone_is_an_error(void **state)
{
	struct io *io;
	int fds[2];

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe(fds), 0);
	close(fds[0]);
	ok(stream_open(fds[1], "pipe", true, NULL, &io, &e), &e);
	fails(io_pwrite(io, "x", 1, 0, &e), -EPIPE, &e, "cannot write at offset 0");
	io_close(io);
	close(fds[1]);
}

static void *cancel_soon(void *arg)
{
	struct job *job = arg;

	usleep(50000);
	atomic_store(&job->cancelled, true);
	return NULL;
}

/* Neither a reader nor a writer hangs on a silent other side. */
static void waiting_can_be_cancelled(void **state)
{
	static unsigned char big[1000000];
	struct job job[2] = {0};
	pthread_t thread;
	struct io *io;
	int fds[2];
	size_t got;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	ok(stream_open(fds[0], "pipe", false, &job[0], &io, &e), &e);
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &job[0]), 0);
	fails(stream_read(io, big, 10, &got, &e), -ECANCELED, &e, "cancelled");
	pthread_join(thread, NULL);
	io_close(io);

	ok(stream_open(fds[1], "pipe", true, &job[1], &io, &e), &e);
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &job[1]), 0);
	fails(io_pwrite(io, big, sizeof(big), 0, &e), -ECANCELED, &e, "cancelled");
	pthread_join(thread, NULL);
	io_close(io);
	close(fds[0]);
	close(fds[1]);
}

/* Reads a little, so that a full pipe has room for a part of a large write; then cancels. */
struct taster {
	int fd;
	struct job job;
	bool done;
};

static void *taste_and_cancel(void *arg)
{
	struct taster *t = arg;
	char page[4096];

	usleep(50000);
	t->done = read(t->fd, page, sizeof(page)) == (ssize_t)sizeof(page);
	usleep(50000);
	atomic_store(&t->job.cancelled, true);
	return NULL;
}

static void a_write_does_not_wait(void **state)
{
	static unsigned char big[1000000];
	(void)state;

	alarm(20);
	for (int kind = 0; kind < 2; kind++) {
		struct taster t = {0};
		pthread_t thread;
		struct io *io;
		int fds[2];

		if (kind == 0)
			assert_int_equal(pipe(fds), 0);
		else
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		t.fd = fds[0];
		ok(stream_open(fds[1], "pipe", true, &t.job, &io, &e), &e);
		assert_int_equal(pthread_create(&thread, NULL, taste_and_cancel, &t), 0);
		fails(io_pwrite(io, big, sizeof(big), 0, &e), -ECANCELED, &e, "cancelled");
		pthread_join(thread, NULL);
		assert_true(t.done);
		/* The descriptor is shared with others: it is as it was. */
		assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
		io_close(io);
		close(fds[0]);
		close(fds[1]);
	}
	alarm(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gaps_are_zeros),
		cmocka_unit_test(reading_goes_on_to_the_end),
		cmocka_unit_test(nonblocking_pipes_are_waited_for),
		cmocka_unit_test(a_reader_that_is_gone_is_an_error),
		cmocka_unit_test(waiting_can_be_cancelled),
		cmocka_unit_test(a_write_does_not_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
