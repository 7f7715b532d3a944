// SPDX-License-Identifier: GPL-2.0-or-later
// threads
/*
 * Copies that are interrupted and continued: the result is byte for byte that of one run, wherever
 * it stopped, and whatever a power cut left. What cannot be continued is refused.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "crash/replay.h"
#include "lib/disk.h"
#include "lib/rng.h"
#include "ops/copy.h"

/* What does nothing at the same time needs no ThreadSanitizer, which makes it ten times slower. */
#ifdef __SANITIZE_THREAD__
static const bool only_threads = true;
#else
static const bool only_threads = false;
#endif

static struct err e;
static uint64_t resumed_at;

static void resumed(void *ctx, uint64_t bytes)
{
	(void)ctx;
	resumed_at = bytes;
}

/* ---- a copy with a journal, all in memory ---- */

struct how {
	const char *format, *opts;
	struct copy_args copy;
};

#define STEP .checkpoint = 1 /* one after each chunk */

static const struct how hows[] = {
	{"raw", NULL, {.sparse = 4096, STEP}},
	{"raw", NULL, {.sparse = 0, STEP}},
	{"qcow2", NULL, {.sparse = 4096, STEP}},
	{"qcow2", "cluster_size=2M", {.sparse = 65536, STEP}},
	{"qcow2", "cluster_size=512,extended_l2=off", {.sparse = 0, STEP}},
	{"qcow2", "cluster_size=16k,extended_l2=on", {.sparse = 4096, STEP}},
	{"qcow2", "refcount_bits=1", {.sparse = 4096, .compress = true, STEP}},
	{"qcow2", "cluster_size=4k", {.sparse = 4096, .compress = true, STEP}},
	{"qcow2", "compression_type=zstd", {.sparse = 0, .compress = true, STEP}},
};

/* Journal NULL: in one run. The result is copy_run's. */
static int copy_to(struct io *file, struct io *journal, struct io *src, const struct how *how,
		   struct job *job, struct err *err)
{
	struct copy_args args = how->copy;
	struct opts opts = {0};
	struct create_args create = {.opts = &opts, .size = io_size(src)};
	struct build *b = NULL;
	int r = 0;

	if (how->opts)
		ok(opts_parse(&opts, how->opts, &e), &e);
	if (args.layer) {
		create.backing = "base";
		create.backing_format = "raw";
	}
	args.src = src;
	args.resumed = resumed;
	if (journal) {
		struct io *own = disk_borrow(journal);

		r = journal_open(own, "a: test\n", true, &args.journal, err);
		if (r < 0)
			io_close(own);
	}
	if (r == 0)
		r = format_find(how->format)->build(file, &create, 0, &b, err);
	args.build = b;
	if (r == 0)
		r = copy_run(&args, job, err);
	build_close(b);
	journal_close(args.journal);
	opts_free(&opts);
	return r;
}

/* Data that compresses and data that does not, zeros, holes; chunks of 1 MiB. */
static struct io *some_disk(uint64_t size, uint64_t seed)
{
	static unsigned char buf[400000];
	struct io *io = disk_new("source");
	struct rng rng = {.state = seed};

	ok(io_resize(io, size, &e), &e);
	for (uint64_t off = 0; off < size; off += rng_range(&rng, 1, 400) * 1024) {
		size_t len = (size_t)min_u64(rng_range(&rng, 1, sizeof(buf)), size - off);

		switch (rng_below(&rng, 4)) {
		case 0:
			rng_fill(&rng, buf, len);
			break;
		case 1:
			memset(buf, 0, len);
			break;
		case 2:
			for (size_t k = 0; k < len; k++)
				buf[k] = (unsigned char)(k / 70 + off);
			break;
		default: /* a hole, perhaps */
			off += 600 * KiB;
			continue;
		}
		ok(io_pwrite(io, buf, len, off, &e), &e);
	}
	return io;
}

static void assert_equal(struct io *file, struct io *one, const char *what, uint64_t n)
{
	uint64_t len, len_one;
	unsigned char *a = disk_bytes(file, &len), *b = disk_bytes(one, &len_one);

	for (uint64_t at = 0; at < min_u64(len, len_one); at++)
		if (a[at] != b[at])
			fail_msg("%s %llu: byte %llu is not that of one run", what,
				 (unsigned long long)n, (unsigned long long)at);
	if (len != len_one)
		fail_msg("%s %llu: %llu bytes, in one run %llu", what, (unsigned long long)n,
			 (unsigned long long)len, (unsigned long long)len_one);
	free(a);
	free(b);
}

