// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Builders: what they make is what was put in, passes the check, and has the peer's limits and
 * messages; faults of I/O and memory are errors, nothing else.
 *
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=posix_memalign,--wrap=strdup
 */
#include "unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "formats/qcow2/build.h"
#include "formats/raw.h"
#include "lib/disk.h"
#include "lib/rng.h"

static struct err e;

/* ---- memory that runs out ---- */

static uint64_t allocations, fail_allocation; /* fail_allocation 0: never */

static int no_memory(void)
{
	return ++allocations == fail_allocation;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
int __real_posix_memalign(void **p, size_t align, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n)
{
	return no_memory() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return no_memory() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return no_memory() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return no_memory() ? NULL : __real_reallocarray(p, n, size);
}

int __wrap_posix_memalign(void **p, size_t align, size_t n)
{
	return no_memory() ? ENOMEM : __real_posix_memalign(p, align, n);
}

char *__wrap_strdup(const char *s)
{
	return no_memory() ? NULL : __real_strdup(s);
}

/* ---- a disk that is put into a builder ---- */

struct recipe {
	const char *opts; /* as in -o, or NULL */
	uint64_t size;    /* bytes */
	unsigned data;    /* percent of the units that are given */
	bool coded;       /* compressed if that makes them smaller */
	bool backing;     /* one of three of the others is made zeros */
};

enum unit_kind { ABSENT, ZEROS, TEXT, NOISE };

static enum unit_kind unit_kind(const struct recipe *r, uint64_t i)
{
	uint64_t h = rng_mix(i + 17);

	if (h % 100 < r->data)
		return h >> 32 & 1 ? TEXT : NOISE;
	return r->backing && (h >> 40) % 3 == 0 ? ZEROS : ABSENT;
}

/* Content of unit i; the tail behind the end of the disk is zeros. */
static void unit_fill(const struct recipe *r, uint64_t unit, uint64_t i, unsigned char *buf)
{
	enum unit_kind kind = unit_kind(r, i);
	struct rng rng = {.state = i};
	uint64_t n = min_u64(unit, r->size - i * unit);

	memset(buf, kind == ABSENT && r->backing ? 0xb5 : 0, unit);
	if (kind == NOISE)
		rng_fill(&rng, buf, n);
	for (uint64_t k = 0; kind == TEXT && k < n; k++)
		buf[k] = (unsigned char)(k / 40 + i + 1);
	memset(buf + n, 0, unit - n);
}

static int give_unit(struct build *b, const struct recipe *r, struct codec_encoder *enc, uint64_t i,
		     unsigned char *buf, struct err *err)
{
	uint64_t off = i * b->unit, host;
	int64_t n = 0;
	int res;

	if (unit_kind(r, i) == ABSENT)
		return 0;
	if (unit_kind(r, i) == ZEROS)
		return build_zero(b, off, b->unit, err);
	unit_fill(r, b->unit, i, buf);
	if (r->coded)
		n = codec_encode(enc, buf, b->unit, buf + b->unit, b->unit - 1, err);
	if (n < 0)
		return (int)n;
	res = n ? build_reserve_coded(b, off, (size_t)n, &host, err)
		: build_reserve(b, off, b->unit, &host, err);
	if (res < 0)
		return res;
	return io_pwrite(b->file, buf + (n ? b->unit : 0), n ? (size_t)n : b->unit, host, err);
}

/* Everything that a caller of a builder does. */
static int build_all(struct io *file, const struct recipe *r, struct err *err)
{
	struct opts opts = {0};
	struct create_args args = {.size = r->size, .opts = &opts};
	struct codec_encoder *enc = NULL;
	struct build *b = NULL;
	unsigned char *buf = NULL;
	int res = r->opts ? opts_parse(&opts, r->opts, err) : 0;

	if (r->backing) {
		args.backing = "base";
		args.backing_format = "raw";
	}
	if (res == 0)
		res = qcow2_build(file, &args, 0, &b, err);
	if (res == 0) {
		const struct codec_params params = {.type = b->codec};

		res = codec_encoder_open(&params, &enc, err);
	}
	if (res == 0) {
		buf = malloc(2 * b->unit);
		res = buf ? 0 : -ENOMEM;
	}
	for (uint64_t i = 0; res == 0 && i < div_up(r->size, b->unit); i++)
		res = give_unit(b, r, enc, i, buf, err);
	if (res == 0)
		res = build_finish(b, err);
	free(buf);
	codec_encoder_close(enc);
	build_close(b);
	opts_free(&opts);
	return res;
}

/* ---- what came of it ---- */

static void found_line(void *ctx, const char *text)
{
	(void)ctx;
	print_message("%s\n", text);
}

static void assert_clean(struct img *img)
{
	const struct check_sink sink = {.line = found_line, .max_lines = 10};
	struct check_result res;

	ok(img_check(img, 0, &res, &sink, NULL, &e), &e);
	assert_int_equal(res.corruptions, 0);
	assert_int_equal(res.leaks, 0);
	assert_int_equal(res.check_errors, 0);
}

static void assert_built(struct io *file, const struct recipe *r, uint64_t unit)
{
	unsigned char *want = malloc(unit), *got = malloc(unit);
	struct img *img, *base = NULL;

	if (r->backing) {
		struct io *raw = disk_new("base");
		uint64_t size = round_up(r->size, 512);

		for (uint64_t off = 0; off < size; off += 512) {
			memset(want, 0xb5, 512);
			ok(io_pwrite(raw, want, 512, off, &e), &e);
		}
		ok(img_open_io(raw, "raw", 0, NULL, &base, &e), &e);
	}
	img = disk_open(file, "qcow2", 0, base);
	assert_int_equal(io_size(&img->io), round_up(r->size, 512));
	assert_int_equal(img->unit, unit);
	for (uint64_t i = 0; i < div_up(r->size, unit); i++) {
		size_t n = (size_t)min_u64(unit, r->size - i * unit);

		unit_fill(r, unit, i, want);
		ok(io_pread(&img->io, got, n, i * unit, &e), &e);
		assert_memory_equal(got, want, n);
	}
	assert_clean(img);
	io_close(&img->io);
	free(want);
	free(got);
}

static void try_recipe(const struct recipe *r, uint64_t unit)
{
	struct io *file = disk_new("built");

	ok(build_all(file, r, &e), &e);
	assert_built(file, r, unit);
	io_close(file);
}

static void data_comes_back(void **state)
{
	static const struct {
		const char *opts;
		uint64_t unit, size;
	} t[] = {
		{NULL, 65536, 5 * MiB + 512},
		{"cluster_size=512", 512, 700 * KiB},
		{"cluster_size=512,refcount_bits=1", 512, 300 * KiB},
		{"cluster_size=4k,refcount_bits=2", 4096, 2 * MiB},
		{"cluster_size=1k,refcount_bits=4,compression_type=zstd", 1024, MiB},
		{"cluster_size=2M,refcount_bits=8", 2 * MiB, 9 * MiB},
		{"cluster_size=16k,extended_l2=on", 16 * KiB, 40 * MiB},
		{"refcount_bits=32,lazy_refcounts=on", 65536, 3 * MiB},
		{"refcount_bits=64,compression_type=zstd", 65536, 3 * MiB},
		{"compat=0.10,cluster_size=8k", 8192, 3 * MiB},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		for (unsigned k = 0; k < 6; k++) {
			const struct recipe r = {
				.opts = t[i].opts,
				.size = t[i].size,
				.data = (unsigned[]){0, 50, 100}[k / 2],
				.coded = k & 1,
			};

			try_recipe(&r, t[i].unit);
		}
	}
}

static void backing_shines_through(void **state)
{
	const struct recipe plain = {
		.opts = "cluster_size=4k", .size = MiB, .data = 30, .backing = true};
	const struct recipe coded = {
		.opts = NULL, .size = 4 * MiB, .data = 30, .coded = true, .backing = true};

	(void)state;
	try_recipe(&plain, 4096);
	try_recipe(&coded, 65536);
}

static void version_2_has_no_zero_marks(void **state)
{
	const struct recipe r = {.opts = "compat=v2", .size = 4 * MiB, .data = 30, .backing = true};
	struct io *file = disk_new("built");

	(void)state;
	assert_int_equal(build_all(file, &r, &e), -ENOTSUP);
	io_close(file);
}

static void preallocated_images_are_zeros(void **state)
{
	static const char *const modes[] = {"preallocation=metadata",
					    "preallocation=falloc,cluster_size=512",
					    "preallocation=full,cluster_size=2M",
					    "preallocation=metadata,compat=v2"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		struct io *file = disk_new("built");
		struct img *img;
		struct extent ext;

		disk_create(file, "qcow2", 300 * KiB + 512, modes[i], NULL, NULL);
		img = disk_open(file, "qcow2", 0, NULL);
		for (uint64_t off = 0; off < io_size(&img->io); off += ext.len) {
			unsigned char buf[512];

			ok(io_map(&img->io, off, io_size(&img->io) - off, &ext, &e), &e);
			assert_int_equal(ext.kind, EXT_DATA);
			ok(io_pread(&img->io, buf, sizeof(buf), off, &e), &e);
			assert_true(bytes_are_zero(buf, sizeof(buf)));
		}
		assert_clean(img);
		io_close(&img->io);
		io_close(file);
	}
}

/* Data that is put into a preallocated image goes where the tables say already. */
static void preallocated_images_take_data(void **state)
{
	const struct recipe r = {.opts = "preallocation=metadata,cluster_size=4k",
				 .size = MiB,
				 .data = 40};

	(void)state;
	try_recipe(&r, 4096);
}

/* A stream: tables first, data in the order of the reservations. */
static void streams_ascend(void **state)
{
	const struct create_args args = {.size = 3 * MiB};
	struct io *file = disk_new("stream");
	uint64_t host[3], at[3] = {0, 5 * 65536, 47 * 65536}, end = 0;
	unsigned char buf[65536];
	struct build *b;
	struct img *img;

	(void)state;
	ok(qcow2_build(file, &args, BUILD_STREAM, &b, &e), &e);
	assert_true(b->two_pass);
	for (int i = 0; i < 3; i++) {
		ok(build_reserve(b, at[i], 65536, &host[i], &e), &e);
		assert_int_equal(host[i], end);
		end += 65536;
	}
	ok(build_finish(b, &e), &e);
	for (int i = 0; i < 3; i++) {
		memset(buf, i + 1, sizeof(buf));
		ok(io_pwrite(file, buf, sizeof(buf), b->data_start + host[i], &e), &e);
	}
	assert_int_equal(io_size(file), b->data_start + end);
	build_close(b);
	img = disk_open(file, "qcow2", 0, NULL);
	assert_clean(img);
	for (int i = 0; i < 3; i++) {
		ok(io_pread(&img->io, buf, 1, at[i], &e), &e);
		assert_int_equal(buf[0], i + 1);
	}
	io_close(&img->io);
	io_close(file);
}

static void size_may_grow(void **state)
{
	const struct create_args args = {.size = 0};
	struct io *file = disk_new("grown");
	unsigned char byte = 7;
	struct build *b;
	struct img *img;
	uint64_t host;

	(void)state;
	ok(qcow2_build(file, &args, 0, &b, &e), &e);
	fails(build_reserve(b, 0, 65536, &host, &e), -EINVAL, &e, "inside the disk");
	for (uint64_t size = MiB; size < 3 * GiB; size = size * 3 + 100) {
		ok(build_set_size(b, size, &e), &e);
		ok(build_reserve(b, round_down(size - 1, 65536), 65536, &host, &e), &e);
		ok(io_pwrite(file, &byte, 1, host, &e), &e);
	}
	assert_int_equal(b->size % 512, 0);
	fails(build_set_size(b, UINT64_C(1) << 60, &e), -EFBIG, &e, "too large");
	ok(build_finish(b, &e), &e);
	img = disk_open(file, "qcow2", 0, NULL);
	assert_int_equal(io_size(&img->io), b->size);
	ok(io_pread(&img->io, &byte, 1, round_down(b->size - 1, 65536), &e), &e);
	assert_int_equal(byte, 7);
	assert_clean(img);
	io_close(&img->io);
	build_close(b);
	io_close(file);
}

/* ---- refusals ---- */

static void refuse(uint64_t size, const char *opts, const char *backing, int code, const char *text)
{
	struct io *file = disk_new("refused");
	struct opts o = {0};
	const struct create_args args = {.size = size,
					 .opts = &o,
					 .backing = backing,
					 .backing_format = backing ? "raw" : NULL};
	struct build *b;

	if (opts)
		ok(opts_parse(&o, opts, &e), &e);
	fails(qcow2_build(file, &args, 0, &b, &e), code, &e, text);
	assert_int_equal(io_size(file), 0);
	opts_free(&o);
	io_close(file);
}

static void options_that_do_not_fit(void **state)
{
	(void)state;
	refuse(MiB, "cluster_size=3000", NULL, -EINVAL, "power of two between 512 and 2048k");
	refuse(MiB, "cluster_size=4M", NULL, -EINVAL, "power of two between 512 and 2048k");
	refuse(MiB, "refcount_bits=3", NULL, -EINVAL, "may not exceed 64 bits");
	refuse(MiB, "refcount_bits=128", NULL, -EINVAL, "may not exceed 64 bits");
	refuse(MiB, "refcount_bits=0", NULL, -EINVAL, "may not exceed 64 bits");
	refuse(MiB, "refcount_bits=8,compat=v2", NULL, -EINVAL, "Different refcount widths");
	refuse(MiB, "lazy_refcounts=on,compat=0.10", NULL, -EINVAL, "Lazy refcounts only");
	refuse(MiB, "compression_type=zstd,compat=0.10", NULL, -EINVAL, "Non-zlib compression");
	refuse(MiB, "compression_type=lzma", NULL, -EINVAL,
	       "'compression-type' does not accept value 'lzma'");
	refuse(MiB, "compat=4", NULL, -EINVAL, "Parameter 'version' does not accept value '4'");
	refuse(MiB, "preallocation=some", NULL, -EINVAL, "does not accept value 'some'");
	refuse(MiB, "preallocation=full", "base", -EINVAL, "Backing file and preallocation");
	refuse(MiB, "data_file_raw=on", NULL, -EINVAL, "requires data-file");
	refuse(MiB, "data_file=x,compat=v2", NULL, -EINVAL, "version=v3");
	refuse(MiB, "data_file=x,data_file_raw=on", "base", -EINVAL, "Backing file and");
	refuse(MiB, "data_file=x", NULL, -EINVAL, "'data-file' is required");
	refuse(MiB, "extended_l2=on,compat=0.10", NULL, -EINVAL, "compatibility level 1.1");
	refuse(MiB, "extended_l2=on,cluster_size=8k", NULL, -EINVAL, "at least 16384 bytes");
	refuse(MiB, "encrypt.format=luks", NULL, -ENOTSUP, "encrypt.format");
	refuse(MiB, "encryption=on", NULL, -ENOTSUP, "encryption");
}

static void sizes_have_limits(void **state)
{
	(void)state;
	refuse(64 * 1024 * TiB, NULL, NULL, -EFBIG, "try using a larger cluster size");
	refuse(129 * GiB, "cluster_size=512", NULL, -EFBIG, "larger cluster size");
	refuse(INT64_MAX, "cluster_size=2M", NULL, -EFBIG, "larger cluster size");
	refuse(65 * TiB, "cluster_size=16k,extended_l2=on", NULL, -EFBIG, "larger cluster size");
}

static void a_backing_name_may_be_too_long(void **state)
{
	char name[1100];
	struct io *file = disk_new("long");
	struct create_args args = {.size = MiB, .backing = name, .backing_format = "raw"};
	struct build *b;

	(void)state;
	memset(name, 'a', sizeof(name));
	name[1024] = '\0';
	ok(qcow2_build(file, &args, 0, &b, &e), &e);
	fails(build_finish(b, &e), -ENOSPC, &e, "1024 bytes");
	build_close(b);
	name[1023] = '\0';
	ok(qcow2_build(file, &args, 0, &b, &e), &e);
	ok(build_finish(b, &e), &e);
	build_close(b);
	io_close(file);
}

/* A device cannot grow: too little space is an error with both numbers. */
static void devices_may_be_too_small(void **state)
{
	const struct create_args args = {.size = MiB};
	struct io *mem, *device;
	struct build *b;
	uint64_t host;
	struct err got = {0};

	(void)state;
	ok(mem_open("device", 512 * KiB, &mem, &e), &e);
	device = disk_borrow(mem);
	device->caps &= ~(unsigned)IO_GROWS;
	ok(qcow2_build(device, &args, 0, &b, &e), &e);
	ok(build_reserve(b, 0, 256 * KiB, &host, &e), &e);
	fails(build_finish(b, &got), -ENOSPC, &got, "the device has 524288");
	build_close(b);
	fails(raw_build(device, &args, 0, &b, &e), -ENOSPC, &e, "needs 1048576 bytes");
	io_close(device);
	io_close(mem);
}

static void units_are_whole(void **state)
{
	const struct create_args args = {.size = MiB + 512};
	struct io *file = disk_new("units");
	struct build *b;
	uint64_t host;

	(void)state;
	ok(qcow2_build(file, &args, 0, &b, &e), &e);
	fails(build_reserve(b, 512, 65536, &host, &e), -EINVAL, &e, "whole units");
	fails(build_reserve(b, 0, 65535, &host, &e), -EINVAL, &e, "whole units");
	fails(build_reserve(b, 2 * MiB, 65536, &host, &e), -EINVAL, &e, "inside the disk");
	ok(build_reserve(b, MiB, 65536, &host, &e), &e); /* the last one, rounded up */
	build_close(b);
	io_close(file);
}

/* ---- raw ---- */

static void raw_is_what_it_is(void **state)
{
	const struct create_args args = {.size = 1000};
	struct io *file = disk_new("raw");
	struct build *b;
	uint64_t host;

	(void)state;
	ok(raw_build(file, &args, 0, &b, &e), &e);
	assert_true(b->identity);
	assert_false(build_can_code(b));
	ok(build_reserve(b, 100, 7, &host, &e), &e);
	assert_int_equal(host, 100);
	fails(build_reserve_coded(b, 0, 1, &host, &e), -ENOTSUP, &e, "no compression");
	ok(build_finish(b, &e), &e);
	assert_int_equal(io_size(file), 1024);
	build_close(b);
	io_close(file);
}

/* ---- faults ---- */

static const struct recipe faulty = {.opts = "cluster_size=4k,compression_type=zstd",
				     .size = 700 * KiB,
				     .data = 60,
				     .coded = true,
				     .backing = true};

static void every_io_may_fail(void **state)
{
	bool done = false;

	(void)state;
	for (uint64_t n = 1; !done; n++) {
		struct fault_plan plan = {.fail_at = n, .code = n & 1 ? EIO : ENOSPC};
		struct io *mem = disk_new("faulty"), *file;
		int r;

		ok(fault_open(mem, false, &plan, &file, &e), &e);
		e = (struct err){0};
		r = build_all(file, &faulty, &e);
		done = plan.calls < n;
		if (done)
			ok(r, &e);
		else
			assert_int_equal(r, -plan.code);
		io_close(file);
		if (done)
			assert_built(mem, &faulty, 4096);
		io_close(mem);
		assert_true(n < 10000);
	}
}

static void every_allocation_may_fail(void **state)
{
	uint64_t n;
	int r = -1;

	(void)state;
	for (n = 1; r < 0; n++) {
		struct io *file;

		fail_allocation = 0;
		file = disk_new("faulty");
		/* The file in memory allocates too; it is not what is tested. */
		ok(io_resize(file, 2 * MiB, &e), &e);
		ok(io_pwrite(file, zero_buf, 1, 2 * MiB - 1, &e), &e);
		for (uint64_t off = 0; off < 2 * MiB; off += 4096)
			ok(io_pwrite(file, "x", 1, off, &e), &e);
		e = (struct err){0};
		allocations = 0;
		fail_allocation = n;
		r = build_all(file, &faulty, &e);
		if (r < 0)
			assert_int_equal(r, -ENOMEM);
		else
			assert_true(allocations < n);
		fail_allocation = 0;
		io_close(file);
		assert_true(n < 10000);
	}
	assert_true(n > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_comes_back),
		cmocka_unit_test(backing_shines_through),
		cmocka_unit_test(version_2_has_no_zero_marks),
		cmocka_unit_test(preallocated_images_are_zeros),
		cmocka_unit_test(preallocated_images_take_data),
		cmocka_unit_test(streams_ascend),
		cmocka_unit_test(size_may_grow),
		cmocka_unit_test(options_that_do_not_fit),
		cmocka_unit_test(sizes_have_limits),
		cmocka_unit_test(a_backing_name_may_be_too_long),
		cmocka_unit_test(devices_may_be_too_small),
		cmocka_unit_test(units_are_whole),
		cmocka_unit_test(raw_is_what_it_is),
		cmocka_unit_test(every_io_may_fail),
		cmocka_unit_test(every_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
