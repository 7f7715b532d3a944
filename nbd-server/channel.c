// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Plain channels: connected sockets, and pairs of descriptors that an inetd-like service got as
 * standard input and output. Both are non-blocking, and one thread may receive while another sends.
 */
#include "nbd-server/channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"

static ssize_t would_block(struct channel *ch, short event)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK) {
		ch->waiting = event;
		return -EAGAIN;
	}
	return -errno;
}

/* ---- sockets ---- */

static ssize_t socket_recv(struct channel *ch, void *buf, size_t len)
{
	ssize_t n;

	do
		n = recv(ch->in, buf, len, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? would_block(ch, POLLIN) : n;
}

static ssize_t socket_send(struct channel *ch, const struct iovec *iov, unsigned n, bool more)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
	int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
	ssize_t sent;

	do
		sent = n == 1 ? send(ch->out, iov->iov_base, iov->iov_len, flags)
			      : sendmsg(ch->out, &msg, flags);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? would_block(ch, POLLOUT) : sent;
}

static void socket_close(struct channel *ch)
{
	close(ch->in);
	free(ch);
}

static const struct channel_ops unix_ops = {
	.name = "unix",
	.recv = socket_recv,
	.send = socket_send,
	.close = socket_close,
};
static const struct channel_ops tcp_ops = {
	.name = "tcp",
	.recv = socket_recv,
	.send = socket_send,
	.close = socket_close,
};

static void name_unix(int fd, char *text, size_t room)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid > 0)
		snprintf(text, room, "process %d of user %u", (int)cred.pid, (unsigned)cred.uid);
	else
		snprintf(text, room, "a local process");
}

static void name_tcp(const struct sockaddr_storage *addr, char *text, size_t room)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)addr;
	const struct sockaddr_in *four = (const struct sockaddr_in *)addr;
	char host[INET6_ADDRSTRLEN] = "?";

	if (addr->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof(host));
		snprintf(text, room, "[%s]:%u", host, ntohs(six->sin6_port));
	} else if (addr->ss_family == AF_INET) {
		inet_ntop(AF_INET, &four->sin_addr, host, sizeof(host));
		snprintf(text, room, "%s:%u", host, ntohs(four->sin_port));
	} else {
		snprintf(text, room, "a client");
	}
}

static int set_nonblocking(int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_sys(err, errno, "could not make a connection non-blocking");
	return 0;
}

int channel_socket(int fd, struct channel **out, struct err *err)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	struct channel *ch;
	int one = 1, r = set_nonblocking(fd, err);

	if (r < 0)
		return r;
	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return err_sys(err, errno, "not a socket");
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return err_nomem(err, sizeof(*ch), "a connection");
	ch->in = ch->out = fd;
	ch->duplex = true;
	if (addr.ss_family == AF_UNIX) {
		ch->ops = &unix_ops;
		name_unix(fd, ch->peer, sizeof(ch->peer));
	} else {
		ch->ops = &tcp_ops;
		/* Replies are sent in as few segments as can be, and none of them waits for more. */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		/* A host that has vanished is noticed some time. */
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		len = sizeof(addr);
		if (getpeername(fd, (struct sockaddr *)&addr, &len) < 0)
			addr.ss_family = AF_UNSPEC;
		name_tcp(&addr, ch->peer, sizeof(ch->peer));
	}
	*out = ch;
	return 0;
}

void channel_widen(struct channel *ch)
{
	int bytes = 256 << 10; /* the kernel doubles it, for its own needs */

	if (ch->ops == &unix_ops)
		setsockopt(ch->out, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* ---- pipes ---- */

static ssize_t pipe_recv(struct channel *ch, void *buf, size_t len)
{
	ssize_t n;

	do
		n = read(ch->in, buf, len);
	while (n < 0 && errno == EINTR);
	return n < 0 ? would_block(ch, POLLIN) : n;
}

/* SIGPIPE must be ignored: writev has no flag for it. */
static ssize_t pipe_send(struct channel *ch, const struct iovec *iov, unsigned n, bool more)
{
	ssize_t sent;

	(void)more;
	do
		sent = writev(ch->out, iov, (int)n);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? would_block(ch, POLLOUT) : sent;
}

static void pipe_close(struct channel *ch)
{
	close(ch->in);
	close(ch->out);
	free(ch);
}

static const struct channel_ops pipe_ops = {
	.name = "pipes",
	.recv = pipe_recv,
	.send = pipe_send,
	.close = pipe_close,
};

/* Files and most devices have no other end, and cannot be waited for. */
static bool carries(const struct stat *st)
{
	return S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode);
}

int channel_pipes(int in, int out_fd, struct channel **out, struct err *err)
{
	struct channel *ch;
	struct stat a, b;
	int r;

	if (fstat(in, &a) < 0 || fstat(out_fd, &b) < 0)
		return err_sys(err, errno, "standard input and output");
	if (!carries(&a) || !carries(&b))
		return err_set(err, EINVAL,
			       "standard input and output are no connection: a socket "
			       "is needed, or two pipes");
	r = set_nonblocking(in, err);
	if (r == 0)
		r = set_nonblocking(out_fd, err);
	if (r < 0)
		return r;
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return err_nomem(err, sizeof(*ch), "a connection");
	ch->ops = &pipe_ops;
	ch->in = in;
	ch->out = out_fd;
	ch->duplex = true;
	snprintf(ch->peer, sizeof(ch->peer), "standard input");
	*out = ch;
	return 0;
}
