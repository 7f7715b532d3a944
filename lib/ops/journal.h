/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal of a conversion that can be continued: what it is a conversion of, and how far it is.
 *
 *	file    magic, version, then records, only ever appended to
 *	record  type, length, number, CRC-32 of these and of the payload, payload
 *	  identity     lines "key: value": source, target, everything that decides the bytes
 *	  checkpoint   the guest range that is durable in the target now, and what was placed for it,
 *	               in the order in which it was placed
 *
 * The builder of the target hands out space in the order in which it is asked: so asking it again,
 * as the checkpoints say, gives every piece the place that it has. Whoever appends a checkpoint has
 * flushed the data before. A record that is torn ends the journal: what is behind is cut off.
 */
#ifndef IMGKIT_OPS_JOURNAL_H
#define IMGKIT_OPS_JOURNAL_H

#include "io/io.h"

enum journal_kind {
	JOURNAL_DATA,  /* whole units */
	JOURNAL_CODED, /* one unit, compressed */
	JOURNAL_ZERO,  /* whole units that were marked as zeros */
};

struct journal_run {
	enum journal_kind kind;
	uint64_t off; /* guest bytes, multiple of 512 */
	uint64_t len; /* guest bytes; of CODED: coded bytes */
};

struct journal_checkpoint {
	uint64_t end;                  /* guest bytes: everything below is there */
	const struct journal_run *run; /* ascending, inside [end of the one before, end) */
	size_t n;
};

struct journal;

/*
 * Continues the journal in file, which it owns on success, or begins one if it says nothing and begin
 * is given; that is durable on return. -EINVAL: it is one of another conversion, the text says what
 * differs; -EUCLEAN: it is no journal.
 */
int journal_open(struct io *file, const char *identity, bool begin, struct journal **out,
		 struct err *err);

/* Makes any journal one that says nothing. -EUCLEAN: it is none, and is left as it is. */
int journal_empty(struct io *file, struct err *err);

/* Whether it was begun by journal_open. */
bool journal_is_new(const struct journal *j);

/*
 * The next checkpoint of those that are there; valid until the next call. 1: there is one, 0: these
 * are all, -EUCLEAN: what it says cannot be. To be called up to the end before append.
 */
int journal_next(struct journal *j, struct journal_checkpoint *c, struct err *err);

/* Adds a checkpoint, in several records if it is long; durable on return. Not thread-safe. */
int journal_append(struct journal *j, const struct journal_checkpoint *c, struct err *err);

/* Guest bytes: the end of the last checkpoint that was read or appended. */
uint64_t journal_end(const struct journal *j);

void journal_close(struct journal *j); /* NULL is fine */

#endif
