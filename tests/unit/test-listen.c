// SPDX-License-Identifier: GPL-2.0-or-later
/* nbd-server/listen: sockets that are made and inherited, and their URIs. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "nbd-server/listen.h"

static const struct listen_unix_args plain = {"s", -1, (uid_t)-1, (gid_t)-1};

static int connect_unix(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;

	strcpy(a.sun_path, path);
	r = connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int connect_tcp(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static const char *uri(const struct listen_set *set, const char *name, bool tls)
{
	static char text[1024];
	struct listen_uris uris;
	struct err e = {0};

	ok(listen_uris(set, name, tls, &uris, &e), &e);
	text[0] = '\0';
	for (unsigned i = 0; i < uris.n; i++) {
		strcat(text, i ? " " : "");
		strcat(text, uris.v[i]);
	}
	listen_uris_free(&uris);
	return text;
}

/* ---- Unix ---- */

static void a_path_is_listened_at_and_removed(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};
	struct stat st;

	(void)state;
	ok(listen_unix(&set, &plain, &e), &e);
	assert_int_equal(set.n, 1);
	assert_true(fcntl(set.v[0].fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(set.v[0].fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(connect_unix("s"), 0);
	listen_remove(&set);
	assert_int_equal(lstat("s", &st), -1);
	listen_close(&set);
	assert_int_equal(set.n, 0);
}

static void a_dead_socket_is_replaced_and_a_living_one_not(void **state)
{
	struct listen_set old = {0}, set = {0};
	struct err e = {0};

	(void)state;
	ok(listen_unix(&old, &plain, &e), &e);
	fails(listen_unix(&set, &plain, &e), -EADDRINUSE, &e, "s: another process listens");
	assert_int_equal(set.n, 0);
	listen_close(&old);
	assert_int_equal(connect_unix("s"), -ECONNREFUSED);
	ok(listen_unix(&set, &plain, &e), &e);
	assert_int_equal(connect_unix("s"), 0);
	listen_remove(&set);
	listen_close(&set);
}

/* One whose queue is full refuses for the moment, but is alive. */
static void a_busy_socket_is_not_dead(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "busy"};
	const struct listen_unix_args args = {"busy", -1, (uid_t)-1, (gid_t)-1};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), waiting[2];
	struct listen_set set = {0};
	struct err e = {0};

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 0), 0);
	for (int i = 0; i < 2; i++) {
		waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(waiting[i], (struct sockaddr *)&a, sizeof(a));
	}
	fails(listen_unix(&set, &args, &e), -EADDRINUSE, &e, "another process listens");
	close(waiting[0]);
	close(waiting[1]);
	close(fd);
	unlink("busy");
}

static void other_files_stay(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};
	struct stat st;

	(void)state;
	close(open("s", O_CREAT | O_WRONLY, 0600));
	fails(listen_unix(&set, &plain, &e), -EADDRINUSE, &e, "s: exists, and is not a socket");
	assert_int_equal(lstat("s", &st), 0);
	assert_true(S_ISREG(st.st_mode));
	unlink("s");
	assert_int_equal(symlink("nowhere", "s"), 0);
	fails(listen_unix(&set, &plain, &e), -EADDRINUSE, &e, "not a socket");
	unlink("s");

	/* Nor is one removed that has come in place of ours. */
	ok(listen_unix(&set, &plain, &e), &e);
	unlink("s");
	close(open("s", O_CREAT | O_WRONLY, 0600));
	listen_remove(&set);
	assert_int_equal(lstat("s", &st), 0);
	listen_close(&set);
	unlink("s");
}

static void paths_have_bounds(void **state)
{
	struct listen_unix_args args = plain;
	struct listen_set set = {0};
	struct err e = {0};
	char path[110];

	(void)state;
	memset(path, 'p', sizeof(path));
	path[108] = '\0';
	args.path = path;
	fails(listen_unix(&set, &args, &e), -ENAMETOOLONG, &e, "at most 107 bytes, this has 108");
	path[107] = '\0';
	ok(listen_unix(&set, &args, &e), &e);
	/* The absolute path would not fit: the relative one is all there is to tell. */
	assert_string_equal(set.v[0].path, path);
	listen_remove(&set);
	listen_close(&set);
	args.path = "";
	fails(listen_unix(&set, &args, &e), -EINVAL, &e, "empty");
	args.path = "no/such/directory";
	fails(listen_unix(&set, &args, &e), -ENOENT, &e, "no/such/directory");
}

