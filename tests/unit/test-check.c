// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * qcow2 check: counters, findings and their words, windows, bounds, errors. (Words and numbers beside
 * the peer's: tests/cli/parity/check.cases; hostile files: tests/bad.)
 * threads
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "damage.h"

static const struct check_bounds small = {.window = 256, .min_window = 256, .budget = 1 * MiB};

/* ---- counters in memory ---- */

static void map_counts(void **state)
{
	struct refmap m;

	(void)state;
	assert_int_equal(refmap_init(&m, 0, 100000, UINT16_MAX, 16 * MiB), 0);
	assert_int_equal(refmap_add(&m, 10, 50000, 1), 0);
	assert_int_equal(refmap_add(&m, 40, 40, 1), 0);
	assert_int_equal(refmap_add(&m, 99999, 1, 7), 0);
	assert_int_equal(refmap_get(&m, 9), 0);
	assert_int_equal(refmap_get(&m, 10), 1);
	assert_int_equal(refmap_get(&m, 39), 1);
	assert_int_equal(refmap_get(&m, 40), 2);
	assert_int_equal(refmap_get(&m, 79), 2);
	assert_int_equal(refmap_get(&m, 80), 1);
	assert_int_equal(refmap_get(&m, 50009), 1);
	assert_int_equal(refmap_get(&m, 50010), 0);
	assert_int_equal(refmap_get(&m, 99999), 7);
	assert_true(refmap_ones(&m, 80, 49930, true));
	assert_false(refmap_ones(&m, 79, 10, true));
	assert_false(refmap_ones(&m, 80, 49931, true));
	assert_true(refmap_ones(&m, 40, 40, false));
	assert_true(refmap_ones(&m, 50010, 49989, false));
	assert_false(refmap_ones(&m, 39, 2, false));
	/* 2-bit fields, saturated. */
	assert_int_equal(refmap_word(&m, 32), UINT64_C(0xaaaaaaaaaaaa5555));
	assert_int_equal(refmap_word(&m, 99968) >> 62, 3);
	refmap_free(&m);
}

static void map_widens_and_saturates(void **state)
{
	struct refmap m;

	(void)state;
	for (unsigned order = 0; order <= 6; order++) {
		uint64_t max = refcount_max(order), total = 0;

		assert_int_equal(refmap_init(&m, 0, 64, max, 16 * MiB), 0);
		for (unsigned i = 0; i < 20; i++) {
			uint64_t times = UINT64_C(1) << i;

			assert_int_equal(refmap_add(&m, 5, 2, times), 0);
			total += times;
			assert_int_equal(refmap_get(&m, 5), min_u64(total, max));
			assert_int_equal(refmap_get(&m, 6), min_u64(total, max));
			assert_int_equal(refmap_get(&m, 7), 0);
		}
		assert_int_equal(m.excess, total > max ? 2 * (total - max) : 0);
		assert_int_equal(m.n_over, total > max ? 2 : 0);
		refmap_free(&m);
	}
}

static void map_has_a_window(void **state)
{
	struct refmap m;

	(void)state;
	assert_int_equal(refmap_init(&m, 1000, 500, UINT16_MAX, 16 * MiB), 0);
	assert_int_equal(refmap_add(&m, 0, 1001, 1), 0);
	assert_int_equal(refmap_add(&m, 1499, UINT64_MAX, 1), 0);
	assert_int_equal(refmap_add(&m, UINT64_MAX - 5, 100, 1), 0);
	assert_true(refmap_has(&m, 1000) && refmap_has(&m, 1499));
	assert_false(refmap_has(&m, 999) || refmap_has(&m, 1500));
	assert_int_equal(refmap_get(&m, 1000), 1);
	assert_int_equal(refmap_get(&m, 1001), 0);
	assert_int_equal(refmap_get(&m, 1499), 1);
	refmap_free(&m);
}

