// SPDX-License-Identifier: GPL-2.0-or-later
/* What the disk may hold after a power cut; see judge.h. */
#include <stdlib.h>
#include <string.h>

#include "judge.h"
#include "tell.h"

void truth_begin(struct truth *t, const struct workload *w)
{
	*t = (struct truth){.w = w, .size_before = w->size, .size_after = w->size};
	t->cell = malloc(w->n_sectors * sizeof(*t->cell));
	t->touched = malloc(w->n_sectors * sizeof(*t->touched));
	expect(t->cell && t->touched);
	for (uint64_t s = 0; s < w->n_sectors; s++) {
		t->cell[s].n = 1;
		t->cell[s].current = t->cell[s].may[0] = w->initial[s];
	}
}

void truth_free(struct truth *t)
{
	free(t->cell);
	free(t->touched);
}

bool truth_allows(const struct truth *t, uint64_t sector, uint64_t value)
{
	const struct cell *c = &t->cell[sector];

	for (unsigned i = c->n; i-- > 0;)
		if (c->may[i] == value)
			return true;
	return false;
}

static void allow(struct truth *t, uint64_t sector, uint64_t value)
{
	struct cell *c = &t->cell[sector];

	if (truth_allows(t, sector, value))
		return;
	if (c->n == 1)
		t->touched[t->n_touched++] = sector;
	expect(c->n < CELL_MAX);
	c->may[c->n++] = value;
}

static void make_durable(struct truth *t)
{
	for (size_t i = 0; i < t->n_touched; i++) {
		struct cell *c = &t->cell[t->touched[i]];

		c->n = 1;
		c->may[0] = c->current;
	}
	t->n_touched = 0;
}

void truth_mark(struct truth *t, uint64_t mark)
{
	const struct op *op = &t->w->ops[mark / 2];

	if (mark % 2 == 0) {
		t->running = op;
		for (uint64_t i = 0; i < op->n; i++)
			allow(t, op->first + i, op->value[i]);
		t->size_after = op->size;
		t->shots_after = op->shots;
		return;
	}
	for (uint64_t i = 0; i < op->n; i++) {
		struct cell *c = &t->cell[op->first + i];

		c->current = op->after[i];
		if (c->n == 1 && c->may[0] != c->current)
			allow(t, op->first + i, c->current);
	}
	t->running = NULL;
	t->size_before = op->size;
	t->shots_before = op->shots;
	if (op->durable)
		make_durable(t);
}
