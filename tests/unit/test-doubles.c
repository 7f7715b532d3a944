// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/* io/doubles: the test doubles do what the tests that rely on them believe. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/work.h"
#include "io/doubles.h"

/* ---- mem ---- */

static void mem_behaves_like_a_file(void **state)
{
	struct err e = {0};
	struct io *io;
	char buf[32];

	(void)state;
	ok(mem_open("disk", 100, &io, &e), &e);
	assert_string_equal(io->name, "disk");
	assert_int_equal(io_size(io), 100);
	ok(io_pwrite(io, "hello", 5, 200000, &e), &e);
	assert_int_equal(io_size(io), 200005);
	ok(io_pread(io, buf, 10, 199995, &e), &e);
	assert_memory_equal(buf, "\0\0\0\0\0hello", 10);
	fails(io_pread(io, buf, 10, 199996, &e), -EINVAL, &e, "past the end");
	ok(io_resize(io, 200002, &e), &e);
	ok(io_resize(io, 200010, &e), &e);
	ok(io_pread(io, buf, 10, 200000, &e), &e);
	assert_memory_equal(buf, "he\0\0\0\0\0\0\0\0", 10);
	ok(io_zero(io, 200001, 30, IO_ZERO_UNMAP, &e), &e);
	assert_int_equal(io_size(io), 200031);
	ok(io_pread(io, buf, 2, 200000, &e), &e);
	assert_memory_equal(buf, "h\0", 2);
	ok(io_flush(io, &e), &e);
	io_close(io);
}

/* A disk as large as it can be costs what is written to it. */
static void mem_is_sparse(void **state)
{
	const uint64_t far = INT64_MAX - 64 * KiB;
	struct err e = {0};
	struct extent x;
	struct io *io;
	char buf[4];

	(void)state;
	ok(mem_open("disk", INT64_MAX, &io, &e), &e);
	ok(io_map(io, 0, INT64_MAX, &x, &e), &e);
	assert_true(x.kind == EXT_ZERO && x.len == INT64_MAX && x.host == 0 && x.io == io);
	ok(io_pwrite(io, "data", 4, far, &e), &e);
	ok(io_pwrite(io, "data", 4, 128 * KiB - 2, &e), &e);
	ok(io_map(io, 5, INT64_MAX - 5, &x, &e), &e);
	assert_true(x.kind == EXT_ZERO && x.off == 5 && x.len == 64 * KiB - 5);
	ok(io_map(io, 64 * KiB, INT64_MAX / 2, &x, &e), &e);
	assert_true(x.kind == EXT_DATA && x.len == 128 * KiB && x.host == 64 * KiB);
	ok(io_pread(io, buf, 4, far, &e), &e);
	assert_memory_equal(buf, "data", 4);
	ok(io_discard(io, 64 * KiB, 64 * KiB + 1, &e), &e);
	ok(io_map(io, 64 * KiB, 1 * MiB, &x, &e), &e);
	assert_true(x.kind == EXT_ZERO && x.len == 64 * KiB);
	ok(io_pread(io, buf, 4, 128 * KiB - 2, &e), &e);
	assert_memory_equal(buf, "\0\0\0a", 4);
	io_close(io);
}

struct shared {
	struct io *io;
	unsigned workers;
};

/* Writes and checks every workers-th piece of 1000 bytes. */
static int write_own_pieces(void *ctx, unsigned worker, struct err *err)
{
	struct shared *s = ctx;
	char buf[1000], back[1000];

	for (unsigned i = worker; i < 400; i += s->workers) {
		int r;

		memset(buf, (int)(i % 251 + 1), sizeof(buf));
		r = io_pwrite(s->io, buf, sizeof(buf), i * sizeof(buf), err);
		if (r == 0)
			r = io_flush(s->io, err);
		if (r == 0)
			r = io_pread(s->io, back, sizeof(back), i * sizeof(buf), err);
		if (r < 0)
			return r;
		if (memcmp(buf, back, sizeof(buf)) != 0)
			return err_set(err, EIO, "piece %u reads back differently", i);
	}
	return 0;
}

static void check_pieces(struct io *io)
{
	char buf[1000], want[1000];
	struct err e = {0};

	for (unsigned i = 0; i < 400; i++) {
		memset(want, (int)(i % 251 + 1), sizeof(want));
		ok(io_pread(io, buf, sizeof(buf), i * sizeof(buf), &e), &e);
		assert_memory_equal(buf, want, sizeof(buf));
	}
}

static void mem_serves_threads(void **state)
{
	struct shared s = {.workers = 4};
	struct err e = {0};

	(void)state;
	ok(mem_open("disk", 0, &s.io, &e), &e);
	ok(work_run(s.workers, write_own_pieces, &s, &e), &e);
	assert_int_equal(io_size(s.io), 400000);
	check_pieces(s.io);
	io_close(s.io);
}

/* ---- fault ---- */

