// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create, convert, compare and the other operations with every allocation failing, and those on
 * files in memory with every call of a file failing: they end with that error and a text, leave no
 * half-made file behind, and succeed the next time.
 *
 * threads
 * timeout: 300
 * variants: release asan
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=strdup,--wrap=strndup
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "base/bytes.h"
#include "disk.h"
#include "layers.h"
#include "ops/checksum.h"
#include "ops/compare.h"
#include "ops/convert.h"
#include "ops/info.h"
#include "ops/map.h"
#include "rng.h"
#include "tell.h"

#define SIZE (3 * MiB + 512)

/* What the operations work on. */
struct env {
	struct fault_plan *plan;         /* NULL: files on disk, without faults of their own */
	struct io *src_mem, *layers_mem; /* the latter with snapshots */
};

static unsigned char *content; /* of the source disk */

static enum fill fill_kind(void *ctx, uint64_t cluster)
{
	static const enum fill kinds[] = {FILL_DATA, FILL_CODED, FILL_NONE, FILL_ZERO};

	(void)ctx;
	if (bytes_are_zero(content + cluster * 65536, min_u64(65536, SIZE - cluster * 65536)))
		return kinds[2 + cluster % 2];
	return kinds[cluster / 3 % 2];
}

static void make_files(struct env *env)
{
	struct fill_args args = {.size = SIZE, .kind = fill_kind};
	struct rng r = {1};
	struct io *io;

	content = calloc(1, SIZE);
	expect(content);
	for (uint64_t at = 0; at + 65536 < SIZE; at += 2 * 65536)
		rng_fill(&r, content + at, rng_below(&r, 65536));
	args.data = content;
	env->src_mem = disk_new("src.qcow2");
	disk_fill(env->src_mem, "qcow2", &args);
	disk_save(env->src_mem, "src.qcow2");
	bytes_save(content, SIZE, "base.raw");
	io = disk_new("over.qcow2");
	disk_create(io, "qcow2", SIZE, "cluster_size=4096", "base.raw", "raw");
	disk_save(io, "over.qcow2");
	io_close(io);
	env->layers_mem = disk_new("layers.qcow2");
	layers_make(env->layers_mem, "cluster_size=8192");
	disk_save(env->layers_mem, "layers.qcow2");
}

/* ---- operations ---- */

static int open_path(const char *path, struct img **img, struct err *err)
{
	const struct img_open_args args = {.path = path};

	return img_open(&args, img, err);
}

static int open_faulty(struct env *env, struct io *mem, struct img **img, struct err *err)
{
	struct io *file;
	int r = fault_open(mem, false, env->plan, &file, err);

	if (r < 0)
		return r;
	r = img_open_io(file, "qcow2", 0, NULL, img, err);
	if (r < 0)
		io_close(file);
	return r;
}

/* The source: on disk, or in memory with faults. */
static int open_source(struct env *env, struct img **img, struct err *err)
{
	return env->plan ? open_faulty(env, env->src_mem, img, err)
			 : open_path("src.qcow2", img, err);
}

static int run_open(struct env *env, struct err *err)
{
	static unsigned char buf[SIZE];
	struct img *img;
	int r = open_path("over.qcow2", &img, err);

	(void)env;
	if (r < 0)
		return r;
	r = io_pread(&img->io, buf, SIZE, 0, err);
	if (r == 0)
		expect(!memcmp(buf, content, SIZE));
	io_close(&img->io);
	return r;
}

static int run_info(struct env *env, struct err *err)
{
	const struct img_open_args args = {.path = "over.qcow2"};
	struct info_list list = {0};
	int r = info_collect(&args, true, &list, err);

	(void)env;
	if (r == 0) {
		expect(list.n == 2);
		json_decref(info_chain_json(&list));
	}
	info_free(&list);
	return r;
}

static int count_entry(void *ctx, const struct map_entry *e)
{
	*(uint64_t *)ctx += e->length;
	return 0;
}

static int run_map(struct env *env, struct err *err)
{
	uint64_t sum = 0;
	struct img *img;
	int r = open_source(env, &img, err);

	if (r < 0)
		return r;
	r = map_walk(img, 0, SIZE, count_entry, &sum, err);
	expect(r < 0 || sum == SIZE);
	io_close(&img->io);
	return r;
}

