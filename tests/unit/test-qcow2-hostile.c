// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Writing to images whose tables lie: what belongs to somebody else is never overwritten, given
 * back or punched; the image is marked as corrupt and takes no more writes.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/qcow2.h"
#include "lib/disk.h"

#define CLUSTER UINT64_C(4096)
#define COVERS  (CLUSTER / 8 * CLUSTER) /* of one L2 table */
#define USED    16                      /* guest clusters with data, from 0 and from COVERS on */

static struct err e;

/* Where the tables of the image are, bytes. */
struct places {
	uint64_t reftable, refblock, l1, l2, l2_other, data;
};

static uint64_t peek(struct io *file, uint64_t off)
{
	be64 v;

	ok(io_pread(file, &v, sizeof(v), off, &e), &e);
	return be64_get(v);
}

static void poke(struct io *file, uint64_t off, uint64_t value)
{
	be64 v = be64_make(value);

	ok(io_pwrite(file, &v, sizeof(v), off, &e), &e);
}

static struct io *make(const char *opts, struct places *p)
{
	struct io *file = disk_new("hostile.qcow2");
	unsigned char *data = malloc(USED * CLUSTER);
	struct header h = {0};
	struct img *img;

	memset(data, 0x5a, USED * CLUSTER);
	disk_create(file, "qcow2", 4 * COVERS, opts, NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(io_pwrite(&img->io, data, USED * CLUSTER, 0, &e), &e);
	ok(io_pwrite(&img->io, data, USED * CLUSTER, COVERS, &e), &e);
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	free(data);
	ok(header_read(file, &h, &e), &e);
	*p = (struct places){.reftable = h.reftable_offset, .l1 = h.l1_offset};
	header_free(&h);
	p->refblock = peek(file, p->reftable);
	p->l2 = peek(file, p->l1) & ENTRY_OFFSET;
	p->l2_other = peek(file, p->l1 + 8) & ENTRY_OFFSET;
	p->data = peek(file, p->l2) & ENTRY_OFFSET;
	return file;
}

/* What may be done to a guest range. */
enum deed { WRITE, WRITE_PART, ZERO, DISCARD, DEEDS };

static int act(struct img *img, enum deed deed, uint64_t off, struct err *err)
{
	static const unsigned char buf[CLUSTER] = {1, 2, 3};
	int r;

	switch (deed) {
	case WRITE:
		r = io_pwrite(&img->io, buf, CLUSTER, off, err);
		break;
	case WRITE_PART:
		r = io_pwrite(&img->io, buf, 512, off + 512, err);
		break;
	case ZERO:
		r = io_zero(&img->io, off, CLUSTER, IO_ZERO_UNMAP, err);
		break;
	default:
		r = io_discard(&img->io, off, CLUSTER, err);
		break;
	}
	return r < 0 ? r : io_flush(&img->io, err);
}

/* The tables, as bytes; of the header what follows the feature bits. */
static unsigned char *tables(struct io *file, const struct places *p, size_t *len)
{
	const uint64_t at[] = {p->reftable, p->refblock, p->l1, p->l2, p->l2_other};
	unsigned char *all = calloc(6, CLUSTER);

	ok(io_pread(file, all, CLUSTER - 80, 80, &e), &e);
	for (size_t i = 0; i < ARRAY_LEN(at); i++)
		ok(io_pread(file, all + (i + 1) * CLUSTER, CLUSTER, at[i], &e), &e);
	*len = 6 * CLUSTER;
	return all;
}

/* Does the deed, which must fail, and must leave all tables and the refcount of `host` alone. */
static void refused(struct io *file, const struct places *p, enum deed deed, uint64_t off)
{
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	unsigned char *before, *after;
	struct header h = {0};
	size_t len;

	before = tables(file, p, &len);
	fails(act(img, deed, off, &e), -EUCLEAN, &e, "at offset");
	fails(act(img, WRITE, COVERS, &e), -EUCLEAN, &e, "writes are refused");
	io_close(&img->io);
	after = tables(file, p, &len);
	assert_memory_equal(before, after, len);
	free(before);
	free(after);
	ok(header_read(file, &h, &e), &e);
	assert_true(h.version < 3 || (h.incompat & INCOMPAT_CORRUPT));
	header_free(&h);
}

/* ---- L2 entries ---- */

static void data_entry_on_metadata(void **state)
{
	static const uint64_t flags[] = {0, ENTRY_COPIED, ENTRY_ZERO, ENTRY_COPIED | ENTRY_ZERO};
	(void)state;

	for (unsigned target = 0; target < 5; target++) {
		for (unsigned f = 0; f < ARRAY_LEN(flags); f++) {
			for (enum deed deed = 0; deed < DEEDS; deed++) {
				struct places p;
				struct io *file = make("cluster_size=4096", &p);
				const uint64_t at[] = {p.reftable, p.refblock, p.l1, p.l2,
						       p.l2_other};

				poke(file, p.l2 + 3 * 8, at[target] | flags[f]);
				refused(file, &p, deed, 3 * CLUSTER);
				io_close(file);
			}
		}
	}
}

/* Streams begin anywhere: the last byte of one may lie in the next cluster. */
static void coded_entry_on_metadata(void **state)
{
	(void)state;
	for (unsigned target = 0; target < 3; target++) {
		for (enum deed deed = 0; deed < DEEDS; deed++) {
			struct places p;
			struct io *file = make("cluster_size=4096", &p);
			const uint64_t at[] = {16, p.reftable, p.refblock - 100};

			poke(file, p.l2 + 3 * 8, coded_entry(at[target], 200, 12));
			/* A part of the cluster needs the rest of it, and that is no stream. */
			if (deed == WRITE_PART)
				deed = ZERO;
			refused(file, &p, deed, 3 * CLUSTER);
			io_close(file);
		}
	}
}

/* Of a run of clusters that are written at once, the last one lies. */
static void last_of_a_run(void **state)
{
	static const unsigned char buf[8 * CLUSTER];
	uint64_t bad[2];
	(void)state;

	for (unsigned i = 0; i < 2; i++) {
		struct places p;
		struct io *file = make("cluster_size=4096", &p);
		unsigned char *before, *after;
		struct img *img;
		size_t len;

		bad[0] = p.refblock;     /* metadata */
		bad[1] = p.data + 0x200; /* misaligned: which cluster would be given back? */
		for (unsigned k = 0; k < 8; k++)
			poke(file, p.l2 + k * 8, 0);
		poke(file, p.l2 + 7 * 8, bad[i]);
		before = tables(file, &p, &len);
		img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		fails(io_pwrite(&img->io, buf, sizeof(buf), 0, &e), -EUCLEAN, &e, "L2 entry");
		io_close(&img->io);
		after = tables(file, &p, &len);
		assert_memory_equal(before, after, len);
		free(before);
		free(after);
		io_close(file);
	}
}

/* A write through an entry that names space far behind the file: no file of that length. */
static void far_away(void **state)
{
	static const uint64_t flags[] = {ENTRY_COPIED, ENTRY_COPIED | ENTRY_ZERO};
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		struct places p;
		struct io *file = make("cluster_size=4096", &p);
		uint64_t size = io_size(file);

		poke(file, p.l2 + 3 * 8, UINT64_C(1) << 50 | flags[i]);
		refused(file, &p, WRITE_PART, 3 * CLUSTER);
		assert_int_equal(io_size(file), size);
		io_close(file);
	}
}

