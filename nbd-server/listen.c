// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Making sockets that listen; see listen.h.
 *
 * A socket file is found dead by connecting to it: the kernel refuses when nobody listens. It is
 * looked at again right before it is removed, so that a server that came between is not robbed.
 */
#include "nbd-server/listen_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define SOCKET_TYPE (SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)

enum { PORT_TRIES = 32 }; /* for a port that is free on all addresses */

union address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_vm vm;
};

int listen_add(struct listen_set *set, int fd, struct listener **out, struct err *err)
{
	if (set->n == LISTEN_MAX)
		return err_set(err, EMFILE, "more than %u sockets to listen on", LISTEN_MAX);
	*out = &set->v[set->n++];
	**out = (struct listener){.fd = fd};
	return 0;
}

void listen_shrink(struct listen_set *set, unsigned n)
{
	while (set->n > n) {
		struct listener *l = &set->v[--set->n];

		close(l->fd);
		free(l->host);
		free(l->path);
	}
}

void listen_close(struct listen_set *set)
{
	listen_shrink(set, 0);
}

static void remove_file(const struct listener *l)
{
	struct stat st;

	if (l->made && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
}

void listen_remove(const struct listen_set *set)
{
	for (unsigned i = 0; i < set->n; i++)
		remove_file(&set->v[i]);
}

/* ---- addresses ---- */

static bool any_host(const union address *a)
{
	if (a->any.sa_family == AF_INET)
		return a->in.sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

static int learn_host(struct listener *l, const union address *a, socklen_t len, struct err *err)
{
	char host[NI_MAXHOST];
	int r;

	l->port = ntohs(l->family == AF_INET ? a->in.sin_port : a->in6.sin6_port);
	if (any_host(a))
		return 0;
	r = getnameinfo(&a->any, len, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	if (r != 0)
		return err_set(err, EINVAL, "the address of a socket: %s", gai_strerror(r));
	l->host = strdup(host);
	return l->host ? 0 : err_nomem(err, sizeof(host), "an address");
}

int listen_learn(struct listener *l, struct err *err)
{
	const size_t path_at = offsetof(struct sockaddr_un, sun_path);
	union address a = {0};
	socklen_t len = sizeof(a);

	if (getsockname(l->fd, &a.any, &len) < 0)
		return err_sys(err, errno, "the address of descriptor %d", l->fd);
	l->family = a.any.sa_family;
	if (l->family == AF_INET || l->family == AF_INET6)
		return learn_host(l, &a, len, err);
	if (l->family == AF_VSOCK)
		l->port = a.vm.svm_port;
	/* One without a file has no path, or one that begins with a 0. */
	if (l->family == AF_UNIX && len > path_at && a.un.sun_path[0] != '\0') {
		l->path = strndup(a.un.sun_path, len - path_at);
		return l->path ? 0 : err_nomem(err, len, "a path");
	}
	return 0;
}

/* ---- Unix sockets ---- */

static int unix_address(struct sockaddr_un *address, const char *path, struct err *err)
{
	size_t len = strlen(path);

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (len == 0)
		return err_set(err, EINVAL, "the path of a Unix socket is empty");
	if (len >= sizeof(address->sun_path))
		return err_set(err, ENAMETOOLONG,
			       "%s: the path of a Unix socket has at most %zu bytes, this has %zu",
			       path, sizeof(address->sun_path) - 1, len);
	memcpy(address->sun_path, path, len + 1);
	return 0;
}

/* Whether a server answers at the address: 0: yes; ECONNREFUSED: nobody any more; else an errno. */
static int answers(const struct sockaddr_un *address)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCKET_TYPE, 0);

	if (fd < 0)
		return errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return 0;
	/* EAGAIN: it listens, and is busy. */
	return errno == EAGAIN ? 0 : errno;
}

/* Makes room where a server that is gone has left its socket. */
static int remove_stale(const struct sockaddr_un *address, struct err *err)
{
	const char *path = address->sun_path;
	struct stat before, now;
	int code;

	if (lstat(path, &before) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
	if (!S_ISSOCK(before.st_mode))
		return err_set(err, EADDRINUSE, "%s: exists, and is not a socket", path);
	code = answers(address);
	if (code == ENOENT)
		return 0;
	if (code == 0)
		return err_set(err, EADDRINUSE, "%s: another process listens on this socket", path);
	if (code != ECONNREFUSED)
		return err_sys(err, code, "%s: exists, and whether it is in use is unknown", path);
	if (lstat(path, &now) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
	if (now.st_dev != before.st_dev || now.st_ino != before.st_ino ||
	    now.st_ctim.tv_sec != before.st_ctim.tv_sec ||
	    now.st_ctim.tv_nsec != before.st_ctim.tv_nsec)
		return err_set(err, EADDRINUSE, "%s: another process made this socket", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "%s: left by a process that is gone", path);
	return 0;
}

/* By a descriptor of the file: its name may come to mean another one. */
static int set_owner_and_mode(struct listener *l, const struct listen_unix_args *args,
			      struct err *err)
{
	CLEANUP_FD int fd = open(args->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char link[32];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "%s", args->path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, EEXIST, "%s: was replaced by another file", args->path);
	l->made = true;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	if ((args->uid != (uid_t)-1 || args->gid != (gid_t)-1) &&
	    fchownat(fd, "", args->uid, args->gid, AT_EMPTY_PATH) < 0)
		return err_sys(err, errno, "%s: its owner", args->path);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (args->mode >= 0 && chmod(link, (mode_t)args->mode) < 0)
		return err_sys(err, errno, "%s: its permissions", args->path);
	return 0;
}

/* Clients have other working directories: absolute, unless that does not fit into an address. */
static char *known_path(const char *path)
{
	CLEANUP_FREE char *dir = *path == '/' ? NULL : getcwd(NULL, 0);
	char *full;

	if (!dir)
		return strdup(path);
	if (asprintf(&full, "%s/%s", dir, path) < 0)
		return NULL;
	if (strlen(full) < sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return full;
	free(full);
	return strdup(path);
}

static int bind_unix(struct listener *l, const struct listen_unix_args *args, struct err *err)
{
	struct sockaddr_un address;
	int r = unix_address(&address, args->path, err);

	if (r == 0)
		r = remove_stale(&address, err);
	if (r < 0)
		return r;
	l->family = AF_UNIX;
	l->path = known_path(args->path);
	if (!l->path)
		return err_nomem(err, PATH_MAX, "a path");
	/* bind gives the file the mode of the socket, so it is never open to more than it should. */
	if (args->mode >= 0)
		fchmod(l->fd, (mode_t)args->mode);
	if (bind(l->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_sys(err, errno, "%s", args->path);
	r = set_owner_and_mode(l, args, err);
	if (r == 0 && listen(l->fd, SOMAXCONN) < 0)
		r = err_sys(err, errno, "%s", args->path);
	if (r < 0)
		remove_file(l);
	return r;
}

/* A new socket at the end of the set. */
static int new_socket(struct listen_set *set, int family, struct listener **out, struct err *err)
{
	CLEANUP_FD int fd = socket(family, SOCKET_TYPE, 0);
	int r;

	if (fd < 0)
		return err_sys(err, errno, "a socket");
	r = listen_add(set, fd, out, err);
	if (r == 0)
		fd = -1;
	return r;
}

int listen_unix(struct listen_set *set, const struct listen_unix_args *args, struct err *err)
{
	unsigned before = set->n;
	struct listener *l;
	int r = new_socket(set, AF_UNIX, &l, err);

	if (r == 0)
		r = bind_unix(l, args, err);
	if (r < 0)
		listen_shrink(set, before);
	return r;
}

/* ---- TCP ---- */

void listen_tune(int fd)
{
	/* Failing costs time, not truth. */
	const int on = 1, idle = 60, interval = 15, probes = 4;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static void set_port(union address *address, unsigned port)
{
	if (address->any.sa_family == AF_INET)
		address->in.sin_port = htons((uint16_t)port);
	else
		address->in6.sin6_port = htons((uint16_t)port);
}

/* -errno without text. */
static int bind_tcp(struct listener *l, const struct addrinfo *ai, unsigned port)
{
	union address address;
	const int on = 1;

	memcpy(&address, ai->ai_addr, ai->ai_addrlen);
	if (port)
		set_port(&address, port);
	/* A port whose old connections linger can be had again. */
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* Each family has a socket of its own, whatever the default is. */
	if (ai->ai_family == AF_INET6 &&
	    setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return -errno;
	if (bind(l->fd, &address.any, ai->ai_addrlen) < 0 || listen(l->fd, SOMAXCONN) < 0)
		return -errno;
	listen_tune(l->fd);
	return 0;
}

/* Names may stand for the same address twice ("localhost" in /etc/hosts). */
static bool seen_before(const struct addrinfo *list, const struct addrinfo *ai)
{
	for (const struct addrinfo *p = list; p != ai; p = p->ai_next) {
		if (p->ai_addrlen == ai->ai_addrlen &&
		    memcmp(p->ai_addr, ai->ai_addr, ai->ai_addrlen) == 0)
			return true;
	}
	return false;
}

/* Clients use the name that the user gave, which certificates are for. */
static int learn_name(struct listener *l, const char *host, struct err *err)
{
	int r = listen_learn(l, err);

	if (r < 0 || !l->host || !host)
		return r;
	free(l->host);
	l->host = strdup(host);
	return l->host ? 0 : err_nomem(err, strlen(host), "a host name");
}

static int listen_at(struct listen_set *set, const struct addrinfo *ai, const char *host,
		     unsigned port, struct err *err)
{
	unsigned before = set->n;
	struct listener *l;
	int r = new_socket(set, ai->ai_family, &l, err);

	if (r < 0)
		return r;
	r = bind_tcp(l, ai, port);
	if (r == 0)
		r = learn_name(l, host, err);
	else
		err_sys(err, -r, "listening at %s", host ? host : "any address");
	if (r < 0)
		listen_shrink(set, before);
	return r;
}

/* Whether this host just does not have that family, or address of it. */
static bool absent(int r)
{
	return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL || r == -EPROTONOSUPPORT;
}

/* All addresses with one port: that of the first, where it is chosen by the kernel. */
static int listen_all(struct listen_set *set, const struct addrinfo *list, const char *host,
		      struct err *err)
{
	const unsigned before = set->n;
	unsigned port = 0;
	int r = 0;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		if (seen_before(list, ai) ||
		    (ai->ai_family != AF_INET && ai->ai_family != AF_INET6))
			continue;
		r = listen_at(set, ai, host, port, err);
		if (r < 0 && !absent(r))
			break;
		if (r == 0)
			port = set->v[set->n - 1].port;
	}
	if (r == 0 || (absent(r) && set->n > before))
		return 0;
	listen_shrink(set, before);
	return r;
}

static int resolve(const char *host, const char *port, int family, struct addrinfo **list,
		   struct err *err)
{
	const struct addrinfo hints = {.ai_family = family,
				       .ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_PASSIVE};
	int r;

	/* getaddrinfo takes the lower 16 bits. */
	if (strspn(port, "0123456789") == strlen(port) && strtoul(port, NULL, 10) > UINT16_MAX)
		return err_set(err, EINVAL, "TCP port %s: the greatest is %d", port, UINT16_MAX);
	r = getaddrinfo(host, *port ? port : "0", &hints, list);
	if (r == EAI_SYSTEM)
		return err_sys(err, errno, "%s, port %s", host ? host : "any address", port);
	if (r == EAI_SERVICE)
		return err_set(err, EINVAL, "TCP port '%s': neither a number nor a known service",
			       port);
	if (r != 0)
		return err_set(err, r == EAI_MEMORY ? ENOMEM : EINVAL, "%s, port %s: %s",
			       host ? host : "any address", port, gai_strerror(r));
	return 0;
}

int listen_tcp(struct listen_set *set, const char *host, const char *port, int family,
	       struct err *err)
{
	const bool any_port = strspn(port, "0") == strlen(port);
	struct addrinfo *list = NULL;
	int r = resolve(host, port, family, &list, err), tries = PORT_TRIES;

	if (r < 0)
		return r;
	do
		r = listen_all(set, list, host, err);
	/* The port that was free on the first address may be taken on another. */
	while (any_port && r == -EADDRINUSE && --tries);
	freeaddrinfo(list);
	return r < 0 ? err_ctx(err, r, "TCP port %s", port) : 0;
}

/* ---- vsock ---- */

static int bind_vsock(struct listener *l, unsigned port, struct err *err)
{
	const union address a = {.vm = {.svm_family = AF_VSOCK,
					.svm_cid = VMADDR_CID_ANY,
					.svm_port = port ? port : VMADDR_PORT_ANY}};

	if (bind(l->fd, &a.any, sizeof(a.vm)) < 0 || listen(l->fd, SOMAXCONN) < 0)
		return err_sys(err, errno, "listening on vsock port %u", port);
	return listen_learn(l, err);
}

int listen_vsock(struct listen_set *set, unsigned port, struct err *err)
{
	unsigned before = set->n;
	struct listener *l;
	int r = new_socket(set, AF_VSOCK, &l, err);

	if (r < 0)
		return err_ctx(err, r, "vsock");
	r = bind_vsock(l, port, err);
	if (r < 0)
		listen_shrink(set, before);
	return r;
}
