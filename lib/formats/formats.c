// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The list of formats. The order is the order of probing: formats with a magic first, raw last
 * because it fits everything.
 */
#include <string.h>

#include "formats/qcow2/qcow2.h"
#include "formats/raw.h"
#include "image/img.h"

const struct format *const formats[] = {
	&qcow2_format,
	&raw_format,
	NULL,
};

const struct format *format_find(const char *name)
{
	for (unsigned i = 0; formats[i]; i++)
		if (!strcmp(formats[i]->name, name))
			return formats[i];
	return NULL;
}

const struct format *format_probe(const struct probe *probe)
{
	const struct format *best = NULL;
	int best_score = -1;

	for (unsigned i = 0; formats[i]; i++) {
		int score = formats[i]->probe(probe);

		if (score > best_score) {
			best = formats[i];
			best_score = score;
		}
	}
	return best;
}
