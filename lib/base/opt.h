/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of formats: a table says what there is, `key=value,key=value` says what the user wants.
 * ",," in a value is one comma; a key without "=value" means on, "nokey" means off (as the peer).
 */
#ifndef IMGKIT_BASE_OPT_H
#define IMGKIT_BASE_OPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum opt_type { OPT_BOOL, OPT_UINT, OPT_SIZE, OPT_STRING, OPT_ENUM };

struct opt {
	const char *name; /* NULL ends a table */
	enum opt_type type;
	const char *help;           /* one line, as `-o help` prints it */
	const char *def;            /* default as text, or NULL */
	const char *const *choices; /* OPT_ENUM: ends with NULL */
	bool refused; /* not there: known for its name, an error when it is given (bool: on) */
};

struct optval {
	char *name, *value;
};

/* A list of values, later ones win. Zero-initialise; free with opts_free. */
struct opts {
	struct optval *v;
	unsigned n;
};

/* Adds what text says. -EINVAL, -ENOMEM. */
int opts_parse(struct opts *opts, const char *text, struct err *err);
int opts_set(struct opts *opts, const char *name, const char *value, struct err *err);
void opts_free(struct opts *opts);

/* NULL when it was not given; opts may be NULL. */
const char *opts_get(const struct opts *opts, const char *name);

/* Every name is in the table and every value is of its type. -EINVAL names the option. */
int opts_check(const struct opts *opts, const struct opt *table, struct err *err);

/* Typed access: *out keeps its value when the option was not given. -EINVAL. */
int opts_bool(const struct opts *opts, const char *name, bool *out, struct err *err);
int opts_uint(const struct opts *opts, const char *name, uint64_t *out, struct err *err);
int opts_size(const struct opts *opts, const char *name, uint64_t *out, struct err *err);
/* Index into choices. */
int opts_enum(const struct opts *opts, const char *name, const char *const *choices, int *out,
	      struct err *err);

#endif
