// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/*
 * The copy engine: any source to any target with the same data, the same bytes for any number of
 * workers; errors, cancel and faults end it cleanly.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/stream.h"
#include "lib/disk.h"
#include "lib/rng.h"
#include "ops/compare.h"
#include "ops/copy.h"

static struct err e;

/* ---- sources and targets in memory ---- */

/* Data of all kinds, stored zeros and holes, the same for the same seed. */
static struct io *some_disk(uint64_t size, uint64_t seed)
{
	static unsigned char buf[300000];
	struct io *io = disk_new("source");
	struct rng rng = {.state = seed};

	ok(io_resize(io, size, &e), &e);
	for (int i = 0; i < 14; i++) {
		uint64_t off = rng_below(&rng, size);
		uint64_t len = min_u64(rng_range(&rng, 1, sizeof(buf)), size - off);

		switch (i % 3) {
		case 0:
			rng_fill(&rng, buf, len);
			break;
		case 1:
			for (uint64_t k = 0; k < len; k++)
				buf[k] = (unsigned char)(k / 50 + seed);
			break;
		default:
			memset(buf, 0, len);
		}
		ok(io_pwrite(io, buf, len, off, &e), &e);
	}
	return io;
}

struct plan_of_test {
	const char *format, *opts;
	struct copy_args copy;
};

/* Begins an image, copies into it; the result is copy_run's. */
static int copy_to(struct io *file, struct io *src, const struct plan_of_test *p, struct job *job,
		   struct err *err)
{
	struct copy_args args = p->copy;
	struct opts opts = {0};
	struct create_args create = {.opts = &opts};
	unsigned flags = file->caps & IO_STREAM ? BUILD_STREAM : 0;
	struct build *b = NULL;
	int r;

	if (p->opts)
		ok(opts_parse(&opts, p->opts, &e), &e);
	create.size = src->caps & IO_STREAM ? 0 : io_size(src);
	if (args.layer) {
		create.backing = "base";
		create.backing_format = "raw";
	}
	r = format_find(p->format)->build(file, &create, flags, &b, err);
	args.src = src;
	args.build = b;
	if (r == 0)
		r = copy_run(&args, job, err);
	build_close(b);
	opts_free(&opts);
	return r;
}

static void assert_same(struct io *a, struct io *b)
{
	const struct compare_args args = {.a = a, .b = b, .workers = 1};
	struct compare_result res;

	ok(compare_run(&args, NULL, &res, &e), &e);
	if (res.kind != COMPARE_SAME)
		fail_msg("%s and %s differ at offset %lu", a->name, b->name,
			 (unsigned long)res.offset);
}

/* The image in file is whole and holds what src holds. */
static void assert_holds(struct io *file, const char *format, struct io *src)
{
	struct img *img = disk_open(file, format, 0, NULL);
	struct check_sink sink = {0};
	struct check_result res;

	assert_int_equal(io_size(&img->io), round_up(io_size(src), 512));
	assert_same(&img->io, src);
	if (img->fmt->check) {
		ok(img_check(img, 0, &res, &sink, NULL, &e), &e);
		assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	}
	io_close(&img->io);
}

static const struct plan_of_test plans[] = {
	{"raw", NULL, {.sparse = 4096}},
	{"raw", NULL, {.sparse = 0}},
	{"raw", NULL, {.sparse = 3 * 512}},
	{"raw", NULL, {.sparse = UINT64_MAX / 2}},
	{"raw", NULL, {.sparse = 4096, .offload = true}},
	{"raw", "preallocation=full", {.sparse = 4096}},
	{"qcow2", NULL, {.sparse = 4096}},
	{"qcow2", NULL, {.sparse = 0}},
	{"qcow2", "cluster_size=512", {.sparse = 4096}},
	{"qcow2", "cluster_size=2M", {.sparse = 512}},
	{"qcow2", "cluster_size=4k,refcount_bits=1", {.sparse = 65536}},
	{"qcow2", "cluster_size=16k,extended_l2=on", {.sparse = 4096}},
	{"qcow2", "extended_l2=on,preallocation=metadata", {.sparse = 4096}},
	{"qcow2", "preallocation=metadata", {.sparse = 4096}},
	{"qcow2", NULL, {.sparse = 4096, .unordered = true}},
	{"qcow2", NULL, {.sparse = 4096, .offload = true}},
	{"qcow2", NULL, {.sparse = 4096, .compress = true}},
	{"qcow2", NULL, {.sparse = 0, .compress = true}},
	{"qcow2", "cluster_size=512", {.sparse = 4096, .compress = true, .level = 1}},
	{"qcow2", "cluster_size=2M", {.sparse = 4096, .compress = true, .narrow = true}},
	{"qcow2", "compression_type=zstd", {.sparse = 4096, .compress = true}},
	{"qcow2", NULL, {.sparse = 4096, .compress = true, .unordered = true}},
};

