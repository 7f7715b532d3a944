// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: how others hear of the server: URIs on standard output, the pid file, systemd's
 * socket, the caller that waits for a daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/size.h"
#include "helpers/serve/parts.h"

/* ---- URIs ---- */

static json_t *export_json(const struct serve_image *m, const struct listen_uris *uris)
{
	json_t *o = json_object(), *list = json_array();
	int k = json_set_text(o, "name", m->args.name);

	k |= json_set_text(o, "filename", m->file);
	k |= json_set_bool(o, "read-only", m->read_only);
	for (unsigned i = 0; i < uris->n; i++)
		k |= json_array_append_new(list, json_text(uris->v[i]));
	k |= json_object_set_new(o, "uris", list);
	if (k == 0)
		return o;
	json_decref(o);
	return NULL;
}

/* One export: lines, or its object in the list. */
static int tell_export(const struct serve *s, const struct serve_image *m,
		       const struct listen_set *set, json_t *list, struct err *err)
{
	struct listen_uris uris = {0};
	int r = listen_uris(set, m->args.name, s->config.tls_mode == SERVER_TLS_REQUIRED, &uris,
			    err);

	if (r < 0)
		return r;
	if (list && json_array_append_new(list, export_json(m, &uris)) < 0)
		r = err_nomem(err, 256, "the list of exports");
	for (unsigned i = 0; !list && i < uris.n; i++) {
		if (s->print) {
			cli_put_text(s->cli, uris.v[i]);
			putchar('\n');
		} else {
			cli_note(s->cli, "Serving %s as %s", m->path, uris.v[i]);
		}
	}
	listen_uris_free(&uris);
	return r;
}

int serve_print_ready(const struct serve *s, pid_t server, const struct listen_set *set,
		      struct err *err)
{
	json_t *all = s->json ? json_object() : NULL, *list = s->json ? json_array() : NULL;
	int r = 0;

	if (!s->print && !s->verbose)
		return 0;
	for (unsigned i = 0; r == 0 && i < s->n_images; i++)
		r = tell_export(s, &s->image[i], set, list, err);
	if (s->json) {
		int k = json_set_u64(all, "pid", (uint64_t)getpid());

		k |= json_set_u64(all, "server-pid", (uint64_t)server);
		k |= json_object_set_new(all, "exports", list);
		if (r < 0 || k < 0)
			json_decref(all);
		else if (cli_print_json(s->cli, all) != 0)
			k = -1;
		if (r == 0 && k < 0)
			r = err_nomem(err, 256, "the list of exports");
	}
	if (r == 0 && fflush(stdout) != 0)
		r = err_sys(err, errno, "Could not write to standard output");
	return r;
}

/* ---- what the server does ---- */

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void serve_count(struct serve *s)
{
	void *p = mmap(NULL, sizeof(struct server_stats), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	s->started = now();
	s->config.stats = p == MAP_FAILED ? NULL : p;
}

/* Rates are averages since the server was started. */
void serve_tell_state(const struct serve *s)
{
	const struct server_stats *stats = s->config.stats;
	uint64_t ms = (now() - s->started) / 1000000 + 1, read, written;
	char text[4][32];

	if (!stats)
		return;
	read = atomic_load(&stats->read);
	written = atomic_load(&stats->written);
	cli_note(s->cli,
		 "serve: %" PRIu64 " clients, %" PRIu64
		 " requests, %s read (%s/s), %s written (%s/s)",
		 atomic_load(&stats->clients), atomic_load(&stats->requests),
		 size_format(read, text[0], sizeof(text[0])),
		 size_format(read * 1000 / ms, text[1], sizeof(text[1])),
		 size_format(written, text[2], sizeof(text[2])),
		 size_format(written * 1000 / ms, text[3], sizeof(text[3])));
}

/* ---- the pid file ---- */

/* It appears whole, and replaces one that was left behind. */
int serve_write_pid(struct serve *s, struct err *err)
{
	CLEANUP_FREE char *name = NULL;
	struct stat st;
	FILE *f;
	int fd, r = 0;

	if (!s->pid_file)
		return 0;
	if (asprintf(&name, "%s.XXXXXX", s->pid_file) < 0) {
		name = NULL;
		return err_nomem(err, strlen(s->pid_file), "a file name");
	}
	fd = mkostemp(name, O_CLOEXEC);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		return err_sys(err, errno, "%s", s->pid_file);
	fprintf(f, "%ld\n", (long)getpid());
	if (fflush(f) != 0 || fchmod(fd, 0644) < 0 || fstat(fd, &st) < 0 ||
	    rename(name, s->pid_file) < 0)
		r = err_sys(err, errno, "%s", s->pid_file);
	fclose(f);
	if (r < 0) {
		unlink(name);
		return r;
	}
	s->pid_dev = st.st_dev;
	s->pid_ino = st.st_ino;
	return 0;
}

void serve_remove_pid(const struct serve *s)
{
	struct stat st;

	if (s->pid_ino && lstat(s->pid_file, &st) == 0 && st.st_dev == s->pid_dev &&
	    st.st_ino == s->pid_ino)
		unlink(s->pid_file);
}

/* ---- systemd: sd_notify(3) ---- */

void serve_notify(const struct serve *s, const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	CLEANUP_FD int fd = -1;

	if (!len || len >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(to.sun_path, path, len);
	if (path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		cli_warn(s->cli, "$NOTIFY_SOCKET: %s", strerror(errno));
}

/* ---- daemons ---- */

/* The caller's process: waits until the daemon is ready, or has failed. */
static int wait_for_daemon(pid_t pid, int fd)
{
	char byte;
	ssize_t n;
	int status;

	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
}

bool serve_daemonize(struct serve *s, int *code)
{
	int pipe[2];
	pid_t pid;

	fflush(NULL);
	if (pipe2(pipe, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		*code = cli_error(s->cli, "--daemon: %s", strerror(errno));
		return false;
	}
	if (pid) {
		close(pipe[1]);
		*code = wait_for_daemon(pid, pipe[0]);
		return false;
	}
	close(pipe[0]);
	setsid();
	s->daemon_ready = pipe[1];
	return true;
}

int serve_leave_streams(bool errors, struct err *err)
{
	CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	fflush(stdout);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    (errors && dup2(null, STDERR_FILENO) < 0))
		return err_sys(err, errno, "/dev/null");
	return 0;
}

/* From here on nobody reads what it says: a caller may wait for the end of our output. */
int serve_daemon_ready(struct serve *s, struct err *err)
{
	int r;

	if (!s->daemon)
		return 0;
	r = serve_leave_streams(!s->verbose, err);
	if (r == 0 && write(s->daemon_ready, "", 1) != 1)
		r = err_sys(err, errno, "--daemon");
	close(s->daemon_ready);
	return r;
}
