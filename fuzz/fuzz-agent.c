// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Disks through the whole agent: partition tables, file systems, everything in them. No input may
 * end the agent, hang it, or make it say what the library does not accept.
 * Input: a byte (bit 0: the disk is changed, too), u16 KiB of the disk, and sectors that are not
 * zero: u16 number, 512 bytes.
 *
 * link: -l:libext2fs.a -l:libcom_err.a build/agent/libblkid.a -l:libuuid.a -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "appliance/protocol.h"
#include "explore.h"
#include "input.h"
#include "inside.h"

#define SECTOR 512u

/* What there is in a cell, or the fuzzer takes large requests for findings. */
#define MEMORY (UINT64_C(64) << 20)

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
	return n > MEMORY ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return size && n > MEMORY / size ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return n > MEMORY ? NULL : __real_realloc(p, n);
}

static uint32_t u16(struct input *in)
{
	uint32_t v = input_u8(in);

	return v | (uint32_t)input_u8(in) << 8;
}

static void make_disk(struct input *in)
{
	static bool have_one;
	uint32_t size = u16(in) * 1024;

	if (!have_one)
		inside_disk(memfd_create("disk", MFD_CLOEXEC));
	have_one = true;
	require(ftruncate(AGENT_FD_DISK, 0) == 0 && ftruncate(AGENT_FD_DISK, size) == 0);
	while (in->len >= 2 + SECTOR) {
		uint64_t off = (uint64_t)u16(in) * SECTOR;

		if (off + SECTOR <= size)
			require(pwrite(AGENT_FD_DISK, in->p, SECTOR, (off_t)off) == SECTOR);
		in->p += SECTOR;
		in->len -= SECTOR;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	bool write = input_u8(&in) & 1;
	struct appliance *a;

	make_disk(&in);
	a = attach_inside(write);
	if (write)
		explore_write(a);
	else
		explore_read(a);
	explore_end(a);
	return 0;
}
