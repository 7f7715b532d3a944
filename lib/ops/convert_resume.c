// SPDX-License-Identifier: LGPL-2.1-or-later
/* Conversions that can be continued; see convert_resume.h. */
#include "ops/convert_resume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "io/file.h"

/* ---- what it is a conversion of ---- */

/* A name can hold anything, a line of the journal cannot. */
static void put_name(FILE *f, const char *name)
{
	for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
		if (*p < 0x20 || *p == 0x7f || *p == '\\')
			fprintf(f, "\\x%02x", *p);
		else
			fputc(*p, f);
	}
}

static void put_text(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s: ", key);
	put_name(f, value ? value : "none");
	fputc('\n', f);
}

/* A device has no time at which its content changed: the comparison must do. */
static void put_file(FILE *f, const char *key, struct io *io, const char *format)
{
	struct stat st;

	fprintf(f, "%s: ", key);
	put_name(f, io->name);
	fprintf(f, ", %s, %" PRIu64 " bytes", format, io_size(io));
	if (io_is_file(io) && fstat(file_fd(io), &st) == 0 && S_ISREG(st.st_mode))
		fprintf(f, ", modified %" PRId64 ".%09ld, inode %" PRIu64, (int64_t)st.st_mtime,
			st.st_mtim.tv_nsec, (uint64_t)st.st_ino);
	fputc('\n', f);
}

static void put_sources(FILE *f, const struct convert_request *req)
{
	for (unsigned i = 0; i < req->n_src; i++) {
		fprintf(f, "disk: %" PRIu64 " bytes\n", io_size(&req->src[i]->io));
		for (struct img *img = req->src[i]; img; img = img->backing) {
			struct io *file = img_bottom(img);
			const char *key = img == req->src[i] ? "source" : "backing file";

			put_file(f, key, file ? file : img->file, img->fmt->name);
			if (img->data != img->file)
				put_file(f, "data file", img->data, "raw");
		}
	}
	put_text(f, "snapshot", req->view);
	if (req->part)
		fprintf(f, "part: %" PRIu64 " bytes at %" PRIu64 "\n", req->length, req->offset);
}

/* How many workers there are, and how fast they may be, changes no byte. */
static void put_target(FILE *f, const struct convert_request *req, const struct create_plan *plan)
{
	const struct copy_args *c = &req->copy;

	put_text(f, "target format", plan->fmt->name);
	for (unsigned i = 0; i < plan->all.n; i++) {
		fprintf(f, "option %s", plan->all.v[i].name);
		put_text(f, "", plan->all.v[i].value);
	}
	fprintf(f, "sparse: %" PRIu64 "\n", c->sparse);
	fprintf(f, "compression: %s, level %d, %s window\n", c->compress ? "on" : "off", c->level,
		c->narrow ? "narrow" : "wide");
	fprintf(f, "offload: %s\n", c->offload ? "on" : "off");
	fprintf(f, "bitmaps: %s\n",
		!req->bitmaps              ? "no"
		: req->skip_broken_bitmaps ? "but for broken ones"
					   : "all");
}

static int identify(const struct convert_request *req, const struct create_plan *plan, char **out,
		    struct err *err)
{
	size_t len;
	FILE *f = open_memstream(out, &len);

	if (f) {
		put_sources(f, req);
		put_target(f, req, plan);
	}
	if (f && fclose(f) == 0)
		return 0;
	return err_nomem(err, 0, "a journal");
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
	const unsigned flags = FILE_WRITE | FILE_NOFOLLOW | FILE_NO_DEVICE;

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
		r = io_resize(file, 0, err);
	if (r == 0)
		r = journal_open(file, identity, !is_there, &res->journal, err);
	if (r < 0)
		io_close(file);
	if (r == -EINVAL || r == -EUCLEAN)
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
