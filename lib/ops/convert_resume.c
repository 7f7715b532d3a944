// SPDX-License-Identifier: LGPL-2.1-or-later
/* Conversions that can be continued; see convert_resume.h. */
#include "ops/convert_resume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "io/file.h"

/* ---- what it is a conversion of ---- */

/* A text that grows. */
struct text {
	char *p; /* owned; NULL: nothing yet */
	size_t len;
	bool failed; /* no memory */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *fmt, ...)
{
	CLEANUP_FREE char *more = NULL;
	va_list ap;
	char *p;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&more, fmt, ap);
	va_end(ap);
	if (n < 0)
		more = NULL;
	p = n < 0 ? NULL : realloc(t->p, t->len + (size_t)n + 1);
	if (!p) {
		t->failed = true;
		return;
	}
	memcpy(p + t->len, more, (size_t)n + 1);
	t->p = p;
	t->len += (size_t)n;
}

/* A name can hold anything, a line of the journal cannot. */
static void add_name(struct text *t, const char *name)
{
	while (*name) {
		int plain = 0;

		while ((unsigned char)name[plain] >= 0x20 && name[plain] != 0x7f &&
		       name[plain] != '\\')
			plain++;
		add(t, "%.*s", plain, name);
		name += plain;
		if (*name)
			add(t, "\\x%02x", (unsigned char)*name++);
	}
}

static void add_line(struct text *t, const char *key, const char *value)
{
	add(t, "%s: ", key);
	add_name(t, value ? value : "none");
	add(t, "\n");
}

/* A device has no time at which its content changed: the comparison must do. */
static void add_file(struct text *t, const char *key, struct io *io, const char *format)
{
	struct stat st;

	add(t, "%s: ", key);
	add_name(t, io->name);
	add(t, ", %s, %" PRIu64 " bytes", format, io_size(io));
	if (io_is_file(io) && fstat(file_fd(io), &st) == 0 && S_ISREG(st.st_mode))
		add(t, ", modified %" PRId64 ".%09ld, inode %" PRIu64, (int64_t)st.st_mtime,
		    st.st_mtim.tv_nsec, (uint64_t)st.st_ino);
	add(t, "\n");
}

static void add_sources(struct text *t, const struct convert_request *req)
{
	for (unsigned i = 0; i < req->n_src; i++) {
		add(t, "disk: %" PRIu64 " bytes\n", io_size(&req->src[i]->io));
		for (struct img *img = req->src[i]; img; img = img->backing) {
			struct io *file = img_bottom(img);
			const char *key = img == req->src[i] ? "source" : "backing file";

			add_file(t, key, file ? file : img->file, img->fmt->name);
			if (img->data != img->file)
				add_file(t, "data file", img->data, "raw");
		}
	}
	add_line(t, "snapshot", req->view);
	if (req->part)
		add(t, "part: %" PRIu64 " bytes at %" PRIu64 "\n", req->length, req->offset);
}

/* How many workers there are, and how fast they may be, changes no byte. */
static void add_target(struct text *t, const struct convert_request *req,
		       const struct create_plan *plan)
{
	const struct copy_args *c = &req->copy;

	add_line(t, "target format", plan->fmt->name);
	for (unsigned i = 0; i < plan->all.n; i++) {
		add(t, "option ");
		add_line(t, plan->all.v[i].name, plan->all.v[i].value);
	}
	add(t, "sparse: %" PRIu64 "\n", c->sparse);
	add(t, "compression: %s, level %d, %s window\n", c->compress ? "on" : "off", c->level,
	    c->narrow ? "narrow" : "wide");
	add(t, "offload: %s\n", c->offload ? "on" : "off");
	add(t, "bitmaps: %s, %s\n", req->bitmaps ? "yes" : "no",
	    req->skip_broken_bitmaps ? "not broken ones" : "all");
}

static int identify(const struct convert_request *req, const struct create_plan *plan, char **out,
		    struct err *err)
{
	struct text t = {0};

	add_sources(&t, req);
	add_target(&t, req, plan);
	*out = t.p;
	return t.failed ? err_nomem(err, t.len, "a journal") : 0;
}

/* ---- what cannot be ---- */

