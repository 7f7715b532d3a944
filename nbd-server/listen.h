/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets that the server listens on: Unix, TCP (IPv4 and IPv6) and vsock ones that are made
 * here, and those that were passed in (a descriptor, systemd); and what clients call them.
 *
 * For the time before the server runs: one thread.
 */
#ifndef IMGKIT_NBD_LISTEN_H
#define IMGKIT_NBD_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/err.h"

#define LISTEN_NBD_PORT "10809" /* assigned by IANA */
#define LISTEN_MAX      64u     /* sockets of a set */

struct listener {
	int fd; /* listening, non-blocking, close-on-exec */
	sa_family_t family;
	unsigned port; /* of TCP and vsock */
	char *host;    /* owned: what clients may call us; NULL: any address, or no name is known */
	char *path;    /* owned: of a Unix socket, absolute where that fits. NULL: has none */
	bool made;     /* path was made here */
	dev_t dev;     /* made: which file it is */
	ino_t ino;
};

/* Zero-initialise; free with listen_close. A call that fails adds nothing. */
struct listen_set {
	struct listener v[LISTEN_MAX];
	unsigned n;
};

struct listen_unix_args {
	const char *path;
	int mode;  /* permissions; -1: as the umask says */
	uid_t uid; /* owner and group; -1: as they come */
	gid_t gid;
};

/*
 * A socket at a path. A socket file on which nobody listens any more is replaced; -EADDRINUSE: there
 * is a file of another kind, or somebody listens. -ENAMETOOLONG.
 */
int listen_unix(struct listen_set *set, const struct listen_unix_args *args, struct err *err);

/*
 * One socket for each address that a host name stands for, or for any address (host NULL). Port 0,
 * or "0": one that is free on all of them. family: AF_UNSPEC, AF_INET or AF_INET6.
 */
int listen_tcp(struct listen_set *set, const char *host, const char *port, int family,
	       struct err *err);

/* For virtual machines of this host. Port 0: one that is free. */
int listen_vsock(struct listen_set *set, unsigned port, struct err *err);

/* A socket that was inherited, owned on success. -EINVAL: it is not a listening stream socket. */
int listen_fd(struct listen_set *set, int fd, struct err *err);

/*
 * The sockets that systemd passes to this process (sd_listen_fds(3)); *n of them, 0: none. The
 * variables that say so are taken out of the environment. Not after a fork: they name a process.
 */
int listen_activated(struct listen_set *set, unsigned *n, struct err *err);

/*
 * Removes the socket files that were made, if they are still the same; needs no open descriptor, but
 * the working directory of before, if a path is relative.
 */
void listen_remove(const struct listen_set *set);

/* Closes the sockets and frees, but leaves the files: forks of this process may still listen. */
void listen_close(struct listen_set *set);

/*
 * What a client on this host opens to get the export: nbd://…, nbd+unix://…, with tls nbds://…; see
 * NetworkBlockDevice/nbd, doc/uri.md. Of each one once, in the order of the sockets.
 */
struct listen_uris {
	char *v[LISTEN_MAX]; /* owned */
	unsigned n;
};
int listen_uris(const struct listen_set *set, const char *name, bool tls, struct listen_uris *uris,
		struct err *err);
void listen_uris_free(struct listen_uris *uris);

#endif
