// SPDX-License-Identifier: GPL-2.0-or-later
/* What the disk may hold after a power cut; see judge.h. */
#include "judge.h"

void truth_begin(struct truth *t, const struct workload *w)
{
	*t = (struct truth){.w = w, .size_before = w->size, .size_after = w->size};
	cells_init(&t->cells, w->initial, w->n_sectors);
}

void truth_free(struct truth *t)
{
	cells_free(&t->cells);
}

void truth_mark(struct truth *t, uint64_t mark)
{
	const struct op *op = &t->w->ops[mark / 2];

	if (mark % 2 == 0) {
		t->running = op;
		t->last = (unsigned)(mark / 2);
		for (uint64_t i = 0; i < op->n; i++)
			cells_allow(&t->cells, op->first + i, op->value[i]);
		t->size_after = op->size;
		t->shots_after = op->shots;
		return;
	}
	for (uint64_t i = 0; i < op->n; i++)
		cells_set(&t->cells, op->first + i, op->after[i]);
	t->running = NULL;
	t->size_before = op->size;
	t->shots_before = op->shots;
	if (op->durable)
		cells_durable(&t->cells);
}
