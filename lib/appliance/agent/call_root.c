/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OP_MOUNT_ROOT: finds the filesystem that is the root of an operating system, mounts it, and with
 * it what its /etc/fstab names.
 *
 * A root is what holds os-release(5), or else looks as a Linux root always did. Candidates are
 * mounted read-only to see that, one after the other. A disk that has an fstab with mistakes, or
 * with things that are elsewhere, can still be looked into: what is left out becomes a note.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "agent.h"
#include "fstab.h"

#define FSTAB_MAX   65536u
#define FSTAB_LINES 256u
#define NOTES_BYTES 65536u

struct rooting {
	struct agent *a;
	bool rdonly;
	struct known *root;
	char names[256]; /* the roots that were found */
	unsigned n_roots;
	char refused[256]; /* why a candidate could not be mounted; the first one */

	struct wire_out mounts, notes;
	uint32_t n_mounts, n_notes;
};

static void note(struct rooting *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct rooting *x, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	put_text(&x->notes, text);
	x->n_notes += !x->notes.full;
	x->notes.full = false; /* enough was said */
}

/* ---- what is a root ---- */

static bool is(struct tree *t, const char *path, mode_t type)
{
	struct place p;

	return tree_find(t, path, true, &p, NULL) == 0 && (p.st.mode & S_IFMT) == type;
}

static bool looks_like_root(struct tree *t)
{
	if (is(t, "/etc/os-release", S_IFREG) || is(t, "/usr/lib/os-release", S_IFREG))
		return true;
	/* Before os-release, or with /usr on another volume. */
	return is(t, "/etc/fstab", S_IFREG) &&
	       (is(t, "/bin/sh", S_IFREG) || is(t, "/etc/passwd", S_IFREG));
}

/* Whether a volume holds a filesystem on which a root can be. */
static bool candidate(struct agent *a, struct known *k, struct err *err)
{
	bool whole = !k->v.part;

	if (whole && k->v.table[0])
		return false; /* what is there lies below the partitions */
	if (disks_glance(&a->disks, k, err) < 0)
		return false;
	return !strcmp(k->v.usage, "filesystem");
}

static int try_root(struct rooting *x, struct known *k)
{
	static struct tree t;
	struct err e = {0};
	char type[32], name[16];
	size_t n = strlen(x->names);
	int r;

	t.n = 0;
	r = agent_mount(x->a, &t, k, "/", true, type, &e);
	if (r == -EMEDIUMTYPE)
		return 0;
	if (r < 0) {
		if (!x->refused[0])
			snprintf(x->refused, sizeof(x->refused), "%.200s", e.msg);
		return r == -ENOMEM ? r : 0;
	}
	if (looks_like_root(&t)) {
		x->root = k;
		x->n_roots++;
		snprintf(x->names + n, sizeof(x->names) - n, "%s%s", n ? ", " : "",
			 disks_name(k->v.disk, k->v.part, name));
	}
	return tree_unmount(&t, NULL) == -ENOMEM ? -ENOMEM : 0;
}

static int find_root(struct rooting *x, struct err *err)
{
	struct disks *d = &x->a->disks;
	int r = 0;

	for (uint32_t i = 0; i < d->n && r == 0; i++)
		r = disks_scan(d, i, err);
	for (unsigned i = 0; i < d->n_known && r == 0; i++)
		if (candidate(x->a, &d->known[i], err))
			r = try_root(x, &d->known[i]);
	if (r < 0)
		return r;
	if (x->n_roots > 1)
		return err_set(err, ENOTUNIQ, "several operating systems: on %s", x->names);
	if (!x->n_roots && x->refused[0])
		return err_set(err, ENOENT, "no operating system was found (%s)", x->refused);
	if (!x->n_roots)
		return err_set(err, ENOENT, "no operating system was found");
	return 0;
}

/* ---- what fstab names ---- */

