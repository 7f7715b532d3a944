// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An archive into a directory of a guest. Names that would lead out of it are left out; the agent
 * follows no link on the way of one.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "parts.h"

#define BLOCK (256 * KiB)

struct input {
	struct tar *t;
	struct archive *ar;
	struct appliance_stream *s;
	int read_errno;
	unsigned char buf[BLOCK];
	unsigned char value[AGENT_XATTR_MAX];
};

static la_ssize_t read_block(struct archive *ar, void *arg, const void **buf)
{
	struct input *in = arg;
	struct pollfd p = {.fd = in->t->fd, .events = POLLIN};
	ssize_t n;

	do {
		if (job_cancelled(&in->t->job)) {
			archive_set_error(ar, ECANCELED, "cancelled");
			return -1;
		}
	} while (poll(&p, 1, 100) == 0);
	do
		n = read(in->t->fd, in->buf, sizeof(in->buf));
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		in->read_errno = errno;
		archive_set_error(ar, errno, "cannot read");
	}
	*buf = in->buf;
	return n;
}

static int archive_failed(struct input *in, struct err *err)
{
	const char *text = archive_error_string(in->ar);

	if (job_cancelled(&in->t->job))
		return err_set(err, ECANCELED, "cancelled");
	if (in->read_errno)
		return err_sys(err, in->read_errno, "reading the archive");
	return err_set(err, EINVAL, "the archive: %s", text ? text : "cannot be read");
}

/* ---- names ---- */

/* A path of names with single slashes between them, of one of an archive. False: it has "..", or is
 * too long. */
static bool clean_path(const char *from, char to[AGENT_PATH_MAX])
{
	size_t len = 0;

	while (*from) {
		size_t n = strcspn(from, "/");

		if (n == 2 && from[0] == '.' && from[1] == '.')
			return false;
		if (n && !(n == 1 && *from == '.')) {
			if (len + n + 2 > AGENT_PATH_MAX || n > AGENT_NAME_MAX)
				return false;
			if (len)
				to[len++] = '/';
			memcpy(to + len, from, n);
			len += n;
		}
		from += n + (from[n] == '/');
	}
	to[len] = 0;
	return true;
}

static int leave_out(struct input *in, const char *path, const char *why)
{
	cli_error(in->t->cli, "%s: %s", path ? path : "(no name)", why);
	in->t->failed = true;
	return 0;
}

/* ---- entries ---- */

static void to_stat(struct archive_entry *e, struct agent_stat *st)
{
	*st = (struct agent_stat){
		.mode = (uint32_t)archive_entry_filetype(e) | (archive_entry_perm(e) & 07777),
		.uid = (uint32_t)archive_entry_uid(e),
		.gid = (uint32_t)archive_entry_gid(e),
		.mtime = {archive_entry_mtime(e), (uint32_t)archive_entry_mtime_nsec(e)},
	};
	st->atime = st->mtime;
	if (archive_entry_atime_is_set(e))
		st->atime = (struct agent_time){archive_entry_atime(e),
						(uint32_t)archive_entry_atime_nsec(e)};
	if (S_ISREG(st->mode) && archive_entry_size_is_set(e))
		st->size = (uint64_t)archive_entry_size(e);
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		st->rdev_major = (uint32_t)archive_entry_rdevmajor(e);
		st->rdev_minor = (uint32_t)archive_entry_rdevminor(e);
	}
}

static int put_acl(struct input *in, struct archive_entry *e, int type, const char *name,
		   struct err *err)
{
	size_t n;

	if (acl_from_entry(e, type, in->value, &n) < 0) {
		cli_warn(in->t->cli,
			 "%s: an ACL that names users or groups without numbers is left out",
			 archive_entry_pathname(e));
		return 0;
	}
	return n ? appliance_put_xattr(in->s, name, in->value, n, err) : 0;
}

