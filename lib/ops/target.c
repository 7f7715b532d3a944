// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Where new images are made; see target.h.
 *
 *   absent, or empty, or with FORCE  →  unnamed file  →  target_commit: link, or rename over
 *   the same with PARTIAL            →  PATH.partial  →  target_commit: rename
 *   block device, IN_PLACE, REMOTE   →  the file itself
 *
 * A file that is about to be replaced is held open, locked, until the end: so a disk in use by a
 * running machine is not pulled away from under it.
 */
#include "ops/target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/file.h"
#include "io/nbd.h"

#define MAX_LINKS 40 /* as the kernel follows */

const struct opt target_create_opts[] = {
	{.name = "nocow", .type = OPT_BOOL, .help = "Turn off copy-on-write (valid only on btrfs)"},
	{.name = "extent_size_hint",
	 .type = OPT_SIZE,
	 .help = "Extent size hint for the image file, 0 to disable"},
	{.name = NULL},
};

struct target {
	struct io *io;
	struct io *old; /* what will be replaced, held for its lock; NULL: nothing */
	char *path;     /* where the file will be: links in the last component are followed */
	char *temp;     /* its name until then; NULL: it has none, or was there before */
	bool unnamed;   /* made with O_TMPFILE */
	bool partial;   /* temp is a name that stays, and may have been there */
	bool made;      /* with partial: it was not there */
	bool in_place;
	bool created; /* in place, and it was not there before */
	bool committed;
	bool unsafe, durable;
	bool replaces; /* a file that is not empty: its data may not be lost to a crash */
	char note[128];
};

/* ---- names ---- */

/* Length of the directory part with its slash; 0 for a plain name. */
static int dir_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (int)(slash + 1 - path) : 0;
}

/* Follows symbolic links of the last component, dangling ones as well. */
static int follow_links(const char *path, char **out, struct err *err)
{
	CLEANUP_FREE char *now = strdup(path);

	for (unsigned i = 0; now; i++) {
		char link[PATH_MAX];
		ssize_t n = readlink(now, link, sizeof(link) - 1);
		char *next;

		if (n < 0) {
			*out = take(now);
			return 0;
		}
		if (i == MAX_LINKS)
			return err_sys(err, ELOOP, "Could not create '%s'", path);
		link[n] = '\0';
		if (asprintf(&next, "%.*s%s", link[0] == '/' ? 0 : dir_len(now), now, link) < 0)
			next = NULL;
		free(now);
		now = next;
	}
	return err_nomem(err, strlen(path), "a file name");
}

static int temp_name(const char *path, char **out, struct err *err)
{
	int dir = dir_len(path);
	uint64_t r;

	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != sizeof(r))
		r = (uint64_t)getpid() << 32 ^ (uintptr_t)&r;
	/* NAME_MAX leaves room for 255 bytes: a long name is cut. */
	if (asprintf(out, "%.*s.%.200s.%016" PRIx64, dir, path, path + dir, r) < 0)
		return err_nomem(err, strlen(path), "a file name");
	return 0;
}

/* ---- making the file ---- */

/*
 * With which permissions a file is made. What replaces another one has those of it in the end, which
 * may be few: who opened it before could read later what is written.
 */
static mode_t first_mode(const struct target *t, unsigned flags)
{
	return t->old || (flags & TARGET_PRIVATE) ? 0600 : 0644;
}

/* A new file with a temporary name, or -errno. */
static int make_named(struct target *t, unsigned oflags, mode_t mode, struct err *err)
{
	int fd;

	do {
		free(take(t->temp));
		int r = temp_name(t->path, &t->temp, err);

		if (r < 0) {
			t->temp = NULL;
			return r;
		}
		fd = open(t->temp, oflags | O_CREAT | O_EXCL, mode);
		if (fd < 0)
			fd = -errno;
	} while (fd == -EEXIST);
	if (fd < 0)
		free(take(t->temp));
	return fd;
}

