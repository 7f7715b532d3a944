// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A state after a power cut through the code that users run: our check, the driver for reading and
 * for writing with the repair that comes with it, a second power cut in the middle of that repair,
 * and qemu-img.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "formats/qcow2/check.h"
#include "judge.h"
#include "peer.h"
#include "replay.h"
#include "tell.h"

#define SECTOR     512
#define COMPOUND   12 /* power cuts in one repair */
#define NEW_WRITES 6

static bool wrong(struct judge *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool wrong(struct judge *j, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->text, sizeof(j->text), fmt, ap);
	va_end(ap);
	return false;
}

/* ---- our check: the same counts as the judge's ---- */

static bool check_agrees(struct judge *j, struct io *file)
{
	const struct oracle *o = &j->oracle;
	unsigned flags = o->copied_missing + o->copied_wrong;
	struct check_result res;
	struct header h = {0};
	struct err e = {0};
	int r = header_read(file, &h, &e);

	if (r == 0)
		r = qcow2_check_file(file, &h, 0, &res, NULL, NULL, &e);
	header_free(&h);
	if (r < 0)
		return wrong(j, "check: %s", e.msg);
	if (o->dirty)
		return true;
	if (res.corruptions == flags && res.leaks == o->leaks && !res.check_errors)
		return true;
	return wrong(j,
		     "check: %" PRIu64 " corruptions, %" PRIu64 " leaks, %" PRIu64
		     " errors; the judge: %u, %u",
		     res.corruptions, res.leaks, res.check_errors, flags, o->leaks);
}

/* ---- reading ---- */

static bool read_all(struct judge *j, const struct truth *t, struct img *img)
{
	uint64_t size = io_size(&img->io);
	unsigned char *buf = malloc(size);
	struct err e = {0};
	bool fine = true;

	expect(buf);
	if (io_pread(&img->io, buf, size, 0, &e) < 0)
		fine = wrong(j, "reading: %s", e.msg);
	for (uint64_t s = 0; fine && s < size / SECTOR; s++)
		if (!cells_may(&t->cells, s, sector_value(buf + s * SECTOR)))
			fine = wrong(j, "driver: sector %" PRIu64 " is %" PRIx64, s,
				     sector_value(buf + s * SECTOR));
	free(buf);
	return fine;
}

static bool read_only(struct judge *j, const struct truth *t, struct io *file)
{
	struct img *img;
	bool fine;

	img = workload_open(j->w, file, 0);
	fine = read_all(j, t, img);
	io_close(&img->io);
	return fine;
}

/* ---- writing on ---- */

/* What was written last to some sectors, and the rest as before. */
static bool write_on(struct judge *j, const struct truth *t, struct img *img, struct rng *rng)
{
	uint64_t size = io_size(&img->io) / SECTOR, sector[NEW_WRITES], value[NEW_WRITES];
	unsigned char buf[SECTOR];
	struct err e = {0};
	bool fine = read_all(j, t, img);

	for (unsigned i = 0; fine && i < NEW_WRITES; i++) {
		sector[i] = rng_below(rng, size);
		for (unsigned k = 0; k < 50 && !j->w->hot[sector[i]]; k++)
			sector[i] = rng_below(rng, size);
		value[i] = UINT64_C(0xc0000000) << 32 | (uint64_t)i << 24 | sector[i];
		sectors_fill(buf, &value[i], 1);
		if (io_pwrite(&img->io, buf, SECTOR, sector[i] * SECTOR, &e) < 0)
			fine = wrong(j, "writing on: %s", e.msg);
	}
	if (fine && img_settle(img, &e) < 0)
		fine = wrong(j, "settling: %s", e.msg);
	for (unsigned i = NEW_WRITES; fine && i-- > 0;) {
		bool later = false;

		for (unsigned k = i + 1; k < NEW_WRITES; k++)
			later |= sector[k] == sector[i];
		if (io_pread(&img->io, buf, SECTOR, sector[i] * SECTOR, &e) < 0)
			fine = wrong(j, "reading back: %s", e.msg);
		else if (!later && sector_value(buf) != value[i])
			fine = wrong(j, "reading back: sector %" PRIu64, sector[i]);
	}
	return fine;
}

/* What is added to the disk reads as zeros, whatever the power cut left behind its end. */
static bool grow_on(struct judge *j, struct img *img)
{
	uint64_t old = io_size(&img->io);
	uint64_t more = j->w->n_sectors * SECTOR + 5 * j->base.cluster - old;
	unsigned char *buf = malloc(more);
	struct err e = {0};
	bool fine = true;
	int r = img_resize(img, old + more, PREALLOC_OFF, &e);

	expect(buf);
	if (r < 0) /* snapshots of version 2, or an inconsistent bitmap */
		fine = j->oracle.version == 2 || r == -ESTALE || wrong(j, "growing: %s", e.msg);
	else if (io_pread(&img->io, buf, more, old, &e) < 0)
		fine = wrong(j, "reading what was added: %s", e.msg);
	else if (!bytes_are_zero(buf, more))
		fine = wrong(j, "what was added to %" PRIu64 " bytes is not zero", old);
	free(buf);
	return fine;
}

/* The file is sound. leaks: they may be there. */
static bool sound(struct judge *j, struct io *file, bool leaks, const char *when)
{
	struct oracle o = {0};
	uint64_t len;
	unsigned char *p = disk_bytes(file, &len);
	bool fine = oracle_judge(&o, p, len) && !o.errors && !o.copied_wrong && !o.corrupt_bit &&
		    !o.dirty && (leaks || !o.leaks) && (!o.copied_missing || o.version == 2);

	if (!fine)
		wrong(j, "%s: %u errors, %u leaks, COPIED %u wrong %u missing%s: %s", when,
		      o.errors, o.leaks, o.copied_wrong, o.copied_missing, o.dirty ? " dirty" : "",
		      o.text);
	oracle_free(&o);
	free(p);
	return fine;
}

