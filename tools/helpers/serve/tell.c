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
#include <sys/file.h>
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

/*
 * It is locked for as long as its server is there: no other one takes it over, which nobody could
 * stop by it any more. One that is not locked was left behind, and is replaced as a whole.
 */

/* A process ID and nothing else, or nothing. */
static bool holds_pid(int fd)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text), 0);

	if (n < 0 || n == sizeof(text))
		return false;
	text[n] = '\0';
	return strspn(text, "0123456789 \n") == (size_t)n;
}

/* -EWOULDBLOCK: another process has it. File systems without locks do without. */
static int lock_pid(int fd)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && errno != EINTR))
		return 0;
	return -EWOULDBLOCK;
}

/* What has the name now, locked; *fd is -1 when nothing has. */
static int lock_old_pid(const char *path, int *fd, struct err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EEXIST, "%s: exists, and is not a pid file", path);
	*fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "%s", path);
	if (!holds_pid(*fd))
		return err_set(err, EEXIST, "%s: exists, and is not a pid file", path);
	if (lock_pid(*fd) < 0)
		return err_set(err, EEXIST, "%s: is the pid file of another process, which runs",
			       path);
	return 0;
}

/* Whether fd is what has the name. */
static bool has_name(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* Gives the new file the name. *again: somebody else was faster, and is to be looked at. */
static int name_pid(const char *temp, const char *path, bool *again, struct err *err)
{
	CLEANUP_FD int old = -1;
	int r = lock_old_pid(path, &old, err);

	*again = false;
	if (r < 0)
		return r;
	if (old >= 0) {
		*again = !has_name(old, path);
		r = *again ? 0 : rename(temp, path);
	} else {
		r = renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE);
		*again = r < 0 && errno == EEXIST;
		if (r < 0 && errno == EINVAL) /* not on every file system */
			r = rename(temp, path);
	}
	return r < 0 && !*again ? err_sys(err, errno, "%s", path) : 0;
}

int serve_write_pid(struct serve *s, struct err *err)
{
	CLEANUP_FREE char *name = NULL;
	bool again = true;
	int r = 0;

	if (!s->pid_file)
		return 0;
	if (asprintf(&name, "%s.XXXXXX", s->pid_file) < 0) {
		name = NULL;
		return err_nomem(err, strlen(s->pid_file), "a file name");
	}
	s->pid_fd = mkostemp(name, O_CLOEXEC);
	if (s->pid_fd < 0)
		return err_sys(err, errno, "%s", s->pid_file);
	lock_pid(s->pid_fd);
	if (dprintf(s->pid_fd, "%ld\n", (long)getpid()) < 0 || fchmod(s->pid_fd, 0644) < 0)
		r = err_sys(err, errno, "%s", s->pid_file);
	while (r == 0 && again)
		r = name_pid(name, s->pid_file, &again, err);
	if (r == 0)
		return 0;
	unlink(name);
	close(s->pid_fd);
	s->pid_fd = -1;
	return r;
}

void serve_remove_pid(struct serve *s)
{
	if (s->pid_fd < 0)
		return;
	if (has_name(s->pid_fd, s->pid_file))
		unlink(s->pid_file);
	close(s->pid_fd);
	s->pid_fd = -1;
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
