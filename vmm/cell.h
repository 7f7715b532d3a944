/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A cell: a static Linux program, run with no kernel below it and nothing but what is given here:
 * its memory, a clock, random numbers, and a few files, which are byte streams or disks.
 *
 *     cell_new      memory is allocated, the program loaded, the engine started
 *     cell_run      until the program ends, is stopped, or breaks a rule
 *     cell_free
 *
 * Between the first two the caller can give up every right that it does not need any more (see
 * vmm/jail.h): cell_run opens nothing. A cell belongs to one thread.
 */
#ifndef IMGKIT_VMM_CELL_H
#define IMGKIT_VMM_CELL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "io/io.h"
#include "vmm/elf.h"
#include "vmm/engine.h"

enum cell_file_kind {
	CELL_NONE,
	CELL_STREAM_IN,  /* read, poll: of fd */
	CELL_STREAM_OUT, /* write: to fd */
	CELL_LOG,        /* write: to the log function */
	CELL_DISK,       /* pread, pwrite, …: of io, as a regular file of its size */
	CELL_NULL,       /* empty, and takes everything: /dev/null */
};

struct cell_file {
	enum cell_file_kind kind;
	int fd;           /* borrowed */
	struct io *io;    /* borrowed */
	const char *path; /* the program opens it by this name, or NULL */
};

#define CELL_FILES 32u

/* How the cell is closed off. */
enum cell_isolation { CELL_AUTO, CELL_VM, CELL_PROCESS };

struct cell_config {
	struct elf_program program;
	struct cell_file files[CELL_FILES]; /* by the program's file descriptor */
	uint64_t memory;                    /* bytes, 0: CELL_MEMORY_DEFAULT */
	uint64_t cpu_limit;                 /* ns of CPU time of the thread, 0: none */
	enum cell_isolation isolation;      /* CELL_AUTO: a VM, or a process where there is none */
	/* What the program writes to its log: text, not terminated. May be NULL. */
	void (*log)(void *arg, const char *text, size_t len);
	void *log_arg;
};
#define CELL_MEMORY_DEFAULT (UINT64_C(64) << 20)

enum cell_end {
	CELL_EXITED,  /* the program called exit: status */
	CELL_FAULTED, /* an exception: fault */
	CELL_KILLED,  /* abort, or another signal that it sent to itself: status */
	CELL_REFUSED, /* a system call that is not on the list: status is its number */
	CELL_TIMEOUT, /* cpu_limit is used up */
	CELL_STOPPED, /* cell_stop */
};

struct cell_result {
	enum cell_end end;
	int status;
	struct cell_fault fault;
	char symbol[64];     /* of the fault: the function, or "" */
	uint64_t calls;      /* system calls that were served */
	uint64_t memory_top; /* bytes: the most that heap and mappings had */
};

struct cell;

int cell_new(struct cell **cell, const struct cell_config *config, struct err *err);
/* 0 and *result, or a negative errno: the engine broke, or the host ran out of something. */
int cell_run(struct cell *cell, struct cell_result *result, struct err *err);
/* Async-signal-safe. */
void cell_stop(struct cell *cell);
void cell_free(struct cell *cell);

/* "vm" or "process"; and why not a VM, when CELL_AUTO took the other, or "". */
const char *cell_isolation_name(const struct cell *cell);
const char *cell_fallback_reason(const struct cell *cell);

/* One line about a result: "page fault at 0x12 (read, rip 0x401234)". Into buf, always ended. */
void cell_describe(const struct cell_result *result, char *buf, size_t size);

#endif
