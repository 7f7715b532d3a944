/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process in which a cell lives.
 *
 * It is forked off, opens the disks, sets up the cell, gives up every right, and only then runs the
 * first instruction of the guest. So neither a disk image nor a file system is ever parsed by the
 * caller's process: it has the two ends of a conversation, and a pipe with the cage's own report.
 * When the caller dies the cell is stopped.
 */
#ifndef IMGKIT_APPLIANCE_CAGE_H
#define IMGKIT_APPLIANCE_CAGE_H

#include <sys/types.h>

#include "image/img.h"
#include "vmm/cell.h"

struct cage_disk {
	struct img_open_args args; /* IMG_RDWR in its flags: may be written */
	uint64_t offset, size;     /* bytes: the part that the program sees; size 0: all */
	const char *name;          /* how the program opens it by path, or NULL */
};

struct cage_config {
	const struct cage_disk *disks; /* become file descriptors 3, 4, … of the program */
	unsigned n_disks;
	const void *program; /* a static ELF */
	size_t program_size;
	const char *const *argv;
	bool small_world; /* /dev/null is there, and nothing is mounted: for programs of others */
	uint64_t memory, cpu_limit; /* as in struct cell_config */
	uint64_t patience;          /* ms that cage_wait waits for the end, 0: no limit */
	enum cell_isolation isolation;
	bool one_stream; /* what the program logs comes with what it writes: it is for people */
	bool log; /* the program's log goes to stderr as it comes; else its end is in the report */
};

struct cage {
	pid_t pid;
	int in, out; /* of the program: what is written to `in` it reads */
	int report;  /* the cage's own words */
	uint64_t patience;
	char isolation[16];
	char fallback[256]; /* why there is no VM, or "" */
};

/* Until the cell is ready to run; else the error of what could not be opened or set up. */
int cage_start(struct cage *cage, const struct cage_config *config, struct err *err);

/*
 * Waits for the end. 0: the program exited with *status and everything is on the disks. An error:
 * it was stopped or broke a rule, or a disk failed; err says what. The ends are closed.
 */
int cage_wait(struct cage *cage, int *status, struct err *err);

/* Ends it at once, as a power cut would. For a cage that is not wanted any more. */
void cage_kill(struct cage *cage);

#endif
