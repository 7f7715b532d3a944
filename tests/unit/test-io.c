// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* io/io: what the wrappers check before a backend is called, and what they do in its place. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/work.h"
#include "io/io.h"

/* A backend of 1000 bytes that counts calls and answers as told. */
struct fake {
	struct io io; /* first */
	unsigned char bytes[1000];
	int preads, pwrites, zeros, discards, flushes, resizes;
	int zero_result, discard_result;
};

static struct fake *fake_of(struct io *io)
{
	return (struct fake *)(void *)io;
}

static int fake_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	(void)err;
	fake_of(io)->preads++;
	memcpy(buf, fake_of(io)->bytes + off, len);
	return 0;
}

static int fake_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	(void)err;
	fake_of(io)->pwrites++;
	if (off + len <= sizeof(fake_of(io)->bytes))
		memcpy(fake_of(io)->bytes + off, buf, len);
	return 0;
}

static int fake_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	(void)off;
	(void)len;
	(void)flags;
	(void)err;
	fake_of(io)->zeros++;
	return fake_of(io)->zero_result;
}

static int fake_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	(void)off;
	(void)len;
	(void)err;
	fake_of(io)->discards++;
	return fake_of(io)->discard_result;
}

static int fake_flush(struct io *io, struct err *err)
{
	(void)err;
	fake_of(io)->flushes++;
	return 0;
}

static int fake_resize(struct io *io, uint64_t size, struct err *err)
{
	(void)size;
	(void)err;
	fake_of(io)->resizes++;
	return 0;
}

static void fake_close(struct io *io)
{
	free(fake_of(io));
}

static const struct io_ops all_ops = {
	.name = "fake",
	.pread = fake_pread,
	.pwrite = fake_pwrite,
	.zero = fake_zero,
	.discard = fake_discard,
	.flush = fake_flush,
	.resize = fake_resize,
	.close = fake_close,
};

static const struct io_ops few_ops = {
	.name = "fake",
	.pread = fake_pread,
	.pwrite = fake_pwrite,
	.close = fake_close,
};

static struct fake *make(const struct io_ops *ops, unsigned caps)
{
	struct fake *f = calloc(1, sizeof(*f));
	struct err e = {0};

	assert_non_null(f);
	ok(io_init(&f->io, ops, "disk", &e), &e);
	atomic_init(&f->io.size, sizeof(f->bytes));
	f->io.caps = caps;
	memset(f->bytes, 'x', sizeof(f->bytes));
	return f;
}

