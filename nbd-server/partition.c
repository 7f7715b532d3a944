// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Partition tables: the MBR with the chain of logical partitions, and GPT (UEFI 2.10, chapter 5),
 * both of sectors of 512 bytes, GPT also of 4096. What a table says is a stranger's word: each
 * number is checked against the disk, the chain has a bounded length, the array of entries a
 * bounded size. A GPT whose first copy fails its checks is read from the copy at the disk's end.
 */
#include "nbd-server/partition.h"

#include <errno.h>
#include <inttypes.h>
#include <zlib.h>

#include "base/bytes.h"

#define SECTOR      512u
#define MAX_SECTOR  4096u
#define MAX_LOGICAL 256u       /* boot records in the chain of logical partitions */
#define MAX_ENTRIES (1u << 20) /* bytes of GPT entries; the usual table has 16 KiB */
#define ENTRY_PIECE 4096u      /* bytes of them that are read in one go */

/* ---- MBR ---- */

enum { TYPE_NONE = 0x00, TYPE_EXTENDED = 0x05, TYPE_GPT = 0xee };

struct mbr_entry {
	unsigned char active;       /* 0 */
	unsigned char first_chs[3]; /* 1 */
	unsigned char type;         /* 4 */
	unsigned char last_chs[3];  /* 5 */
	le32 first, count;          /* 8, 12: sectors */
};
struct mbr {
	unsigned char code[446];
	struct mbr_entry entry[4]; /* 446 */
	unsigned char magic[2];    /* 510: 55 aa */
};
_Static_assert(sizeof(struct mbr) == SECTOR, "layout");

static bool is_extended(const struct mbr_entry *e)
{
	return e->type == TYPE_EXTENDED || e->type == 0x0f || e->type == 0x85;
}

static bool is_used(const struct mbr_entry *e)
{
	return e->type != TYPE_NONE && le32_get(e->count) != 0;
}

/* False: there is no such table. */
static int read_mbr(struct io *disk, uint64_t at, struct mbr *mbr, bool *there, struct err *err)
{
	int r;

	*there = false;
	if (io_size(disk) < SECTOR || at > io_size(disk) - SECTOR)
		return 0;
	r = io_pread(disk, mbr, sizeof(*mbr), at, err);
	*there = r == 0 && mbr->magic[0] == 0x55 && mbr->magic[1] == 0xaa;
	return r;
}

static int no_partition(struct io *disk, unsigned number, struct err *err)
{
	return err_set(err, ENOENT, "%s: there is no partition %u", disk->name, number);
}

/* at: of the table's field, for messages. */
static int give(struct io *disk, uint64_t start, uint64_t size, uint64_t at, struct partition *out,
		struct err *err)
{
	uint64_t end;

	if (!add_ok(start, size, &end) || end > io_size(disk))
		return io_corrupt(disk, err, at,
				  "a partition of %" PRIu64 " bytes at %" PRIu64
				  " reaches past the end of the disk (%" PRIu64 " bytes)",
				  size, start, io_size(disk));
	*out = (struct partition){.start = start, .size = size};
	return 0;
}

static int give_mbr(struct io *disk, const struct mbr *mbr, unsigned i, uint64_t at,
		    struct partition *out, struct err *err)
{
	const struct mbr_entry *e = &mbr->entry[i];

	return give(disk, at + (uint64_t)le32_get(e->first) * SECTOR,
		    (uint64_t)le32_get(e->count) * SECTOR,
		    at + offsetof(struct mbr, entry) + i * sizeof(*e), out, err);
}

/*
 * The chain of boot records inside of an extended partition at byte `base`. Each names partitions
 * relative to itself, and the next one relative to base. *number counts down to the one that is
 * looked for; 0 when *out is it.
 */
static int follow_chain(struct io *disk, uint64_t base, unsigned *number, struct partition *out,
			struct err *err)
{
	uint64_t at = base;

