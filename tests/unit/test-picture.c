// SPDX-License-Identifier: GPL-2.0-or-later
/* Pictures of maps: bytes of each class per cell, and which class stands for a cell. */
#include "unit.h"

#include "base/bytes.h"
#include "disk.h"
#include "ops/picture.h"

static struct err e;

static uint64_t sum(const struct picture_cell *cell)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < PICTURE_CLASSES; i++)
		n += cell->bytes[i];
	return n;
}

static void cells_add_up(void **state)
{
	static const unsigned most[] = {1, 7, 64, 4096};
	struct io *file = disk_new("file.qcow2");
	unsigned char buf[8192];
	struct img *img;

	(void)state;
	memset(buf, 1, sizeof(buf));
	disk_create(file, "qcow2", 1 * MiB + 512, "cluster_size=4096", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(io_pwrite(&img->io, buf, sizeof(buf), 4096, &e), &e);
	ok(io_zero(&img->io, 65536, 4096, 0, &e), &e);
	ok(io_pwrite(&img->io, buf, 512, 1 * MiB, &e), &e);
	for (size_t i = 0; i < ARRAY_LEN(most); i++) {
		struct picture p = {0};
		uint64_t all = 0;

		ok(picture_take(img, 0, UINT64_MAX, most[i], &p, &e), &e);
		assert_true(p.n <= most[i] && p.per_cell % 512 == 0);
		for (unsigned k = 0; k < p.n; k++) {
			assert_true(sum(&p.cell[k]) ==
				    (k + 1 < p.n ? p.per_cell : sum(&p.cell[k])));
			all += sum(&p.cell[k]);
		}
		assert_int_equal(all, 1 * MiB + 512);
		assert_int_equal(p.total[PICTURE_DATA], 8192 + 512);
		assert_int_equal(p.total[PICTURE_ZERO] + p.total[PICTURE_HOLE], 1 * MiB - 8192);
		picture_free(&p);
	}
	io_close(&img->io);
	io_close(file);
}

/* A little data in a large hole is seen. */
static void stored_wins(void **state)
{
	struct picture_cell cell = {
		.bytes = {[PICTURE_DATA] = 10, [PICTURE_COMPRESSED] = 20, [PICTURE_HOLE] = 70}};
	struct picture_cell zeros = {.bytes = {[PICTURE_ZERO] = 10, [PICTURE_HOLE] = 30}};

	(void)state;
	assert_int_equal(picture_main(&cell), PICTURE_COMPRESSED);
	assert_int_equal(picture_stored(&cell), 30);
	assert_true(picture_share(&cell) > 0.19 && picture_share(&cell) < 0.21);
	assert_int_equal(picture_main(&zeros), PICTURE_HOLE);
	assert_int_equal(picture_stored(&zeros), 0);
}

/* A part of a disk; what is outside is not there. */
static void parts(void **state)
{
	struct io *file = disk_from_bytes("0123456789abcdef", 16, "raw");
	struct img *img = disk_open(file, "raw", 0, NULL);
	struct picture p = {0};

	(void)state;
	ok(picture_take(img, 4, 8, 100, &p, &e), &e);
	assert_true(p.n == 1 && p.start == 4 && p.end == 8 && p.total[PICTURE_DATA] == 4);
	picture_free(&p);
	ok(picture_take(img, 10000, 20000, 100, &p, &e), &e);
	assert_true(p.n == 0 && p.start == p.end);
	picture_free(&p);
	io_close(&img->io);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cells_add_up),
		cmocka_unit_test(stored_wins),
		cmocka_unit_test(parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