static bool matches(const struct known *k, const struct fstab_spec *s)
{
	switch (s->key) {
	case FSTAB_UUID:
		return k->v.uuid[0] && !strcasecmp(k->v.uuid, s->value);
	case FSTAB_LABEL:
		return k->v.label[0] && !strcmp(k->v.label, s->value);
	case FSTAB_PARTUUID:
		return k->v.part && k->v.part_uuid[0] && !strcasecmp(k->v.part_uuid, s->value);
	case FSTAB_PARTLABEL:
		return k->v.part && k->v.part_name[0] && !strcmp(k->v.part_name, s->value);
	case FSTAB_DISK:
		return k->v.disk == s->disk && k->v.part == s->part;
	default:
		return false;
	}
}

/* The volume that a spec means. Of several, the one on the disk of the root. NULL, with why. */
static struct known *find_spec(struct rooting *x, const struct fstab_spec *s, const char **why)
{
	struct disks *d = &x->a->disks;
	struct known *found = NULL;
	unsigned n = 0, near = 0;

	for (unsigned i = 0; i < d->n_known; i++) {
		struct known *k = &d->known[i];
		bool by_content = s->key == FSTAB_UUID || s->key == FSTAB_LABEL;

		if (by_content && disks_glance(d, k, NULL) < 0)
			continue;
		if (!matches(k, s))
			continue;
		n++;
		if (k->v.disk == x->root->v.disk && !near++)
			found = k;
		else if (n == 1)
			found = k;
	}
	*why = !n ? "is on none of the disks" : "is on several volumes";
	return n == 1 || near == 1 ? found : NULL;
}

/* Mounts that have nothing to do with disks. Their lines need no note. */
static bool is_virtual(const struct fstab_line *l)
{
	static const char *const types[] = {
		"tmpfs",   "proc",     "sysfs",   "devpts",      "devtmpfs", "cgroup",
		"cgroup2", "debugfs",  "tracefs", "securityfs",  "efivarfs", "hugetlbfs",
		"mqueue",  "configfs", "fusectl", "binfmt_misc", "usbfs",    "ramfs",
		"swap",    "ignore",   "none",
	};

	if (!strcmp(l->dir, "none") || !strcmp(l->dir, "swap"))
		return true;
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (!strcmp(l->type, types[i]))
			return !fstab_option(l, "bind") && !fstab_option(l, "rbind");
	return false;
}

static void put_mount(struct rooting *x, const struct known *k, const char *path, const char *type)
{
	put_u32(&x->mounts, k->v.disk);
	put_u32(&x->mounts, k->v.part);
	put_text(&x->mounts, path);
	put_text(&x->mounts, type);
	x->n_mounts++;
}

static int mount_line(struct rooting *x, const struct fstab_line *l, struct err *err)
{
	struct fstab_spec spec;
	struct known *k;
	const char *why;
	char type[32];
	struct err e = {0};
	int r;

	if (fstab_option(l, "noauto") || fstab_option(l, "bind") || fstab_option(l, "rbind")) {
		note(x, "%s: not mounted: %s", l->dir,
		     fstab_option(l, "noauto") ? "noauto" : "a bind mount");
		return 0;
	}
	fstab_spec(l->spec, &spec);
	if (spec.key == FSTAB_OTHER) {
		note(x, "%s: not mounted: %s (%s) is no disk or partition", l->dir, l->spec,
		     l->type);
		return 0;
	}
	k = find_spec(x, &spec, &why);
	if (!k) {
		if (!fstab_option(l, "nofail"))
			note(x, "%s: not mounted: %s %s", l->dir, l->spec, why);
		return 0;
	}
	r = agent_mount(x->a, &x->a->tree, k, l->dir, x->rdonly, type, &e);
	if (r == -ENOMEM) {
		*err = e;
		return r;
	}
	if (r < 0)
		note(x, "%s: not mounted: %s", l->dir, e.msg);
	else
		put_mount(x, k, l->dir, type);
	return 0;
}

