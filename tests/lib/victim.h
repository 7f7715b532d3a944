/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small disks with an ext filesystem that has one of everything, and damage done to their metadata.
 * The damaged disk is a file; its sound content stays in memory.
 */
#ifndef IMGKIT_TESTS_VICTIM_H
#define IMGKIT_TESTS_VICTIM_H

#include <stddef.h>
#include <stdint.h>

#include "rng.h"

enum region_kind {
	REGION_SUPER,
	REGION_GROUPS,
	REGION_BITMAP,
	REGION_INODE,
	REGION_DIR,
	REGION_MAP, /* blocks of extents and pointers */
	REGION_XATTR,
	REGION_JOURNAL,
	REGION_KINDS
};

struct region {
	enum region_kind kind;
	uint64_t off;
	uint32_t len;
	uint32_t number; /* the inode's, or the block's */
};

struct victim {
	const char *name;
	int fd; /* the file of that name */
	unsigned char *sound;
	size_t size;
	struct region *regions; /* sorted by kind */
	size_t n_regions;
	size_t first[REGION_KINDS + 1]; /* of the kind in regions */
};

/* Makes the file by mke2fs with these options. dirty: with a journal to be replayed. */
void victim_make(struct victim *v, const char *name, const char *options, bool dirty);
void victim_free(struct victim *v);
/* Some damage; tells what, for a report. */
void victim_damage(struct victim *v, struct rng *r, char *what, size_t size);
/* One value at one place: for sweeps. width: 1, 2, 4 or 8 bytes. */
void victim_put(struct victim *v, uint64_t off, uint64_t value, unsigned width);
/* The disk is as it was made. */
void victim_heal(struct victim *v);

#endif
