/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables and stubs of the virtual CPU. Intel SDM volume 3: 3.4.5 (segment descriptors), 4.5 (4-level
 * paging), 6.14 (interrupts in 64-bit mode), 8.7 (64-bit TSS), and volume 1, 19.5.2 (I/O bitmap).
 *
 * Accessed and dirty bits are set from the start, so no table is ever written by the processor, and
 * GDT, IDT and TSS are not the user's: a level-3 page there would end in a triple fault with SMAP.
 */
#include "vmm/x86.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/engine.h"

static void put64(struct guest_memory *mem, uint64_t at, uint64_t v)
{
	le64 d = le64_make(v);

	memcpy(mem->host + at, &d, sizeof(d));
}

static uint64_t fetch64(const struct guest_memory *mem, uint64_t at)
{
	le64 d;

	memcpy(&d, mem->host + at, sizeof(d));
	return le64_get(d);
}

/* ---- descriptors ---- */

static void build_gdt(struct guest_memory *mem)
{
	static const uint64_t flat[] = {
		0,
		0,
		UINT64_C(0x00af9b000000ffff), /* 0x10 code, level 0 */
		UINT64_C(0x00cf93000000ffff), /* 0x18 data, level 0 */
		UINT64_C(
			0x00cffb000000ffff), /* 0x20 code, level 3, 32 bits: sysret wants its place */
		UINT64_C(0x00cff3000000ffff), /* 0x28 data, level 3 */
		UINT64_C(0x00affb000000ffff), /* 0x30 code, level 3 */
	};
	uint64_t base = X86_TSS;

	for (uint64_t i = 0; i < ARRAY_LEN(flat); i++)
		put64(mem, X86_GDT + i * 8, flat[i]);
	/* 0x38: TSS, busy, 16 bytes. */
	put64(mem, X86_GDT + X86_TR,
	      X86_TSS_LIMIT | (base & 0xffffff) << 16 | UINT64_C(0x8b) << 40 |
		      (base >> 24 & 0xff) << 56);
	put64(mem, X86_GDT + X86_TR + 8, base >> 32);
}

static void build_idt(struct guest_memory *mem)
{
	for (uint64_t v = 0; v < PORT_VECTORS; v++) {
		uint64_t stub = X86_VECTORS + v * 8;
		/* int3 and into are the user's to raise; every gate uses stack 1. */
		uint64_t type = v == 3 || v == 4 ? 0xee : 0x8e;

		put64(mem, X86_IDT + v * 16,
		      (stub & 0xffff) | (uint64_t)X86_KERNEL_CS << 16 | UINT64_C(1) << 32 |
			      type << 40 | (stub >> 16 & 0xffff) << 48);
		put64(mem, X86_IDT + v * 16 + 8, stub >> 32);
	}
}

static void build_tss(struct guest_memory *mem)
{
	unsigned char *tss = mem->host + X86_TSS;
	const le16 bitmap = le16_make(0x68);

	put64(mem, X86_TSS + 0x04, X86_STACK + CELL_PAGE); /* RSP0 */
	put64(mem, X86_TSS + 0x24, X86_STACK + CELL_PAGE); /* IST1 */
	memcpy(tss + 0x66, &bitmap, sizeof(bitmap));
	/* 32 bytes of bitmap and the byte of ones that has to follow: one port is open. */
	memset(tss + 0x68, 0xff, X86_TSS_LIMIT + 1 - 0x68);
	tss[0x68 + PORT_DOORBELL / 8] &= (unsigned char)~(1u << PORT_DOORBELL % 8);
}

void x86_close_doorbell(struct guest_memory *mem)
{
	memset(mem->host + X86_TSS + 0x68, 0xff, X86_TSS_LIMIT + 1 - 0x68);
}

static void build_stubs(struct guest_memory *mem)
{
	static const unsigned char doorbell[] = {
		0xe6, PORT_DOORBELL,       /* out %al,$doorbell */
		0x48, 0x0f,          0x07, /* sysretq */
	};
	static const unsigned char first[] = {
		0x0f, 0x05, /* syscall */
		0xff, 0xe0, /* jmp *%rax */
	};

	for (uint64_t v = 0; v < PORT_VECTORS; v++) {
		unsigned char *stub = mem->host + X86_VECTORS + v * 8;

		stub[0] = 0xe6; /* out %al,$vector */
		stub[1] = (unsigned char)(PORT_VECTOR + v);
		stub[2] = 0xf4; /* hlt */
		stub[3] = 0xeb; /* jmp to itself */
		stub[4] = 0xfe;
	}
	memcpy(mem->host + X86_SYSCALL, doorbell, sizeof(doorbell));
	memcpy(mem->host + X86_FIRST, first, sizeof(first));
}