static void data_arrives(void **state)
{
	static const uint64_t sizes[] = {0, 512, 65536 * 3 + 512, 5 * MiB + 1024};

	(void)state;
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		struct io *src = sizes[s] ? some_disk(sizes[s], s) : disk_new("empty");

		for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
			struct plan_of_test p = plans[i];
			struct io *file = disk_new(p.opts ? p.opts : p.format);

			p.copy.workers = 1 + (unsigned)i % 4;
			ok(copy_to(file, src, &p, NULL, &e), &e);
			assert_holds(file, p.format, src);
			io_close(file);
		}
		io_close(src);
	}
}

static enum fill by_content(void *ctx, uint64_t i)
{
	static const enum fill kinds[] = {FILL_DATA, FILL_CODED, FILL_ZERO, FILL_NONE};
	const unsigned char *disk = ctx;
	bool zero = bytes_are_zero(disk + i * 4096, 4096);

	return kinds[(zero ? 2 : 0) + (i & 1)];
}

/* A source in clusters of all kinds, smaller and larger than those of the target. */
static void sources_of_all_kinds(void **state)
{
	struct fill_args fill = {.size = 3 * MiB, .opts = "cluster_size=4k", .kind = by_content};
	struct io *raw = some_disk(3 * MiB, 77), *file = disk_new("qcow2");
	unsigned char *bytes;
	struct img *img;
	uint64_t len;

	(void)state;
	bytes = disk_bytes(raw, &len);
	fill.data = fill.ctx = bytes;
	disk_fill(file, "qcow2", &fill);
	img = disk_open(file, "qcow2", 0, NULL);
	for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
		struct io *out = disk_new("target");

		ok(copy_to(out, &img->io, &plans[i], NULL, &e), &e);
		assert_holds(out, plans[i].format, raw);
		io_close(out);
	}
	io_close(&img->io);
	io_close(file);
	free(bytes);
	io_close(raw);
}

static void workers_do_not_show(void **state)
{
	struct io *src = some_disk(7 * MiB, 3);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
		struct plan_of_test p = plans[i];
		struct io *one;

		/* When the kernel refuses to copy, chunks that are on the way are whole runs already. */
		if (p.copy.unordered || p.copy.offload)
			continue;
		one = disk_new("one");
		p.copy.workers = 1;
		ok(copy_to(one, src, &p, NULL, &e), &e);
		for (p.copy.workers = 2; p.copy.workers < 9; p.copy.workers += 3) {
			struct io *many = disk_new("many");

			ok(copy_to(many, src, &p, NULL, &e), &e);
			assert_int_equal(io_size(one), io_size(many));
			assert_same(one, many);
			io_close(many);
		}
		io_close(one);
	}
	io_close(src);
}

/* ---- what is not written ---- */

static uint64_t mapped_data(struct io *io)
{
	uint64_t sum = 0;
	struct extent ext;

	for (uint64_t off = 0; off < io_size(io); off += ext.len) {
		ok(io_map(io, off, io_size(io) - off, &ext, &e), &e);
		sum += ext.kind == EXT_DATA ? ext.len : 0;
	}
	return sum;
}

static void zeros_become_holes(void **state)
{
	struct io *src = disk_new("zeros");
	static unsigned char ones[4096];
	static const struct {
		uint64_t sparse, data;
	} t[] = {{4096, 64 * KiB}, {0, 4 * MiB}};

	(void)state;
	memset(ones, 1, sizeof(ones));
	for (uint64_t off = 0; off < 4 * MiB; off += 65536)
		ok(io_pwrite(src, zero_buf, 65536, off, &e), &e);
	ok(io_pwrite(src, ones, 4096, MiB + 8192, &e), &e);
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		const struct plan_of_test p = {"qcow2", NULL, {.sparse = t[i].sparse}};
		struct io *file = disk_new("target");
		struct img *img;

		ok(copy_to(file, src, &p, NULL, &e), &e);
		img = disk_open(file, "qcow2", 0, NULL);
		assert_int_equal(mapped_data(&img->io), t[i].data);
		io_close(&img->io);
		io_close(file);
	}
	io_close(src);
}

