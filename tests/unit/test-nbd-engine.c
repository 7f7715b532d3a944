// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * nbd-server: the engine. Requests and replies in all forms, sockets that are full, storage that is
 * slow or fails, flushes, ends of connections and of the server. The storage waits at gates (io
 * doubles), so what is under way at once is certain.
 *
 * threads
 * link: -lssl -lcrypto
 */
#include "nbdtalk.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGE (1u << 20)
#define SLOW  1000000000u /* nbd_export.cost: for a long time all requests are taken for slow */

static unsigned char want[4 * LARGE], got[4 * LARGE];

static struct ask ask_read(uint64_t cookie, uint64_t offset, uint64_t length)
{
	return (struct ask){
		.type = NBD_CMD_READ, .cookie = cookie, .offset = offset, .length = length};
}

static struct ask ask_write(uint64_t offset, uint64_t length)
{
	talk_fill(want, offset, length);
	return (struct ask){
		.type = NBD_CMD_WRITE, .offset = offset, .length = length, .data = want};
}

/* Whether the disk has what ask_write writes. */
static void check_disk(struct talk *t, unsigned disk, uint64_t offset, size_t length)
{
	struct err e;

	talk_fill(want, offset, length);
	ok(io_pread(t->mem[disk], got, length, offset, &e), &e);
	assert_memory_equal(got, want, length);
}

/* Data on a disk, so that reading it comes to the gate. */
static void lay_data(struct talk *t, unsigned disk, size_t length)
{
	struct err e;

	talk_fill(want, 0, length);
	ok(io_pwrite(t->mem[disk], want, length, 0, &e), &e);
}

/* ---- reading and writing ---- */

static void bytes_come_back_in_every_mode(void **state)
{
	struct talk t = {.disk = {{.size = 64 * MiB}}, .config.persistent = true};
	struct client c;
	struct ask a;

	(void)state;
	talk_start(&t);
	for (int mode = 0; mode <= 2; mode++) {
		client_open(&c, mode, "");
		assert_int_equal(c.size, 64 * MiB);
		a = ask_write(1000, 3 * LARGE);
		client_does(&c, &a);
		client_read(&c, got, 1000, 3 * LARGE);
		assert_memory_equal(got, want, 3 * LARGE);
		client_read(&c, got, 1001, 7);
		assert_memory_equal(got, want + 1, 7);
		a = (struct ask){.type = NBD_CMD_WRITE_ZEROES, .offset = 1000, .length = 2 * LARGE};
		client_does(&c, &a);
		memset(want, 0, 2 * LARGE);
		client_read(&c, got, 1000, 3 * LARGE);
		assert_memory_equal(got, want, 3 * LARGE);
		a = (struct ask){.type = NBD_CMD_FLUSH};
		client_does(&c, &a);
		a.type = NBD_CMD_DISC;
		client_request(&c, &a);
		client_ends(&c);
	}
	talk_stop(&t);
}

/* However a stream is cut, it means the same. */
static void payload_may_trickle(void **state)
{
	struct talk t = {.disk = {{.size = 8 * MiB}}, .config.persistent = true};
	struct nbd_request head = {
		.magic = be32_make(NBD_REQUEST_MAGIC),
		.type = be16_make(NBD_CMD_WRITE),
		.offset = be64_make(4000),
		.length = be32_make(3 * 65536),
	};
	unsigned char *stream = malloc(sizeof(head) + 3 * 65536);
	struct client c, other;
	struct told told;

	(void)state;
	talk_start(&t);
	client_open(&c, 0, "");
	client_open(&other, 0, "");
	memcpy(stream, &head, sizeof(head));
	talk_fill(stream + sizeof(head), 4000, 3 * 65536);
	for (size_t at = 0, n = 1; at < sizeof(head) + 3 * 65536; at += n, n = n * 3 % 5003) {
		n = min_u64(n, sizeof(head) + 3 * 65536 - at);
		client_send(&c, stream + at, n);
		/* The server has seen it, and found no more, before this comes back. */
		client_read(&other, got, 0, 1);
	}
	client_told(&c, &told, NULL, 0);
	assert_int_equal(told.error, 0);
	check_disk(&t, 0, 4000, 3 * 65536);
	free(stream);
	client_close(&c);
	client_close(&other);
	talk_stop(&t);
}

