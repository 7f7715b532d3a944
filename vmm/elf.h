/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loading a static ELF program into a cell, and the stack that it starts with. */
#ifndef IMGKIT_VMM_ELF_H
#define IMGKIT_VMM_ELF_H

#include "vmm/memory.h"

/* Where a static-pie program is loaded. */
#define ELF_PIE_BASE UINT64_C(0x400000)

struct elf_program {
	const void *image; /* the file's bytes; borrowed */
	size_t size;
	const char *const *argv; /* ends with NULL */
};

struct elf_start {
	uint64_t rip, rsp;
};

/*
 * Copies the segments of an x86-64 ET_EXEC or ET_DYN (static-pie) program, adds the arena, and
 * writes argv, an empty environment and the auxiliary vector. -ENOEXEC with the fact.
 */
int elf_load(struct guest_memory *mem, const struct elf_program *prog, struct elf_start *start,
	     struct err *err);

/* "name+0x12" of the function that the address is in, into buf. False: there is no name for it. */
bool elf_symbol(const struct elf_program *prog, uint64_t at, char *buf, size_t size);

#endif
