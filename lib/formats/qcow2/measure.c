// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * How large a qcow2 file will be. All tables are counted as if the disk were full, as the peer
 * does: so the answer is an upper bound, and it is the peer's number.
 */
#include <errno.h>

#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/qcow2.h"

/* What of the options of a new image matters for its size. */
struct measure_options {
	uint64_t cluster;
	unsigned refcount_order, entry_size, version;
	bool preallocated, backing;
};

static int parse_version(const struct opts *opts, struct measure_options *o, struct err *err)
{
	const char *compat = opts_get(opts, "compat");
	uint64_t bits = 16;
	int r;

	o->version = 3;
	if (compat && (strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0))
		o->version = 2;
	else if (compat && strcmp(compat, "1.1") != 0 && strcmp(compat, "v3") != 0)
		return err_set(err, EINVAL, "Invalid compatibility level: '%s'", compat);
	r = opts_uint(opts, "refcount_bits", &bits, err);
	if (r < 0)
		return r;
	if (!is_pow2(bits) || bits > 64)
		return err_set(err, EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	if (o->version < 3 && bits != 16)
		return err_set(err, EINVAL,
			       "Different refcount widths than 16 bits require compatibility "
			       "level 1.1 or above (use compat=1.1 or greater)");
	o->refcount_order = log2_u64(bits);
	return 0;
}

static int parse_cluster(const struct opts *opts, struct measure_options *o, struct err *err)
{
	bool extended = false;
	int r = opts_bool(opts, "extended_l2", &extended, err);

	o->cluster = 64 * KiB;
	if (r == 0)
		r = opts_size(opts, "cluster_size", &o->cluster, err);
	if (r < 0)
		return r;
	if (!is_pow2(o->cluster) || o->cluster < UINT64_C(1) << QCOW2_MIN_CLUSTER_BITS ||
	    o->cluster > UINT64_C(1) << QCOW2_MAX_CLUSTER_BITS)
		return err_set(err, EINVAL,
			       "Cluster size must be a power of two between 512 and 2048k");
	if (extended && o->cluster < UINT64_C(32) * 512)
		return err_set(err, EINVAL,
			       "Extended L2 entries are only supported with cluster sizes of at "
			       "least 16384 bytes");
	o->entry_size = extended ? 16 : 8;
	return 0;
}

static int parse_options(const struct create_args *args, struct measure_options *o, struct err *err)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
	const char *encrypt = opts_get(args->opts, "encrypt.format");
	int mode = PREALLOC_OFF, r = parse_cluster(args->opts, o, err);

	if (r == 0)
		r = parse_version(args->opts, o, err);
	if (r < 0)
		return r;
	if (opts_enum(args->opts, "preallocation", modes, &mode, NULL) < 0)
		return err_set(err, EINVAL, "invalid parameter value: %s",
			       opts_get(args->opts, "preallocation"));
	if (encrypt && strcmp(encrypt, "luks") == 0)
		return err_set(err, ENOTSUP,
			       "Option 'encrypt.format' is not supported for new qcow2 images");
	o->preallocated = mode == PREALLOC_FALLOC || mode == PREALLOC_FULL;
	o->backing = args->backing || opts_get(args->opts, "backing_file");
	return 0;
}

/* Refcount blocks and table for so many clusters, and for themselves; in clusters. */
static uint64_t refcount_clusters(const struct measure_options *o, uint64_t clusters)
{
	uint64_t per_block = o->cluster * 8 >> o->refcount_order, per_table = o->cluster / 8;
	uint64_t blocks = 0, table = 0, n = 0, last;

	do {
		last = n;
		blocks = div_up(clusters + table + blocks, per_block);
		table = div_up(blocks, per_table);
		n = clusters + blocks + table;
	} while (n != last);
	return blocks + table;
}

/* Bytes of the file when every cluster of a disk of `size` bytes (whole clusters) is allocated. */
static uint64_t full_size(const struct measure_options *o, uint64_t size)
{
	uint64_t data = size / o->cluster;
	uint64_t l2 = div_up(data, o->cluster / o->entry_size);
	uint64_t l1 = div_up(l2, o->cluster / 8);
	uint64_t clusters = 1 + data + l2 + l1;

	return (clusters + refcount_clusters(o, clusters)) * o->cluster;
}