static struct io *in_one_run(struct io *src, const struct how *how)
{
	struct io *one = disk_new("one");

	ok(copy_to(one, NULL, src, how, NULL, &e), &e);
	return one;
}

/* ---- interrupts ---- */

/* Runs until it is done, each run up to its n-th call; returns how many failed. */
static unsigned run_until_done(struct io *file, struct io *journal, struct io *src,
			       const struct how *how, uint64_t n, bool cancel)
{
	for (unsigned runs = 0;; runs++) {
		struct job job = {0};
		struct fault_plan plan = {
			/* Each one gets further, or it might stop at the same place for ever. */
			.fail_at = n * (runs + 1),
			.code = ENOSPC,
			.sticky = true,
			.writes_only = true,
			.raise = cancel ? &job.cancelled : NULL,
		};
		struct io *faulty;
		int r;

		ok(fault_open(disk_borrow(file), true, &plan, &faulty, &e), &e);
		r = copy_to(faulty, journal, src, how, &job, &e);
		io_close(faulty);
		if (r == 0)
			return runs;
		assert_int_equal(r, cancel ? -ECANCELED : -ENOSPC);
	}
}

static void interrupted(struct io *src, const struct how *how, bool cancel)
{
	struct io *one = in_one_run(src, how);
	bool went_on = false;
	unsigned failed;

	for (uint64_t n = 2; n < 400; n += 1 + n) {
		struct io *file = disk_new("target"), *journal = disk_new("journal");

		resumed_at = 0;
		failed = run_until_done(file, journal, src, how, n, cancel);
		assert_equal(file, one, "call", n);
		went_on = went_on || (failed && resumed_at);
		io_close(file);
		io_close(journal);
	}
	assert_true(went_on);
	io_close(one);
}

static void goes_on_after_errors(void **state)
{
	struct io *src = some_disk(5 * MiB + 1536, 5);

	(void)state;
	for (size_t i = only_threads ? 5 : 0; i < (only_threads ? 7 : ARRAY_LEN(hows)); i++) {
		struct how how = hows[i];

		how.copy.workers = 1 + (unsigned)i % 3;
		interrupted(src, &how, false);
	}
	io_close(src);
}

static void goes_on_after_cancel(void **state)
{
	struct io *src = some_disk(5 * MiB + 1536, 6);

	(void)state;
	for (size_t i = only_threads ? 5 : 0; i < (only_threads ? 7 : ARRAY_LEN(hows)); i++) {
		struct how how = hows[i];

		how.copy.workers = 1 + (unsigned)i % 3;
		interrupted(src, &how, true);
	}
	io_close(src);
}

/* Only the top layer, with its zeros; also where a format has no marks for them. */
static void layers_go_on(void **state)
{
	static const char *const opts[] = {"cluster_size=64k", "cluster_size=4k", "compat=v2"};
	struct io *base = some_disk(3 * MiB, 11), *file = disk_new("overlay");
	struct img *img, *top;

	(void)state;
	if (only_threads)
		return;
	disk_create(file, "qcow2", 5 * MiB, NULL, "base", "raw");
	ok(img_open_io(disk_borrow(base), "raw", 0, NULL, &img, &e), &e);
	top = disk_open(file, "qcow2", IMG_RDWR, img);
	ok(io_pwrite(&top->io, "data", 4, 100000, &e), &e);
	ok(io_pwrite(&top->io, "data", 4, 2 * MiB + 5, &e), &e);
	ok(io_pwrite(&top->io, "data", 4, 4 * MiB + 5, &e), &e);
	ok(io_zero(&top->io, MiB, 512 * KiB, IO_ZERO_UNMAP, &e), &e);
	for (size_t i = 0; i < ARRAY_LEN(opts); i++) {
		const struct how how = {
			"qcow2",
			opts[i],
			{.sparse = 4096, .layer = top, .backing_size = 3 * MiB, STEP}};

		interrupted(&top->io, &how, false);
	}
	io_close(&top->io);
	io_close(file);
	io_close(base);
}

/* ---- power cuts ---- */

struct cut_test {
	struct io *src, *one;
	const struct how *how;
	struct replay file, journal;
	unsigned seen;
};

