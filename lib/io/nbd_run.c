// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Requests to an NBD server, many in flight.
 *
 * A request is cut into pieces, of which up to NBD_WINDOW are sent before the first is answered. Any
 * thread may use any connection. Of those that wait at one connection, one leads: it polls the
 * socket and lets the library take in what comes, also for the others, which sleep until their last
 * piece is answered or until it is their turn to lead. So one request alone costs no switch between
 * threads, and there is no thread of our own.
 *
 * Everything that touches a connection happens under its lock, but for the leader's poll. Who sends
 * something that the socket did not take at once wakes the leader, who polls for reading only.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/nbd_impl.h"

#define LOOK_UP_MS 100 /* how often a leader looks whether the job is cancelled */
/* A cancelled job may still have things to put in order: so long is a server waited for. */
#define GRACE_MS 3000

struct piece {
	struct nbd_batch *batch;
	uint64_t off, len;
	uint64_t got; /* of READ: bytes that came */
};

/* A request's pieces that are in flight. */
struct nbd_batch {
	const struct nbd_request *req;
	struct nbd_batch *next; /* in conn.waiting */
	pthread_cond_t cond;    /* pending is 0, or it is our turn to lead */
	unsigned pending;
	int error;          /* positive errno of the first piece that failed … */
	struct piece wrong; /* … and which it was */
	struct piece piece[NBD_WINDOW];
};

/* ---- the library's side: called under the lock ---- */

static int piece_done(void *user, int *error)
{
	struct piece *p = user;
	struct nbd_batch *b = p->batch;
	int code = *error;

	/* The library does not mind when a server leaves out a part and says that it was all. */
	if (!code && b->req->kind == NBD_READ && p->got != p->len)
		code = EPROTO;
	if (code && !b->error) {
		b->error = code;
		b->wrong = *p;
	}
	if (--b->pending == 0)
		pthread_cond_signal(&b->cond);
	return 1;
}

static int take_data(void *user, const void *buf, size_t n, uint64_t off, unsigned status,
		     int *error)
{
	struct piece *p = user;

	(void)buf;
	(void)off;
	(void)error;
	if (status != LIBNBD_READ_ERROR)
		p->got += n;
	return 0;
}

static int take_extents(void *user, const char *context, uint64_t off, uint32_t *entries, size_t n,
			int *error)
{
	const struct nbd_request *req = user;
	int r = req->extents(req->ctx, context, entries, n);

	(void)off;
	if (r < 0)
		*error = -r;
	return r < 0 ? -1 : 0;
}

static int64_t send_piece(struct nbd_io *n, struct nbd_handle *h, struct piece *p)
{
	const struct nbd_request *req = p->batch->req;
	const nbd_completion_callback done = {.callback = piece_done, .user_data = p};
	char *buf = req->buf ? (char *)req->buf + (p->off - req->off) : NULL;

	switch (req->kind) {
	case NBD_READ:
		return n->lib.aio_pread_structured(
			h, buf, p->len, p->off,
			(nbd_chunk_callback){.callback = take_data, .user_data = p}, done, 0);
	case NBD_PUT:
		return n->lib.aio_pwrite(h, buf, p->len, p->off, done, req->flags);
	case NBD_ZERO:
		return n->lib.aio_zero(h, p->len, p->off, done, req->flags);
	case NBD_TRIM:
		return n->lib.aio_trim(h, p->len, p->off, done, req->flags);
	case NBD_FLUSH:
		return n->lib.aio_flush(h, done, 0);
	default:
		return n->lib.aio_block_status(h, p->len, p->off,
					       (nbd_extent_callback){.callback = take_extents,
								     .user_data = (void *)req},
					       done, req->flags);
	}
}

/* ---- waiting ---- */

int64_t nbd_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void wake(struct nbd_conn *c)
{
	const uint64_t one = 1;

	if (c->led && write(c->wake, &one, sizeof(one)) < 0)
		return; /* it is full of wake-ups */
}

