// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Partition tables: where partitions lie (interop/partitions.py asks sfdisk), and tables that are
 * damaged, lie, or run in circles.
 */
#include "unit.h"

#include <errno.h>
#include <zlib.h>

#include "base/bytes.h"
#include "io/doubles.h"
#include "nbd-server/partition.h"

#define SIZE (64 * MiB)

static struct err e;

static void put(struct io *io, uint64_t at, const void *data, size_t len)
{
	ok(io_pwrite(io, data, len, at, &e), &e);
}

static struct io *new_disk(uint64_t size)
{
	struct io *io;

	ok(mem_open("disk", size, &io, &e), &e);
	return io;
}

/* ---- MBR ---- */

static void put_mbr(struct io *io, uint64_t table, unsigned i, unsigned char type, uint32_t first,
		    uint32_t count)
{
	unsigned char entry[16] = {[4] = type};
	le32 f = le32_make(first), c = le32_make(count);

	memcpy(entry + 8, &f, 4);
	memcpy(entry + 12, &c, 4);
	put(io, table + 446 + 16 * i, entry, sizeof(entry));
	put(io, table + 510, "\x55\xaa", 2);
}

static void is_at(struct io *io, unsigned number, uint64_t start, uint64_t size)
{
	struct partition p;

	ok(partition_find(io, number, &p, &e), &e);
	assert_int_equal(p.start, start);
	assert_int_equal(p.size, size);
}

static void none(struct io *io, unsigned number, int code, const char *text)
{
	struct partition p;

	fails(partition_find(io, number, &p, &e), code, &e, text);
}

static void primary_partitions(void **state)
{
	struct io *io = new_disk(SIZE);

	(void)state;
	none(io, 1, -ENOENT, "no partition table");
	put_mbr(io, 0, 0, 0x83, 2048, 4096);
	put_mbr(io, 0, 3, 0x0c, 8192, (uint32_t)(SIZE / 512 - 8192));
	is_at(io, 1, 2048 * 512, 4096 * 512);
	is_at(io, 4, 8192 * 512, SIZE - 8192 * 512);
	none(io, 2, -ENOENT, "no partition 2");
	none(io, 5, -ENOENT, "no partition 5");
	put_mbr(io, 0, 3, 0x0c, 8192, (uint32_t)(SIZE / 512 - 8191));
	none(io, 4, -EUCLEAN, "reaches past the end");
	put_mbr(io, 0, 3, 0x0c, UINT32_MAX, UINT32_MAX);
	none(io, 4, -EUCLEAN, "offset 494");
	io_close(io);
}

static void logical_partitions(void **state)
{
	struct io *io = new_disk(SIZE);
	uint64_t base = 10000 * 512;

	(void)state;
	put_mbr(io, 0, 0, 0x83, 2048, 4096);
	put_mbr(io, 0, 1, 0x0f, 10000, 90000);
	none(io, 5, -ENOENT, "no partition 5"); /* no boot record there */
	put_mbr(io, base, 0, 0x83, 63, 1000);
	put_mbr(io, base, 1, 0x05, 2000, 3000);
	put_mbr(io, base + 2000 * 512, 0, 0x82, 64, 1001);
	is_at(io, 5, base + 63 * 512, 1000 * 512);
	is_at(io, 6, base + 2064 * 512, 1001 * 512);
	none(io, 7, -ENOENT, "no partition 7");
	none(io, 2, -EINVAL, "extended");
	/* An empty record in the middle takes no number. */
	put_mbr(io, base, 0, 0, 0, 0);
	is_at(io, 5, base + 2064 * 512, 1001 * 512);
	/* Back to the first one; and one that leads out of the disk. */
	put_mbr(io, base + 2000 * 512, 1, 0x05, 0, 1);
	none(io, 1000, -EUCLEAN, "loop");
	put_mbr(io, base + 2000 * 512, 1, 0x05, UINT32_MAX, 1);
	none(io, 6, -ENOENT, "no partition 6");
	io_close(io);
}

/* ---- GPT ---- */

struct table {
	uint64_t sector, first, last; /* of partition 2 */
	uint32_t n, entry_size;
};

static void put_le(unsigned char *at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (unsigned char)(v >> 8 * i);
}

/* One copy: its header in sector `self`, its entries from sector `entries` on. */
static void put_gpt(struct io *io, const struct table *t, uint64_t self, uint64_t entries)
{
	unsigned char h[92] = "EFI PART", array[64 * 128] = {0};
	size_t len = (size_t)min_u64((uint64_t)t->n * t->entry_size, sizeof(array));

	array[t->entry_size] = 0xaf; /* a type */
	put_le(array + t->entry_size + 32, t->first, 8);
	put_le(array + t->entry_size + 40, t->last, 8);
	put_le(h + 8, 0x10000, 4);
	put_le(h + 12, 92, 4);
	put_le(h + 24, self, 8);
	put_le(h + 40, 34, 8);
	put_le(h + 48, io_size(io) / t->sector - 34, 8);
	put_le(h + 72, entries, 8);
	put_le(h + 80, t->n, 4);
	put_le(h + 84, t->entry_size, 4);
	put_le(h + 88, crc32(0, array, (uInt)len), 4);
	put_le(h + 16, crc32(0, h, sizeof(h)), 4);
	put(io, self * t->sector, h, sizeof(h));
	put(io, entries * t->sector, array, len);
	put_mbr(io, 0, 0, 0xee, 1, UINT32_MAX);
}

