/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ELF loader of cells: System V ABI, AMD64 supplement, chapters 3.4 (start of a process) and 5
 * (program loading). Static programs only: an interpreter is refused.
 */
#include "vmm/elf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"

#define MAX_SEGMENT 32u

struct image {
	const struct elf_program *prog;
	Elf64_Ehdr head;
	Elf64_Phdr seg[MAX_SEGMENT];
	uint64_t base;    /* added to every address */
	uint64_t headers; /* address of the program headers, 0: not loaded */
};

static int read_headers(struct image *im, struct err *err)
{
	const struct elf_program *prog = im->prog;
	Elf64_Ehdr *h = &im->head;

	if (prog->size < sizeof(*h) || memcmp(prog->image, ELFMAG, SELFMAG) != 0)
		return err_set(err, ENOEXEC, "not an ELF program");
	memcpy(h, prog->image, sizeof(*h));
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB ||
	    h->e_machine != EM_X86_64)
		return err_set(err, ENOEXEC, "not a program for x86-64");
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return err_set(err, ENOEXEC, "not a program: ELF type %u", h->e_type);
	if (h->e_phentsize != sizeof(im->seg[0]) || !h->e_phnum || h->e_phnum > MAX_SEGMENT ||
	    h->e_phoff > prog->size || h->e_phnum * sizeof(im->seg[0]) > prog->size - h->e_phoff)
		return err_set(err, ENOEXEC, "bad table of program headers");
	memcpy(im->seg, (const char *)prog->image + h->e_phoff, h->e_phnum * sizeof(im->seg[0]));
	im->base = h->e_type == ET_DYN ? ELF_PIE_BASE : 0;
	return 0;
}

static unsigned protection(uint32_t flags)
{
	return (flags & PF_R ? PROT_R : 0) | (flags & PF_W ? PROT_W : 0) |
	       (flags & PF_X ? PROT_X : 0);
}

static int load_segment(struct guest_memory *mem, struct image *im, const Elf64_Phdr *seg,
			struct err *err)
{
	uint64_t start, end;
	int r;

	if (!seg->p_memsz)
		return 0;
	if (seg->p_filesz > seg->p_memsz || seg->p_offset > im->prog->size ||
	    seg->p_filesz > im->prog->size - seg->p_offset || seg->p_vaddr > CELL_RAM_MAX ||
	    seg->p_memsz > CELL_RAM_MAX)
		return err_set(err, ENOEXEC, "bad program header: segment at 0x%llx",
			       (unsigned long long)seg->p_vaddr);
	start = im->base + seg->p_vaddr;
	end = start + seg->p_memsz;
	r = guest_add_region(mem, round_down(start, CELL_PAGE), round_up(end, CELL_PAGE),
			     protection(seg->p_flags), err);
	if (r < 0)
		return r;
	memcpy(mem->host + start, (const char *)im->prog->image + seg->p_offset, seg->p_filesz);
	if (im->head.e_phoff >= seg->p_offset && im->head.e_phoff - seg->p_offset < seg->p_filesz)
		im->headers = start + im->head.e_phoff - seg->p_offset;
	return 0;
}

static int load_segments(struct guest_memory *mem, struct image *im, struct err *err)
{
	for (unsigned i = 0; i < im->head.e_phnum; i++) {
		const Elf64_Phdr *seg = &im->seg[i];
		int r = 0;

		if (seg->p_type == PT_INTERP)
			r = err_set(err, ENOEXEC, "the program is not static");
		else if (seg->p_type == PT_LOAD)
			r = load_segment(mem, im, seg, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Writes downwards from the end of the stack. */
struct stack {
	struct guest_memory *mem;
	uint64_t sp;
};

static uint64_t push(struct stack *s, const void *p, size_t n)
{
	s->sp -= n;
	memcpy(s->mem->host + s->sp, p, n);
	return s->sp;
}

#define MAX_ARGS 32

static int build_stack(struct guest_memory *mem, const struct image *im, struct elf_start *start,
		       struct err *err)
{
	struct stack s = {mem, mem->size - 64};
	uint64_t words[MAX_ARGS + 40], *w = words;
	uint64_t args[MAX_ARGS], random, name;
	unsigned char seed[16];
	unsigned argc = 0;

	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		return err_sys(err, errno, "no random bytes");
	random = push(&s, seed, sizeof(seed));
	for (; im->prog->argv[argc]; argc++) {
		size_t n = strlen(im->prog->argv[argc]) + 1;

		if (argc == MAX_ARGS || n > CELL_PAGE)
			return err_set(err, E2BIG, "too many or too long arguments of a cell");
		args[argc] = push(&s, im->prog->argv[argc], n);
	}
	name = argc ? args[0] : random;
	*w++ = argc;
	for (unsigned i = 0; i < argc; i++)
		*w++ = args[i];
	*w++ = 0; /* of argv */
	*w++ = 0; /* of the environment */

	const uint64_t aux[][2] = {
		{AT_PHDR, im->headers},
		{AT_PHENT, sizeof(Elf64_Phdr)},
		{AT_PHNUM, im->head.e_phnum},
		{AT_PAGESZ, CELL_PAGE},
		{AT_BASE, 0},
		{AT_FLAGS, 0},
		{AT_ENTRY, im->base + im->head.e_entry},
		{AT_UID, 0},
		{AT_EUID, 0},
		{AT_GID, 0},
		{AT_EGID, 0},
		{AT_SECURE, 0},
		{AT_CLKTCK, 100},
		{AT_HWCAP, 0},
		{AT_HWCAP2, 0},
		{AT_RANDOM, random},
		{AT_EXECFN, name},
		{AT_NULL, 0},
	};
	memcpy(w, aux, sizeof(aux));
	w += ARRAY_LEN(aux) * 2;
	s.sp = round_down(s.sp - (uint64_t)(w - words) * 8, 16);
	memcpy(mem->host + s.sp, words, (size_t)(w - words) * 8);
	start->rsp = s.sp;
	return 0;
}

int elf_load(struct guest_memory *mem, const struct elf_program *prog, struct elf_start *start,
	     struct err *err)
{
	struct image im = {.prog = prog};
	int r = read_headers(&im, err);

	if (!r)
		r = load_segments(mem, &im, err);
	if (!r && !im.headers)
		r = err_set(err, ENOEXEC, "the program headers are not part of a segment");
	if (!r)
		r = guest_add_arena(mem, err);
	if (!r)
		r = build_stack(mem, &im, start, err);
	start->rip = im.base + im.head.e_entry;
	return r;
}
