// SPDX-License-Identifier: GPL-2.0-or-later
/* img-serve: the images, as they are named and as they are opened. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "helpers/serve/parts.h"
#include "image/build.h"
#include "io/file.h"
#include "io/nbd.h"

/* ---- --export ---- */

static const struct opt export_opts[] = {
	{.name = "name", .type = OPT_STRING},
	{.name = "file", .type = OPT_STRING},
	{.name = "format", .type = OPT_STRING},
	{.name = "read-only", .type = OPT_BOOL},
	{.name = "partition", .type = OPT_UINT},
	{.name = "offset", .type = OPT_SIZE},
	{.name = "size", .type = OPT_SIZE},
	{.name = "snapshot", .type = OPT_STRING},
	{.name = "bitmap", .type = OPT_STRING},
	{.name = "description", .type = OPT_STRING},
	{.name = "clients", .type = OPT_UINT},
	{.name = "allocation-depth", .type = OPT_BOOL},
	{.name = NULL},
};

static int get_unsigned(const struct opts *opts, const char *name, unsigned *out, struct err *err)
{
	uint64_t n = 0;
	int r = opts_uint(opts, name, &n, err);

	if (r == 0 && opts_get(opts, name) && (n == 0 || n > INT32_MAX))
		r = err_set(err, EINVAL, "Parameter '%s' expects a number from 1 to %d", name,
			    INT32_MAX);
	*out = (unsigned)n;
	return r;
}

static int read_export(struct serve_image *m, const char *text, struct err *err)
{
	const struct opts *opts = &m->opts;
	int r = opts_parse(&m->opts, text, err);

	if (r == 0)
		r = opts_check(opts, export_opts, err);
	if (r == 0)
		r = opts_bool(opts, "read-only", &m->read_only, err);
	if (r == 0)
		r = opts_bool(opts, "allocation-depth", &m->args.allocation_depth, err);
	if (r == 0)
		r = opts_size(opts, "offset", &m->args.offset, err);
	if (r == 0)
		r = opts_size(opts, "size", &m->args.size, err);
	if (r == 0 && opts_get(opts, "size") && m->args.size == 0)
		r = err_set(err, EINVAL, "a size of 0 would be no disk");
	if (r == 0)
		r = get_unsigned(opts, "partition", &m->args.partition, err);
	if (r == 0)
		r = get_unsigned(opts, "clients", &m->args.max_clients, err);
	if (r < 0)
		return r;
	m->path = opts_get(opts, "file");
	m->args.name = opts_get(opts, "name");
	m->args.description = opts_get(opts, "description");
	m->format = opts_get(opts, "format");
	m->snapshot = opts_get(opts, "snapshot");
	m->bitmaps[0] = opts_get(opts, "bitmap");
	m->args.n_bitmaps = m->bitmaps[0] != NULL;
	if (!m->path || !m->args.name)
		return err_set(err, EINVAL, "file= and name= are needed");
	if (m->snapshot && m->args.n_bitmaps)
		return err_set(err, EINVAL,
			       "a dirty bitmap tells of the disk as it is now, not of a snapshot");
	return 0;
}

bool serve_add_export(struct serve *s, const char *text)
{
	struct serve_image *m = &s->image[s->n_images];
	struct err err = {0};

	if (s->n_images == SERVE_MAX) {
		cli_usage(s->cli, "Too many images: %s", text);
		return false;
	}
	s->n_images++;
	if (read_export(m, text, &err) == 0)
		return true;
	cli_usage(s->cli, "--export %s: %s", text, err.msg);
	return false;
}

/* ---- arguments ---- */

/* FILE@SNAPSHOT, unless there is a file of the whole name. */
static bool split_name(struct serve *s, struct serve_image *m)
{
	char *at;

	m->file = strdup(m->path);
	if (!m->file) {
		cli_error(s->cli, "out of memory");
		return false;
	}
	at = strrchr(m->file, '@');
	if (!at || !m->positional || s->cli->peer || s->cli->image_opts || !at[1] ||
	    strncmp(m->path, "json:", 5) == 0 || access(m->path, F_OK) == 0)
		return true;
	if (s->snapshot) {
		cli_usage(s->cli, "%s names a snapshot, and -l %s another one", m->path,
			  s->snapshot);
		return false;
	}
	*at = '\0';
	m->snapshot = at + 1;
	return true;
}

/* Of several images each has the name of its file, and @SNAPSHOT as it was written. */
static const char *default_name(const struct serve *s, const struct serve_image *m)
{
	const char *slash = strrchr(m->path, '/');

	if (s->n_images == 1)
		return "";
	return slash ? slash + 1 : m->path;
}

