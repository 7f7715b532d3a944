/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which function of a program an address is in, from its symbol table (System V ABI, chapter 4), for
 * reports of faults. A program without one, or with one that makes no sense, has no names.
 */
#include <elf.h>
#include <stdio.h>
#include <string.h>

#include "vmm/elf.h"

struct table {
	const Elf64_Sym *symbols; /* maybe not aligned: read by memcpy */
	const char *names;
	size_t n, names_size;
};

static bool section(const struct elf_program *p, const Elf64_Ehdr *h, unsigned i, Elf64_Shdr *out)
{
	uint64_t at = h->e_shoff + (uint64_t)i * sizeof(*out);

	if (i >= h->e_shnum || h->e_shoff > p->size || at + sizeof(*out) > p->size)
		return false;
	memcpy(out, (const char *)p->image + at, sizeof(*out));
	return out->sh_offset <= p->size && out->sh_size <= p->size - out->sh_offset;
}

static bool find_table(const struct elf_program *p, const Elf64_Ehdr *h, struct table *t)
{
	Elf64_Shdr s, names;

	for (unsigned i = 0; i < h->e_shnum; i++) {
		if (!section(p, h, i, &s) || s.sh_type != SHT_SYMTAB ||
		    !section(p, h, s.sh_link, &names) || !names.sh_size)
			continue;
		*t = (struct table){
			.symbols = (const void *)((const char *)p->image + s.sh_offset),
			.n = s.sh_size / sizeof(Elf64_Sym),
			.names = (const char *)p->image + names.sh_offset,
			.names_size = names.sh_size,
		};
		return t->names[t->names_size - 1] == 0;
	}
	return false;
}

bool elf_symbol(const struct elf_program *p, uint64_t at, char *buf, size_t size)
{
	struct table t;
	Elf64_Ehdr h;

	if (p->size < sizeof(h))
		return false;
	memcpy(&h, p->image, sizeof(h));
	if (h.e_shentsize != sizeof(Elf64_Shdr) || !find_table(p, &h, &t))
		return false;
	if (h.e_type == ET_DYN)
		at -= ELF_PIE_BASE;
	for (size_t i = 0; i < t.n; i++) {
		Elf64_Sym s;

		memcpy(&s, (const char *)t.symbols + i * sizeof(s), sizeof(s));
		if (ELF64_ST_TYPE(s.st_info) != STT_FUNC || at < s.st_value ||
		    at - s.st_value >= s.st_size || s.st_name >= t.names_size)
			continue;
		snprintf(buf, size, "%s+0x%llx", t.names + s.st_name,
			 (unsigned long long)(at - s.st_value));
		return true;
	}
	return false;
}
