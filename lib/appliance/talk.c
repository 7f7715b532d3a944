/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames and calls; see talk.h. */
#include "appliance/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "appliance/check.h"
#include "base/bytes.h"

#define BUF_SIZE   (FRAME_HEADER + FRAME_PAYLOAD_MAX)
#define JOB_PERIOD 100 /* ms between two looks at whether the job was cancelled */

int talk_init(struct appliance *a, int to, int from, struct err *err)
{
	const int fds[] = {to, from};

	*a = (struct appliance){.to = to, .from = from, .over = true};
	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		int flags = fcntl(fds[i], F_GETFL);

		if (flags < 0 || fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0)
			return err_sys(err, errno, "the agent's channel");
	}
	a->ibuf = malloc(BUF_SIZE);
	a->obuf = malloc(BUF_SIZE);
	return a->ibuf && a->obuf ? 0 : err_nomem(err, 2 * (uint64_t)BUF_SIZE, "frames");
}

void talk_free(struct appliance *a)
{
	free(a->ibuf);
	free(a->obuf);
}

static void kill_agent(struct appliance *a)
{
	a->gone = a->over = true;
	if (!a->ended)
		a->end.kill(a->end.arg);
	a->ended = true;
}

int talk_broken(struct appliance *a, const char *fact, struct err *err)
{
	kill_agent(a);
	return err_set(err, EPROTO, "the agent breaks the protocol: %s", fact);
}

/* The agent closed its end: its cage may know why. */
static int hung_up(struct appliance *a, struct err *err)
{
	int r = 0;

	a->gone = a->over = true;
	if (!a->ended)
		r = a->end.finish(a->end.arg, err);
	a->ended = true;
	return r < 0 ? r : err_set(err, EPIPE, "the agent ended in the middle of its work");
}

/* ---- patience ---- */

/* ms */
static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ms that are left for something that began then. */
static int time_left(const struct appliance *a, uint64_t since)
{
	uint64_t took = now() - since;

	return took < a->end.patience ? (int)min_u64(a->end.patience - took, INT_MAX) : 0;
}

static int tired(struct appliance *a, struct err *err)
{
	kill_agent(a);
	return err_set(err, ETIMEDOUT, "the agent did not answer for %llu s, and was killed",
		       (unsigned long long)(a->end.patience / 1000));
}

/* ---- bytes ---- */

/* Writing to an agent that is gone is an error, and no signal. */
static ssize_t put_some(int fd, const void *buf, size_t n)
{
	ssize_t r = send(fd, buf, n, MSG_NOSIGNAL);

	return r < 0 && errno == ENOTSOCK ? write(fd, buf, n) : r;
}

/* Reads what is there; 0 also when nothing is. */
static int fill(struct appliance *a, struct err *err)
{
	ssize_t n;

	if (a->ipos) {
		memmove(a->ibuf, a->ibuf + a->ipos, a->iend - a->ipos);
		a->iend -= a->ipos;
		a->ipos = 0;
	}
	if (a->iend == BUF_SIZE)
		return talk_broken(a, "it talks where it should listen", err);
	n = read(a->from, a->ibuf + a->iend, BUF_SIZE - a->iend);
	if (n > 0)
		a->iend += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		return hung_up(a, err);
	return 0;
}

static int send_cancel(struct appliance *a, struct err *err);

/*
 * Waits until bytes can be read, or, if asked for, written, of something that began at `since`. Sees
 * that the job is cancelled.
 */
static int wait_for_agent(struct appliance *a, bool writing, uint64_t since, struct err *err)
{
	struct pollfd p[] = {{.fd = a->from, .events = POLLIN},
			     {.fd = writing ? a->to : -1, .events = POLLOUT}};
	int left = time_left(a, since), n;

	/* In the middle of a frame no other can be sent. */
	if (job_cancelled(a->job) && !a->cancelled && !a->over && !writing) {
		int r = send_cancel(a, err);

		if (r < 0)
			return r;
	}
	n = poll(p, ARRAY_LEN(p), a->job && !a->cancelled && left > JOB_PERIOD ? JOB_PERIOD : left);
	if (n < 0 && errno != EINTR)
		return err_sys(err, errno, "poll");
	if (n == 0 && !left)
		return tired(a, err);
	return p[0].revents ? fill(a, err) : 0;
}

