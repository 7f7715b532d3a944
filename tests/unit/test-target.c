// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ops/target: a new image appears when it is whole, or not at all.
 *
 * Every test runs twice: with files that have no name until then, and as on a file system that
 * does not know O_TMPFILE, with a temporary name.
 *
 * link: -Wl,--wrap=open64,--wrap=fdatasync,--wrap=fsync,--wrap=linkat,--wrap=rename
 */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "ops/target.h"

/* ---- system calls that do as they are told ---- */

static struct {
	bool no_tmpfile;
	int fdatasync_error, name_error; /* errno */
	int fdatasyncs, fsync_error, fsyncs;
	mode_t made; /* permissions with which the last file was made */
} fake;

int __real_open64(const char *path, int flags, mode_t mode);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int __real_rename(const char *from, const char *to);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int __wrap_rename(const char *from, const char *to);

static int refuse(int code)
{
	errno = code;
	return -1;
}

int __wrap_open64(const char *path, int flags, mode_t mode)
{
	if (fake.no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE)
		return refuse(EOPNOTSUPP);
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE)
		fake.made = mode;
	return __real_open64(path, flags, mode);
}

int __wrap_fdatasync(int fd)
{
	fake.fdatasyncs++;
	return fake.fdatasync_error ? refuse(fake.fdatasync_error) : __real_fdatasync(fd);
}

/* Only directories: the file of an image is flushed with fdatasync. */
int __wrap_fsync(int fd)
{
	struct stat st;

	fake.fsyncs += fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
	return fake.fsync_error ? refuse(fake.fsync_error) : __real_fsync(fd);
}

int __wrap_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	if (fake.name_error)
		return refuse(fake.name_error);
	return __real_linkat(from_dir, from, to_dir, to, flags);
}

int __wrap_rename(const char *from, const char *to)
{
	return fake.name_error ? refuse(fake.name_error) : __real_rename(from, to);
}

/* ---- files ---- */