static void ranges_are_checked(void **state)
{
	struct fake *f = make(&all_ops, 0);
	struct io *io = &f->io;
	struct extent x;
	struct err e;
	char buf[8];

	(void)state;
	assert_int_equal(io->align, 1);
	fails(io_pread(io, buf, 8, 993, &e), -EINVAL, &e,
	      "disk: read of 8 bytes at offset 993 is past the end (size 1000)");
	fails(io_pread(io, buf, 8, UINT64_MAX - 3, &e), -EINVAL, &e, "past the end");
	fails(io_pwrite(io, buf, 8, 993, &e), -ENOSPC, &e, "past the end");
	fails(io_pwrite(io, buf, 8, UINT64_MAX - 3, &e), -EFBIG, &e, "out of range");
	fails(io_zero(io, 993, 8, 0, &e), -EINVAL, &e, "past the end");
	fails(io_zero(io, 8, UINT64_MAX, 0, &e), -EFBIG, &e, "out of range");
	fails(io_discard(io, 993, 8, &e), -EINVAL, &e, "past the end");
	fails(io_discard(io, 8, UINT64_MAX, &e), -EINVAL, &e, "past the end");
	fails(io_map(io, 993, 8, &x, &e), -EINVAL, &e, "past the end");
	fails(io_map(io, 5, 0, &x, &e), -EINVAL, &e, "map of no bytes");
	fails(io_resize(io, (uint64_t)INT64_MAX + 1, &e), -EFBIG, &e, "out of range");
	/* Nothing to do is fine anywhere, and nobody is asked. */
	assert_int_equal(io_pread(io, buf, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(io_pwrite(io, buf, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(io_zero(io, UINT64_MAX, 0, 0, NULL), 0);
	assert_int_equal(io_discard(io, UINT64_MAX, 0, NULL), 0);
	assert_int_equal(f->preads + f->pwrites + f->zeros + f->discards + f->resizes, 0);
	io_close(io);
	io_close(NULL);
}

static void read_only_is_read_only(void **state)
{
	struct fake *f = make(&all_ops, IO_RDONLY | IO_GROWS);
	struct io *io = &f->io;
	struct err e;
	char buf[8] = "";

	(void)state;
	fails(io_pwrite(io, buf, 8, 0, &e), -EROFS, &e, "disk: write: opened read-only");
	fails(io_zero(io, 0, 8, 0, &e), -EROFS, &e, "zero: opened read-only");
	fails(io_discard(io, 0, 8, &e), -EROFS, &e, "discard: opened read-only");
	fails(io_resize(io, 8, &e), -EROFS, &e, "resize: opened read-only");
	assert_int_equal(io_flush(io, &e), 0);
	assert_int_equal(f->pwrites + f->zeros + f->discards + f->resizes + f->flushes, 0);
	io_close(io);
}

static void growing_moves_the_end(void **state)
{
	struct fake *f = make(&all_ops, IO_GROWS);
	struct err e = {0};

	(void)state;
	ok(io_pwrite(&f->io, "abc", 3, 5000, &e), &e);
	assert_int_equal(io_size(&f->io), 5003);
	ok(io_zero(&f->io, 6000, 10, 0, &e), &e);
	assert_int_equal(io_size(&f->io), 6010);
	ok(io_pwrite(&f->io, "abc", 3, 0, &e), &e);
	assert_int_equal(io_size(&f->io), 6010);
	f->zero_result = -EIO;
	assert_int_equal(io_zero(&f->io, 7000, 10, 0, NULL), -EIO);
	assert_int_equal(io_size(&f->io), 6010);
	io_close(&f->io);
}

static int note_ends(void *ctx, unsigned worker, struct err *err)
{
	(void)err;
	for (uint64_t i = 1; i <= 10000; i++)
		io_note_end(ctx, i * 4 + worker);
	return 0;
}

static void end_is_the_highest_of_all_threads(void **state)
{
	struct fake *f = make(&all_ops, IO_GROWS);

	(void)state;
	assert_int_equal(work_run(4, note_ends, &f->io, NULL), 0);
	assert_int_equal(io_size(&f->io), 40003);
	io_close(&f->io);
}

static void tail_reads_as_zeros(void **state)
{
	struct fake *f = make(&all_ops, 0);
	struct err e = {0};
	char buf[8];

	(void)state;
	ok(io_pread_tail(&f->io, buf, 8, 996, &e), &e);
	assert_memory_equal(buf, "xxxx\0\0\0\0", 8);
	ok(io_pread_tail(&f->io, buf, 8, 5000, &e), &e);
	assert_memory_equal(buf, "\0\0\0\0\0\0\0\0", 8);
	ok(io_pread_tail(&f->io, buf, 8, 0, &e), &e);
	assert_memory_equal(buf, "xxxxxxxx", 8);
	assert_int_equal(f->preads, 2);
	io_close(&f->io);
}

static void zeros_are_written_where_they_cannot_be_made(void **state)
{
	static const struct io_ops *const kinds[] = {&all_ops, &few_ops};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct fake *f = make(kinds[i], IO_GROWS);
		struct err e = {0};

		f->zero_result = -ENOTSUP;
		assert_int_equal(io_zero(&f->io, 10, 20, IO_ZERO_FAST, NULL), -ENOTSUP);
		assert_int_equal(f->pwrites, 0);
		ok(io_zero(&f->io, 10, 20, IO_ZERO_UNMAP, &e), &e);
		assert_true(f->bytes[9] == 'x' && bytes_are_zero(f->bytes + 10, 20) &&
			    f->bytes[30] == 'x');
		assert_int_equal(f->pwrites, 1);
		/* Large ranges in pieces of the zero buffer. */
		ok(io_zero(&f->io, 1000, 3 * ZERO_BUF_SIZE + 1, 0, &e), &e);
		assert_int_equal(f->pwrites, 5);
		assert_int_equal(io_size(&f->io), 1001 + 3 * ZERO_BUF_SIZE);
		io_close(&f->io);
	}
}

static void what_a_backend_lacks(void **state)
{
	struct fake *f = make(&few_ops, 0);
	struct extent x;
	struct err e = {0};

	(void)state;
	ok(io_discard(&f->io, 0, 10, &e), &e);
	ok(io_flush(&f->io, &e), &e);
	ok(io_map(&f->io, 7, 10, &x, &e), &e);
	assert_true(x.kind == EXT_DATA && x.off == 7 && x.len == 10 && x.host == 7 && !x.depth);
	assert_ptr_equal(x.io, &f->io);
	fails(io_resize(&f->io, 10, &e), -ENOTSUP, &e, "disk: a fake cannot be resized");
	io_close(&f->io);
	f = make(&all_ops, 0);
	f->discard_result = -ENOTSUP;
	ok(io_discard(&f->io, 0, 10, &e), &e);
	f->discard_result = -EIO;
	assert_int_equal(io_discard(&f->io, 0, 10, NULL), -EIO);
	assert_int_equal(f->discards, 2);
	io_close(&f->io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_are_checked),
		cmocka_unit_test(read_only_is_read_only),
		cmocka_unit_test(growing_moves_the_end),
		cmocka_unit_test(end_is_the_highest_of_all_threads),
		cmocka_unit_test(tail_reads_as_zeros),
		cmocka_unit_test(zeros_are_written_where_they_cannot_be_made),
		cmocka_unit_test(what_a_backend_lacks),
	};

	return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
