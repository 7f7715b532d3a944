// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Options of new qcow2 images: what there is, and which values go together. Names, order, limits
 * and messages are the peer's (qemu-img 7.2).
 */
#include "formats/qcow2/build.h"

#include <errno.h>
#include <stdlib.h>

/* In the order in which `create` says them. What is checked after that line is a string here. */
const struct opt qcow2_create_opts[] = {
	{.name = "encryption",
	 .type = OPT_BOOL,
	 .help = "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
	 .refused = true},
	{.name = "encrypt.format",
	 .type = OPT_STRING,
	 .help = "Encrypt the image, format choices: 'aes', 'luks'",
	 .refused = true},
	{.name = "encrypt.key-secret",
	 .type = OPT_STRING,
	 .help = "ID of secret providing qcow AES key or LUKS passphrase",
	 .refused = true},
	{.name = "encrypt.cipher-alg",
	 .type = OPT_STRING,
	 .help = "Name of encryption cipher algorithm",
	 .refused = true},
	{.name = "encrypt.cipher-mode",
	 .type = OPT_STRING,
	 .help = "Name of encryption cipher mode",
	 .refused = true},
	{.name = "encrypt.ivgen-alg",
	 .type = OPT_STRING,
	 .help = "Name of IV generator algorithm",
	 .refused = true},
	{.name = "encrypt.ivgen-hash-alg",
	 .type = OPT_STRING,
	 .help = "Name of IV generator hash algorithm",
	 .refused = true},
	{.name = "encrypt.hash-alg",
	 .type = OPT_STRING,
	 .help = "Name of encryption hash algorithm",
	 .refused = true},
	{.name = "encrypt.iter-time",
	 .type = OPT_UINT,
	 .help = "Time to spend in PBKDF in milliseconds",
	 .refused = true},
	{.name = "cluster_size", .type = OPT_SIZE, .help = "qcow2 cluster size", .def = "65536"},
	{.name = "extended_l2", .type = OPT_BOOL, .help = "Extended L2 tables", .def = "off"},
	{.name = "preallocation",
	 .type = OPT_STRING,
	 .help = "Preallocation mode (allowed values: off, metadata, falloc, full)"},
	{.name = "compression_type",
	 .type = OPT_STRING,
	 .help = "Compression method used for image cluster compression",
	 .def = "zlib"},
	{.name = "size", .type = OPT_SIZE, .help = "Virtual disk size"},
	{.name = "compat",
	 .type = OPT_STRING,
	 .help = "Compatibility level (v2 [0.10] or v3 [1.1])"},
	{.name = "backing_file", .type = OPT_STRING, .help = "File name of a base image"},
	{.name = "backing_fmt", .type = OPT_STRING, .help = "Image format of the base image"},
	{.name = "data_file", .type = OPT_STRING, .help = "File name of an external data file"},
	{.name = "data_file_raw",
	 .type = OPT_BOOL,
	 .help = "The external data file must stay valid as a raw image"},
	{.name = "lazy_refcounts",
	 .type = OPT_BOOL,
	 .help = "Postpone refcount updates",
	 .def = "off"},
	{.name = "refcount_bits",
	 .type = OPT_UINT,
	 .help = "Width of a reference count entry in bits",
	 .def = "16"},
	{.name = NULL},
};

static int refuse_unsupported(const struct opts *opts, struct err *err)
{
	for (const struct opt *o = qcow2_create_opts; o->name; o++) {
		bool given = o->refused && opts_get(opts, o->name);
		int r = given && o->type == OPT_BOOL ? opts_bool(opts, o->name, &given, err) : 0;

		if (r < 0)
			return r;
		if (given)
			return err_set(err, ENOTSUP,
				       "Option '%s' is not supported for new qcow2 images",
				       o->name);
	}
	return 0;
}

/* An enum whose messages name it otherwise than the option does. */
static int choice(const struct opts *opts, const char *option, const char *said,
		  const char *const *choices, int *out, struct err *err)
{
	if (opts_enum(opts, option, choices, out, NULL) == 0)
		return 0;
	return err_set(err, EINVAL, "Parameter '%s' does not accept value '%s'", said,
		       opts_get(opts, option));
}

static int parse_choices(const struct opts *opts, struct qcow2_build_options *o, struct err *err)
{
	static const char *const compats[] = {"0.10", "v2", "1.1", "v3", NULL};
	static const char *const codecs[] = {"zlib", "zstd", NULL};
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
	int compat = 3, codec = COMPRESSION_ZLIB, r;

	o->prealloc = PREALLOC_OFF;
	r = choice(opts, "compat", "version", compats, &compat, err);
	if (r == 0)
		r = choice(opts, "compression_type", "compression-type", codecs, &codec, err);
	if (r == 0)
		r = choice(opts, "preallocation", "preallocation", modes, &o->prealloc, err);
	o->h.version = compat < 2 ? 2 : 3;
	o->h.compression = (uint8_t)codec;
	if (codec != COMPRESSION_ZLIB)
		o->h.incompat |= INCOMPAT_COMPRESSION;
	return r;
}

static int parse_cluster_size(const struct opts *opts, struct qcow2_build_options *o,
			      struct err *err)
{
	uint64_t size = 64 * KiB;
	int r = opts_size(opts, "cluster_size", &size, err);

