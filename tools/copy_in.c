// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From the host into a guest.
 *
 * A single file goes there by a call that leaves the old one in its place until the new one is
 * whole. Trees, holes and attributes go as a stream. Links on the host are never followed, but for
 * one that the user named without -r.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <poll.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "copy.h"

/* An inode with several names, and the first of them. */
struct name_of {
	dev_t dev;
	ino_t ino;
	char path[];
};

struct input {
	struct copy *c;
	const char *path; /* on the host */
	const char *name; /* in the guest */
	void *names;      /* tree of struct name_of */
	unsigned char *buf;
};

/* ---- entries ---- */

static void to_stat(const struct copy *c, const struct stat *from, struct agent_stat *st)
{
	*st = (struct agent_stat){
		.mode = from->st_mode,
		.uid = from->st_uid,
		.gid = from->st_gid,
		.rdev_major = major(from->st_rdev),
		.rdev_minor = minor(from->st_rdev),
		.size = S_ISREG(from->st_mode) ? (uint64_t)from->st_size : 0,
		.atime = {from->st_atim.tv_sec, (uint32_t)from->st_atim.tv_nsec},
		.mtime = {from->st_mtim.tv_sec, (uint32_t)from->st_mtim.tv_nsec},
	};
	copy_attributes(c, st);
}

static int compare_names(const void *a, const void *b)
{
	const struct name_of *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* The name under which this inode went already, or NULL; remembers it. */
static const char *first_name(struct input *in, const struct stat *st, const char *path)
{
	struct name_of *n, **found;

	if (!in->c->all || st->st_nlink < 2 || S_ISDIR(st->st_mode))
		return NULL;
	n = malloc(sizeof(*n) + strlen(path) + 1);
	if (!n)
		return NULL; /* a file of its own, then */
	n->dev = st->st_dev;
	n->ino = st->st_ino;
	strcpy(n->path, path);
	found = tsearch(n, &in->names, compare_names);
	if (found && *found == n)
		return NULL;
	free(n);
	return found ? (*found)->path : NULL;
}

static int put_xattrs(struct input *in, struct appliance_stream *s, const char *path,
		      struct err *err)
{
	static char names[AGENT_XATTR_MAX], value[AGENT_XATTR_MAX];
	ssize_t n = llistxattr(path, names, sizeof(names));
	int r = 0;

	if (n < 0) {
		if (errno != ENOTSUP)
			copy_lose(in->c, LOST_XATTR, path, errno);
		return 0;
	}
	for (ssize_t at = 0; at < n && r == 0; at += (ssize_t)strlen(names + at) + 1) {
		ssize_t len = lgetxattr(path, names + at, value, sizeof(value));

		if (len < 0)
			copy_lose(in->c, LOST_XATTR, path, errno);
		else
			r = appliance_put_xattr(s, names + at, value, (size_t)len, err);
	}
	return r;
}

/* What of [off, end) is data: up to *stop. False: nothing more. */
static bool next_data(int fd, off_t *off, off_t *stop, off_t end)
{
	off_t data = lseek(fd, *off, SEEK_DATA);

	if (data < 0) {
		*stop = end;
		return errno != ENXIO; /* a file system that knows no holes */
	}
	*off = data;
	*stop = lseek(fd, data, SEEK_HOLE);
	if (*stop < 0 || *stop > end)
		*stop = end;
	return data < end;
}

static int put_content(struct input *in, struct appliance_stream *s, const char *path, int fd,
		       uint64_t size, struct err *err)
{
	off_t off = 0, stop, end = (off_t)size;
	int r = 0;

	while (off < end && next_data(fd, &off, &stop, end) && r == 0) {
		while (off < stop && r == 0) {
			size_t want = min_u64(STREAM_BYTES_MAX, (uint64_t)(stop - off));
			ssize_t n = pread(fd, in->buf, want, off);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return err_sys(err, errno, "%s: cannot read it", path);
			if (!n) /* somebody made it shorter: zeros, as it is as long as was told */
				return 0;
			r = appliance_put_bytes(s, (uint64_t)off, in->buf, (size_t)n, err);
			off += n;
		}
	}
	return r;
}

/* Tells what cannot be read, and that is all. */
static void tell(struct input *in, const char *path, int code)
{
	cli_error(in->c->cli, "%s: %s", path, strerror(code));
	in->c->failed = true;
}

static int put_entry(struct input *in, struct appliance_stream *s, const FTSENT *e,
		     const char *path, struct err *err)
{
	const struct stat *st = e->fts_statp;
	const char *first = first_name(in, st, path);
	char target[AGENT_PATH_MAX] = "";
	CLEANUP_FD int fd = -1;
	struct agent_stat as;
	int r;

	if (S_ISREG(st->st_mode) && !first) {
		fd = open(e->fts_accpath, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 && errno == ELOOP && e->fts_level == FTS_ROOTLEVEL)
			fd = open(e->fts_accpath, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0) {
			tell(in, e->fts_path, errno);
			return 0;
		}
	}
	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlink(e->fts_accpath, target, sizeof(target) - 1);

		if (n < 0) {
			tell(in, e->fts_path, errno);
			return 0;
		}
		target[n] = 0;
	}
	to_stat(in->c, st, &as);
	r = appliance_put_entry(s, path, &as, first, target, err);
	if (r == 0 && in->c->all && !first)
		r = put_xattrs(in, s, e->fts_accpath, err);
	return r == 0 && fd >= 0 ? put_content(in, s, e->fts_path, fd, as.size, err) : r;
}

/* ---- the walk ---- */

static FTS *open_tree(const struct copy *c, const char *path)
{
	/* "link/" is what the link leads to. */
	int follow = !c->recursive || path[strlen(path) - 1] == '/' ? FTS_COMFOLLOW : 0;
	char *paths[] = {(char *)(uintptr_t)path, NULL};

	return fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | follow, NULL);
}