static int send_all(struct appliance *a, const void *buf, size_t n, struct err *err)
{
	uint64_t since = now();
	const char *at = buf;

	while (n) {
		ssize_t did = put_some(a->to, at, n);

		if (did > 0) {
			at += did;
			n -= (size_t)did;
		} else if (did < 0 && errno == EAGAIN) {
			int r = wait_for_agent(a, true, since, err);

			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return hung_up(a, err);
		}
	}
	return 0;
}

/* ---- frames ---- */

static int send_frame(struct appliance *a, uint16_t type, uint16_t op, struct err *err)
{
	struct frame_header h = {.length = le32_make((uint32_t)a->out.len),
				 .type = le16_make(type),
				 .op = le16_make(op),
				 .call = le32_make(a->call)};

	if (a->gone)
		return err_set(err, EPIPE, "the agent is gone");
	memcpy(a->obuf, &h, sizeof(h));
	return send_all(a, a->obuf, sizeof(h) + a->out.len, err);
}

static int send_empty(struct appliance *a, uint16_t type, struct err *err)
{
	struct frame_header h = {.type = le16_make(type), .call = le32_make(a->call)};

	return send_all(a, &h, sizeof(h), err);
}

static int send_cancel(struct appliance *a, struct err *err)
{
	a->cancelled = true;
	a->cancel_time = now();
	return send_empty(a, FRAME_CANCEL, err);
}

/* What was read begins with a frame that is whole: 1. */
static int parse(struct appliance *a, struct talk_frame *f, struct err *err)
{
	size_t have = a->iend - a->ipos, len;
	struct frame_header h;

	if (have < sizeof(h))
		return 0;
	memcpy(&h, a->ibuf + a->ipos, sizeof(h));
	len = le32_get(h.length);
	*f = (struct talk_frame){.type = le16_get(h.type), .call = le32_get(h.call)};
	if (len > FRAME_PAYLOAD_MAX || le16_get(h.op) || le32_get(h.zero))
		return talk_broken(a, "a frame is malformed", err);
	if (have - sizeof(h) < len)
		return 0;
	f->payload = a->ibuf + a->ipos + sizeof(h);
	f->len = len;
	a->ipos += sizeof(h) + len;
	return 1;
}

static int next_frame(struct appliance *a, struct talk_frame *f, struct err *err)
{
	uint64_t since = a->cancelled ? a->cancel_time : now();
	int r;

	if (a->cancelled && !time_left(a, since))
		return tired(a, err);
	while (!(r = parse(a, f, err))) {
		r = wait_for_agent(a, false, since, err);
		if (r < 0)
			return r;
	}
	return r;
}

int talk_hello(struct appliance *a, struct err *err)
{
	struct talk_frame f;
	struct wire_in in;
	uint32_t version;
	int r = next_frame(a, &f, err);

	if (r < 0)
		return r;
	in = wire_in(f.payload, f.len);
	version = get_u32(&in);
	a->disks = get_u32(&in);
	if (f.type != FRAME_HELLO || f.call || !wire_done(&in) || a->disks > AGENT_DISKS_MAX)
		return talk_broken(a, "its first word is no hello", err);
	if (version != AGENT_PROTOCOL)
		return talk_broken(a, "it speaks another version of it", err);
	return 0;
}

/* ---- calls ---- */

struct wire_out *talk_args(struct appliance *a)
{
	a->out = wire_out(a->obuf + FRAME_HEADER, FRAME_PAYLOAD_MAX);
	return &a->out;
}

int talk_call(struct appliance *a, uint16_t op, struct err *err)
{
	if (a->gone)
		return err_set(err, EPIPE, "the agent is gone");
	if (a->out.full)
		return err_set(err, EINVAL, "the arguments of a call are too long");
	a->call = a->call == UINT32_MAX ? 1 : a->call + 1;
	a->cancelled = a->over = false;
	return send_frame(a, FRAME_CALL, op, err);
}

static int take_fail(struct appliance *a, const struct talk_frame *f, struct err *err)
{
	struct wire_in in = wire_in(f->payload, f->len);
	char text[sizeof(err->msg)];
	uint32_t code = get_u32(&in);

	get_text(&in, text, sizeof(text));
	if (!wire_done(&in) || !code || code > 4095)
		return talk_broken(a, "an error is malformed", err);
	check_plain(text);
	a->over = true;
	return err_set(err, (int)code, "%s", text);
}