	if (r < 0)
		return r;
	if (!is_pow2(size) || size < UINT64_C(1) << QCOW2_MIN_CLUSTER_BITS ||
	    size > UINT64_C(1) << QCOW2_MAX_CLUSTER_BITS)
		return err_set(err, EINVAL,
			       "Cluster size must be a power of two between 512 and 2048k");
	o->h.cluster_bits = log2_u64(size);
	return 0;
}

static int parse_data_file(const struct create_args *args, struct qcow2_build_options *o,
			   struct err *err)
{
	const char *name = opts_get(args->opts, "data_file");
	bool raw = false;
	int r = opts_bool(args->opts, "data_file_raw", &raw, err);

	if (r < 0)
		return r;
	if (raw && !name)
		return err_set(err, EINVAL, "data-file-raw requires data-file");
	if (raw && args->backing)
		return err_set(err, EINVAL,
			       "Backing file and data-file-raw cannot be used at the same time");
	if (name && o->h.version < 3)
		return err_set(err, EINVAL,
			       "External data files are only supported with compatibility level "
			       "1.1 and above (use version=v3 or greater)");
	if (!name)
		return 0;
	if (!args->data)
		return err_set(err, EINVAL, "'data-file' is required for this image");
	o->h.incompat |= INCOMPAT_DATA_FILE;
	if (raw)
		o->h.autoclear |= AUTOCLEAR_RAW_DATA;
	/* The file by itself can say nothing of what is not there: all of it is mapped. */
	if (raw && o->prealloc == PREALLOC_OFF)
		o->prealloc = PREALLOC_METADATA;
	o->h.data_file = strdup(name);
	return o->h.data_file ? 0 : err_nomem(err, strlen(name) + 1, "the header");
}

/* The rules of version 2, and of what excludes what, in the peer's order. */
static int parse_features(const struct create_args *args, struct qcow2_build_options *o,
			  struct err *err)
{
	uint64_t bits = 16;
	bool lazy = false, extended = false;
	int r = opts_bool(args->opts, "lazy_refcounts", &lazy, err);

	if (r == 0)
		r = opts_uint(args->opts, "refcount_bits", &bits, err);
	if (r == 0)
		r = opts_bool(args->opts, "extended_l2", &extended, err);
	if (r < 0)
		return r;
	if (extended && o->h.version < 3)
		return err_set(err, EINVAL,
			       "Extended L2 entries are only supported with compatibility level "
			       "1.1 and above (use version=v3 or greater)");
	if (extended && o->h.cluster_bits < 14)
		return err_set(err, EINVAL,
			       "Extended L2 entries are only supported with cluster sizes of at "
			       "least 16384 bytes");
	if (extended)
		o->h.incompat |= INCOMPAT_EXTL2;
	if (o->prealloc != PREALLOC_OFF && args->backing && !extended)
		return err_set(err, EINVAL,
			       "Backing file and preallocation can only be used at the same time "
			       "if extended_l2 is on");
	if (args->backing_format && !args->backing)
		return err_set(err, EINVAL, "Backing format cannot be used without backing file");
	if (lazy && o->h.version < 3)
		return err_set(err, EINVAL,
			       "Lazy refcounts only supported with compatibility level 1.1 and "
			       "above (use version=v3 or greater)");
	if (!is_pow2(bits) || bits > 64)
		return err_set(err, EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	if (bits != 16 && o->h.version < 3)
		return err_set(err, EINVAL,
			       "Different refcount widths than 16 bits require compatibility "
			       "level 1.1 or above (use version=v3 or greater)");
	r = parse_data_file(args, o, err);
	if (r < 0)
		return r;
	if (o->h.compression != COMPRESSION_ZLIB && o->h.version < 3)
		return err_set(err, EINVAL,
			       "Non-zlib compression type is only supported with compatibility "
			       "level 1.1 and above (use version=v3 or greater)");
	if (lazy)
		o->h.compat |= COMPAT_LAZY_REFCOUNTS;
	o->h.refcount_order = log2_u64(bits);
	return 0;
}

static int copy_text(const char *from, char **to, struct err *err)
{
	if (!from)
		return 0;
	*to = strdup(from);
	return *to ? 0 : err_nomem(err, strlen(from) + 1, "the header");
}

int qcow2_build_options(const struct create_args *args, struct qcow2_build_options *o,
			struct err *err)
{
	int r = refuse_unsupported(args->opts, err);

	if (r == 0)
		r = parse_choices(args->opts, o, err);
	if (r == 0)
		r = parse_cluster_size(args->opts, o, err);
	if (r == 0)
		r = parse_features(args, o, err);
	if (r == 0)
		r = copy_text(args->backing, &o->h.backing_name, err);
	if (r == 0)
		r = copy_text(args->backing_format, &o->h.backing_format, err);
	if (r < 0)
		return r;
	if (args->size > header_max_size(&o->h) || args->size > INT64_MAX - 511)
		return err_set(err, EFBIG,
			       "The image size is too large for file format 'qcow2' (try using a "
			       "larger cluster size)");
	o->h.size = round_up(args->size, 512);
	o->h.has_features = o->h.version >= 3 && o->h.cluster_bits > 12;
	return 0;
}
