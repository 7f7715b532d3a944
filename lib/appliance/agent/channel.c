/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames in and out; see channel.h.
 *
 * Invariants: ibuf holds a whole frame whenever one can come, since it is as large as the largest.
 * obuf has room behind a full DATA frame for the small ones that end a call.
 */
#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IBUF_SIZE    (FRAME_HEADER + FRAME_PAYLOAD_MAX)
#define OBUF_SIZE    (2 * FRAME_HEADER + FRAME_PAYLOAD_MAX + 1024)
#define PROGRESS_GAP 512 /* steps of work between two looks at the stream */

int channel_init(struct channel *ch, int in, int out, struct err *err)
{
	*ch = (struct channel){.in = in, .out = out};
	ch->ibuf = malloc(IBUF_SIZE);
	ch->obuf = malloc(OBUF_SIZE);
	if (!ch->ibuf || !ch->obuf) {
		channel_free(ch);
		return err_nomem(err, IBUF_SIZE + OBUF_SIZE, "frames");
	}
	return 0;
}

void channel_free(struct channel *ch)
{
	free(ch->ibuf);
	free(ch->obuf);
	ch->ibuf = ch->obuf = NULL;
}

static int broken(struct channel *ch, int code, const char *fact, struct err *err)
{
	ch->broken = true;
	return err_set(err, code, "%s", fact);
}

/* ---- in ---- */

/* Reads what is there, waiting for at least a byte. 0: the end. */
static int fill(struct channel *ch, struct err *err)
{
	ssize_t n;

	if (ch->ipos == ch->iend)
		ch->ipos = ch->iend = 0;
	if (ch->iend == IBUF_SIZE) {
		memmove(ch->ibuf, ch->ibuf + ch->ipos, ch->iend - ch->ipos);
		ch->iend -= ch->ipos;
		ch->ipos = 0;
	}
	do
		n = read(ch->in, ch->ibuf + ch->iend, IBUF_SIZE - ch->iend);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return broken(ch, EIO, "the requests cannot be read", err);
	ch->iend += (size_t)n;
	return n > 0;
}

/* What the buffer begins with. 1: f is whole; 0: more must be read; -EPROTO. */
static int parse(struct channel *ch, struct frame *f, struct err *err)
{
	struct frame_header h;
	size_t have = ch->iend - ch->ipos, len;

	if (have < sizeof(h))
		return 0;
	memcpy(&h, ch->ibuf + ch->ipos, sizeof(h));
	len = le32_get(h.length);
	*f = (struct frame){.type = le16_get(h.type), .op = le16_get(h.op)};
	f->call = le32_get(h.call);
	if (len > FRAME_PAYLOAD_MAX || le32_get(h.zero) || (f->op && f->type != FRAME_CALL) ||
	    f->type < FRAME_CALL || f->type > FRAME_CANCEL)
		return broken(ch, EPROTO, "a request is malformed", err);
	if (f->type >= FRAME_END && len)
		return broken(ch, EPROTO, "END and CANCEL have no payload", err);
	if (have - sizeof(h) < len)
		return 0;
	f->payload = ch->ibuf + ch->ipos + sizeof(h);
	f->len = len;
	ch->ipos += sizeof(h) + len;
	return 1;
}

int channel_next(struct channel *ch, struct frame *f, struct err *err)
{
	int r;

	while (!(r = parse(ch, f, err))) {
		/* The rest of a frame must fit behind what is there of it. */
		if (ch->ipos) {
			memmove(ch->ibuf, ch->ibuf + ch->ipos, ch->iend - ch->ipos);
			ch->iend -= ch->ipos;
			ch->ipos = 0;
		}
		r = fill(ch, err);
		if (r < 0)
			return r;
		if (!r) {
			if (ch->iend)
				return broken(ch, EPROTO, "the requests end inside a frame", err);
			ch->broken = true;
			return 0;
		}
	}
	return r;
}

