/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What cell.c and the system calls share. */
#ifndef IMGKIT_VMM_CELL_IMPL_H
#define IMGKIT_VMM_CELL_IMPL_H

#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "vmm/cell.h"

struct cell {
	struct guest_memory mem;
	struct engine *engine;
	struct cell_file files[CELL_FILES];
	struct elf_program program;    /* image borrowed */
	uint64_t disk_pos[CELL_FILES]; /* where read, write and lseek of a disk are */
	void (*log)(void *arg, const char *text, size_t len);
	void *log_arg;
	uint64_t log_left; /* bytes that the log still takes */
	uint64_t cpu_limit;
	timer_t timers[2];
	unsigned n_timers;
	atomic_bool stop, timeout;
	bool ended; /* by a system call; result says how */
	struct cell_result result;
	struct err fallback; /* why not a VM */
};

/* Serves one system call: what it returns, or cell->ended. */
int64_t cell_call(struct cell *cell, const struct call_regs *regs);

#endif
