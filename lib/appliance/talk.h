/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's side of the conversation with an agent: frames, calls and their ends.
 *
 * Nothing that comes from the agent is believed: lengths are bounded before memory is touched,
 * frames come only when they can, and what breaks a rule ends the agent (talk_broken). The library
 * never waits for the agent to listen without listening itself; and it does not wait for ever: not
 * for a frame, and not, whatever frames there are, for the end of a call that it has cancelled.
 */
#ifndef IMGKIT_APPLIANCE_TALK_H
#define IMGKIT_APPLIANCE_TALK_H

#include "appliance/appliance.h"

struct appliance {
	int to, from; /* borrowed */
	struct appliance_end end;
	bool ended; /* end was used */
	struct job *job;
	uint32_t disks;

	uint32_t call;  /* number of the last call */
	bool cancelled; /* CANCEL was sent for it, at the time cancel_time */
	uint64_t cancel_time;
	bool over; /* its DONE or FAIL came */
	bool gone; /* the conversation is over */

	unsigned char *ibuf; /* owned; [ipos, iend) was read and not yet taken */
	size_t ipos, iend;
	unsigned char *obuf; /* owned: one frame */
	struct wire_out out; /* its payload */
};

struct talk_frame {
	uint16_t type;
	uint32_t call;
	const unsigned char *payload; /* until the next one is asked for */
	size_t len;
};

int talk_init(struct appliance *a, int to, int from, struct err *err);
void talk_free(struct appliance *a);
/* The first frame. */
int talk_hello(struct appliance *a, struct err *err);

/* The payload of the next frame, empty. */
struct wire_out *talk_args(struct appliance *a);
/* Sends what was put there as a call. -EPIPE; -EINVAL: it is too long. */
int talk_call(struct appliance *a, uint16_t op, struct err *err);

/* What the agent says to the call. 1: f is DATA; 0: f is DONE; negative: FAIL, or the end of all. */
int talk_reply(struct appliance *a, struct talk_frame *f, struct err *err);
/* Call and reply where no DATA comes. */
int talk_ask(struct appliance *a, uint16_t op, struct wire_in *result, struct err *err);
/* The result has no more in it. */
int talk_done(struct appliance *a, const struct wire_in *result, struct err *err);
/* Ends the call because of something on our side; r. */
int talk_stop(struct appliance *a, int r);
/* The agent does not keep to the protocol: its end. -EPROTO. */
int talk_broken(struct appliance *a, const char *fact, struct err *err);

/*
 * DATA of a call that takes it: talk_data gives room for `need` bytes, sending what is there when it
 * is too little. talk_end sends the rest and END, and waits for DONE. -ECANCELED.
 */
int talk_data(struct appliance *a, size_t need, struct wire_out **w, struct err *err);
int talk_end(struct appliance *a, struct err *err);

#endif
