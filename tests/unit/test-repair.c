// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * qcow2 repair: what is mended stays mended, guest data is not touched, and neither a power cut nor a
 * failing write in the middle makes anything worse. The judge (tests/lib/oracle.h) shares no code with
 * the check.
 * timeout: 300
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "../crash/replay.h"
#include "damage.h"
#include "io/window.h"
#include "oracle.h"
#include "tell.h"

static const struct check_bounds small = {.window = 4096, .min_window = 4096, .budget = 1 * MiB};

static const char *const shapes[] = {
	"cluster_size=512,refcount_bits=16", "cluster_size=512,refcount_bits=64",
	"cluster_size=512,refcount_bits=8",  "cluster_size=4k,refcount_bits=2",
	"cluster_size=4k,compat=0.10",       "cluster_size=16k,refcount_bits=4",
	"cluster_size=64k,refcount_bits=32", "cluster_size=16k,extended_l2=on",
};

/* An image with so many snapshots, where its counters can hold them. */
static struct io *image(uint64_t shape, unsigned snapshots)
{
	const char *opts = shapes[shape % ARRAY_LEN(shapes)];
	bool narrow = strstr(opts, "bits=2") || strstr(opts, "bits=4");

	return damage_image_with_snapshots(opts, narrow ? 0 : snapshots);
}

static struct io *damaged(uint64_t seed)
{
	struct rng rng = {seed};
	struct io *file = image(seed, seed % 3);

	context("seed %d", (int)seed);
	damage_random(file, &rng);
	return file;
}

/* What the independent judge says of a file. */
static void judge(struct io *file, struct oracle *o)
{
	uint64_t len;
	unsigned char *p = disk_bytes(file, &len);

	*o = (struct oracle){0};
	assert_true(oracle_judge(o, p, len));
	oracle_free(o);
	free(p);
}

static void assert_sound(struct io *file)
{
	struct oracle o;

	judge(file, &o);
	if (o.errors || o.leaks || o.copied_wrong || o.copied_missing || o.dirty || o.corrupt_bit)
		fail_msg("%u errors, %u leaks, %u + %u flags, dirty %d: %s", o.errors, o.leaks,
			 o.copied_wrong, o.copied_missing, o.dirty, o.text);
}

static uint64_t writes_of_repair(struct io *file, struct check_result *res, struct err *e)
{
	struct trace_stats stats = {0};
	struct io *traced;

	ok(trace_open(file, false, &stats, &traced, e), e);
	ok(damage_check(traced, FIX_ALL, NULL, res, NULL, e), e);
	io_close(traced);
	return stats.pwrites + stats.zeros + stats.discards + stats.resizes;
}

/* Repairs; when all is well then, the judge agrees and a second repair writes nothing. */
static bool repair_and_judge(struct io *file, const struct check_bounds *bounds)
{
	struct check_result first, after, second;
	struct findings f = {0};
	struct err e = {0};
	int r = damage_check(file, FIX_ALL, bounds, &first, NULL, &e);
	bool whole;

	if (r < 0 && r != -ENOSPC)
		fail_msg("repair: %s", e.msg);
	ok(damage_check(file, 0, NULL, &after, &f, &e), &e);
	whole = r == 0 && !first.corruptions && !first.leaks && !first.check_errors;
	if (whole && (after.corruptions || after.leaks || f.lines))
		fail_msg("repaired, and then: %s", f.text);
	if (whole) {
		assert_sound(file);
		assert_int_equal(writes_of_repair(file, &second, &e), 0);
		assert_int_equal(second.corruptions_fixed + second.leaks_fixed, 0);
	}
	findings_free(&f);
	return whole;
}

static void random_damage_is_mended(void **state)
{
	unsigned whole = 0, n = SANITIZED ? 140 : 700;

	(void)state;
	for (uint64_t seed = 0; seed < n; seed++) {
		struct io *file = damaged(seed), *copy = disk_copy(file, "copy");
		bool a = repair_and_judge(file, NULL), b = repair_and_judge(copy, &small);

		assert_int_equal(a, b);
		whole += a;
		io_close(file);
		io_close(copy);
	}
	/* The rest has entries that no repair can give back. */
	assert_true(whole > n / 2);
}

/* ---- guest data ---- */