static int put_xattrs(struct input *in, struct archive_entry *e, struct err *err)
{
	const char *name;
	const void *value;
	size_t n;
	int r = put_acl(in, e, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", err);

	if (r == 0 && S_ISDIR(archive_entry_filetype(e)))
		r = put_acl(in, e, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", err);
	archive_entry_xattr_reset(e);
	while (r == 0 && archive_entry_xattr_next(e, &name, &value, &n) == ARCHIVE_OK) {
		if (!strchr(name, '.') || strlen(name) > AGENT_NAME_MAX || n > AGENT_XATTR_MAX)
			cli_warn(in->t->cli, "%s: the attribute %s is left out",
				 archive_entry_pathname(e), name);
		else
			r = appliance_put_xattr(in->s, name, value, n, err);
	}
	return r;
}

static int put_content(struct input *in, uint64_t size, struct err *err)
{
	const void *bytes;
	la_int64_t off;
	size_t n;
	int r = 0, a;

	while ((a = archive_read_data_block(in->ar, &bytes, &n, &off)) == ARCHIVE_OK && r == 0) {
		if (off < 0 || (uint64_t)off > size || n > size - (uint64_t)off)
			return err_set(err, EINVAL, "the archive: more data than the file is long");
		if (n)
			r = appliance_put_bytes(in->s, (uint64_t)off, bytes, n, err);
	}
	return r == 0 && a != ARCHIVE_EOF ? archive_failed(in, err) : r;
}

static int put_entry(struct input *in, struct archive_entry *e, struct err *err)
{
	const char *name = archive_entry_pathname(e), *link = archive_entry_hardlink(e);
	const char *target = archive_entry_symlink(e);
	char path[AGENT_PATH_MAX], first[AGENT_PATH_MAX];
	struct agent_stat st;
	int r;

	if (!name || !clean_path(name, path) || (link && !clean_path(link, first)))
		return leave_out(in, name, "leads out of the directory, or is too long");
	to_stat(e, &st);
	if (link)
		return appliance_put_entry(in->s, path, &st, first, NULL, err);
	if (S_ISLNK(st.mode) && (!target || !*target || strlen(target) >= AGENT_PATH_MAX))
		return leave_out(in, name, "a symbolic link without a target, or a too long one");
	if (!(st.mode & S_IFMT) || (!*path && !S_ISDIR(st.mode)))
		return leave_out(in, name, "of no type that a file can have");
	r = appliance_put_entry(in->s, path, &st, NULL, target, err);
	if (r == 0)
		r = put_xattrs(in, e, err);
	return r == 0 && S_ISREG(st.mode) ? put_content(in, st.size, err) : r;
}

static int produce(void *arg, struct appliance_stream *s, struct err *err)
{
	struct input *in = arg;
	struct archive_entry *e;
	int a, r = 0;

	in->s = s;
	while (r == 0 && (a = archive_read_next_header(in->ar, &e)) != ARCHIVE_EOF) {
		if (a == ARCHIVE_RETRY)
			continue;
		r = a < ARCHIVE_WARN ? archive_failed(in, err) : put_entry(in, e, err);
	}
	return r;
}

static int open_archive(struct input *in, struct err *err)
{
	in->ar = archive_read_new();
	if (!in->ar)
		return err_nomem(err, 0, "an archive");
	if (archive_read_support_format_tar(in->ar) < ARCHIVE_WARN ||
	    archive_read_support_filter_gzip(in->ar) < ARCHIVE_WARN ||
	    archive_read_support_filter_zstd(in->ar) < ARCHIVE_WARN ||
	    archive_read_support_filter_xz(in->ar) < ARCHIVE_WARN ||
	    archive_read_support_filter_bzip2(in->ar) < ARCHIVE_WARN ||
	    archive_read_open(in->ar, in, NULL, read_block, NULL) != ARCHIVE_OK)
		return archive_failed(in, err);
	return 0;
}

int tar_in(struct tar *t, struct err *err)
{
	const uint32_t flags = TREE_KEEP_OWNER | TREE_REPLACE | (t->flags & TREE_FOLLOW);
	struct input *in = calloc(1, sizeof(*in));
	int r;

	if (!in)
		return err_nomem(err, sizeof(*in), "an archive");
	in->t = t;
	/* What is no archive at all changes nothing. */
	r = open_archive(in, err);
	if (r == 0)
		r = appliance_import(t->a, t->path, flags, produce, in, err);
	archive_read_free(in->ar);
	free(in);
	return r;
}
