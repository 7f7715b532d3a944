// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Opening images: file → probe → format → backing chain, and closing them.
 *
 * Who may name a file: the user names the top image, or describes it and what is under it; an image
 * may name its external data file (external.c), and its backing file, as a plain path only, opened read-only, never a FIFO, a character
 * device or a socket, a block device only if the caller says so. With IMG_UNTRUSTED an image may
 * name nothing. Descriptions and prefixes ("json:", "file:") are for users: no name that came out of
 * an image ever gets here with IMG_USER_NAME.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/describe.h"
#include "image/internal.h"
#include "io/file.h"
#include "io/nbd.h"
#include "io/window.h"

#define DEFAULT_MAX_DEPTH 64

static void img_close(struct io *io);

const struct io_ops img_ops = {
	.name = "image",
	.pread = img_pread,
	.pwrite = img_pwrite,
	.zero = img_zero,
	.discard = img_discard,
	.flush = img_flush,
	.map = img_map,
	.close = img_close,
};

bool io_is_img(const struct io *io)
{
	return io->ops == &img_ops;
}

/* ---- building and freeing the object ---- */

static void init_locks(struct img *img)
{
	pthread_rwlockattr_t attr;

	/* A stream of readers must not keep a turn waiting for ever. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&img->gate, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&img->meta, NULL);
	pthread_cond_init(&img->idle, NULL);
}

static void img_free(struct img *img)
{
	bool owner = !(img->open_flags & IMG_BORROWED);

	img->fmt->close(img);
	if (img->data != img->file)
		io_close(img->data);
	if (owner)
		io_close(img->file);
	if (owner && img->backing)
		io_close(&img->backing->io);
	ranges_free(&img->busy);
	free(img->backing_name);
	free(img->backing_format);
	free(img->backing_path);
	free(img->data_name);
	pthread_rwlock_destroy(&img->gate);
	pthread_mutex_destroy(&img->meta);
	pthread_cond_destroy(&img->idle);
	free(img);
}

static void img_close(struct io *io)
{
	struct img *img = io_img(io);

	if (atomic_load(&img->unsettled) && !atomic_load(&img->broken))
		img_settle(img, NULL); /* who wants to know calls it before */
	img_free(img);
}

int img_settle(struct img *img, struct err *err)
{
	int r;

	if (!img->fmt->settle)
		return img_flush(&img->io, err);
	pthread_rwlock_wrlock(&img->gate);
	r = img_check_broken(img, err);
	if (r == 0) {
		r = img->fmt->settle(img, err);
		img_note_failure(img, r);
	}
	if (r == 0)
		atomic_store(&img->unsettled, false);
	pthread_rwlock_unlock(&img->gate);
	return r;
}

/* ---- probing and names ---- */

int img_probe(struct io *file, const struct format **fmt, struct err *err)
{
	CLEANUP_FREE unsigned char *head = calloc(1, PROBE_HEAD);
	struct probe probe = {.head = head, .size = io_size(file), .name = file->name};
	const char *foreign;
	int r;

	if (!head)
		return err_nomem(err, PROBE_HEAD, "probing");
	probe.head_len = (size_t)min_u64(probe.size, PROBE_HEAD);
	r = io_pread(file, head, probe.head_len, 0, err);
	if (r < 0)
		return r;
	*fmt = format_probe(&probe);
	foreign = format_foreign(&probe);
	if (!foreign || strcmp((*fmt)->name, "raw") != 0)
		return 0;
	return err_set(err, ENOTSUP,
		       "%s: begins like an image of the format %s, which is not supported (-f raw "
		       "takes its bytes for a disk)",
		       file->name, foreign);
}

bool img_has_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

int img_resolve_name(const char *base, const char *name, char **path, struct err *err)
{
	const char *slash = strrchr(base, '/');
	size_t dir = slash ? (size_t)(slash - base) + 1 : 0;

	if (img_has_protocol(name))
		return err_set(err, EINVAL,
			       "%s: names the backing file '%s', which is not a plain path", base,
			       name);
	if (name[0] == '/')
		dir = 0;
	else if (nbd_is_name(base))
		return err_set(err, EINVAL, "%s: a relative name ('%s') in an NBD export", base,
			       name);
	*path = malloc(dir + strlen(name) + 1);
	if (!*path)
		return err_nomem(err, dir + strlen(name) + 1, "a file name");
	memcpy(*path, base, dir);
	strcpy(*path + dir, name);
	return 0;
}

/* ---- one layer ---- */

int img_choose_format(struct io *file, const char *driver, unsigned flags, struct layer *layer,
		      struct err *err)
{
	int r;

	layer->probed = !driver;
	if (driver) {
		layer->fmt = format_find(driver);
		return layer->fmt ? 0 : err_set(err, EINVAL, "Unknown driver '%s'", driver);
	}
	r = img_probe(file, &layer->fmt, err);
	if (r == 0 && (flags & IMG_UNTRUSTED) && !strcmp(layer->fmt->name, "raw"))
		return err_set(err, EMEDIUMTYPE,
			       "%s: no image format recognised; untrusted images are not taken for "
			       "raw unless told so (-f raw)",
			       file->name);
	return r;
}