static unsigned char *disk_content(struct io *file, uint64_t *len)
{
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	unsigned char *p = disk_bytes(&img->io, len);

	io_close(&img->io);
	return p;
}

/* Damage to counters and flags only: the disk is as before, to the last byte. */
static void guest_data_is_not_touched(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct rng rng = {seed};
		struct io *file = image(seed, 2);
		struct layout_of l = damage_layout(file);
		uint64_t len, again, max = refcount_max(l.order);
		unsigned char *before = disk_content(file, &len), *after;

		for (unsigned i = 0; i < 20; i++) {
			uint64_t k = rng_below(&rng, min_u64(io_size(file) / l.cluster,
							     l.cluster * 8 >> l.order));
			uint64_t at = damage_l2(file, rng_below(&rng, l.size));

			damage_set_refcount(file, k, rng_below(&rng, 5) & max);
			if (!(damage_get(file, at) & ENTRY_COMPRESSED) &&
			    (damage_get(file, at) & ENTRY_OFFSET))
				damage_put(file, at, damage_get(file, at) ^ ENTRY_COPIED);
		}
		if (seed % 4 == 0)
			damage_put(file, l.reftable, seed % 8 ? 0 : l.reftable + 512);
		context("seed %d", (int)seed);
		if (!repair_and_judge(file, NULL))
			fail_msg("seed %d was not mended", (int)seed);
		after = disk_content(file, &again);
		assert_int_equal(len, again);
		assert_memory_equal(before, after, len);
		free(before);
		free(after);
		io_close(file);
	}
}

static void leaks_alone(void **state)
{
	struct io *file = damage_image("cluster_size=4k");
	struct check_result res;
	struct findings f = {0};
	struct err e = {0};
	uint64_t data = damage_get(file, damage_l2(file, 0)) & ENTRY_OFFSET;
	uint64_t other = damage_get(file, damage_l2(file, 4 * 4096)) & ENTRY_OFFSET;

	(void)state;
	damage_set_refcount(file, data / 4096, 7);
	ok(damage_check(file, CHECK_FIX_LEAKS, NULL, &res, &f, &e), &e);
	assert_int_equal(res.leaks_fixed, 1);
	assert_int_equal(res.corruptions + res.leaks, 0);
	assert_non_null(strstr(f.text, "Leaked cluster "));
	assert_non_null(strstr(f.text, "Repairing cluster "));
	assert_sound(file);
	/* A counter that is too low is not its business, and so flags are not either. */
	damage_put(file, damage_l2(file, 2 * 4096), data | ENTRY_COPIED);
	damage_set_refcount(file, other / 4096, 3);
	ok(damage_check(file, CHECK_FIX_LEAKS, NULL, &res, &f, &e), &e);
	assert_int_equal(res.leaks_fixed, 1);
	assert_int_equal(res.corruptions, 1);
	assert_int_equal(damage_refcount(file, data / 4096), 1);
	assert_int_equal(damage_refcount(file, other / 4096), 1);
	/* Where only new blocks help, it says so and leaves everything alone. */
	damage_put(file, damage_layout(file).reftable, 0);
	fails(damage_check(file, CHECK_FIX_LEAKS, NULL, &res, &f, &e), -EIO, &e, "check -r all");
	assert_int_equal(res.check_errors, 1);
	assert_non_null(strstr(f.text, "ERROR need to rebuild refcount structures"));
	findings_free(&f);
	io_close(file);
}

/* ---- power cuts ---- */

struct cuts {
	struct replay replay;
	struct oracle before;
	unsigned states;
	bool all; /* each state is repaired again, not one of sixteen */
};

static bool cut_visited(void *ctx, const struct cut *c)
{
	struct cuts *cuts = ctx;
	struct oracle o = {0};

	replay_cut(&cuts->replay, c);
	assert_true(oracle_judge(&o, cuts->replay.p, cuts->replay.len));
	/* With the dirty bit, whoever opens the image for writing repairs it first. */
	if (!o.dirty && o.errors > cuts->before.errors)
		die("%u errors before, %u now: %s", cuts->before.errors, o.errors, o.text);
	if (!o.dirty && o.copied_wrong > cuts->before.copied_wrong)
		die("%u wrong flags before, %u now", cuts->before.copied_wrong, o.copied_wrong);
	oracle_free(&o);
	if (cuts->all || cuts->states % 16 == 0) {
		struct io *file = disk_from_bytes(cuts->replay.p, cuts->replay.len, "cut");

		assert_true(repair_and_judge(file, NULL));
		io_close(file);
	}
	cuts->states++;
	replay_undo(&cuts->replay);
	return true;
}