/* A descriptor of a new file without a name, or with a temporary one. */
static int make_file(struct target *t, const char *path, unsigned flags, struct err *err)
{
	unsigned oflags = O_RDWR | O_CLOEXEC | (flags & TARGET_DIRECT ? O_DIRECT : 0);
	mode_t mode = first_mode(t, flags);
	CLEANUP_FREE char *dir = NULL;
	int fd = -1;

	/* The name is needed at the end only; what is no name is better found out now. */
	if (t->path[dir_len(t->path)] == '\0')
		return err_sys(err, t->path[0] ? EISDIR : ENOENT, "Could not create '%s'", path);

	if (asprintf(&dir, "%.*s.", dir_len(t->path), t->path) < 0)
		return err_nomem(err, strlen(t->path), "a file name");
	/* A name is given to it by way of /proc. */
	if (access("/proc/self/fd", X_OK) == 0)
		fd = open(dir, oflags | O_TMPFILE, mode);
	t->unnamed = fd >= 0;
	if (fd < 0)
		fd = make_named(t, oflags, mode, err);
	return fd < 0 ? err_sys(err, -fd, "Could not create '%s'", path) : fd;
}

static void keep_owner(int fd, struct io *old)
{
	struct stat st;

	if (fstat(file_fd(old), &st) < 0)
		return;
	/* Who may not give files away keeps the permissions only, those of the group only for the
	 * same group. The order matters: chown takes the set-id bits away. */
	if (fchown(fd, st.st_uid, st.st_gid) < 0 && fchown(fd, (uid_t)-1, st.st_gid) < 0)
		st.st_mode &= 0707;
	fchmod(fd, st.st_mode & 0777);
}

/* Hints to the file system; see target_create_opts. */
static int apply_opts(struct target *t, const struct opts *opts, struct err *err)
{
	int fd = file_fd(t->io), attr, r;
	uint64_t hint = UINT64_MAX;
	bool nocow = false;
	struct fsxattr x;

	r = opts_bool(opts, "nocow", &nocow, err);
	if (r == 0)
		r = opts_size(opts, "extent_size_hint", &hint, err);
	if (r < 0)
		return r;
	if (nocow && ioctl(fd, FS_IOC_GETFLAGS, &attr) == 0) {
		attr |= FS_NOCOW_FL;
		if (ioctl(fd, FS_IOC_SETFLAGS, &attr) < 0)
			errno = 0; /* only btrfs knows it */
	}
	if (hint == UINT64_MAX || hint == 0)
		return 0;
	if (hint > UINT32_MAX)
		return err_set(err, EINVAL, "Extent size hint is too large");
	if (ioctl(fd, FS_IOC_FSGETXATTR, &x) == 0) {
		x.fsx_xflags |= FS_XFLAG_EXTSIZE;
		x.fsx_extsize = (uint32_t)hint;
		if (ioctl(fd, FS_IOC_FSSETXATTR, &x) == 0)
			return 0;
	}
	snprintf(t->note, sizeof(t->note), "Failed to set extent size hint: %s", strerror(errno));
	return 0;
}

static unsigned file_flags(unsigned flags)
{
	return (flags & TARGET_DIRECT ? FILE_DIRECT : 0U) |
	       (flags & TARGET_UNSAFE ? FILE_UNSAFE : 0U);
}

/* The name is on disk when its directory is. Some file systems cannot be asked for that. */
static int sync_name(const struct target *t, struct err *err)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FD int fd = -1;

	if (asprintf(&dir, "%.*s.", dir_len(t->path), t->path) < 0)
		return err_nomem(err, strlen(t->path), "a file name");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
		return err_sys(err, errno, "Could not write the directory of '%s'", t->path);
	return 0;
}

int target_partial_name(const char *path, char **out, struct err *err)
{
	CLEANUP_FREE char *real = NULL;
	int r = follow_links(path, &real, err);

	if (r == 0 && asprintf(out, "%s.partial", real) < 0)
		r = err_nomem(err, strlen(real), "a file name");
	return r;
}