static void map_keeps_its_budget(void **state)
{
	struct refmap m;
	uint64_t k = 0;

	(void)state;
	assert_int_equal(refmap_init(&m, 0, UINT64_C(1) << 40, 3, 1 * MiB), -E2BIG);
	assert_int_equal(refmap_init(&m, 0, UINT64_C(1) << 30, UINT16_MAX, 1 * MiB), 0);
	while (refmap_add(&m, k, 1, 1) == 0)
		k += UINT64_C(1) << REFMAP_PAGE_BITS;
	assert_true(k > 0 && m.used <= 1 * MiB);
	assert_int_equal(refmap_add(&m, k, 1, 1), -E2BIG);
	/* Widening counts as well. */
	assert_int_equal(refmap_add(&m, 0, 1, 100), -E2BIG);
	assert_int_equal(refmap_get(&m, 0), 1);
	refmap_free(&m);
}

/* ---- sweeps ---- */

struct stretches {
	char text[256];
	size_t n;
};

static int note_stretch(void *ctx, uint64_t off, uint64_t bytes, uint64_t active, uint64_t total,
			struct err *err)
{
	struct stretches *s = ctx;

	(void)err;
	s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%d+%d:%d/%d ", (int)off,
				 (int)bytes, (int)active, (int)total);
	return 0;
}

static void sweep_counts_tables(void **state)
{
	struct table_refs list = {0};
	struct stretches s = {0};
	struct err e = {0};

	(void)state;
	ok(check_sweep(&list, note_stretch, &s, &e), &e);
	assert_string_equal(s.text, "");
	check_refs_push(&list, 100, 50, 1);
	check_refs_push(&list, 0, 10, 0);
	check_refs_push(&list, 120, 100, 0);
	check_refs_push(&list, 120, 10, 0);
	check_refs_push(&list, 220, 5, 0);
	ok(check_sweep(&list, note_stretch, &s, &e), &e);
	assert_string_equal(s.text, "0+10:0/1 100+20:1/1 120+10:1/3 130+20:1/2 150+70:0/1 "
				    "220+5:0/1 ");
	free(list.v);
}

/* ---- whole images ---- */

#define NARROW 2 /* counters of one bit cannot hold a snapshot's references */
static const char *const shapes[] = {
	"cluster_size=512,refcount_bits=16",
	"cluster_size=512,refcount_bits=64",
	"cluster_size=4k,refcount_bits=1",
	"cluster_size=4k,refcount_bits=8,compression_type=zstd",
	"cluster_size=64k",
	"cluster_size=64k,compat=0.10",
	"cluster_size=2M,refcount_bits=32",
	"cluster_size=16k,extended_l2=on",
};

static void sound_images_are_sound(void **state)
{
	struct check_result res;
	struct findings f = {0};
	struct err e = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct io *file = damage_image_with_snapshots(shapes[i], i == NARROW ? 0 : 2);

		ok(damage_check(file, 0, NULL, &res, &f, &e), &e);
		if (res.corruptions || res.leaks || f.lines)
			fail_msg("%s: %s", shapes[i], f.text);
		assert_true(res.total_clusters && res.allocated_clusters);
		assert_int_equal(res.image_end_offset % damage_layout(file).cluster, 0);
		io_close(file);
	}
	findings_free(&f);
}

static void counters_are_those_of_the_disk(void **state)
{
	struct io *file = damage_image("cluster_size=64k");
	struct check_result res;
	struct err e = {0};

	(void)state;
	ok(damage_check(file, 0, NULL, &res, NULL, &e), &e);
	/* 16 clusters in the pattern data, data, none, coded, data, zero, coded. */
	assert_int_equal(res.total_clusters, 16);
	assert_int_equal(res.allocated_clusters, 12);
	assert_int_equal(res.compressed_clusters, 4);
	assert_true(res.fragmented_clusters >= 4);
	io_close(file);
}

