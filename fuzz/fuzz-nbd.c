// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a client sends to the NBD server, which runs in this process with one worker and a raw disk of
 * 256 KiB in memory.
 * Input: a byte, and the bytes of the client. The byte says how far a correct client got before:
 * nowhere, or through the handshake to simple, structured or extended replies.
 *
 * link: -lssl -lcrypto
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "image/img.h"
#include "input.h"
#include "nbd-server/server.h"

#define DISK (256u << 10)

/* ---- what precedes ---- */

static const char raw[] = "";
/* Client flags; GO of the export "". */
static const char simple[] = "\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";
#define CONTEXTS \
	"IHAVEOPT\0\0\0\12\0\0\0\47\0\0\0\0\0\0\0\2\0\0\0\17base:allocation\0\0\0\10qemu:all"
/* With STRUCTURED_REPLY, or EXTENDED_HEADERS, and SET_META_CONTEXT. */
static const char structured[] =
	"\0\0\0\3IHAVEOPT\0\0\0\10\0\0\0\0" CONTEXTS "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";
static const char extended[] =
	"\0\0\0\3IHAVEOPT\0\0\0\13\0\0\0\0" CONTEXTS "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";

#define START(s)                 \
	{                        \
		s, sizeof(s) - 1 \
	}
static const struct {
	const char *bytes;
	size_t len;
} starts[] = {START(raw), START(simple), START(structured), START(extended)};

/* ---- the server ---- */

static void no_line(void *ctx, enum server_event event, const char *text)
{
	(void)ctx;
	(void)event;
	require(text[0]);
}

static struct nbd_export *new_export(void)
{
	static const unsigned char pattern[8192] = {[0] = 1, [4095] = 2, [8000] = 3};
	static const char *const no_bitmap = NULL;
	struct export_args args = {.name = "", .allocation_depth = true, .bitmaps = &no_bitmap};
	struct io *file = input_file(pattern, sizeof(pattern), "disk");
	struct nbd_export *e;
	struct img *img;

	require(io_resize(file, DISK, NULL) == 0);
	require(img_open_io(file, "raw", IMG_RDWR, NULL, &img, NULL) == 0);
	require(export_open(img, &args, &e, NULL) == 0);
	return e;
}

static void *run(void *arg)
{
	struct server *s = arg;
	struct err err = {0};
	int r = server_run(s, &err);

	require(r == 0 || err.msg[0]);
	return NULL;
}

/* ---- the client ---- */

static size_t send_some(int fd, const char *p, size_t len)
{
	ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

	if (n >= 0)
		return (size_t)n;
	return errno == EAGAIN || errno == EINTR ? 0 : len; /* the server has heard enough */
}

/* Says all, and listens until the server closes. */
static void talk(int fd, const char *bytes, size_t len)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	char buf[65536];
	size_t n;

	for (;;) {
		if (!len && (p.events & POLLOUT)) {
			p.events = POLLIN;
			shutdown(fd, SHUT_WR);
		}
		if (poll(&p, 1, -1) < 0) {
			require(errno == EINTR); /* the fuzzer looks at its clock */
			continue;
		}
		if (p.revents & POLLOUT) {
			n = send_some(fd, bytes, len);
			bytes += n;
			len -= n;
		}
		if (p.revents & ~POLLOUT) {
			ssize_t got = read(fd, buf, sizeof(buf));

			if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
				return;
		}
	}
}

static char *whole(unsigned start, const struct input *in, size_t *len)
{
	char *p;

	*len = starts[start].len + in->len;
	p = malloc(*len + 1);
	require(p);
	memcpy(p, starts[start].bytes, starts[start].len);
	memcpy(p + starts[start].len, in->p, in->len);
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	unsigned start = input_below(&in, ARRAY_LEN(starts));
	struct nbd_export *e = new_export();
	struct server_config config = {
		.exports = &e,
		.n_exports = 1,
		.list_exports = true,
		.handshake_ms = 1000000,
		.threads = 1,
		.log = {no_line, NULL},
	};
	struct server *s;
	pthread_t thread;
	size_t len;
	char *bytes = whole(start, &in, &len);
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	require(channel_socket(fds[1], &config.single, NULL) == 0);
	require(server_open(&config, &s, NULL) == 0);
	require(pthread_create(&thread, NULL, run, s) == 0);
	talk(fds[0], bytes, len);
	close(fds[0]);
	pthread_join(thread, NULL);
	server_close(s);
	export_close(e);
	free(bytes);
	return 0;
}
