// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Out of a guest to the host. What the guest tells is hostile.
 *
 * Invariants: every name is made relative to a directory that was reached from `dir` by opening
 * one name after the other without following links, so no path, link or race leads out of it.
 * Nothing that was there is written to: a file gets its content under a temporary name, with no
 * rights for others, and then takes the place of what had its name. Rights to be somebody else
 * (set-user-ID, devices, owners) come only when root asks to keep everything.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "copy.h"

#define XATTRS_MAX (1u << 20) /* bytes of names and values of one entry: more than Linux allows */
#define PATH_BYTES (2 * AGENT_PATH_MAX)

/* Attributes wait: writing and changing the owner would undo some of them. */
struct later {
	char *path; /* owned */
	struct agent_stat st;
	unsigned char *xattrs; /* owned: each name with its NUL, u32 length, value */
	size_t n_xattrs;
	bool made; /* it was not there before */
};

struct output {
	struct copy *c;
	const struct copy_place *from;
	int top; /* borrowed */
	const char *name;

	char parent[PATH_BYTES]; /* the directory of the last entry, open as parent_fd */
	int parent_fd;           /* -1: none */

	bool open;          /* the last entry is made and waits for its attributes */
	struct later last;  /* it */
	int fd;             /* of a regular file, or -1 */
	uint64_t end;       /* of what was written */
	char temporary[48]; /* its name until it is whole; "": it has its own */
	unsigned n_temporary;
	char skip[PATH_BYTES]; /* the entry that could not be made: what is below goes, too */
	bool skipping;

	struct later *dirs; /* owned; that wait for the end */
	size_t n_dirs, cap_dirs;
};

static void later_free(struct later *l)
{
	free(l->path);
	free(l->xattrs);
	*l = (struct later){0};
}

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- directories ---- */