/* ---- tables ---- */

/* Whichever table is said to lie on whichever: nothing is written. */
static void tables_overlap(void **state)
{
	(void)state;
	for (unsigned compat = 0; compat < 2; compat++) {
		for (unsigned i = 0; i < 9; i++) {
			struct places p;
			struct io *file =
				make(compat ? "cluster_size=4096,compat=0.10" : "cluster_size=4096",
				     &p);
			const struct {
				uint64_t at, value;
			} lie[] = {
				{p.l1 + 16, p.l1 | ENTRY_COPIED},       {p.l1 + 16, p.l1},
				{p.l1 + 16, p.l2 | ENTRY_COPIED},       {p.l1 + 16, p.reftable},
				{p.l1 + 16, p.refblock | ENTRY_COPIED}, {p.reftable + 8, p.l1},
				{p.reftable + 8, p.refblock},           {p.reftable + 8, p.l2},
				{p.reftable + 8, p.reftable},
			};

			poke(file, lie[i].at, lie[i].value);
			refused(file, &p, i % DEEDS, 2 * COVERS);
			io_close(file);
		}
	}
}

/* ---- snapshots ---- */

/* The entry of the first snapshot lies about its L1 table, or that table about its L2 table. */
static void snapshot_on_metadata(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 7; i++) {
		struct places p;
		struct io *file = make("cluster_size=4096", &p);
		struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		unsigned char *before, *after;
		struct header h = {0};
		uint64_t table, l1;
		size_t len;

		ok(img_snapshot_create(img, "first", NULL, &e), &e);
		ok(img_snapshot_create(img, "second", NULL, &e), &e);
		io_close(&img->io);
		ok(header_read(file, &h, &e), &e);
		table = h.snapshots_offset;
		header_free(&h);
		l1 = peek(file, table);
		p.l1 = peek(file, 40); /* it was not moved, but who knows */
		if (i < 5) {
			const uint64_t at[] = {p.l1, p.reftable, p.refblock, p.l2, table};

			poke(file, table, at[i]);
		} else if (i == 5) {
			poke(file, (peek(file, l1) & ENTRY_OFFSET) + 8, p.reftable);
		} else { /* the same table a million times would take hours */
			poke(file, l1 + 8, peek(file, l1));
		}
		before = tables(file, &p, &len);
		img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		fails(img_snapshot_remove(img, 0, &e), -EUCLEAN, &e, "at offset");
		io_close(&img->io);
		after = tables(file, &p, &len);
		assert_memory_equal(before, after, len);
		free(before);
		free(after);
		io_close(file);
	}
}

