// SPDX-License-Identifier: GPL-2.0-or-later
/* io/window and io/concat: requests are moved and split, extents translated, edges kept. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "io/doubles.h"
#include "io/window.h"

/* A mem io whose byte i is first + i. */
static struct io *counted(const char *name, size_t size, unsigned char first)
{
	unsigned char *b = malloc(size ? size : 1);
	struct err e = {0};
	struct io *io;

	assert_non_null(b);
	for (size_t i = 0; i < size; i++)
		b[i] = (unsigned char)(first + i);
	ok(mem_open(name, 0, &io, &e), &e);
	ok(io_pwrite(io, b, size, 0, &e), &e);
	free(b);
	return io;
}

static void window_moves_requests(void **state)
{
	struct io *inner = counted("disk", 100, 0), *w;
	unsigned char buf[20];
	struct extent x;
	struct err e = {0};

	(void)state;
	ok(window_open(inner, 40, 20, true, &w, &e), &e);
	assert_int_equal(io_size(w), 20);
	ok(io_pread(w, buf, 20, 0, &e), &e);
	assert_true(buf[0] == 40 && buf[19] == 59);
	ok(io_pwrite(w, "xy", 2, 18, &e), &e);
	ok(io_zero(w, 0, 2, 0, &e), &e);
	ok(io_pread(inner, buf, 20, 40, &e), &e);
	assert_memory_equal(buf + 18, "xy", 2);
	assert_memory_equal(buf, "\0\0", 2);
	ok(io_map(w, 5, 15, &x, &e), &e);
	assert_true(x.kind == EXT_DATA && x.off == 5 && x.len == 15 && x.host == 45);
	assert_ptr_equal(x.io, inner);
	ok(io_flush(w, &e), &e);
	ok(io_discard(w, 0, 20, &e), &e);
	io_close(w);
}

static void window_has_hard_edges(void **state)
{
	struct io *inner = counted("disk", 100, 0), *w;
	unsigned char buf[20];
	struct extent x;
	struct err e = {0};

	(void)state;
	ok(window_open(inner, 80, 20, false, &w, &e), &e);
	fails(io_pread(w, buf, 2, 19, &e), -EINVAL, &e, "past the end");
	/* inner could grow, the window may not. */
	fails(io_pwrite(w, "xy", 2, 19, &e), -ENOSPC, &e, "past the end");
	fails(io_zero(w, 19, 2, 0, &e), -EINVAL, &e, "past the end");
	fails(io_map(w, 20, 1, &x, &e), -EINVAL, &e, "past the end");
	fails(io_resize(w, 10, &e), -ENOTSUP, &e, "window cannot be resized");
	assert_int_equal(io_size(inner), 100);
	io_close(w);
	fails(window_open(inner, 90, 11, true, &w, &e), -EINVAL, &e, "past the end");
	fails(window_open(inner, UINT64_MAX, 2, true, &w, &e), -EINVAL, &e, "past the end");
	/* Not taken when it failed. */
	ok(io_pread(inner, buf, 1, 0, &e), &e);
	ok(window_open(inner, 100, 0, true, &w, &e), &e);
	io_close(w);
}

static void window_aligns_as_its_start_allows(void **state)
{
	struct io *inner = counted("disk", 8192, 0), *w;
	struct err e = {0};

	(void)state;
	inner->align = 512;
	ok(window_open(inner, 1024, 100, false, &w, &e), &e);
	assert_int_equal(w->align, 512);
	io_close(w);
	ok(window_open(inner, 1000, 100, false, &w, &e), &e);
	assert_int_equal(w->align, 1);
	io_close(w);
	inner->caps |= IO_RDONLY;
	ok(window_open(inner, 0, 100, true, &w, &e), &e);
	fails(io_pwrite(w, "x", 1, 0, &e), -EROFS, &e, "read-only");
	io_close(w);
}

/* Parts of 10, 0, 5, 20 and 0 bytes; byte i of the whole is i. */
static struct io *five_parts(struct io **parts)
{
	struct err e = {0};
	struct io *io;

	parts[0] = counted("p0", 10, 0);
	parts[1] = counted("p1", 0, 0);
	parts[2] = counted("p2", 5, 10);
	parts[3] = counted("p3", 20, 15);
	parts[4] = counted("p4", 0, 0);
	ok(concat_open(parts, 5, true, &io, &e), &e);
	return io;
}

