// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets that somebody else made: descriptors, and the protocol of systemd's socket activation
 * (sd_listen_fds(3)): LISTEN_FDS descriptors from 3 on are for the process LISTEN_PID.
 */
#include "nbd-server/listen_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

enum { FIRST_FD = 3 };

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) < 0 ? -errno : value;
}

static int check_socket(int fd, struct err *err)
{
	int type = option(fd, SO_TYPE);

	if (type == -ENOTSOCK)
		return err_set(err, EINVAL, "descriptor %d: not a socket", fd);
	if (type < 0)
		return err_sys(err, -type, "descriptor %d", fd);
	if (type != SOCK_STREAM)
		return err_set(err, EINVAL, "descriptor %d: not a stream socket", fd);
	if (option(fd, SO_ACCEPTCONN) != 1)
		return err_set(err, EINVAL, "descriptor %d: a socket that does not listen", fd);
	return 0;
}

int listen_fd(struct listen_set *set, int fd, struct err *err)
{
	struct listener *l;
	int flags, r = check_socket(fd, err);

	if (r == 0)
		r = listen_add(set, fd, &l, err);
	if (r < 0)
		return r;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		r = err_sys(err, errno, "descriptor %d", fd);
	else
		r = listen_learn(l, err);
	if (r < 0)
		set->n--; /* the descriptor stays the caller's */
	else if (l->family == AF_INET || l->family == AF_INET6)
		listen_tune(fd);
	return r;
}

/* ---- systemd ---- */

/* All digits, at most max. */
static int number(const char *name, const char *text, unsigned long max, unsigned long *out,
		  struct err *err)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || *out > max)
		return err_set(err, EINVAL, "environment: %s=%.64s is not a number up to %lu", name,
			       text, max);
	return 0;
}

static int count_names(const char *names)
{
	int n = 1;

	for (; *names; names++)
		n += *names == ':';
	return n;
}

/* How many descriptors there are for this process. */
static int read_environment(unsigned *n, struct err *err)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	unsigned long value;
	int r;

	*n = 0;
	if (!pid || !fds)
		return 0;
	r = number("LISTEN_PID", pid, INT32_MAX, &value, err);
	if (r < 0)
		return r;
	/* They were for a process that has started us. */
	if (value != (unsigned long)getpid())
		return 0;
	r = number("LISTEN_FDS", fds, LISTEN_MAX, &value, err);
	if (r < 0)
		return r;
	if (names && value && count_names(names) != (int)value)
		return err_set(err, EINVAL,
			       "environment: LISTEN_FDNAMES has %d names for %lu descriptors",
			       count_names(names), value);
	*n = (unsigned)value;
	return 0;
}

int listen_activated(struct listen_set *set, unsigned *n, struct err *err)
{
	static const char *const variables[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
						"LISTEN_PIDFDID"};
	const unsigned before = set->n;
	int r = read_environment(n, err);

	/* What we start must not take them for its own. */
	for (size_t i = 0; i < ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
	for (unsigned i = 0; r == 0 && i < *n; i++)
		r = listen_fd(set, FIRST_FD + (int)i, err);
	if (r < 0) {
		listen_shrink(set, before);
		*n = 0;
		return err_ctx(err, r, "socket activation");
	}
	return 0;
}
