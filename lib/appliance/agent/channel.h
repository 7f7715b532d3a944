/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's two byte streams as frames of protocol.h. A system call is dear in the cage: frames
 * are gathered in a buffer and go out when it is full or the call ends, and payload is made in
 * place.
 */
#ifndef IMGKIT_AGENT_CHANNEL_H
#define IMGKIT_AGENT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "appliance/protocol.h"
#include "appliance/wire.h"
#include "base/err.h"

struct channel {
	int in, out;
	uint32_t call;  /* number of the call that is being served */
	bool cancelled; /* its CANCEL came */
	bool ended;     /* its END or CANCEL came, after which it has no more DATA */
	bool broken;    /* the library does not keep to the protocol, or is gone */

	unsigned char *ibuf; /* owned; [ipos, iend) was read and not yet taken */
	size_t ipos, iend;
	unsigned char *obuf; /* owned; complete frames up to oend, then the open DATA frame */
	size_t oend;
	struct wire_out data; /* payload of the open DATA frame */
};

struct frame {
	uint16_t type, op;
	uint32_t call;
	const unsigned char *payload; /* valid until the next channel_next */
	size_t len;
};

int channel_init(struct channel *ch, int in, int out, struct err *err);
void channel_free(struct channel *ch);

/* The next frame. 0: the stream ended, between two frames; 1: there is one; -EPROTO, -EIO. */
int channel_next(struct channel *ch, struct frame *f, struct err *err);

/* Puts a frame of the current call behind the others (and behind the open DATA frame). */
int channel_send(struct channel *ch, uint16_t type, const void *payload, size_t len,
		 struct err *err);
/* Everything goes out. */
int channel_flush(struct channel *ch, struct err *err);

/*
 * The open DATA frame with room for `need` more bytes (<= FRAME_PAYLOAD_MAX); what stands in it
 * goes out first when there is none. The caller puts all it asked for, or less. -ECANCELED.
 */
int channel_data(struct channel *ch, size_t need, struct wire_out **w, struct err *err);
/* How much the open DATA frame can take before it goes out. */
size_t channel_room(const struct channel *ch);

/* Looks, without waiting, whether the call was cancelled: -ECANCELED. Not while DATA comes in. */
int channel_check(struct channel *ch, struct err *err);
/* The same, and tells how far the work is; for each step of long work: asks now and then only. */
int channel_progress(struct channel *ch, uint64_t done, uint64_t total, struct err *err);

/*
 * The next DATA of a call that takes it. 1: f has it; 0: END came; -ECANCELED.
 * channel_drop takes what is left, after which the next call may come.
 */
int channel_take(struct channel *ch, struct frame *f, struct err *err);
int channel_drop(struct channel *ch, struct err *err);

#endif