/* Damage, and what is said of it. `what` is a file offset that do_damage understands. */
struct damage {
	const char *name;
	void (*damage)(struct io *file);
	unsigned corruptions, leaks;
	const char *line; /* one of those printed */
};

static void leak(struct io *file)
{
	damage_set_refcount(file, damage_get(file, damage_l2(file, 0)) << 8 >> 24, 3);
}

static void too_low(struct io *file)
{
	damage_set_refcount(file, damage_get(file, damage_l2(file, 0)) << 8 >> 24, 0);
}

static void flag_missing(struct io *file)
{
	uint64_t at = damage_l2(file, 0);

	damage_put(file, at, damage_get(file, at) & ~ENTRY_COPIED);
}

static void l1_flag_missing(struct io *file)
{
	uint64_t at = damage_layout(file).l1;

	damage_put(file, at, damage_get(file, at) & ~ENTRY_COPIED);
}

static void past_the_end(struct io *file)
{
	damage_put(file, damage_l2(file, 2 * 65536), UINT64_C(1) << 40);
}

static void misaligned(struct io *file)
{
	damage_put(file, damage_l2(file, 2 * 65536), 512);
}

static void misaligned_zero(struct io *file)
{
	damage_put(file, damage_l2(file, 2 * 65536), 512 | ENTRY_ZERO);
}

static void reserved(struct io *file)
{
	damage_put(file, damage_l2(file, 2 * 65536), 2);
}

static void l1_reserved(struct io *file)
{
	uint64_t at = damage_layout(file).l1;

	damage_put(file, at, damage_get(file, at) | 4);
}

static void coded_with_flag(struct io *file)
{
	uint64_t at = damage_l2(file, 3 * 65536);

	damage_put(file, at, damage_get(file, at) | ENTRY_COPIED);
}

static void two_to_one(struct io *file)
{
	damage_put(file, damage_l2(file, 2 * 65536), damage_get(file, damage_l2(file, 0)));
}

static void block_gone(struct io *file)
{
	damage_put(file, damage_layout(file).reftable, 0);
}

static void block_misaligned(struct io *file)
{
	uint64_t at = damage_layout(file).reftable;

	damage_put(file, at + 8, damage_get(file, at) + 512);
}

static void block_reserved(struct io *file)
{
	damage_put(file, damage_layout(file).reftable + 8, 3);
}

static void block_twice(struct io *file)
{
	uint64_t at = damage_layout(file).reftable;

	damage_put(file, at + 8, damage_get(file, at));
}

static void block_outside(struct io *file)
{
	damage_put(file, damage_layout(file).reftable + 8, UINT64_C(1) << 30);
}

static const struct damage damages[] = {
	{"leak", leak, 1, 1, "Leaked cluster "}, /* and the flag does not fit a refcount of 3 */
	{"too low", too_low, 2, 0, " refcount=0 reference=1\n"},
	{"flag", flag_missing, 1, 0, "ERROR OFLAG_COPIED data cluster: l2_entry="},
	{"l1 flag", l1_flag_missing, 1, 0, "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry="},
	{"past the end", past_the_end, 1, 0,
	 "region exceeding the end of the file by one cluster or more: offset 0x10000000000 size "
	 "0x10000\n"},
	{"misaligned", misaligned, 4, 0,
	 "ERROR offset=200: Data cluster is not properly aligned; L2 entry corrupted.\n"},
	{"misaligned zero", misaligned_zero, 4, 0,
	 "ERROR offset=200: Preallocated cluster is not properly aligned; L2 entry corrupted.\n"},
	{"reserved", reserved, 1, 0, "ERROR found l2 entry with reserved bits set: 2\n"},
	{"l1 reserved", l1_reserved, 1, 0, "ERROR found L1 entry with reserved bits set: "},
	{"coded", coded_with_flag, 1, 0, "copied flag must never be set for compressed clusters\n"},
	{"two to one", two_to_one, 1, 0, " refcount=1 reference=2\n"},
	{"block misaligned", block_misaligned, 1, 0,
	 "ERROR refcount block 1 is not cluster aligned; refcount table entry corrupted\n"},
	{"block reserved", block_reserved, 1, 0,
	 "ERROR refcount table entry 1 has reserved bits set\n"},
	{"block twice", block_twice, 2, 0, "ERROR refcount block 1 refcount=2\n"},
	{"block outside", block_outside, 1, 0, "ERROR refcount block 1 is outside image\n"},
};