/* A file that outlives us has its locks: another process may want to go on with it. */
static int open_partial(struct target *t, const char *path, unsigned flags, struct err *err)
{
	unsigned ff = FILE_WRITE | FILE_NO_DEVICE | FILE_OURS;
	bool is_there;
	int r = target_partial_name(path, &t->temp, err);

	if (r < 0)
		return r;
	is_there = access(t->temp, F_OK) == 0;
	ff |= (is_there ? 0U : FILE_CREATE) | (flags & TARGET_DIRECT ? FILE_DIRECT : 0U);
	ff |= first_mode(t, flags) == 0600 ? FILE_PRIVATE : 0U;
	r = file_open(t->temp, ff, &t->io, err);
	if (r < 0)
		return r;
	t->made = !is_there;
	/* Also of one that is there: it may have been left before it had them. */
	if (t->old)
		keep_owner(file_fd(t->io), t->old);
	return sync_name(t, err);
}

static int open_new(struct target *t, const char *path, unsigned flags, struct err *err)
{
	int fd, r;

	if (t->partial)
		return open_partial(t, path, flags, err);
	fd = make_file(t, path, flags, err);
	if (fd < 0)
		return fd;
	if (t->old)
		keep_owner(fd, t->old);
	/* Not FILE_UNSAFE: target_commit decides whether to flush. */
	r = file_from_fd(fd, path, FILE_WRITE, &t->io, err);
	if (r < 0)
		close(fd);
	return r;
}

static int open_in_place(struct target *t, const char *path, unsigned flags, struct err *err)
{
	t->in_place = true;
	t->created = access(path, F_OK) < 0;
	return file_open(path, FILE_WRITE | FILE_CREATE | FILE_TRUNC | file_flags(flags), &t->io,
			 err);
}

/* What cannot be replaced, only written over. */
static int check_empty(struct target *t, const char *path, struct err *err)
{
	CLEANUP_FREE void *head = NULL;
	size_t n;
	int r;

	n = (size_t)min_u64(io_size(t->io), ZERO_BUF_SIZE);
	if (posix_memalign(&head, 4096, ZERO_BUF_SIZE))
		return err_nomem(err, ZERO_BUF_SIZE, "the first bytes of the device");
	r = io_pread(t->io, head, n, 0, err);
	if (r == 0 && !bytes_are_zero(head, n))
		r = err_set(err, EEXIST, "'%s' holds data already (use --force to overwrite it)",
			    path);
	return r;
}

static int open_device(struct target *t, const char *path, unsigned flags, struct err *err)
{
	int r;

	t->in_place = true;
	r = file_open(path, FILE_WRITE | file_flags(flags), &t->io, err);
	return r < 0 || (flags & TARGET_FORCE) ? r : check_empty(t, path, err);
}

static int open_export(struct target *t, unsigned flags, struct job *job, struct err *err)
{
	const struct nbd_args args = {
		.flags = NBD_WRITE | (flags & TARGET_UNSAFE ? NBD_UNSAFE : 0U),
		.job = job,
	};
	struct nbd_where where;
	int r;

	t->in_place = true;
	r = nbd_where_parse(t->path, &where, err);
	if (r == 0)
		r = nbd_open(&where, &args, &t->io, err);
	nbd_where_free(&where);
	if (r < 0 || (flags & (TARGET_FORCE | TARGET_IN_PLACE)))
		return r;
	return check_empty(t, t->path, err);
}

/* Something is there: says how it may be used. */
static int open_existing(struct target *t, const char *path, const struct stat *st, unsigned flags,
			 struct err *err)
{
	int r;

	if (S_ISBLK(st->st_mode) && t->partial)
		return err_set(err, ENOTSUP, "'%s' is a device: a copy to it cannot be resumed",
			       path);
	if (S_ISBLK(st->st_mode))
		return open_device(t, path, flags, err);
	t->replaces = st->st_size > 0;
	if (S_ISREG(st->st_mode) && t->replaces && !(flags & TARGET_FORCE))
		return err_set(err, EEXIST, "'%s' exists already (use --force to overwrite it)",
			       path);
	r = file_open(path, FILE_WRITE, &t->old, err);
	return r < 0 ? r : open_new(t, path, flags, err);
}

int target_open(const char *path, unsigned flags, const struct opts *opts, struct target **out,
		struct err *err)
{
	struct target *t = calloc(1, sizeof(*t));
	struct stat st;
	int r;

