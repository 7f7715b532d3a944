/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cage process: see cage.h. Of the reports that it sends, the first says that it is ready or
 * what failed, the second, at the end, how the cell ended. Each is a u32 length and a payload of
 * wire.h: u32 code, text, text.
 */
#include "appliance/cage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "appliance/jail.h"
#include "appliance/protocol.h"
#include "appliance/wire.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/window.h"

#define REPORT_MAX 4096u
#define LOG_TAIL   1024u

/* ---- reports ---- */

/* code: 0 or a positive errno. */
static void send_report(int fd, int code, const char *text, const char *more)
{
	unsigned char buf[REPORT_MAX];
	struct wire_out w = wire_out(buf, sizeof(buf));
	le32 length;

	put_u32(&w, 0);
	put_u32(&w, (uint32_t)code);
	put_text(&w, text);
	put_text(&w, more);
	length = le32_make((uint32_t)w.len - 4);
	memcpy(buf, &length, 4);
	/* A pipe takes it whole; nobody there to read it is no error of ours. */
	if (write(fd, buf, w.len) < 0)
		return;
}

static int read_all(int fd, void *buf, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = read(fd, (char *)buf + done, n - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -EPIPE;
		done += (size_t)r;
	}
	return 0;
}

struct report {
	uint32_t code;
	char text[480], more[LOG_TAIL + 1];
};

/* -EPIPE: it ended without a word. */
static int get_report(int fd, struct report *rep)
{
	unsigned char buf[REPORT_MAX];
	struct wire_in r;
	le32 length;

	if (read_all(fd, &length, sizeof(length)) < 0 || le32_get(length) > sizeof(buf) ||
	    read_all(fd, buf, le32_get(length)) < 0)
		return -EPIPE;
	r = wire_in(buf, le32_get(length));
	rep->code = get_u32(&r);
	get_text(&r, rep->text, sizeof(rep->text));
	get_text(&r, rep->more, sizeof(rep->more));
	return wire_done(&r) && rep->code <= INT_MAX ? 0 : -EPIPE;
}

/* ---- inside ---- */

struct inside {
	const struct cage_config *config;
	struct img *disks[AGENT_DISKS_MAX];
	struct io *shown[AGENT_DISKS_MAX]; /* the disk, or a window of it */
	struct cell *cell;
	int in, out, report;
	char log[LOG_TAIL + 1]; /* the end of what the program logged */
	size_t log_len;
};

/* To a terminal, perhaps: it obeys control characters, of which some are two bytes in UTF-8. */
static void show_log(const char *text, size_t len)
{
	char buf[512];
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		bool second = i && (unsigned char)text[i - 1] == 0xc2 && c < 0xa0;

		buf[n++] = (c < ' ' && c != '\n') || c == 0x7f || second ? '?' : (char)c;
		if (n < sizeof(buf) && i + 1 < len)
			continue;
		if (write(STDERR_FILENO, buf, n) < 0)
			return;
		n = 0;
	}
}

static void keep_log(void *arg, const char *text, size_t len)
{
	struct inside *in = arg;
	size_t keep = min_u64(len, LOG_TAIL);

	if (in->config->log)
		show_log(text, len);
	if (in->log_len + keep > LOG_TAIL) {
		size_t drop = in->log_len + keep - LOG_TAIL;

		memmove(in->log, in->log + drop, in->log_len - drop);
		in->log_len -= drop;
	}
	for (size_t i = 0; i < keep; i++) {
		char c = text[len - keep + i];

		in->log[in->log_len++] = c ? c : ' ';
	}
}

/* Of this process, which a fork made for it alone: a signal handler has to find it. */
static struct inside here;

/*
 * Something happened to the pipe of the reports. When nobody is left to read them the caller is
 * dead, and a program that loops would run for ever: stopped, what it wrote is whole.
 */
static void on_report(int sig)
{
	struct pollfd p = {.fd = here.report};
	int e = errno;

	(void)sig;
	if (poll(&p, 1, 0) > 0 && (p.revents & POLLERR) && here.cell)
		cell_stop(here.cell);
	errno = e;
}