/* Over a backing file only what the top layer holds is copied, zeros included. */
static void layers_are_copied_alone(void **state)
{
	static const char *const opts[] = {"cluster_size=64k", "cluster_size=4k", "cluster_size=2M",
					   "compat=v2"};
	struct io *base = some_disk(3 * MiB, 11), *file = disk_new("overlay");
	struct img *img, *top;

	(void)state;
	disk_create(file, "qcow2", 5 * MiB, NULL, "base", "raw");
	ok(img_open_io(disk_borrow(base), "raw", 0, NULL, &img, &e), &e);
	top = disk_open(file, "qcow2", IMG_RDWR, img);
	ok(io_pwrite(&top->io, "data", 4, 100000, &e), &e);
	ok(io_pwrite(&top->io, "data", 4, 4 * MiB + 5, &e), &e);
	ok(io_zero(&top->io, MiB, 512 * KiB, IO_ZERO_UNMAP, &e), &e);
	for (size_t i = 0; i < ARRAY_LEN(opts); i++) {
		const struct plan_of_test p = {
			"qcow2", opts[i], {.sparse = 4096, .layer = top, .backing_size = 3 * MiB}};
		struct io *out = disk_new("target");
		struct img *under, *copied;

		ok(copy_to(out, &top->io, &p, NULL, &e), &e);
		ok(img_open_io(disk_borrow(base), "raw", 0, NULL, &under, &e), &e);
		copied = disk_open(out, "qcow2", 0, under);
		assert_same(&copied->io, &top->io);
		assert_true(io_size(out) < 2600 * KiB || i == 2);
		io_close(&copied->io);
		io_close(out);
	}
	io_close(&top->io);
	io_close(file);
	io_close(base);
}

/* ---- existing targets ---- */

static void existing_images_are_overwritten(void **state)
{
	static const struct copy_args how[] = {{.sparse = 4096},
					       {.sparse = 0},
					       {.sparse = 4096, .unordered = true, .workers = 3},
					       {.sparse = 4096, .dst_zero = true}};
	struct io *src = some_disk(3 * MiB, 21);

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(how); i++) {
		const char *format = i & 1 ? "raw" : "qcow2";
		struct copy_args args = how[i / 2];
		struct io *file = disk_new("target");
		static unsigned char old[65536];
		struct io *head;
		struct img *dst;

		disk_create(file, format, 4 * MiB, NULL, NULL, NULL);
		dst = disk_open(file, format, IMG_RDWR, NULL);
		memset(old, 0xdd, sizeof(old));
		for (uint64_t off = 0; !args.dst_zero && off < 4 * MiB; off += sizeof(old))
			ok(io_pwrite(&dst->io, old, sizeof(old), off, &e), &e);
		args.src = src;
		args.dst = &dst->io;
		ok(copy_run(&args, NULL, &e), &e);
		head = disk_new("head");
		ok(io_resize(head, 3 * MiB, &e), &e);
		for (uint64_t off = 0; off < 3 * MiB; off += sizeof(old)) {
			ok(io_pread(&dst->io, old, sizeof(old), off, &e), &e);
			ok(io_pwrite(head, old, sizeof(old), off, &e), &e);
		}
		assert_same(head, src);
		io_close(head);
		io_close(&dst->io);
		io_close(file);
	}
	io_close(src);
}

/* ---- streams ---- */

struct feed {
	struct io *from; /* to write into fd … */
	struct io *to;   /* … or to fill from it */
	int fd;
	pthread_t thread;
};

static void *feed_main(void *arg)
{
	struct feed *f = arg;
	unsigned char buf[30011];
	uint64_t off = 0;
	ssize_t n = 1;

	while (f->to && (n = read(f->fd, buf, sizeof(buf))) > 0) {
		ok(io_pwrite(f->to, buf, (size_t)n, off, NULL), &e);
		off += (uint64_t)n;
	}
	while (f->from && off < io_size(f->from) && n > 0) {
		uint64_t len = min_u64(sizeof(buf), io_size(f->from) - off);

		ok(io_pread(f->from, buf, len, off, NULL), &e);
		n = write(f->fd, buf, len);
		off += n > 0 ? (uint64_t)n : 0;
	}
	close(f->fd);
	return NULL;
}

