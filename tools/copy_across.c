// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From guest to guest: what one appliance tells goes to the other as it comes. An appliance serves
 * one call at a time, so within one it waits in a file that has no name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "copy.h"

struct across {
	struct copy *c;
	const struct copy_place *from;
	const char *name;
	struct appliance_stream *to; /* or NULL: into the file */
	FILE *file;
	bool made; /* the last entry is wanted */
};

/* ---- the file: u8 kind, fields; our own process wrote it, and nobody else can ---- */

enum { SPOOL_ENTRY = 1, SPOOL_XATTR, SPOOL_BYTES };

struct spool_entry {
	struct agent_stat st;
	bool other;
	char path[AGENT_PATH_MAX], to[AGENT_PATH_MAX];
};

struct spool_piece {
	char name[AGENT_NAME_MAX + 1];
	uint64_t off, len;
};

static FILE *open_spool(struct err *err)
{
	const char *dir = getenv("TMPDIR");
	int fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w+");

	if (!file) {
		err_sys(err, errno, "a temporary file in %s", dir && *dir ? dir : "/var/tmp");
		if (fd >= 0)
			close(fd);
	}
	return file;
}

static int put_file(struct across *x, int kind, const void *head, size_t head_len,
		    const void *bytes, size_t n, struct err *err)
{
	if (putc(kind, x->file) == EOF || fwrite(head, head_len, 1, x->file) != 1 ||
	    (n && fwrite(bytes, n, 1, x->file) != 1))
		return err_sys(err, errno, "the temporary file");
	return 0;
}

static int get_entry(FILE *file, struct appliance_stream *s, struct err *err)
{
	struct spool_entry e;

	if (fread(&e, sizeof(e), 1, file) != 1)
		return err_sys(err, EIO, "the temporary file");
	return appliance_put_entry(s, e.path, &e.st, e.other ? e.to : NULL, e.to, err);
}

static int get_piece(FILE *file, int kind, unsigned char *buf, struct appliance_stream *s,
		     struct err *err)
{
	struct spool_piece p;

	if (fread(&p, sizeof(p), 1, file) != 1 || p.len > STREAM_BYTES_MAX ||
	    (p.len && fread(buf, p.len, 1, file) != 1))
		return err_sys(err, EIO, "the temporary file");
	if (kind == SPOOL_XATTR)
		return appliance_put_xattr(s, p.name, buf, p.len, err);
	return appliance_put_bytes(s, p.off, buf, p.len, err);
}

static int produce_file(void *arg, struct appliance_stream *s, struct err *err)
{
	CLEANUP_FREE unsigned char *buf = malloc(STREAM_BYTES_MAX);
	struct across *x = arg;
	int kind, r = 0;

	if (!buf)
		return err_nomem(err, STREAM_BYTES_MAX, "a buffer");
	rewind(x->file);
	while (r == 0 && (kind = getc(x->file)) != EOF)
		r = kind == SPOOL_ENTRY ? get_entry(x->file, s, err)
					: get_piece(x->file, kind, buf, s, err);
	return r == 0 && ferror(x->file) ? err_sys(err, EIO, "the temporary file") : r;
}

/* ---- what is told ---- */

static int send_entry(struct across *x, const char *path, const struct agent_stat *st,
		      const char *first, const char *target, struct err *err)
{
	struct spool_entry e = {.st = *st, .other = first};

	if (x->to)
		return appliance_put_entry(x->to, path, st, first, target, err);
	snprintf(e.path, sizeof(e.path), "%s", path);
	snprintf(e.to, sizeof(e.to), "%s", first ? first : target ? target : "");
	return put_file(x, SPOOL_ENTRY, &e, sizeof(e), NULL, 0, err);
}

static int entry_failed(struct across *x, const char *path, const char *text)
{
	copy_tell(x->c, x->from, path, text);
	x->made = false;
	return 0;
}

static int take_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		      const char *target, struct err *err)
{
	char full[AGENT_PATH_MAX], other[AGENT_PATH_MAX] = "";
	struct agent_stat as = *st;
	struct across *x = arg;

	if (!x->c->recursive && !S_ISREG(st->mode))
		return entry_failed(x, path,
				    S_ISDIR(st->mode)
					    ? "is a directory, and -r was not given"
					    : "is not a regular file, and -r was not given");
	if (!copy_join(full, sizeof(full), x->name, path) ||
	    (first && !copy_join(other, sizeof(other), x->name, first)))
		return entry_failed(x, path, strerror(ENAMETOOLONG));
	x->made = true;
	copy_attributes(x->c, &as);
	return send_entry(x, full, &as, first ? other : NULL, target, err);
}

static int take_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct spool_piece p = {.len = n};
	struct across *x = arg;

	if (!x->made)
		return 0;
	if (x->to)
		return appliance_put_xattr(x->to, name, value, n, err);
	snprintf(p.name, sizeof(p.name), "%s", name);
	return put_file(x, SPOOL_XATTR, &p, sizeof(p), value, n, err);
}

static int take_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	const struct spool_piece p = {.off = off, .len = n};
	struct across *x = arg;

	if (!x->made)
		return 0;
	if (x->to)
		return appliance_put_bytes(x->to, off, bytes, n, err);
	return put_file(x, SPOOL_BYTES, &p, sizeof(p), bytes, n, err);
}

static int take_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	(void)code;
	(void)err;
	entry_failed(arg, path, text);
	return 0;
}

static int tell_all(struct across *x, struct err *err)
{
	const struct appliance_sink sink = {.arg = x,
					    .entry = take_entry,
					    .xattr = take_xattr,
					    .bytes = take_bytes,
					    .failed = take_failed};

	return appliance_export(x->from->a, x->from->path, copy_export_flags(x->c), &sink, err);
}

static int produce_directly(void *arg, struct appliance_stream *s, struct err *err)
{
	struct across *x = arg;

	x->to = s;
	return tell_all(x, err);
}

int copy_across(struct copy *c, const struct copy_place *from, const struct copy_place *to,
		const char *name, struct err *err)
{
	struct across x = {.c = c, .from = from, .name = name};
	uint32_t flags = copy_import_flags(c);
	int r;

	if (from->a != to->a) {
		appliance_watch(to->a, NULL); /* bytes are counted once */
		return appliance_import(to->a, to->path, flags, produce_directly, &x, err);
	}
	x.file = open_spool(err);
	if (!x.file)
		return -err->code;
	r = tell_all(&x, err);
	if (r == 0 && fflush(x.file) != 0)
		r = err_sys(err, errno, "the temporary file");
	if (r == 0)
		r = appliance_import(to->a, to->path, flags, produce_file, &x, err);
	fclose(x.file);
	return r;
}
