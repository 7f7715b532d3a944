// SPDX-License-Identifier: GPL-2.0-or-later
/* img-serve: exports an image over NBD on a Unix socket. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "helpers/frame/frame.h"
#include "nbd-server/listen.h"
#include "nbd-server/server.h"

static const struct cmd_opt options[] = {
	{'k', "socket", "PATH", "Unix socket to listen on"},
	{'r', "read-only", NULL, "do not write to the image"},
	{'f', "format", "FMT", "format of the image"},
	{'t', "persistent", NULL, "go on when the last client has left"},
	{'v', "verbose", NULL, "say what happens"},
	{0},
};

static const struct cmd cmd_serve = {
	.name = "serve",
	.summary = "Export an image over NBD",
	.args = "FILE",
	.opts = options,
	.run = helper_run,
};
const struct cmd *const helper_cmd = &cmd_serve;

static struct server *the_server;

static void on_signal(int sig)
{
	(void)sig;
	server_stop(the_server);
}

static void say(void *ctx, enum server_event event, const char *text)
{
	const bool *verbose = ctx;

	if (*verbose || event == SERVER_WARNING)
		fprintf(stderr, "img: %s\n", text);
}

int helper_run(struct cli *cli)
{
	struct img_open_args open = {.flags = IMG_RDWR};
	struct export_args args = {.name = ""};
	struct nbd_export *e;
	struct listen_set set = {0};
	struct listen_unix_args sock = {.mode = -1, .uid = (uid_t)-1, .gid = (gid_t)-1};
	bool verbose = false;
	struct server_config config = {.exports = &e,
				       .n_exports = 1,
				       .list_exports = true,
				       .handshake_ms = 10000,
				       .log = {say, &verbose}};
	struct err err = {0};
	struct img *img;
	int id, r;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (id == 'k')
			sock.path = cli->arg;
		else if (id == 'r')
			open.flags &= ~(unsigned)IMG_RDWR;
		else if (id == 'f')
			open.format = cli->arg;
		else if (id == 't')
			config.persistent = true;
		else if (id == 'v')
			verbose = true;
		else
			open.path = cli->arg;
	}
	if (!open.path || !sock.path)
		return cli_usage(cli, "Expecting a socket and an image file name");
	img = cli_open(cli, &open);
	if (!img)
		return 1;
	r = export_open(img, &args, &e, &err);
	if (r == 0)
		r = listen_unix(&set, &sock, &err);
	config.listeners = &set.v[0].fd;
	config.n_listeners = set.n;
	if (r == 0)
		r = server_open(&config, &the_server, &err);
	if (r == 0) {
		signal(SIGTERM, on_signal);
		signal(SIGINT, on_signal);
		signal(SIGPIPE, SIG_IGN);
		r = server_run(the_server, &err);
		server_close(the_server);
	}
	if (r == 0)
		r = export_settle(e, &err);
	listen_close(&set);
	export_close(e);
	return r < 0 ? cli_error(cli, "%s", err.msg) : 0;
}
