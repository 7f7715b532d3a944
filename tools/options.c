// SPDX-License-Identifier: GPL-2.0-or-later
/* `-o help`: the options of a format, as create, convert, measure and amend list them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli.h"
#include "ops/target.h"

static const char *type_name(enum opt_type type)
{
	switch (type) {
	case OPT_BOOL:
		return "bool (on/off)";
	case OPT_UINT:
		return "num";
	case OPT_SIZE:
		return "size";
	case OPT_STRING:
	case OPT_ENUM:
		break;
	}
	return "str";
}

static int by_name(const void *a, const void *b)
{
	const struct opt *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static void print_opt(const struct cli *cli, const struct opt *o)
{
	char left[80];

	snprintf(left, sizeof(left), "%s=<%s>", o->name, type_name(o->type));
	printf("  %-22s - %s", left, o->help);
	if (!cli->peer && o->def)
		printf(" (default: %s)", o->def);
	putchar('\n');
}

/* The peer's own list has what we refuse, too; and raw's preallocation is its file's. */
static bool is_listed(const struct cli *cli, const struct format *fmt, const struct opt *o,
		      bool with_target)
{
	if (!cli->peer)
		return !o->refused;
	return with_target || strcmp(fmt->name, "raw") != 0 ||
	       strcmp(o->name, "preallocation") != 0;
}

static void print_tables(const struct cli *cli, const struct format *fmt,
			 const struct opt *const *tables, unsigned n_tables, bool with_target)
{
	const struct opt *list[64];
	unsigned n = 0;

	for (unsigned i = 0; i < n_tables; i++) {
		for (const struct opt *o = tables[i]; o && o->name && n < ARRAY_LEN(list); o++) {
			if (is_listed(cli, fmt, o, with_target))
				list[n++] = o;
		}
	}
	qsort(list, n, sizeof(list[0]), by_name);
	for (unsigned i = 0; i < n; i++)
		print_opt(cli, list[i]);
}

void cli_options_help(const struct cli *cli, const struct format *fmt, bool with_target)
{
	const struct opt *const tables[] = {fmt->create_opts,
					    with_target ? target_create_opts : NULL};

	if (with_target)
		printf("Supported options:\n");
	else
		printf("Supported %s options:\n", fmt->name);
	print_tables(cli, fmt, tables, ARRAY_LEN(tables), with_target);
	if (!with_target)
		printf("\nThe protocol level may support further options.\n"
		       "Specify the target filename to include those options.\n");
}

void cli_amend_help(const struct cli *cli, const struct format *fmt)
{
	printf("Amend options for '%s':\n", fmt->name);
	print_tables(cli, fmt, &fmt->amend_opts, 1, false);
}