static int run_measure(struct env *env, struct err *err)
{
	struct create_args args = {.size = SIZE};
	struct measure_result res;
	struct img *img;
	int r = open_source(env, &img, err);

	if (r < 0)
		return r;
	r = format_find("qcow2")->measure(&args, &img->io, &res, NULL, err);
	expect(r < 0 || (res.required > 1 * MiB && res.fully_allocated > SIZE));
	io_close(&img->io);
	return r;
}

static int run_compare(struct env *env, struct err *err)
{
	struct compare_args args = {.workers = 2};
	struct compare_result res;
	struct img *a, *b;
	int r = open_source(env, &a, err);

	if (r < 0)
		return r;
	r = open_path("over.qcow2", &b, err);
	if (r == 0) {
		args.a = &a->io;
		args.b = &b->io;
		r = compare_run(&args, NULL, &res, err);
		expect(r < 0 || res.kind == COMPARE_SAME);
		io_close(&b->io);
	}
	io_close(&a->io);
	return r;
}

static void *hash_open(const struct checksum_hash *h)
{
	(void)h;
	return malloc(8);
}

static bool hash_digest(void *ctx, unsigned char tag, const void *data, size_t len,
			unsigned char *out)
{
	uint64_t sum = tag;

	for (size_t i = 0; i < len; i++)
		sum = sum * 1099511628211u + ((const unsigned char *)data)[i];
	memcpy(ctx, &sum, 8);
	memcpy(out, &sum, 8);
	return true;
}

static int run_checksum(struct env *env, struct err *err)
{
	static const struct checksum_hash hash = {8, hash_open, free, hash_digest};
	static uint64_t first;
	unsigned char out[CHECKSUM_MAX];
	struct img *img;
	uint64_t sum;
	int r = open_source(env, &img, err);

	if (r < 0)
		return r;
	r = checksum_run(&img->io, &hash, 2, out, NULL, err);
	memcpy(&sum, out, 8);
	if (r == 0 && !first)
		first = sum;
	expect(r < 0 || sum == first);
	io_close(&img->io);
	return r;
}

static int create_one(const char *opts, const char *backing, struct err *err)
{
	struct create_request req = {.path = "new.img", .format = "qcow2", .size = 16 * MiB};
	struct create_plan plan = {0};
	struct opts parsed = {0};
	int r = opts_parse(&parsed, opts, err);

	req.opts = &parsed;
	req.backing = backing;
	req.backing_format = backing ? "qcow2" : NULL;
	if (r == 0)
		r = create_prepare(&req, &plan, err);
	if (r == 0)
		r = create_run(&plan, 0, err);
	create_plan_free(&plan);
	opts_free(&parsed);
	return r;
}

static int run_create(struct env *env, struct err *err)
{
	(void)env;
	return create_one("preallocation=metadata,lazy_refcounts=on", NULL, err);
}

static int run_create_over(struct env *env, struct err *err)
{
	(void)env;
	return create_one("cluster_size=4096", "over.qcow2", err);
}

static int convert_one(const char *format, const char *opts, bool compress, struct err *err)
{
	struct convert_request req = {
		.n_src = 1,
		.path = "new.img",
		.format = format,
		.copy = {.workers = 2, .compress = compress, .sparse = 4096},
	};
	struct opts parsed = {0};
	struct img *src = NULL;
	int r = open_path("src.qcow2", &src, err);

	if (r == 0 && opts)
		r = opts_parse(&parsed, opts, err);
	req.src = &src;
	req.opts = &parsed;
	if (r == 0)
		r = convert(&req, NULL, err);
	opts_free(&parsed);
	if (src)
		io_close(&src->io);
	return r;
}

static int run_to_raw(struct env *env, struct err *err)
{
	(void)env;
	return convert_one("raw", NULL, false, err);
}

static int run_to_qcow2(struct env *env, struct err *err)
{
	(void)env;
	return convert_one("qcow2", "cluster_size=4096,compat=0.10", false, err);
}

static int run_to_zlib(struct env *env, struct err *err)
{
	(void)env;
	return convert_one("qcow2", NULL, true, err);
}

static int run_to_zstd(struct env *env, struct err *err)
{
	(void)env;
	return convert_one("qcow2", "compression_type=zstd", true, err);
}