static uint64_t last_sector(struct io *io, const struct table *t)
{
	return io_size(io) / t->sector - 1;
}

static struct io *gpt_disk(const struct table *t)
{
	struct io *io = new_disk(SIZE + 512);

	put_gpt(io, t, 1, 2);
	put_gpt(io, t, last_sector(io, t), last_sector(io, t) - 32);
	return io;
}

static const struct table usual = {512, 2048, 4095, 64, 128};

static void gpt_partitions(void **state)
{
	static const struct table tables[] = {{512, 2048, 4095, 64, 128},
					      {4096, 256, 256, 64, 128},
					      {512, 34, 34, 8, 1024}};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(tables); i++) {
		const struct table *t = &tables[i];
		struct io *io = gpt_disk(t);

		is_at(io, 2, t->first * t->sector, (t->last - t->first + 1) * t->sector);
		none(io, 1, -ENOENT, "no partition 1");
		none(io, t->n + 1, -ENOENT, "no partition");
		none(io, UINT32_MAX, -ENOENT, "no partition");
		io_close(io);
	}
}

static void gpt_backup_takes_over(void **state)
{
	static const uint64_t damage[] = {512, 512 + 30, 1024 + 128 + 33, 1024 + 63 * 128};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(damage); i++) {
		struct io *io = gpt_disk(&usual);
		uint64_t backup = last_sector(io, &usual) * 512;

		put(io, damage[i], "\xff", 1);
		is_at(io, 2, MiB, MiB);
		put(io, backup + 50, "\xff", 1);
		none(io, 2, -EUCLEAN, "both copies");
		io_close(io);
	}
}

static void gpt_that_lies(void **state)
{
	static const struct {
		struct table t;
		int code;
		const char *text;
	} cases[] = {
		{{512, 4095, 2048, 64, 128}, -EUCLEAN, "is from sector 4095 to 2048"},
		{{512, 1, 4095, 64, 128}, -EUCLEAN, "not inside"},
		{{512, 2048, UINT64_MAX, 64, 128}, -EUCLEAN, "not inside"},
		{{512, 2048, 1 << 20, 64, 128}, -EUCLEAN, "not inside"},
		{{512, 2048, 4095, 64, 96}, -EUCLEAN, "both copies"},
		{{512, 2048, 4095, UINT32_MAX, 128}, -EUCLEAN, "both copies"},
		{{512, 2048, 4095, 1 << 13, 256}, -EUCLEAN, "both copies"},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct io *io = gpt_disk(&cases[i].t);

		none(io, 2, cases[i].code, cases[i].text);
		io_close(io);
	}
}

static void small_disks(void **state)
{
	(void)state;
	for (uint64_t size = 0; size <= 2048; size += 256) {
		struct io *io = new_disk(size);

		none(io, 1, -ENOENT, "no partition table");
		if (size >= 512) {
			put_mbr(io, 0, 0, 0xee, 1, UINT32_MAX);
			none(io, 1, -EUCLEAN, "both copies");
		}
		io_close(io);
	}
}

/* Any byte of the tables that changes: an answer inside the disk or an error, never anything else. */
static void every_byte(void **state)
{
	struct io *io = gpt_disk(&usual), *mbr = new_disk(SIZE);

	(void)state;
	put_mbr(mbr, 0, 1, 0x0f, 10000, 90000);
	put_mbr(mbr, 10000 * 512, 0, 0x83, 63, 1000);
	put_mbr(mbr, 10000 * 512, 1, 0x05, 0, 3000);
	for (uint64_t at = 0; at < 1536; at++) {
		struct io *both[] = {io, mbr};

		for (unsigned i = 0; i < ARRAY_LEN(both); i++) {
			uint64_t place = i && at >= 1024 ? 10000 * 512 + at - 1024 : at;
			unsigned char old, new;
			struct partition p;

			ok(io_pread(both[i], &old, 1, place, &e), &e);
			new = (unsigned char)(old ^ 0x81);
			put(both[i], place, &new, 1);
			for (unsigned n = 1; n < 300; n += 4) {
				if (partition_find(both[i], n, &p, &e) == 0)
					assert_true(p.start <= SIZE && p.size <= SIZE - p.start);
			}
			put(both[i], place, &old, 1);
		}
	}
	io_close(io);
	io_close(mbr);
}

/* What the disk cannot read is said as it is. */
static void errors_of_the_disk(void **state)
{
	(void)state;
	for (uint64_t n = 1;; n++) {
		struct fault_plan plan = {.fail_at = n, .sticky = true, .code = EIO};
		struct io *io = gpt_disk(&usual), *bad;
		struct partition p;
		int r;

		ok(fault_open(io, true, &plan, &bad, &e), &e);
		r = partition_find(bad, 2, &p, &e);
		io_close(bad);
		if (r == 0)
			break;
		assert_int_equal(r, -EIO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(primary_partitions), cmocka_unit_test(logical_partitions),
		cmocka_unit_test(gpt_partitions),     cmocka_unit_test(gpt_backup_takes_over),
		cmocka_unit_test(gpt_that_lies),      cmocka_unit_test(small_disks),
		cmocka_unit_test(every_byte),         cmocka_unit_test(errors_of_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
