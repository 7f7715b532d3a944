// SPDX-License-Identifier: GPL-2.0-or-later
/* See nbdtalk.h. */
#include "nbdtalk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A new one for each server, so that one whose test failed is not in the way. */
static char path[32];

static struct err e;

/* ---- the server ---- */

static struct io *make_disk(struct talk *t, unsigned i)
{
	struct talk_disk *d = &t->disk[i];
	struct io *io;

	t->mem[i] = disk_new("mem");
	ok(io_resize(t->mem[i], d->size, &e), &e);
	io = disk_borrow(t->mem[i]);
	if (d->fault)
		ok(fault_open(io, true, d->fault, &io, &e), &e);
	if (d->gate)
		ok(gate_open(io, true, d->gate, &io, &e), &e);
	return io;
}

static void make_export(struct talk *t, unsigned i)
{
	struct io *io = make_disk(t, i);
	struct export_args *args = &t->disk[i].args;
	struct img *img;

	ok(img_open_io(io, "raw", t->disk[i].read_only ? 0 : IMG_RDWR, NULL, &img, &e), &e);
	if (!args->name)
		args->name = i ? "b" : "";
	ok(export_open(img, args, &t->export[i], &e), &e);
}

static void *serve(void *arg)
{
	struct talk *t = arg;
	struct err err = {0};

	t->result = server_run(t->server, &err);
	return NULL;
}

void talk_start(struct talk *t)
{
	static unsigned n_servers;
	struct listen_unix_args args = {
		.path = path, .mode = -1, .uid = (uid_t)-1, .gid = (gid_t)-1};

	snprintf(path, sizeof(path), "talk%u.sock", n_servers++);
	for (unsigned i = 0; i < TALK_EXPORTS && t->disk[i].size; i++) {
		make_export(t, i);
		t->config.n_exports++;
	}
	ok(listen_unix(&t->set, &args, &e), &e);
	t->fd = t->set.v[0].fd;
	t->config.exports = t->export;
	t->config.listeners = &t->fd;
	t->config.n_listeners = 1;
	t->config.list_exports = true;
	if (!t->config.handshake_ms)
		t->config.handshake_ms = 60000;
	ok(server_open(&t->config, &t->server, &e), &e);
	assert_int_equal(pthread_create(&t->thread, NULL, serve, t), 0);
}

void talk_wait(struct talk *t)
{
	assert_int_equal(pthread_join(t->thread, NULL), 0);
	assert_int_equal(t->result, 0);
	talk_close(t);
}

void talk_close(struct talk *t)
{
	server_close(t->server);
	listen_remove(&t->set);
	listen_close(&t->set);
	for (unsigned i = 0; i < t->config.n_exports; i++) {
		assert_int_equal(t->export[i] -> clients, 0);
		export_close(t->export[i]);
		io_close(t->mem[i]);
	}
}

void talk_stop(struct talk *t)
{
	server_stop(t->server);
	talk_wait(t);
}

/* ---- bytes ---- */

void client_send(struct client *c, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL);

		if (n < 0)
			fail_msg("send: %s", strerror(errno));
		p += n;
		len -= (size_t)n;
	}
}

void client_recv(struct client *c, void *data, size_t len)
{
	ssize_t n = len ? recv(c->fd, data, len, MSG_WAITALL) : 0;

	if (n != (ssize_t)len)
		fail_msg("recv of %zu bytes: %zd %s", len, n, strerror(errno));
}

void client_ends(struct client *c)
{
	char byte;
	ssize_t n = recv(c->fd, &byte, 1, 0);

	if (n != 0 && !(n < 0 && errno == ECONNRESET))
		fail_msg("the server has not closed: %zd", n);
	client_close(c);
}

void client_close(struct client *c)
{
	close(c->fd);
	c->fd = -1;
}

void talk_fill(unsigned char *buf, uint64_t offset, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (unsigned char)((offset + i) * 7 + (offset + i) / 509);
}

/* ---- the handshake ---- */

