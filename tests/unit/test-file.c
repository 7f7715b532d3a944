// SPDX-License-Identifier: GPL-2.0-or-later
/* io/file: what may be opened, transfers that the kernel cuts short, resize, flush that fails. */
#include "filetest.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ---- opening ---- */

static void create_does_not_overwrite(void **state)
{
	struct err e = {0};
	struct io *io;

	(void)state;
	be_honest();
	ok(file_open("new", FILE_CREATE, &io, &e), &e);
	ok(io_pwrite(io, "data", 4, 0, &e), &e);
	io_close(io);
	fails(file_open("new", FILE_CREATE, &io, &e), -EEXIST, &e,
	      "Could not create 'new': File exists");
	ok(file_open("new", 0, &io, &e), &e);
	check_bytes(io, 0, 1, 'd');
	assert_string_equal(io->name, "new");
	assert_true(io_is_file(io) && file_fd(io) >= 0 && (io->caps & IO_RDONLY));
	fails(io_pwrite(io, "x", 1, 0, &e), -EROFS, &e, "read-only");
	io_close(io);
	ok(file_open("new", FILE_CREATE | FILE_TRUNC, &io, &e), &e);
	assert_int_equal(io_size(io), 0);
	io_close(io);
}

static void open_errors_name_the_file(void **state)
{
	struct err e = {0};
	struct io *io;

	(void)state;
	be_honest();
	fails(file_open("none", 0, &io, &e), -ENOENT, &e,
	      "Could not open 'none': No such file or directory");
	fails(file_open("none/x", FILE_CREATE, &io, &e), -ENOENT, &e, "Could not create 'none/x'");
	fails(file_open("/proc/version", FILE_DIRECT, &io, &e), -EINVAL, &e,
	      "Could not open '/proc/version': filesystem does not support O_DIRECT");
	assert_int_equal(symlink("none", "dangling"), 0);
	fails(file_open("dangling", 0, &io, &e), -ENOENT, &e, "dangling");
	fails(file_open("dangling", FILE_OURS, &io, &e), -ELOOP, &e, "dangling");
	assert_int_equal(symlink("loop", "loop"), 0);
	fails(file_open("loop", 0, &io, &e), -ELOOP, &e, "loop");
}

/* Where others may put files, one of a name that they could foresee. */
static void what_others_put_there_is_refused(void **state)
{
	struct err e = {0};
	struct io *io;

	(void)state;
	be_honest();
	assert_int_equal(mkdir("public", 0700), 0);
	ok(file_open("public/one", FILE_CREATE, &io, &e), &e);
	io_close(io);
	ok(file_open("public/one", FILE_WRITE | FILE_OURS, &io, &e), &e);
	io_close(io);
	assert_int_equal(link("public/one", "public/two"), 0);
	fails(file_open("public/one", FILE_WRITE | FILE_OURS, &io, &e), -EPERM, &e, "hard links");
	assert_int_equal(unlink("public/two"), 0);
	if (chown("public/one", 12345, (gid_t)-1) < 0)
		return; /* only root can try the rest */
	ok(file_open("public/one", FILE_WRITE | FILE_OURS, &io, &e), &e);
	io_close(io);
	assert_int_equal(chmod("public", 01777), 0);
	fails(file_open("public/one", FILE_WRITE | FILE_OURS, &io, &e), -EPERM, &e, "another user");
	assert_int_equal(chown("public", 12345, (gid_t)-1), 0);
	ok(file_open("public/one", FILE_WRITE | FILE_OURS, &io, &e), &e);
	io_close(io);
}

static bool stat_lies; /* says "regular file" of everything */

int fstatat(int dir, const char *path, struct stat *st, int flags)
{
	if (stat_lies) {
		memset(st, 0, sizeof(*st));
		st->st_mode = S_IFREG;
		return 0;
	}
	return (int)syscall(SYS_newfstatat, dir, path, st, flags);
}

/* A FIFO that takes the place of a file after it was looked at. */
static void open_does_not_block(void **state)
{
	struct err e = {0};
	struct io *io;

	(void)state;
	be_honest();
	assert_int_equal(mkfifo("swapped", 0600), 0);
	stat_lies = true;
	alarm(30);
	fails(file_open("swapped", 0, &io, &e), -EINVAL, &e, "it is a FIFO");
	alarm(0);
	stat_lies = false;
}

/* None of them may block, and a device is not even opened. */
static void only_files_and_block_devices(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "socket"};
	struct err e = {0};
	struct io *io;
	int fd;

	(void)state;
	be_honest();
	alarm(30);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	fails(file_open("fifo", 0, &io, &e), -EINVAL, &e, "'fifo' to be a regular file");
	fails(file_open("fifo", FILE_WRITE, &io, &e), -EINVAL, &e, "it is a FIFO");
	fails(file_open(".", 0, &io, &e), -EINVAL, &e, "it is a directory");
	fails(file_open("/dev/null", 0, &io, &e), -EINVAL, &e, "it is a character device");
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	fails(file_open("socket", 0, &io, &e), -EINVAL, &e, "it is a socket");
	close(fd);
	fd = open("fifo", O_RDONLY | O_NONBLOCK);
	fails(file_from_fd(fd, "fd", 0, &io, &e), -EINVAL, &e, "it is a FIFO");
	close(fd);
	fails(file_from_fd(-1, "fd", 0, &io, &e), -EBADF, &e, "fd");
	alarm(0);
}