void nbd_conn_lose(struct nbd_io *n, struct nbd_conn *c, int code, const char *why)
{
	int fd;

	if (!c->why[0]) {
		snprintf(c->why, sizeof(c->why), "%s", why);
		c->code = code;
	}
	fd = n->lib.aio_get_fd(c->h);
	atomic_store(&n->lost, true);
	/* The library finds it closed, and answers what is in flight. */
	if (fd >= 0)
		shutdown(fd, SHUT_RDWR);
	wake(c); /* a leader may be waiting for a socket that is no more */
}

void nbd_conn_failed(struct nbd_io *n, struct nbd_conn *c)
{
	int code;
	const char *why = nbd_conn_error(n, &code);

	nbd_conn_lose(n, c, code, why);
}

const char *nbd_conn_error(struct nbd_io *n, int *code)
{
	const char *text = n->lib.get_error(), *colon;
	int e = n->lib.get_errno();

	*code = e ? e : EPROTO;
	if (!text)
		return "the connection is closed";
	/* "nbd_some_call: " says nothing to people. */
	colon = strncmp(text, "nbd_", 4) == 0 ? strstr(text, ": ") : NULL;
	return colon ? colon + 2 : text;
}

bool nbd_conn_is_over(struct nbd_io *n, const struct nbd_conn *c)
{
	return n->lib.aio_is_dead(c->h) > 0 || n->lib.aio_is_closed(c->h) > 0;
}

