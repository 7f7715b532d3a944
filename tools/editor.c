// SPDX-License-Identifier: GPL-2.0-or-later
/* Running an editor or sed on a private copy, see editor.h. */
#include "editor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

/* ---- the copy ---- */

struct copy {
	char *dir, *path; /* owned */
};

static int write_all(int fd, const char *text, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = write(fd, text + done, n - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		done += (size_t)r;
	}
	return 0;
}

/* With everything that an editor left in it. */
static void copy_remove(struct copy *copy)
{
	DIR *dir = copy->dir ? opendir(copy->dir) : NULL;
	const struct dirent *e;

	while (dir && (e = readdir(dir)))
		unlinkat(dirfd(dir), e->d_name, 0);
	if (dir)
		closedir(dir);
	if (copy->dir)
		rmdir(copy->dir);
	free(copy->dir);
	free(copy->path);
	*copy = (struct copy){0};
}

static int copy_fill(struct copy *copy, const char *text, size_t n, struct err *err)
{
	int fd = open(copy->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : write_all(fd, text, n);

	if (fd >= 0 && close(fd) < 0 && r == 0)
		r = -errno;
	return r < 0 ? err_sys(err, -r, "%s", copy->path) : 0;
}

static int copy_make(struct copy *copy, const char *name, const char *text, size_t n,
		     struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	int r;

	*copy = (struct copy){0};
	if (asprintf(&copy->dir, "%s/imgkit-edit-XXXXXX", tmp && *tmp ? tmp : "/tmp") < 0) {
		copy->dir = NULL;
		return err_nomem(err, 0, "a name");
	}
	if (!mkdtemp(copy->dir)) {
		r = err_sys(err, errno, "%s", copy->dir);
		free(copy->dir);
		copy->dir = NULL;
		return r;
	}
	if (asprintf(&copy->path, "%s/%s", copy->dir, name) < 0) {
		copy->path = NULL;
		return err_nomem(err, 0, "a name");
	}
	return copy_fill(copy, text, n, err);
}

/* An editor may have put a new file in its place; not something else. */
static int read_back(const char *path, char **text, size_t *n, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	CLEANUP_FREE char *buf = NULL;
	struct stat st;
	ssize_t got = 1;
	size_t len = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s is no regular file any more", path);
	if (st.st_size > EDITOR_BYTES_MAX)
		return err_set(err, EFBIG, "%s: more than %u bytes", path, EDITOR_BYTES_MAX);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return err_nomem(err, (size_t)st.st_size, "a file");
	while (len < (size_t)st.st_size && got) {
		got = read(fd, buf + len, (size_t)st.st_size - len);
		if (got < 0 && errno != EINTR)
			return err_sys(err, errno, "%s", path);
		len += got > 0 ? (size_t)got : 0;
	}
	free(*text);
	*text = take(buf);
	*n = len;
	return 0;
}

/* ---- the program ---- */

static const char *user_editor(void)
{
	const char *visual = getenv("VISUAL"), *editor = getenv("EDITOR");

	return visual && *visual ? visual : editor && *editor ? editor : "vi";
}

/* An editor may come with options: the shell takes it apart. */
static _Noreturn void become_editor(const char *path)
{
	const char *editor = user_editor();
	char *command;

	if (asprintf(&command, "%s \"$@\"", editor) >= 0)
		execl("/bin/sh", "sh", "-c", command, editor, path, (char *)NULL);
	_exit(127);
}

/* From the copy to another file beside it. */
static _Noreturn void become_sed(const char *const *args, const char *path, const char *out)
{
	int in = open(path, O_RDONLY | O_CLOEXEC);
	int to = open(out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (in < 0 || to < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(to, STDOUT_FILENO) < 0)
		_exit(127);
	execvp("sed", (char *const *)(uintptr_t)args);
	_exit(127);
}

static void watched_signals(sigset_t *set)
{
	static const int wanted[] = {SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGHUP};

	sigemptyset(set);
	for (unsigned i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		sigaddset(set, wanted[i]);
}

/* Until it ended. A terminal's Ctrl-C is the program's affair; what would end us ends it. */
static int wait_for(struct editor *ed, pid_t pid, const sigset_t *set)
{
	int status;

	for (;;) {
		pid_t done = waitpid(pid, &status, WNOHANG);
		int sig;

		if (done == pid)
			return status;
		if (done < 0 && errno != EINTR)
			return -1;
		sig = sigwaitinfo(set, NULL);
		if (sig == SIGTERM || sig == SIGHUP) {
			ed->signal = sig;
			kill(pid, sig);
		}
	}
}

/* Those of a terminal that came when the program was ending: they were for it, too. */
static void drop_keys(void)
{
	const struct timespec at_once = {0};
	sigset_t keys;

	sigemptyset(&keys);
	sigaddset(&keys, SIGINT);
	sigaddset(&keys, SIGQUIT);
	while (sigtimedwait(&keys, NULL, &at_once) > 0)
		;
}

static int judge(const struct editor *ed, int status, struct err *err)
{
	const char *what = ed->sed ? "sed" : user_editor();

	if (ed->signal)
		return err_set(err, ECANCELED, "cancelled");
	if (status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(err, ENOENT, "'%s' could not be started", what);
	if (status >= 0 && WIFEXITED(status))
		return err_set(err, EIO, "'%s' failed with exit code %d", what,
			       WEXITSTATUS(status));
	return err_set(err, EIO, "'%s' was ended: %s", what,
		       status >= 0 ? strsignal(WTERMSIG(status)) : strerror(errno));
}

static int run_program(struct editor *ed, const char *path, const char *out, struct err *err)
{
	sigset_t set, old;
	int status;
	pid_t pid;

	watched_signals(&set);
	fflush(NULL);
	sigprocmask(SIG_BLOCK, &set, &old);
	pid = fork();
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		signal(SIGPIPE, SIG_DFL);
		if (ed->sed)
			become_sed(ed->sed, path, out);
		become_editor(path);
	}
	status = pid < 0 ? -1 : wait_for(ed, pid, &set);
	drop_keys();
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return err_sys(err, errno, "fork");
	return judge(ed, status, err);
}

int editor_run(struct editor *ed, char **text, size_t *n, struct err *err)
{
	CLEANUP_FREE char *out = NULL;
	struct copy copy;
	int r = copy_make(&copy, ed->name, *text, *n, err);

	ed->signal = 0;
	if (r == 0 && asprintf(&out, "%s/.imgkit-new", copy.dir) < 0) {
		out = NULL;
		r = err_nomem(err, 0, "a name");
	}
	if (r == 0)
		r = run_program(ed, copy.path, out, err);
	if (r == 0)
		r = read_back(ed->sed ? out : copy.path, text, n, err);
	copy_remove(&copy);
	return r;
}
