// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tree of a guest as an archive. Names begin with "./", as `tar -C DIR .` writes them.
 *
 * A header says where the holes of a file are, and comes before its data: a file that has holes
 * waits in a temporary file until it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "parts.h"

#define HOLE_PIECE GiB         /* of nothing: it is never read */
#define BLOCK      (256 * KiB) /* of writes */
#define RECORD     10240       /* tar(1) makes archives a multiple of it */

struct hole_map {
	struct run {
		uint64_t off, len;
	} * runs; /* owned */
	size_t n, cap;
};

struct output {
	struct tar *t;
	struct archive *ar;
	struct archive_entry *e; /* of the last entry */
	char path[AGENT_PATH_MAX];
	bool pending;  /* its header was not written */
	bool content;  /* data may come */
	uint64_t pos;  /* of its data */
	uint64_t size; /* that the header says */
	bool holes;    /* it waits in the spool */
	int spool;     /* -1: not open */
	struct hole_map data;
	const void *nothing; /* HOLE_PIECE bytes */
	int write_errno;
};

/* ---- the archive ---- */

static ssize_t write_block(struct archive *ar, void *arg, const void *buf, size_t n)
{
	struct output *o = arg;
	ssize_t did;

	if (job_cancelled(&o->t->job)) {
		archive_set_error(ar, ECANCELED, "cancelled");
		return -1;
	}
	do
		did = write(o->t->fd, buf, n);
	while (did < 0 && errno == EINTR);
	if (did < 0) {
		o->write_errno = errno;
		archive_set_error(ar, errno, "cannot write");
	}
	return did;
}

static int archive_failed(struct output *o, struct err *err)
{
	int code = archive_errno(o->ar);

	if (o->write_errno)
		return err_sys(err, o->write_errno, "writing the archive");
	return err_set(err, code > 0 ? code : EIO, "the archive: %s", archive_error_string(o->ar));
}

static int open_archive(struct output *o, struct err *err)
{
	const struct tar *t = o->t;
	int r = ARCHIVE_OK;

	o->ar = archive_write_new();
	if (!o->ar)
		return err_nomem(err, 0, "an archive");
	if (!strcmp(t->format, "gnutar"))
		r |= archive_write_set_format_gnutar(o->ar);
	else if (!strcmp(t->format, "ustar"))
		r |= archive_write_set_format_ustar(o->ar);
	else
		r |= archive_write_set_format_pax(o->ar);
	/* Once is enough for all who read them. */
	if (r == ARCHIVE_OK && !strcmp(t->format, "pax"))
		r |= archive_write_set_format_option(o->ar, "pax", "xattrheader", "SCHILY");
	if (t->gzip)
		r |= archive_write_add_filter_gzip(o->ar);
	if (t->zstd)
		r |= archive_write_add_filter_zstd(o->ar);
	archive_write_set_bytes_per_block(o->ar, BLOCK);
	archive_write_set_bytes_in_last_block(o->ar, t->gzip || t->zstd ? 1 : RECORD);
	if (r != ARCHIVE_OK || archive_write_open(o->ar, o, NULL, write_block, NULL) != ARCHIVE_OK)
		return archive_failed(o, err);
	return 0;
}

/* ---- data ---- */

static int put_data(struct output *o, const void *bytes, uint64_t n, struct err *err)
{
	const char *at = bytes;

	while (n) {
		la_ssize_t did = archive_write_data(o->ar, at, n);

		if (did < 0)
			return archive_failed(o, err);
		if (did == 0) /* more than the header says */
			return 0;
		at += did;
		n -= (uint64_t)did;
		o->pos += (uint64_t)did;
	}
	return 0;
}

static int put_zeros(struct output *o, uint64_t end, struct err *err)
{
	int r = 0;

	while (o->pos < end && r == 0)
		r = put_data(o, zero_buf, min_u64(ZERO_BUF_SIZE, end - o->pos), err);
	return r;
}

