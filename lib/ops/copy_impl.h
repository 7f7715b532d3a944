/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Private to lib/ops/copy*.c. */
#ifndef IMGKIT_OPS_COPY_IMPL_H
#define IMGKIT_OPS_COPY_IMPL_H

#include "ops/copy.h"

/* ---- copy_plan.c: cutting the source into chunks ---- */

struct chunk {
	uint64_t ticket; /* counted from 0 without gaps */
	uint64_t off;    /* guest bytes, multiple of plan.align; resumed: of the unit */
	uint64_t len;    /* bytes, the same except at the end of the disk */
	bool zero;       /* reads as zeros */
};

/* Not thread-safe: the engine locks it. */
struct plan {
	struct io *src;
	struct img *layer;
	uint64_t below;                 /* with layer: bytes of its backing file */
	uint64_t backing_size;          /* with layer: bytes of the target's backing file */
	unsigned above;                 /* only what layers above this depth hold; 0: everything */
	struct io *base;                /* only what is elsewhere than there; NULL: everything */
	const struct copy_filter *only; /* only what it wants; NULL: everything */
	bool stream;
	bool all_data;   /* zeros are data too */
	bool want_zeros; /* hand out zero chunks; otherwise they are passed over */
	bool salvage;    /* a map that fails means data */
	uint64_t align;  /* chunks begin here */
	uint64_t gap;    /* length of a hole that ends a chunk */
	uint64_t chunk;  /* largest data chunk, multiple of align */
	struct job *job; /* looked at for cancel, … */
	bool count;      /* … and advanced for what is passed over */

	uint64_t size, pos, tickets;
	struct extent ext; /* where pos is, when len > 0 */
	bool same;         /* the target has ext already, by base or only */
};

/*
 * The next chunk. 1: there is one; 0: the end; -errno. With a stream the data is read into buf (of
 * plan.chunk bytes) at once, and size grows as it comes.
 */
int plan_next(struct plan *p, struct chunk *c, void *buf, struct err *err);

/* ---- copy.c: the engine ---- */

/* A part of a chunk as it goes to the target. */
enum run_kind {
	RUN_ZERO,
	RUN_DATA,  /* whole units */
	RUN_CODED, /* one unit, compressed */
};
struct run {
	enum run_kind kind;
	uint64_t off;             /* guest bytes */
	uint64_t len;             /* guest bytes */
	const unsigned char *mem; /* data or coded bytes */
	uint64_t mem_len;
	uint64_t host;
};

/* A run of the journal that has its place again. */
struct kept_run {
	enum run_kind kind;
	uint64_t off, len; /* guest bytes, whole units */
	uint64_t host;
	uint64_t mem_len; /* CODED: bytes */
};

/* A checkpoint that was read: what is verified now. */
struct kept {
	struct kept_run *run; /* owned */
	size_t n;
	struct codec_pool *pool;  /* owned; NULL: nothing was compressed */
	_Atomic uint64_t checked; /* bytes of the runs that were compared */
};

/* A chunk that was taken, until it is part of a checkpoint. */
struct noted {
	bool done;               /* its data is written */
	uint64_t end, len;       /* guest bytes: where it ends, data in it */
	struct journal_run *run; /* owned */
	size_t n;
};
#define NOTED_MAX 1024 /* chunks that may be on their way beside the slowest one */

/* What is done and not in the journal yet; see copy_note.c. */
struct notes {
	pthread_mutex_t lock;
	pthread_cond_t cond; /* the slowest chunk is done, a checkpoint is made, somebody failed */
	struct noted ring[NOTED_MAX]; /* by ticket */
	uint64_t head, tail;          /* tickets: the slowest one, the next one */
	struct journal_run *run;      /* owned: of chunks below head */
	size_t n, cap;
	uint64_t end;      /* guest bytes: where they end */
	uint64_t len;      /* bytes of data in them */
	uint64_t interval; /* of len, between checkpoints */
	bool busy;         /* a checkpoint is being made */
	bool failed;       /* one could not be: there is a gap, no other may follow */
};

