/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 files in memory, sound and damaged: for the tests of check and repair. */
#ifndef IMGKIT_TESTS_DAMAGE_H
#define IMGKIT_TESTS_DAMAGE_H

#include "disk.h"
#include "formats/qcow2/check_impl.h"
#include "rng.h"

/* Where things are in such a file. */
struct layout_of {
	uint64_t cluster, l1, reftable, block, size; /* bytes; block: of the first clusters */
	unsigned order, version, entry;              /* entry: bytes of an L2 entry */
	uint32_t l1_size;
};

/* A disk of 1 MiB with plain, compressed, zero and unallocated clusters; opts as in `-o`. */
struct io *damage_image(const char *opts);
/* The same with so many internal snapshots, and writes between them. */
struct io *damage_image_with_snapshots(const char *opts, unsigned n);
/* Frees what the latter keeps for the next call with the same arguments. */
void damage_forget(void);

struct layout_of damage_layout(struct io *file);
uint64_t damage_get(struct io *file, uint64_t off);
void damage_put(struct io *file, uint64_t off, uint64_t value);
/* The file offset of the L2 entry of guest byte `off`, in the active table. */
uint64_t damage_l2(struct io *file, uint64_t off);
/* Refcounts on disk. */
uint64_t damage_refcount(struct io *file, uint64_t cluster);
void damage_set_refcount(struct io *file, uint64_t cluster, uint64_t value);

/* Some random damage to tables and refcounts. */
void damage_random(struct io *file, struct rng *rng);

/* What a check says. */
struct findings {
	char *text; /* owned; lines */
	size_t len, room;
	unsigned lines;
	uint64_t max_lines; /* for the sink */
};
void findings_free(struct findings *f);
/* Of a struct check_sink, whose ctx is a struct findings. */
void findings_line(void *ctx, const char *text);

/* Checks or repairs; bounds NULL: the usual ones. f may be NULL. Returns what the check returns. */
int damage_check(struct io *file, unsigned fix, const struct check_bounds *bounds,
		 struct check_result *res, struct findings *f, struct err *err);

#define FIX_ALL (CHECK_FIX_LEAKS | CHECK_FIX_ERRORS)

#endif