/* Repairs with a recorder in between, then visits what a power cut may leave at any time. */
static unsigned cut_repair(struct io *file, struct rng *rng, bool all)
{
	struct crash_log log = {0};
	struct cuts cuts = {.all = all};
	struct cut *c = calloc(1, sizeof(*c));
	struct check_result res;
	struct io *recorded;
	struct err e = {0};

	assert_non_null(c);
	judge(file, &cuts.before);
	ok(crash_open(file, false, &log, &recorded, &e), &e);
	ok(damage_check(recorded, FIX_ALL, NULL, &res, NULL, &e), &e);
	io_close(recorded);
	replay_begin(&cuts.replay, &log);
	for (size_t i = 0; i < log.n; i++) {
		if (log.rec[i].kind != CRASH_FLUSH) {
			if (log.rec[i].kind != CRASH_MARK)
				c->rec[c->n++] = &log.rec[i];
			continue;
		}
		if (c->n)
			cuts_visit(c, rng, cut_visited, &cuts);
		for (unsigned j = 0; j < c->n; j++)
			replay_apply(&cuts.replay, c->rec[j], NULL);
		replay_keep(&cuts.replay);
		c->n = 0;
	}
	/* Whatever was written was flushed. */
	assert_int_equal(c->n, 0);
	replay_free(&cuts.replay);
	crash_log_free(&log);
	free(c);
	return cuts.states;
}

static void power_cuts_do_no_harm(void **state)
{
	unsigned states = 0;

	(void)state;
	for (uint64_t seed = 0; states < (SANITIZED ? 2000 : 10000); seed++) {
		struct rng rng = {seed};
		struct io *file = damaged(seed), *copy = disk_copy(file, "copy");

		/* Those that can be mended as a whole. */
		if (repair_and_judge(copy, NULL))
			states += cut_repair(file, &rng, false);
		io_close(copy);
		io_close(file);
		assert_true(seed < 5000);
	}
}

/* ---- writes that fail ---- */

static void failing_writes_do_no_harm(void **state)
{
	unsigned failures = 0;

	(void)state;
	for (uint64_t seed = 0; failures < 200; seed++) {
		struct io *file = damaged(seed), *copy = disk_copy(file, "copy");
		bool whole = repair_and_judge(copy, NULL);
		bool failed = whole;
		int r;

		for (uint64_t n = 1; failed; n++) {
			struct io *again = disk_copy(file, "again"), *faulty;
			struct fault_plan plan = {
				.fail_at = n, .code = ENOSPC, .sticky = n % 2, .writes_only = true};
			struct check_result res;
			struct err e = {0};

			ok(fault_open(again, false, &plan, &faulty, &e), &e);
			r = damage_check(faulty, FIX_ALL, NULL, &res, NULL, &e);
			failed = atomic_load(&plan.calls) >= n;
			io_close(faulty);
			assert_true(r == 0 || r == -ENOSPC);
			assert_true(r == 0 || e.msg[0]);
			assert_true(repair_and_judge(again, NULL));
			failures += r < 0;
			io_close(again);
		}
		io_close(copy);
		io_close(file);
	}
}

/* ---- the dirty bit ---- */

static void set_dirty(struct io *file)
{
	damage_put(file, 72, damage_get(file, 72) | INCOMPAT_DIRTY);
}

static void dirty_images_are_mended_when_opened(void **state)
{
	struct err e = {0};

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct rng rng = {seed};
		struct io *file = damage_image("cluster_size=4k,lazy_refcounts=on");
		uint64_t len, again;
		unsigned char *before = disk_content(file, &len), *after;
		struct img *img;

		for (uint64_t k = 0; k < 200; k++)
			damage_set_refcount(file, k, rng_below(&rng, 3));
		set_dirty(file);
		img = disk_open(file, "qcow2", IMG_RDWR, NULL);
		ok(img_settle(img, &e), &e);
		io_close(&img->io);
		assert_sound(file);
		after = disk_content(file, &again);
		assert_int_equal(len, again);
		assert_memory_equal(before, after, len);
		free(before);
		free(after);
		io_close(file);
	}
}

