/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of a cell: one block that the guest sees at address 0, in which only the regions named
 * here are mapped for its user mode. Guest virtual and physical addresses are the same.
 *
 *     0x010000  system area: descriptor tables, stubs, page tables (the guest cannot reach it)
 *     ELF       where its program headers say, 4 KiB pages, W^X
 *     hole      2 MiB
 *     arena     readable and writable, 2 MiB pages: the heap (brk) grows up from its start,
 *               anonymous mappings grow down from its end
 *     hole      2 MiB
 *     stack     up to the end of memory
 *
 * The page tables never change: some hosts do not see edits of a running guest's tables. So what a
 * program asks of mprotect and munmap is bookkeeping, and memory that it gives back is replaced by
 * zeros.
 *
 * Every address that comes from the guest passes guest_read or guest_write before it is used.
 */
#ifndef IMGKIT_VMM_MEMORY_H
#define IMGKIT_VMM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ranges.h"

#define CELL_PAGE     UINT64_C(4096)
#define CELL_BIG_PAGE (UINT64_C(2) << 20)
#define CELL_SYSTEM   UINT64_C(0x10000)  /* the system area */
#define CELL_ELF_MIN  UINT64_C(0x200000) /* its end; the ELF lies above */
#define CELL_STACK    (UINT64_C(4) << 20)
#define CELL_RAM_MIN  (UINT64_C(16) << 20)
#define CELL_RAM_MAX  (UINT64_C(1) << 30)
#define CELL_REGIONS  16

enum { PROT_R = 1, PROT_W = 2, PROT_X = 4 };

struct guest_region {
	uint64_t start, end; /* whole pages */
	unsigned prot;       /* PROT_… as the page tables have it */
};

struct guest_memory {
	unsigned char *host; /* where the block is in this process */
	uint64_t size;       /* bytes, a multiple of CELL_BIG_PAGE */
	int fd;              /* of the block when it is shared with another process, else -1 */
	struct guest_region regions[CELL_REGIONS];
	unsigned n_regions;

	uint64_t arena, arena_end; /* bytes */
	uint64_t brk;              /* end of the heap */
	uint64_t low;              /* start of the lowest mapping; brk <= low */
	struct ranges unused;      /* between low and arena_end, but not mapped */
};

/* shared: backed by a file descriptor, for a cage that is a process. */
int guest_memory_init(struct guest_memory *mem, uint64_t size, bool shared, struct err *err);
void guest_memory_free(struct guest_memory *mem);

/* Maps [start, end) for the guest; both whole pages, nothing there yet, never W and X. */
int guest_add_region(struct guest_memory *mem, uint64_t start, uint64_t end, unsigned prot,
		     struct err *err);
/* Lays out arena and stack above the last region. */
int guest_add_arena(struct guest_memory *mem, struct err *err);

/* n bytes at a guest address which the guest could read (or write) itself; NULL: it could not. */
const void *guest_read(const struct guest_memory *mem, uint64_t at, uint64_t n);
void *guest_write(const struct guest_memory *mem, uint64_t at, uint64_t n);
/* A string of at most max bytes without its NUL. */
const char *guest_string(const struct guest_memory *mem, uint64_t at, size_t max);

/* What the system calls brk, mmap (anonymous) and munmap do: an address, or a negative errno. */
int64_t guest_brk(struct guest_memory *mem, uint64_t to);
int64_t guest_mmap(struct guest_memory *mem, uint64_t hint, uint64_t len, bool fixed);
int64_t guest_munmap(struct guest_memory *mem, uint64_t at, uint64_t len);

#endif
