/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What sectors may hold when writes can get lost: the last durable value, and all that were written
 * since. Values are any numbers but CELL_UNKNOWN.
 */
#ifndef IMGKIT_TESTS_CELLS_H
#define IMGKIT_TESTS_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CELL_MAX     30
#define CELL_UNKNOWN UINT64_MAX

struct cell {
	unsigned n;
	uint64_t current, may[CELL_MAX];
};

struct cells {
	struct cell *v; /* owned */
	uint64_t n;
	uint64_t *touched; /* owned: those with more than one value */
	size_t n_touched;
};

void cells_init(struct cells *c, const uint64_t *value, uint64_t n);
void cells_free(struct cells *c);
bool cells_may(const struct cells *c, uint64_t i, uint64_t value);
/* From now on it may be this as well. */
void cells_allow(struct cells *c, uint64_t i, uint64_t value);
/* It is this as long as nothing gets lost. CELL_UNKNOWN: any of those that it may be. */
void cells_set(struct cells *c, uint64_t i, uint64_t value);
/* Nothing gets lost any more. */
void cells_durable(struct cells *c);

/* A sector that holds a value holds it 64 times. */
void sectors_fill(unsigned char *buf, const uint64_t *value, uint64_t n);
/* CELL_UNKNOWN: its words differ. */
uint64_t sector_value(const unsigned char *sector);

#endif