static void take_options(struct serve *s, struct serve_image *m)
{
	m->args = s->args;
	m->args.max_clients = 0;
	memcpy(m->bitmaps, s->bitmaps, sizeof(m->bitmaps));
	m->format = s->format;
	m->snapshot = s->snapshot;
}

static bool complete(struct serve *s, struct serve_image *m)
{
	if (m->positional)
		take_options(s, m);
	if (!split_name(s, m))
		return false;
	m->args.bitmaps = m->bitmaps;
	m->args.allocation_depth |= s->args.allocation_depth;
	m->read_only |= s->read_only;
	if (!m->args.name)
		m->args.name = default_name(s, m);
	/* Who can have one connection only must not be told that several would do. */
	if (s->config.max_clients == 1)
		m->args.max_clients = 1;
	if (m->snapshot && !s->temporary)
		m->read_only = true;
	return true;
}

/* Each export opens its image for itself, and who writes must be alone. */
static bool share_writable(const struct serve *s, const struct serve_image *a,
			   const struct serve_image *b)
{
	struct stat x, y;

	return !s->temporary && !(a->read_only && b->read_only) && stat(a->file, &x) == 0 &&
	       stat(b->file, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool check_pair(struct serve *s, const struct serve_image *a, const struct serve_image *b)
{
	if (strcmp(a->args.name, b->args.name) == 0)
		cli_usage(s->cli, "Two exports have the name '%s'", a->args.name);
	else if (share_writable(s, a, b))
		cli_usage(s->cli, "%s is exported twice: this needs both to be read-only", a->file);
	else
		return true;
	return false;
}

bool serve_complete_images(struct serve *s)
{
	for (unsigned i = 0; i < s->n_images; i++) {
		if (!complete(s, &s->image[i]))
			return false;
		for (unsigned j = 0; j < i; j++) {
			if (!check_pair(s, &s->image[j], &s->image[i]))
				return false;
		}
	}
	return true;
}

/* ---- opening ---- */

/* A file without a name, where temporary files go that may become large. */
static int temporary_file(struct io **out, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	int fd, r;

	if (!dir || !*dir)
		dir = "/var/tmp";
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "%s: a temporary file", dir);
	r = file_from_fd(fd, "temporary overlay", FILE_WRITE | FILE_UNSAFE, out, err);
	if (r < 0)
		close(fd);
	return r;
}

static int make_overlay(struct io *file, const struct img *below, struct err *err)
{
	const struct create_args args = {.size = io_size(&below->io),
					 .backing = below->io.name,
					 .backing_format = below->fmt->name};
	struct build *build;
	int r = format_find("qcow2")->build(file, &args, 0, &build, err);

	if (r < 0)
		return r;
	r = build_finish(build, err);
	build_close(build);
	return r;
}

/* Puts a temporary overlay over *img, which becomes it. */
static int overlay(struct img **img, struct err *err)
{
	struct io *file;
	int r = temporary_file(&file, err);

	if (r < 0)
		return r;
	r = make_overlay(file, *img, err);
	if (r == 0)
		r = img_open_io(file, "qcow2", IMG_RDWR | IMG_UNSAFE, *img, img, err);
	if (r < 0)
		io_close(file);
	return r;
}

/* What would need a network, and threads of its own, in a process that has neither. */
static bool is_remote(const struct img *img)
{
	for (; img; img = img->backing) {
		if (io_is_nbd(img->file) || io_is_nbd(img->data))
			return true;
	}
	return false;
}

static struct img *open_image(struct serve *s, const struct serve_image *m)
{
	bool writable = !m->read_only && !s->temporary;
	const struct img_open_args args = {.path = m->file,
					   .format = m->format,
					   .flags = s->flags | (writable ? IMG_RDWR : 0)};
	struct img *img = cli_open(s->cli, &args);
	struct err err = {0};

	if (!img)
		return NULL;
	if (is_remote(img)) {
		cli_error(s->cli, "%s: is served by another NBD server; let clients go there",
			  m->file);
		io_close(&img->io);
		return NULL;
	}
	if (m->snapshot && !cli_view_snapshot(s->cli, img, m->snapshot)) {
		io_close(&img->io);
		return NULL;
	}
	if (s->temporary && overlay(&img, &err) < 0) {
		cli_error(s->cli, "%s: %s", m->file, err.msg);
		io_close(&img->io);
		return NULL;
	}
	return img;
}

bool serve_open_images(struct serve *s, struct nbd_export **exports)
{
	struct err err = {0};

	for (unsigned i = 0; i < s->n_images; i++) {
		struct img *img = open_image(s, &s->image[i]);

		if (!img)
			return false;
		if (export_open(img, &s->image[i].args, &exports[i], &err) < 0) {
			cli_error(s->cli, "%s", err.msg);
			io_close(&img->io);
			return false;
		}
		s->config.n_exports = i + 1;
	}
	return true;
}