/* A run from what is left, which ends with the bytes of one run. */
static void go_on_from(struct cut_test *t, const char *what)
{
	struct io *file = disk_from_bytes(t->file.p, t->file.len, "target");
	struct io *journal = disk_from_bytes(t->journal.p, t->journal.len, "journal");

	ok(copy_to(file, journal, t->src, t->how, NULL, &e), &e);
	assert_equal(file, t->one, what, t->seen);
	io_close(file);
	io_close(journal);
}

static bool cut_file(void *ctx, const struct cut *c)
{
	struct cut_test *t = ctx;

	if (t->seen++ % 29 == 0) {
		replay_cut(&t->file, c);
		go_on_from(t, "cut of the target");
		replay_undo(&t->file);
	}
	return true;
}

static bool cut_journal(void *ctx, const struct cut *c)
{
	struct cut_test *t = ctx;

	if (t->seen++ % 3 == 0) {
		replay_cut(&t->journal, c);
		go_on_from(t, "cut of the journal");
		replay_undo(&t->journal);
	}
	return true;
}

/* The changes up to the next flush, which is passed over; *at: where they begin. */
static void next_epoch(const struct crash_log *log, size_t *at, struct cut *c)
{
	*c = (struct cut){.torn = -1};
	while (*at < log->n && log->rec[*at].kind != CRASH_FLUSH) {
		if (c->n == EPOCH_MAX)
			fail_msg("an epoch of more than %d changes", EPOCH_MAX);
		c->rec[c->n++] = &log->rec[(*at)++];
	}
	(*at)++;
}

static void keep_epoch(struct replay *r, const struct cut *c)
{
	for (unsigned i = 0; i < c->n; i++)
		replay_apply(r, c->rec[i], NULL);
	replay_keep(r);
}

/*
 * With one worker, target and journal take turns: the target's changes and a flush, then a checkpoint
 * and a flush. So one of them is cut while the other is as its last flush left it.
 */
static void cut_everywhere(struct cut_test *t, const struct crash_log *file,
			   const struct crash_log *journal)
{
	static struct cut c;
	struct rng rng = {.state = 9};
	size_t f = 0, j = 0;

	replay_begin(&t->file, file);
	replay_begin(&t->journal, journal);
	next_epoch(journal, &j, &c); /* what the journal is of: before anything else */
	cuts_visit(&c, &rng, cut_journal, t);
	keep_epoch(&t->journal, &c);
	while (f < file->n) {
		next_epoch(file, &f, &c);
		cuts_visit(&c, &rng, cut_file, t);
		keep_epoch(&t->file, &c);
		if (j >= journal->n)
			break;
		next_epoch(journal, &j, &c);
		cuts_visit(&c, &rng, cut_journal, t);
		keep_epoch(&t->journal, &c);
	}
	assert_true(j >= journal->n && t->seen > 40);
	go_on_from(t, "all of it");
	replay_free(&t->file);
	replay_free(&t->journal);
}

static void goes_on_after_power_cuts(void **state)
{
	struct io *src = some_disk(4 * MiB, 8);

	(void)state;
	if (only_threads)
		return;
	for (size_t i = 0; i < ARRAY_LEN(hows); i += 2) {
		struct how how = hows[i];
		struct cut_test t = {.src = src, .how = &how};
		struct crash_log log_file, log_journal;
		struct io *file, *journal;

		how.copy.workers = 1;
		t.one = in_one_run(src, &how);
		ok(crash_open(disk_new("target"), true, &log_file, &file, &e), &e);
		ok(crash_open(disk_new("journal"), true, &log_journal, &journal, &e), &e);
		ok(copy_to(file, journal, src, &how, NULL, &e), &e);
		io_close(file);
		io_close(journal);
		cut_everywhere(&t, &log_file, &log_journal);
		crash_log_free(&log_file);
		crash_log_free(&log_journal);
		io_close(t.one);
	}
	io_close(src);
}

/* ---- journals and targets that are not as they were left ---- */

static uint64_t end_of(struct io *journal)
{
	struct journal_checkpoint c;
	struct journal *j;
	uint64_t end;

	ok(journal_open(disk_borrow(journal), "a: test\n", true, &j, &e), &e);
	while (journal_next(j, &c, &e) > 0)
		;
	end = journal_end(j);
	journal_close(j);
	return end;
}

