// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: the process that the user started. It stays as the supervisor of the server's process,
 * which cannot do any of this any more: it says when the server is ready, runs --run's command,
 * passes signals on, and tidies up. It opens no image and talks to no client.
 *
 *     server opens images ──ready──> serving ──SIGTERM, last client left──> ended
 *                └──────────────────────┴──error, killed──────────────────────┘
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "helpers/serve/parts.h"

struct supervisor {
	struct serve *s;
	struct listen_set *set;
	pid_t server, command; /* 0: there is none (any more) */
	int report, signals;   /* descriptors */
	sigset_t before;       /* what was blocked when we came */
	unsigned asked;        /* how many times to stop */
	int stopped_by;        /* the signal that ended it at once; 0: none */
	int code;              /* exit code so far */
	int command_code;      /* of --run; -1: not yet */
};

/* ---- processes ---- */

static int start_server(struct supervisor *v, struct err *err)
{
	int pipe[2];

	if (pipe2(pipe, O_CLOEXEC) < 0)
		return err_sys(err, errno, "a pipe");
	v->s->supervisor = getpid();
	fflush(NULL);
	v->server = fork();
	if (v->server == 0) {
		close(pipe[0]);
		close(v->signals);
		if (v->s->daemon)
			close(v->s->daemon_ready);
		serve_server(v->s, v->set, pipe[1]);
	}
	close(pipe[1]);
	v->report = pipe[0];
	if (v->server < 0) {
		v->server = 0;
		return err_sys(err, errno, "fork");
	}
	return 0;
}

static int set_variables(const struct supervisor *v, const struct listen_uris *uris)
{
	const char *uri = uris->n ? uris->v[0] : "", *path = "";
	char port[16] = "";

	for (unsigned i = v->set->n; i-- > 0;) {
		const struct listener *l = &v->set->v[i];

		if (l->path)
			path = l->path;
		else if (l->port)
			snprintf(port, sizeof(port), "%u", l->port);
	}
	unsetenv("NOTIFY_SOCKET");
	return setenv("uri", uri, 1) | setenv("URI", uri, 1) | setenv("unixsocket", path, 1) |
	       setenv("port", port, 1);
}

static int start_command(struct supervisor *v, const struct listen_uris *uris, struct err *err)
{
	fflush(NULL);
	v->command = fork();
	if (v->command < 0) {
		v->command = 0;
		return err_sys(err, errno, "fork");
	}
	if (v->command)
		return 0;
	sigprocmask(SIG_SETMASK, &v->before, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	if (set_variables(v, uris) == 0)
		execl("/bin/sh", "sh", "-c", v->s->command, (char *)NULL);
	cli_error(v->s->cli, "--run: %s", strerror(errno));
	_exit(127);
}

/* ---- stopping ---- */

static void stop_server(const struct supervisor *v, int sig)
{
	if (v->server)
		kill(v->server, sig);
}

/* Something failed that makes serving pointless. */
static void give_up(struct supervisor *v, const struct err *err)
{
	v->code = cli_error(v->s->cli, "%s", err->msg);
	stop_server(v, SIGTERM);
	if (v->command)
		kill(v->command, SIGTERM);
}

/* The first one ends it in order, the second one at once. */
static void on_stop_signal(struct supervisor *v, int sig)
{
	v->asked++;
	serve_notify(v->s, "STOPPING=1");
	if (v->command)
		kill(v->command, sig);
	if (v->asked > 1)
		v->stopped_by = sig;
	stop_server(v, v->asked > 1 ? SIGKILL : SIGTERM);
}

static void server_ended(struct supervisor *v, int status)
{
	v->server = 0;
	if (WIFEXITED(status)) {
		v->code = WEXITSTATUS(status) ? 1 : v->code;
		return;
	}
	v->code = 1;
	if (v->stopped_by)
		return;
	cli_error(v->s->cli, "The server's process was killed by SIG%s%s",
		  sigabbrev_np(WTERMSIG(status)),
		  WTERMSIG(status) == SIGSYS ? ": it made a system call that it does not need"
					     : "");
}

static void command_ended(struct supervisor *v, int status)
{
	v->command = 0;
	v->command_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	stop_server(v, SIGTERM);
}

static void reap(struct supervisor *v)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == v->server)
			server_ended(v, status);
		else if (pid == v->command)
			command_ended(v, status);
	}
}

/* ---- events ---- */

static void on_signal(struct supervisor *v)
{
	struct signalfd_siginfo info;

	if (read(v->signals, &info, sizeof(info)) != sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGCHLD:
		reap(v);
		break;
	case SIGUSR1:
		serve_tell_state(v->s);
		break;
	default:
		on_stop_signal(v, (int)info.ssi_signo);
		break;
	}
}

/* The server's process met no client before this, and what is said here is true. */
static int announce(struct supervisor *v, struct err *err)
{
	struct listen_uris uris = {0};
	int r = serve_write_pid(v->s, err);

	if (r == 0)
		r = serve_print_ready(v->s, v->server, v->set, err);
	if (r == 0 && v->s->command) {
		r = listen_uris(v->set, v->s->image[0].args.name,
				v->s->config.tls_mode == SERVER_TLS_REQUIRED, &uris, err);
		if (r == 0)
			r = start_command(v, &uris, err);
		listen_uris_free(&uris);
	}
	if (r == 0) {
		serve_notify(v->s, "READY=1");
		r = serve_daemon_ready(v->s, err);
	}
	return r;
}

static void on_report(struct supervisor *v)
{
	struct err err = {0};
	char byte;
	ssize_t n = read(v->report, &byte, 1);

	if (n < 0 && errno == EINTR)
		return;
	close(v->report);
	v->report = -1;
	/* Who was asked to stop before is not told that it serves. */
	if (n == 1 && !v->asked && announce(v, &err) < 0)
		give_up(v, &err);
}

static void watch(struct supervisor *v)
{
	while (v->server || v->command) {
		struct pollfd p[2] = {{.fd = v->signals, .events = POLLIN},
				      {.fd = v->report, .events = POLLIN}};

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			on_report(v);
		if (p[0].revents)
			on_signal(v);
	}
}

static int watch_signals(struct supervisor *v, struct err *err)
{
	static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		sigaddset(&set, numbers[i]);
	signal(SIGCHLD, SIG_DFL); /* ignored, children would leave no status */
	sigprocmask(SIG_BLOCK, &set, &v->before);
	v->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return v->signals < 0 ? err_sys(err, errno, "signalfd") : 0;
}

/* The server's process has them; only their names are needed here. */
static void leave_sockets(struct supervisor *v)
{
	for (unsigned i = 0; i < v->set->n; i++) {
		close(v->set->v[i].fd);
		v->set->v[i].fd = -1;
	}
}

int serve_supervise(struct serve *s, struct listen_set *set)
{
	struct supervisor v = {.s = s, .set = set, .report = -1, .signals = -1, .command_code = -1};
	struct err err = {0};
	int r = watch_signals(&v, &err);

	if (r == 0)
		r = start_server(&v, &err);
	leave_sockets(&v);
	if (r == 0 && s->stdio)
		r = serve_leave_streams(false, &err);
	if (r < 0)
		give_up(&v, &err);
	watch(&v);
	serve_remove_pid(s);
	if (v.signals >= 0)
		close(v.signals);
	if (v.stopped_by) {
		serve_remove_sockets(s, set);
		sigprocmask(SIG_SETMASK, &v.before, NULL);
		return cli_interrupted(s->cli, v.stopped_by);
	}
	return v.command_code >= 0 && v.code == 0 ? v.command_code : v.code;
}