/* What the header said is a hole: the library counts it, and looks at nothing. */
static int skip_hole(struct output *o, uint64_t end, struct err *err)
{
	int r = 0;

	if (!o->nothing) {
		void *p = mmap(NULL, HOLE_PIECE, PROT_READ,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return err_nomem(err, HOLE_PIECE, "holes");
		o->nothing = p;
	}
	while (o->pos < end && r == 0) {
		if (job_cancelled(&o->t->job))
			return err_set(err, ECANCELED, "cancelled");
		r = put_data(o, o->nothing, min_u64(HOLE_PIECE, end - o->pos), err);
	}
	return r;
}

/* ---- files with holes ---- */

static int add_run(struct hole_map *m, uint64_t off, uint64_t len, struct err *err)
{
	struct run *last = m->n ? &m->runs[m->n - 1] : NULL;

	if (last && last->off + last->len == off) {
		last->len += len;
		return 0;
	}
	if (m->n == m->cap) {
		size_t cap = m->cap ? 2 * m->cap : 64;
		struct run *runs = realloc(m->runs, cap * sizeof(*runs));

		if (!runs)
			return err_nomem(err, cap * sizeof(*runs), "the map of a file");
		m->runs = runs;
		m->cap = cap;
	}
	m->runs[m->n++] = (struct run){off, len};
	return 0;
}

static int open_spool(struct output *o, struct err *err)
{
	const char *dir = getenv("TMPDIR");

	if (!dir || !*dir)
		dir = "/var/tmp";
	o->spool = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return o->spool < 0 ? err_sys(err, errno, "a temporary file in %s", dir) : 0;
}

static int spool_bytes(struct output *o, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	const char *at = bytes;
	int r = o->spool < 0 ? open_spool(o, err) : 0;

	if (r == 0)
		r = add_run(&o->data, off, n, err);
	while (n && r == 0) {
		ssize_t did = pwrite(o->spool, at, n, (off_t)off);

		if (did < 0 && errno != EINTR)
			return err_sys(err, errno, "the temporary file");
		if (did < 0)
			continue;
		at += did;
		off += (uint64_t)did;
		n -= (size_t)did;
	}
	return r;
}

static int put_run(struct output *o, const struct run *run, struct err *err)
{
	static unsigned char buf[BLOCK];
	int r = skip_hole(o, run->off, err);

	for (uint64_t at = run->off; at < run->off + run->len && r == 0;) {
		size_t want = min_u64(sizeof(buf), run->off + run->len - at);
		ssize_t n = pread(o->spool, buf, want, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, n ? errno : EIO, "the temporary file");
		r = put_data(o, buf, (size_t)n, err);
		at += (uint64_t)n;
	}
	return r;
}

/* ---- entries ---- */

static int put_header(struct output *o, struct err *err)
{
	int r = archive_write_header(o->ar, o->e);

	o->pending = false;
	o->pos = 0;
	/* A warning is about texts that are no UTF-8: they are written as they are. */
	return r < ARCHIVE_WARN ? archive_failed(o, err) : 0;
}

static int put_holes(struct output *o, struct err *err)
{
	const struct hole_map *m = &o->data;
	int r;

	for (size_t i = 0; i < m->n; i++)
		archive_entry_sparse_add_entry(o->e, (la_int64_t)m->runs[i].off,
					       (la_int64_t)m->runs[i].len);
	if (!m->n) /* nothing but a hole */
		archive_entry_sparse_add_entry(o->e, (la_int64_t)o->size, 0);
	r = put_header(o, err);
	for (size_t i = 0; i < m->n && r == 0; i++)
		r = put_run(o, &m->runs[i], err);
	if (r == 0)
		r = skip_hole(o, o->size, err);
	if (r == 0 && o->spool >= 0 && ftruncate(o->spool, 0) < 0)
		r = err_sys(err, errno, "the temporary file");
	o->data.n = 0;
	return r;
}

/* A header that cannot be in this format: the entry is left out. */
static int finish_entry(struct output *o, struct err *err)
{
	int r = 0;

	if (o->pending)
		r = o->holes ? put_holes(o, err) : put_header(o, err);
	if (r < 0 && !o->write_errno && r != -ECANCELED && o->pos == 0) {
		guest_failed(o->t->cli, o->t->place, o->path, err->msg);
		o->t->failed = true;
		o->content = false;
		return 0;
	}
	if (r == 0 && o->content)
		r = put_zeros(o, o->size, err);
	o->content = false;
	return r;
}

static void fill_entry(struct output *o, const char *path, const struct agent_stat *st,
		       const char *first, const char *target)
{
	char name[AGENT_PATH_MAX + 8];

	archive_entry_clear(o->e);
	snprintf(name, sizeof(name), "./%s", path);
	archive_entry_set_pathname(o->e, name);
	archive_entry_set_mode(o->e, (__LA_MODE_T)st->mode);
	archive_entry_set_uid(o->e, st->uid);
	archive_entry_set_gid(o->e, st->gid);
	archive_entry_set_mtime(o->e, st->mtime.sec, (long)(st->mtime.nsec % 1000000000));
	archive_entry_set_size(o->e, 0);
	if (first) {
		snprintf(name, sizeof(name), "./%s", first);
		archive_entry_set_hardlink(o->e, name);
	} else if (S_ISREG(st->mode)) {
		archive_entry_set_size(o->e, (la_int64_t)st->size);
	} else if (S_ISLNK(st->mode)) {
		archive_entry_set_symlink(o->e, target);
	} else if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		archive_entry_set_rdevmajor(o->e, st->rdev_major);
		archive_entry_set_rdevminor(o->e, st->rdev_minor);
	}
}

