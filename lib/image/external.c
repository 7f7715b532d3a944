// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * External data files: an image may keep its guest data in a file that it names.
 *
 * The name is data of the image, and the file is written to, so it is more dangerous than that of a
 * backing file. It is opened only where the user must expect it: beside the image or below its
 * directory, symbolic links resolved, a regular file; or if the user named it. The peer takes any
 * plain path, relative to the working directory (IMG_PEER_NAMES).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/internal.h"
#include "io/absent.h"
#include "io/file.h"

/* Whether a path leaves the directory that it is relative to, as its text says. */
static bool leaves_directory(const char *name)
{
	if (name[0] == '/')
		return true;
	for (const char *p = name; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
			return true;
	}
	return false;
}

/* The same for a file that exists, as its links say. */
static bool links_away(const char *image, const char *path)
{
	const char *slash = strrchr(image, '/');
	CLEANUP_FREE char *dir_name =
		slash ? strndup(image, (size_t)(slash - image) + 1) : strdup(".");
	CLEANUP_FREE char *dir = dir_name ? realpath(dir_name, NULL) : NULL;
	CLEANUP_FREE char *real = realpath(path, NULL);
	size_t n = dir ? strlen(dir) : 0;

	if (!real)
		return false; /* opening it says what is wrong */
	while (n && dir[n - 1] == '/')
		n--;
	return !dir || strncmp(real, dir, n) != 0 || real[n] != '/';
}

/* The path on the command line that is this file, or NULL. */
static const char *find_allowed(const struct img_open_args *args, const char *path)
{
	struct stat want, have;
	bool exists = stat(path, &want) == 0;

	for (unsigned i = 0; i < args->n_allowed; i++) {
		const char *a = args->allowed[i];

		if (strcmp(a, path) == 0)
			return a;
		if (exists && stat(a, &have) == 0 && have.st_dev == want.st_dev &&
		    have.st_ino == want.st_ino)
			return a;
	}
	return NULL;
}

/* Where the file would be. Names that are no plain path are left as they are. */
static int resolve(const struct img *img, const char *name, char **path, struct err *err)
{
	if (!(img->open_flags & IMG_PEER_NAMES) && !img_has_protocol(name))
		return img_resolve_name(img_base_name(img), name, path, err);
	*path = strdup(name);
	return *path ? 0 : err_nomem(err, strlen(name), "a file name");
}

static int refuse(const struct img *img, int code, const char *why, struct err *err)
{
	return err_set(err, code, "%s: names the data file '%s', %s", img->io.name, img->data_name,
		       why);
}

/* Whether the image may have this file without being told by the user. */
static int check_name(const struct img *img, const char *path, struct err *err)
{
	if (img->open_flags & IMG_UNTRUSTED)
		return refuse(img, EPERM, "which an untrusted image may not", err);
	if (img->open_flags & IMG_PEER_NAMES)
		return 0;
	if (img_has_protocol(img->data_name))
		return refuse(img, EINVAL, "which is not a plain path", err);
	if (leaves_directory(img->data_name) || links_away(img_base_name(img), path))
		return refuse(img, EPERM,
			      "which is not in its directory (--allow-external permits it)", err);
	return 0;
}

/* Looked at before it is opened: its lock would say something else. */
static bool is_itself(const struct img *img, const char *path)
{
	struct io *file = img_bottom(img);
	struct file_stat mine;
	struct stat st;

	return file && file_stat(file, &mine, NULL) == 0 && stat(path, &st) == 0 &&
	       st.st_dev == mine.dev && st.st_ino == mine.ino;
}

static void set_data(struct img *img, struct io *data)
{
	if (img->data != img->file)
		io_close(img->data);
	img->data = data;
}

int img_absent_data(struct img *img, struct err *err)
{
	CLEANUP_FREE char *path = NULL;
	struct io *data;
	int r;

	if (!img->data_name)
		return 0;
	r = resolve(img, img->data_name, &path, err);
	if (r == 0)
		r = absent_open(path, "the external data file was not opened", &data, err);
	if (r == 0)
		set_data(img, data);
	return r;
}

int img_open_data(struct img *img, const struct img_open_args *args, struct err *err)
{
	unsigned flags = img_file_flags(img->open_flags) | FILE_DATA;
	CLEANUP_FREE char *path = NULL;
	const char *allowed;
	struct io *data;
	int r;

	if (!img->data_name || (img->open_flags & IMG_NO_DATA))
		return 0;
	if (!img->data_name[0])
		return err_set(err, EINVAL, "'data-file' is required for this image");
	r = resolve(img, img->data_name, &path, err);
	if (r < 0)
		return r;
	/* Opened by the name that the user gave: what the image says cannot change any more. */
	allowed = find_allowed(args, path);
	if (!allowed) {
		r = check_name(img, path, err);
		flags |= img->open_flags & IMG_PEER_NAMES ? 0 : FILE_NO_DEVICE;
	}
	if (r == 0 && is_itself(img, path))
		r = refuse(img, EINVAL, "which is the image itself", err);
	if (r == 0)
		r = file_open(allowed ? allowed : path, flags, &data, err);
	if (r == 0)
		set_data(img, data);
	return r;
}

static bool is_file(struct io *io, dev_t dev, ino_t ino)
{
	struct file_stat fs;
	struct stat st;

	if (io && io_is_file(io))
		return file_stat(io, &fs, NULL) == 0 && fs.dev == dev && fs.ino == ino;
	/* A name is as good as the file when the question is what would be overwritten. */
	return io && absent_is(io) && stat(io->name, &st) == 0 && st.st_dev == dev &&
	       st.st_ino == ino;
}

bool img_uses_file(struct img *img, dev_t dev, ino_t ino)
{
	for (; img; img = img->backing)
		if (is_file(img_bottom(img), dev, ino) || is_file(img->data, dev, ino))
			return true;
	return false;
}

int img_set_data_file(struct img *img, struct io *data, struct err *err)
{
	if (!img->data_name)
		return err_set(err, EINVAL, "%s: the image has no external data file",
			       img->io.name);
	set_data(img, data);
	return 0;
}