static void holes_are_told_as_holes(void **state)
{
	struct talk t = {.disk = {{.size = 4 * MiB}}, .config.persistent = true};
	struct ask read = ask_read(7, 0, 3 * 128 * KiB), data = ask_write(128 * KiB, 128 * KiB);
	unsigned holes = 0;
	struct client c;
	struct told told;

	(void)state;
	talk_start(&t);
	client_open(&c, 1, "");
	client_does(&c, &data);
	client_request(&c, &read);
	do {
		client_told(&c, &told, got, 0);
		assert_int_equal(told.len, 128 * KiB);
		holes += told.type == NBD_REPLY_TYPE_OFFSET_HOLE;
		assert_int_equal(told.type == NBD_REPLY_TYPE_OFFSET_DATA, told.offset == 128 * KiB);
	} while (!(told.flags & NBD_REPLY_FLAG_DONE));
	assert_int_equal(holes, 2);
	/* Not to fragment: one chunk of data. */
	read.flags = NBD_CMD_FLAG_DF;
	client_request(&c, &read);
	client_told(&c, &told, got, 0);
	assert_int_equal(told.type, NBD_REPLY_TYPE_OFFSET_DATA);
	assert_int_equal(told.len, 3 * 128 * KiB);
	client_told(&c, &told, NULL, 0);
	assert_int_equal(told.type, NBD_REPLY_TYPE_NONE);
	assert_int_equal(told.flags, NBD_REPLY_FLAG_DONE);
	client_close(&c);
	talk_stop(&t);
}

/* ---- sockets that are full ---- */

/* What read i asks for; of simple replies the length has to be known before the cookie is. */
static uint32_t read_length(int mode, unsigned i)
{
	return mode && i % 5 ? 256 * KiB : 700 * KiB;
}

/* The replies to n reads at i * 4096, in whatever order they come. */
static void take_reads(struct client *c, unsigned n)
{
	uint32_t have[100] = {0}, length;
	struct told told;

	for (unsigned done = 0; done < n; done += (told.flags & NBD_REPLY_FLAG_DONE) != 0) {
		client_told(c, &told, got, read_length(c->mode, 0));
		assert_int_equal(told.error, 0);
		assert_true(told.cookie < n);
		length = read_length(c->mode, (unsigned)told.cookie);
		if (c->mode == 0) {
			told.offset = told.cookie * 4096;
			told.len = length;
		}
		have[told.cookie] += told.len;
		talk_fill(want, told.offset, told.len);
		assert_memory_equal(got, want, told.len);
		if (told.flags & NBD_REPLY_FLAG_DONE)
			assert_int_equal(have[told.cookie], length);
	}
}

/* Nobody reads 100 replies of 256 KiB: others are served; later all is there, and right. */
static void unread_replies_wait(void **state)
{
	struct talk t = {.disk = {{.size = 8 * MiB}}, .config.persistent = true};
	struct client c[3], other;
	struct ask a = ask_write(0, 4 * LARGE);

	(void)state;
	talk_start(&t);
	client_open(&other, 2, "");
	client_does(&other, &a);
	for (int mode = 0; mode <= 2; mode++) {
		client_open(&c[mode], mode, "");
		for (unsigned i = 0; i < 100; i++) {
			a = ask_read(i, i * 4096, 256 * KiB);
			a.flags = mode && i % 3 == 0 ? NBD_CMD_FLAG_DF : 0;
			a.length = read_length(mode, i);
			client_request(&c[mode], &a);
		}
		client_read(&other, got, 0, 3);
	}
	for (int mode = 0; mode <= 2; mode++)
		take_reads(&c[mode], 100);
	for (int mode = 0; mode <= 2; mode++)
		client_close(&c[mode]);
	client_close(&other);
	talk_stop(&t);
}

