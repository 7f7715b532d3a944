/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An engine runs the code of a cell until it wants something: a virtual CPU of KVM (kvm.c), or a
 * process that is traced (traced.c). Both see the same memory at the same addresses and stop at the
 * same three things, so everything above is one.
 */
#ifndef IMGKIT_VMM_ENGINE_H
#define IMGKIT_VMM_ENGINE_H

#include <time.h>

#include "vmm/elf.h"
#include "vmm/memory.h"

/* The registers of a system call, Linux x86-64: nr in, result out in the same place. */
struct call_regs {
	uint64_t nr, arg[6];
	uint64_t rip; /* of the instruction after it */
};

struct cell_fault {
	unsigned vector;            /* of the x86 exception: 14 is a page fault */
	uint64_t error;             /* its error code */
	bool no_error;              /* which is not known: the engine is a process */
	uint64_t rip, rsp, address; /* address: cr2, of a page fault */
};

enum engine_stop {
	ENGINE_CALL,        /* a system call: regs are filled */
	ENGINE_FAULT,       /* an exception: fault is filled */
	ENGINE_INTERRUPTED, /* a signal arrived; run again, or give up */
};

struct engine {
	const struct engine_ops *ops;
};

struct engine_ops {
	const char *name; /* "vm", "process" */
	bool shared;      /* the memory must be shared with another process */
	/* The program is in mem, which outlives the engine. */
	int (*start)(struct engine **engine, struct guest_memory *mem,
		     const struct elf_start *start, struct err *err);
	/*
	 * Runs until one of enum engine_stop, or a negative errno: the engine itself is broken.
	 * After a call, result is what it returns.
	 */
	int (*run)(struct engine *engine, uint64_t result, struct call_regs *regs,
		   struct cell_fault *fault, struct err *err);
	/* Thread-local base register, of arch_prctl. */
	int (*set_fs)(struct engine *engine, uint64_t base, struct err *err);
	/* The clock of the CPU time that the program uses. */
	int (*clock)(struct engine *engine, clockid_t *clock);
	/* From a signal handler: run returns soon, with ENGINE_INTERRUPTED. */
	void (*interrupt)(struct engine *engine);
	void (*free)(struct engine *engine);
};

extern const struct engine_ops kvm_engine, traced_engine;

#endif