static int take_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		      const char *target, struct err *err)
{
	struct output *o = arg;
	int r = finish_entry(o, err);

	if (r < 0)
		return r;
	if (S_ISSOCK(st->mode)) {
		cli_warn(o->t->cli, "%s: a socket is left out", path);
		return 0;
	}
	snprintf(o->path, sizeof(o->path), "%s", path);
	fill_entry(o, path, st, first, target);
	o->pending = true;
	o->content = !first && S_ISREG(st->mode);
	o->size = o->content ? st->size : 0;
	/* Inline data takes no space either; 4 KiB is what a hole is worth. */
	o->holes = o->content && !strcmp(o->t->format, "pax") && st->size >= 4096 &&
		   st->allocated < st->size;
	return 0;
}

static int take_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct output *o = arg;

	(void)err;
	if (o->pending && !acl_to_entry(o->e, name, value, n))
		archive_entry_xattr_add_entry(o->e, name, value, n);
	return 0;
}

static int take_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	struct output *o = arg;
	int r = 0;

	if (!o->content)
		return 0;
	if (o->holes)
		return spool_bytes(o, off, bytes, n, err);
	if (o->pending)
		r = put_header(o, err);
	if (r == 0)
		r = put_zeros(o, off, err);
	return r == 0 ? put_data(o, bytes, n, err) : r;
}

static int take_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	struct output *o = arg;

	(void)code;
	(void)err;
	guest_failed(o->t->cli, o->t->place, path, text);
	o->t->failed = true;
	return 0;
}

static int finish_archive(struct output *o, struct err *err)
{
	int r = finish_entry(o, err);

	if (r == 0 && archive_write_close(o->ar) != ARCHIVE_OK)
		r = archive_failed(o, err);
	return r;
}

int tar_out(struct tar *t, struct err *err)
{
	struct output o = {.t = t, .spool = -1, .e = archive_entry_new()};
	const struct appliance_sink sink = {.arg = &o,
					    .entry = take_entry,
					    .xattr = take_xattr,
					    .bytes = take_bytes,
					    .failed = take_failed};
	const uint32_t flags = TREE_RECURSIVE | TREE_FOLLOW | TREE_CONTENT | TREE_XATTRS |
			       TREE_DIRS_LATE | (t->flags & TREE_ONE_FS);
	int r = o.e ? open_archive(&o, err) : err_nomem(err, 0, "an entry");

	if (r == 0)
		r = appliance_export(t->a, t->path, flags, &sink, err);
	if (r == 0)
		r = finish_archive(&o, err);
	if (r == 0)
		archive_write_free(o.ar);
	else if (o.ar) /* no end is written: it is seen to be cut off */
		archive_write_fail(t->abandoned = o.ar);
	archive_entry_free(o.e);
	if (o.nothing)
		munmap((void *)(uintptr_t)o.nothing, HOLE_PIECE);
	if (o.spool >= 0)
		close(o.spool);
	free(o.data.runs);
	return r;
}