static void descriptors_can_be_wrapped(void **state)
{
	struct err e = {0};
	struct stat st;
	struct file_stat fst;
	struct io *io;
	int fd;

	(void)state;
	be_honest();
	fd = open("wrapped", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ok(file_from_fd(fd, "nice name", FILE_WRITE, &io, &e), &e);
	fill(io, 0, 10, 'x');
	assert_string_equal(io->name, "nice name");
	assert_int_equal(file_fd(io), fd);
	assert_int_equal(fstat(fd, &st), 0);
	ok(file_stat(io, &fst, &e), &e);
	assert_true(fst.ino == st.st_ino && fst.dev == st.st_dev && !fst.block_device);
	io_close(io);
	assert_int_equal(fstat(fd, &st), -1);
}

/* ---- transfers ---- */

static void gaps_read_as_zeros(void **state)
{
	struct io *io = make("gap", 0);
	struct err e = {0};
	char buf[4];

	(void)state;
	fill(io, 100000, 5, 'x');
	assert_int_equal(io_size(io), 100005);
	check_bytes(io, 0, 100000, 0);
	check_bytes(io, 100000, 5, 'x');
	fails(io_pread(io, buf, 4, 100002, &e), -EINVAL, &e, "past the end");
	io_close(io);
}

static void short_and_interrupted_transfers(void **state)
{
	struct io *io = make("short", 0);

	(void)state;
	fake.short_every = 7;
	fake.interrupt = 2;
	fill(io, 3, 1000, 'x');
	check_bytes(io, 3, 1000, 'x');
	assert_true(fake.interrupted > 500);
	be_honest();
	check_bytes(io, 3, 1000, 'x');
	io_close(io);
}

static void failures_say_where(void **state)
{
	struct io *io = make("failing", 0);
	struct err e = {0};
	char buf[100] = "";

	(void)state;
	fake.write_error = ENOSPC;
	fails(io_pwrite(io, buf, 100, 50, &e), -ENOSPC, &e,
	      "failing: cannot write 100 bytes at offset 50: No space left on device");
	assert_int_equal(io_size(io), 0);
	be_honest();
	fill(io, 0, 1000, 'x');
	/* Cut by somebody else. */
	assert_int_equal(truncate("failing", 500), 0);
	fails(io_pread(io, buf, 100, 450, &e), -EIO, &e,
	      "failing: cannot read 100 bytes at offset 450: the file ends before");
	check_bytes(io, 400, 100, 'x');
	/* What Linux makes of a medium error is not the end of the file. */
	fake.read_error = ENODATA;
	fails(io_pread(io, buf, 100, 0, &e), -ENODATA, &e,
	      "failing: cannot read 100 bytes at offset 0: No data available");
	be_honest();
	io_close(io);
}

static void resize_both_ways(void **state)
{
	struct io *io = make("resize", 0);
	struct err e = {0};

	(void)state;
	fill(io, 0, 10000, 'x');
	ok(io_resize(io, 5000, &e), &e);
	assert_int_equal(io_size(io), 5000);
	ok(io_resize(io, 20000, &e), &e);
	check_bytes(io, 0, 5000, 'x');
	check_bytes(io, 5000, 15000, 0);
	fails(io_resize(io, UINT64_MAX, &e), -EFBIG, &e, "out of range");
	io_close(io);
}

static void failed_flush_is_remembered(void **state)
{
	struct io *io = make("flush", 0);
	struct err e = {0};

	(void)state;
	ok(io_flush(io, &e), &e);
	fake.fdatasync_error = EIO;
	fails(io_flush(io, &e), -EIO, &e, "flush: cannot flush: Input/output error");
	/* The kernel would say 0 now, for data that it has dropped. */
	fails(io_flush(io, &e), -EIO, &e, "an earlier flush failed");
	assert_int_equal(fake.fdatasyncs, 2);
	io_close(io);
	io = make("flush", FILE_UNSAFE);
	ok(io_flush(io, &e), &e);
	assert_int_equal(fake.fdatasyncs, 0);
	io_close(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(create_does_not_overwrite),
		cmocka_unit_test(open_errors_name_the_file),
		cmocka_unit_test(what_others_put_there_is_refused),
		cmocka_unit_test(open_does_not_block),
		cmocka_unit_test(only_files_and_block_devices),
		cmocka_unit_test(descriptors_can_be_wrapped),
		cmocka_unit_test(gaps_read_as_zeros),
		cmocka_unit_test(short_and_interrupted_transfers),
		cmocka_unit_test(failures_say_where),
		cmocka_unit_test(resize_both_ways),
		cmocka_unit_test(failed_flush_is_remembered),
	};

	return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