/* A client may leave with replies unread. */
static void who_leaves_is_forgotten(void **state)
{
	struct talk t = {.disk = {{.size = 8 * MiB}}, .config.persistent = true};
	struct client c;
	struct ask a;

	(void)state;
	talk_start(&t);
	for (unsigned i = 0; i < 8; i++) {
		client_open(&c, (int)(i % 3), "");
		for (unsigned n = 0; n < 40; n++) {
			a = ask_read(n, 0, LARGE);
			client_request(&c, &a);
		}
		client_close(&c);
	}
	client_open(&c, 0, "");
	client_read(&c, got, 0, 10);
	client_close(&c);
	talk_stop(&t);
}

/* ---- failures ---- */

static void fail_next(struct fault_plan *plan, unsigned in)
{
	plan->code = EIO;
	plan->fail_at = atomic_load(&plan->calls) + in;
}

static void failures_are_answers(void **state)
{
	struct fault_plan plan = {0};
	struct talk t = {.disk = {{.size = 8 * MiB, .fault = &plan}}, .config.persistent = true};
	struct client c;
	struct ask a;

	(void)state;
	talk_start(&t);
	for (int mode = 0; mode <= 2; mode++) {
		client_open(&c, mode, "");
		a = ask_read(1, 0, 4096);
		fail_next(&plan, 1);
		client_fails(&c, &a, NBD_EIO);
		a = ask_write(0, LARGE);
		fail_next(&plan, 1);
		client_fails(&c, &a, NBD_EIO);
		a = ask_write(0, LARGE);
		a.flags = NBD_CMD_FLAG_FUA;
		client_does(&c, &a);
		client_read(&c, got, 0, 4096);
		client_close(&c);
	}
	client_open(&c, 1, "");
	a = (struct ask){.type = NBD_CMD_FLUSH};
	fail_next(&plan, 1);
	client_fails(&c, &a, NBD_EIO);
	/* Nobody knows what is lost: the image takes no writes any more, and says so. */
	client_fails(&c, &a, NBD_EIO);
	client_read(&c, got, 0, 4096);
	client_close(&c);
	server_stop(t.server);
	pthread_join(t.thread, NULL);
	assert_int_equal(t.result, -EIO);
	talk_close(&t);
}

/* Where the header of the data has gone already: padding and an error, or the end. */
static void late_failures_are_told_as_far_as_can_be(void **state)
{
	struct fault_plan plan = {0};
	struct talk t = {.disk = {{.size = 8 * MiB, .fault = &plan}}, .config.persistent = true};
	struct ask a = ask_write(0, 2 * LARGE);
	struct nbd_simple_reply head;
	struct client c;
	ssize_t have;

	(void)state;
	talk_start(&t);
	client_open(&c, 1, "");
	client_does(&c, &a);
	a = ask_read(3, 0, 2 * LARGE);
	a.flags = NBD_CMD_FLAG_DF;
	fail_next(&plan, 3);
	client_request(&c, &a);
	assert_int_equal(client_data(&c, 3, got, 0, 2 * LARGE), NBD_EIO);
	client_read(&c, got, 0, 4096);
	client_close(&c);

	client_open(&c, 0, "");
	a.flags = 0;
	fail_next(&plan, 3);
	client_request(&c, &a);
	client_recv(&c, &head, sizeof(head));
	assert_int_equal(be32_get(head.error), 0);
	have = recv(c.fd, got, 2 * LARGE, MSG_WAITALL);
	assert_in_range(have, 1, 2 * LARGE - 1);
	talk_fill(want, 0, (size_t)have);
	assert_memory_equal(got, want, (size_t)have);
	client_ends(&c);
	talk_stop(&t);
}

/* ---- slow storage ---- */

/* Requests of one connection are under way at once; another export is served meanwhile. */
static void slow_storage_is_used_in_parallel(void **state)
{
	struct gate gate = GATE_INIT;
	struct talk t = {.disk = {{.size = 8 * MiB, .gate = &gate}, {.size = MiB}},
			 .config = {.persistent = true, .threads = 5}};
	struct client c, other;
	struct told told;
	unsigned seen = 0;
	struct ask a;

	(void)state;
	talk_start(&t);
	lay_data(&t, 0, 2 * LARGE);
	client_open(&c, 1, "");
	client_open(&other, 0, "b");
	t.export[0] -> cost = SLOW;
	gate_shut(&gate, GATE_READ | GATE_WRITE);
	for (unsigned i = 0; i < 4; i++) {
		a = i % 2 ? ask_read(i, i * 65536, 4096) : ask_write(i * 65536, 300000);
		a.cookie = i;
		client_request(&c, &a);
		/* A worker each; the fifth is there for others. */
		gate_await(&gate, i + 1);
		client_read(&other, got, 0, 5);
	}
	gate_shut(&gate, 0);
	for (unsigned i = 0; i < 4; i++) {
		client_told(&c, &told, got, 0);
		assert_int_equal(told.error, 0);
		seen |= 1u << told.cookie;
	}
	assert_int_equal(seen, 15);
	check_disk(&t, 0, 2 * 65536, 300000);
	client_close(&c);
	client_close(&other);
	talk_stop(&t);
}