void client_connect(struct client *c)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	be32 flags = be32_make(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
	struct nbd_greeting greeting;

	*c = (struct client){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	client_recv(c, &greeting, sizeof(greeting));
	assert_int_equal(be64_get(greeting.magic), NBD_MAGIC);
	assert_int_equal(be64_get(greeting.ihaveopt), NBD_IHAVEOPT);
	assert_int_equal(be16_get(greeting.flags), 3);
	client_send(c, &flags, sizeof(flags));
}

void client_option(struct client *c, uint32_t option, const void *data, uint32_t len)
{
	struct nbd_option opt = {be64_make(NBD_IHAVEOPT), be32_make(option), be32_make(len)};

	client_send(c, &opt, sizeof(opt));
	client_send(c, data, len);
}

uint32_t client_answer(struct client *c, uint32_t option, void *data, size_t room, uint32_t *len)
{
	unsigned char text[NBD_MAX_STRING];
	struct nbd_option_reply reply;
	uint32_t n;

	client_recv(c, &reply, sizeof(reply));
	assert_int_equal(be64_get(reply.magic), NBD_REP_MAGIC);
	assert_int_equal(be32_get(reply.option), option);
	n = be32_get(reply.length);
	if (!data) {
		data = text;
		room = sizeof(text);
	}
	assert_in_range(n, 0, room);
	client_recv(c, data, n);
	if (len)
		*len = n;
	return be32_get(reply.type);
}

void client_asks(struct client *c, uint32_t option)
{
	client_option(c, option, NULL, 0);
	assert_int_equal(client_answer(c, option, NULL, 0, NULL), NBD_REP_ACK);
}

static size_t put32(unsigned char *p, uint32_t v)
{
	be32 x = be32_make(v);

	memcpy(p, &x, sizeof(x));
	return sizeof(x);
}

static size_t put_text(unsigned char *p, const char *text)
{
	size_t n = strlen(text);

	put32(p, (uint32_t)n);
	memcpy(p + 4, text, n);
	return 4 + n;
}

uint32_t client_go(struct client *c, uint32_t option, const char *name)
{
	unsigned char data[300], *p = data;
	uint32_t type, len;
	be64 size;
	be16 flags;

	p += put_text(p, name);
	*p++ = 0;
	*p++ = 0;
	client_option(c, option, data, (uint32_t)(p - data));
	while ((type = client_answer(c, option, data, sizeof(data), &len)) == NBD_REP_INFO) {
		assert_int_equal(len, 12);
		memcpy(&size, data + 2, sizeof(size));
		memcpy(&flags, data + 10, sizeof(flags));
		c->size = be64_get(size);
		c->flags = be16_get(flags);
	}
	return type;
}

unsigned client_contexts(struct client *c, uint32_t option, const char *export,
			 const char *const *query)
{
	unsigned char data[1000], *p = data, *count;
	unsigned n = 0, told = 0;
	uint32_t type;

	p += put_text(p, export);
	count = p;
	for (p += 4; query[n]; n++)
		p += put_text(p, query[n]);
	put32(count, n);
	client_option(c, option, data, (uint32_t)(p - data));
	while ((type = client_answer(c, option, NULL, 0, NULL)) == NBD_REP_META_CONTEXT)
		told++;
	assert_int_equal(type, NBD_REP_ACK);
	return told;
}

void client_open(struct client *c, int mode, const char *name)
{
	client_connect(c);
	if (mode)
		client_asks(c, mode == 2 ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY);
	c->mode = mode;
	assert_int_equal(client_go(c, NBD_OPT_GO, name), NBD_REP_ACK);
}

/* ---- requests ---- */

void client_request(struct client *c, const struct ask *ask)
{
	uint16_t flags = ask->flags;
	struct nbd_request small = {
		.magic = be32_make(NBD_REQUEST_MAGIC),
		.type = be16_make(ask->type),
		.cookie = be64_make(ask->cookie),
		.offset = be64_make(ask->offset),
		.length = be32_make((uint32_t)ask->length),
	};
	struct nbd_extended_request large = {
		.magic = be32_make(NBD_EXTENDED_REQUEST_MAGIC),
		.type = be16_make(ask->type),
		.cookie = be64_make(ask->cookie),
		.offset = be64_make(ask->offset),
		.length = be64_make(ask->length),
	};

	if (c->mode == 2 && ask->data)
		flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	small.flags = large.flags = be16_make(flags);
	client_send(c, c->mode == 2 ? (void *)&large : (void *)&small,
		    c->mode == 2 ? sizeof(large) : sizeof(small));
	if (ask->data)
		client_send(c, ask->data, ask->length);
}

/* The part of a chunk behind its header, len bytes. */
static void take_payload(struct client *c, struct told *told, void *buf, uint32_t len)
{
	unsigned char small[512];
	be64 offset;
	be32 word;

	if (told->type == NBD_REPLY_TYPE_OFFSET_DATA) {
		client_recv(c, &offset, sizeof(offset));
		told->offset = be64_get(offset);
		told->len = len - 8;
		client_recv(c, buf, told->len);
	} else if (told->type == NBD_REPLY_TYPE_OFFSET_HOLE) {
		assert_int_equal(len, 12);
		client_recv(c, &offset, sizeof(offset));
		client_recv(c, &word, sizeof(word));
		told->offset = be64_get(offset);
		told->len = be32_get(word);
	} else if (told->type & NBD_REPLY_TYPE_ERR(0)) {
		assert_in_range(len, 6, sizeof(small));
		client_recv(c, small, len);
		memcpy(&word, small, sizeof(word));
		told->error = be32_get(word);
	} else {
		told->len = len;
		client_recv(c, buf, len);
	}
}

static void take_simple(struct client *c, struct told *told, void *buf, uint32_t length)
{
	struct nbd_simple_reply s = {.magic = be32_make(NBD_SIMPLE_REPLY_MAGIC)};

	client_recv(c, (char *)&s + sizeof(be32), sizeof(s) - sizeof(be32));
	told->flags = NBD_REPLY_FLAG_DONE;
	told->error = be32_get(s.error);
	told->cookie = be64_get(s.cookie);
	if (!told->error && c->mode == 0)
		client_recv(c, buf, length);
}

void client_told(struct client *c, struct told *told, void *buf, uint32_t length)
{
	struct nbd_extended_chunk large;
	struct nbd_chunk small;
	uint32_t len;
	be32 magic;

	*told = (struct told){0};
	client_recv(c, &magic, sizeof(magic));
	if (be32_get(magic) == NBD_SIMPLE_REPLY_MAGIC && c->mode < 2) {
		take_simple(c, told, buf, length);
		return;
	}
	if (c->mode == 2) {
		assert_int_equal(be32_get(magic), NBD_EXTENDED_REPLY_MAGIC);
		client_recv(c, (char *)&large + sizeof(magic), sizeof(large) - sizeof(magic));
		memcpy(&small, &large, offsetof(struct nbd_chunk, length));
		len = (uint32_t)be64_get(large.length);
	} else {
		assert_int_equal(be32_get(magic), NBD_CHUNK_MAGIC);
		client_recv(c, (char *)&small + sizeof(magic), sizeof(small) - sizeof(magic));
		len = be32_get(small.length);
	}
	told->flags = be16_get(small.flags);
	told->type = be16_get(small.type);
	told->cookie = be64_get(small.cookie);
	take_payload(c, told, buf, len);
}

void client_does(struct client *c, const struct ask *ask)
{
	struct told told;

	client_request(c, ask);
	client_told(c, &told, NULL, 0);
	assert_int_equal(told.cookie, ask->cookie);
	assert_int_equal(told.error, 0);
	assert_int_equal(told.flags, NBD_REPLY_FLAG_DONE);
}

void client_fails(struct client *c, const struct ask *ask, uint32_t error)
{
	struct told told;

	client_request(c, ask);
	client_told(c, &told, NULL, 0);
	assert_int_equal(told.cookie, ask->cookie);
	assert_int_equal(told.error, error);
	assert_int_equal(told.flags, NBD_REPLY_FLAG_DONE);
}

uint32_t client_data(struct client *c, uint64_t cookie, unsigned char *buf, uint64_t offset,
		     uint32_t length)
{
	unsigned char *part = malloc(length + 1);
	uint32_t error = 0, have = 0;
	struct told told;

	do {
		client_told(c, &told, part, length);
		assert_int_equal(told.cookie, cookie);
		error = told.error ? told.error : error;
		if (c->mode == 0 && !error) {
			told.offset = offset;
			told.len = length;
		}
		if (!told.len)
			continue;
		assert_in_range(told.offset, offset, offset + length - told.len);
		if (told.type == NBD_REPLY_TYPE_OFFSET_HOLE)
			memset(buf + (told.offset - offset), 0, told.len);
		else
			memcpy(buf + (told.offset - offset), part, told.len);
		have += told.len;
	} while (!(told.flags & NBD_REPLY_FLAG_DONE));
	free(part);
	if (!error)
		assert_int_equal(have, length);
	return error;
}

void client_read(struct client *c, unsigned char *buf, uint64_t offset, uint32_t length)
{
	client_request(c, &(struct ask){.type = NBD_CMD_READ, .offset = offset, .length = length});
	assert_int_equal(client_data(c, 0, buf, offset, length), 0);
}
