// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io/lock: who may open a file beside whom. Locks belong to the open file description, so two opens in
 * this process stand for two programs. With qemu-utils installed, QEMU itself takes part.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/file.h"

static int lock_error; /* errno of F_OFD_SETLK, always */

int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (cmd == F_OFD_SETLK && lock_error) {
		errno = lock_error;
		return -1;
	}
	return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

/* A file with content, to see that nobody empties it. */
static void make(const char *path)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fputs("content", f) < 0, 0);
	assert_int_equal(fclose(f), 0);
}

static off_t size_of(const char *path)
{
	FILE *f = fopen(path, "r");
	off_t size;

	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	size = ftello(f);
	fclose(f);
	return size;
}

static struct io *must_open(const char *path, unsigned flags)
{
	struct err e = {0};
	struct io *io;

	ok(file_open(path, flags, &io, &e), &e);
	return io;
}

static void must_not_open(const char *path, unsigned flags, const char *text)
{
	struct err e;
	struct io *io;

	fails(file_open(path, flags, &io, &e), -EBUSY, &e, text);
	assert_non_null(strstr(e.msg, "\nIs another process using the image ["));
}

static void writer_is_alone(void **state)
{
	struct io *io;

	(void)state;
	make("w");
	io = must_open("w", FILE_WRITE);
	must_not_open("w", FILE_WRITE, "Failed to get \"write\" lock");
	must_not_open("w", 0, "Failed to get shared \"write\" lock");
	must_not_open("w", FILE_CREATE | FILE_TRUNC, "Failed to get \"write\" lock");
	assert_int_equal(size_of("w"), 7);
	io_close(must_open("w", FILE_SHARE));
	io_close(must_open("w", FILE_SHARE_WRITE));
	/* Those that failed left no locks. */
	io_close(io);
	io_close(must_open("w", FILE_WRITE));
}

static void readers_share(void **state)
{
	struct io *a, *b;

	(void)state;
	make("r");
	a = must_open("r", 0);
	b = must_open("r", 0);
	must_not_open("r", FILE_WRITE, "Failed to get \"write\" lock");
	must_not_open("r", FILE_CREATE | FILE_TRUNC, "Failed to get \"write\" lock");
	assert_int_equal(size_of("r"), 7);
	io_close(a);
	must_not_open("r", FILE_WRITE, "Failed to get \"write\" lock");
	io_close(b);
	io_close(must_open("r", FILE_WRITE));
}

static void readers_may_allow_writers(void **state)
{
	struct io *a, *b;

	(void)state;
	make("s");
	a = must_open("s", FILE_SHARE_WRITE);
	b = must_open("s", FILE_WRITE);
	io_close(a);
	a = must_open("s", FILE_SHARE);
	io_close(b);
	/* FILE_SHARE holds nothing. */
	b = must_open("s", FILE_WRITE);
	io_close(a);
	io_close(b);
}

static void other_locks_are_not_ours(void **state)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 100};
	int fd;

	(void)state;
	make("o");
	fd = open("o", O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	io_close(must_open("o", FILE_WRITE));
	/* An exclusive lock on our bytes is one that we cannot share. */
	fl.l_start = 101;
	fl.l_len = 1;
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	must_not_open("o", FILE_WRITE, "Failed to lock byte 101");
	close(fd);
}

static void file_systems_without_locks(void **state)
{
	static const int errors[] = {ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL};
	struct err e;
	struct io *io;

	(void)state;
	make("n");
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		lock_error = errors[i];
		io_close(must_open("n", FILE_WRITE));
	}
	lock_error = EIO;
	fails(file_open("n", 0, &io, &e), -EIO, &e, "Failed to lock byte 100 of 'n'");
	lock_error = 0;
}

/* ---- with QEMU ---- */

static bool have_qemu(void)
{
	return system("command -v qemu-img >/dev/null && command -v qemu-io >/dev/null") == 0;
}

/* Whether somebody holds byte 100: the image is open. */
static bool is_open(const char *path)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int r = fcntl(fd, F_OFD_GETLK, &fl);

	close(fd);
	return r == 0 && fl.l_type != F_UNLCK;
}

/* A qemu-io that holds the image; end it with stop. */
static pid_t start_qemu(const char *format, const char *option, const char *path)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (option)
			execlp("qemu-io", "qemu-io", "-f", format, option, "-c", "sleep 60000",
			       path, (char *)NULL);
		else
			execlp("qemu-io", "qemu-io", "-f", format, "-c", "sleep 60000", path,
			       (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 1000 && !is_open(path); i++)
		usleep(10000);
	assert_true(is_open(path));
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void qemu_writer_keeps_us_out(void **state)
{
	static const char *const formats[] = {"raw", "qcow2"};

	(void)state;
	if (!have_qemu())
		skip();
	for (size_t i = 0; i < 2; i++) {
		char cmd[100];
		pid_t pid;

		snprintf(cmd, sizeof(cmd), "qemu-img create -q -f %s q 1M", formats[i]);
		assert_int_equal(system(cmd), 0);
		pid = start_qemu(formats[i], NULL, "q");
		must_not_open("q", FILE_WRITE, "\"write\" lock");
		must_not_open("q", 0, "Failed to get shared \"write\" lock");
		must_not_open("q", FILE_CREATE | FILE_TRUNC, "\"write\" lock");
		assert_true(size_of("q") > 0);
		io_close(must_open("q", FILE_SHARE));
		stop(pid);
		io_close(must_open("q", FILE_WRITE));
	}
}

static void qemu_reader_lets_us_read(void **state)
{
	pid_t pid;

	(void)state;
	if (!have_qemu())
		skip();
	assert_int_equal(system("qemu-img create -q -f qcow2 qr 1M"), 0);
	pid = start_qemu("qcow2", "-r", "qr");
	io_close(must_open("qr", 0));
	must_not_open("qr", FILE_WRITE, "Failed to get \"write\" lock");
	stop(pid);
}

static void we_keep_qemu_out(void **state)
{
	struct io *io;

	(void)state;
	if (!have_qemu())
		skip();
	assert_int_equal(system("qemu-img create -q -f qcow2 qw 1M"), 0);
	io = must_open("qw", FILE_WRITE);
	assert_int_not_equal(system("qemu-io -c 'write 0 512' qw >/dev/null 2>&1"), 0);
	assert_int_not_equal(system("qemu-io -f raw -c 'write 0 512' qw >/dev/null 2>&1"), 0);
	assert_int_not_equal(system("qemu-img info qw >/dev/null 2>&1"), 0);
	assert_int_not_equal(system("qemu-img create -q -f raw qw 2M 2>/dev/null"), 0);
	assert_int_equal(system("qemu-img info -U qw >/dev/null"), 0);
	io_close(io);
	io = must_open("qw", 0);
	assert_int_not_equal(system("qemu-io -c 'write 0 512' qw >/dev/null 2>&1"), 0);
	assert_int_equal(system("qemu-img check -q qw"), 0);
	io_close(io);
	assert_int_equal(system("qemu-io -c 'write 0 512' qw >/dev/null"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writer_is_alone),
		cmocka_unit_test(readers_share),
		cmocka_unit_test(readers_may_allow_writers),
		cmocka_unit_test(other_locks_are_not_ours),
		cmocka_unit_test(file_systems_without_locks),
		cmocka_unit_test(qemu_writer_keeps_us_out),
		cmocka_unit_test(qemu_reader_lets_us_read),
		cmocka_unit_test(we_keep_qemu_out),
	};

	return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
