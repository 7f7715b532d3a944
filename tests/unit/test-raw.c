// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Raw images: the last sector of a file that is not a multiple of it, and the rule that the guest
 * of an image whose format was guessed cannot write another format's header.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"
#include "io/doubles/pass.h"
#include "lib/disk.h"

static struct err e;

static void odd_end(void **state)
{
	struct io *file = disk_from_bytes("0123456789", 10, "odd.raw");
	struct img *img = disk_open(file, "raw", IMG_RDWR, NULL);
	char sector[512];

	(void)state;
	assert_int_equal(io_size(&img->io), 512);
	ok(io_pread(&img->io, sector, 512, 0, &e), &e);
	assert_memory_equal(sector, "0123456789\0\0\0", 13);
	ok(io_discard(&img->io, 0, 512, &e), &e);
	ok(io_discard(&img->io, 100, 412, &e), &e);
	ok(io_zero(&img->io, 5, 500, IO_ZERO_UNMAP, &e), &e);
	fails(io_discard(&img->io, 0, 513, &e), -EINVAL, &e, "past the end");
	ok(io_pwrite(&img->io, "x", 1, 511, &e), &e);
	assert_int_equal(io_size(file), 512);
	io_close(&img->io);
	io_close(file);
}

/* ---- headers ---- */

static const char header[8] = "QFI\xfb\0\0\0\3";

/* A disk that begins like an image of a format that we cannot read is not a raw disk. */
static void not_raw(void **state)
{
	static const char v1[4096] = "QFI\xfb\0\0\0\1";
	struct io *file = disk_from_bytes(v1, sizeof(v1), "old.qcow");
	struct img *img;

	(void)state;
	fails(img_open_io(file, NULL, 0, NULL, &img, &e), -ENOTSUP, &e, "version 1");
	ok(img_open_io(file, "raw", 0, NULL, &img, &e), &e);
	io_close(&img->io);
}

/* One header per format that QEMU would find by probing. */
static const struct {
	const char *name;
	size_t at, len;
	const char *magic;
} foreign[] = {
	{"VMDK", 0, 4, "KDMV"},
	{"VMDK", 0, 4, "COWD"},
	{"VMDK", 0, 21, "# Disk DescriptorFile"},
	{"VMDK", 0, 8, "\xbe\xba\xfe\xca\0\0\0\0"},
	{"VHDX", 0, 8, "vhdxfile"},
	{"VHD", 0, 8, "conectix"},
	{"VDI", 64, 4, "\x7f\x10\xda\xbe"},
	{"QED", 0, 4, "QED\0"},
	{"LUKS", 0, 6, "LUKS\xba\xbe"},
	{"Parallels", 0, 16, "WithoutFreeSpace"},
	{"Parallels", 0, 16, "WithouFreSpacExt"},
	{"Bochs", 0, 22, "Bochs Virtual HD Image"},
	{"cloop", 0, 23, "#!/bin/sh\n#V2.0 Format\n"},
};

static void foreign_is_not_raw(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
		char bytes[512];
		struct io *file;
		struct img *img;

		memset(bytes, 1, sizeof(bytes));
		memcpy(bytes + foreign[i].at, foreign[i].magic, foreign[i].len);
		file = disk_from_bytes(bytes, sizeof(bytes), "disk");
		fails(img_open_io(file, NULL, 0, NULL, &img, &e), -ENOTSUP, &e, foreign[i].name);
		img = disk_open(file, "raw", IMG_RDWR, NULL);
		io_close(&img->io);
		io_close(file);
		/* Cut in the middle of its magic it is nothing. */
		file = disk_from_bytes(bytes, foreign[i].at + foreign[i].len - 1, "disk");
		img = disk_open(file, NULL, 0, NULL);
		assert_string_equal(img->fmt->name, "raw");
		io_close(&img->io);
		io_close(file);
	}
}

