/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an x86-64 virtual CPU needs to run user code without a kernel: descriptor tables, a task
 * state segment, stubs, and page tables, all in the system area of the cell's memory.
 *
 * An exception leads, through the IDT, to a stub at privilege level 0 that reports its vector on an
 * I/O port. A `syscall` leads to a stub that writes to another port, the doorbell. On a processor
 * the stub runs at level 0 and returns with sysretq; on software KVM it stays at level 3, which is
 * why its page is the user's and why the I/O bitmap opens the doorbell, and nothing else, to level 3.
 */
#ifndef IMGKIT_VMM_X86_H
#define IMGKIT_VMM_X86_H

#include "vmm/memory.h"

/* Pages of the system area. */
#define X86_GDT     CELL_SYSTEM
#define X86_IDT     (X86_GDT + 0x800)
#define X86_TSS     (CELL_SYSTEM + 1 * CELL_PAGE)
#define X86_VECTORS (CELL_SYSTEM + 2 * CELL_PAGE) /* the stubs of exceptions */
#define X86_STACK   (CELL_SYSTEM + 3 * CELL_PAGE) /* of level 0 */
#define X86_SYSCALL (CELL_SYSTEM + 4 * CELL_PAGE) /* the stub of system calls, for the user */
#define X86_FIRST   (X86_SYSCALL + 16) /* where the CPU starts: a call, a jump to its result */
#define X86_TABLES  (CELL_SYSTEM + 16 * CELL_PAGE) /* page tables; X86_PML4 is the first */
#define X86_PML4    X86_TABLES

#define X86_GDT_LIMIT 0x47u /* 7 entries, and the one of the TSS, which takes two */
#define X86_IDT_LIMIT 0x1ffu
#define X86_TSS_LIMIT 0x88u

/* Selectors. */
enum { X86_KERNEL_CS = 0x10, X86_USER_DS = 0x2b, X86_USER_CS = 0x33, X86_TR = 0x38 };

/* Ports. */
enum { PORT_VECTOR = 0xc0, PORT_VECTORS = 32, PORT_DOORBELL = 0xf0 };

/* Segment state of MSR_STAR, for syscall and sysret with the selectors above. */
#define X86_STAR UINT64_C(0x0023001000000000)

/* Fills the system area. The regions of mem are what the user can reach, and nothing else. */
int x86_build(struct guest_memory *mem, struct err *err);

/* On a CPU whose stub runs at level 0: the user cannot ring any more. */
void x86_close_doorbell(struct guest_memory *mem);

/* The frame that the exception stub found on the stack of level 0: fault without address. */
struct cell_fault;
void x86_fault(const struct guest_memory *mem, unsigned vector, uint64_t rsp,
	       struct cell_fault *fault);

#endif