static int take_progress(struct appliance *a, const struct talk_frame *f, struct err *err)
{
	struct wire_in in = wire_in(f->payload, f->len);
	uint64_t done = get_u64(&in), total = get_u64(&in);

	if (!wire_done(&in))
		return talk_broken(a, "its progress is malformed", err);
	if (a->job) {
		atomic_store_explicit(&a->job->done, done, memory_order_relaxed);
		job_total(a->job, total);
	}
	return 0;
}

/* A frame of the call: 1 DATA, 0 DONE, negative; PROGRESS is 2. */
static int take_frame(struct appliance *a, const struct talk_frame *f, struct err *err)
{
	int r;

	if (f->call != a->call)
		return talk_broken(a, "it answers another call", err);
	switch (f->type) {
	case FRAME_DATA:
		return 1;
	case FRAME_DONE:
		a->over = true;
		return 0;
	case FRAME_FAIL:
		return take_fail(a, f, err);
	case FRAME_PROGRESS:
		r = take_progress(a, f, err);
		return r < 0 ? r : 2;
	default:
		return talk_broken(a, "a frame is of no type that it may send", err);
	}
}

int talk_reply(struct appliance *a, struct talk_frame *f, struct err *err)
{
	bool dropped = false;
	int r;

	do {
		r = next_frame(a, f, err);
		if (r > 0)
			r = take_frame(a, f, err);
		dropped |= r == 1 && a->cancelled;
	} while (r == 2 || (r == 1 && a->cancelled));
	/* The end came before the agent heard that it was cancelled: but not all was taken. */
	return r == 0 && dropped ? err_set(err, ECANCELED, "cancelled") : r;
}

int talk_done(struct appliance *a, const struct wire_in *result, struct err *err)
{
	return wire_done(result) ? 0 : talk_broken(a, "a result is malformed", err);
}

int talk_ask(struct appliance *a, uint16_t op, struct wire_in *result, struct err *err)
{
	struct talk_frame f;
	int r = talk_call(a, op, err);

	if (r == 0)
		r = talk_reply(a, &f, err);
	if (r > 0)
		return talk_broken(a, "data where none was asked for", err);
	if (r == 0)
		*result = wire_in(f.payload, f.len);
	return r;
}

int talk_stop(struct appliance *a, int r)
{
	struct talk_frame f;
	int s = 0;

	if (!a->over && !a->cancelled)
		s = send_cancel(a, NULL);
	while (!a->over && s >= 0)
		s = talk_reply(a, &f, NULL);
	return r;
}

/* ---- data to the agent ---- */

/* Between two frames: takes what the agent said meanwhile. */
static int listen_in(struct appliance *a, struct err *err)
{
	struct pollfd p = {.fd = a->from, .events = POLLIN};
	struct talk_frame f;
	int r;

	if (job_cancelled(a->job))
		return err_set(err, ECANCELED, "cancelled");
	if (poll(&p, 1, 0) > 0) {
		r = fill(a, err);
		if (r < 0)
			return r;
	}
	while ((r = parse(a, &f, err)) > 0) {
		r = take_frame(a, &f, err);
		if (r == 0 || r == 1)
			return talk_broken(a, "an answer before it has all that it needs", err);
		if (r < 0)
			return r;
	}
	return r;
}

/* The call failed while its DATA was sent: END is still owed. */
static int give_up(struct appliance *a, int r)
{
	if (a->over && !a->gone)
		send_empty(a, FRAME_END, NULL);
	return a->over ? r : talk_stop(a, r);
}

static int send_data(struct appliance *a, struct err *err)
{
	int r = listen_in(a, err);

	if (r == 0)
		r = send_frame(a, FRAME_DATA, 0, err);
	talk_args(a);
	return r < 0 ? give_up(a, r) : 0;
}

int talk_data(struct appliance *a, size_t need, struct wire_out **w, struct err *err)
{
	int r = 0;

	if (a->out.cap - a->out.len < need)
		r = send_data(a, err);
	*w = &a->out;
	return r;
}

int talk_end(struct appliance *a, struct err *err)
{
	struct talk_frame f;
	int r = a->out.len ? send_data(a, err) : 0;

	if (r < 0)
		return r;
	r = send_empty(a, FRAME_END, err);
	if (r == 0)
		r = talk_reply(a, &f, err);
	if (r > 0)
		return talk_broken(a, "data where none was asked for", err);
	if (r < 0)
		return r;
	if (f.len)
		return talk_broken(a, "a result is malformed", err);
	return 0;
}