int img_open_layer(struct io *file, const struct layer *layer, struct img **out, struct err *err)
{
	const struct format *fmt = layer->fmt;
	struct img *img = calloc(1, fmt->img_size);
	int r;

	if (!img)
		return err_nomem(err, fmt->img_size, "an image");
	r = io_init(&img->io, &img_ops, layer->name ? layer->name : file->name, err);
	if (r < 0) {
		free(img);
		return r;
	}
	init_locks(img);
	img->fmt = fmt;
	img->probed = layer->probed;
	img->open_flags = layer->flags;
	img->file = file;
	img->unit = img->grain = 1;
	img->io.caps = layer->flags & IMG_RDWR ? 0 : IO_RDONLY;
	r = fmt->open(img, layer->opts, err);
	/* Which may have put a window over file. */
	img->data = img->file;
	if (r == 0)
		r = img_absent_data(img, err);
	if (r < 0) {
		char *name = img->io.name;

		img->data = img->data == img->file ? NULL : img->data;
		img->file = NULL;
		img_free(img);
		free(name);
		return r;
	}
	*out = img;
	return 0;
}

static int open_io(struct io *file, const char *format, unsigned flags, struct img **out,
		   struct err *err)
{
	struct layer layer = {.flags = flags};
	int r = img_choose_format(file, format, flags, &layer, err);

	return r < 0 ? r : img_open_layer(file, &layer, out, err);
}

unsigned img_file_flags(unsigned flags)
{
	return (flags & IMG_RDWR ? FILE_WRITE : 0) | (flags & IMG_DIRECT ? FILE_DIRECT : 0) |
	       (flags & IMG_UNSAFE ? FILE_UNSAFE : 0) | (flags & IMG_SHARE ? FILE_SHARE : 0) |
	       (flags & IMG_NO_DISCARD ? FILE_KEEP_SPACE : 0);
}

/* Owns file. */
static int open_file(struct io *file, const char *format, unsigned flags, struct img **out,
		     struct err *err)
{
	int r = open_io(file, format, flags, out, err);

	if (r < 0)
		io_close(file);
	return r;
}

static int open_path(const char *path, const char *format, unsigned flags, unsigned extra,
		     struct img **out, struct err *err)
{
	struct io *file;
	int r = file_open(path, img_file_flags(flags) | extra, &file, err);

	return r < 0 ? r : open_file(file, format, flags, out, err);
}

struct io *img_bottom(const struct img *img)
{
	struct io *io = img->file, *inner;

	for (;;) {
		inner = io_is_img(io) ? io_img(io)->file : window_inner(io);
		if (!inner)
			return io_is_file(io) ? io : NULL;
		io = inner;
	}
}

/* ---- the chain ---- */

static bool same_file(struct io *a, struct io *b)
{
	struct file_stat x, y;

	return a && b && io_is_file(a) && io_is_file(b) && file_stat(a, &x, NULL) == 0 &&
	       file_stat(b, &y, NULL) == 0 && x.dev == y.dev && x.ino == y.ino;
}

/* Whether a file of `img` is one of those above it (top … img's overlay). */
static int check_loop(struct img *top, struct img *img, struct err *err)
{
	struct io *file = img_bottom(img);

	for (struct img *i = top; i != img; i = i->backing) {
		struct io *above = img_bottom(i);

		if (same_file(above, file) || same_file(above, img->data) ||
		    same_file(i->data, file) || same_file(i->data, img->data))
			return err_set(err, ELOOP,
				       "%s: the backing chain loops: '%s' is in it twice",
				       top->io.name, img->io.name);
	}
	return 0;
}

/* Not writable unless asked for, nor then under the top image's cache mode for writes. */
static unsigned backing_flags(unsigned flags, bool write)
{
	const unsigned never = IMG_FOR_CHECK;
	const unsigned writers = IMG_RDWR | IMG_UNSAFE | IMG_SYNC | IMG_NO_DISCARD |
				 IMG_DETECT_ZEROES | IMG_DETECT_UNMAP;

	return flags & ~(write ? never : never | writers);
}

const char *img_base_name(const struct img *img)
{
	const struct io *file = img_bottom(img);

	return file ? file->name : img->io.name;
}

/* The backing file that the image names. node: what the user says of it; or NULL. */
static int open_named(struct img *img, const struct node *node, struct node_how how,
		      struct img **out, struct err *err)
{
	unsigned flags = how.flags;
	int r;

	if (flags & IMG_UNTRUSTED)
		return err_set(err, EPERM,
			       "%s: names the backing file '%s', which an untrusted image may not",
			       img->io.name, img->backing_name);
	free(img->backing_path);
	img->backing_path = NULL;
	r = img_resolve_name(img_base_name(img), img->backing_name, &img->backing_path, err);
	if (r < 0)
		return r;
	if (img->backing_format && !format_find(img->backing_format))
		return err_set(err, EINVAL, "%s: unknown backing format '%s'", img->io.name,
			       img->backing_format);
	how.file_flags = flags & IMG_NAMED_DEVICES ? 0 : FILE_NO_DEVICE;
	how.path = img->backing_path;
	how.default_driver = img->backing_format;
	if (node)
		r = node_open(node, &how, out, err);
	else
		r = open_path(how.path, how.default_driver, how.flags, how.file_flags, out, err);
	/* What went wrong names the file already. */
	return r < 0 ? err_ctx(err, r, "Could not open backing file") : 0;
}

