// SPDX-License-Identifier: GPL-2.0-or-later
/* See tables.h. */
#include "tables.h"

#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "tell.h"

#define SECTOR  512u
#define SECTORS 8192u /* of the disk */

static void put(int fd, uint64_t sector, const void *bytes, size_t n)
{
	if (pwrite(fd, bytes, n, (off_t)(sector * SECTOR)) != (ssize_t)n)
		die("the disk cannot be written");
}

/* ---- MBR ---- */

struct mbr_entry {
	uint8_t active, chs1[3], type, chs2[3];
	le32 start, size;
};

struct mbr {
	uint8_t code[446];
	struct mbr_entry entry[4];
	uint8_t magic[2];
} __attribute__((packed));

static uint32_t bad_sector(struct rng *r)
{
	static const uint32_t special[] = {0,          1,          2,       63,
					   0xffffffff, 0x7fffffff, SECTORS, SECTORS - 1};

	return rng_percent(r, 30) ? special[rng_below(r, ARRAY_LEN(special))]
				  : (uint32_t)rng_below(r, SECTORS);
}

static void set_entry(struct mbr_entry *e, uint8_t type, uint32_t start, uint32_t size)
{
	*e = (struct mbr_entry){.type = type};
	e->start = le32_make(start);
	e->size = le32_make(size);
}

static uint8_t some_type(struct rng *r)
{
	static const uint8_t types[] = {0x83, 5, 0x0f, 0x85, 0xa5, 0xa6, 0x81, 0xbf, 0x63, 0xee, 0};

	return types[rng_below(r, ARRAY_LEN(types))];
}

static struct mbr some_mbr(struct rng *r)
{
	struct mbr m = {.magic = {0x55, 0xaa}};

	for (unsigned i = 0; i < 4; i++)
		set_entry(&m.entry[i], some_type(r), bad_sector(r), bad_sector(r));
	return m;
}

/* Extended partitions that lead to each other in any order, or to themselves. */
static const char *make_mbr(int fd, struct rng *r)
{
	struct mbr m = some_mbr(r);

	set_entry(&m.entry[rng_below(r, 4)], 5, 64, SECTORS - 64);
	put(fd, 0, &m, sizeof(m));
	for (unsigned i = 0; i < 40; i++) {
		m = some_mbr(r);
		set_entry(&m.entry[1], 5, (uint32_t)rng_below(r, 40), bad_sector(r));
		put(fd, 64 + i, &m, sizeof(m));
	}
	return "MBR, extended partitions at random";
}

/* As many logical partitions as there is room for. */
static const char *make_chain(int fd, struct rng *r)
{
	uint32_t n = (uint32_t)rng_range(r, 50, 4000);
	struct mbr m = {.magic = {0x55, 0xaa}};

	set_entry(&m.entry[0], 5, 64, SECTORS - 64);
	put(fd, 0, &m, sizeof(m));
	for (uint32_t i = 0; i < n; i++) {
		set_entry(&m.entry[0], 0x83, 1, 1);
		set_entry(&m.entry[1], 5, 2 * (i + 1), 2);
		if (i + 1 == n)
			set_entry(&m.entry[1], 5, 0, 2);
		put(fd, 64 + 2 * i, &m, sizeof(m));
	}
	return "MBR, a long chain of logical partitions that ends in a loop";
}

/* ---- GPT ---- */

struct gpt_header {
	uint8_t magic[8];
	le32 revision, size, crc, zero;
	le64 mine, other, first, last;
	uint8_t guid[16];
	le64 table;
	le32 entries, entry_size, table_crc;
};

static const char *make_gpt(int fd, struct rng *r)
{
	static const uint32_t counts[] = {0,    1,          128,        129,       1024,
					  8192, 0x7fffffff, 0x80000000, 0xffffffff};
	static const uint32_t sizes[] = {0,   1,    127,       128,        136,
					 256, 4096, 0x1000000, 0x80000000, 0xffffffff};
	unsigned char table[128 * 128];
	struct gpt_header h = {.magic = "EFI PART", .guid = {1, 2, 3}};
	struct mbr m = {.magic = {0x55, 0xaa}};
	uint32_t n = counts[rng_below(r, ARRAY_LEN(counts))], size = 128;
	uint64_t bytes;

	if (rng_percent(r, 40))
		size = sizes[rng_below(r, ARRAY_LEN(sizes))];
	rng_fill(r, table, sizeof(table));
	set_entry(&m.entry[0], 0xee, 1, SECTORS - 1);
	put(fd, 0, &m, sizeof(m));
	put(fd, 2, table, sizeof(table));
	bytes = min_u64((uint64_t)n * size, sizeof(table));
	h.revision = le32_make(0x10000);
	h.size = le32_make(rng_percent(r, 80) ? sizeof(h) : (uint32_t)rng_next(r));
	h.mine = le64_make(rng_percent(r, 90) ? 1 : rng_next(r));
	h.other = le64_make(SECTORS - 1);
	h.first = le64_make(rng_percent(r, 80) ? 34 : rng_next(r));
	h.last = le64_make(rng_percent(r, 80) ? SECTORS - 34 : rng_next(r));
	h.table = le64_make(rng_percent(r, 80) ? 2 : rng_next(r));
	h.entries = le32_make(n);
	h.entry_size = le32_make(size);
	h.table_crc = le32_make((uint32_t)crc32(0, table, (uInt)bytes));
	h.crc = le32_make((uint32_t)crc32(0, (const Bytef *)&h, 92));
	put(fd, 1, &h, sizeof(h));
	return "GPT with absurd numbers";
}

const char *table_make(int fd, struct rng *r)
{
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)SECTORS * SECTOR) < 0)
		die("the disk cannot be cut");
	switch (rng_below(r, 5)) {
	case 0:
		return make_chain(fd, r);
	case 1:
	case 2:
		return make_mbr(fd, r);
	default:
		return make_gpt(fd, r);
	}
}