static void damage_is_found(void **state)
{
	struct findings f = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(damages); i++) {
		const struct damage *d = &damages[i];
		struct io *file = damage_image("cluster_size=64k");
		struct check_result res;
		struct err e = {0};

		d->damage(file);
		ok(damage_check(file, 0, NULL, &res, &f, &e), &e);
		if (res.corruptions != d->corruptions || res.leaks != d->leaks ||
		    res.check_errors || !strstr(f.text, d->line))
			fail_msg("%s: %d corruptions, %d leaks, %d errors\n%s", d->name,
				 (int)res.corruptions, (int)res.leaks, (int)res.check_errors,
				 f.text);
		io_close(file);
	}
	findings_free(&f);
}

/* The second half of an extended entry, of a cluster with data, a compressed and an absent one. */
static const struct {
	uint64_t cluster, bitmap;
	unsigned corruptions;
	const char *line;
} bitmaps[] = {
	{0, UINT64_C(0x00000001ffffffff), 1,
	 "Allocated cluster has corrupted subcluster allocation bitmap\n"},
	{0, UINT64_C(0xffffffff00000000), 0, ""},
	{0, 0, 0, ""},
	{3, 1, 1, "ERROR compressed cluster 3 with non-zero subcluster allocation bitmap, entry="},
	{2, 1, 1, "ERROR: Unallocated cluster has non-zero subcluster allocation map\n"},
	{2, UINT64_C(1) << 32, 0, ""},
};

static void subcluster_bitmaps_are_judged(void **state)
{
	struct findings f = {0};
	struct check_result res;
	struct err e = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bitmaps); i++) {
		struct io *file = damage_image("cluster_size=64k,extended_l2=on");

		damage_put(file, damage_l2(file, bitmaps[i].cluster * 65536) + 8,
			   bitmaps[i].bitmap);
		f.len = 0;
		ok(damage_check(file, 0, NULL, &res, &f, &e), &e);
		if (res.corruptions != bitmaps[i].corruptions ||
		    (bitmaps[i].line[0] && !strstr(f.text, bitmaps[i].line)))
			fail_msg("%u: %s", i, f.text);
		io_close(file);
	}
	findings_free(&f);
}

static void no_block_at_all(void **state)
{
	struct io *file = damage_image("cluster_size=64k");
	struct check_result res;
	struct err e = {0};

	(void)state;
	block_gone(file);
	ok(damage_check(file, 0, NULL, &res, NULL, &e), &e);
	assert_true(res.corruptions >= 12);
	assert_int_equal(res.leaks, 0);
	io_close(file);
}

static void unreadable_refcounts_are_check_errors(void **state)
{
	struct io *file = damage_image("cluster_size=64k");
	struct check_result res;
	struct findings f = {0};
	struct err e = {0};

	(void)state;
	damage_put(file, damage_layout(file).reftable, 512 * 257);
	ok(damage_check(file, 0, NULL, &res, &f, &e), &e);
	assert_int_equal(res.check_errors, div_up(io_size(file), 65536));
	assert_non_null(strstr(f.text, "Can't get refcount for cluster 0: Input/output error\n"));
	findings_free(&f);
	io_close(file);
}