/* Layers of a source whose files are asked for holes: see img_has_file_holes. */
struct layers {
	struct io *src;
	uint64_t known, holes; /* by depth */
};

static int layer_has_holes(struct layers *l, unsigned depth, bool *holes, struct err *err)
{
	struct img *img = io_is_img(l->src) ? io_img(l->src) : NULL;
	uint64_t bit = depth < 64 ? UINT64_C(1) << depth : 0;
	int r = 0;

	*holes = l->holes & bit;
	if (!img || !bit || (l->known & bit))
		return 0;
	for (unsigned i = 0; img && i < depth; i++)
		img = img->backing;
	if (img)
		r = img_has_file_holes(img, holes, err);
	l->known |= bit;
	l->holes |= *holes ? bit : 0;
	return r;
}

/* Space that an image has set aside is a hole of its file until something is written there. */
static int look_below(struct layers *l, struct extent *ext, struct err *err)
{
	struct extent below;
	bool holes;
	int r = layer_has_holes(l, ext->depth, &holes, err);

	if (r < 0 || !holes || !ext->io)
		return r;
	if (ext->host >= io_size(ext->io)) {
		ext->kind = EXT_ZERO;
		return 0;
	}
	r = io_map(ext->io, ext->host, min_u64(ext->len, io_size(ext->io) - ext->host), &below,
		   err);
	if (r < 0)
		return r;
	ext->len = below.len;
	if (below.kind != EXT_DATA)
		ext->kind = EXT_ZERO;
	return 0;
}

/* Bytes of clusters of the new image that hold data of src. */
static int count_data(const struct measure_options *o, struct io *src, struct job *job,
		      uint64_t *bytes, struct err *err)
{
	struct layers layers = {.src = src};
	uint64_t size = io_size(src), off = 0;

	job_total(job, size);
	while (off < size) {
		struct extent ext;
		uint64_t end;
		int r = io_map(src, off, size - off, &ext, err);

		if (r == 0 && ext.kind == EXT_DATA)
			r = look_below(&layers, &ext, err);
		if (r < 0)
			return err_ctx(err, r, "Unable to get block status");
		if (job_cancelled(job))
			return err_set(err, ECANCELED, "cancelled");
		end = off + ext.len;
		if (ext.kind == EXT_DATA || ext.kind == EXT_CODED) {
			end = round_up(end, o->cluster);
			*bytes += end - round_down(off, o->cluster);
		}
		job_advance(job, min_u64(end, size) - off);
		off = end;
	}
	return 0;
}

/* Bitmaps of a qcow2 source that could be copied along. */
static int count_bitmaps(const struct measure_options *o, struct io *src,
			 struct measure_result *res, struct err *err)
{
	struct qcow2 *q;

	if (o->version < 3 || !io_is_img(src) || io_img(src)->fmt != &qcow2_format)
		return 0;
	q = qcow2_of(io_img(src));
	res->has_bitmaps = q->h.version >= 3;
	if (!res->has_bitmaps)
		return 0;
	return bitmaps_measure(q->img.file, &q->h, o->cluster, &res->bitmaps, err);
}

int qcow2_measure(const struct create_args *args, struct io *src, struct measure_result *res,
		  struct job *job, struct err *err)
{
	struct measure_options o = {0};
	uint64_t size, data = 0;
	int r = parse_options(args, &o, err);

	memset(res, 0, sizeof(*res));
	if (r < 0)
		return r;
	size = src ? io_size(src) : args->size;
	if (div_up(div_up(size, o.cluster), o.cluster / o.entry_size) > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, EFBIG,
			       "The image size is too large (try using a larger cluster size)");
	size = round_up(size, o.cluster);
	if (src && !o.backing)
		r = count_data(&o, src, job, &data, err);
	if (r == 0 && src)
		r = count_bitmaps(&o, src, res, err);
	if (r < 0)
		return r;
	/* What of src the new image's backing file has is not known: assume nothing. */
	if (o.preallocated || (src && o.backing))
		data = size;
	res->fully_allocated = full_size(&o, size);
	res->required = res->fully_allocated - size + data;
	return 0;
}