static void dirty_images_beyond_repair_are_refused(void **state)
{
	struct io *file = damage_image("cluster_size=4k");
	struct header h = {0};
	struct err e = {0};

	(void)state;
	damage_put(file, damage_l2(file, 2 * 4096), UINT64_C(1) << 40 | ENTRY_COPIED);
	set_dirty(file);
	ok(header_read(file, &h, &e), &e);
	fails(qcow2_repair_dirty(file, &h, &e), -EUCLEAN, &e, "could not repair dirty image");
	header_free(&h);
	assert_true(damage_get(file, 72) & INCOMPAT_DIRTY);
	io_close(file);
}

static void the_corrupt_bit_goes_when_nothing_is_left(void **state)
{
	struct io *file = damage_image("cluster_size=4k");
	struct check_result res;
	struct err e = {0};

	(void)state;
	damage_put(file, 72, INCOMPAT_CORRUPT);
	ok(damage_check(file, 0, NULL, &res, NULL, &e), &e);
	assert_int_equal(damage_get(file, 72), INCOMPAT_CORRUPT);
	ok(damage_check(file, FIX_ALL, NULL, &res, NULL, &e), &e);
	assert_int_equal(damage_get(file, 72), 0);
	/* It stays while there is something. */
	damage_put(file, 72, INCOMPAT_CORRUPT);
	damage_put(file, damage_l2(file, 2 * 4096), UINT64_C(1) << 40 | ENTRY_COPIED);
	ok(damage_check(file, FIX_ALL, NULL, &res, NULL, &e), &e);
	assert_int_equal(damage_get(file, 72), INCOMPAT_CORRUPT);
	io_close(file);
}

/* ---- where new structures go ---- */

/* An image whose first refcount block is gone, on a device of its size and `more` bytes. */
static int repair_on_device(uint64_t more, bool gap, struct err *e)
{
	struct io *file = damage_image("cluster_size=4k"), *device;
	struct layout_of l = damage_layout(file);
	struct check_result res;
	uint64_t size = round_up(io_size(file), l.cluster);
	int r;

	if (gap) { /* a data cluster that nobody uses any more */
		uint64_t at = damage_l2(file, 4 * 4096);

		damage_set_refcount(file, (damage_get(file, at) & ENTRY_OFFSET) / 4096, 0);
		damage_put(file, at, 0);
	}
	damage_put(file, l.reftable, 0);
	ok(io_resize(file, size + more, e), e);
	ok(window_open(file, 0, size + more, true, &device, e), e);
	r = damage_check(device, FIX_ALL, NULL, &res, NULL, e);
	assert_int_equal(io_size(device), size + more);
	if (r == 0)
		assert_sound(device);
	io_close(device);
	return r;
}

static void devices_do_not_grow(void **state)
{
	struct err e = {0};

	(void)state;
	ok(repair_on_device(4096, false, &e), &e);
	ok(repair_on_device(0, true, &e), &e);
	/* The old block, which nothing refers to any more, is room enough. */
	ok(repair_on_device(0, false, &e), &e);
}

/* Entries that point past the end must not come to point into what the repair makes. */
static void dangling_entries_stay_dangling(void **state)
{
	(void)state;
	for (unsigned gap = 0; gap < 2; gap++) {
		struct io *file = damage_image("cluster_size=4k");
		struct layout_of l = damage_layout(file);
		struct check_result res;
		struct err e = {0};
		uint64_t end = round_up(io_size(file), l.cluster), block = l.block;

		for (uint64_t i = 0; i < 8; i++)
			damage_put(file, damage_l2(file, (2 + 7 * i) * 4096),
				   (end + i * 4096) | ENTRY_COPIED);
		/* The block of the first clusters moves; its old place is in use or not. */
		damage_put(file, l.reftable, gap ? 0 : block | 1);
		if (!gap)
			damage_put(file, damage_l2(file, (2 + 7 * 8) * 4096), block | ENTRY_COPIED);
		ok(damage_check(file, FIX_ALL, NULL, &res, NULL, &e) == -ENOSPC ? 0 : 0, &e);
		for (uint64_t i = 0; i < 8; i++)
			assert_int_equal(damage_get(file, end + i * 4096), 0);
		assert_true(io_size(file) <= end);
		io_close(file);
	}
}