static void put(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void holds(const char *path, const char *text)
{
	char buf[64];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	assert_true(n >= 0);
	buf[n] = '\0';
	assert_string_equal(buf, text);
	close(fd);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static int entries(void)
{
	DIR *d = opendir(".");
	int n = 0;

	assert_non_null(d);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

/* A target that has "new" in it. */
static struct target *begin(const char *path, unsigned flags)
{
	struct target *t = NULL;
	struct err e = {0};

	ok(target_open(path, flags, NULL, &t, &e), &e);
	if (!(flags & TARGET_PARTIAL))
		assert_string_equal(target_io(t)->name, path);
	ok(io_pwrite(target_io(t), "new", 3, 0, &e), &e);
	return t;
}

static void complete(struct target *t)
{
	struct err e = {0};

	ok(target_commit(t, &e), &e);
	target_close(t);
}

/* ---- tests ---- */

static void appears_when_whole(void **state)
{
	struct target *t = begin("a", 0);

	(void)state;
	assert_int_equal(access("a", F_OK), -1);
	assert_int_equal(fake.fdatasyncs, 0);
	complete(t);
	assert_int_equal(fake.fdatasyncs, 1);
	holds("a", "new");
	assert_int_equal(mode_of("a"), 0644);
	assert_int_equal(entries(), 1);
}

static void leaves_nothing(void **state)
{
	(void)state;
	target_close(begin("a", 0));
	target_close(NULL);
	assert_int_equal(entries(), 0);
}

static void keeps_what_is_there(void **state)
{
	struct target *t = NULL;
	struct err e = {0};

	(void)state;
	put("a", "old", 0640);
	fails(target_open("a", 0, NULL, &t, &e), -EEXIST, &e, "'a' exists already");
	target_close(begin("a", TARGET_FORCE));
	holds("a", "old");
	complete(begin("a", TARGET_FORCE));
	holds("a", "new");
	assert_int_equal(mode_of("a"), 0640);
	assert_int_equal(entries(), 1);
}

static void takes_an_empty_file(void **state)
{
	(void)state;
	put("a", "", 0600);
	complete(begin("a", 0));
	holds("a", "new");
	assert_int_equal(mode_of("a"), 0600);
	assert_int_equal(entries(), 1);
}

static void unsafe_flushes_only_to_replace(void **state)
{
	(void)state;
	complete(begin("a", TARGET_UNSAFE));
	assert_int_equal(fake.fdatasyncs, 0);
	complete(begin("a", TARGET_UNSAFE | TARGET_FORCE));
	assert_int_equal(fake.fdatasyncs, 1);
}

/* Nobody may open it before it has the permissions that it will have. */
static void is_never_wider_than_in_the_end(void **state)
{
	static const unsigned kinds[] = {0, TARGET_PARTIAL};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		unsigned flags = kinds[i % 2];
		char name[] = "a0";

		name[1] = (char)('0' + i);
		fake.no_tmpfile = i / 2;
		target_close(begin("new", flags | TARGET_PRIVATE));
		assert_int_equal(fake.made, 0600);
		unlink("new.partial");
		complete(begin(name, flags));
		assert_int_equal(fake.made, 0644);
		put(name, "old", 0640);
		complete(begin(name, flags | TARGET_FORCE));
		assert_int_equal(fake.made, 0600);
		assert_int_equal(mode_of(name), 0640);
	}
	assert_int_equal(entries(), 4);
}

static void makes_its_name_durable(void **state)
{
	struct target *t;
	struct err e = {0};

	(void)state;
	complete(begin("a", 0));
	assert_int_equal(fake.fsyncs, 0);
	complete(begin("b", TARGET_DURABLE));
	assert_int_equal(fake.fsyncs, 1);
	complete(begin("b", TARGET_DURABLE | TARGET_FORCE));
	assert_int_equal(fake.fsyncs, 2);
	t = begin("c", TARGET_DURABLE);
	fake.fsync_error = EIO;
	fails(target_commit(t, &e), -EIO, &e, "directory of 'c'");
	target_close(t);
	holds("c", "new");
	/* a file system that cannot do it is no reason to fail */
	fake.fsync_error = EINVAL;
	complete(begin("d", TARGET_DURABLE));
	assert_int_equal(entries(), 4);
}

static void follows_links(void **state)
{
	struct target *t = NULL;
	struct err e = {0};

	(void)state;
	assert_int_equal(mkdir("d", 0755), 0);
	assert_int_equal(symlink("d/second", "first"), 0);
	assert_int_equal(symlink("file", "d/second"), 0);
	complete(begin("first", 0));
	holds("d/file", "new");
	put("d/file", "old", 0644);
	complete(begin("first", TARGET_FORCE));
	holds("d/file", "new");
	assert_int_equal(symlink("loop", "loop"), 0);
	fails(target_open("loop", TARGET_FORCE, NULL, &t, &e), -ELOOP, &e, "loop");
	assert_int_equal(unlink("d/second") | unlink("d/file") | rmdir("d"), 0);
}

static void yields_to_who_was_faster(void **state)
{
	struct target *t = begin("a", 0);
	struct err e = {0};

	(void)state;
	put("a", "theirs", 0644);
	fails(target_commit(t, &e), -EEXIST, &e, "Could not create 'a'");
	target_close(t);
	holds("a", "theirs");
	assert_int_equal(entries(), 1);
}

static void leaves_a_disk_in_use(void **state)
{
	struct target *t = NULL;
	struct err e = {0};
	struct io *user;

	(void)state;
	put("a", "old", 0644);
	ok(file_open("a", FILE_WRITE, &user, &e), &e);
	fails(target_open("a", TARGET_FORCE, NULL, &t, &e), -EBUSY, &e, "lock");
	fails(target_open("a", TARGET_IN_PLACE, NULL, &t, &e), -EBUSY, &e, "lock");
	io_close(user);
	holds("a", "old");
	/* and the other way round: it stays locked until it is replaced */
	t = begin("a", TARGET_FORCE);
	fails(file_open("a", FILE_WRITE, &user, &e), -EBUSY, &e, "lock");
	target_close(t);
}

static void fails_whole(void **state)
{
	struct target *t;
	struct err e = {0};

	(void)state;
	put("a", "old", 0644);
	t = begin("a", TARGET_FORCE);
	fake.fdatasync_error = EIO;
	fails(target_commit(t, &e), -EIO, &e, "flush");
	target_close(t);
	fake.fdatasync_error = 0;
	t = begin("a", TARGET_FORCE);
	fake.name_error = EDQUOT;
	fails(target_commit(t, &e), -EDQUOT, &e, "Could not create 'a'");
	target_close(t);
	holds("a", "old");
	assert_int_equal(entries(), 1);
}

static void writes_in_place(void **state)
{
	struct stat before, after;

	(void)state;
	put("a", "old text", 0600);
	assert_int_equal(stat("a", &before), 0);
	complete(begin("a", TARGET_IN_PLACE));
	assert_int_equal(stat("a", &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	holds("a", "new");
	/* what was there before stays, what was not goes */
	target_close(begin("a", TARGET_IN_PLACE));
	target_close(begin("b", TARGET_IN_PLACE));
	assert_int_equal(entries(), 1);
}

static void refuses_what_is_no_file(void **state)
{
	struct target *t = NULL;
	struct err e = {0};

	(void)state;
	assert_int_equal(mkfifo("fifo", 0600), 0);
	fails(target_open("fifo", TARGET_FORCE, NULL, &t, &e), -EINVAL, &e, "FIFO");
	fails(target_open(".", TARGET_FORCE, NULL, &t, &e), -EINVAL, &e, "directory");
	fails(target_open("no/a", 0, NULL, &t, &e), -ENOENT, &e, "Could not create 'no/a'");
	fails(target_open("no/", 0, NULL, &t, &e), -EISDIR, &e, "Could not create 'no/'");
	fails(target_open("", 0, NULL, &t, &e), -ENOENT, &e, "Could not create ''");
}

static void takes_hints(void **state)
{
	struct target *t = NULL;
	struct opts opts = {0};
	struct err e = {0};

	(void)state;
	ok(opts_parse(&opts, "nocow=on,extent_size_hint=64k", &e), &e);
	ok(target_open("a", 0, &opts, &t, &e), &e);
	/* only XFS takes it, and nothing else may come of it than a note */
	if (target_note(t))
		assert_non_null(strstr(target_note(t), "extent size hint"));
	target_close(t);
	ok(opts_set(&opts, "extent_size_hint", "8G", &e), &e);
	fails(target_open("a", 0, &opts, &t, &e), -EINVAL, &e, "too large");
	opts_free(&opts);
	assert_int_equal(entries(), 0);
}

/* ---- the two rounds ---- */

static int set_up(void **state)
{
	static char dir[] = "round";

	(void)state;
	umask(022);
	fake.fdatasync_error = fake.fsync_error = fake.name_error = 0;
	fake.fdatasyncs = fake.fsyncs = 0;
	return mkdir(dir, 0755) || chdir(dir) ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	return system("rm -rf ../round") || chdir("..") ? -1 : 0;
}

static int without_tmpfile(void **state)
{
	(void)state;
	fake.no_tmpfile = true;
	return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(appears_when_whole),
		T(leaves_nothing),
		T(keeps_what_is_there),
		T(takes_an_empty_file),
		T(is_never_wider_than_in_the_end),
		T(makes_its_name_durable),
		T(follows_links),
		T(unsafe_flushes_only_to_replace),
		T(yields_to_who_was_faster),
		T(leaves_a_disk_in_use),
		T(fails_whole),
		T(writes_in_place),
		T(refuses_what_is_no_file),
		T(takes_hints),
	};
	int failed = cmocka_run_group_tests_name("unnamed", tests, NULL, NULL);

	return failed + cmocka_run_group_tests_name("named", tests, without_tmpfile, NULL);
}