/* What is open for a check only, because of what is broken, does not show a disk. */
static void broken_tables_are_not_used(void **state)
{
	const struct {
		uint64_t at, value;
	} lie[] = {{40, UINT64_C(1) << 40} /* L1 table */, {64, UINT64_C(1) << 40} /* snapshots */};
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(lie); i++) {
		struct places p;
		struct io *file = make("cluster_size=4096", &p);
		struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		struct check_result res;
		struct io *again;
		char byte;

		ok(img_snapshot_create(img, "first", NULL, &e), &e);
		io_close(&img->io);
		poke(file, lie[i].at, lie[i].value);
		again = disk_borrow(file);
		assert_true(img_open_io(again, "qcow2", IMG_RDWR, NULL, &img, &e) < 0);
		io_close(again);
		img = disk_open(file, "qcow2", IMG_RDWR | IMG_FOR_CHECK, NULL);
		fails(io_pread(&img->io, &byte, 1, 0, &e), -ENOTSUP, &e, "cannot be read");
		fails(io_pwrite(&img->io, "x", 1, 0, &e), -ENOTSUP, &e, "cannot be read");
		fails(img_snapshot_create(img, "more", NULL, &e), -ENOTSUP, &e, "cannot be read");
		img_check(img, 0, &res, NULL, NULL, &e);
		assert_true(res.corruptions + res.check_errors > 0);
		io_close(&img->io);
		io_close(file);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_entry_on_metadata),
		cmocka_unit_test(coded_entry_on_metadata),
		cmocka_unit_test(last_of_a_run),
		cmocka_unit_test(far_away),
		cmocka_unit_test(tables_overlap),
		cmocka_unit_test(snapshot_on_metadata),
		cmocka_unit_test(broken_tables_are_not_used),
	};

	return cmocka_run_group_tests_name("qcow2 tables that lie", tests, NULL, NULL);
}
