/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Test doubles: an io in memory, one that fails on command, one that records for crash replay, one
 * that counts. Built into the tests only, never into the library that ships.
 */
#ifndef IMGKIT_IO_DOUBLES_H
#define IMGKIT_IO_DOUBLES_H

#include <pthread.h>

#include "io/io.h"

/* ---- mem: a growing file in memory, sparse in 64 KiB pieces; thread-safe ---- */
int mem_open(const char *name, uint64_t size, struct io **out, struct err *err);

/* ---- fault: passes through to inner, and fails the n-th call ---- */
struct fault_plan {
	_Atomic uint64_t calls; /* of the members of io_ops but close, so far */
	uint64_t fail_at;       /* first call that fails, counted from 1; 0 = never */
	bool sticky;            /* all later calls fail as well */
	int code;               /* positive errno, e.g. EIO, ENOSPC */
	bool writes_only;       /* only those that change something count */
	atomic_bool *raise;     /* set at that call, which does not fail then; NULL: it fails */
};
int fault_open(struct io *inner, bool own, struct fault_plan *plan, struct io **out,
	       struct err *err);

/* ---- gate: passes through; the kinds of calls that are shut wait until they are not ---- */
enum { GATE_READ = 1 << 0, GATE_WRITE = 1 << 1, GATE_FLUSH = 1 << 2 };
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned shut;    /* GATE_… */
	unsigned waiting; /* calls, now */
	unsigned passed;  /* calls that were gone through, of the kinds above */
};
#define GATE_INIT                                                                     \
	{                                                                             \
		.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER \
	}
int gate_open(struct io *inner, bool own, struct gate *gate, struct io **out, struct err *err);
/* Shuts these kinds, and no others. */
void gate_shut(struct gate *gate, unsigned kinds);
/* Returns when n calls wait. */
void gate_await(struct gate *gate, unsigned n);
unsigned gate_passed(struct gate *gate);

/* ---- crash: records every change to inner with its payload, and every flush ---- */
enum crash_kind { CRASH_WRITE, CRASH_ZERO, CRASH_RESIZE, CRASH_FLUSH, CRASH_MARK };
struct crash_rec {
	enum crash_kind kind;
	uint64_t off, len;   /* RESIZE: off is the new size. MARK: off is the caller's value */
	unsigned char *data; /* WRITE only; owned by the log */
};
struct crash_log {
	struct crash_rec *rec;
	size_t n, cap;
	uint64_t base_size;  /* size of inner when recording began */
	unsigned char *base; /* its content then */
};
int crash_open(struct io *inner, bool own, struct crash_log *log, struct io **out, struct err *err);
/* Adds a CRASH_MARK (thread-safe against the io). */
int crash_mark(struct io *io, uint64_t value);
void crash_log_free(struct crash_log *log);

/* ---- trace: passes through and counts ---- */
struct trace_stats {
	_Atomic uint64_t preads, pwrites, zeros, discards, flushes, resizes, maps;
	_Atomic uint64_t clones; /* that were not refused */
	_Atomic uint64_t read_bytes, write_bytes;
};
int trace_open(struct io *inner, bool own, struct trace_stats *stats, struct io **out,
	       struct err *err);

#endif