/* The part of an entry's path that is below the one that was named. */
static const char *below(const char *root, const FTSENT *e)
{
	const char *rest = e->fts_path + strlen(root);

	if (e->fts_level == FTS_ROOTLEVEL)
		return "";
	while (*rest == '/')
		rest++;
	return rest;
}

static int visit(struct input *in, struct appliance_stream *s, FTS *fts, FTSENT *e, struct err *err)
{
	char path[AGENT_PATH_MAX];

	switch (e->fts_info) {
	case FTS_DP:
		return 0;
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		tell(in, e->fts_path, e->fts_errno);
		return 0;
	case FTS_DC:
		tell(in, e->fts_path, ELOOP);
		return 0;
	default:
		break;
	}
	if (!in->c->recursive && !S_ISREG(e->fts_statp->st_mode)) {
		cli_error(in->c->cli, "%s: is a directory, and -r was not given", e->fts_path);
		in->c->failed = true;
		fts_set(fts, e, FTS_SKIP);
		return 0;
	}
	if (!copy_join(path, sizeof(path), in->name, below(in->path, e))) {
		tell(in, e->fts_path, ENAMETOOLONG);
		fts_set(fts, e, FTS_SKIP);
		return 0;
	}
	return put_entry(in, s, e, path, err);
}

static int produce(void *arg, struct appliance_stream *s, struct err *err)
{
	struct input *in = arg;
	FTS *fts = open_tree(in->c, in->path);
	FTSENT *e;
	int r = 0;

	if (!fts)
		return err_sys(err, errno, "%s", in->path);
	while (r == 0 && (errno = 0, e = fts_read(fts)))
		r = visit(in, s, fts, e, err);
	if (r == 0 && errno)
		r = err_sys(err, errno, "%s", in->path);
	fts_close(fts);
	return r;
}

void copy_in_total(struct copy *c, const char *path)
{
	FTS *fts = open_tree(c, path);
	FTSENT *e;

	while (fts && (e = fts_read(fts)))
		if (e->fts_info == FTS_F)
			c->job.total += min_u64((uint64_t)e->fts_statp->st_size,
						(uint64_t)e->fts_statp->st_blocks * 512);
	if (fts)
		fts_close(fts);
}

/* ---- a single file ---- */

static int set_kept(struct appliance *a, const char *path, const struct agent_stat *st,
		    struct err *err)
{
	uint32_t mask = SET_MODE | SET_UID | SET_GID | SET_ATIME | SET_MTIME;

	return appliance_setattr(a, path, mask, TREE_FOLLOW, st, err);
}

struct source {
	struct copy *c;
	int fd;
};

/* What can be a pipe, in which nothing comes while the user wants to stop. */
static int read_source(void *arg, void *buf, size_t size, size_t *n, struct err *err)
{
	struct source *s = arg;
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	ssize_t did;

	do {
		if (job_cancelled(&s->c->job))
			return err_set(err, ECANCELED, "cancelled");
	} while (poll(&p, 1, 100) == 0);
	do
		did = read(s->fd, buf, size);
	while (did < 0 && errno == EINTR);
	if (did < 0)
		return err_sys(err, errno, "cannot read it");
	*n = (size_t)did;
	return 0;
}

static int copy_file(struct copy *c, int fd, const struct stat *from, const struct copy_place *to,
		     const char *path, struct err *err)
{
	struct appliance_write how = {.flags = WRITE_CREATE | WRITE_REPLACE};
	struct source source = {c, fd};
	struct agent_stat st;
	int r;

	to_stat(c, from, &st);
	how.mode = st.mode & 0777;
	if (c->keep) {
		how.uid = st.uid;
		how.gid = st.gid;
	}
	job_total(&c->job, c->job.total ? c->job.total : st.size);
	r = appliance_write(to->a, path, &how, read_source, &source, err);
	return r == 0 && c->keep ? set_kept(to->a, path, &st, err) : r;
}

/* Whether a stream would do it better: attributes, or holes where no link has to be followed. */
static bool wants_stream(const struct copy *c, const struct stat *st, struct appliance *a,
			 const char *path)
{
	struct agent_stat there;

	if (c->recursive || S_ISDIR(st->st_mode))
		return true;
	if (!S_ISREG(st->st_mode) || (uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size)
		return false;
	return appliance_stat(a, path, false, &there, NULL) < 0 || !S_ISLNK(there.mode);
}

static int copy_tree(struct copy *c, const char *path, const struct copy_place *to,
		     const char *name, struct err *err)
{
	struct input in = {.c = c, .path = path, .name = name, .buf = malloc(STREAM_BYTES_MAX)};
	int r;

	if (!in.buf)
		return err_nomem(err, STREAM_BYTES_MAX, "a buffer");
	r = appliance_import(to->a, to->path, copy_import_flags(c), produce, &in, err);
	tdestroy(in.names, free);
	free(in.buf);
	return r;
}

int copy_in(struct copy *c, const char *path, const struct copy_place *to, const char *name,
	    struct err *err)
{
	char full[AGENT_PATH_MAX];
	CLEANUP_FD int fd = -1;
	struct stat st;

	if ((c->recursive ? lstat(path, &st) : stat(path, &st)) < 0)
		return err_sys(err, errno, "%s", path);
	if (!copy_join(full, sizeof(full), to->path, name))
		return err_sys(err, ENAMETOOLONG, "%s/%s", to->path, name);
	if (wants_stream(c, &st, to->a, full))
		return copy_tree(c, path, to, name, err);
	fd = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "%s", path);
	return copy_file(c, fd, &st, to, full, err);
}