/* The caller's handlers are not ours, nor what it blocks: the limit of CPU time is a signal. */
static int own_signals(struct inside *in, struct err *err)
{
	/* A terminal's Ctrl-C is for the caller, which cancels in order. */
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGUSR1};
	static const int other[] = {SIGTERM, SIGALRM, SIGCHLD, SIGXCPU, SIGXFSZ, SIGUSR2};
	const struct sigaction gone = {.sa_handler = on_report};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	for (size_t i = 0; i < ARRAY_LEN(other); i++)
		signal(other[i], SIG_DFL);
	sigemptyset(&none);
	if (sigaction(SIGIO, &gone, NULL) < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0 ||
	    fcntl(in->report, F_SETOWN, getpid()) < 0 || fcntl(in->report, F_SETFL, O_ASYNC) < 0)
		return err_sys(err, errno, "signals");
	return 0;
}

/* Nothing of the caller's stays open but what the cage needs. */
static int own_files(const struct inside *in, struct err *err)
{
	const int keep[] = {STDERR_FILENO, in->in, in->out, in->report};
	int null, from = 0;

	for (;;) {
		int next = INT_MAX;

		for (size_t i = 0; i < ARRAY_LEN(keep); i++)
			if (keep[i] >= from && keep[i] < next)
				next = keep[i];
		if (next > from && close_range((unsigned)from, (unsigned)next - 1, 0) < 0)
			return err_sys(err, errno, "close_range");
		if (next == INT_MAX)
			break;
		from = next + 1;
	}
	/* Descriptors 0 and 1 are taken, so that no image can get them. */
	do
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (null >= 0 && null < 1);
	if (null < 0)
		return err_sys(err, errno, "/dev/null");
	if (null > 2)
		close(null);
	return 0;
}

static int open_disks(struct inside *in, struct err *err)
{
	const struct cage_config *c = in->config;
	int r = 0;

	for (unsigned i = 0; i < c->n_disks && !r; i++) {
		const struct cage_disk *d = &c->disks[i];
		struct img_open_args args = d->args;

		args.flags |= IMG_SEALED;
		r = img_open(&args, &in->disks[i], err);
		if (!r && !d->size)
			in->shown[i] = &in->disks[i]->io;
		else if (!r)
			r = window_open(&in->disks[i]->io, d->offset, d->size, false, &in->shown[i],
					err);
	}
	return r;
}

static int make_cell(struct inside *in, struct err *err)
{
	static const char *const empty[] = {"/dev/null", "/proc/mounts"};
	const struct cage_config *c = in->config;
	struct cell_config cell = {
		.program = {c->program, c->program_size, c->argv},
		.files[AGENT_FD_IN] = {.kind = CELL_STREAM_IN, .fd = in->in},
		.files[AGENT_FD_OUT] = {.kind = CELL_STREAM_OUT, .fd = in->out},
		.files[AGENT_FD_LOG] = {.kind = CELL_LOG},
		.memory = c->memory,
		.cpu_limit = c->cpu_limit,
		.isolation = c->isolation,
		.log = keep_log,
		.log_arg = in,
	};

	if (c->one_stream)
		cell.files[AGENT_FD_LOG] = cell.files[AGENT_FD_OUT];
	for (unsigned i = 0; i < c->n_disks; i++)
		cell.files[AGENT_FD_DISK + i] = (struct cell_file){.kind = CELL_DISK,
								   .io = in->shown[i],
								   .path = c->disks[i].name};
	for (unsigned i = 0; c->small_world && i < ARRAY_LEN(empty); i++)
		cell.files[CELL_FILES - 1 - i] =
			(struct cell_file){.kind = CELL_NULL, .path = empty[i]};
	return cell_new(&in->cell, &cell, err);
}

static int close_disks(struct inside *in, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < in->config->n_disks; i++) {
		struct img *img = in->disks[i];

		if (!img)
			continue;
		if ((in->config->disks[i].args.flags & IMG_RDWR) && !r)
			r = img_settle(img, err);
		if (in->shown[i] != &img->io)
			io_close(in->shown[i]);
		io_close(&img->io);
	}
	return r;
}

/* Runs the cell, and what it wrote is on the disks, however it ended. */
static int live(struct inside *in, struct err *err)
{
	struct cell_result result;
	struct err late;
	int r = cell_run(in->cell, &result, err);
	int closed;

	if (!r && result.end != CELL_EXITED) {
		char text[200];

		cell_describe(&result, text, sizeof(text));
		r = err_set(err, EFAULT, "the appliance was stopped: %s", text);
	}
	/* The cell itself goes with the process: nobody has to wait for that. */
	closed = close_disks(in, r ? &late : err);
	if (r < 0 || closed < 0)
		return r < 0 ? r : closed;
	return result.status;
}

