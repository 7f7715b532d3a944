/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an image file, or each file of its backing chain, says about itself. */
#ifndef IMGKIT_OPS_INFO_H
#define IMGKIT_OPS_INFO_H

#include <stdbool.h>

#include "image/img.h"

/* One file. */
struct info_entry {
	struct img *img;    /* borrowed from the list's top */
	const char *path;   /* borrowed from img */
	uint64_t size;      /* bytes, virtual */
	uint64_t allocated; /* bytes of storage */
	bool has_allocated;
	struct img_info info; /* owned */
	bool limits;          /* the JSON has the block limits too */
};

/* How requests to an image should be made. Bytes; 0: there is no such limit. */
struct info_limits {
	uint64_t request_alignment;                         /* at least 1 */
	uint64_t write_zeroes_alignment, discard_alignment; /* what frees, or costs, no data */
	uint64_t min_mem_alignment, opt_mem_alignment;      /* of buffers */
	uint64_t max_iov;                                   /* elements */
};
void info_limits(struct img *img, struct info_limits *limits);
/* With the peer's keys, in its order; without what is 0. NULL: out of memory. */
json_t *info_limits_json(struct img *img);

/* Zero-initialise; free with info_free. */
struct info_list {
	struct img *top; /* owned */
	struct info_entry *v;
	unsigned n;
};

/*
 * Opens the image of args and, only with `chain`, all that are behind it: flags of args are completed
 * here. On error the list is to be freed as well.
 */
int info_collect(const struct img_open_args *args, bool chain, struct info_list *list,
		 struct err *err);

/* The objects of `qemu-img info --output=json`, key order included. NULL: out of memory. */
json_t *info_json(const struct info_entry *entry);
json_t *info_chain_json(const struct info_list *list);

/* A list of objects, one per snapshot, with keys in the peer's order. NULL: out of memory. */
json_t *info_snapshots_json(const struct snapshot *snap, unsigned n);

void info_free(struct info_list *list);

#endif