static int check(const struct convert_request *req, const struct create_plan *plan, struct err *err)
{
	const char *prealloc = opts_get(&plan->format_opts, "preallocation");

	if (req->stream)
		return err_set(err, ENOTSUP, "A copy of a stream cannot be resumed");
	if (req->snapshots)
		return err_set(err, ENOTSUP, "A copy of snapshots cannot be resumed");
	if (req->copy.unordered)
		return err_set(err, ENOTSUP, "A copy in no order cannot be resumed");
	if (req->copy.salvage)
		return err_set(err, ENOTSUP,
			       "What is salvaged cannot be compared, so it cannot be resumed");
	if (plan->data_path)
		return err_set(err, ENOTSUP, "A copy to an external data file cannot be resumed");
	if (prealloc && strcmp(prealloc, "off") != 0)
		return err_set(err, ENOTSUP, "A copy to preallocated space cannot be resumed");
	return 0;
}

/* ---- the files ---- */

/* Whether the name still stands for the file: who had it before us may have removed it. */
static bool is_at(struct io *file, const char *path)
{
	struct file_stat fs;
	struct stat st;

	return lstat(path, &st) == 0 && file_stat(file, &fs, NULL) == 0 && fs.dev == st.st_dev &&
	       fs.ino == st.st_ino;
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/* The journal's file, locked: from here on nobody else does anything with either. */
static int lock_journal(const struct convert_resume *res, struct io **out, struct err *err)
{
	const unsigned flags = FILE_WRITE | FILE_NO_DEVICE | FILE_OURS | FILE_PRIVATE;

	for (;;) {
		struct io *file;
		int r = file_open(res->path, flags, &file, err);

		if (r == -ENOENT && exists(res->partial))
			return err_set(err, EEXIST,
				       "'%s' is there, but no journal of it: it cannot be resumed "
				       "(remove it to begin anew)",
				       res->partial);
		if (r == -ENOENT)
			r = file_open(res->path, flags | FILE_CREATE, &file, err);
		if (r == -EEXIST)
			continue;
		if (r < 0)
			return r;
		if (is_at(file, res->path)) {
			*out = file;
			return 0;
		}
		io_close(file);
	}
}

static int open_journal(struct convert_resume *res, const char *identity, struct err *err)
{
	struct io *file = NULL;
	bool is_there;
	int r = lock_journal(res, &file, err);

	if (r < 0)
		return r;
	is_there = exists(res->partial);
	if (!is_there)
		r = journal_empty(file, err);
	if (r == 0)
		r = journal_open(file, identity, !is_there, &res->journal, err);
	if (r < 0)
		io_close(file);
	if (is_there && (r == -EINVAL || r == -EUCLEAN))
		err_ctx(err, r, "'%s' cannot be resumed (remove it to begin anew)", res->partial);
	return r;
}

int convert_resume_begin(struct convert_resume *res, const struct convert_request *req,
			 const struct create_plan *plan, struct err *err)
{
	CLEANUP_FREE char *identity = NULL;
	int r = check(req, plan, err);

	if (r == 0)
		r = target_partial_name(req->path, &res->partial, err);
	if (r == 0 && asprintf(&res->path, "%s.journal", res->partial) < 0)
		r = err_nomem(err, 0, "a file name");
	if (r == 0)
		r = identify(req, plan, &identity, err);
	return r < 0 ? r : open_journal(res, identity, err);
}

/* A partial file that was there before is never removed: what is in it may still be good. */
static bool is_worthless(const struct convert_resume *res)
{
	return journal_is_new(res->journal) && journal_end(res->journal) == 0;
}

void convert_resume_end(struct convert_resume *res, const struct convert_request *req, int result)
{
	bool worthless = res->journal && result < 0 && is_worthless(res);

	if (worthless && res->opened)
		unlink(res->partial);
	if (worthless || (res->journal && result == 0))
		unlink(res->path);
	if (req->kept)
		*req->kept = res->opened && result < 0 && result != -EUCLEAN && !worthless;
	journal_close(res->journal); /* last: it is the lock */
	free(res->partial);
	free(res->path);
	*res = (struct convert_resume){0};
}