	for (unsigned n = 0; n < MAX_LOGICAL; n++) {
		const struct mbr_entry *link = NULL;
		struct mbr mbr;
		bool there;
		int r = read_mbr(disk, at, &mbr, &there, err);

		if (r < 0 || !there)
			return r;
		for (unsigned i = 0; i < 4; i++) {
			const struct mbr_entry *e = &mbr.entry[i];

			if (is_used(e) && is_extended(e)) {
				link = link ? link : e;
			} else if (i < 2 && is_used(e) && --*number == 0) {
				return give_mbr(disk, &mbr, i, at, out, err);
			}
		}
		if (!link)
			return 0;
		at = base + (uint64_t)le32_get(link->first) * SECTOR;
	}
	return io_corrupt(disk, err, at, "more than %u logical partitions, or a loop of them",
			  MAX_LOGICAL);
}

static int find_logical(struct io *disk, const struct mbr *mbr, unsigned number,
			struct partition *out, struct err *err)
{
	unsigned left = number - 4;
	int r = 0;

	for (unsigned i = 0; i < 4 && r == 0 && left; i++) {
		const struct mbr_entry *e = &mbr->entry[i];

		if (is_used(e) && is_extended(e))
			r = follow_chain(disk, (uint64_t)le32_get(e->first) * SECTOR, &left, out,
					 err);
	}
	return r == 0 && left ? no_partition(disk, number, err) : r;
}

static int find_in_mbr(struct io *disk, const struct mbr *mbr, unsigned number,
		       struct partition *out, struct err *err)
{
	const struct mbr_entry *e;

	if (number > 4)
		return find_logical(disk, mbr, number, out, err);
	e = &mbr->entry[number - 1];
	if (!is_used(e))
		return no_partition(disk, number, err);
	if (is_extended(e))
		return err_set(err, EINVAL,
			       "%s: partition %u is the extended one; those inside of it have the "
			       "numbers from 5 on",
			       disk->name, number);
	return give_mbr(disk, mbr, number - 1, 0, out, err);
}

/* ---- GPT ---- */

struct gpt_header {
	unsigned char signature[8]; /* 0: "EFI PART" */
	le32 revision;              /* 8 */
	le32 size;                  /* 12: bytes of this header */
	le32 crc;                   /* 16: of the header, with zeros here */
	le32 reserved;              /* 20 */
	le64 self, other;           /* 24, 32: sectors of this header and of its copy */
	le64 first, last;           /* 40, 48: sectors for partitions */
	unsigned char guid[16];     /* 56 */
	le64 entries;               /* 72: sector */
	le32 n_entries, entry_size; /* 80, 84 */
	le32 entries_crc;           /* 88 */
};
struct gpt_entry {
	unsigned char type[16], guid[16]; /* 0: zeros: unused; 16 */
	le64 first, last;                 /* 32, 40: sectors, both inclusive */
};
_Static_assert(sizeof(struct gpt_header) == 92, "layout");
_Static_assert(sizeof(struct gpt_entry) == 48, "layout");

struct gpt {
	uint64_t sector;  /* bytes */
	uint64_t entries; /* byte of the array */
	uint32_t n_entries, entry_size;
	uint64_t first, last; /* sectors for partitions */
};

/* The header at byte `at`, with its CRC. False: it is not one, or it was changed. */
static int check_header(struct io *disk, uint64_t sector, uint64_t at, struct gpt_header *h,
			bool *good, struct err *err)
{
	unsigned char buf[MAX_SECTOR];
	uint32_t size;
	int r;

	*good = false;
	if (io_size(disk) < sector || at > io_size(disk) - sector)
		return 0;
	r = io_pread(disk, buf, sector, at, err);
	if (r < 0)
		return r;
	memcpy(h, buf, sizeof(*h));
	size = le32_get(h->size);
	if (memcmp(h->signature, "EFI PART", 8) != 0 || size < sizeof(*h) || size > sector)
		return 0;
	memset(buf + offsetof(struct gpt_header, crc), 0, sizeof(h->crc));
	*good = crc32(0, buf, size) == le32_get(h->crc) && le64_get(h->self) == at / sector;
	return 0;
}

