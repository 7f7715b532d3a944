// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: the server's process. It opens the images itself, so that nobody else holds their locks;
 * then it gives up whatever it does not need any more, and only then meets clients.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "helpers/serve/parts.h"

/* Of this process, which a fork made for it alone: a signal handler has to find it. */
static struct server *running;

static void on_term(int sig)
{
	int e = errno;

	(void)sig;
	server_stop(running);
	errno = e;
}

/* A terminal's Ctrl-C is for the supervisor, which then sends SIGTERM. */
static int own_signals(struct err *err)
{
	const struct sigaction term = {.sa_handler = on_term, .sa_flags = SA_RESTART};
	static const int ignored[] = {SIGINT, SIGHUP, SIGUSR1, SIGQUIT};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	/* One that came while the images were opened is delivered now. */
	if (sigaction(SIGTERM, &term, NULL) < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return err_sys(err, errno, "signals");
	return 0;
}

static void say(void *ctx, enum server_event event, const char *text)
{
	const struct serve *s = ctx;

	if (event == SERVER_WARNING)
		cli_warn(s->cli, "%s", text);
	else if (s->verbose >= (event == SERVER_INFO ? 1u : 2u))
		cli_note(s->cli, "%s", text);
}

static void warn(void *ctx, const char *text)
{
	say(ctx, SERVER_WARNING, text);
}

/* ---- standard streams ---- */

/* Of a service like inetd's, where messages would go to the client. */
static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino && (S_ISSOCK(x.st_mode) || S_ISFIFO(x.st_mode));
}

/* The client of --stdio, on descriptors that are not standard streams. */
static int open_stdio(struct serve *s, struct err *err)
{
	int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), out = -1, r;
	struct stat st;

	if (in < 0 || fstat(in, &st) < 0)
		return err_sys(err, errno, "standard input");
	if (S_ISSOCK(st.st_mode)) {
		r = channel_socket(in, &s->config.single, err);
	} else {
		out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
		if (out < 0) {
			r = err_sys(err, errno, "standard output");
			close(in);
			return r;
		}
		r = channel_pipes(in, out, &s->config.single, err);
	}
	if (r < 0) {
		close(in);
		if (out >= 0)
			close(out);
	}
	return r;
}

/*
 * Standard input and output are nobody's now. A daemon's messages have nobody to read them, once
 * the caller heard that it is ready; with -v they stay where they were.
 */
static int leave_streams(const struct serve *s, struct err *err)
{
	bool quiet = (s->daemon && !s->verbose) ||
		     (s->stdio && (same_file(STDIN_FILENO, STDERR_FILENO) ||
				   same_file(STDOUT_FILENO, STDERR_FILENO)));

	return serve_leave_streams(quiet, err);
}

/* ---- life ---- */

struct life {
	struct serve *s;
	struct nbd_export *exports[SERVE_MAX];
	struct tls *tls;
	int listeners[LISTEN_MAX];
	int ready;
};

static int open_server(struct life *l, const struct listen_set *set, struct err *err)
{
	struct server_config *config = &l->s->config;
	int r = 0;

	for (unsigned i = 0; i < set->n; i++)
		l->listeners[i] = set->v[i].fd;
	config->listeners = l->listeners;
	config->n_listeners = set->n;
	config->exports = l->exports;
	config->log = (struct server_log){.line = say, .ctx = l->s};
	if (config->tls_mode != SERVER_TLS_OFF) {
		l->s->tls.warn = warn;
		l->s->tls.warn_ctx = l->s;
		r = tls_open(&l->s->tls, &l->tls, err);
		config->tls = l->tls;
	}
	if (r == 0 && l->s->stdio)
		r = open_stdio(l->s, err);
	return r < 0 ? r : server_open(config, &running, err);
}

/* Whoever started us dies: what is in flight is finished, and the images are closed in order. */
static int follow(pid_t parent, struct err *err)
{
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		return err_sys(err, errno, "PR_SET_PDEATHSIG");
	return getppid() == parent ? 0 : err_set(err, ESRCH, "the supervisor is dead");
}

static int tell_ready(const struct life *l, struct err *err)
{
	ssize_t n = write(l->ready, "", 1);

	close(l->ready);
	return n == 1 ? 0 : err_set(err, EPIPE, "the supervisor is dead");
}

static int prepare(struct life *l, const struct listen_set *set, pid_t parent, struct err *err)
{
	int r = open_server(l, set, err);

	if (r == 0)
		r = serve_become(l->s->user, err);
	if (r == 0)
		r = follow(parent, err);
	if (r == 0)
		r = own_signals(err);
	if (r == 0)
		r = leave_streams(l->s, err);
	if (r == 0)
		r = serve_seal(err);
	return r == 0 ? tell_ready(l, err) : r;
}

/* Every image, also after one that failed. */
static int close_images(struct life *l)
{
	int code = 0;

	for (unsigned i = 0; i < l->s->config.n_exports; i++) {
		struct err err = {0};

		if (export_settle(l->exports[i], &err) < 0)
			code = cli_error(l->s->cli, "%s", err.msg);
		export_close(l->exports[i]);
	}
	return code;
}

static int live(struct life *l, const struct listen_set *set, pid_t parent)
{
	struct err err = {0};
	int r, code;

	if (!serve_open_images(l->s, l->exports))
		return 1;
	r = prepare(l, set, parent, &err);
	if (r == 0)
		r = server_run(running, &err);
	if (r < 0)
		cli_error(l->s->cli, "%s", err.msg);
	server_close(running);
	tls_close(l->tls);
	code = close_images(l);
	return r < 0 ? 1 : code;
}

void serve_server(struct serve *s, const struct listen_set *set, int ready)
{
	struct life l = {.s = s, .ready = ready};
	int code = live(&l, set, s->supervisor);

	fflush(NULL);
	/* Not exit: what runs then (sanitizers look for leaks) is not for a sealed process. */
	_exit(code);
}