/* ---- paging ---- */

enum {
	PTE_P = 1 << 0,
	PTE_W = 1 << 1,
	PTE_U = 1 << 2,
	PTE_A = 1 << 5,
	PTE_D = 1 << 6,
	PTE_BIG = 1 << 7,
};
#define PTE_NX   (UINT64_C(1) << 63)
#define PTE_ADDR UINT64_C(0x000ffffffffff000)

struct tables {
	struct guest_memory *mem;
	uint64_t next; /* the next free page for a table */
};

/* The table one level below entry `index` of `table`; made when it is not there. 0: no room. */
static uint64_t descend(struct tables *t, uint64_t table, uint64_t index)
{
	uint64_t e = fetch64(t->mem, table + index * 8);

	if (e & PTE_P)
		return e & PTE_ADDR;
	if (t->next == CELL_ELF_MIN)
		return 0;
	e = t->next;
	t->next += CELL_PAGE;
	put64(t->mem, table + index * 8, e | PTE_P | PTE_W | PTE_U | PTE_A);
	return e;
}

/* Identity mapping of one page; big: of 2 MiB. All memory lies in the first GiB. */
static int map_page(struct tables *t, uint64_t at, uint64_t bits, bool big, struct err *err)
{
	uint64_t table = descend(t, X86_PML4, 0);

	table = table ? descend(t, table, at >> 30) : 0;
	if (table && !big)
		table = descend(t, table, at >> 21 & 511);
	if (!table)
		return err_set(err, ENOMEM, "no room for the page tables of a cell");
	if (big)
		put64(t->mem, table + (at >> 21 & 511) * 8, at | bits | PTE_BIG);
	else
		put64(t->mem, table + (at >> 12 & 511) * 8, at | bits);
	return 0;
}

static int map_region(struct tables *t, const struct guest_region *r, struct err *err)
{
	uint64_t bits = PTE_P | PTE_U | PTE_A | PTE_D | (r->prot & PROT_W ? PTE_W : 0) |
			(r->prot & PROT_X ? 0 : PTE_NX);
	uint64_t at = r->start;
	int ret = 0;

	while (at < r->end && !ret) {
		bool big = is_aligned(at, CELL_BIG_PAGE) && r->end - at >= CELL_BIG_PAGE;

		ret = map_page(t, at, bits, big, err);
		at += big ? CELL_BIG_PAGE : CELL_PAGE;
	}
	return ret;
}

int x86_build(struct guest_memory *mem, struct err *err)
{
	struct tables t = {mem, X86_PML4 + CELL_PAGE};
	const uint64_t seen = PTE_P | PTE_A | PTE_D;
	const uint64_t system[][2] = {
		{X86_GDT, seen | PTE_NX},    {X86_TSS, seen | PTE_NX},
		{X86_VECTORS, seen},         {X86_STACK, seen | PTE_W | PTE_NX},
		{X86_SYSCALL, seen | PTE_U},
	};
	int r = 0;

	build_gdt(mem);
	build_idt(mem);
	build_tss(mem);
	build_stubs(mem);
	for (unsigned i = 0; i < ARRAY_LEN(system) && !r; i++)
		r = map_page(&t, system[i][0], system[i][1], false, err);
	for (unsigned i = 0; i < mem->n_regions && !r; i++)
		r = map_region(&t, &mem->regions[i], err);
	return r;
}

/* Whether the processor pushes an error code for this vector. */
static bool has_error_code(unsigned vector)
{
	return vector < 32 && (UINT32_C(0x60227d00) >> vector & 1);
}

void x86_fault(const struct guest_memory *mem, unsigned vector, uint64_t rsp,
	       struct cell_fault *fault)
{
	/* Error code (if any), rip, cs, rflags, rsp, ss: on the stack of level 0, nowhere else. */
	uint64_t words = has_error_code(vector) ? 6 : 5;

	*fault = (struct cell_fault){.vector = vector};
	if (rsp < X86_STACK || rsp > X86_STACK + CELL_PAGE - words * 8 || !is_aligned(rsp, 8))
		return;
	if (has_error_code(vector)) {
		fault->error = fetch64(mem, rsp);
		rsp += 8;
	}
	fault->rip = fetch64(mem, rsp);
	fault->rsp = fetch64(mem, rsp + 24);
}