/* A copy that failed when the journal had come as far as `end`, not at once. */
static void stop_behind(uint64_t end, struct io *file, struct io *journal, struct io *src,
			const struct how *how)
{
	for (uint64_t n = 1;; n++) {
		struct fault_plan plan = {
			.code = EIO, .sticky = true, .writes_only = true, .fail_at = n};
		struct io *faulty;

		ok(io_resize(file, 0, &e), &e);
		ok(io_resize(journal, 0, &e), &e);
		ok(fault_open(disk_borrow(file), true, &plan, &faulty, &e), &e);
		assert_int_equal(copy_to(faulty, journal, src, how, NULL, &e), -EIO);
		io_close(faulty);
		if (end_of(journal) >= end)
			return;
	}
}

static const struct how coded = {"qcow2",
				 "cluster_size=64k",
				 {.sparse = 4096, .compress = true, .workers = 1, STEP}};

/* Whatever is wrong with it: refused, or the right bytes. */
static bool is_refused(struct io *file, struct io *journal, struct io *src, struct io *one)
{
	int r = copy_to(file, journal, src, &coded, NULL, &e);

	if (r == 0)
		assert_equal(file, one, "damaged journal", 0);
	else if (r != -EUCLEAN && r != -EINVAL)
		fail_msg("%s (%d)", e.msg, r);
	return r < 0;
}

static void damaged_journals_do_no_harm(void **state)
{
	struct io *src = some_disk(4 * MiB, 8), *file = disk_new("target");
	struct io *journal = disk_new("journal"), *one = in_one_run(src, &coded);
	unsigned refused = 0, tried = 0;
	unsigned char *bytes;
	uint64_t len;

	(void)state;
	if (only_threads)
		return;
	stop_behind(2 * MiB, file, journal, src, &coded);
	bytes = disk_bytes(journal, &len);
	for (uint64_t at = 0; at < len; at += 1 + at / 8) {
		for (int what = 0; what < 2; what++) {
			struct io *f = disk_copy(file, "target"), *j;

			bytes[at] ^= 0x41;
			j = disk_from_bytes(bytes, what ? at : len, "journal");
			refused += is_refused(f, j, src, one);
			tried++;
			bytes[at] ^= 0x41;
			io_close(f);
			io_close(j);
		}
	}
	assert_true(refused > 0 && refused < tried);
	free(bytes);
	io_close(one);
	io_close(journal);
	io_close(file);
	io_close(src);
}

#define DATA  JOURNAL_DATA
#define CODED JOURNAL_CODED

/* Whole records that nobody of us wrote. */
static void lies_are_refused(void **state)
{
	static const struct {
		uint64_t end;
		size_t n;
		struct journal_run run[2];
	} t[] = {
		{.end = 5 * MiB}, /* behind the end of the disk */
		{.end = 512},     /* inside a cluster */
		{.end = INT64_MAX},
		{.end = UINT64_MAX},
		{.end = MiB, .n = 1, .run = {{DATA, 0, MiB + 65536}}},
		{.end = MiB, .n = 1, .run = {{DATA, 512, 65536}}},
		{.end = MiB, .n = 1, .run = {{DATA, 0, 512}}},
		{.end = MiB, .n = 1, .run = {{DATA, 65536, UINT64_MAX - 65535}}},
		{.end = MiB, .n = 1, .run = {{DATA, UINT64_MAX - 511, 65536}}},
		{.end = MiB, .n = 1, .run = {{DATA, 0, 0}}},
		{.end = MiB, .n = 1, .run = {{CODED, 0, 65536}}},
		{.end = MiB, .n = 1, .run = {{CODED, 0, UINT64_MAX}}},
		{.end = MiB, .n = 1, .run = {{(enum journal_kind)3, 0, 65536}}},
		{.end = MiB, .n = 2, .run = {{DATA, 65536, 65536}, {DATA, 65536, 65536}}},
		{.end = MiB, .n = 2, .run = {{CODED, 65536, 100}, {CODED, 65536, 100}}},
		{.end = MiB, .n = 1, .run = {{DATA, 0, MiB}}},      /* not there */
		{.end = MiB, .n = 1, .run = {{CODED, 65536, 900}}}, /* the same */
		{.end = 4 * MiB},                                   /* and the data is not zeros */
	};
	struct io *src = some_disk(4 * MiB, 8);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		const struct journal_checkpoint c = {.end = t[i].end, .run = t[i].run, .n = t[i].n};
		struct io *file = disk_new("target"), *journal = disk_new("journal");
		struct journal *j;

		ok(journal_open(disk_borrow(journal), "a: test\n", true, &j, &e), &e);
		ok(journal_append(j, &c, &e), &e);
		journal_close(j);
		e.msg[0] = '\0';
		if (copy_to(file, journal, src, &coded, NULL, &e) != -EUCLEAN && e.code != EINVAL)
			fail_msg("lie %zu is believed: %s", i, e.msg);
		io_close(file);
		io_close(journal);
	}
	io_close(src);
}