static void concat_splits_requests(void **state)
{
	struct io *parts[5], *io = five_parts(parts);
	unsigned char buf[35], model[35];
	struct err e = {0};

	(void)state;
	assert_int_equal(io_size(io), 35);
	for (unsigned i = 0; i < 35; i++)
		model[i] = (unsigned char)i;
	for (unsigned off = 0; off < 35; off++) {
		for (unsigned len = 0; off + len <= 35; len++) {
			ok(io_pread(io, buf, len, off, &e), &e);
			assert_memory_equal(buf, model + off, len);
		}
	}
	memset(buf, 'w', 20);
	memset(model + 8, 'w', 20);
	ok(io_pwrite(io, buf, 20, 8, &e), &e);
	memset(model + 9, 0, 7);
	ok(io_zero(io, 9, 7, 0, &e), &e);
	ok(io_pread(io, buf, 35, 0, &e), &e);
	assert_memory_equal(buf, model, 35);
	ok(io_pread(parts[2], buf, 5, 0, &e), &e);
	assert_memory_equal(buf, model + 10, 5);
	ok(io_discard(io, 0, 35, &e), &e);
	ok(io_flush(io, &e), &e);
	fails(io_pwrite(io, buf, 2, 34, &e), -ENOSPC, &e, "past the end");
	fails(io_pread(io, buf, 2, 34, &e), -EINVAL, &e, "past the end");
	io_close(io);
}

static void concat_maps_to_the_part(void **state)
{
	struct io *parts[5], *io = five_parts(parts);
	struct err e = {0};
	struct extent x;

	(void)state;
	ok(io_map(io, 3, 32, &x, &e), &e);
	assert_true(x.off == 3 && x.len == 7 && x.host == 3 && x.io == parts[0]);
	ok(io_map(io, 10, 25, &x, &e), &e);
	assert_true(x.off == 10 && x.len == 5 && x.host == 0 && x.io == parts[2]);
	ok(io_map(io, 17, 4, &x, &e), &e);
	assert_true(x.off == 17 && x.len == 4 && x.host == 2 && x.io == parts[3]);
	io_close(io);
}

/* A change that touches a part that cannot be changed changes none. */
static void concat_respects_read_only_parts(void **state)
{
	struct io *parts[5], *io;
	unsigned char buf[12];
	struct err e = {0};

	(void)state;
	parts[0] = counted("rw", 10, 0);
	parts[1] = counted("ro", 10, 10);
	parts[1]->caps |= IO_RDONLY;
	ok(concat_open(parts, 2, false, &io, &e), &e);
	memset(buf, 'w', sizeof(buf));
	fails(io_pwrite(io, buf, 12, 4, &e), -EROFS, &e, "ro: opened read-only");
	fails(io_zero(io, 4, 12, 0, &e), -EROFS, &e, "ro: opened read-only");
	fails(io_discard(io, 4, 12, &e), -EROFS, &e, "ro: opened read-only");
	ok(io_pread(io, buf, 12, 4, &e), &e);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(buf[i], i + 4);
	ok(io_pwrite(io, "x", 1, 9, &e), &e);
	io_close(io);
	parts[0]->caps |= IO_RDONLY;
	ok(concat_open(parts, 2, true, &io, &e), &e);
	fails(io_pwrite(io, buf, 1, 0, &e), -EROFS, &e, "read-only");
	io_close(io);
}

static void concat_flushes_all_parts(void **state)
{
	struct fault_plan plan = {.fail_at = 1, .code = EIO, .sticky = true, .writes_only = true};
	struct trace_stats st[2] = {{0}, {0}};
	struct io *parts[2], *io;
	struct err e = {0};

	(void)state;
	ok(fault_open(counted("a", 10, 0), true, &plan, &parts[0], &e), &e);
	ok(trace_open(counted("b", 10, 0), true, &st[1], &parts[1], &e), &e);
	ok(concat_open(parts, 2, true, &io, &e), &e);
	fails(io_flush(io, &e), -EIO, &e, "a: flush");
	assert_int_equal(st[1].flushes, 1);
	io_close(io);
}

static void concat_refuses_what_overflows(void **state)
{
	struct io *parts[2], *io;
	struct err e = {0};

	(void)state;
	ok(mem_open("a", INT64_MAX, &parts[0], &e), &e);
	ok(mem_open("b", 1, &parts[1], &e), &e);
	fails(concat_open(parts, 2, true, &io, &e), -EFBIG, &e, "too large");
	parts[0]->align = parts[1]->align = 4096;
	ok(concat_open(parts, 1, true, &io, &e), &e);
	assert_int_equal(io->align, 4096);
	io_close(io);
	io_close(parts[1]);
	ok(concat_open(NULL, 0, true, &io, &e), &e);
	assert_int_equal(io_size(io), 0);
	ok(io_flush(io, &e), &e);
	io_close(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(window_moves_requests),
		cmocka_unit_test(window_has_hard_edges),
		cmocka_unit_test(window_aligns_as_its_start_allows),
		cmocka_unit_test(concat_splits_requests),
		cmocka_unit_test(concat_maps_to_the_part),
		cmocka_unit_test(concat_respects_read_only_parts),
		cmocka_unit_test(concat_flushes_all_parts),
		cmocka_unit_test(concat_refuses_what_overflows),
	};

	return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