struct copy {
	const struct copy_args *args;
	struct job *job;
	struct io *out;        /* where data is written: build->data or dst */
	struct img *coded_out; /* where coded units are written: dst; NULL: as data to out */
	enum codec_type codec; /* of coded units */
	uint64_t unit;         /* bytes: places are given in these */
	uint64_t granule;      /* bytes: zeros are looked for in these */
	uint64_t min_zero;     /* bytes: shortest run of zeros that is not written */
	bool skip_zeros;       /* places read as zeros before they are written */
	bool reserve;          /* there is no space yet: see file_reserve */
	bool any_order;        /* places do not depend on the order */
	bool write_in_turn;    /* writing has to be in order too */
	bool placing, writing; /* two passes for streams: places first, data later */
	uint64_t placed;       /* bytes of all runs that were placed; second pass: so far again */
	size_t cap;            /* bytes of a worker's buffer: a chunk, rounded up to units */
	atomic_bool offload;   /* still worth trying */
	struct img *clone;     /* dst, when it may share blocks with the source; else NULL */

	pthread_mutex_t plan_lock;
	struct plan plan;

	pthread_mutex_t turn_lock;
	pthread_cond_t turn_cond;
	uint64_t turn;    /* under turn_lock: the ticket whose turn it is */
	atomic_bool stop; /* somebody failed */

	pthread_mutex_t rate_lock;
	uint64_t rate_next; /* CLOCK_MONOTONIC ns: when the next chunk may start */

	pthread_mutex_t warn_lock;

	struct notes *notes; /* owned; NULL: no journal */
	uint64_t start;      /* guest bytes: where a pass begins */
	struct kept *kept;   /* this pass compares the target with it; NULL: it copies */
};

struct worker {
	struct copy *copy;
	unsigned char *buf; /* cap bytes: the chunk */
	unsigned char *out; /* cap bytes: what was compressed, or is compared; NULL without */
	struct codec_encoder *encoder;
	struct run *run; /* of the chunk */
	size_t n_runs;
};

/* copy_read.c: fills w->buf, padded with zeros to whole units. */
int copy_read(struct worker *w, const struct chunk *c, struct err *err);

/* copy_scan.c: cuts a chunk that was read into runs. */
int copy_scan(struct worker *w, const struct chunk *c, struct err *err);
/* Length of the run of equal kind (*zero) at `at` of a buffer, by granules. */
size_t copy_same(const struct copy *copy, const unsigned char *buf, size_t at, size_t len,
		 bool *zero);

/* copy_write.c: places and writes the runs of a worker. */
int copy_place(struct worker *w, struct err *err);
int copy_write(struct worker *w, struct err *err);
void copy_note_hole(struct copy *copy, uint64_t off, uint64_t len);
/* A whole chunk of zeros. */
int copy_zero(struct copy *copy, const struct chunk *c, struct err *err);
/* Prepares the target before the first chunk. */
int copy_prepare_target(struct copy *copy, struct err *err);

/* copy.c: one pass over the source, from copy->start to plan.size. */
int copy_pass(struct copy *copy, struct err *err);

/*
 * copy_note.c: what goes to the journal. take: a chunk was handed out, under plan_lock; done: it is
 * written; stop: wakes who waits; last: a checkpoint of all that is done, after a pass.
 */
int copy_notes_open(struct copy *copy, struct err *err);
void copy_notes_close(struct copy *copy);
void copy_note_take(struct copy *copy, const struct chunk *c);
int copy_note_done(struct worker *w, const struct chunk *c, struct err *err);
void copy_note_stop(struct copy *copy);
int copy_note_last(struct copy *copy, struct err *err);

/* copy_resume.c: verifies what the journal says is there, and sets start behind it. */
int copy_resume(struct copy *copy, struct err *err);
/* For a pass with kept. */
int copy_verify(struct worker *w, const struct chunk *c, struct err *err);

/* copy_offload.c: the kernel copies a chunk that was placed as one run; false: it cannot. */
bool copy_offload(struct worker *w, const struct chunk *c);
/* A chunk for an image that can share blocks: part by part, as the source's map has them. */
int copy_clone(struct worker *w, const struct chunk *c, struct err *err);

#endif