enum change { NOTHING, OTHER_DATA, NOW_ZEROS, NOW_HOLE, NOW_DATA, TARGET_LOST, CHANGES };

/* lost: bytes of the target where it holds data */
static void change(enum change what, struct io *src, struct io *file, uint64_t lost)
{
	static const unsigned char zeros[64 * KiB];

	switch (what) {
	case OTHER_DATA:
		ok(io_pwrite(src, "x", 1, MiB - 7, &e), &e);
		break;
	case NOW_ZEROS:
		ok(io_pwrite(src, zeros, sizeof(zeros), 512 * KiB, &e), &e);
		break;
	case NOW_HOLE:
		ok(io_zero(src, MiB, MiB, IO_ZERO_UNMAP, &e), &e);
		break;
	case NOW_DATA:
		ok(io_pwrite(src, "x", 1, 3 * MiB, &e), &e);
		break;
	case TARGET_LOST:
		ok(io_pwrite(file, "lost", 4, lost, &e), &e);
		break;
	default:
		break;
	}
}

/* Data, a hole, data; the copy stops in the last part. What is kept is what the source holds now. */
static void changes_are_found(void **state)
{
	static unsigned char some[3 * MiB];
	struct rng rng = {.state = 1};

	(void)state;
	if (only_threads)
		return;
	rng_fill(&rng, some, sizeof(some));
	for (size_t i = 0; i < CHANGES * ARRAY_LEN(hows); i++) {
		struct io *src = disk_new("source"), *file = disk_new("target");
		struct io *journal = disk_new("journal");
		struct how how = hows[i / CHANGES];
		enum change what = (enum change)(i % CHANGES);

		how.copy.workers = 1;
		ok(io_resize(src, 9 * MiB, &e), &e);
		ok(io_pwrite(src, some, 2 * MiB, 0, &e), &e);
		ok(io_pwrite(src, some, sizeof(some), 6 * MiB, &e), &e);
		stop_behind(7 * MiB, file, journal, src, &how);
		change(what, src, file, i / CHANGES < 2 ? MiB : 2 * MiB + 4096);
		if (what == NOTHING)
			ok(copy_to(file, journal, src, &how, NULL, &e), &e);
		else
			fails(copy_to(file, journal, src, &how, NULL, &e), -EUCLEAN, &e, "differs");
		io_close(journal);
		io_close(file);
		io_close(src);
	}
}

/* ---- the journal by itself ---- */

static void other_conversions_are_told(void **state)
{
	struct io *file = disk_new("journal");
	struct journal *j;

	(void)state;
	ok(journal_open(disk_borrow(file), "a: 1\nb: 2\n", true, &j, &e), &e);
	assert_true(journal_is_new(j));
	journal_close(j);
	ok(journal_open(disk_borrow(file), "a: 1\nb: 2\n", false, &j, &e), &e);
	assert_false(journal_is_new(j));
	journal_close(j);
	fails(journal_open(file, "a: 1\nb: 3\n", true, &j, &e), -EINVAL, &e,
	      "begun with \"b: 2\", now it is \"b: 3\"");
	fails(journal_open(file, "a: 1\n", true, &j, &e), -EINVAL, &e,
	      "begun with \"b: 2\", now it is without");
	fails(journal_open(file, "a: 1\nc: 3\nb: 2\n", true, &j, &e), -EINVAL, &e,
	      "begun with \"nothing of the kind\", now it is \"c: 3\"");
	fails(journal_open(file, "b: 2\na: 1\n", true, &j, &e), -EINVAL, &e, "in another order");
	ok(io_pwrite(file, "\x02", 1, 16, &e), &e);
	fails(journal_open(file, "a: 1\nb: 2\n", true, &j, &e), -EINVAL, &e, "of version 2");
	ok(io_pwrite(file, "x", 1, 0, &e), &e);
	fails(journal_open(file, "a: 1\nb: 2\n", true, &j, &e), -EUCLEAN, &e, "no journal");
	ok(io_resize(file, 0, &e), &e);
	fails(journal_open(file, "a: 1\nb: 2\n", false, &j, &e), -EUCLEAN, &e, "does not say");
	io_close(file);
}

