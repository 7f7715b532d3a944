// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tools/progress: what is shown where, and what signals do. Each test runs a small command in a
 * process of its own, whose output is a file or a terminal.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli.h"

#define TOTAL (UINT64_C(10) << 30)

/* main.c's, which is not linked here */
void cli_help_all(const struct cli *cli)
{
	(void)cli;
}

/* The command writes to it as soon as it watches for signals. */
static int ready[2];

static void nap(unsigned ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* ---- the commands ---- */

/* Works until it is done in `ms`, or cancelled; ends as commands do. */
static int work(struct cli *cli, enum progress_mode mode, unsigned ms, bool heed)
{
	struct job job = {0};
	struct progress *p;
	int sig;

	job_total(&job, TOTAL);
	p = progress_start(cli, mode, "work", &job);
	if (write(ready[1], "", 1) != 1)
		return 99;
	for (unsigned i = 0; i < ms / 5 && !(heed && job_cancelled(&job)); i++) {
		nap(5);
		job_advance(&job, TOTAL / (ms / 5));
	}
	sig = progress_stop(p, !job_cancelled(&job));
	return sig ? cli_interrupted(cli, sig) : cli_finish_output(cli, 0);
}

static int work_plain(struct cli *cli)
{
	return work(cli, PROGRESS_AUTO, 500, true);
}

static int work_json(struct cli *cli)
{
	return work(cli, PROGRESS_JSON, 1200, true);
}

static int work_silent(struct cli *cli)
{
	return work(cli, PROGRESS_NONE, 10000, true);
}

static int work_deaf(struct cli *cli)
{
	return work(cli, PROGRESS_PLAIN, 10000, false);
}

static int work_with_data_on_stdout(struct cli *cli)
{
	cli->stdout_taken = true;
	puts("data");
	return work(cli, PROGRESS_PLAIN, 200, true);
}

static int work_with_hup_ignored(struct cli *cli)
{
	signal(SIGHUP, SIG_IGN);
	return work(cli, PROGRESS_NONE, 700, true);
}

static int fail_at_once(struct cli *cli)
{
	struct job job = {0};

	job_total(&job, TOTAL);
	progress_stop(progress_start(cli, PROGRESS_PLAIN, "work", &job), false);
	return write(ready[1], "", 1) == 1 ? 1 : 99;
}

static int be_told_after_the_end(struct cli *cli)
{
	int code = work(cli, PROGRESS_NONE, 10, true);

	raise(SIGUSR1);
	return code;
}

/* ---- running them ---- */

static pid_t start(int (*command)(struct cli *), int out, int err)
{
	struct cli cli = {.prog = "img"};
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		dup2(out, 1);
		dup2(err, 2);
		exit(command(&cli));
	}
	assert_true(pid > 0);
	return pid;
}

/* A command that will be sent signals: goes on when they will be noticed. */
static pid_t start_and_wait(int (*command)(struct cli *), int out, int err)
{
	pid_t pid;
	char byte;

	assert_int_equal(pipe(ready), 0);
	pid = start(command, out, err);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	nap(50);
	return pid;
}

static int finish(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int text_file(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);

	assert_true(fd >= 0);
	return fd;
}

static const char *text_of(int fd, char *buf, size_t room)
{
	ssize_t n = pread(fd, buf, room - 1, 0);

	assert_true(n >= 0);
	buf[n] = '\0';
	return buf;
}

/* Runs a command to its end; fills out and err. Returns the status of wait. */
static int run(int (*command)(struct cli *), char *out, char *err, size_t room)
{
	int o = text_file("out"), e = text_file("err"), status;

	status = finish(start_and_wait(command, o, e));
	text_of(o, out, room);
	text_of(e, err, room);
	close(o);
	close(e);
	return status;
}

/* ---- tests ---- */

static void plain(void **state)
{
	char out[4096], err[4096];
	int lines = 0;

	(void)state;
	assert_int_equal(run(work_plain, out, err, sizeof(out)), 0);
	assert_string_equal(err, "");
	for (char *p = strchr(out, '\r'); p; p = strchr(p + 1, '\r'))
		lines++;
	assert_true(lines >= 4);
	assert_int_equal(strncmp(out, "    (0.00/100%)\r", 16), 0);
	assert_string_equal(strrchr(out, '('), "(100.00/100%)\r\n");
}

static void failure(void **state)
{
	char out[256], err[256];

	(void)state;
	assert_int_equal(WEXITSTATUS(run(fail_at_once, out, err, sizeof(out))), 1);
	assert_string_equal(out, "    (0.00/100%)\r\n");
}

static void data_and_display(void **state)
{
	char out[256], err[256];

	(void)state;
	assert_int_equal(run(work_with_data_on_stdout, out, err, sizeof(out)), 0);
	assert_string_equal(out, "data\n");
	assert_non_null(strstr(err, "(100.00/100%)\r\n"));
}