static void modes_are_exact(void **state)
{
	static const int modes[] = {0660, 0600, 0777, 0};
	struct err e = {0};
	mode_t mask = umask(027);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		const struct listen_unix_args args = {"m", modes[i], getuid(), getgid()};
		struct listen_set set = {0};
		struct stat st;

		ok(listen_unix(&set, &args, &e), &e);
		assert_int_equal(lstat("m", &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
		listen_remove(&set);
		listen_close(&set);
	}
	umask(mask);
}

/* ---- TCP ---- */

static void all_addresses_have_one_port(void **state)
{
	struct listen_set set = {0}, other = {0};
	char port[12], expected[64];
	struct err e = {0};

	(void)state;
	ok(listen_tcp(&set, NULL, "0", AF_UNSPEC, &e), &e);
	assert_in_range(set.n, 1, 2);
	assert_int_not_equal(set.v[0].port, 0);
	assert_int_equal(set.v[0].port, set.v[set.n - 1].port);
	close(connect_tcp(set.v[0].port));
	snprintf(expected, sizeof(expected), "nbd://%s:%u/", set.n == 2 ? "localhost" : "127.0.0.1",
		 set.v[0].port);
	assert_string_equal(uri(&set, "", false), expected);

	snprintf(port, sizeof(port), "%u", set.v[0].port);
	fails(listen_tcp(&other, NULL, port, AF_INET, &e), -EADDRINUSE, &e, port);
	fails(listen_tcp(&other, "127.0.0.1", port, AF_UNSPEC, &e), -EADDRINUSE, &e,
	      "listening at 127.0.0.1");
	assert_int_equal(other.n, 0);
	listen_close(&set);
}

static void names_stand_for_addresses(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};
	char expected[64];

	(void)state;
	ok(listen_tcp(&set, "localhost", "", AF_UNSPEC, &e), &e);
	snprintf(expected, sizeof(expected), "nbds://localhost:%u/x", set.v[0].port);
	assert_string_equal(uri(&set, "x", true), expected);
	listen_close(&set);

	ok(listen_tcp(&set, "0.0.0.0", "0", AF_UNSPEC, &e), &e);
	assert_int_equal(set.n, 1);
	assert_null(set.v[0].host);
	snprintf(expected, sizeof(expected), "nbd://127.0.0.1:%u/", set.v[0].port);
	assert_string_equal(uri(&set, "", false), expected);
	listen_close(&set);

	fails(listen_tcp(&set, "127.0.0.1", "0", AF_INET6, &e), -EINVAL, &e, "127.0.0.1");
	fails(listen_tcp(&set, NULL, "65536", AF_UNSPEC, &e), -EINVAL, &e, "the greatest is 65535");
	fails(listen_tcp(&set, NULL, "no such service", AF_UNSPEC, &e), -EINVAL, &e,
	      "no such service");
	/* TEST-NET-1 is nobody's. */
	fails(listen_tcp(&set, "192.0.2.1", "0", AF_UNSPEC, &e), -EADDRNOTAVAIL, &e, "192.0.2.1");
	assert_int_equal(set.n, 0);
}

static void ipv6_addresses_have_brackets(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};
	char expected[64];
	int r;

	(void)state;
	r = listen_tcp(&set, "::1", "0", AF_UNSPEC, &e);
	if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
		skip();
	ok(r, &e);
	snprintf(expected, sizeof(expected), "nbd://[::1]:%u/", set.v[0].port);
	assert_string_equal(uri(&set, "", false), expected);
	listen_close(&set);
}

static void accepted_sockets_do_not_delay(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};
	int client, fd, on = 0;
	socklen_t len = sizeof(on);

	(void)state;
	ok(listen_tcp(&set, "127.0.0.1", "0", AF_UNSPEC, &e), &e);
	client = connect_tcp(set.v[0].port);
	fd = accept(set.v[0].fd, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	assert_int_equal(on, 1);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len), 0);
	assert_int_equal(on, 1);
	close(fd);
	close(client);
	listen_close(&set);
}

