// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* io/nbd: names, and many threads at one export of nbdkit, over one connection and several. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/work.h"
#include "io/nbd.h"

/* ---- names ---- */

static void test_names(void **state)
{
	static const struct {
		const char *name, *shown, *host, *port, *path, *export;
	} cases[] = {
		{"nbd://h", "nbd://h:10809", "h", "10809", NULL, NULL},
		{"nbd://h:1/", "nbd://h:1", "h", "1", NULL, NULL},
		{"nbd://[::1]:2/a/b", "nbd://[::1]:2/a/b", "::1", "2", NULL, "a/b"},
		{"nbd://[fe80::1]", "nbd://[fe80::1]:10809", "fe80::1", "10809", NULL, NULL},
		{"nbds://u@h/%41%2f", "nbds://h:10809/A/", "h", "10809", NULL, "A/"},
		{"nbd+unix:///?socket=/s", "nbd+unix://?socket=/s", NULL, NULL, "/s", NULL},
		{"nbd+unix://?socket=s&", "nbd+unix://?socket=s", NULL, NULL, "s", NULL},
		{"nbd+unix:///e?socket=a%20b", "nbd+unix:///e?socket=a b", NULL, NULL, "a b", "e"},
		{"nbd:h:1", "nbd://h:1", "h", "1", NULL, NULL},
		{"nbd:[::1]:1", "nbd://[::1]:1", "::1", "1", NULL, NULL},
		{"nbd:h:1:exportname=", "nbd://h:1", "h", "1", NULL, ""},
		{"nbd:unix:/a:b", "nbd+unix://?socket=/a:b", NULL, NULL, "/a:b", NULL},
		{"nbd:unix:s:exportname=x:y", "nbd+unix:///x:y?socket=s", NULL, NULL, "s", "x:y"},
	};
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct nbd_where w;
		char *shown;

		ok(nbd_where_parse(cases[i].name, &w, &e), &e);
		shown = nbd_where_name(&w);
		assert_string_equal(shown, cases[i].shown);
		assert_string_equal(w.host ? w.host : "-", cases[i].host ? cases[i].host : "-");
		assert_string_equal(w.port ? w.port : "-", cases[i].port ? cases[i].port : "-");
		assert_string_equal(w.path ? w.path : "-", cases[i].path ? cases[i].path : "-");
		assert_string_equal(w.export ? w.export : "-",
				    cases[i].export ? cases[i].export : "-");
		free(shown);
		nbd_where_free(&w);
	}
}

static void test_bad_names(void **state)
{
	static const char *const bad[] = {
		"nbd://",
		"nbd:///x",
		"nbd://:1",
		"nbd://[::1",
		"nbd://[]",
		"nbd://[::1]x",
		"nbd://h?socket=x",
		"nbd://h?tls-certificates=x",
		"nbd://h#x",
		"nbd://h/%",
		"nbd://h/%4",
		"nbd://h/%zz",
		"nbd://h/%00",
		"nbd+unix:///",
		"nbd+unix://h/?socket=s",
		"nbd+unix:///?sock=s",
		"nbd:",
		"nbd:h",
		"nbd::1",
		"nbd:h:",
		"nbd:unix:",
	};
	struct nbd_where w;
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_true(nbd_is_name(bad[i]));
		fails(nbd_where_parse(bad[i], &w, &e), -EINVAL, &e, bad[i]);
	}
	assert_false(nbd_is_name("nbdx://h"));
	assert_false(nbd_is_name("nbd"));
	assert_false(nbd_is_name("./nbd:h:1"));
}

/* ---- a server ---- */

#define DISK (8 * MiB)

/* nbdkit with a disk in memory. 0: there is none. */
static pid_t start_server(const char *multi)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	char mode[64];
	pid_t pid;

	unlink("pid");
	unlink("s");
	snprintf(mode, sizeof(mode), "multi-conn-mode=%s", multi);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("nbdkit", "nbdkit", "-f", "-U", "s", "-P", "pid", "--filter=multi-conn",
		       "memory", "8M", mode, NULL);
		_exit(127);
	}
	while (access("pid", F_OK) != 0) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return 0;
		nanosleep(&ms, NULL);
	}
	return pid;
}