static void lines_are_limited(void **state)
{
	struct io *file = damage_image("cluster_size=512");
	struct check_result res;
	struct findings f = {.max_lines = 10};
	struct err e = {0};

	(void)state;
	for (uint64_t k = 40; k < 240; k++)
		damage_set_refcount(file, k, 1000);
	ok(damage_check(file, 0, NULL, &res, &f, &e), &e);
	assert_int_equal(res.leaks, 200);
	assert_non_null(strstr(f.text, "(only the first 10 are shown: wrong refcounts)\n"));
	assert_in_range(f.lines, 11,
			24); /* also flags, with a limit and a last line of their own */
	findings_free(&f);
	io_close(file);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines in alphabetical order. */
static void sort_lines(struct findings *f)
{
	char **v = calloc(f->lines + 1, sizeof(*v)), *copy, *save = NULL;
	unsigned n = 0;

	if (!f->lines) {
		free(v);
		return;
	}
	copy = strdup(f->text);
	assert_non_null(v);
	assert_non_null(copy);
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		v[n++] = l;
	qsort(v, n, sizeof(*v), by_text);
	f->len = 0;
	for (unsigned i = 0; i < n; i++)
		f->len += (size_t)sprintf(f->text + f->len, "%s\n", v[i]);
	free(copy);
	free(v);
}

/* Windows only cut the work: the same counters, the same lines in some order. */
static void windows_change_nothing(void **state)
{
	static const char *const opts[] = {"cluster_size=512", "cluster_size=512,refcount_bits=64",
					   "cluster_size=512,refcount_bits=32"};
	struct findings one = {0}, many = {0};
	unsigned interesting = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 120; seed++) {
		struct rng rng = {seed};
		struct io *file = damage_image_with_snapshots(opts[seed % ARRAY_LEN(opts)], 1);
		struct check_result a, b;
		struct err e = {0};

		damage_random(file, &rng);
		ok(damage_check(file, 0, NULL, &a, &one, &e), &e);
		ok(damage_check(file, 0, &small, &b, &many, &e), &e);
		sort_lines(&one);
		sort_lines(&many);
		if (memcmp(&a, &b, sizeof(a)) != 0 ||
		    (one.lines && strcmp(one.text, many.text) != 0) || one.lines != many.lines)
			fail_msg("seed %d\none window:\n%s\nmany:\n%s", (int)seed, one.text,
				 many.text);
		interesting += one.lines > 0;
		io_close(file);
	}
	assert_true(interesting > 60);
	findings_free(&one);
	findings_free(&many);
}

static void windows_shrink_to_the_budget(void **state)
{
	/* One page of 16-bit counters fits, another one of 2 bits does not. */
	static const struct check_bounds tight = {.window = 1 << 20,
						  .min_window = 256,
						  .budget = 35 * KiB};
	static const struct check_bounds hopeless = {.window = 1 << 20,
						     .min_window = 1 << 20,
						     .budget = 4 * KiB};
	struct io *file = damage_image("cluster_size=512");
	struct check_result a, b;
	struct err e = {0};

	(void)state;
	/* A second disk behind the first, so that there are many pages. */
	ok(io_pwrite(file, "x", 1, 40 * MiB, &e), &e);
	damage_put(file, damage_l2(file, 2 * 512), (40 * MiB & ~UINT64_C(511)) | ENTRY_COPIED);
	ok(damage_check(file, 0, NULL, &a, NULL, &e), &e);
	ok(damage_check(file, 0, &tight, &b, NULL, &e), &e);
	assert_memory_equal(&a, &b, sizeof(a));
	fails(damage_check(file, 0, &hopeless, &b, NULL, &e), -ENOMEM, &e, "reference counts");
	io_close(file);
}

static void snapshots_that_share_tables(void **state)
{
	struct io *file = damage_image_with_snapshots("cluster_size=4k", 20);
	struct check_result res;
	struct findings f = {0};
	struct err e = {0};

	(void)state;
	ok(damage_check(file, 0, NULL, &res, &f, &e), &e);
	assert_int_equal(res.corruptions + res.leaks, 0);
	assert_true(damage_refcount(file, 8) <= 21);
	findings_free(&f);
	io_close(file);
}

