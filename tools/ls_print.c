// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How img ls prints a directory: lines, columns or JSON. Names go to a terminal cleaned, and else as
 * they are, for programs; in JSON what is no UTF-8 is replaced.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "entry.h"
#include "ls.h"

/* ---- order ---- */

static int compare(const void *a, const void *b, void *arg)
{
	const struct ls_entry *x = *(struct ls_entry *const *)a, *y = *(struct ls_entry *const *)b;
	const struct ls_opts *o = arg;
	int r = 0;

	if (o->sort == 'S')
		r = (x->st.size < y->st.size) - (x->st.size > y->st.size);
	else if (o->sort == 't')
		r = (x->st.mtime.sec < y->st.mtime.sec) - (x->st.mtime.sec > y->st.mtime.sec);
	if (!r && o->sort == 't')
		r = (x->st.mtime.nsec < y->st.mtime.nsec) - (x->st.mtime.nsec > y->st.mtime.nsec);
	if (!r)
		r = strcmp(x->name, y->name);
	return o->reverse ? -r : r;
}

/* ---- one line ---- */

static void put_name(const struct ls *ls, const char *name)
{
	if (ls->clean)
		cli_put_text(ls->cli, name);
	else
		fputs(name, stdout);
}

static const char *size_text(const struct ls *ls, const struct ls_entry *e, char buf[ENTRY_TEXT])
{
	if (!e->st.mode)
		snprintf(buf, ENTRY_TEXT, "?");
	else if (S_ISBLK(e->st.mode) || S_ISCHR(e->st.mode))
		snprintf(buf, ENTRY_TEXT, "%" PRIu32 ", %" PRIu32, e->st.rdev_major,
			 e->st.rdev_minor);
	else if (ls->o->human)
		entry_human(e->st.size, buf);
	else
		snprintf(buf, ENTRY_TEXT, "%" PRIu64, e->st.size);
	return buf;
}

enum { INODE, LINKS, UID, GID, SIZE, LABEL, N_FIELDS };

/* A field of -l, -i or -Z as text. */
static const char *field(const struct ls *ls, const struct ls_entry *e, int which,
			 char buf[ENTRY_TEXT])
{
	const uint64_t numbers[] = {
		[INODE] = e->st.ino, [LINKS] = e->st.nlink, [UID] = e->st.uid, [GID] = e->st.gid};

	if (which == LABEL)
		return e->label ? e->label : "?";
	if (which == SIZE)
		return size_text(ls, e, buf);
	snprintf(buf, ENTRY_TEXT, e->st.mode ? "%" PRIu64 : "?", numbers[which]);
	return buf;
}

static bool has_field(const struct ls_opts *o, int which)
{
	return which == INODE ? o->inode : which == LABEL ? o->context : o->list;
}

static void put_field(const struct ls *ls, const struct ls_entry *e, int which, const int *widths)
{
	char buf[ENTRY_TEXT];

	if (!has_field(ls->o, which))
		return;
	if (which == LABEL)
		printf("%-*s ", widths[which], field(ls, e, which, buf));
	else
		printf("%*s ", widths[which], field(ls, e, which, buf));
}

static void put_long(const struct ls *ls, const struct ls_entry *e, const int *widths)
{
	char buf[ENTRY_TEXT];

	printf("%s%s ", e->st.mode ? entry_mode(e->st.mode, buf) : "?????????\?",
	       !ls->o->context ? ""
	       : e->acl        ? "+"
	       : e->label      ? "."
			       : " ");
	for (int f = LINKS; f <= GID; f++)
		put_field(ls, e, f, widths);
	put_field(ls, e, LABEL, widths);
	put_field(ls, e, SIZE, widths);
	printf("%s ", e->st.mode ? entry_time(e->st.mtime, ls->o->full_time, buf) : "?");
}

/* name: as what it is printed. */
static void put_line(const struct ls *ls, const struct ls_entry *e, const char *name,
		     const int *widths)
{
	put_field(ls, e, INODE, widths);
	if (ls->o->list)
		put_long(ls, e, widths);
	else
		put_field(ls, e, LABEL, widths);
	put_name(ls, name);
	if (ls->o->list && *e->target) {
		fputs(" -> ", stdout);
		put_name(ls, e->target);
	}
	putchar('\n');
}

static void measure(const struct ls *ls, int *widths)
{
	char buf[ENTRY_TEXT];

	for (int f = 0; f < N_FIELDS; f++) {
		widths[f] = 0;
		for (size_t i = 0; has_field(ls->o, f) && i < ls->n; i++) {
			int n = (int)strlen(field(ls, ls->v[i], f, buf));

			widths[f] = n > widths[f] ? n : widths[f];
		}
	}
}

