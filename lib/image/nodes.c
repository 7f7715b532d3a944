// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Opening what a block-driver description says: one image and the files, or images, under it. The
 * backing chain is open.c's.
 *
 * Every key is one of the driver's, or of those that all nodes have, or an error: nothing that was
 * asked for is left out in silence. A child takes over the flags of the node above it, until it says
 * otherwise.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/describe.h"
#include "image/internal.h"
#include "io/file.h"
#include "io/nbd.h"

static const char *const discard_words[] = {"ignore", "off", "unmap", "on", NULL};
static const char *const detect_words[] = {"off", "on", "unmap", NULL};
static const char *const locking_words[] = {"auto", "on", "off", NULL};
static const char *const aio_words[] = {"threads", NULL};

static const struct opt node_opts[] = {
	{.name = "driver", .type = OPT_STRING},
	{.name = "read-only", .type = OPT_BOOL},
	{.name = "auto-read-only", .type = OPT_BOOL, .refused = true},
	{.name = "force-share", .type = OPT_BOOL},
	{.name = "cache.direct", .type = OPT_BOOL},
	{.name = "cache.no-flush", .type = OPT_BOOL},
	{.name = "discard", .type = OPT_ENUM, .choices = discard_words},
	{.name = "detect-zeroes", .type = OPT_ENUM, .choices = detect_words},
	{.name = "node-name", .type = OPT_STRING, .refused = true},
	{.name = NULL},
};

static const struct opt file_opts[] = {
	{.name = "filename", .type = OPT_STRING},
	{.name = "locking", .type = OPT_ENUM, .choices = locking_words},
	{.name = "aio", .type = OPT_ENUM, .choices = aio_words},
	{.name = "aio-max-batch", .type = OPT_UINT, .refused = true},
	{.name = "drop-cache", .type = OPT_BOOL, .refused = true},
	{.name = "pr-manager", .type = OPT_STRING, .refused = true},
	{.name = "x-check-cache-dropped", .type = OPT_BOOL, .refused = true},
	{.name = NULL},
};

/* ---- keys ---- */

static bool is_remote(const char *driver)
{
	return strcmp(driver, "nbd") == 0;
}

static bool is_protocol(const char *driver)
{
	return strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0 ||
	       is_remote(driver);
}

static const struct opt *find(const struct opt *table, const char *name)
{
	for (; table && table->name; table++) {
		if (strcmp(table->name, name) == 0)
			return table;
	}
	return NULL;
}

static int unknown_key(const char *driver, const char *prefix, const char *key, struct err *err)
{
	if (is_protocol(driver))
		return err_set(err, EINVAL, "Block protocol '%s' doesn't support the option '%s%s'",
			       driver, prefix, key);
	return err_set(err, EINVAL, "Block format '%s' does not support the option '%s%s'", driver,
		       prefix, key);
}

static int check_key(const char *driver, const struct opt *table, const struct optval *v,
		     struct err *err)
{
	const struct opts one = {.v = (struct optval *)v, .n = 1};
	const struct opt *o = find(node_opts, v->name);
	const struct opt only[2] = {o ? *o : (struct opt){0}, {.name = NULL}};
	bool on = true;
	int r;

	if (!o)
		o = find(table, v->name);
	if (!o)
		return unknown_key(driver, "", v->name, err);
	r = opts_check(&one, only[0].name ? only : table, err);
	if (r == 0 && o->refused && o->type == OPT_BOOL)
		r = opts_bool(&one, o->name, &on, err);
	if (r < 0)
		return r;
	if (o->refused && on)
		return err_set(err, ENOTSUP, "Option '%s' of driver '%s' is not supported", o->name,
			       driver);
	return 0;
}

static int check_keys(const struct node *node, const char *driver, const struct opt *table,
		      struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < node->own.n; i++)
		r = check_key(driver, table, &node->own.v[i], err);
	return r;
}

/* Keys for a backing file where there is none, or none is to be opened. */
static int check_backing_keys(const struct node *node, const struct format *fmt, unsigned flags,
			      struct err *err)
{
	const struct node *below = node->backing;
	const char *prefix = "backing.";

	if (node->no_backing && !(fmt->caps & FMT_BACKING))
		return unknown_key(fmt->name, "", "backing", err);
	if (!below || ((fmt->caps & FMT_BACKING) && !(flags & IMG_NO_BACKING)))
		return 0;
	while (below->own.n == 0 && below->file) {
		below = below->file;
		prefix = "backing.file.";
	}
	return unknown_key(fmt->name, prefix, below->own.n ? below->own.v[0].name : "file", err);
}

