// SPDX-License-Identifier: GPL-2.0-or-later
/* See cells.h. */
#include "cells.h"

#include <stdlib.h>
#include <string.h>

#include "tell.h"

#define SECTOR 512

void cells_init(struct cells *c, const uint64_t *value, uint64_t n)
{
	*c = (struct cells){.n = n};
	c->v = malloc(n * sizeof(*c->v));
	c->touched = malloc(n * sizeof(*c->touched));
	expect(c->v && c->touched);
	for (uint64_t i = 0; i < n; i++) {
		c->v[i].n = 1;
		c->v[i].current = c->v[i].may[0] = value[i];
	}
}

void cells_free(struct cells *c)
{
	free(c->v);
	free(c->touched);
}

bool cells_may(const struct cells *c, uint64_t i, uint64_t value)
{
	const struct cell *cell = &c->v[i];

	for (unsigned k = cell->n; k-- > 0;)
		if (cell->may[k] == value)
			return true;
	return false;
}

void cells_allow(struct cells *c, uint64_t i, uint64_t value)
{
	struct cell *cell = &c->v[i];

	if (cells_may(c, i, value))
		return;
	if (cell->n == 1)
		c->touched[c->n_touched++] = i;
	expect(cell->n < CELL_MAX);
	cell->may[cell->n++] = value;
}

void cells_set(struct cells *c, uint64_t i, uint64_t value)
{
	c->v[i].current = value;
	if (value != CELL_UNKNOWN)
		cells_allow(c, i, value);
}

void cells_durable(struct cells *c)
{
	size_t left = 0;

	for (size_t k = 0; k < c->n_touched; k++) {
		struct cell *cell = &c->v[c->touched[k]];

		if (cell->current == CELL_UNKNOWN) {
			c->touched[left++] = c->touched[k];
			continue;
		}
		cell->n = 1;
		cell->may[0] = cell->current;
	}
	c->n_touched = left;
}

void sectors_fill(unsigned char *buf, const uint64_t *value, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		for (unsigned k = 0; k < SECTOR / 8; k++)
			memcpy(buf + i * SECTOR + k * 8, &value[i], 8);
}

uint64_t sector_value(const unsigned char *sector)
{
	uint64_t v;

	memcpy(&v, sector, 8);
	/* All words are the first one. */
	return memcmp(sector, sector + 8, SECTOR - 8) ? CELL_UNKNOWN : v;
}