/* The directory path[0, len) below top. */
static int open_below(int top, const char *path, size_t len)
{
	int fd = openat(top, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	while (len && fd >= 0) {
		char name[AGENT_NAME_MAX + 1];
		size_t n = 0;
		int next;

		while (n < len && path[n] != '/')
			n++;
		if (n >= sizeof(name)) {
			close(fd);
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(name, path, n);
		name[n] = 0;
		next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = next;
		n += n < len;
		path += n;
		len -= n;
	}
	return fd;
}

/* Makes parent_fd the directory that holds the last name of path. */
static int enter_parent(struct output *o, const char *path, struct err *err)
{
	const char *name = last_name(path);
	size_t len = name > path ? (size_t)(name - path) - 1 : 0;

	if (o->parent_fd >= 0 && strlen(o->parent) == len && !memcmp(o->parent, path, len))
		return 0;
	if (o->parent_fd >= 0)
		close(o->parent_fd);
	o->parent_fd = open_below(o->top, path, len);
	if (o->parent_fd < 0)
		return err_sys(err, errno, "%.*s", (int)len, path);
	memcpy(o->parent, path, len);
	o->parent[len] = 0;
	return 0;
}

/* ---- what cannot be made ---- */

/* What hits one entry, and not all that follow. */
static bool is_local(int r)
{
	switch (-r) {
	case EEXIST:
	case EISDIR:
	case ENOTDIR:
	case ELOOP:
	case ENOTEMPTY:
	case EPERM:
	case EACCES:
	case ENAMETOOLONG:
	case EINVAL:
	case EFBIG:
	case EMLINK:
	case EXDEV:
	case ENOENT:
	case ENXIO:
		return true;
	default:
		return false;
	}
}

static void drop_last(struct output *o)
{
	if (o->fd >= 0)
		close(o->fd);
	if (*o->temporary)
		unlinkat(o->parent_fd, o->temporary, 0);
	o->fd = -1;
	*o->temporary = 0;
	o->open = false;
	later_free(&o->last);
}

/* Tells it and leaves the entry out, or ends all. */
static int entry_failed(struct output *o, const char *path, int r, struct err *err)
{
	drop_last(o);
	if (!is_local(r))
		return r;
	cli_error(o->c->cli, "%s: %s", o->from->shown, err->msg);
	err->code = 0;
	o->c->failed = true;
	snprintf(o->skip, sizeof(o->skip), "%s", path);
	o->skipping = true;
	return 0;
}

static bool is_skipped(const struct output *o, const char *path)
{
	size_t n = strlen(o->skip);

	return o->skipping && !strncmp(path, o->skip, n) && (!n || !path[n] || path[n] == '/');
}

/* ---- the end of an entry ---- */

/* Only what cannot change how the host itself works by a name we do not know. */
static bool xattr_ok(const char *name)
{
	return !strncmp(name, "user.", 5) || !strncmp(name, "security.", 9) ||
	       !strncmp(name, "trusted.", 8) || !strcmp(name, "system.posix_acl_access") ||
	       !strcmp(name, "system.posix_acl_default");
}

static void set_xattrs(struct output *o, const struct later *l, const char *name)
{
	char path[48 + AGENT_NAME_MAX];
	size_t at = 0;

	/* Single names are not followed: an l-call has no directory argument of its own. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", o->parent_fd, name);
	while (at < l->n_xattrs) {
		const char *key = (const char *)l->xattrs + at;
		uint32_t n;

		at += strlen(key) + 1;
		memcpy(&n, l->xattrs + at, sizeof(n));
		at += sizeof(n);
		if (!xattr_ok(key))
			copy_lose(o->c, LOST_XATTR, l->path, 0);
		else if (lsetxattr(path, key, l->xattrs + at, n, 0) < 0)
			copy_lose(o->c, LOST_XATTR, l->path, errno);
		at += n;
	}
}

static int set_times(struct output *o, const struct later *l, const char *name, struct err *err)
{
	const struct timespec times[2] = {
		{.tv_sec = l->st.atime.sec, .tv_nsec = l->st.atime.nsec % 1000000000},
		{.tv_sec = l->st.mtime.sec, .tv_nsec = l->st.mtime.nsec % 1000000000}};

	if (utimensat(o->parent_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "%s: cannot set its times", l->path);
	return 0;
}

/* The mode that it gets; owned: it belongs to whom it belonged in the guest. */
static mode_t mode_for(struct output *o, const struct later *l, bool owned)
{
	mode_t mode = l->st.mode & 07777;

	if (!o->c->keep)
		return mode & 0777 & ~o->c->umask;
	if ((mode & 06000) && (!owned || geteuid() != 0)) {
		copy_lose(o->c, LOST_SETID, l->path, 0);
		mode &= ~06000u;
	}
	return mode;
}

static int set_attributes(struct output *o, struct later *l, const char *name, struct err *err)
{
	bool owned = false;

	if (!o->c->keep && !l->made)
		return 0;
	if (o->c->keep) {
		owned = fchownat(o->parent_fd, name, l->st.uid, l->st.gid, AT_SYMLINK_NOFOLLOW) ==
			0;
		if (!owned)
			copy_lose(o->c, LOST_OWNER, l->path, errno);
	}
	set_xattrs(o, l, name);
	/* The name cannot have become a link: it is ours, or that of a directory. */
	if (!S_ISLNK(l->st.mode) && fchmodat(o->parent_fd, name, mode_for(o, l, owned), 0) < 0)
		return err_sys(err, errno, "%s: cannot set its mode", l->path);
	return o->c->keep ? set_times(o, l, name, err) : 0;
}

/* The file is whole: it takes its name. */
static int finish_file(struct output *o, struct err *err)
{
	int r = 0;

	if (o->end < o->last.st.size && ftruncate(o->fd, (off_t)o->last.st.size) < 0)
		r = err_sys(err, errno, "%s: cannot make it %llu bytes long", o->last.path,
			    (unsigned long long)o->last.st.size);
	if (r == 0)
		r = set_attributes(o, &o->last, o->temporary, err);
	if (close(o->fd) < 0 && r == 0)
		r = err_sys(err, errno, "%s", o->last.path);
	o->fd = -1;
	if (r == 0 &&
	    renameat(o->parent_fd, o->temporary, o->parent_fd, last_name(o->last.path)) < 0)
		r = err_sys(err, errno, "%s", o->last.path);
	if (r == 0)
		*o->temporary = 0;
	return r;
}

static int dir_later(struct output *o, struct err *err)
{
	if (o->n_dirs == o->cap_dirs) {
		size_t cap = o->cap_dirs ? 2 * o->cap_dirs : 64;
		struct later *dirs = realloc(o->dirs, cap * sizeof(*dirs));

		if (!dirs)
			return err_nomem(err, cap * sizeof(*dirs), "directories");
		o->dirs = dirs;
		o->cap_dirs = cap;
	}
	o->dirs[o->n_dirs++] = o->last;
	o->last = (struct later){0};
	o->open = false;
	return 0;
}

static int finish_last(struct output *o, struct err *err)
{
	int r;

	if (!o->open)
		return 0;
	if (S_ISDIR(o->last.st.mode))
		return dir_later(o, err);
	r = o->fd >= 0 ? finish_file(o, err)
		       : set_attributes(o, &o->last, last_name(o->last.path), err);
	if (r < 0)
		return entry_failed(o, o->last.path, r, err);
	o->open = false;
	later_free(&o->last);
	return 0;
}

/* Directories get their rights and times when nothing changes in them any more, inner ones first. */
static int finish_dirs(struct output *o, struct err *err)
{
	int r = 0;

	while (o->n_dirs && r == 0) {
		struct later l = o->dirs[--o->n_dirs];

		r = enter_parent(o, l.path, err);
		if (r == 0)
			r = set_attributes(o, &l, *l.path ? last_name(l.path) : ".", err);
		if (r < 0)
			r = entry_failed(o, l.path, r, err);
		later_free(&l);
	}
	return r;
}

/* ---- making entries ---- */

/* Something that is no directory makes room. */
static int make_room(struct output *o, const char *path, struct err *err)
{
	if (unlinkat(o->parent_fd, last_name(path), 0) < 0 && errno != ENOENT)
		return err_sys(err, errno, "%s: cannot replace it", path);
	return 0;
}

static int make_dir(struct output *o, const char *path, struct err *err)
{
	const char *name = *path ? last_name(path) : ".";
	struct stat st;

	o->last.made = mkdirat(o->parent_fd, name, 0700) == 0;
	if (o->last.made)
		return 0;
	if (errno != EEXIST)
		return err_sys(err, errno, "%s", path);
	if (fstatat(o->parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "%s: is there, and not a directory", path);
	return 0;
}

static int make_file(struct output *o, const char *path, struct err *err)
{
	struct stat old;

	o->last.made = true;
	if (fstatat(o->parent_fd, last_name(path), &old, AT_SYMLINK_NOFOLLOW) == 0) {
		if (S_ISDIR(old.st_mode))
			return err_sys(err, EISDIR, "%s", path);
		/* As cp(1): what is written over keeps its rights, unless those of the source are
		 * asked for. */
		if (S_ISREG(old.st_mode) && !o->c->keep)
			o->last.made = false;
	}
	do {
		snprintf(o->temporary, sizeof(o->temporary), ".img-cp-%ld-%u", (long)getpid(),
			 o->n_temporary++);
		o->fd = openat(o->parent_fd, o->temporary,
			       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	} while (o->fd < 0 && errno == EEXIST && o->n_temporary);
	if (o->fd < 0) {
		*o->temporary = 0;
		return err_sys(err, errno, "%s", path);
	}
	o->end = 0;
	if (!o->last.made) {
		/* Giving it away takes root; it is ours, then. */
		if ((fchown(o->fd, old.st_uid, old.st_gid) < 0 && errno != EPERM) ||
		    fchmod(o->fd, old.st_mode & 0777) < 0)
			return err_sys(err, errno, "%s", path);
	}
	return 0;
}

static int make_symlink(struct output *o, const char *path, const char *target, struct err *err)
{
	int r = make_room(o, path, err);

	o->last.made = true;
	if (r == 0 && symlinkat(target, o->parent_fd, last_name(path)) < 0)
		r = err_sys(err, errno, "%s", path);
	return r;
}

static int make_special(struct output *o, const char *path, const struct agent_stat *st,
			struct err *err)
{
	bool device = S_ISCHR(st->mode) || S_ISBLK(st->mode);
	int r;

	o->last.made = true;
	if (device && (!o->c->all || geteuid() != 0)) {
		copy_lose(o->c, LOST_DEVICE, path, 0);
		o->c->failed = true;
		return 0;
	}
	r = make_room(o, path, err);
	if (r == 0 && mknodat(o->parent_fd, last_name(path), (st->mode & S_IFMT) | 0600,
			      device ? makedev(st->rdev_major, st->rdev_minor) : 0) < 0) {
		if (!device || errno != EPERM)
			return err_sys(err, errno, "%s", path);
		copy_lose(o->c, LOST_DEVICE, path, errno);
		o->c->failed = true;
		return 0;
	}
	o->open = r == 0;
	return r;
}

/* One more name of a file that was made. */
static int make_link(struct output *o, const char *path, const char *first, struct err *err)
{
	const char *name = last_name(first);
	CLEANUP_FD int dir =
		open_below(o->top, first, name > first ? (size_t)(name - first) - 1 : 0);
	struct stat st;
	int r;

	if (dir < 0 || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "%s: a link to %s", path, first);
	if (S_ISDIR(st.st_mode))
		return err_sys(err, EISDIR, "%s: a link to %s", path, first);
	r = make_room(o, path, err);
	if (r == 0 && linkat(dir, name, o->parent_fd, last_name(path), 0) < 0)
		r = err_sys(err, errno, "%s: a link to %s", path, first);
	return r;
}

static int make_entry(struct output *o, const char *path, const struct agent_stat *st,
		      const char *target, struct err *err)
{
	int r;

	o->last = (struct later){.path = strdup(path), .st = *st};
	if (!o->last.path)
		return err_nomem(err, strlen(path), "a path");
	switch (st->mode & S_IFMT) {
	case S_IFDIR:
		r = make_dir(o, path, err);
		break;
	case S_IFREG:
		r = make_file(o, path, err);
		break;
	case S_IFLNK:
		r = make_symlink(o, path, target, err);
		break;
	default:
		r = make_special(o, path, st, err); /* which may leave it out */
		if (r == 0 && !o->open)
			later_free(&o->last);
		return r;
	}
	o->open = r == 0;
	return r;
}

/* ---- the stream ---- */

/* Without -r there are regular files only. */
static int check_single(const struct output *o, const struct agent_stat *st, struct err *err)
{
	if (o->c->recursive || S_ISREG(st->mode))
		return 0;
	if (S_ISDIR(st->mode))
		return err_set(err, EISDIR, "is a directory, and -r was not given");
	return err_set(err, EINVAL, "is not a regular file, and -r was not given");
}

static int take_entry(void *arg, const char *path, const struct agent_stat *st, const char *first,
		      const char *target, struct err *err)
{
	char full[PATH_BYTES], other[PATH_BYTES];
	struct output *o = arg;
	int r = finish_last(o, err);

	if (r < 0)
		return r;
	copy_join(full, sizeof(full), o->name, path);
	if (is_skipped(o, full))
		return 0;
	o->skipping = false;
	r = check_single(o, st, err);
	if (r == 0)
		r = enter_parent(o, full, err);
	if (r == 0 && first) {
		copy_join(other, sizeof(other), o->name, first);
		r = make_link(o, full, other, err);
	} else if (r == 0) {
		r = make_entry(o, full, st, target, err);
	}
	return r < 0 ? entry_failed(o, full, r, err) : 0;
}

static int take_xattr(void *arg, const char *name, const void *value, size_t n, struct err *err)
{
	struct output *o = arg;
	struct later *l = &o->last;
	size_t name_len = strlen(name) + 1, len = name_len + sizeof(uint32_t) + n;
	uint32_t n32 = (uint32_t)n;
	unsigned char *to;

	if (!o->open)
		return 0;
	if (len > XATTRS_MAX - l->n_xattrs)
		return err_set(err, E2BIG, "%s: too many extended attributes", l->path);
	to = realloc(l->xattrs, l->n_xattrs + len);
	if (!to)
		return err_nomem(err, len, "extended attributes");
	l->xattrs = to;
	to += l->n_xattrs;
	memcpy(to, name, name_len);
	memcpy(to + name_len, &n32, sizeof(n32));
	if (n)
		memcpy(to + name_len + sizeof(n32), value, n);
	l->n_xattrs += len;
	return 0;
}

static int take_bytes(void *arg, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	struct output *o = arg;
	const char *at = bytes;

	if (o->fd < 0)
		return 0; /* its entry was left out */
	while (n) {
		ssize_t did = pwrite(o->fd, at, n, (off_t)off);

		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return entry_failed(o, o->last.path,
					    err_sys(err, errno, "%s", o->last.path), err);
		at += did;
		off += (uint64_t)did;
		n -= (size_t)did;
	}
	o->end = off;
	return 0;
}

/* A file of which not all can be read is not made at all. */
static int take_failed(void *arg, const char *path, int code, const char *text, struct err *err)
{
	char full[PATH_BYTES];
	struct output *o = arg;

	(void)code;
	(void)err;
	copy_join(full, sizeof(full), o->name, path);
	copy_tell(o->c, o->from, path, text);
	if (o->open && !strcmp(o->last.path, full) && !S_ISDIR(o->last.st.mode))
		drop_last(o);
	return 0;
}

int copy_out(struct copy *c, const struct copy_place *from, int dir, const char *name,
	     struct err *err)
{
	struct output o = {
		.c = c, .from = from, .top = dir, .name = name, .parent_fd = -1, .fd = -1};
	const struct appliance_sink sink = {.arg = &o,
					    .entry = take_entry,
					    .xattr = take_xattr,
					    .bytes = take_bytes,
					    .failed = take_failed};
	int r = appliance_export(from->a, from->path, copy_export_flags(c), &sink, err);

	if (r == 0)
		r = finish_last(&o, err);
	if (r < 0)
		drop_last(&o);
	/* Also of what there is when it stopped: nothing is left with rights that were not meant. */
	if (o.n_dirs) {
		struct err late = {0};
		int s = finish_dirs(&o, &late);

		if (r == 0 && s < 0) {
			*err = late;
			r = s;
		}
	}
	while (o.n_dirs)
		later_free(&o.dirs[--o.n_dirs]);
	free(o.dirs);
	if (o.parent_fd >= 0)
		close(o.parent_fd);
	return r;
}
