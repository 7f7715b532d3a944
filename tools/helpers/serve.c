// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: what `img serve` runs; see tools/serve.c.
 *
 *     the command line          options.c, images.c, credentials.c
 *     the sockets               here
 *     --list                    list.c: no server at all
 *     the supervisor            supervise.c: the process that the user started; tell.c
 *     the server's process      server.c: its fork, which has the images; seal.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "helpers/frame/frame.h"
#include "helpers/serve/parts.h"

/* ---- sockets ---- */

static int listen_paths(const struct serve *s, struct listen_set *set, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < s->n_sockets; i++) {
		const struct listen_unix_args args = {
			.path = s->sockets[i], .mode = -1, .uid = (uid_t)-1, .gid = (gid_t)-1};

		r = listen_unix(set, &args, err);
	}
	return r;
}

static int listen_hosts(const struct serve *s, struct listen_set *set, struct err *err)
{
	const char *port = s->port ? s->port : LISTEN_NBD_PORT;
	int r = 0;

	/* Who wants to be reached from elsewhere says so; the peer does not ask. */
	if (!s->n_binds)
		return listen_tcp(set, s->cli->peer ? NULL : "localhost", port, AF_UNSPEC, err);
	for (unsigned i = 0; r == 0 && i < s->n_binds; i++) {
		const char *host = s->binds[i];

		if (!*host || strcmp(host, "*") == 0)
			host = NULL;
		r = listen_tcp(set, host, port, AF_UNSPEC, err);
	}
	return r;
}

/* For --run's command alone: a socket that nobody else can reach. */
static int listen_privately(struct serve *s, struct listen_set *set, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&s->directory, "%s/img-serve.XXXXXX", tmp && *tmp ? tmp : "/tmp") < 0) {
		s->directory = NULL;
		return err_nomem(err, 64, "a file name");
	}
	if (!mkdtemp(s->directory)) {
		int e = errno;

		err_sys(err, e, "%s", s->directory);
		free(take(s->directory));
		return -e;
	}
	if (asprintf(&path, "%s/socket", s->directory) < 0) {
		path = NULL;
		return err_nomem(err, 64, "a file name");
	}
	return listen_unix(set,
			   &(struct listen_unix_args){
				   .path = path, .mode = 0600, .uid = (uid_t)-1, .gid = (gid_t)-1},
			   err);
}

static int listen_inherited(const struct serve *s, struct listen_set *set, struct err *err)
{
	unsigned n = 0;
	int r = listen_activated(set, &n, err);

	if (r == 0 && n && s->stdio)
		r = err_set(err, EINVAL, "--stdio, but there are sockets of systemd (LISTEN_FDS)");
	for (unsigned i = 0; r == 0 && i < s->n_fds; i++)
		r = err_ctx(err, listen_fd(set, s->fds[i], err), "--fd %d", s->fds[i]);
	return r;
}

static int listen_all(struct serve *s, struct listen_set *set, struct err *err)
{
	int r = listen_inherited(s, set, err);

	if (r == 0)
		r = listen_paths(s, set, err);
	if (r == 0 && s->vsock)
		r = listen_vsock(set, s->vsock_port, err);
	if (r == 0 && (s->n_binds || s->port))
		r = listen_hosts(s, set, err);
	if (r < 0 || s->stdio || set->n)
		return r;
	return s->command ? listen_privately(s, set, err) : listen_hosts(s, set, err);
}

void serve_remove_sockets(const struct serve *s, const struct listen_set *set)
{
	listen_remove(set);
	if (s->directory)
		rmdir(s->directory);
}

/* ---- the program ---- */

static int run(struct serve *s, struct listen_set *set)
{
	struct err err = {0};
	int code;

	if (listen_all(s, set, &err) < 0) {
		code = cli_error(s->cli, "%s", err.msg);
	} else {
		if (s->daemon && !serve_daemonize(s, &code))
			return code; /* the sockets are the daemon's */
		code = serve_supervise(s, set);
	}
	serve_remove_sockets(s, set);
	return code;
}

int helper_run(struct cli *cli)
{
	CLEANUP_FREE struct serve *s = calloc(1, sizeof(*s));
	struct listen_set set = {0};
	int code;

	if (!s)
		return cli_error(cli, "out of memory");
	s->cli = cli;
	if (serve_parse(s, &code)) {
		serve_count(s);
		code = s->list ? serve_list(s) : run(s, &set);
	}
	listen_close(&set);
	serve_free(s);
	return code;
}

const struct cmd *const helper_cmd = &cmd_serve;