/* The text of /etc/fstab; "" when there is none. */
static int read_fstab(struct agent *a, char *text, struct err *err)
{
	struct place p;
	struct fs *fs;
	size_t n = 0, got = 1;
	int r = tree_find(&a->tree, "/etc/fstab", true, &p, NULL);

	text[0] = 0;
	if (r < 0 || !S_ISREG(p.st.mode))
		return 0;
	fs = tree_fs(&a->tree, p.node);
	for (r = 0; n < FSTAB_MAX && got && r == 0; n += got) {
		got = 0;
		r = fs->driver->read(fs, p.node.ino, text + n, FSTAB_MAX - n, n, &got, err);
	}
	text[n] = 0;
	return r < 0 ? tree_error(err, r, "/etc/fstab") : 0;
}

/* A path without slashes at its end and without double ones, so that paths can be compared. */
static void tidy(char *path)
{
	char *to = path;

	for (const char *s = path; *s; s++)
		if (*s != '/' || to == path || to[-1] != '/')
			*to++ = *s;
	while (to > path + 1 && to[-1] == '/')
		to--;
	*to = 0;
}

static int by_depth(const void *a, const void *b)
{
	const struct fstab_line *const *x = a, *const *y = b;
	size_t m = strlen((*x)->dir), n = strlen((*y)->dir);

	/* Equal ones stay in their order: their place in the file is the order in memory. */
	return m != n ? (m > n) - (m < n) : (*x > *y) - (*x < *y);
}

/* A parent has a shorter path than what is mounted in it: short ones first. */
static int mount_lines(struct rooting *x, const char *text, struct fstab_line *lines,
		       struct fstab_line **order, struct err *err)
{
	unsigned n = 0;
	int r = 0;

	while (n < FSTAB_LINES && fstab_next(&text, &lines[n])) {
		tidy(lines[n].dir);
		order[n] = &lines[n];
		if (strcmp(lines[n].dir, "/") != 0 && !is_virtual(&lines[n]))
			n++;
	}
	qsort(order, n, sizeof(*order), by_depth);
	for (unsigned i = 0; i < n && r == 0; i++)
		r = mount_line(x, order[i], err);
	return r;
}

static int mount_fstab(struct rooting *x, struct err *err)
{
	char *text = malloc(FSTAB_MAX + 1);
	struct fstab_line *lines = malloc(FSTAB_LINES * sizeof(*lines));
	struct fstab_line **order = malloc(FSTAB_LINES * sizeof(struct fstab_line *));
	struct err e = {0};
	int r = text && lines && order ? 0 : err_nomem(err, FSTAB_MAX, "/etc/fstab");

	if (r == 0 && read_fstab(x->a, text, &e) < 0)
		note(x, "%s", e.msg);
	else if (r == 0)
		r = mount_lines(x, text, lines, order, err);
	free(text);
	free(lines);
	free(order);
	return r;
}

int call_mount_root(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	static unsigned char mounts[NOTES_BYTES], notes[NOTES_BYTES];
	struct rooting x = {.a = a,
			    .mounts = wire_out(mounts, sizeof(mounts)),
			    .notes = wire_out(notes, sizeof(notes))};
	uint32_t flags = get_u32(args);
	char type[32];
	int r = call_args(args, err);

	if (r == 0)
		r = call_flags(flags, MOUNT_RDONLY, err);
	if (r == 0 && a->tree.n)
		r = err_set(err, EBUSY, "a root is mounted already");
	if (r == 0)
		r = find_root(&x, err);
	x.rdonly = flags & MOUNT_RDONLY;
	if (r == 0)
		r = agent_mount(a, &a->tree, x.root, "/", x.rdonly, type, err);
	if (r < 0)
		return r;
	put_mount(&x, x.root, "/", type);
	r = mount_fstab(&x, err);
	if (r < 0) {
		tree_unmount(&a->tree, NULL);
		return r;
	}
	put_u32(result, x.n_mounts);
	memcpy(result->buf + result->len, mounts, x.mounts.len);
	result->len += x.mounts.len;
	put_u32(result, x.n_notes);
	memcpy(result->buf + result->len, notes, x.notes.len);
	result->len += x.notes.len;
	return 0;
}