/* ---- snapshot tables ---- */

/* Sets the length of the extra data of snapshot 0, moving its strings accordingly. */
static void set_extra(struct io *file, uint32_t len)
{
	uint64_t table = damage_get(file, 64);
	unsigned char entry[4096] = {0}, old[128];
	struct disk_snapshot d;
	struct err e = {0};

	ok(io_pread_tail(file, old, sizeof(old), table, &e), &e);
	memcpy(&d, old, sizeof(d));
	memcpy(entry + sizeof(d), old + sizeof(d), min_u64(len, 24));
	memcpy(entry + sizeof(d) + len, old + sizeof(d) + 24,
	       (size_t)be16_get(d.id_len) + be16_get(d.name_len));
	d.extra_len = be32_make(len);
	memcpy(entry, &d, sizeof(d));
	ok(io_pwrite(file, entry, 4096, table, &e), &e);
}

static void snapshot_tables_are_mended(void **state)
{
	static const uint32_t lengths[] = {0, 8, 15, 1025, 3000};
	struct findings f = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
		struct io *file = damage_image_with_snapshots("cluster_size=4k", 1);
		struct check_result res;
		struct err e = {0};
		const struct snapshot *s;
		struct img *img;
		unsigned n;
		int r;

		set_extra(file, lengths[i]);
		r = damage_check(file, 0, NULL, &res, &f, &e);
		if (lengths[i] > 1024)
			assert_int_equal(r, -EFBIG);
		else
			assert_int_equal(res.corruptions, 1);
		assert_true(repair_and_judge(file, NULL));
		img = disk_open(file, "qcow2", 0, NULL);
		s = img_snapshots(img, &n);
		assert_int_equal(n, 1);
		assert_string_equal(s->name, "snap 0");
		assert_string_equal(s->id, "1");
		assert_int_equal(s->disk_size, 1 * MiB);
		io_close(&img->io);
		io_close(file);
	}
	findings_free(&f);
}

static void a_sound_image_is_not_written_to(void **state)
{
	struct err e = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct io *file = image(i, 2);
		struct check_result res;

		assert_int_equal(writes_of_repair(file, &res, &e), 0);
		io_close(file);
	}
}

/* ---- bitmaps ---- */

#define BITS_SIZE (256 * KiB)

/* Two bitmaps, and where their directory and their header extension are. */
static struct io *image_with_bitmaps(uint64_t *dir, uint64_t *ext)
{
	struct io *file = disk_new("bitmaps.qcow2");
	unsigned char buf[4096];
	struct err e = {0};
	struct img *img;

	disk_create(file, "qcow2", BITS_SIZE, "cluster_size=4k", NULL, NULL);
	img = disk_open(file, "qcow2", IMG_RDWR, NULL);
	ok(img_bitmap_add(img, "one", 512, true, &e), &e);
	ok(img_bitmap_add(img, "two", 4096, false, &e), &e);
	for (uint64_t at = 0; at < BITS_SIZE; at += 3 * sizeof(buf)) {
		memset(buf, (int)(at >> 12) + 1, sizeof(buf));
		ok(io_pwrite(&img->io, buf, sizeof(buf), at, &e), &e);
	}
	ok(img_settle(img, &e), &e);
	io_close(&img->io);
	for (*ext = 104; damage_get(file, *ext) >> 32 != EXT_TYPE_BITMAPS;)
		*ext += 8 + round_up(damage_get(file, *ext) & UINT32_MAX, 8);
	*dir = damage_get(file, *ext + 24);
	return file;
}

/* What bitmaps have to do with a file that was repaired: nothing. The disk is what it was. */
static void has_no_bitmaps(struct io *file, struct io *before)
{
	static unsigned char x[BITS_SIZE], y[BITS_SIZE];
	struct img *img = disk_open(file, "qcow2", 0, NULL);
	struct err e = {0};
	unsigned n = 9;

	assert_sound(file);
	ok(img_bitmaps(img, &n, &e), &e);
	assert_int_equal(n, 0);
	ok(io_pread(&img->io, x, BITS_SIZE, 0, &e), &e);
	io_close(&img->io);
	img = disk_open(before, "qcow2", 0, NULL);
	ok(io_pread(&img->io, y, BITS_SIZE, 0, &e), &e);
	io_close(&img->io);
	assert_memory_equal(x, y, BITS_SIZE);
	for (uint64_t at = 104; at < 600; at += 8)
		assert_int_not_equal(damage_get(file, at) >> 32, EXT_TYPE_BITMAPS);
}