static void fault_fails_the_nth_call(void **state)
{
	struct fault_plan plan = {.fail_at = 3, .code = ENOSPC};
	struct err e = {0};
	struct io *mem, *io;
	struct extent x;
	char buf[4] = "";

	(void)state;
	ok(mem_open("disk", 0, &mem, &e), &e);
	ok(fault_open(mem, true, &plan, &io, &e), &e);
	assert_string_equal(io->name, "disk");
	ok(io_pwrite(io, "aaaa", 4, 0, &e), &e);
	ok(io_pread(io, buf, 4, 0, &e), &e);
	fails(io_pwrite(io, "bbbb", 4, 0, &e), -ENOSPC, &e, "disk: write: planned fault: No space");
	ok(io_pread(io, buf, 4, 0, &e), &e);
	assert_memory_equal(buf, "aaaa", 4);
	ok(io_map(io, 0, 4, &x, &e), &e);
	/* The bytes are only to be had through the double. */
	assert_ptr_equal(x.io, io);
	ok(io_pwrite(io, "bbbb", 4, 100, &e), &e);
	assert_int_equal(io_size(io), 104);
	assert_int_equal(io_size(mem), 104);
	assert_int_equal(plan.calls, 6);
	io_close(io);
}

static void fault_can_be_sticky(void **state)
{
	struct fault_plan plan = {.fail_at = 2, .code = EIO, .sticky = true};
	struct err e = {0};
	struct io *mem, *io;
	struct extent x;
	char buf[4];

	(void)state;
	ok(mem_open("disk", 4096, &mem, &e), &e);
	ok(fault_open(mem, false, &plan, &io, &e), &e);
	ok(io_flush(io, &e), &e);
	fails(io_flush(io, &e), -EIO, &e, "flush");
	fails(io_pread(io, buf, 4, 0, &e), -EIO, &e, "read");
	fails(io_pwrite(io, buf, 4, 0, &e), -EIO, &e, "write");
	fails(io_zero(io, 0, 4, 0, &e), -EIO, &e, "zero");
	fails(io_discard(io, 0, 4, &e), -EIO, &e, "discard");
	fails(io_resize(io, 1, &e), -EIO, &e, "resize");
	fails(io_map(io, 0, 4, &x, &e), -EIO, &e, "map");
	assert_int_equal(plan.calls, 8);
	assert_int_equal(io_size(io), 4096);
	io_close(io);
	/* Not owned: still usable. */
	ok(io_pread(mem, buf, 4, 0, &e), &e);
	io_close(mem);
}

static void fault_can_spare_reads(void **state)
{
	struct fault_plan plan = {.fail_at = 1, .code = EIO, .writes_only = true};
	struct err e = {0};
	struct io *mem, *io;
	struct extent x;
	char buf[4];

	(void)state;
	ok(mem_open("disk", 4096, &mem, &e), &e);
	ok(fault_open(mem, true, &plan, &io, &e), &e);
	ok(io_pread(io, buf, 4, 0, &e), &e);
	ok(io_map(io, 0, 4, &x, &e), &e);
	assert_int_equal(plan.calls, 0);
	fails(io_resize(io, 10, &e), -EIO, &e, "resize");
	ok(io_resize(io, 10, &e), &e);
	assert_int_equal(io_size(io), 10);
	plan.fail_at = 0;
	for (int i = 0; i < 10; i++)
		ok(io_flush(io, &e), &e);
	io_close(io);
}

/* ---- crash ---- */

/* Puts base and the changes of log together; the caller frees *out. */
static uint64_t replay(const struct crash_log *log, unsigned char **out)
{
	uint64_t size = log->base_size, room = 1 * MiB;
	unsigned char *disk = calloc(1, room);

	assert_non_null(disk);
	memcpy(disk, log->base, size);
	for (size_t i = 0; i < log->n; i++) {
		const struct crash_rec *r = &log->rec[i];

		if (r->kind == CRASH_WRITE)
			memcpy(disk + r->off, r->data, r->len);
		else if (r->kind == CRASH_ZERO)
			memset(disk + r->off, 0, r->len);
		else if (r->kind == CRASH_RESIZE)
			memset(disk + r->off, 0, room - r->off);
		if (r->kind == CRASH_WRITE || r->kind == CRASH_ZERO)
			size = max_u64(size, r->off + r->len);
		else if (r->kind == CRASH_RESIZE)
			size = r->off;
	}
	*out = disk;
	return size;
}

static void check_replay(const struct crash_log *log, struct io *io)
{
	unsigned char *disk, *real = malloc(io_size(io));
	struct err e = {0};

	assert_non_null(real);
	assert_int_equal(replay(log, &disk), io_size(io));
	ok(io_pread(io, real, io_size(io), 0, &e), &e);
	assert_memory_equal(disk, real, io_size(io));
	free(disk);
	free(real);
}

