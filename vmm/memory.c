/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory of a cell: regions, checked addresses, heap and mappings. See memory.h. */
#include "vmm/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

int guest_memory_init(struct guest_memory *mem, uint64_t size, bool shared, struct err *err)
{
	int flags = shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	unsigned char *base;
	uint64_t skip;

	*mem = (struct guest_memory){.fd = -1};
	if (size < CELL_RAM_MIN || size > CELL_RAM_MAX || !is_aligned(size, CELL_BIG_PAGE))
		return err_set(err, EINVAL,
			       "a cell's memory is %llu MiB to %llu MiB, in steps of 2",
			       (unsigned long long)(CELL_RAM_MIN / MiB),
			       (unsigned long long)(CELL_RAM_MAX / MiB));
	if (shared) {
		mem->fd = memfd_create("imgkit-cell", MFD_CLOEXEC);
		if (mem->fd < 0 || ftruncate(mem->fd, (off_t)size) < 0)
			return err_sys(err, errno, "cannot make the cell's memory");
	}
	/* Aligned as the guest sees it, so that the host can use large pages, too. */
	base = mmap(NULL, size + CELL_BIG_PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return err_nomem(err, size, "the cell's memory");
	skip = round_up((uintptr_t)base, CELL_BIG_PAGE) - (uintptr_t)base;
	if (skip)
		munmap(base, skip);
	munmap(base + skip + size, CELL_BIG_PAGE - skip);
	mem->host = mmap(base + skip, size, PROT_READ | PROT_WRITE,
			 flags | MAP_FIXED | MAP_NORESERVE, mem->fd, 0);
	if (mem->host == MAP_FAILED) {
		mem->host = NULL;
		munmap(base + skip, size);
		return err_nomem(err, size, "the cell's memory");
	}
	mem->size = size;
	/* A hint: without it the guest's first touches, and loading, cost ten times as much. */
	if (!shared)
		madvise(mem->host + CELL_ELF_MIN, size - CELL_ELF_MIN - CELL_STACK, MADV_HUGEPAGE);
	return 0;
}

void guest_memory_free(struct guest_memory *mem)
{
	if (mem->host)
		munmap(mem->host, mem->size);
	if (mem->fd >= 0)
		close(mem->fd);
	ranges_free(&mem->unused);
	*mem = (struct guest_memory){.fd = -1};
}

int guest_add_region(struct guest_memory *mem, uint64_t start, uint64_t end, unsigned prot,
		     struct err *err)
{
	if (start >= end || end > mem->size || start < CELL_ELF_MIN ||
	    !is_aligned(start | end, CELL_PAGE))
		return err_set(err, ENOEXEC, "no room in the cell for 0x%llx to 0x%llx",
			       (unsigned long long)start, (unsigned long long)end);
	if ((prot & PROT_W) && (prot & PROT_X))
		return err_set(err, ENOEXEC, "memory at 0x%llx is writable and executable",
			       (unsigned long long)start);
	if (mem->n_regions == CELL_REGIONS)
		return err_set(err, ENOEXEC, "more than %d regions of memory", CELL_REGIONS);
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct guest_region *r = &mem->regions[i];

		if (overlaps(start, end - start, r->start, r->end - r->start))
			return err_set(err, ENOEXEC, "regions overlap at 0x%llx",
				       (unsigned long long)start);
	}
	mem->regions[mem->n_regions++] = (struct guest_region){start, end, prot};
	return 0;
}

int guest_add_arena(struct guest_memory *mem, struct err *err)
{
	uint64_t top = 0, stack = mem->size - CELL_STACK;
	int r;

	for (unsigned i = 0; i < mem->n_regions; i++)
		top = max_u64(top, mem->regions[i].end);
	mem->arena = round_up(top, CELL_BIG_PAGE) + CELL_BIG_PAGE;
	mem->arena_end = stack - CELL_BIG_PAGE;
	mem->brk = mem->arena;
	mem->low = mem->arena_end;
	r = guest_add_region(mem, mem->arena, mem->arena_end, PROT_R | PROT_W, err);
	if (!r)
		r = guest_add_region(mem, stack, mem->size, PROT_R | PROT_W, err);
	return r;
}