/* The disk is the source's. Closes img. */
static void verify_disk(struct img *img)
{
	static unsigned char buf[SIZE];
	struct err e = {0};

	expect(io_size(&img->io) == SIZE);
	must(io_pread(&img->io, buf, SIZE, 0, &e), &e);
	expect(!memcmp(buf, content, SIZE));
	io_close(&img->io);
}

static void verify_new(struct env *env)
{
	struct err e = {0};
	struct img *img;

	(void)env;
	must(open_path("new.img", &img, &e), &e);
	verify_disk(img);
}

/* With snapshots, to a new image. */
static int run_snapshots(struct env *env, struct err *err)
{
	struct convert_request req = {
		.n_src = 1,
		.path = "new.img",
		.target_flags = TARGET_UNSAFE,
		.format = "qcow2",
		.snapshots = true,
		.copy = {.workers = 2, .compress = true, .sparse = 4096},
	};
	struct img *src;
	int r = open_path("layers.qcow2", &src, err);

	(void)env;
	if (r < 0)
		return r;
	req.src = &src;
	r = convert(&req, NULL, err);
	io_close(&src->io);
	return r;
}

static void verify_layers(struct env *env)
{
	struct img *src = disk_open(env->layers_mem, "qcow2", 0, NULL), *img;
	struct err e = {0};

	must(open_path("new.img", &img, &e), &e);
	layers_same(src, img);
	io_close(&img->io);
	io_close(&src->io);
}

/* With snapshots, over an image in memory, where both can fail. */
static int run_snapshots_over(struct env *env, struct err *err)
{
	struct convert_request req = {.n_src = 1,
				      .snapshots = true,
				      .copy = {.workers = 2, .sparse = 4096}};
	struct io *mem = disk_new("new.qcow2");
	struct img *src = NULL, *dst = NULL;
	int r;

	disk_create(mem, "qcow2", LAYERS_SIZE, "cluster_size=4096", NULL, NULL);
	r = open_faulty(env, env->layers_mem, &src, err);
	if (r == 0) {
		struct io *file;

		must(fault_open(mem, false, env->plan, &file, err), err);
		r = img_open_io(file, "qcow2", IMG_RDWR, NULL, &dst, err);
		if (r < 0)
			io_close(file);
	}
	if (r == 0) {
		req.src = &src;
		req.dst = dst;
		r = convert(&req, NULL, err);
	}
	io_close(dst ? &dst->io : NULL);
	io_close(src ? &src->io : NULL);
	if (r == 0) { /* which may have been without the call that failed */
		src = disk_open(env->layers_mem, "qcow2", 0, NULL);
		dst = disk_open(mem, "qcow2", 0, NULL);
		layers_same(src, dst);
		io_close(&dst->io);
		io_close(&src->io);
	}
	io_close(mem);
	return r;
}

/* Into memory, where the target can fail, too. */
static int copy_to_memory(struct env *env, bool compress, bool existing, struct err *err)
{
	struct create_args create = {.size = SIZE};
	struct copy_args args = {.workers = 2, .compress = compress, .sparse = 4096};
	struct io *mem = disk_new("new.qcow2"), *file;
	struct img *src = NULL, *dst = NULL;
	int r;

	if (existing)
		disk_create(mem, "qcow2", SIZE, "", NULL, NULL);
	must(fault_open(mem, false, env->plan, &file, err), err);
	r = open_source(env, &src, err);
	if (r == 0 && existing)
		r = img_open_io(file, "qcow2", IMG_RDWR, NULL, &dst, err);
	else if (r == 0)
		r = format_find("qcow2")->build(file, &create, 0, &args.build, err);
	if (r == 0) {
		args.src = &src->io;
		args.dst = dst ? &dst->io : NULL;
		args.dst_zero = true;
		r = copy_run(&args, NULL, err);
		if (r == 0 && existing)
			r = img_settle(dst, err);
	}
	build_close(args.build);
	if (src)
		io_close(&src->io);
	io_close(dst ? &dst->io : file);
	if (r == 0) { /* which may have been without the call that failed */
		dst = disk_open(mem, "qcow2", 0, NULL);
		verify_disk(dst);
	}
	io_close(mem);
	return r;
}

static int run_build(struct env *env, struct err *err)
{
	return copy_to_memory(env, false, false, err);
}

static int run_build_coded(struct env *env, struct err *err)
{
	return copy_to_memory(env, true, false, err);
}

static int run_over_existing(struct env *env, struct err *err)
{
	return copy_to_memory(env, false, true, err);
}