static void stop_server(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static struct io *open_it(struct job *job)
{
	const struct nbd_args args = {.flags = NBD_WRITE, .job = job};
	struct nbd_where w;
	struct err e = {0};
	struct io *io;

	ok(nbd_where_parse("nbd+unix:///?socket=s", &w, &e), &e);
	ok(nbd_open(&w, &args, &io, &e), &e);
	nbd_where_free(&w);
	assert_true(io_is_nbd(io) && io_size(io) == DISK);
	return io;
}

#define WORKERS 4
#define PART    (DISK / WORKERS)
#define ROUNDS  60

static unsigned next(unsigned *seed, unsigned n)
{
	*seed = *seed * 1664525 + 1013904223;
	return (*seed >> 8) % n;
}

/* Writes, zeros, discards and reads in a part of the disk that is the worker's own. */
static int exercise(void *ctx, unsigned index, struct err *err)
{
	struct io *io = ctx;
	uint64_t base = index * PART;
	unsigned char *model = calloc(1, PART), *buf = malloc(PART);
	unsigned seed = index + 1;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < ROUNDS; i++) {
		uint64_t off = next(&seed, PART - 1), len = 1 + next(&seed, (unsigned)(PART - off));
		struct extent ext;

		len = next(&seed, 3) ? min_u64(len, 9000) : len;
		if (next(&seed, 2)) {
			memset(model + off, (int)(i + 1), len);
			r = io_pwrite(io, model + off, len, base + off, err);
		} else {
			memset(model + off, 0, len);
			r = io_zero(io, base + off, len, i & 1 ? IO_ZERO_UNMAP : 0, err);
		}
		if (r == 0)
			r = io_map(io, base + off, len, &ext, err);
		if (r == 0 && ext.kind == EXT_ZERO && !bytes_are_zero(model + off, ext.len))
			r = err_set(err, EIO, "the map says zeros at %u", (unsigned)off);
		if (r == 0)
			r = io_pread(io, buf, PART, base, err);
		if (r == 0 && memcmp(buf, model, PART) != 0)
			r = err_set(err, EIO, "worker %u reads something else", index);
	}
	free(model);
	free(buf);
	return r < 0 ? r : io_flush(io, err);
}

static void many_threads(const char *multi)
{
	pid_t pid = start_server(multi);
	struct err e = {0};
	struct io *io;

	if (!pid) {
		skip();
		return;
	}
	io = open_it(NULL);
	ok(work_run(WORKERS, exercise, io, &e), &e);
	io_close(io);
	stop_server(pid);
}

static void test_one_connection(void **state)
{
	(void)state;
	many_threads("disable");
}

static void test_several_connections(void **state)
{
	(void)state;
	many_threads("auto");
}

static void test_extents(void **state)
{
	static const unsigned char data[512] = {1};
	pid_t pid = start_server("auto");
	struct nbd_extent v[8];
	struct err e = {0};
	struct io *io;
	size_t n;

	(void)state;
	if (!pid)
		skip();
	io = open_it(NULL);
	ok(io_pwrite(io, data, sizeof(data), MiB, &e), &e);
	assert_true(nbd_has_context(io, "base:allocation"));
	assert_false(nbd_has_context(io, "qemu:allocation-depth"));
	ok(nbd_extents(io, "base:allocation", 100, DISK - 100, v, 1, &n, &e), &e);
	assert_true(n == 1 && v[0].off == 100 && v[0].len == MiB - 100);
	assert_int_equal(v[0].flags, NBD_EXTENT_HOLE | NBD_EXTENT_ZERO);
	ok(nbd_extents(io, "base:allocation", 0, MiB + 3, v, 8, &n, &e), &e);
	assert_true(n == 2 && v[1].off == MiB && v[1].len == 3 && v[1].flags == 0);
	fails(nbd_extents(io, "x:y", 0, 1, v, 8, &n, &e), -EINVAL, &e, "x:y");
	fails(nbd_extents(io, "base:allocation", DISK, 1, v, 8, &n, &e), -EINVAL, &e, "s");
	io_close(io);
	stop_server(pid);
}

/* The server is gone: an error, also for what follows, and flush does not say that all is well. */
static void test_lost(void **state)
{
	static const unsigned char data[512] = {1};
	struct err e = {0};
	unsigned char buf[512];
	struct io *io;
	pid_t pid = start_server("disable");

	(void)state;
	if (!pid)
		skip();
	io = open_it(NULL);
	ok(io_pwrite(io, data, sizeof(data), 0, &e), &e);
	stop_server(pid);
	assert_true(io_pread(io, buf, sizeof(buf), 0, &e) < 0);
	if (!strstr(e.msg, "the connection is lost"))
		fail_msg("%s", e.msg);
	assert_true(io_pwrite(io, data, sizeof(data), 0, &e) < 0);
	fails(io_flush(io, &e), -EIO, &e, "lost");
	io_close(io);
}

/* A server that is stopped does not keep a cancelled job. */
static void *cancel(void *arg)
{
	struct job *job = arg;

	atomic_store(&job->cancelled, true);
	return NULL;
}

static void test_cancelled(void **state)
{
	struct job job = {0};
	struct err e = {0};
	unsigned char buf[512];
	pid_t pid = start_server("disable");
	pthread_t thread;
	struct io *io;

	(void)state;
	if (!pid)
		skip();
	io = open_it(&job);
	kill(pid, SIGSTOP);
	/* Until all of its threads have stopped, one may answer. */
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	assert_int_equal(pthread_create(&thread, NULL, cancel, &job), 0);
	fails(io_pread(io, buf, sizeof(buf), 0, &e), -ECANCELED, &e, "cancelled");
	pthread_join(thread, NULL);
	io_close(io);
	stop_server(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),          cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_one_connection), cmocka_unit_test(test_several_connections),
		cmocka_unit_test(test_extents),        cmocka_unit_test(test_lost),
		cmocka_unit_test(test_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