/* ---- flags ---- */

static int read_only_flags(const struct opts *own, unsigned *flags, struct err *err)
{
	bool given = opts_get(own, "read-only"), read_only = false, share = *flags & IMG_SHARE;
	int r = opts_bool(own, "read-only", &read_only, err);

	if (r == 0)
		r = opts_bool(own, "force-share", &share, err);
	if (r < 0)
		return r;
	if (!share && (*flags & IMG_SHARE))
		return err_set(err, EINVAL, "--force-share/-U conflicts with image options");
	if (share && ((*flags & IMG_RDWR) || (given && !read_only)))
		return err_set(err, EINVAL,
			       "force-share=on can only be used with read-only images");
	if (read_only && (*flags & IMG_RDWR))
		return err_set(err, EACCES, "Block node is read-only");
	*flags |= share ? IMG_SHARE : 0;
	return 0;
}

static int set_flag(const struct opts *own, const char *key, unsigned flag, unsigned *flags,
		    struct err *err)
{
	bool on = *flags & flag;
	int r = opts_bool(own, key, &on, err);

	*flags = on ? *flags | flag : *flags & ~flag;
	return r;
}

static int write_flags(const struct opts *own, unsigned *flags, struct err *err)
{
	int discard = 2, detect = 0;
	int r = opts_enum(own, "discard", discard_words, &discard, err);

	if (r == 0)
		r = opts_enum(own, "detect-zeroes", detect_words, &detect, err);
	if (r < 0)
		return r;
	if (detect == 2 && (discard < 2 || !opts_get(own, "discard")))
		return err_set(err, EINVAL,
			       "setting detect-zeroes to unmap is not allowed without setting "
			       "discard operation to unmap");
	*flags &= ~(unsigned)(IMG_NO_DISCARD | IMG_DETECT_ZEROES | IMG_DETECT_UNMAP);
	*flags |= discard < 2 ? IMG_NO_DISCARD : 0;
	*flags |= detect ? IMG_DETECT_ZEROES : 0;
	*flags |= detect == 2 ? IMG_DETECT_UNMAP : 0;
	return 0;
}

/* What a node's own keys make of the flags that it got from above. */
static int node_flags(const struct opts *own, unsigned *flags, struct err *err)
{
	int r = read_only_flags(own, flags, err);

	if (r == 0)
		r = set_flag(own, "cache.direct", IMG_DIRECT, flags, err);
	if (r == 0)
		r = set_flag(own, "cache.no-flush", IMG_UNSAFE, flags, err);
	return r < 0 ? r : write_flags(own, flags, err);
}

/* ---- files ---- */

static int check_device(struct io *io, const char *driver, struct err *err)
{
	struct file_stat st;
	int r;

	if (strcmp(driver, "host_device") != 0)
		return 0;
	r = file_stat(io, &st, err);
	if (r || st.block_device)
		return r;
	return err_set(
		err, EINVAL,
		"'host_device' driver requires '%s' to be either a character or block device",
		io->name);
}

static int open_described_file(const struct node *node, const char *driver, unsigned flags,
			       struct io **out, struct err *err)
{
	const char *path = opts_get(&node->own, "filename");
	int r, locking = 0;
	unsigned how;

	r = opts_enum(&node->own, "locking", locking_words, &locking, err);
	if (r < 0)
		return r;
	if (!path || !*path)
		return err_set(err, EINVAL, "The '%s' block driver requires a file name", driver);
	how = img_file_flags(flags) | (locking == 2 ? FILE_SHARE : 0);
	r = file_open(path, how, out, err);
	if (r < 0)
		return r;
	r = check_device(*out, driver, err);
	if (r < 0)
		io_close(*out);
	return r;
}

/* flags: of the node above. */
static int open_protocol(const struct node *node, const char *driver, const struct node_how *how,
			 unsigned flags, struct io **out, struct err *err)
{
	bool remote = is_remote(driver);
	int r = check_keys(node, driver, remote ? img_remote_opts : file_opts, err);

	if (r == 0 && node->file)
		r = unknown_key(driver, "", "file", err);
	if (r == 0 && (node->backing || node->no_backing))
		r = unknown_key(driver, "", "backing", err);
	if (r == 0)
		r = node_flags(&node->own, &flags, err);
	if (r < 0)
		return r;
	if (flags & IMG_DETECT_ZEROES)
		return err_set(err, ENOTSUP,
			       "Option 'detect-zeroes' of driver '%s' is not supported", driver);
	return remote ? img_open_remote_node(&node->own, flags, how->args, out, err)
		      : open_described_file(node, driver, flags, out, err);
}