int channel_check(struct channel *ch, struct err *err)
{
	struct pollfd p = {.fd = ch->in, .events = POLLIN};
	struct frame f;
	int r;

	while (!ch->cancelled && !ch->broken) {
		r = parse(ch, &f, err);
		if (r > 0 && (f.type != FRAME_CANCEL || f.call != ch->call))
			return broken(ch, EPROTO, "a request while another one is served", err);
		if (r > 0) {
			ch->cancelled = ch->ended = true;
			break;
		}
		if (r < 0)
			return r;
		if (poll(&p, 1, 0) <= 0)
			return 0;
		r = fill(ch, err);
		if (r < 0)
			return r;
		if (!r)
			return broken(ch, EPIPE, "the library is gone", err);
	}
	return ch->broken ? -EPIPE : err_set(err, ECANCELED, "cancelled");
}

int channel_take(struct channel *ch, struct frame *f, struct err *err)
{
	int r;

	if (ch->cancelled)
		return err_set(err, ECANCELED, "cancelled");
	if (ch->ended)
		return 0;
	r = channel_next(ch, f, err);
	if (r < 0)
		return r;
	if (!r)
		return err_set(err, EPIPE, "the library is gone");
	if (f->type == FRAME_CALL || f->call != ch->call)
		return broken(ch, EPROTO, "a request while another one is served", err);
	if (f->type == FRAME_DATA)
		return 1;
	ch->ended = true;
	ch->cancelled = f->type == FRAME_CANCEL;
	return ch->cancelled ? err_set(err, ECANCELED, "cancelled") : 0;
}

int channel_drop(struct channel *ch, struct err *err)
{
	struct frame f;
	int r = 1;

	while (!ch->ended && !ch->broken && r > 0)
		r = channel_take(ch, &f, err);
	/* That it was cancelled was told already. */
	return ch->broken ? r : 0;
}

/* ---- out ---- */

static void header(unsigned char *at, uint16_t type, uint32_t call, size_t len)
{
	struct frame_header h = {.length = le32_make((uint32_t)len),
				 .type = le16_make(type),
				 .call = le32_make(call)};

	memcpy(at, &h, sizeof(h));
}

/* The open DATA frame, if it has anything, becomes a complete one. */
static void close_data(struct channel *ch)
{
	if (ch->data.len) {
		header(ch->obuf + ch->oend, FRAME_DATA, ch->call, ch->data.len);
		ch->oend += FRAME_HEADER + ch->data.len;
	}
	ch->data = (struct wire_out){0};
}

int channel_flush(struct channel *ch, struct err *err)
{
	close_data(ch);
	for (size_t done = 0; done < ch->oend && !ch->broken;) {
		ssize_t n = write(ch->out, ch->obuf + done, ch->oend - done);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return broken(ch, EPIPE, "the library is gone", err);
	}
	ch->oend = 0;
	return ch->broken ? -EPIPE : 0;
}

int channel_send(struct channel *ch, uint16_t type, const void *payload, size_t len,
		 struct err *err)
{
	int r;

	close_data(ch);
	if (len > OBUF_SIZE - FRAME_HEADER - ch->oend) {
		r = channel_flush(ch, err);
		if (r < 0)
			return r;
	}
	header(ch->obuf + ch->oend, type, ch->call, len);
	if (len)
		memcpy(ch->obuf + ch->oend + FRAME_HEADER, payload, len);
	ch->oend += FRAME_HEADER + len;
	return 0;
}

size_t channel_room(const struct channel *ch)
{
	return ch->data.cap - ch->data.len;
}

int channel_data(struct channel *ch, size_t need, struct wire_out **w, struct err *err)
{
	int r;

	if (!ch->data.cap || need > channel_room(ch)) {
		bool first = !ch->data.cap && !ch->oend;

		r = first ? 0 : channel_flush(ch, err);
		/* The first one comes right after the call: nobody had time to cancel. */
		if (r == 0 && !first)
			r = channel_check(ch, err);
		if (r < 0)
			return r;
		ch->data = wire_out(ch->obuf + ch->oend + FRAME_HEADER, FRAME_PAYLOAD_MAX);
	}
	*w = &ch->data;
	return 0;
}

int channel_progress(struct channel *ch, uint64_t done, uint64_t total, struct err *err)
{
	unsigned char buf[16];
	struct wire_out w = wire_out(buf, sizeof(buf));
	int r;

	if (done % PROGRESS_GAP)
		return 0;
	put_u64(&w, done);
	put_u64(&w, total);
	r = channel_send(ch, FRAME_PROGRESS, buf, sizeof(buf), err);
	if (r == 0)
		r = channel_flush(ch, err);
	return r == 0 ? channel_check(ch, err) : r;
}