/* More than there may be under way at once, and more than there are workers. */
static void many_slow_requests_are_all_answered(void **state)
{
	struct gate gate = GATE_INIT;
	struct talk t = {.disk = {{.size = 8 * MiB, .gate = &gate}}, .config.persistent = true};
	enum { N = 400 };
	bool seen[N] = {false};
	struct client c;
	struct told told;
	struct ask a;

	(void)state;
	talk_start(&t);
	lay_data(&t, 0, 2 * LARGE);
	client_open(&c, 2, "");
	t.export[0] -> cost = SLOW;
	gate_shut(&gate, GATE_READ | GATE_WRITE);
	for (unsigned i = 0; i < N; i++) {
		if (i == N / 2) {
			gate_await(&gate, 1);
			gate_shut(&gate, 0);
		}
		a = i % 4 ? ask_read(i, i * 512, 512) : ask_write(i * 512, 512);
		a.cookie = i;
		client_request(&c, &a);
	}
	for (unsigned i = 0; i < N; i++) {
		client_told(&c, &told, got, 0);
		assert_int_equal(told.error, 0);
		assert_in_range(told.cookie, 0, N - 1);
		assert_false(seen[told.cookie]);
		seen[told.cookie] = true;
	}
	client_close(&c);
	talk_stop(&t);
}

static void a_write_is_done_though_the_client_leaves(void **state)
{
	struct gate gate = GATE_INIT;
	struct talk t = {.disk = {{.size = 8 * MiB, .gate = &gate}}, .config.persistent = true};
	struct ask disc = {.type = NBD_CMD_DISC}, a = ask_write(4096, 100000);
	struct client c;

	(void)state;
	talk_start(&t);
	for (int polite = 0; polite <= 1; polite++) {
		client_open(&c, 1, "");
		t.export[0] -> cost = SLOW;
		gate_shut(&gate, GATE_WRITE);
		a = ask_write(4096 + (uint64_t)polite * MiB, 100000);
		client_request(&c, &a);
		if (polite)
			client_request(&c, &disc);
		gate_await(&gate, 1);
		if (!polite)
			client_close(&c);
		gate_shut(&gate, 0);
		if (polite) {
			struct told told;

			client_told(&c, &told, NULL, 0);
			assert_int_equal(told.error, 0);
			client_ends(&c);
		}
	}
	server_stop(t.server);
	pthread_join(t.thread, NULL);
	check_disk(&t, 0, 4096, 100000);
	check_disk(&t, 0, 4096 + MiB, 100000);
	talk_close(&t);
}

/* ---- flushes, long requests ---- */

static void flushes_that_wait_become_one(void **state)
{
	struct gate gate = GATE_INIT;
	struct talk t = {.disk = {{.size = 8 * MiB, .gate = &gate}},
			 .config = {.persistent = true, .threads = 4}};
	struct ask flush = {.type = NBD_CMD_FLUSH}, a = ask_write(0, 4096);
	struct client c[6], other;
	struct told told;
	unsigned before;

	(void)state;
	talk_start(&t);
	lay_data(&t, 0, 4096);
	client_open(&other, 0, "");
	for (unsigned i = 0; i < ARRAY_LEN(c); i++)
		client_open(&c[i], 1, "");
	t.export[0] -> cost = SLOW;
	gate_shut(&gate, GATE_FLUSH);
	before = gate_passed(&gate);
	client_request(&c[0], &flush);
	gate_await(&gate, 1);
	a.flags = NBD_CMD_FLAG_FUA;
	client_request(&c[1], &a);
	for (unsigned i = 2; i < ARRAY_LEN(c); i++)
		client_request(&c[i], &flush);
	/* Workers are left for reading; when these reads are done, the requests above are waiting. */
	for (unsigned i = 1; i < ARRAY_LEN(c); i++)
		client_read(&c[i], got, 0, 1);
	gate_shut(&gate, 0);
	for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
		client_told(&c[i], &told, NULL, 0);
		assert_int_equal(told.error, 0);
		client_close(&c[i]);
	}
	/* One write, five reads, and two flushes for six. */
	assert_int_equal(gate_passed(&gate) - before, 1 + 5 + 2);
	client_close(&other);
	talk_stop(&t);
}