static void crash_records_changes_in_order(void **state)
{
	static const enum crash_kind kinds[] = {CRASH_WRITE,  CRASH_FLUSH, CRASH_ZERO, CRASH_MARK,
						CRASH_RESIZE, CRASH_ZERO,  CRASH_WRITE};
	struct crash_log log;
	struct err e = {0};
	struct io *mem, *io;
	struct extent x;
	char buf[8] = "";

	(void)state;
	ok(mem_open("disk", 0, &mem, &e), &e);
	ok(io_pwrite(mem, "before", 6, 0, &e), &e);
	ok(crash_open(mem, true, &log, &io, &e), &e);
	assert_int_equal(log.base_size, 6);
	assert_memory_equal(log.base, "before", 6);

	memcpy(buf, "payload", 8);
	ok(io_pwrite(io, buf, 8, 5000, &e), &e);
	memset(buf, 0, 8);
	ok(io_flush(io, &e), &e);
	ok(io_zero(io, 5002, 2, IO_ZERO_UNMAP, &e), &e);
	ok(crash_mark(io, 42), &e);
	ok(io_resize(io, 5006, &e), &e);
	ok(io_discard(io, 0, 2, &e), &e);
	ok(io_pread(io, buf, 6, 5000, &e), &e);
	assert_memory_equal(buf, "pa\0\0oa", 6);
	ok(io_map(io, 0, 5006, &x, &e), &e);
	assert_ptr_equal(x.io, io);
	ok(io_pwrite(io, "end", 3, 6000, &e), &e);

	assert_int_equal(log.n, ARRAY_LEN(kinds));
	for (size_t i = 0; i < log.n; i++)
		assert_int_equal(log.rec[i].kind, kinds[i]);
	assert_memory_equal(log.rec[0].data, "payload", 8);
	assert_int_equal(log.rec[3].off, 42);
	assert_int_equal(log.rec[4].off, 5006);
	check_replay(&log, io);
	io_close(io);
	crash_log_free(&log);
	assert_int_equal(log.n, 0);
}

/* What failed did not happen and is not in the log. */
static void crash_omits_what_failed(void **state)
{
	struct fault_plan plan = {.fail_at = 1, .code = EIO, .sticky = true, .writes_only = true};
	struct crash_log log;
	struct err e = {0};
	struct io *mem, *fault, *io;

	(void)state;
	ok(mem_open("disk", 100, &mem, &e), &e);
	ok(fault_open(mem, true, &plan, &fault, &e), &e);
	ok(crash_open(fault, true, &log, &io, &e), &e);
	fails(io_pwrite(io, "x", 1, 0, &e), -EIO, &e, "write");
	fails(io_zero(io, 0, 1, 0, &e), -EIO, &e, "zero");
	fails(io_discard(io, 0, 1, &e), -EIO, &e, "discard");
	fails(io_flush(io, &e), -EIO, &e, "flush");
	fails(io_resize(io, 1, &e), -EIO, &e, "resize");
	assert_int_equal(log.n, 0);
	io_close(io);
	crash_log_free(&log);
}

static void crash_serves_threads(void **state)
{
	struct shared s = {.workers = 4};
	struct crash_log log;
	struct err e = {0};
	struct io *mem;

	(void)state;
	ok(mem_open("disk", 0, &mem, &e), &e);
	ok(crash_open(mem, true, &log, &s.io, &e), &e);
	ok(work_run(s.workers, write_own_pieces, &s, &e), &e);
	assert_int_equal(log.n, 800);
	check_replay(&log, s.io);
	check_pieces(s.io);
	io_close(s.io);
	crash_log_free(&log);
}

/* ---- trace ---- */

static void trace_counts(void **state)
{
	struct trace_stats st = {0};
	struct err e = {0};
	struct io *mem, *io;
	struct extent x;
	char buf[100] = "";

	(void)state;
	ok(mem_open("disk", 0, &mem, &e), &e);
	ok(trace_open(mem, true, &st, &io, &e), &e);
	ok(io_pwrite(io, buf, 100, 0, &e), &e);
	ok(io_pwrite(io, buf, 50, 100, &e), &e);
	ok(io_pread(io, buf, 30, 0, &e), &e);
	ok(io_zero(io, 0, 10, 0, &e), &e);
	ok(io_discard(io, 0, 10, &e), &e);
	ok(io_map(io, 0, 10, &x, &e), &e);
	assert_ptr_equal(x.io, io);
	ok(io_flush(io, &e), &e);
	ok(io_resize(io, 120, &e), &e);
	assert_int_equal(io_size(io), 120);
	assert_int_equal(st.pwrites, 2);
	assert_int_equal(st.write_bytes, 150);
	assert_int_equal(st.preads, 1);
	assert_int_equal(st.read_bytes, 30);
	assert_true(st.zeros == 1 && st.discards == 1 && st.maps == 1 && st.flushes == 1 &&
		    st.resizes == 1);
	io_close(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mem_behaves_like_a_file),
		cmocka_unit_test(mem_is_sparse),
		cmocka_unit_test(mem_serves_threads),
		cmocka_unit_test(fault_fails_the_nth_call),
		cmocka_unit_test(fault_can_be_sticky),
		cmocka_unit_test(fault_can_spare_reads),
		cmocka_unit_test(crash_records_changes_in_order),
		cmocka_unit_test(crash_omits_what_failed),
		cmocka_unit_test(crash_serves_threads),
		cmocka_unit_test(trace_counts),
	};

	return cmocka_run_group_tests_name("doubles", tests, NULL, NULL);
}