struct operation {
	const char *name;
	int (*run)(struct env *, struct err *);
	void (*verify)(struct env *);
	bool memory, io; /* which sweeps */
};

static const struct operation operations[] = {
	{"open", run_open, NULL, true, false},
	{"info", run_info, NULL, true, false},
	{"map", run_map, NULL, true, true},
	{"measure", run_measure, NULL, true, true},
	{"compare", run_compare, NULL, true, true},
	{"checksum", run_checksum, NULL, true, true},
	{"create", run_create, NULL, true, false},
	{"create over", run_create_over, NULL, true, false},
	{"convert to raw", run_to_raw, verify_new, true, false},
	{"convert to qcow2", run_to_qcow2, verify_new, true, false},
	{"convert -c", run_to_zlib, verify_new, true, false},
	{"convert -c zstd", run_to_zstd, verify_new, true, false},
	{"build", run_build, NULL, false, true},
	{"build -c", run_build_coded, NULL, false, true},
	{"copy over", run_over_existing, NULL, false, true},
	{"convert --snapshots", run_snapshots, verify_layers, true, false},
	{"convert --snapshots -n", run_snapshots_over, NULL, false, true},
};

/* ---- sweeping ---- */

/* Nothing but what make_files made. */
static void judge_directory(const char *when)
{
	DIR *dir = opendir(".");
	struct dirent *d;

	expect(dir);
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.' && strcmp(d->d_name, "src.qcow2") &&
		    strcmp(d->d_name, "base.raw") && strcmp(d->d_name, "over.qcow2") &&
		    strcmp(d->d_name, "layers.qcow2"))
			die("%s left '%s' behind", when, d->d_name);
	closedir(dir);
}

static void judge_failure(const struct operation *op, int r, int code, const struct err *e)
{
	if (r != -code)
		die("%s: %d (%s), not %d", op->name, r, e->msg, -code);
	if (!e->msg[0] || e->code != code)
		die("%s: error %d without a text", op->name, r);
	judge_directory(op->name);
}

static void succeed(const struct operation *op, struct env *env)
{
	struct err e = {0};

	context("%s", op->name);
	must(op->run(env, &e), &e);
	if (op->verify)
		op->verify(env);
	unlink("new.img");
}

static uint64_t sweep_memory(const struct operation *op, struct env *env, bool sticky)
{
	uint64_t at;

	for (at = 1;; at++) {
		struct err e = {0};
		int r;

		context("%s, allocation %" PRIu64 "%s fails", op->name, at,
			sticky ? " and on" : "");
		alloc_arm(at, sticky);
		r = op->run(env, &e);
		alloc_disarm();
		if (r < 0)
			judge_failure(op, r, ENOMEM, &e);
		else if (op->verify)
			op->verify(env);
		unlink("new.img");
		if (alloc_calls() < at)
			break;
	}
	succeed(op, env);
	return at;
}

static uint64_t sweep_io(const struct operation *op, struct env *env, int code)
{
	struct fault_plan *plan = env->plan;

	plan->code = code;
	plan->writes_only = code == ENOSPC;
	for (plan->fail_at = 1;; plan->fail_at++) {
		struct err e = {0};
		int r;

		context("%s, call %" PRIu64 " fails with %s", op->name, plan->fail_at,
			strerror(code));
		atomic_store(&plan->calls, 0);
		r = op->run(env, &e);
		if (r < 0)
			judge_failure(op, r, code, &e);
		if (atomic_load(&plan->calls) < plan->fail_at)
			break;
	}
	expect(plan->fail_at > 1 || plan->writes_only);
	return plan->fail_at;
}

int main(void)
{
	struct fault_plan plan = {0};
	uint64_t memory = 0, io = 0;
	struct env env = {0};

	make_files(&env);
	for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
		const struct operation *op = &operations[i];

		env.plan = NULL;
		if (op->memory) {
			succeed(op, &env);
			memory += sweep_memory(op, &env, false);
			memory += sweep_memory(op, &env, true);
		}
		env.plan = &plan;
		if (op->io) {
			io += sweep_io(op, &env, EIO);
			io += sweep_io(op, &env, ENOSPC);
		}
	}
	printf("%" PRIu64 " runs short of memory, %" PRIu64 " with a failing file\n", memory, io);
	io_close(env.src_mem);
	io_close(env.layers_mem);
	free(content);
	return 0;
}