/* Long ranges are done in parts, between which others have their turn. */
static void long_zeroing_lets_others_pass(void **state)
{
	struct gate gate = GATE_INIT;
	struct talk t = {.disk = {{.size = 6 * GiB, .gate = &gate}, {.size = MiB}},
			 .config = {.persistent = true, .threads = 1}};
	struct ask zero = {.type = NBD_CMD_WRITE_ZEROES, .cookie = 9, .length = 6 * GiB};
	struct client c, other;
	struct told told;

	(void)state;
	talk_start(&t);
	client_open(&c, 2, "");
	client_open(&other, 0, "b");
	client_request(&c, &zero);
	client_read(&other, got, 0, 5);
	client_told(&c, &told, NULL, 0);
	assert_int_equal(told.cookie, 9);
	assert_int_equal(told.error, 0);
	assert_in_range(gate_passed(&gate), 6, 100);
	client_close(&c);
	client_close(&other);
	talk_stop(&t);
}

/* Many requests that are not long: the worker that has them does not do all of them first. */
static void many_zeroings_let_others_pass(void **state)
{
	struct gate gate = GATE_INIT, read = GATE_INIT;
	struct talk t = {.disk = {{.size = 128 * MiB, .gate = &gate}, {.size = MiB, .gate = &read}},
			 .config = {.persistent = true, .threads = 1}};
	struct ask zero = {.type = NBD_CMD_WRITE_ZEROES, .length = 4 * MiB},
		   one = ask_read(7, 0, 5);
	struct client c, other;
	struct told told;
	unsigned before;

	(void)state;
	talk_start(&t);
	lay_data(&t, 1, 4096);
	client_open(&c, 1, "");
	client_open(&other, 0, "b");
	before = gate_passed(&gate);
	gate_shut(&gate, GATE_WRITE);
	gate_shut(&read, GATE_READ);
	for (unsigned i = 0; i < 20; i++)
		client_request(&c, &zero);
	gate_await(&gate, 1);
	client_request(&other, &one);
	gate_shut(&gate, 0);
	gate_await(&read, 1); /* the only worker is there */
	assert_in_range(gate_passed(&gate) - before, 1, 5);
	gate_shut(&read, 0);
	assert_int_equal(client_data(&other, 7, got, 0, 5), 0);
	for (unsigned i = 0; i < 20; i++) {
		client_told(&c, &told, NULL, 0);
		assert_int_equal(told.error, 0);
	}
	client_close(&c);
	client_close(&other);
	talk_stop(&t);
}

/* ---- ends ---- */

static void stopping_finishes_what_was_received(void **state)
{
	struct gate gate = GATE_INIT;
	struct talk t = {.disk = {{.size = 8 * MiB, .gate = &gate}}, .config.persistent = true};
	struct client busy, idle, silent;
	struct ask a = ask_write(0, 4096);
	struct told told;

	(void)state;
	talk_start(&t);
	client_open(&busy, 1, "");
	client_open(&idle, 1, "");
	client_connect(&silent);
	t.export[0] -> cost = SLOW;
	gate_shut(&gate, GATE_WRITE);
	client_request(&busy, &a);
	gate_await(&gate, 1);
	server_stop(t.server);
	client_ends(&idle);
	client_ends(&silent);
	gate_shut(&gate, 0);
	client_told(&busy, &told, NULL, 0);
	assert_int_equal(told.error, 0);
	client_ends(&busy);
	talk_wait(&t);
}