static void json(void **state)
{
	char out[4096], err[4096], *save = NULL;
	double last = -1;
	int lines = 0;

	(void)state;
	assert_int_equal(run(work_json, out, err, sizeof(out)), 0);
	for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *v = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
		bool end = !*save;

		assert_non_null(v);
		assert_string_equal(json_string_value(json_object_get(v, "operation")), "work");
		assert_string_equal(json_string_value(json_object_get(v, "state")),
				    end ? "done" : "running");
		assert_int_equal(json_integer_value(json_object_get(v, "total")), TOTAL);
		assert_true(json_number_value(json_object_get(v, "percent")) >= last);
		last = json_number_value(json_object_get(v, "percent"));
		json_decref(v);
		lines++;
	}
	assert_true(last == 100);
	assert_true(lines >= 3);
}

static void terminal(void **state)
{
	char text[8192];
	size_t n = 0;
	int master, slave, err = text_file("err");
	pid_t pid;

	(void)state;
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	pid = start_and_wait(work_plain, slave, err);
	close(slave);
	for (ssize_t got = 1; got > 0; n += (size_t)got) {
		got = read(master, text + n, sizeof(text) - 1 - n);
		if (got < 0)
			break; /* EIO: the other side is closed */
	}
	text[n] = '\0';
	assert_int_equal(finish(pid), 0);
	assert_non_null(strstr(text, "\rwork "));
	assert_non_null(strstr(text, " / 10 GiB  "));
	assert_non_null(strstr(text, "\rwork 100%  10 GiB in 0:0"));
	assert_string_equal(text + n - 5, "\033[K\r\n");
	close(master);
	close(err);
}

static void cancelled(void **state)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	char text[256], want[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		int out = text_file("out"), err = text_file("err"), status;
		pid_t pid = start_and_wait(work_silent, out, err);

		kill(pid, signals[i]);
		status = finish(pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
		snprintf(want, sizeof(want), "img: Stopped by SIG%s\n", sigabbrev_np(signals[i]));
		assert_string_equal(text_of(err, text, sizeof(text)), want);
		assert_string_equal(text_of(out, text, sizeof(text)), "");
		close(out);
		close(err);
	}
}

static void killed_at_the_second(void **state)
{
	int out = text_file("out"), err = text_file("err"), status;
	pid_t pid = start_and_wait(work_deaf, out, err);
	char text[256];

	(void)state;
	kill(pid, SIGINT);
	nap(300);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	/* two that come too close together count as one */
	for (int i = 0; i < 100 && kill(pid, SIGINT) == 0; i++) {
		nap(50);
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
	}
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
	assert_string_equal(text_of(err, text, sizeof(text)), "");
	close(out);
	close(err);
}

static void ignored(void **state)
{
	int out = text_file("out"), err = text_file("err");
	pid_t pid = start_and_wait(work_with_hup_ignored, out, err);

	(void)state;
	kill(pid, SIGHUP);
	assert_int_equal(finish(pid), 0);
	close(out);
	close(err);
}

static void asked(void **state)
{
	int out = text_file("out"), err = text_file("err");
	pid_t pid = start_and_wait(work_silent, out, err);
	char text[256];
	double percent;

	(void)state;
	nap(300);
	kill(pid, SIGUSR1);
	nap(200);
	kill(pid, SIGTERM);
	finish(pid);
	text_of(err, text, sizeof(text));
	assert_int_equal(strncmp(text, "    (", 5), 0);
	percent = strtod(text + 5, NULL);
	assert_true(percent > 0 && percent < 100);
	assert_non_null(strstr(text, "/100%)\nimg: Stopped by SIGTERM\n"));
	close(out);
	close(err);
}

static void asked_too_late(void **state)
{
	char out[256], err[256];

	(void)state;
	assert_int_equal(run(be_told_after_the_end, out, err, sizeof(out)), 0);
}

static void modes(void **state)
{
	struct cli cli = {.prog = "img"};
	enum progress_mode mode;

	(void)state;
	assert_true(progress_parse(&cli, "json", &mode) && mode == PROGRESS_JSON);
	assert_true(progress_parse(&cli, "none", &mode) && mode == PROGRESS_NONE);
	assert_int_equal(progress_stop(NULL, true), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(failure),
		cmocka_unit_test(data_and_display),
		cmocka_unit_test(json),
		cmocka_unit_test(terminal),
		cmocka_unit_test(cancelled),
		cmocka_unit_test(killed_at_the_second),
		cmocka_unit_test(ignored),
		cmocka_unit_test(asked),
		cmocka_unit_test(asked_too_late),
		cmocka_unit_test(modes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