static int open_described(const struct node *node, const struct node_how *how, struct img **out,
			  struct err *err)
{
	int r = node_open(node, how, out, err);

	return r < 0 ? err_ctx(err, r, "Could not open backing file") : 0;
}

/* node: the description of top, or NULL. */
static int open_chain(struct img *top, const struct node *node, const struct img_open_args *args,
		      struct err *err)
{
	unsigned max_depth = args->max_depth ? args->max_depth : DEFAULT_MAX_DEPTH;
	/* The description of top may have changed them: force-share, cache.direct, … */
	unsigned flags = top->open_flags;
	struct img *img = top;

	for (unsigned depth = 1; !(node && node->no_backing); depth++, img = img->backing) {
		const struct node_how below = {
			.flags = backing_flags(flags, depth == args->write_depth),
			.args = args,
		};
		int r;

		node = node ? node->backing : NULL;
		if (!img->backing_name && !node)
			break;
		img->backing_left = !(node && node->file) && (flags & IMG_NO_NAMED);
		if (img->backing_left)
			break;
		if (depth >= max_depth)
			return err_set(err, ELOOP, "%s: the backing chain is longer than %u images",
				       top->io.name, max_depth);
		if (node && (node->file || !img->backing_name))
			r = open_described(node, &below, &img->backing, err);
		else
			r = open_named(img, node, below, &img->backing, err);
		if (r == 0)
			r = img_open_data(img->backing, args, err);
		if (r == 0)
			r = check_loop(top, img->backing, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where the backing file would be, for who only wants to know (info). */
int img_note_backing_path(struct img *img, struct err *err)
{
	if (!img->backing_name || img->backing_path)
		return 0;
	/* It would be relative to nothing. */
	if (img->backing_name[0] != '/' && nbd_is_name(img_base_name(img)))
		return 0;
	if (!img_has_protocol(img->backing_name))
		return img_resolve_name(img_base_name(img), img->backing_name, &img->backing_path,
					err);
	img->backing_path = strdup(img->backing_name);
	return img->backing_path ? 0 : err_nomem(err, strlen(img->backing_name), "a file name");
}

static int view_snapshot(struct img *img, const char *name, struct err *err)
{
	unsigned index;
	int r = img_snapshot_find(img, name, &index, err);

	return r < 0 ? r : img_snapshot_view(img, index, err);
}

static int open_named_export(const char *name, const struct img_open_args *args, unsigned flags,
			     struct img **out, struct err *err)
{
	struct io *file;
	int r = img_open_remote(name, flags, args, &file, err);

	return r < 0 ? r : open_file(file, args->format, flags, out, err);
}

/* Opens the top image; *node: its description, or NULL. */
static int open_top(const struct img_open_args *args, unsigned flags, struct node **node,
		    struct img **out, struct err *err)
{
	const struct node_how how = {.driver = args->format, .flags = flags, .args = args};
	enum user_name kind = NAME_PATH;
	const char *path = args->path;
	int r = 0;

	if (args->flags & IMG_IMAGE_OPTS) {
		if (args->format)
			return err_set(err, EINVAL, "a format beside a description");
		r = describe_list(path, node, err);
	} else if (args->flags & IMG_USER_NAME) {
		kind = describe_name(args->path, &path);
		if (kind == NAME_UNKNOWN)
			return describe_unknown(args->path, err);
		if (kind == NAME_JSON)
			r = describe_json(path, node, err);
	}
	if (r < 0)
		return r;
	if (*node)
		return node_open(*node, &how, out, err);
	if (kind == NAME_NBD)
		return open_named_export(path, args, flags, out, err);
	return open_path(path, args->format, flags, 0, out, err);
}

int img_open(const struct img_open_args *args, struct img **out, struct err *err)
{
	unsigned flags = args->flags & ~(unsigned)(IMG_USER_NAME | IMG_IMAGE_OPTS);
	struct node *node = NULL;
	struct img *img = NULL;
	int r = open_top(args, flags, &node, &img, err);

	if (r == 0)
		r = img_open_data(img, args, err);
	if (r == 0 && !(flags & IMG_NO_BACKING))
		r = open_chain(img, node, args, err);
	if (r == 0)
		r = img_note_backing_path(img, err);
	if (r == 0 && args->snapshot)
		r = view_snapshot(img, args->snapshot, err);
	node_free(node);
	if (r < 0) {
		io_close(img ? &img->io : NULL);
		return r;
	}
	*out = img;
	return 0;
}

int img_open_io(struct io *file, const char *format, unsigned flags, struct img *backing,
		struct img **out, struct err *err)
{
	int r = open_io(file, format, flags, out, err);

	if (r == 0)
		(*out)->backing = backing;
	return r;
}