/* An image as the file of another: its own names open nothing. */
static int open_inner_image(const struct node *node, const struct node_how *above, unsigned flags,
			    struct io **out, struct err *err)
{
	const struct node_how how = {
		.args = above->args,
		.flags =
			(flags & (IMG_RDWR | IMG_SHARE | IMG_UNTRUSTED | IMG_UNSAFE | IMG_DIRECT)) |
			IMG_NO_BACKING,
	};
	struct img *img = NULL;
	int r = node_open(node, &how, &img, err);

	if (r < 0)
		return r;
	assert(img);
	if (img->backing_name && !node->no_backing) {
		r = err_set(err, ENOTSUP, "%s: the file of an image cannot have a backing file",
			    img->io.name);
		io_close(&img->io);
		return r;
	}
	*out = &img->io;
	return 0;
}

/* Raw without a window is the file itself, which can grow where an image cannot. */
static bool adds_nothing(const struct node *node)
{
	return node->file && node->own.n == 1 && !node->backing && !node->no_backing;
}

static int open_child(const struct node *node, const struct node_how *how, unsigned flags,
		      struct io **out, struct err *err)
{
	const char *driver = opts_get(&node->own, "driver");

	if (!driver && !opts_get(&node->own, "filename"))
		return err_set(err, EINVAL, "Must specify either driver or file");
	if (!driver || is_protocol(driver))
		return open_protocol(node, driver ? driver : "file", how, flags, out, err);
	if (!format_find(driver))
		return err_set(err, EINVAL, "Unknown driver '%s'", driver);
	if (strcmp(driver, "raw") == 0 && adds_nothing(node))
		return open_child(node->file, how, flags, out, err);
	return open_inner_image(node, how, flags, out, err);
}

/* ---- images ---- */

static int open_file(const struct node *node, const char *driver, const struct node_how *how,
		     unsigned flags, struct io **out, struct err *err)
{
	const char *ref = opts_get(&node->own, "file");

	if (node->file)
		return open_child(node->file, how, flags, out, err);
	if (ref)
		return err_set(err, EINVAL, "Cannot find device='%s' nor node-name='%s'", ref, ref);
	if (how->path)
		return file_open(how->path, img_file_flags(flags) | how->file_flags, out, err);
	if (!driver)
		return err_set(err, EINVAL, "Must specify either driver or file");
	return err_set(err, EINVAL, "A block device must be specified for \"file\"");
}

static int open_with_driver(const struct node *node, const char *driver, unsigned flags,
			    struct io *file, struct img **out, struct err *err)
{
	CLEANUP_FREE char *name = NULL;
	struct layer layer = {.flags = flags, .opts = &node->own};
	int r = img_choose_format(file, driver, flags, &layer, err);

	if (r == 0)
		r = check_keys(node, layer.fmt->name, layer.fmt->open_opts, err);
	if (r == 0)
		r = check_backing_keys(node, layer.fmt, flags, err);
	if (r < 0)
		return r;
	if (node->file && !(io_is_nbd(file) && describe_is_whole(node)))
		name = describe_as_name(node);
	else
		name = strdup(file->name);
	if (!name)
		return err_nomem(err, 0, "a file name");
	layer.name = name;
	return img_open_layer(file, &layer, out, err);
}

/* A file that is all there is: its bytes are the disk. */
static int open_bare(const struct node *node, const char *driver, const struct node_how *how,
		     struct img **out, struct err *err)
{
	struct layer layer = {.fmt = format_find("raw"), .flags = how->flags};
	struct io *file = NULL;
	int r = open_protocol(node, driver, how, how->flags, &file, err);

	if (r < 0)
		return r;
	assert(file);
	r = img_open_layer(file, &layer, out, err);
	if (r < 0)
		io_close(file);
	return r;
}

int node_open(const struct node *node, const struct node_how *how, struct img **out,
	      struct err *err)
{
	const char *driver = opts_get(&node->own, "driver");
	unsigned flags = how->flags;
	struct io *file = NULL;
	int r;

	if (how->driver)
		driver = how->driver;
	else if (!driver)
		driver = how->default_driver;
	if (driver && is_protocol(driver))
		return open_bare(node, driver, how, out, err);
	if (driver && !format_find(driver))
		return err_set(err, EINVAL, "Unknown driver '%s'", driver);
	r = node_flags(&node->own, &flags, err);
	if (r == 0)
		r = open_file(node, driver, how, flags, &file, err);
	if (r < 0)
		return r;
	assert(file);
	r = open_with_driver(node, driver, flags, file, out, err);
	if (r < 0)
		io_close(file);
	return r;
}