static void no_foreign_header(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
		char bytes[4096];
		struct io *file;
		struct img *img;
		size_t last = foreign[i].at + foreign[i].len - 1;

		memset(bytes, 1, sizeof(bytes));
		file = disk_from_bytes(bytes, sizeof(bytes), "disk");
		img = disk_open(file, NULL, IMG_RDWR, NULL);
		fails(io_pwrite(&img->io, foreign[i].magic, foreign[i].len, foreign[i].at, &e),
		      -EPERM, &e, "another image format");
		/* All but its last byte, then that one: as data, and where it is 0 as a zero. */
		ok(io_pwrite(&img->io, foreign[i].magic, foreign[i].len - 1, foreign[i].at, &e),
		   &e);
		fails(io_pwrite(&img->io, foreign[i].magic + foreign[i].len - 1, 1, last, &e),
		      -EPERM, &e, "another image format");
		if (foreign[i].magic[foreign[i].len - 1] == 0)
			fails(io_zero(&img->io, last, 600, IO_ZERO_UNMAP, &e), -EPERM, &e,
			      "another image format");
		ok(io_zero(&img->io, 0, 4096, IO_ZERO_UNMAP, &e), &e);
		io_close(&img->io);
		io_close(file);
	}
}

static void no_new_format(void **state)
{
	struct io *file = disk_from_bytes(&(char[4096]){0}, 4096, "guessed.raw");
	struct img *img = disk_open(file, NULL, IMG_RDWR, NULL);

	(void)state;
	fails(io_pwrite(&img->io, header, 8, 0, &e), -EPERM, &e, "another image format");
	ok(io_pwrite(&img->io, header, 4, 0, &e), &e);
	fails(io_pwrite(&img->io, header + 4, 4, 4, &e), -EPERM, &e, "another image format");
	ok(io_pwrite(&img->io, header, 8, 512, &e), &e);
	io_close(&img->io);
	/* Who says what it is knows. */
	img = disk_open(file, "raw", IMG_RDWR, NULL);
	ok(io_pwrite(&img->io, header, 8, 0, &e), &e);
	io_close(&img->io);
	io_close(file);
}

/* A file whose first write takes its time: until another write has come, or will not come. */
struct slow {
	struct pass pass; /* first */
	pthread_mutex_t lock;
	pthread_cond_t come;
	unsigned writes;
};

static int slow_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	return io_pread(pass_of(io)->inner, buf, len, off, err);
}

static int slow_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct slow *s = (struct slow *)(void *)io;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 200000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&s->lock);
	s->writes++;
	pthread_cond_broadcast(&s->come);
	while (s->writes < 2 && pthread_cond_timedwait(&s->come, &s->lock, &until) == 0)
		;
	pthread_mutex_unlock(&s->lock);
	return io_pwrite(pass_of(io)->inner, buf, len, off, err);
}

static const struct io_ops slow_ops = {
	.name = "slow",
	.pread = slow_pread,
	.pwrite = slow_pwrite,
	.map = pass_map,
	.close = pass_close,
};

static void *write_second_half(void *arg)
{
	struct img *img = arg;

	/* One of the two is refused; which one is up to them. */
	return io_pwrite(&img->io, header + 4, 4, 4, NULL) < 0 ? img : NULL;
}

static void no_new_format_in_two_halves(void **state)
{
	struct io *file = disk_from_bytes(&(char[4096]){0}, 4096, "guessed.raw");
	struct slow *s = calloc(1, sizeof(*s));
	bool first, second;
	pthread_t thread;
	struct img *img;
	void *refused;

	(void)state;
	ok(pass_init(&s->pass, &slow_ops, file, false, &e), &e);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->come, NULL);
	ok(img_open_io(&s->pass.io, NULL, IMG_RDWR, NULL, &img, &e), &e);
	assert_int_equal(pthread_create(&thread, NULL, write_second_half, img), 0);
	first = io_pwrite(&img->io, header, 4, 0, NULL) < 0;
	pthread_join(thread, &refused);
	second = refused != NULL;
	assert_int_equal(first + second, 1);
	io_close(&img->io);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(odd_end),
		cmocka_unit_test(not_raw),
		cmocka_unit_test(foreign_is_not_raw),
		cmocka_unit_test(no_foreign_header),
		cmocka_unit_test(no_new_format),
		cmocka_unit_test(no_new_format_in_two_halves),
	};

	return cmocka_run_group_tests_name("raw", tests, NULL, NULL);
}