static void take_in(struct nbd_io *n, struct nbd_conn *c, short ready)
{
	unsigned direction = n->lib.aio_get_direction(c->h);
	int r = 0;

	/* One of both: after the first the library may wait for something else. */
	if ((ready & (POLLIN | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		r = n->lib.aio_notify_read(c->h);
	else if ((ready & (POLLOUT | POLLHUP | POLLERR)) &&
		 (direction & LIBNBD_AIO_DIRECTION_WRITE))
		r = n->lib.aio_notify_write(c->h);
	if ((r < 0 && nbd_conn_is_over(n, c)) || (ready & POLLNVAL))
		nbd_conn_failed(n, c);
}

void nbd_conn_step(struct nbd_io *n, struct nbd_conn *c, int timeout_ms)
{
	unsigned direction = n->lib.aio_get_direction(c->h);
	struct pollfd p[2] = {
		{.fd = n->lib.aio_get_fd(c->h)},
		{.fd = c->wake, .events = POLLIN},
	};
	uint64_t woken;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		p[0].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		p[0].events |= POLLOUT;
	pthread_mutex_unlock(&c->lock);
	if (poll(p, 2, timeout_ms) < 0)
		p[0].revents = p[1].revents = 0;
	if (p[1].revents && read(c->wake, &woken, sizeof(woken)) < 0)
		woken = 0; /* somebody else has read it */
	pthread_mutex_lock(&c->lock);
	if (p[0].revents)
		take_in(n, c, p[0].revents);
}

/* Until our batch is done. */
static void lead(struct nbd_io *n, struct nbd_conn *c, struct nbd_batch *b)
{
	int64_t patience = 0;

	while (b->pending) {
		if (nbd_conn_is_over(n, c)) { /* it has answered all by then */
			b->pending = 0;
			b->error = b->error ? b->error : ENOTCONN;
			return;
		}
		if (job_cancelled(n->job)) {
			patience = patience ? patience : nbd_now_ms() + GRACE_MS;
			if (nbd_now_ms() >= patience)
				nbd_conn_lose(n, c, ECANCELED,
					      "cancelled, and the server does not answer");
		}
		nbd_conn_step(n, c, n->job ? LOOK_UP_MS : -1);
	}
}

static void leave_queue(struct nbd_conn *c, const struct nbd_batch *b)
{
	struct nbd_batch **p = &c->waiting;

	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
}

static void wait_for(struct nbd_io *n, struct nbd_conn *c, struct nbd_batch *b)
{
	if (c->led && b->pending) {
		b->next = c->waiting;
		c->waiting = b;
		while (c->led && b->pending)
			pthread_cond_wait(&b->cond, &c->lock);
		leave_queue(c, b);
	}
	if (!b->pending) {
		/* It may have been our turn. */
		if (!c->led && c->waiting)
			pthread_cond_signal(&c->waiting->cond);
		return;
	}
	c->led = true;
	lead(n, c, b);
	c->led = false;
	if (c->waiting)
		pthread_cond_signal(&c->waiting->cond);
}

/* ---- requests ---- */

/* The leader waits for something to read; what did not fit into the socket has to go on, too. */
static void wake_leader(struct nbd_io *n, struct nbd_conn *c)
{
	if (n->lib.aio_get_direction(c->h) & LIBNBD_AIO_DIRECTION_WRITE)
		wake(c);
}

static void send_some(struct nbd_io *n, struct nbd_conn *c, struct nbd_batch *b, uint64_t *done)
{
	const struct nbd_request *req = b->req;

	for (unsigned i = 0; i < NBD_WINDOW && !b->error; i++) {
		struct piece *p = &b->piece[i];

		*p = (struct piece){.batch = b, .off = req->off + *done};
		p->len = min_u64(req->len - *done, req->piece);
		b->pending++;
		if (send_piece(n, c->h, p) < 0) {
			b->pending--;
			b->error = n->lib.get_errno() ? n->lib.get_errno() : EIO;
			b->wrong = *p;
			if (nbd_conn_is_over(n, c)) {
				nbd_conn_failed(n, c);
				b->error = ENOTCONN;
			}
			break;
		}
		*done += p->len;
		if (*done == req->len)
			break;
	}
	wake_leader(n, c);
}

static int failed(struct nbd_io *n, const struct nbd_conn *c, const struct nbd_batch *b,
		  struct err *err)
{
	static const char *const verbs[] = {
		[NBD_READ] = "read",           [NBD_PUT] = "write",
		[NBD_ZERO] = "write zeros to", [NBD_TRIM] = "discard",
		[NBD_FLUSH] = "flush",         [NBD_STATUS] = "ask for the state of",
	};
	const char *verb = verbs[b->req->kind];
	bool hint = b->req->kind == NBD_ZERO || b->req->kind == NBD_TRIM;
	char what[128];

	if (job_cancelled(n->job))
		return err_set(err, ECANCELED, "%s: cancelled", n->io.name);
	if (hint && !c->why[0] && (b->error == ENOTSUP || b->error == EINVAL))
		return -ENOTSUP;
	if (b->req->kind == NBD_FLUSH)
		snprintf(what, sizeof(what), "cannot flush");
	else
		snprintf(what, sizeof(what), "cannot %s %" PRIu64 " bytes at offset %" PRIu64, verb,
			 b->wrong.len, b->wrong.off);
	/* What the server said before it went is what was wrong. */
	if (c->why[0] && b->error == ENOTCONN)
		return err_set(err, b->error, "%s: %s: the connection is lost: %s", n->io.name,
			       what, c->why);
	return err_sys(err, b->error, "%s: %s", n->io.name, what);
}

int nbd_run(struct nbd_io *n, const struct nbd_request *req, struct err *err)
{
	struct nbd_conn *c = nbd_conn_choose(n);
	struct nbd_batch b = {.req = req};
	uint64_t done = 0;
	int r = 0;

	pthread_cond_init(&b.cond, NULL);
	pthread_mutex_lock(&c->lock);
	do {
		send_some(n, c, &b, &done);
		wait_for(n, c, &b);
	} while (!b.error && done < req->len);
	if (b.error == ENOTCONN && !c->why[0] && nbd_conn_is_over(n, c))
		nbd_conn_lose(n, c, ENOTCONN, "the server closed it");
	if (b.error)
		r = failed(n, c, &b, err);
	pthread_mutex_unlock(&c->lock);
	pthread_cond_destroy(&b.cond);
	nbd_conn_release(c);
	return r;
}
