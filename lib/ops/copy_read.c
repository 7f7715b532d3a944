// SPDX-License-Identifier: LGPL-2.1-or-later
/* Reading chunks, also from media with unreadable sectors. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "ops/copy_impl.h"

#define SECTOR 512

/* A stretch of a chunk that could not be read, as it is being collected. */
struct gap {
	uint64_t off, len;
	struct err err; /* of its first sector */
};

static void report_gap(struct copy *copy, struct gap *gap)
{
	char text[sizeof(gap->err.msg) + 80];

	if (gap->len && copy->args->warn) {
		LOCK_SCOPE(&copy->warn_lock);
		snprintf(text, sizeof(text),
			 "error while reading offset %" PRIu64 ": %s (%" PRIu64
			 " bytes replaced by zeros)",
			 gap->off, gap->err.msg, gap->len);
		copy->args->warn(copy->args->warn_ctx, text);
	}
	gap->len = 0;
}

static void add_gap(struct copy *copy, struct gap *gap, uint64_t off, uint64_t len,
		    const struct err *err)
{
	if (gap->len && gap->off + gap->len == off) {
		gap->len += len;
		return;
	}
	report_gap(copy, gap);
	*gap = (struct gap){.off = off, .len = len, .err = *err};
}

/* Halves what cannot be read until single sectors are left. */
static int salvage(struct worker *w, unsigned char *buf, uint64_t off, uint64_t len,
		   struct gap *gap, struct err *err)
{
	struct copy *copy = w->copy;
	struct err why = {0};
	uint64_t half;
	int r;

	if (atomic_load(&copy->stop) || job_cancelled(copy->job))
		return err_set(err, ECANCELED, "cancelled");
	if (io_pread(copy->args->src, buf, len, off, &why) == 0)
		return 0;
	if (len <= SECTOR) {
		memset(buf, 0, len);
		add_gap(copy, gap, off, len, &why);
		return 0;
	}
	half = round_up(len / 2, SECTOR);
	r = salvage(w, buf, off, half, gap, err);
	return r < 0 ? r : salvage(w, buf + half, off + half, len - half, gap, err);
}

int copy_read(struct worker *w, const struct chunk *c, struct err *err)
{
	struct copy *copy = w->copy;
	uint64_t padded = round_up(c->len, copy->unit);
	struct gap gap = {0};
	int r = 0;

	if (!copy->plan.stream) {
		r = io_pread(copy->args->src, w->buf, c->len, c->off, err);
		if (r < 0 && r != -ENOMEM && copy->args->salvage) {
			r = salvage(w, w->buf, c->off, c->len, &gap, err);
			report_gap(copy, &gap);
		} else if (r < 0) {
			err_ctx(err, r, "error while reading at byte %" PRIu64, c->off);
		}
	}
	memset(w->buf + c->len, 0, padded - c->len);
	return r;
}
