// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Frames that nobody checked, to the agent and to the library.
 * Input: a byte, and what the other side sends. Even: to the agent, on an empty disk of 1 MiB; its
 * answers must be frames. Odd: to the library, which makes the calls of talk_all.
 *
 * link: -l:libext2fs.a -l:libcom_err.a build/agent/libblkid.a -l:libuuid.a
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "input.h"
#include "inside.h"

#define ROOM (64u << 10) /* a socket takes at once */

static void make_pair(int fds[2])
{
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
}

/* ---- to the agent ---- */

static void *serve(void *arg)
{
	struct err err = {0};
	int fd = *(int *)arg;
	int r = serve_inside(fd, true, &err);

	require(r == 0 || err.msg[0]);
	shutdown(fd, SHUT_RDWR);
	return NULL;
}

/* What the agent says: frames, each of a kind that it may send. */
struct answers {
	unsigned char head[FRAME_HEADER];
	size_t have, skip;
};

static void take_answers(struct answers *a, const unsigned char *p, size_t n)
{
	while (n) {
		size_t step = min_u64(n, a->skip ? a->skip : FRAME_HEADER - a->have);
		struct frame_header h;

		if (a->skip) {
			a->skip -= step;
		} else {
			memcpy(a->head + a->have, p, step);
			a->have += step;
		}
		p += step;
		n -= step;
		if (a->have < FRAME_HEADER)
			continue;
		memcpy(&h, a->head, sizeof(h));
		require(le32_get(h.length) <= FRAME_PAYLOAD_MAX && !le32_get(h.zero));
		require(le16_get(h.type) == FRAME_DATA ||
			(le16_get(h.type) >= FRAME_HELLO && le16_get(h.type) <= FRAME_FAIL));
		a->skip = le32_get(h.length);
		a->have = 0;
	}
}

static void talk_to(int fd, const uint8_t *data, size_t len)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	unsigned char buf[16384];
	struct answers a = {0};
	ssize_t n;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		if (poll(&p, 1, -1) < 0) {
			require(errno == EINTR); /* the fuzzer looks at its clock */
			continue;
		}
		if (len && (p.revents & POLLOUT)) {
			n = send(fd, data, len, MSG_NOSIGNAL);
			if (n > 0) {
				data += n;
				len -= (size_t)n;
			} else if (errno != EAGAIN && errno != EINTR) {
				len = 0; /* an agent that has heard enough is gone */
			}
		}
		if (!len && (p.events & POLLOUT)) {
			p.events = POLLIN;
			shutdown(fd, SHUT_WR);
		}
		n = read(fd, buf, sizeof(buf));
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			break;
		if (n > 0)
			take_answers(&a, buf, (size_t)n);
	}
	require(a.skip == 0 && a.have == 0);
}

static void to_agent(const struct input *in)
{
	static bool have_disk;
	pthread_t thread;
	int fds[2];

	if (!have_disk)
		inside_disk(memfd_create("disk", MFD_CLOEXEC));
	have_disk = true;
	require(ftruncate(AGENT_FD_DISK, 0) == 0 && ftruncate(AGENT_FD_DISK, 1 << 20) == 0);
	make_pair(fds);
	require(pthread_create(&thread, NULL, serve, &fds[1]) == 0);
	talk_to(fds[0], in->p, in->len);
	close(fds[0]);
	pthread_join(thread, NULL);
	close(fds[1]);
}

/* ---- to the library ---- */

static int end_finish(void *arg, struct err *err)
{
	(void)arg;
	(void)err;
	return 0;
}

static void end_kill(void *arg)
{
	(void)arg;
}

static int on_bytes(void *arg, const void *bytes, size_t n, struct err *err)
{
	(void)arg;
	(void)bytes;
	(void)n;
	(void)err;
	return 0;
}

static int on_entry(void *arg, const char *name, const struct agent_stat *st, struct err *err)
{
	(void)arg;
	(void)st;
	(void)err;
	require(*name && !strchr(name, '/'));
	return 0;
}

static int on_path(void *arg, const char *path, const struct agent_stat *st, const char *first,
		   const char *target, struct err *err)
{
	(void)arg;
	(void)st;
	(void)first;
	(void)target;
	(void)err;
	require(path[0] != '/' && !strstr(path, "/../") && strncmp(path, "../", 3) != 0);
	return 0;
}

#define fine(call)                             \
	do {                                   \
		err.msg[0] = 0;                \
		r = (call);                    \
		require(r >= 0 || err.msg[0]); \
	} while (0)

static void talk_looking(struct appliance *a)
{
	static const struct appliance_sink sink = {.entry = on_path};
	struct appliance_space space;
	char buf[AGENT_PATH_MAX], value[AGENT_XATTR_MAX], *names = NULL, *file = NULL;
	struct agent_stat st;
	struct err err = {0};
	size_t n;
	int r;

	fine(appliance_stat(a, "/", true, &st, &err));
	fine(appliance_readdir(a, "/", on_entry, NULL, &err));
	fine(appliance_statfs(a, "/", &space, &err));
	fine(appliance_export(a, "/", TREE_RECURSIVE | TREE_CONTENT | TREE_XATTRS, &sink, &err));
	fine(appliance_read(a, "/f", 0, UINT64_MAX, on_bytes, NULL, &err));
	fine(appliance_read_file(a, "/f", 4096, &file, &n, &err));
	if (r == 0)
		free(file);
	fine(appliance_readlink(a, "/l", buf, &err));
	fine(appliance_xattr_list(a, "/f", &names, &n, &err));
	if (r == 0)
		free(names);
	fine(appliance_xattr_get(a, "/f", "user.x", value, &n, &err));
}

/* In the order of make-seeds' requests, so that the numbers of the calls are those of the answers. */
static void talk_all(struct appliance *a)
{
	const struct appliance_write how = {.flags = WRITE_CREATE, .mode = 0644};
	struct agent_volume *v;
	struct appliance_root root;
	struct err err = {0};
	unsigned n;
	int r;

	fine(appliance_mkfs(a, 0, 0, "ext4", "x", "", "", &err));
	fine(appliance_volumes(a, &v, &n, &err));
	if (r == 0)
		free(v);
	fine(appliance_mount(a, 0, 0, "/", 0, NULL, &err));
	fine(appliance_write_buf(a, "/f", &how, "content", 7, &err));
	fine(appliance_symlink(a, "f", "/l", 0, 0, &err));
	fine(appliance_xattr_set(a, "/f", "user.x", "v", 1, &err));
	talk_looking(a);
	fine(appliance_unmount(a, &err));
	fine(appliance_mount_root(a, MOUNT_RDONLY, &root, &err));
	if (r == 0)
		appliance_root_free(&root);
}

static void to_library(const struct input *in)
{
	const struct appliance_end end = {
		.finish = end_finish, .kill = end_kill, .isolation = "", .fallback = ""};
	struct appliance *a;
	struct err err = {0};
	int fds[2];

	make_pair(fds);
	require(write(fds[1], in->p, min_u64(in->len, ROOM)) >= 0);
	shutdown(fds[1], SHUT_WR);
	if (appliance_attach(fds[0], fds[0], &end, &a, &err) == 0) {
		talk_all(a);
		appliance_close(a);
	} else {
		require(err.msg[0]);
	}
	close(fds[0]);
	close(fds[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (input_u8(&in) & 1)
		to_library(&in);
	else
		to_agent(&in);
	return 0;
}