static void streams_hold_the_same(void **state)
{
	struct io *src = some_disk(5 * MiB + 512, 31);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
		struct plan_of_test p = plans[i];
		struct feed f = {.to = disk_new("drained")};
		struct io *pipe_io;
		int fds[2];

		if (p.copy.compress || p.copy.unordered || (p.opts && strstr(p.opts, "prealloc"))) {
			io_close(f.to);
			continue;
		}
		assert_int_equal(pipe(fds), 0);
		f.fd = fds[0];
		pthread_create(&f.thread, NULL, feed_main, &f);
		ok(stream_open(fds[1], "pipe", true, NULL, &pipe_io, &e), &e);
		p.copy.workers = 3;
		ok(copy_to(pipe_io, src, &p, NULL, &e), &e);
		io_close(pipe_io);
		close(fds[1]);
		pthread_join(f.thread, NULL);
		assert_holds(f.to, p.format, src);
		io_close(f.to);
	}
	io_close(src);
}

static void streams_can_be_sources(void **state)
{
	struct io *src = some_disk(5 * MiB + 512, 41);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
		struct plan_of_test p = plans[i];
		struct feed f = {.from = src};
		struct io *pipe_io, *file;
		int fds[2];

		if (p.copy.offload || (p.opts && strstr(p.opts, "prealloc")))
			continue;
		assert_int_equal(pipe(fds), 0);
		f.fd = fds[1];
		pthread_create(&f.thread, NULL, feed_main, &f);
		ok(stream_open(fds[0], "pipe", false, NULL, &pipe_io, &e), &e);
		file = disk_new("target");
		p.copy.workers = 2;
		ok(copy_to(file, pipe_io, &p, NULL, &e), &e);
		io_close(pipe_io);
		close(fds[0]);
		pthread_join(f.thread, NULL);
		assert_holds(file, p.format, src);
		io_close(file);
	}
	io_close(src);
}

/* ---- media errors ---- */

/* An io of which some sectors cannot be read. */
struct scratched {
	struct io io; /* first */
	struct io *inner;
	uint64_t bad[2], bad_len[2]; /* ranges, whole sectors */
};

static int scratched_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct scratched *s = (struct scratched *)(void *)io;

	for (int i = 0; i < 2; i++) {
		if (overlaps(off, len, s->bad[i], s->bad_len[i]))
			return err_set(err, EIO, "a scratch");
	}
	return io_pread(s->inner, buf, len, off, err);
}

static void scratched_close(struct io *io)
{
	free(io);
}

static const struct io_ops scratched_ops = {.name = "scratched",
					    .pread = scratched_pread,
					    .close = scratched_close};

static unsigned warnings;

static void count_warning(void *ctx, const char *text)
{
	(void)ctx;
	warnings++;
	assert_non_null(strstr(text, "a scratch"));
	assert_non_null(strstr(text, "replaced by zeros"));
}

static void salvage_loses_bad_sectors_only(void **state)
{
	struct io *src = some_disk(4 * MiB, 51), *file = disk_new("target");
	struct scratched *s = calloc(1, sizeof(*s));
	struct plan_of_test p = {"raw", NULL, {.sparse = 4096, .workers = 3}};

	(void)state;
	ok(io_init(&s->io, &scratched_ops, "scratched", &e), &e);
	s->inner = src;
	s->io.caps = IO_RDONLY;
	atomic_init(&s->io.size, io_size(src));
	s->bad[0] = 100 * 512;
	s->bad_len[0] = 512;
	s->bad[1] = 2 * MiB - 1024;
	s->bad_len[1] = 5 * 512; /* in two chunks */
	fails(copy_to(file, &s->io, &p, NULL, &e), -EIO, &e, "error while reading at byte");
	p.copy.salvage = true;
	p.copy.warn = count_warning;
	warnings = 0;
	ok(copy_to(file, &s->io, &p, NULL, &e), &e);
	assert_int_equal(warnings, 3);
	for (int i = 0; i < 2; i++)
		ok(io_pwrite(src, zero_buf, s->bad_len[i], s->bad[i], &e), &e);
	assert_holds(file, "raw", src);
	io_close(&s->io);
	io_close(file);
	io_close(src);
}