static void a_cut_file_is_not_sound(void **state)
{
	struct io *file = damage_image("cluster_size=64k");
	struct check_result res;
	struct err e = {0};

	(void)state;
	ok(io_resize(file, damage_layout(file).l1, &e), &e);
	ok(damage_check(file, 0, NULL, &res, NULL, &e), &e);
	assert_true(res.corruptions > 0);
	io_close(file);
}

static void read_errors_are_told(void **state)
{
	struct io *file = damage_image_with_snapshots("cluster_size=4k", 2);
	struct header h = {0};
	struct check_result res;
	struct err e = {0};
	uint64_t n;
	int r = -1;

	(void)state;
	ok(header_read(file, &h, &e), &e);
	for (n = 1; r < 0; n++) {
		struct fault_plan plan = {.fail_at = n, .code = EIO};
		struct io *faulty;

		ok(fault_open(file, false, &plan, &faulty, &e), &e);
		r = qcow2_check_file(faulty, &h, 0, &res, NULL, NULL, &e);
		io_close(faulty);
		/* A map that fails only means that nothing is known of holes. */
		assert_true(r == -EIO || r == 0);
		if (r == 0)
			assert_int_equal(res.corruptions + res.leaks, 0);
		if (r == 0 && plan.calls >= n)
			r = -1;
	}
	assert_true(n > 10);
	header_free(&h);
	io_close(file);
}

static void a_cancelled_check_ends(void **state)
{
	struct io *file = damage_image("cluster_size=4k");
	struct header h = {0};
	struct check_result res;
	struct job job = {.cancelled = true};
	struct err e = {0};

	(void)state;
	ok(header_read(file, &h, &e), &e);
	fails(qcow2_check_file(file, &h, 0, &res, NULL, &job, &e), -ECANCELED, &e, "cancelled");
	job.cancelled = false;
	ok(qcow2_check_file(file, &h, 0, &res, NULL, &job, &e), &e);
	assert_true(job.total > 0 && job.done == job.total);
	header_free(&h);
	io_close(file);
}

static void an_open_image_is_checked(void **state)
{
	struct io *file = damage_image("cluster_size=4k");
	struct img *img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	struct check_result res;
	struct err e = {0};

	(void)state;
	/* What is only in memory so far is written back first. */
	ok(io_pwrite(&img->io, "new", 3, 2 * 4096, &e), &e);
	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	assert_int_equal(res.corruptions + res.leaks, 0);
	io_close(&img->io);
	img = disk_open(file, "qcow2", 0, NULL);
	ok(img_check(img, 0, &res, NULL, NULL, &e), &e);
	fails(img_check(img, CHECK_FIX_LEAKS, &res, NULL, NULL, &e), -EROFS, &e, "read-only");
	io_close(&img->io);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_counts),
		cmocka_unit_test(map_widens_and_saturates),
		cmocka_unit_test(map_has_a_window),
		cmocka_unit_test(map_keeps_its_budget),
		cmocka_unit_test(sweep_counts_tables),
		cmocka_unit_test(sound_images_are_sound),
		cmocka_unit_test(counters_are_those_of_the_disk),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(subcluster_bitmaps_are_judged),
		cmocka_unit_test(no_block_at_all),
		cmocka_unit_test(unreadable_refcounts_are_check_errors),
		cmocka_unit_test(lines_are_limited),
		cmocka_unit_test(windows_change_nothing),
		cmocka_unit_test(windows_shrink_to_the_budget),
		cmocka_unit_test(snapshots_that_share_tables),
		cmocka_unit_test(a_cut_file_is_not_sound),
		cmocka_unit_test(read_errors_are_told),
		cmocka_unit_test(a_cancelled_check_ends),
		cmocka_unit_test(an_open_image_is_checked),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	damage_forget();
	return failed;
}