static int repair_open(struct io *file, struct check_result *res, struct findings *f, struct err *e)
{
	struct check_sink sink = {findings_line, f, 0};
	struct img *img;
	int r;

	ok(img_open_io(disk_borrow(file), "qcow2", IMG_RDWR | IMG_FOR_CHECK, NULL, &img, e), e);
	r = img_check(img, FIX_ALL, res, f ? &sink : NULL, NULL, e);
	io_close(&img->io);
	return r;
}

/* Whatever is wrong with the directory, and whichever write of the repair fails. */
static void broken_bitmap_directories_are_dropped(void **state)
{
	static const struct {
		bool header; /* relative to the extension, else to the directory */
		unsigned at;
		uint64_t value;
		const char *text;
	} damages[] = {
		{false, 0, 7, "invalid offset of a bitmap table"},
		{false, 8, UINT64_C(0xffffffff00000000), "invalid size of a bitmap table"},
		{false, 16, UINT64_C(0x0108000300000000), "invalid granularity"},
		{true, 8, UINT64_C(3) << 32, "too short"},
		{true, 8, UINT64_C(1) << 32, "more bitmaps than"},
		{true, 24, 512, "invalid place or size"},
	};
	struct err e = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(damages); i++) {
		uint64_t dir, ext;
		struct io *before = image_with_bitmaps(&dir, &ext);
		bool failed = true;

		context("damage %u", i);
		damage_put(before, (damages[i].header ? ext : dir) + damages[i].at,
			   damages[i].value);
		for (uint64_t at = 0; failed; at++) {
			struct fault_plan plan = {
				.fail_at = at, .writes_only = true, .sticky = true, .code = EIO};
			struct io *file = disk_copy(before, "file.qcow2"), *io;
			struct findings f = {0};
			struct check_result res;

			ok(fault_open(file, false, &plan, &io, &e), &e);
			failed = repair_open(io, &res, at ? NULL : &f, &e) < 0;
			io_close(io);
			assert_true(at || !failed);
			if (!at) {
				assert_non_null(strstr(f.text, damages[i].text));
				assert_non_null(strstr(f.text, "Dropping all bitmaps"));
				assert_int_equal(res.corruptions, 0);
				assert_int_equal(res.corruptions_fixed, 1);
				failed = true;
			}
			ok(repair_open(file, &res, NULL, &e), &e);
			has_no_bitmaps(file, before);
			findings_free(&f);
			io_close(file);
		}
		io_close(before);
	}
}

/* Not without being asked: opening a dirty image does not throw them away. */
static void opening_keeps_broken_bitmaps(void **state)
{
	struct err e = {0};
	uint64_t dir, ext;
	struct io *file = image_with_bitmaps(&dir, &ext);
	struct img *img;

	(void)state;
	damage_put(file, dir, 7);
	damage_put(file, 72, INCOMPAT_DIRTY);
	fails(img_open_io(file, "qcow2", IMG_RDWR, NULL, &img, &e), -EUCLEAN, &e,
	      "cannot be repaired");
	assert_int_equal(damage_get(file, 88) & AUTOCLEAR_BITMAPS, AUTOCLEAR_BITMAPS);
	io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_image_is_not_written_to),
		cmocka_unit_test(random_damage_is_mended),
		cmocka_unit_test(guest_data_is_not_touched),
		cmocka_unit_test(leaks_alone),
		cmocka_unit_test(power_cuts_do_no_harm),
		cmocka_unit_test(failing_writes_do_no_harm),
		cmocka_unit_test(dirty_images_are_mended_when_opened),
		cmocka_unit_test(dirty_images_beyond_repair_are_refused),
		cmocka_unit_test(the_corrupt_bit_goes_when_nothing_is_left),
		cmocka_unit_test(devices_do_not_grow),
		cmocka_unit_test(dangling_entries_stay_dangling),
		cmocka_unit_test(snapshot_tables_are_mended),
		cmocka_unit_test(broken_bitmap_directories_are_dropped),
		cmocka_unit_test(opening_keeps_broken_bitmaps),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	damage_forget();
	return failed;
}