static void vsock_works_or_says_why_not(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};
	char expected[64];

	(void)state;
	if (listen_vsock(&set, 0, &e) < 0) {
		assert_non_null(strstr(e.msg, "vsock"));
		assert_int_equal(set.n, 0);
		return;
	}
	snprintf(expected, sizeof(expected), "nbd+vsock://1:%u/e", set.v[0].port);
	assert_string_equal(uri(&set, "e", false), expected);
	listen_close(&set);
}

static void a_set_has_a_bound(void **state)
{
	struct listen_set set = {0};
	struct err e = {0};

	(void)state;
	while (set.n < LISTEN_MAX)
		ok(listen_tcp(&set, "127.0.0.1", "0", AF_INET, &e), &e);
	fails(listen_tcp(&set, "127.0.0.1", "0", AF_INET, &e), -EMFILE, &e, "more than 64 sockets");
	assert_int_equal(set.n, LISTEN_MAX);
	listen_close(&set);
}

/* ---- inherited ---- */

static void only_listening_stream_sockets_are_taken(void **state)
{
	struct listen_set set = {0}, made = {0};
	struct err e = {0};
	int fd, pair[2];

	(void)state;
	fails(listen_fd(&set, 999, &e), -EBADF, &e, "descriptor 999");
	fd = open("/dev/null", O_RDWR);
	fails(listen_fd(&set, fd, &e), -EINVAL, &e, "not a socket");
	close(fd);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	fails(listen_fd(&set, fd, &e), -EINVAL, &e, "not a stream socket");
	close(fd);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	fails(listen_fd(&set, pair[0], &e), -EINVAL, &e, "does not listen");
	/* Not owned when it fails. */
	assert_true(fcntl(pair[0], F_GETFD) >= 0);
	close(pair[0]);
	close(pair[1]);

	ok(listen_unix(&made, &plain, &e), &e);
	fd = dup(made.v[0].fd);
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	ok(listen_fd(&set, fd, &e), &e);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_string_equal(uri(&set, "", false), "nbd+unix:///?socket=s");
	/* Who made it removes it. */
	listen_remove(&set);
	listen_close(&set);
	assert_int_equal(connect_unix("s"), 0);
	listen_remove(&made);
	listen_close(&made);
}

static void names_without_files_have_no_uri(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct listen_set set = {0};
	struct err e = {0};

	(void)state;
	/* The kernel chooses an abstract name. */
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a.sun_family)), 0);
	assert_int_equal(listen(fd, 1), 0);
	ok(listen_fd(&set, fd, &e), &e);
	assert_null(set.v[0].path);
	assert_string_equal(uri(&set, "", false), "");
	listen_close(&set);
}

/* What listen_activated makes of these variables, in a process that has two sockets at 3 and 4. */
struct activated {
	int r;
	unsigned n;
	bool cleared;
	char msg[200];
};
static struct activated activate(const char *pid, const char *fds, const char *names)
{
	struct activated result = {0};
	int ends[2], status;
	pid_t child;

	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		int out = dup2(ends[1], 20), fd = socket(AF_INET, SOCK_STREAM, 0);
		struct listen_set set = {0};
		struct err e = {0};
		char own[16];

		snprintf(own, sizeof(own), "%d", (int)getpid());
		setenv("LISTEN_PID", pid ? pid : own, 1);
		setenv("LISTEN_FDS", fds, 1);
		if (names)
			setenv("LISTEN_FDNAMES", names, 1);
		listen(fd, 1);
		fd = dup2(fd, 21);
		dup2(fd, 3);
		dup2(fd, 4);
		close(5);
		result.r = listen_activated(&set, &result.n, &e);
		result.cleared =
			!getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES");
		snprintf(result.msg, sizeof(result.msg), "%.199s", e.msg);
		_exit(write(out, &result, sizeof(result)) != sizeof(result));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], &result, sizeof(result)), sizeof(result));
	close(ends[0]);
	close(ends[1]);
	assert_true(result.cleared);
	return result;
}