static bool allowed(const struct guest_memory *mem, uint64_t at, uint64_t n, unsigned prot)
{
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct guest_region *r = &mem->regions[i];

		if (at >= r->start && at < r->end)
			return n <= r->end - at && (r->prot & prot) == prot;
	}
	return false;
}

const void *guest_read(const struct guest_memory *mem, uint64_t at, uint64_t n)
{
	return allowed(mem, at, n, PROT_R) ? mem->host + at : NULL;
}

void *guest_write(const struct guest_memory *mem, uint64_t at, uint64_t n)
{
	return allowed(mem, at, n, PROT_R | PROT_W) ? mem->host + at : NULL;
}

const char *guest_string(const struct guest_memory *mem, uint64_t at, size_t max)
{
	for (size_t n = 0; n <= max; n++) {
		const char *p = guest_read(mem, at, n + 1);

		if (!p)
			return NULL;
		if (!p[n])
			return p;
	}
	return NULL;
}

/* The range reads as zeros afterwards, and its memory is the host's again. */
static void forget(struct guest_memory *mem, uint64_t at, uint64_t len)
{
	uint64_t first = round_up(at, CELL_PAGE), end = round_down(at + len, CELL_PAGE);

	if (end > first &&
	    madvise(mem->host + first, end - first, mem->fd < 0 ? MADV_DONTNEED : MADV_REMOVE) < 0)
		memset(mem->host + first, 0, end - first);
}

int64_t guest_brk(struct guest_memory *mem, uint64_t to)
{
	if (to >= mem->arena && to <= mem->low) {
		/* Part of a page is cleared by hand: it may be used again. */
		if (to < mem->brk) {
			uint64_t edge = min_u64(round_up(to, CELL_PAGE), mem->brk);

			memset(mem->host + to, 0, edge - to);
			forget(mem, edge, round_up(mem->brk, CELL_PAGE) - edge);
		}
		mem->brk = to;
	}
	return (int64_t)mem->brk;
}

/* Lowers `low` over what became unused at its start. */
static void trim(struct guest_memory *mem)
{
	const struct range *r = mem->unused.n ? &mem->unused.v[0] : NULL;

	if (r && r->off == mem->low) {
		mem->low += r->len;
		ranges_remove(&mem->unused, r->off, r->len);
	}
}

int64_t guest_mmap(struct guest_memory *mem, uint64_t hint, uint64_t len, bool fixed)
{
	if (!len || len > mem->size)
		return len ? -ENOMEM : -EINVAL;
	len = round_up(len, CELL_PAGE);
	if (fixed) {
		/* Over what is mapped already (musl does it at the end of the heap). */
		if (!is_aligned(hint, CELL_PAGE) || hint < mem->arena || hint > mem->arena_end ||
		    len > mem->arena_end - hint)
			return -ENOMEM;
		if (hint >= mem->low && ranges_remove(&mem->unused, hint, len) < 0)
			return -ENOMEM;
		forget(mem, hint, len);
		return (int64_t)hint;
	}
	ranges_for_each (r, &mem->unused) {
		uint64_t at = r->off + r->len - len;

		if (r->len < len)
			continue;
		return ranges_remove(&mem->unused, at, len) < 0 ? -ENOMEM : (int64_t)at;
	}
	if (len > mem->low - round_up(mem->brk, CELL_PAGE))
		return -ENOMEM;
	mem->low -= len;
	return (int64_t)mem->low;
}

int64_t guest_munmap(struct guest_memory *mem, uint64_t at, uint64_t len)
{
	if (!len || !is_aligned(at, CELL_PAGE) || len > mem->size)
		return -EINVAL;
	len = round_up(len, CELL_PAGE);
	if (at < mem->low || at > mem->arena_end || len > mem->arena_end - at)
		return -EINVAL;
	if (ranges_add(&mem->unused, at, len) < 0)
		return -ENOMEM;
	forget(mem, at, len);
	trim(mem);
	return 0;
}