	if (!t)
		return err_nomem(err, sizeof(*t), "a target");
	t->partial = flags & TARGET_PARTIAL;
	t->unsafe = (flags & TARGET_UNSAFE) && !t->partial;
	t->durable = (flags & TARGET_DURABLE) || t->partial;
	r = follow_links(path, &t->path, err);
	if (r == 0) {
		if (flags & TARGET_IN_PLACE)
			r = open_in_place(t, path, flags, err);
		else if (stat(t->path, &st) == 0)
			r = open_existing(t, path, &st, flags, err);
		else if (errno == ENOENT)
			r = open_new(t, path, flags, err);
		else
			r = err_sys(err, errno, "Could not create '%s'", path);
	}
	if (r == 0)
		r = apply_opts(t, opts, err);
	if (r < 0) {
		if (t->made)
			unlink(t->temp);
		target_close(t);
		return r;
	}
	*out = t;
	return 0;
}

int target_open_remote(const char *name, unsigned flags, struct job *job, struct target **out,
		       struct err *err)
{
	struct target *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_nomem(err, sizeof(*t), "a target");
	t->unsafe = flags & TARGET_UNSAFE;
	t->path = strdup(name);
	r = t->path ? open_export(t, flags, job, err) : err_nomem(err, 0, "a name");
	if (r < 0) {
		target_close(t);
		return r;
	}
	*out = t;
	return 0;
}

struct io *target_io(struct target *t)
{
	return t->io;
}

const char *target_note(const struct target *t)
{
	return t->note[0] ? t->note : NULL;
}

/* ---- the end ---- */

/* Gives an unnamed file a name. -EEXIST: it is taken. */
static int link_as(const struct target *t, const char *name)
{
	char proc[32];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", file_fd(t->io));
	return linkat(AT_FDCWD, proc, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* The same with a temporary name, into t->temp. */
static int link_temporary(struct target *t, struct err *err)
{
	int r;

	do {
		free(take(t->temp));
		r = temp_name(t->path, &t->temp, err);
		if (r < 0) {
			t->temp = NULL;
			return r;
		}
		r = link_as(t, t->temp);
	} while (r == -EEXIST);
	if (r < 0)
		free(take(t->temp));
	return r;
}

/* Takes the place of what was there, or of nothing. */
static int take_name(struct target *t, struct err *err)
{
	int r;

	if (t->unnamed && !t->old)
		return link_as(t, t->path);
	if (t->unnamed) {
		r = link_temporary(t, err);
		if (r < 0)
			return r;
	}
	if (!t->old) {
		if (renameat2(AT_FDCWD, t->temp, AT_FDCWD, t->path, RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EINVAL && errno != ENOSYS)
			return -errno;
		/* A file system without NOREPLACE: as good as it gets. */
		if (access(t->path, F_OK) == 0)
			return -EEXIST;
	}
	return rename(t->temp, t->path) < 0 ? -errno : 0;
}

int target_commit(struct target *t, struct err *err)
{
	int r = 0;

	/* In place, FILE_UNSAFE makes it nothing; a replaced file must be safe in any case. */
	if (t->in_place || !t->unsafe || t->replaces)
		r = io_flush(t->io, err);
	if (r < 0)
		return r;
	if (!t->in_place) {
		r = take_name(t, err);
		if (r < 0)
			return err_sys(err, -r, "Could not create '%s'",
				       t->partial ? t->path : t->io->name);
		free(take(t->temp));
	}
	t->committed = true;
	return t->durable && !t->in_place ? sync_name(t, err) : 0;
}

void target_withdraw(struct target *t)
{
	if (t->committed && !t->old && (!t->in_place || t->created))
		unlink(t->path);
	t->committed = false;
}

void target_close(struct target *t)
{
	if (!t)
		return;
	if (!t->committed && t->temp && !t->partial)
		unlink(t->temp);
	if (!t->committed && t->in_place && t->created && t->io)
		unlink(t->path);
	io_close(t->io);
	io_close(t->old);
	free(t->temp);
	free(t->path);
	free(t);
}