static void systemd_passes_sockets(void **state)
{
	static const struct {
		const char *pid, *fds, *names, *message;
	} bad[] = {
		{NULL, "3", NULL, "socket activation: descriptor 5"},
		{NULL, "2", "one", "LISTEN_FDNAMES has 1 names for 2 descriptors"},
		{NULL, "65", NULL, "LISTEN_FDS=65 is not a number up to 64"},
		{NULL, "-1", NULL, "LISTEN_FDS=-1"},
		{NULL, "2x", NULL, "LISTEN_FDS=2x"},
		{"", "2", NULL, "LISTEN_PID="},
	};
	struct activated a;

	(void)state;
	a = activate(NULL, "2", NULL);
	assert_int_equal(a.r, 0);
	assert_int_equal(a.n, 2);
	a = activate(NULL, "2", "a:b");
	assert_int_equal(a.r, 0);
	/* For somebody else. */
	a = activate("1", "2", NULL);
	assert_int_equal(a.r, 0);
	assert_int_equal(a.n, 0);
	a = activate(NULL, "0", "");
	assert_int_equal(a.r, 0);
	assert_int_equal(a.n, 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		a = activate(bad[i].pid, bad[i].fds, bad[i].names);
		assert_true(a.r < 0);
		assert_int_equal(a.n, 0);
		if (!strstr(a.msg, bad[i].message))
			fail_msg("\"%s\" lacks \"%s\"", a.msg, bad[i].message);
	}
}

/* ---- URIs ---- */

static void names_are_encoded(void **state)
{
	struct listen_set set = {.n = 1};
	static char path[] = "/run/a b/\xc3\xa9&c?.sock";

	(void)state;
	set.v[0] = (struct listener){.fd = -1, .family = AF_UNIX, .path = path};
	assert_string_equal(uri(&set, "", false),
			    "nbd+unix:///?socket=/run/a%20b/%C3%A9%26c%3F.sock");
	assert_string_equal(uri(&set, "disk/1 %#", true),
			    "nbds+unix:///disk/1%20%25%23?socket=/run/a%20b/%C3%A9%26c%3F.sock");
	assert_string_equal(uri(&set, "/x/", false),
			    "nbd+unix:///%2Fx%2F?socket=/run/a%20b/%C3%A9%26c%3F.sock");
}

static void each_uri_is_told_once(void **state)
{
	static char host[] = "fe80::1%eth0";
	struct listen_set set = {.n = 4};

	(void)state;
	set.v[0] = (struct listener){.fd = -1, .family = AF_INET, .port = 10809};
	set.v[1] = (struct listener){.fd = -1, .family = AF_INET6, .port = 10809};
	set.v[2] = (struct listener){.fd = -1, .family = AF_INET6, .port = 1};
	set.v[3] = (struct listener){.fd = -1, .family = AF_INET6, .port = 2, .host = host};
	assert_string_equal(uri(&set, "e", false),
			    "nbd://localhost:10809/e nbd://[::1]:1/e nbd://[fe80::1%25eth0]:2/e");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_is_listened_at_and_removed),
		cmocka_unit_test(a_dead_socket_is_replaced_and_a_living_one_not),
		cmocka_unit_test(a_busy_socket_is_not_dead),
		cmocka_unit_test(other_files_stay),
		cmocka_unit_test(paths_have_bounds),
		cmocka_unit_test(modes_are_exact),
		cmocka_unit_test(all_addresses_have_one_port),
		cmocka_unit_test(names_stand_for_addresses),
		cmocka_unit_test(ipv6_addresses_have_brackets),
		cmocka_unit_test(accepted_sockets_do_not_delay),
		cmocka_unit_test(vsock_works_or_says_why_not),
		cmocka_unit_test(a_set_has_a_bound),
		cmocka_unit_test(only_listening_stream_sockets_are_taken),
		cmocka_unit_test(names_without_files_have_no_uri),
		cmocka_unit_test(systemd_passes_sockets),
		cmocka_unit_test(names_are_encoded),
		cmocka_unit_test(each_uri_is_told_once),
	};

	return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}