static _Noreturn void inside(const struct cage_config *config, int in_fd, int out_fd, int report)
{
	struct err err = {0};
	int r;

	here = (struct inside){.config = config, .in = in_fd, .out = out_fd, .report = report};
	r = own_files(&here, &err);
	if (!r)
		r = own_signals(&here, &err);
	if (!r)
		r = open_disks(&here, &err);
	if (!r)
		r = make_cell(&here, &err);
	if (!r)
		r = jail_seal(&err);
	if (r < 0) {
		send_report(report, -r, err.msg, "");
		_exit(1);
	}
	send_report(report, 0, cell_isolation_name(here.cell), cell_fallback_reason(here.cell));
	r = live(&here, &err);
	here.log[here.log_len] = 0;
	if (r < 0)
		send_report(report, -r, err.msg, here.log);
	else
		send_report(report, 0, "", here.log);
	_exit(r < 0 ? 1 : r);
}

/* ---- outside ---- */

static void close_ends(struct cage *cage)
{
	if (cage->in >= 0)
		close(cage->in);
	if (cage->out >= 0 && cage->out != cage->in)
		close(cage->out);
	if (cage->report >= 0)
		close(cage->report);
	cage->in = cage->out = cage->report = -1;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/* The cage's process ended and said nothing. */
static int no_words(int status, struct err *err)
{
	if (WIFSIGNALED(status))
		return err_set(err, EFAULT, "the appliance's process was killed: %s%s",
			       strsignal(WTERMSIG(status)),
			       WTERMSIG(status) == SIGSYS ? " (it broke its own rules)" : "");
	return err_set(err, EFAULT, "the appliance's process ended without a report");
}

static int first_report(struct cage *cage, struct err *err)
{
	struct report rep;

	if (get_report(cage->report, &rep) < 0)
		return no_words(wait_for(cage->pid), err);
	if (rep.code) {
		wait_for(cage->pid);
		return err_set(err, (int)rep.code, "%s", rep.text);
	}
	snprintf(cage->isolation, sizeof(cage->isolation), "%.15s", rep.text);
	snprintf(cage->fallback, sizeof(cage->fallback), "%.255s", rep.more);
	return 0;
}

int cage_start(struct cage *cage, const struct cage_config *config, struct err *err)
{
	int talk[2], report[2], r;

	*cage = (struct cage){
		.pid = -1, .in = -1, .out = -1, .report = -1, .patience = config->patience};
	if (config->n_disks > AGENT_DISKS_MAX)
		return err_set(err, E2BIG, "more than %u disks", AGENT_DISKS_MAX);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) < 0)
		return err_sys(err, errno, "socketpair");
	if (pipe2(report, O_CLOEXEC) < 0) {
		r = err_sys(err, errno, "pipe");
		close(talk[0]);
		close(talk[1]);
		return r;
	}
	cage->pid = fork();
	if (cage->pid == 0)
		inside(config, talk[1], talk[1], report[1]);
	r = cage->pid < 0 ? err_sys(err, errno, "fork") : 0;
	close(talk[1]);
	close(report[1]);
	cage->in = cage->out = talk[0];
	cage->report = report[0];
	if (!r)
		r = first_report(cage, err);
	if (r < 0)
		close_ends(cage);
	return r;
}

int cage_wait(struct cage *cage, int *status, struct err *err)
{
	struct pollfd p = {.fd = cage->report, .events = POLLIN};
	struct report rep;
	int r, how;

	/* The program sees the end of its input; its last words are not wanted. */
	shutdown(cage->in, SHUT_WR);
	do
		r = poll(&p, 1, cage->patience ? (int)min_u64(cage->patience, INT_MAX) : -1);
	while (r < 0 && errno == EINTR);
	if (r == 0) {
		cage_kill(cage);
		return err_set(err, ETIMEDOUT, "the appliance does not end, and was killed");
	}
	r = get_report(cage->report, &rep);
	how = wait_for(cage->pid);
	close_ends(cage);
	if (r < 0)
		return no_words(how, err);
	if (rep.code && *rep.more)
		return err_set(err, (int)rep.code, "%s; its log: %s", rep.text, rep.more);
	if (rep.code)
		return err_set(err, (int)rep.code, "%s", rep.text);
	*status = WIFEXITED(how) ? WEXITSTATUS(how) : -1;
	return 0;
}

void cage_kill(struct cage *cage)
{
	kill(cage->pid, SIGKILL);
	wait_for(cage->pid);
	close_ends(cage);
}