/* A checkpoint of more runs than a record takes comes back as several, with all of them. */
static void long_checkpoints_are_cut(void **state)
{
	enum { N = 70000 };
	static struct journal_run run[N];
	const struct journal_checkpoint all = {.end = N * 1024, .run = run, .n = N};
	struct io *file = disk_new("journal");
	struct journal_checkpoint c;
	struct journal *j;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < N; i++)
		run[i] = (struct journal_run){i % 3, i * 1024, 512};
	ok(journal_open(disk_borrow(file), "", true, &j, &e), &e);
	ok(journal_append(j, &all, &e), &e);
	journal_close(j);
	ok(journal_open(disk_borrow(file), "", false, &j, &e), &e);
	while (journal_next(j, &c, &e) == 1) {
		assert_memory_equal(c.run, run + n, c.n * sizeof(*run));
		n += c.n;
		assert_true(n < N ? c.end == run[n].off : c.end == all.end);
	}
	assert_int_equal(n, N);
	assert_int_equal(journal_end(j), all.end);
	journal_close(j);
	io_close(file);
}

/* What was behind a torn record does not come back when that one is written again. */
static void torn_checkpoints_take_the_rest_along(void **state)
{
	enum { PART = 32768 };
	static struct journal_run run[2 * PART];
	struct journal_checkpoint c = {.end = UINT64_C(2) * PART * 1024, .run = run};
	struct io *file = disk_new("journal");
	struct journal *j;

	(void)state;
	for (size_t i = 0; i < 2 * PART; i++)
		run[i] = (struct journal_run){JOURNAL_CODED, i * 1024, 512};
	c.n = 2 * PART;
	ok(journal_open(disk_borrow(file), "", true, &j, &e), &e);
	ok(journal_append(j, &c, &e), &e);
	journal_close(j);
	ok(io_pwrite(file, "torn", 4, 1000, &e), &e);
	ok(journal_open(disk_borrow(file), "", false, &j, &e), &e);
	assert_int_equal(journal_next(j, &c, &e), 0);
	c = (struct journal_checkpoint){.end = PART * 1024, .run = run, .n = PART};
	ok(journal_append(j, &c, &e), &e);
	journal_close(j);
	ok(journal_open(disk_borrow(file), "", false, &j, &e), &e);
	assert_int_equal(journal_next(j, &c, &e), 1);
	assert_int_equal(journal_next(j, &c, &e), 0);
	assert_int_equal(journal_end(j), PART * 1024);
	journal_close(j);
	io_close(file);
}

/* The parts of a long checkpoint end at any unit, also inside of what is looked at for zeros. */
static void long_checkpoints_go_on(void **state)
{
	enum { UNIT = 512, N = 32768 + 1000 };
	static const struct how how = {"qcow2",
				       "cluster_size=512",
				       {.sparse = 4096, .compress = true, .checkpoint = INT64_MAX}};
	struct io *src = disk_new("source"), *file = disk_new("target"), *one;
	struct io *journal = disk_new("journal");
	unsigned char unit[UNIT];
	struct rng rng = {.state = 9};

	(void)state;
	if (only_threads)
		return;
	for (size_t i = 0; i < N; i++) {
		memset(unit, 1, UNIT);
		if (i < 2) /* these do not compress, and are one run */
			rng_fill(&rng, unit, UNIT);
		ok(io_pwrite(src, unit, UNIT, i * UNIT, &e), &e);
	}
	one = in_one_run(src, &how);
	ok(copy_to(file, journal, src, &how, NULL, &e), &e);
	ok(copy_to(file, journal, src, &how, NULL, &e), &e);
	assert_int_equal(resumed_at, N * UNIT);
	assert_equal(file, one, "long checkpoint", 0);
	io_close(one);
	io_close(journal);
	io_close(file);
	io_close(src);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(goes_on_after_errors),
		cmocka_unit_test(goes_on_after_cancel),
		cmocka_unit_test(layers_go_on),
		cmocka_unit_test(goes_on_after_power_cuts),
		cmocka_unit_test(damaged_journals_do_no_harm),
		cmocka_unit_test(lies_are_refused),
		cmocka_unit_test(changes_are_found),
		cmocka_unit_test(other_conversions_are_told),
		cmocka_unit_test(long_checkpoints_are_cut),
		cmocka_unit_test(torn_checkpoints_take_the_rest_along),
		cmocka_unit_test(long_checkpoints_go_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