/* ---- columns ---- */

/* How many columns of a terminal: one for each character, which is true for most. */
static size_t text_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static size_t screen_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size;

	if (columns && atoi(columns) > 0)
		return (size_t)atoi(columns);
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return 80;
}

static void put_column(const struct ls *ls, const struct ls_entry *e, size_t width,
		       const int *widths)
{
	CLEANUP_FREE char *name = cli_clean(ls->cli, e->name);

	put_field(ls, e, INODE, widths);
	put_field(ls, e, LABEL, widths);
	fputs(name ? name : "?", stdout);
	if (width)
		printf("%*s", (int)(width - text_width(name ? name : "?")), "");
}

static void put_columns(const struct ls *ls, const int *widths)
{
	size_t before = (size_t)(widths[INODE] + (widths[INODE] ? 1 : 0) + widths[LABEL] +
				 (widths[LABEL] ? 1 : 0));
	size_t width = 0, columns, rows;

	for (size_t i = 0; i < ls->n; i++) {
		CLEANUP_FREE char *name = cli_clean(ls->cli, ls->v[i]->name);

		width = max_u64(width, (name ? text_width(name) : 1) + 2);
	}
	columns = max_u64(1, (screen_width() + 2) / (before + width));
	rows = div_up(ls->n, columns);
	for (size_t row = 0; row < rows; row++) {
		for (size_t i = row; i < ls->n; i += rows)
			put_column(ls, ls->v[i], i + rows < ls->n ? width : 0, widths);
		putchar('\n');
	}
}

/* ---- one directory ---- */

static void put_total(const struct ls *ls)
{
	uint64_t sum = 0;
	char buf[ENTRY_TEXT];

	for (size_t i = 0; i < ls->n; i++)
		sum += ls->v[i]->st.allocated;
	if (ls->o->human)
		printf("total %s\n", entry_human(sum, buf));
	else
		printf("total %" PRIu64 "\n", sum / 1024);
}

static void put_heading(struct ls *ls, const char *path)
{
	if (ls->any)
		putchar('\n');
	ls->any = true;
	if (ls->o->n_places < 2 && !ls->o->recursive)
		return;
	put_name(ls, ls->text);
	if (*path) {
		size_t len = strlen(ls->text);

		/* IMAGE alone is IMAGE:/ */
		if (!ls->session.place.path)
			fputs(":/", stdout);
		else if (ls->text[len - 1] != '/')
			putchar('/');
		put_name(ls, path);
	}
	puts(":");
}

static int put_json(struct ls *ls, const char *dir)
{
	const char *top = ls->session.place.path ? ls->session.place.path : "/";
	const char *slash = top[strlen(top) - 1] == '/' ? "" : "/";

	for (size_t i = 0; i < ls->n; i++) {
		const struct ls_entry *e = ls->v[i];
		CLEANUP_FREE char *path = NULL, *text = NULL;
		json_t *o;
		int r;

		if (!ls->is_dir)
			r = asprintf(&path, "%s", top);
		else
			r = asprintf(&path, "%s%s%s%s%s", top, slash, dir, *dir ? "/" : "",
				     e->name);
		if (r < 0)
			path = NULL;
		o = path ? entry_json(path, &e->st, e->target) : NULL;
		r = o ? json_set_text(o, "image", ls->session.place.image) : -1;
		if (o && e->label)
			r |= json_set_text(o, "selinux", e->label);
		text = o ? json_dumps(o, JSON_ENSURE_ASCII) : NULL;
		json_decref(o);
		if (r || !text)
			return cli_error(ls->cli, "out of memory");
		printf("%s    %s", ls->any ? ",\n" : "", text);
		ls->any = true;
	}
	return 0;
}

void ls_print(struct ls *ls, const char *dir)
{
	const struct ls_opts *o = ls->o;
	int widths[N_FIELDS];

	if (ls->n > 1)
		qsort_r(ls->v, ls->n, sizeof(struct ls_entry *), compare, (void *)(uintptr_t)o);
	if (o->json) {
		ls->code |= put_json(ls, dir);
		return;
	}
	if (ls->is_dir)
		put_heading(ls, dir);
	if (ls->is_dir && o->list)
		put_total(ls);
	measure(ls, widths);
	if (!ls->is_dir)
		put_line(ls, ls->v[0], ls->text, widths);
	else if (o->list || !o->columns)
		for (size_t i = 0; i < ls->n; i++)
			put_line(ls, ls->v[i], ls->v[i]->name, widths);
	else if (ls->n)
		put_columns(ls, widths);
	ls->any = true;
}