/* ---- ends before the end ---- */

/* Each I/O of source and target fails once; with several workers nobody hangs. */
static void faults_stop_everything(void **state)
{
	static const struct plan_of_test p[] = {
		{"qcow2", "cluster_size=4k", {.sparse = 4096, .workers = 1}},
		{"qcow2", NULL, {.sparse = 4096, .workers = 3, .compress = true}},
		{"raw", NULL, {.sparse = 4096, .workers = 4}}};
	struct io *src = some_disk(3 * MiB + 512, 61);

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(p); i++) {
		bool of_target = i & 1, done = false;

		for (uint64_t n = 1; !done; n++) {
			struct fault_plan plan = {.fail_at = n, .code = of_target ? ENOSPC : EIO};
			struct io *mem = disk_new("target"), *faulty;
			int r;

			e = (struct err){0};
			ok(fault_open(of_target ? mem : src, false, &plan, &faulty, &e), &e);
			r = copy_to(of_target ? faulty : mem, of_target ? src : faulty, &p[i / 2],
				    NULL, &e);
			done = plan.calls < n;
			if (!done) {
				assert_int_equal(r, -plan.code);
				assert_non_null(strstr(e.msg, "planned fault"));
			} else {
				ok(r, &e);
				assert_holds(mem, p[i / 2].format, src);
			}
			io_close(faulty);
			io_close(mem);
		}
	}
	io_close(src);
}

static void *cancel_soon(void *arg)
{
	struct job *job = arg;

	usleep(50000);
	atomic_store(&job->cancelled, true);
	return NULL;
}

static void cancel_ends_it(void **state)
{
	const struct plan_of_test p = {"qcow2", NULL, {.sparse = 4096, .workers = 3, .rate = 100}};
	struct io *src = some_disk(8 * MiB, 71), *file = disk_new("target");
	struct job job = {0};
	struct timespec a, b;
	pthread_t thread;

	(void)state;
	/* At 100 bytes per second it would take a day. */
	clock_gettime(CLOCK_MONOTONIC, &a);
	pthread_create(&thread, NULL, cancel_soon, &job);
	fails(copy_to(file, src, &p, &job, &e), -ECANCELED, &e, "cancelled");
	pthread_join(thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(b.tv_sec - a.tv_sec < 30);
	io_close(file);
	io_close(src);
}

static void the_rate_is_kept(void **state)
{
	struct plan_of_test p = {"raw", NULL, {.sparse = 0, .workers = 3, .rate = 10 * MiB}};
	struct io *src = disk_new("source"), *file = disk_new("target");
	struct timespec a, b;

	(void)state;
	ok(io_resize(src, 4 * MiB, &e), &e);
	clock_gettime(CLOCK_MONOTONIC, &a);
	ok(copy_to(file, src, &p, NULL, &e), &e);
	clock_gettime(CLOCK_MONOTONIC, &b);
	/* Four chunks of 0.1 s; the last need not be waited for. */
	assert_true((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9 > 0.29);
	io_close(file);
	io_close(src);
}

static void progress_reaches_the_end(void **state)
{
	struct io *src = some_disk(6 * MiB + 512, 81);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
		struct io *file = disk_new("target");
		struct job job = {0};

		ok(copy_to(file, src, &plans[i], &job, &e), &e);
		assert_int_equal(job.total, io_size(src));
		assert_int_equal(job.done, job.total);
		io_close(file);
	}
	io_close(src);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_arrives),
		cmocka_unit_test(sources_of_all_kinds),
		cmocka_unit_test(workers_do_not_show),
		cmocka_unit_test(zeros_become_holes),
		cmocka_unit_test(layers_are_copied_alone),
		cmocka_unit_test(existing_images_are_overwritten),
		cmocka_unit_test(streams_hold_the_same),
		cmocka_unit_test(streams_can_be_sources),
		cmocka_unit_test(salvage_loses_bad_sectors_only),
		cmocka_unit_test(faults_stop_everything),
		cmocka_unit_test(cancel_ends_it),
		cmocka_unit_test(the_rate_is_kept),
		cmocka_unit_test(progress_reaches_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