static void time_limits_end_connections(void **state)
{
	struct talk t = {.disk = {{.size = 8 * MiB}},
			 .config = {.persistent = true, .handshake_ms = 50}};
	struct client c;

	(void)state;
	talk_start(&t);
	client_connect(&c);
	client_ends(&c);
	talk_stop(&t);

	t = (struct talk){.disk = {{.size = 8 * MiB}},
			  .config = {.persistent = true, .idle_ms = 50}};
	talk_start(&t);
	client_open(&c, 0, "");
	client_read(&c, got, 0, 10);
	client_ends(&c);
	talk_stop(&t);
}

static void the_last_client_ends_the_server(void **state)
{
	struct talk t = {.disk = {{.size = 8 * MiB}}};
	struct client c, d;

	(void)state;
	talk_start(&t);
	client_connect(&c); /* one that never gets as far as requests does not count */
	client_asks(&c, NBD_OPT_ABORT);
	client_ends(&c);
	client_open(&c, 0, "");
	client_open(&d, 1, "");
	client_close(&c);
	client_read(&d, got, 0, 10);
	client_close(&d);
	talk_wait(&t);
}

static void clients_are_limited(void **state)
{
	struct talk t = {.disk = {{.size = MiB, .args.max_clients = 1}, {.size = MiB}},
			 .config = {.persistent = true, .max_clients = 3}};
	struct client c, d, f, g;

	(void)state;
	talk_start(&t);
	client_open(&c, 0, "");
	client_connect(&d);
	assert_int_equal(client_go(&d, NBD_OPT_GO, ""), NBD_REP_ERR_POLICY);
	assert_int_equal(client_go(&d, NBD_OPT_GO, "b"), NBD_REP_ACK);
	client_read(&d, got, 0, 10);
	client_open(&f, 0, "b");
	/* The fourth waits until one leaves. */
	client_close(&f);
	client_open(&g, 0, "b");
	client_close(&g);
	client_close(&c);
	client_close(&d);
	talk_stop(&t);
}

static void limits_on_bytes_lose_none(void **state)
{
	struct talk t = {
		.disk = {{.size = 8 * MiB}},
		.config = {.persistent = true, .read_rate = 40 * MiB, .write_rate = 40 * MiB}};
	struct client c;
	struct ask a;

	(void)state;
	talk_start(&t);
	client_open(&c, 1, "");
	for (unsigned i = 0; i < 12; i++) {
		a = ask_write(i * 512 * KiB, 512 * KiB);
		client_does(&c, &a);
	}
	for (unsigned i = 0; i < 12; i++) {
		a = ask_read(i, i * 512 * KiB, 512 * KiB);
		client_request(&c, &a);
	}
	for (unsigned i = 0; i < 12; i++) {
		assert_int_equal(client_data(&c, i, got, i * 512 * KiB, 512 * KiB), 0);
		talk_fill(want, i * 512 * KiB, 512 * KiB);
		assert_memory_equal(got, want, 512 * KiB);
	}
	client_close(&c);
	talk_stop(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_come_back_in_every_mode),
		cmocka_unit_test(payload_may_trickle),
		cmocka_unit_test(holes_are_told_as_holes),
		cmocka_unit_test(unread_replies_wait),
		cmocka_unit_test(who_leaves_is_forgotten),
		cmocka_unit_test(failures_are_answers),
		cmocka_unit_test(late_failures_are_told_as_far_as_can_be),
		cmocka_unit_test(slow_storage_is_used_in_parallel),
		cmocka_unit_test(many_slow_requests_are_all_answered),
		cmocka_unit_test(a_write_is_done_though_the_client_leaves),
		cmocka_unit_test(flushes_that_wait_become_one),
		cmocka_unit_test(long_zeroing_lets_others_pass),
		cmocka_unit_test(many_zeroings_let_others_pass),
		cmocka_unit_test(stopping_finishes_what_was_received),
		cmocka_unit_test(time_limits_end_connections),
		cmocka_unit_test(the_last_client_ends_the_server),
		cmocka_unit_test(clients_are_limited),
		cmocka_unit_test(limits_on_bytes_lose_none),
	};

	return cmocka_run_group_tests_name("nbd-engine", tests, NULL, NULL);
}
