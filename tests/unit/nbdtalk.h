/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of the NBD server: one that runs in this process, on a Unix socket in the current
 * directory, over disks in memory; and a client that says what the test wants it to. Whatever fails
 * here fails the test.
 */
#ifndef IMGKIT_TESTS_NBDTALK_H
#define IMGKIT_TESTS_NBDTALK_H

#include "unit.h"

#include <pthread.h>

#include "base/bytes.h"
#include "lib/disk.h"
#include "nbd-server/listen.h"
#include "nbd-server/server.h"

#define TALK_EXPORTS 2

/* The server. Zero-initialise; what is set before talk_start stays. */
struct talk {
	struct server_config config; /* exports, listeners and log are set by talk_start */
	/* Sizes (0: none), what lies over the memory, and the format ("raw" if NULL) of each. */
	struct talk_disk {
		uint64_t size; /* bytes */
		struct gate *gate;
		struct fault_plan *fault;
		struct export_args args; /* name: "" and "b" if NULL */
		bool read_only;
	} disk[TALK_EXPORTS];

	struct io *mem[TALK_EXPORTS]; /* what the disks are made of */
	struct nbd_export *export[TALK_EXPORTS];
	struct server *server;
	struct listen_set set;
	int fd;
	pthread_t thread;
	int result; /* of server_run */
};

void talk_start(struct talk *t);
/* Waits until it has ended by itself. */
void talk_wait(struct talk *t);
void talk_stop(struct talk *t);
/* After its thread was joined. */
void talk_close(struct talk *t);

/* ---- the client ---- */

/* A connection that has the greeting; its mode is what talk_option negotiated. */
struct client {
	int fd;
	int mode; /* 0 simple, 1 structured, 2 extended */
	uint16_t flags;
	uint64_t size; /* of the export */
};

void client_connect(struct client *c);
void client_close(struct client *c);
void client_send(struct client *c, const void *data, size_t len);
void client_recv(struct client *c, void *data, size_t len);
/* The server closed, and there was nothing more. */
void client_ends(struct client *c);

/* An option, and a reply to it: its type. Data of the reply, at most room bytes, *len of them. */
void client_option(struct client *c, uint32_t option, const void *data, uint32_t len);
uint32_t client_answer(struct client *c, uint32_t option, void *data, size_t room, uint32_t *len);
/* An option without data that must be acknowledged. */
void client_asks(struct client *c, uint32_t option);
/* GO or INFO for an export, no items: the type of the final reply. */
uint32_t client_go(struct client *c, uint32_t option, const char *name);
/* Selects these contexts (NULL at the end); the number of those that were. */
unsigned client_contexts(struct client *c, uint32_t option, const char *export,
			 const char *const *query);
/* All of it: mode, GO. */
void client_open(struct client *c, int mode, const char *name);

struct ask {
	uint16_t flags, type;
	uint64_t cookie, offset, length;
	const void *data; /* of length bytes; NULL: none */
};
void client_request(struct client *c, const struct ask *ask);

/* A reply, or chunk of one. */
struct told {
	uint16_t flags, type; /* of chunks; simple replies are NBD_REPLY_TYPE_NONE with DONE */
	uint32_t error;       /* of simple replies and error chunks */
	uint64_t cookie;
	uint64_t offset; /* of data and holes */
	uint32_t len;    /* bytes of data (in buf) or of the hole */
};
/* length: of a simple reply to READ the data that follow if there is no error. */
void client_told(struct client *c, struct told *told, void *buf, uint32_t length);
/* A request that must succeed without data in its reply; and one that must not. */
void client_does(struct client *c, const struct ask *ask);
void client_fails(struct client *c, const struct ask *ask, uint32_t error);
/* Receives replies to reads until one with DONE; buf is of [offset, …). The error, 0: none. */
uint32_t client_data(struct client *c, uint64_t cookie, unsigned char *buf, uint64_t offset,
		     uint32_t length);
void client_read(struct client *c, unsigned char *buf, uint64_t offset, uint32_t length);

/* Bytes that tell where they are. */
void talk_fill(unsigned char *buf, uint64_t offset, size_t len);

#endif