/* Opens for writing, which repairs what is marked dirty. Takes file. */
static bool open_repaired(struct judge *j, struct io *file, struct img **img)
{
	struct img *backing =
		j->w->backing_file ? disk_open(j->w->backing_file, "raw", 0, NULL) : NULL;
	struct err e = {0};

	if (img_open_io(file, "qcow2", IMG_RDWR, backing, img, &e) == 0)
		return true;
	io_close(file);
	if (backing)
		io_close(&backing->io);
	return wrong(j, "opening for writing: %s", e.msg);
}

/* A second power cut while the first one is being repaired. */
static bool cut_repair(struct judge *j, const struct truth *t, const struct crash_log *log,
		       struct rng *rng);

static bool write_and_repair(struct judge *j, const struct truth *t, struct io *file,
			     struct rng *rng, bool again)
{
	bool dirty = j->oracle.dirty, fine;
	struct crash_log log;
	struct err e = {0};
	struct img *img;
	struct io *rec;

	must(crash_open(disk_borrow(file), true, &log, &rec, &e), &e);
	if (!open_repaired(j, rec, &img)) {
		crash_log_free(&log);
		return false;
	}
	fine = sound(j, file, !dirty, "after opening");
	if (fine && log.n && again)
		fine = cut_repair(j, t, &log, rng);
	if (fine)
		fine = write_on(j, t, img, rng) && grow_on(j, img);
	io_close(&img->io);
	crash_log_free(&log);
	return fine && sound(j, file, !dirty, "after writing on");
}

/* Everything up to a flush, and some of what came later. */
static void cut_anywhere(struct replay *r, const struct crash_log *log, struct rng *rng)
{
	size_t end = rng_below(rng, log->n + 1), flush = end;
	unsigned percent = (unsigned)rng_below(rng, 101);

	while (flush && log->rec[flush - 1].kind != CRASH_FLUSH)
		flush--;
	for (size_t i = 0; i < end; i++)
		if (i < flush || rng_percent(rng, percent))
			replay_apply(r, &log->rec[i], NULL);
}

static bool cut_repair(struct judge *j, const struct truth *t, const struct crash_log *log,
		       struct rng *rng)
{
	struct judge inner;
	struct replay r;
	bool fine = true;

	judge_begin(&inner, j->w);
	inner.mending = true;
	replay_begin(&r, log);
	for (unsigned i = 0; fine && i < COMPOUND; i++) {
		cut_anywhere(&r, log, rng);
		fine = judge_state(&inner, t, r.p, r.len, i == 0);
		if (fine && i % 4 == 0) {
			struct io *file = disk_from_bytes(r.p, r.len, "again.qcow2");

			fine = write_and_repair(&inner, t, file, rng, false);
			io_close(file);
		}
		replay_undo(&r);
	}
	if (!fine)
		wrong(j, "power cut in the repair: %.300s", inner.text);
	replay_free(&r);
	judge_free(&inner);
	return fine;
}

/* `check -r all`, and a power cut in it. */
static bool check_and_repair(struct judge *j, const struct truth *t, const unsigned char *p,
			     uint64_t len, struct rng *rng)
{
	struct io *file = disk_from_bytes(p, len, "mended.qcow2"), *rec;
	struct check_result res;
	struct crash_log log;
	struct err e = {0};
	struct img *img;
	bool fine;

	must(crash_open(disk_borrow(file), true, &log, &rec, &e), &e);
	must(img_open_io(rec, "qcow2", IMG_RDWR | IMG_FOR_CHECK, NULL, &img, &e), &e);
	if (img_check(img, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &res, NULL, NULL, &e) < 0)
		fine = wrong(j, "repairing: %s", e.msg);
	else
		fine = !res.corruptions && !res.leaks && !res.check_errors
			       ? sound(j, file, false, "after check -r all")
			       : wrong(j, "repairing: %" PRIu64 " corruptions left",
				       res.corruptions);
	io_close(&img->io);
	if (fine && log.n)
		fine = cut_repair(j, t, &log, rng);
	crash_log_free(&log);
	io_close(file);
	return fine;
}

bool judge_driver(struct judge *j, const struct truth *t, const unsigned char *p, uint64_t len,
		  struct rng *rng)
{
	struct io *file = disk_from_bytes(p, len, "state.qcow2");
	bool fine = check_agrees(j, file) && read_only(j, t, file) &&
		    check_and_repair(j, t, p, len, rng) && write_and_repair(j, t, file, rng, true);

	io_close(file);
	return fine;
}

/* ---- qemu-img ---- */

bool judge_peer(struct judge *j, const struct truth *t, const unsigned char *p, uint64_t len)
{
	int code;

	(void)t;
	bytes_save(p, len, "state.qcow2");
	if (j->w->backing_file)
		disk_save(j->w->backing_file, "base.img");
	code = peer("check -f qcow2 state.qcow2");
	if (j->oracle.dirty && code)
		code = peer("check -f qcow2 -r all state.qcow2") ||
		       peer("check -f qcow2 state.qcow2");
	if (code == 2 && j->oracle.copied_missing && j->oracle.version == 2)
		code = strstr(peer_log(), "Leaked cluster") ? 3 : 0;
	return code == 0 || (code == 3 && j->oracle.leaks) ||
	       wrong(j, "qemu-img check: %d: %.300s", code, peer_log());
}