/* The array of entries: its place, its size, its CRC. */
static int check_entries(struct io *disk, uint64_t sector, const struct gpt_header *h,
			 struct gpt *gpt, bool *good, struct err *err)
{
	uint64_t bytes = (uint64_t)le32_get(h->n_entries) * le32_get(h->entry_size), end;
	unsigned char buf[ENTRY_PIECE];
	uLong crc = crc32(0, NULL, 0);

	*good = false;
	*gpt = (struct gpt){.sector = sector,
			    .n_entries = le32_get(h->n_entries),
			    .entry_size = le32_get(h->entry_size),
			    .first = le64_get(h->first),
			    .last = le64_get(h->last)};
	if (gpt->entry_size < 128 || !is_pow2(gpt->entry_size) || bytes > MAX_ENTRIES ||
	    !mul_ok(le64_get(h->entries), sector, &gpt->entries) ||
	    !add_ok(gpt->entries, bytes, &end) || end > io_size(disk))
		return 0;
	for (uint64_t at = 0, n; at < bytes; at += n) {
		int r;

		n = min_u64(bytes - at, sizeof(buf));
		r = io_pread(disk, buf, n, gpt->entries + at, err);
		if (r < 0)
			return r;
		crc = crc32(crc, buf, (uInt)n);
	}
	*good = crc == le32_get(h->entries_crc);
	return 0;
}

static int try_copy(struct io *disk, uint64_t sector, uint64_t at, struct gpt *gpt, bool *good,
		    struct err *err)
{
	struct gpt_header h;
	int r = check_header(disk, sector, at, &h, good, err);

	return r < 0 || !*good ? r : check_entries(disk, sector, &h, gpt, good, err);
}

static int read_gpt(struct io *disk, struct gpt *gpt, struct err *err)
{
	static const unsigned sectors[] = {SECTOR, MAX_SECTOR};
	bool good = false;
	int r;

	for (unsigned i = 0; i < ARRAY_LEN(sectors); i++) {
		uint64_t sector = sectors[i], size = round_down(io_size(disk), sector);

		r = try_copy(disk, sector, sector, gpt, &good, err);
		if (r == 0 && !good && size >= sector)
			r = try_copy(disk, sector, size - sector, gpt, &good, err);
		if (r < 0 || good)
			return r;
	}
	return io_corrupt(disk, err, SECTOR,
			  "both copies of the partition table (GPT) are damaged");
}

static int find_in_gpt(struct io *disk, unsigned number, struct partition *out, struct err *err)
{
	uint64_t at, first, last, start, end;
	struct gpt_entry e;
	struct gpt gpt;
	int r = read_gpt(disk, &gpt, err);

	if (r < 0)
		return r;
	if (number > gpt.n_entries)
		return no_partition(disk, number, err);
	at = gpt.entries + (uint64_t)(number - 1) * gpt.entry_size;
	r = io_pread(disk, &e, sizeof(e), at, err);
	if (r < 0)
		return r;
	if (bytes_are_zero(e.type, sizeof(e.type)))
		return no_partition(disk, number, err);
	first = le64_get(e.first);
	last = le64_get(e.last);
	if (first > last || first < gpt.first || last > gpt.last ||
	    !mul_ok(first, gpt.sector, &start) || last == UINT64_MAX ||
	    !mul_ok(last + 1, gpt.sector, &end))
		return io_corrupt(disk, err, at,
				  "partition %u is from sector %" PRIu64 " to %" PRIu64
				  ", which is not inside of %" PRIu64 " to %" PRIu64,
				  number, first, last, gpt.first, gpt.last);
	return give(disk, start, end - start, at, out, err);
}

int partition_find(struct io *disk, unsigned number, struct partition *out, struct err *err)
{
	struct mbr mbr;
	bool there;
	int r = read_mbr(disk, 0, &mbr, &there, err);

	if (r < 0)
		return r;
	if (!there)
		return err_set(err, ENOENT, "%s: there is no partition table", disk->name);
	for (unsigned i = 0; i < 4; i++) {
		if (mbr.entry[i].type == TYPE_GPT)
			return find_in_gpt(disk, number, out, err);
	}
	return find_in_mbr(disk, &mbr, number, out, err);
}
