/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The common part of the fault sweeps: short scripts of operations on an image, run again and again
 * with another call failing each time, and what must hold then:
 *
 *	- the operation fails with that error and a text, or does without the call
 *	- after a failure that passes, the same operation succeeds, unless the image refuses all writes
 *	  with a text that says so
 *	- the file holds no corruption, or has the dirty bit and is repaired by opening it
 *	- a bitmap that is not in use has the bits of all that was written since it was made or cleared
 *	- every sector holds what was written to it last, or what it held before the failed operation;
 *	  and what was flushed is there
 */
#ifndef IMGKIT_TESTS_SCENARIO_H
#define IMGKIT_TESTS_SCENARIO_H

#include "cells.h"
#include "disk.h"

enum step_kind {
	STEP_END,
	STEP_WRITE,
	STEP_ZERO,
	STEP_UNMAP,
	STEP_DISCARD,
	STEP_READ,
	STEP_MAP,
	STEP_FLUSH,
	STEP_SETTLE,
	STEP_CREATE, /* snapshot */
	STEP_APPLY,
	STEP_REMOVE,
	STEP_RESIZE, /* first: sectors, n: PREALLOC_… */
	STEP_AMEND,  /* first: which options */
	STEP_BITMAP_ADD,
	STEP_BITMAP_CLEAR,
	STEP_BITMAP_REMOVE,
	STEP_CHECK,
	STEP_REPAIR,
	STEP_COMPACT,
	STEP_SPARSIFY,
	STEP_DEDUP,
	STEP_TWINS, /* a write of clusters that are all equal */
};

struct step {
	enum step_kind kind;
	uint64_t first, n; /* sectors; snapshots: first is the number in its name */
};

struct script {
	const char *name;
	const struct step *steps; /* ends with STEP_END */
};
extern const struct script scripts[]; /* ends with a NULL name */

/* An image to run scripts on. */
struct subject {
	const char *format, *opts, *backing; /* backing: a format, or NULL */
	bool dirty;                          /* was not closed: leaks, lazy refcounts behind */
};
extern const struct subject subjects[]; /* ends with a NULL format */

/* How calls are made to fail. */
struct faults {
	const char *name;
	int code;                     /* positive errno that the calls fail with */
	bool sticky;                  /* all later ones, too */
	uint64_t at;                  /* the call that fails, from 1 */
	uint64_t stride;              /* try every so manieth; 0: all */
	struct fault_plan *io;        /* of calls of the file and its backing */
	void (*arm)(struct faults *); /* from now on calls count */
	void (*disarm)(struct faults *);
	uint64_t (*calls)(struct faults *); /* that counted since arm */
};

struct sweep_totals {
	uint64_t runs, refused; /* refused: the image would not be written to any more */
};

/* A script on a subject with at = 1, 2, … until no call is left to fail. */
void scenario_sweep(const struct subject *subject, const struct script *script, struct faults *f,
		    struct sweep_totals *sum);

#endif
