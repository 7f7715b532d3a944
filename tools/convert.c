// SPDX-License-Identifier: GPL-2.0-or-later
/* img convert: copies disks from any format to any format. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "cli.h"
#include "io/file.h"
#include "io/stream.h"
#include "ops/convert.h"

enum {
	BITMAPS = CLI_LONG,
	FORCE,
	LEVEL,
	OUTPUT,
	PROGRESS,
	RESUME,
	SALVAGE,
	SKIP_BROKEN,
	SNAPSHOTS,
	TARGET_IMAGE_OPTS,
	TARGET_IS_ZERO,
	UNTRUSTED,
	WINDOW,
};

static const struct cmd_opt options[] = {
	{'f', "source-format", "FMT", "format of the sources (default: found out)"},
	CLI_OPT_IMAGE_OPTS,
	{TARGET_IMAGE_OPTS, "target-image-opts", NULL,
	 "TARGET is driver=…,file.filename=…; needs -n"},
	CLI_OPT_OBJECT,
	{'O', "target-format", "FMT", "format of the target (default: raw)"},
	{'o', "options", "OPTS", "options of the target, key=value,…; 'help' lists them"},
	{'c', "compress", NULL, "compress the target"},
	{LEVEL, "compression-level", "N", "1 fast … 9, 12, 19 small (what the codec has)"},
	{WINDOW, "compression-window", "wide|narrow",
	 "narrow: zlib data for readers with a 4 KiB window (slower, larger)"},
	{'b', "target-backing", "FILE", "copy the top layer only, to an overlay over this file"},
	{'B', NULL, "FILE", "the same as -b"},
	{'F', "target-backing-format", "FMT", "format of the target's backing file"},
	{'l', "snapshot", "SNAPSHOT", "copy an internal snapshot of the source (id or name)"},
	{SNAPSHOTS, "snapshots", NULL, "copy all internal snapshots of the source, too"},
	{BITMAPS, "bitmaps", NULL, "copy the persistent bitmaps of the source, too"},
	{SKIP_BROKEN, "skip-broken-bitmaps", NULL, "with --bitmaps: but for inconsistent ones"},
	{'S', "sparse-size", "SIZE", "shortest run of zeros that becomes a hole (4k; 0: none)"},
	{'n', "no-create", NULL, "write into a target that exists already"},
	{TARGET_IS_ZERO, "target-is-zero", NULL, "with -n: the target reads as zeros"},
	{FORCE, "force", NULL, "replace a target that exists and is not empty"},
	{OUTPUT, "output", "FILE",
	 "the target, instead of the last argument; '-': standard output"},
	{'m', "parallel", "N", "number of threads (default: one per CPU)"},
	{'W', "oob-writes", NULL, "place data as it comes; the target may differ from run to run"},
	{'C', "copy-range-offloading", NULL, "let the kernel copy or share blocks"},
	{RESUME, "resume", NULL, "go on with what an interrupted run with --resume left"},
	{'r', "rate-limit", "RATE", "bytes per second at most"},
	{SALVAGE, "salvage", NULL, "take zeros for what cannot be read, and go on"},
	{'t', "cache", "CACHE", "of the target: none, writeback, … (default: unsafe)"},
	{'T', "source-cache", "CACHE", "of the sources (default: writeback)"},
	{'U', "force-share", NULL, "read sources that another process may be writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'q', "quiet", NULL, "print errors only"},
	{CLI_IMAGE_OPTS, "source-image-opts", NULL, NULL},
	{'o', "target-format-options", "OPTS", NULL},
	{'t', "target-cache", "CACHE", NULL},
	{'b', "backing", "FILE", NULL},
	{'F', "backing-format", "FMT", NULL},
	{0},
};

#define MAX_WORKERS      256
#define MAX_WORKERS_PEER 16
#define MAX_SPARSE       (16 * MiB)

struct convert_cmd {
	struct convert_request req;
	const char *source_format, *target_format;
	unsigned source_flags, target_flags; /* IMG_… */
	const char *snapshot, *output;
	char **args;
	unsigned n_args;
	struct opts opts;
	bool help, force, in_place, quiet, sparse_given, target_opts, kept;
	enum progress_mode progress;

	/* opened */
	struct img **src;
	unsigned n_src;
	struct io *in, *out;
	struct img *dst;
	struct job job;
};

/* ---- the command line ---- */

static bool parse_options_arg(struct cli *cli, struct convert_cmd *c)
{
	struct err err = {0};

	if (opts_parse(&c->opts, cli->arg, &err) < 0) {
		cli_error(cli, "%s", err.msg);
		return false;
	}
	c->help = c->help || opts_get(&c->opts, "help") || opts_get(&c->opts, "?");
	return true;
}

static bool parse_sparse(struct cli *cli, struct convert_cmd *c)
{
	uint64_t size;

	if (!cli_size(cli, "buffer size for sparse output", cli->arg, &size))
		return false;
	if (!is_aligned(size, 512) || size > MAX_SPARSE) {
		cli_error(cli,
			  "Invalid buffer size for sparse output specified. Valid sizes are "
			  "multiples of 512 up to %" PRIu64 ". Select 0 to disable sparse "
			  "detection (fully allocates output).",
			  MAX_SPARSE);
		return false;
	}
	c->req.copy.sparse = size;
	c->sparse_given = true;
	return true;
}

static bool parse_workers(struct cli *cli, struct convert_cmd *c)
{
	unsigned max = cli->peer ? MAX_WORKERS_PEER : MAX_WORKERS;
	char *end;
	unsigned long n = strtoul(cli->arg, &end, 10);

	if (*end || end == cli->arg || cli->arg[0] == '-' || n < 1 || n > max) {
		cli_error(cli, "Invalid number of %s. Allowed number of %s is between 1 and %u",
			  cli->peer ? "coroutines" : "threads",
			  cli->peer ? "coroutines" : "threads", max);
		return false;
	}
	c->req.copy.workers = (unsigned)n;
	return true;
}

static bool parse_level(struct cli *cli, struct convert_cmd *c)
{
	uint64_t level;

	if (!cli_uint(cli, "compression level", cli->arg, 1, 22, &level))
		return false;
	c->req.copy.level = (int)level;
	return true;
}

static bool parse_window(struct cli *cli, struct convert_cmd *c)
{
	c->req.copy.narrow = strcmp(cli->arg, "narrow") == 0;
	if (c->req.copy.narrow || strcmp(cli->arg, "wide") == 0)
		return true;
	cli_error(cli, "Invalid compression window '%s': wide or narrow is needed", cli->arg);
	return false;
}

/* What is copied and how. */
static bool parse_copy_option(struct cli *cli, struct convert_cmd *c, int id)
{
	struct copy_args *copy = &c->req.copy;

	switch (id) {
	case 'c':
		copy->compress = true;
		return true;
	case LEVEL:
		return parse_level(cli, c);
	case WINDOW:
		return parse_window(cli, c);
	case 'S':
		return parse_sparse(cli, c);
	case 'm':
		return parse_workers(cli, c);
	case 'W':
		copy->unordered = true;
		return true;
	case 'C':
		copy->offload = true;
		return true;
	case 'r':
		return cli_size(cli, "rate limit", cli->arg, &copy->rate);
	case SALVAGE:
		copy->salvage = true;
		return true;
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	case PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	default: /* 'q' */
		c->quiet = true;
		return true;
	}
}

static bool parse_option(struct cli *cli, struct convert_cmd *c, int id)
{
	switch (id) {
	case CLI_ARG:
		c->args[c->n_args++] = cli->arg;
		return true;
	case 'f':
		c->source_format = cli->arg;
		return true;
	case 'O':
		c->target_format = cli->arg;
		return true;
	case TARGET_IMAGE_OPTS:
		c->target_opts = true;
		return true;
	case 'o':
		return parse_options_arg(cli, c);
	case 'b':
	case 'B':
		c->req.backing = cli->arg;
		return true;
	case 'F':
		c->req.backing_format = cli->arg;
		return true;
	case 'l':
		c->snapshot = cli->arg;
		return true;
	case BITMAPS:
		c->req.bitmaps = true;
		return true;
	case SNAPSHOTS:
		c->req.snapshots = true;
		return true;
	case SKIP_BROKEN:
		c->req.skip_broken_bitmaps = true;
		return true;
	case 'n':
		c->in_place = true;
		return true;
	case TARGET_IS_ZERO:
		c->req.dst_is_zero = true;
		return true;
	case FORCE:
		c->force = true;
		return true;
	case RESUME:
		c->req.resume = true;
		return true;
	case OUTPUT:
		c->output = cli->arg;
		return true;
	case 't':
		return cli_cache(cli, cli->arg, &c->target_flags);
	case 'T':
		return cli_source_cache(cli, cli->arg, &c->source_flags);
	case 'U':
		c->source_flags |= IMG_SHARE;
		return true;
	case UNTRUSTED:
		c->source_flags |= IMG_UNTRUSTED;
		return true;
	default:
		return parse_copy_option(cli, c, id);
	}
}

static bool conflict(const struct cli *cli, const char *text)
{
	cli_error(cli, "%s", text);
	return false;
}

static bool check_offload(const struct cli *cli, const struct convert_cmd *c)
{
	const struct copy_args *copy = &c->req.copy;

	if (!copy->offload)
		return true;
	if (copy->compress)
		return conflict(cli, "Cannot enable copy offloading when -c is used");
	if (c->sparse_given)
		return conflict(cli, "Cannot enable copy offloading when -S is used");
	if (copy->salvage)
		return conflict(cli, "Cannot use copy offloading in salvaging mode");
	return true;
}

/* Of what can be resumed, every byte has its place, which a second run finds again. */
static bool check_resume(const struct cli *cli, const struct convert_cmd *c)
{
	if (!c->req.resume)
		return true;
	if (c->in_place)
		return conflict(cli, "--resume makes a new target: it cannot be used with -n");
	if (c->req.snapshots)
		return conflict(cli,
				"--resume copies one disk: it cannot be used with --snapshots");
	if (c->req.copy.unordered)
		return conflict(cli, "--resume needs data in order: it cannot be used with -W");
	if (c->req.copy.salvage)
		return conflict(cli,
				"--resume compares what is there with the source: it cannot be "
				"used with --salvage");
	return true;
}

/* What does not go together, in the peer's order. */
static bool validate(const struct cli *cli, struct convert_cmd *c)
{
	const struct copy_args *copy = &c->req.copy;

	if (!check_offload(cli, c) || !check_resume(cli, c))
		return false;
	if ((copy->level || copy->narrow) && !copy->compress)
		return conflict(cli, "--compression-level and --compression-window need -c");
	if (c->req.skip_broken_bitmaps && !c->req.bitmaps)
		return conflict(cli, "Use of --skip-broken-bitmaps requires --bitmaps");
	if (c->target_opts && !c->in_place)
		return conflict(cli, "--target-image-opts requires use of -n flag");
	if (c->req.dst_is_zero && !c->in_place)
		return conflict(cli, "--target-is-zero requires use of -n flag");
	if (!c->output && c->n_args)
		c->output = c->args[--c->n_args];
	if (!c->n_args || !c->output)
		return conflict(cli, "Must specify image file name");
	if (c->in_place && c->opts.n)
		return conflict(cli, "-o has no effect when skipping image creation");
	if (c->in_place && c->req.backing && !cli->peer)
		return conflict(cli, "-b has no effect when skipping image creation");
	if (c->req.bitmaps && c->n_args > 1)
		return conflict(cli, "Copying bitmaps only possible with single source");
	if (c->req.snapshots && c->snapshot)
		return conflict(cli, "--snapshots copies all of them, -l shows one: not both");
	if (c->req.snapshots && c->n_args > 1)
		return conflict(cli, "Copying snapshots only possible with single source");
	if (c->snapshot && c->n_args > 1)
		return conflict(cli, "No support for concatenating multiple snapshot");
	if (!format_find(c->req.format)) {
		cli_error(cli, "Unknown file format '%s'", c->req.format);
		return false;
	}
	if (!c->in_place && !c->req.backing && opts_get(&c->opts, "backing_file"))
		c->req.backing = opts_get(&c->opts, "backing_file");
	if (!c->in_place && !c->req.backing_format && opts_get(&c->opts, "backing_fmt"))
		c->req.backing_format = opts_get(&c->opts, "backing_fmt");
	if (!c->in_place && c->req.backing && c->n_args > 1)
		return conflict(cli, "Having a backing file for the target makes no sense when "
				     "concatenating multiple input images");
	return true;
}

static bool parse(struct cli *cli, struct convert_cmd *c, int *code)
{
	int id;

	*code = 1;
	c->args = calloc((size_t)cli->argc + 1, sizeof(*c->args));
	if (!c->args) {
		cli_error(cli, "out of memory");
		return false;
	}
	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT) {
			*code = cli_exit_code(cli);
			return false;
		}
		if (!parse_option(cli, c, id))
			return false;
	}
	return true;
}

/* ---- opening ---- */

static bool is_dash(const struct cli *cli, const char *name)
{
	return !cli->peer && strcmp(name, "-") == 0;
}

static bool open_failed(const struct cli *cli, const char *path, const struct err *err)
{
	cli_open_error(cli, path, err);
	return false;
}

/* A redirected file is as good as a named one; a pipe can hold raw data only. */
static bool open_stdin(const struct cli *cli, struct convert_cmd *c)
{
	const char *format = c->source_format;
	struct err err = {0};
	struct io *file = NULL;
	struct stat st;

	if (c->n_args > 1)
		return conflict(cli, "Standard input must be the only source");
	if (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode)) {
		int fd = dup(STDIN_FILENO);

		if (fd < 0 || file_from_fd(fd, "standard input", 0, &file, &err) < 0)
			return open_failed(cli, "-", &err);
		if (img_open_io(file, format, c->source_flags | IMG_NO_BACKING, NULL, &c->src[0],
				&err) < 0) {
			io_close(file);
			return open_failed(cli, "-", &err);
		}
		c->n_src = 1;
		return true;
	}
	if (!format || strcmp(format, "raw") != 0)
		return conflict(cli, "A pipe as source needs -f raw: other formats cannot be read "
				     "from front to back");
	if (c->snapshot)
		return conflict(cli, "A pipe as source has no snapshots");
	if (c->req.resume)
		return conflict(cli,
				"A pipe as source cannot be read again: --resume cannot be used");
	if (stream_open(STDIN_FILENO, "standard input", false, &c->job, &c->in, &err) < 0)
		return open_failed(cli, "-", &err);
	c->req.stream = c->in;
	return true;
}

static bool load_bitmaps(const struct cli *cli, struct img *img)
{
	struct err err = {0};
	unsigned n;

	return img_bitmaps(img, &n, &err) == 0 || conflict(cli, err.msg);
}

static bool open_sources(const struct cli *cli, struct convert_cmd *c)
{
	c->src = calloc(c->n_args, sizeof(struct img *));
	if (!c->src)
		return conflict(cli, "out of memory");
	c->req.src = c->src;
	if (is_dash(cli, c->args[0]) && !cli->image_opts) {
		if (!open_stdin(cli, c))
			return false;
	}
	while (!c->in && c->n_src < c->n_args) {
		struct img_open_args args = {
			.path = c->args[c->n_src],
			.format = c->source_format,
			.flags = c->source_flags,
		};

		if (is_dash(cli, args.path) && !cli->image_opts)
			return conflict(cli, "Standard input must be the only source");
		c->src[c->n_src] = cli_open(cli, &args);
		if (!c->src[c->n_src])
			return false;
		c->n_src++;
	}
	c->req.n_src = c->n_src;
	/* A view of a snapshot may be of another size than the bitmaps. */
	if (c->req.bitmaps && c->n_src && !load_bitmaps(cli, c->src[0]))
		return false;
	return c->in || !c->snapshot || cli_view_snapshot(cli, c->src[0], c->snapshot);
}

/* What copied snapshots may add. */
static uint64_t snapshot_sizes(const struct convert_cmd *c, struct img *img)
{
	unsigned n;
	const struct snapshot *list = img_snapshots(img, &n);
	uint64_t size = 0;

	for (unsigned i = 0; c->req.snapshots && i < n; i++) {
		size += min_u64(list[i].disk_size, UINT64_MAX - size);
		size += min_u64(list[i].vm_state_size, UINT64_MAX - size);
	}
	return size;
}

/* The kernel limits files, and lets a pipe have anything. */
static bool fits_output(const struct cli *cli, const struct convert_cmd *c)
{
	uint64_t size = 0;

	for (unsigned i = 0; i < c->n_src; i++) {
		size += min_u64(io_size(&c->src[i]->io), UINT64_MAX - size);
		size += min_u64(snapshot_sizes(c, c->src[i]), UINT64_MAX - size);
	}
	if (!cli->output_limit || size <= cli->output_limit)
		return true;
	cli_error(cli,
		  "The disk has %" PRIu64 " bytes, --untrusted allows %" PRIu64
		  " of output (--untrusted=output=SIZE)",
		  size, cli->output_limit);
	return false;
}

static bool open_stdout(struct cli *cli, struct convert_cmd *c)
{
	struct err err = {0};

	if (c->in_place)
		return conflict(cli, "-n needs a target that exists, not a stream");
	if (c->req.resume)
		return conflict(cli, "--resume needs a target that is a file, not a stream");
	if (isatty(STDOUT_FILENO))
		return conflict(cli, "Refusing to write an image to a terminal");
	cli->stdout_taken = true;
	if (!fits_output(cli, c))
		return false;
	if (stream_open(STDOUT_FILENO, "standard output", true, &c->job, &c->out, &err) < 0)
		return open_failed(cli, "-", &err);
	c->req.pipe = c->out;
	return true;
}

/* --image-opts is about the sources. */
static bool open_existing_target(const struct cli *cli, struct convert_cmd *c,
				 const struct img_open_args *args, bool described)
{
	struct cli own = *cli;

	own.image_opts = described;
	c->dst = cli_open(&own, args);
	c->req.dst = c->dst;
	return c->dst != NULL;
}

static bool open_described_target(const struct cli *cli, struct convert_cmd *c)
{
	const struct img_open_args args = {
		.path = c->output,
		.format = c->target_format,
		.flags = IMG_RDWR | c->target_flags | (c->source_flags & IMG_UNTRUSTED),
	};

	return open_existing_target(cli, c, &args, true);
}

/* How a target that is there already is replaced. */
static unsigned target_flags(const struct cli *cli, const struct convert_cmd *c)
{
	if (cli->peer && !c->req.resume)
		return TARGET_IN_PLACE;
	return cli->peer || c->force ? TARGET_FORCE : 0;
}

static bool open_target(struct cli *cli, struct convert_cmd *c)
{
	struct img_open_args args = {.path = c->output, .format = c->req.format};

	if (c->target_opts)
		return open_described_target(cli, c);
	if (is_dash(cli, c->output))
		return open_stdout(cli, c);
	if (!c->in_place) {
		c->req.path = cli_new_path(cli, c->output, &c->req.target_flags);
		if (!c->req.path)
			return false;
		c->req.target_flags |= target_flags(cli, c);
		c->req.target_flags |=
			c->target_flags & IMG_UNSAFE ? TARGET_UNSAFE : TARGET_DURABLE;
		if (c->target_flags & IMG_DIRECT)
			c->req.target_flags |= TARGET_DIRECT;
		return true;
	}
	args.flags = IMG_RDWR | c->target_flags | (c->source_flags & IMG_UNTRUSTED);
	return open_existing_target(cli, c, &args, false);
}

/* ---- the command ---- */

static int give_options_help(const struct cli *cli, const struct convert_cmd *c)
{
	const struct format *fmt = format_find(c->req.format);

	if (!fmt)
		return cli_error(cli, "Unknown file format '%s'", c->req.format);
	cli_options_help(cli, fmt, c->n_args > 0);
	return cli_finish_output(cli, 0);
}

static void warn(void *ctx, const char *text)
{
	cli_warn(ctx, "%s", text);
}

/* Also without a display: it is why the rest is done so soon. */
static void tell_resumed(void *ctx, uint64_t bytes)
{
	char size[32];

	cli_note(ctx, "%s of the disk are there already and equal to the source: going on",
		 size_format(bytes, size, sizeof(size)));
}

static void tell_kept(const struct cli *cli, const struct convert_cmd *c)
{
	CLEANUP_FREE char *name = NULL;

	if (c->kept && !c->quiet && target_partial_name(c->req.path, &name, NULL) == 0)
		cli_note(cli, "What is done is kept in '%s': the same command goes on with it",
			 name);
}

static int convert_opened(struct cli *cli, struct convert_cmd *c)
{
	struct progress *progress;
	struct err err = {0};
	int r, sig;

	c->req.opts = &c->opts;
	c->req.backing_flags = (c->source_flags & IMG_UNTRUSTED) |
			       (cli->peer ? IMG_NAMED_DEVICES | IMG_PEER_NAMES : 0);
	if (!c->quiet) {
		c->req.copy.warn = warn;
		c->req.copy.resumed = tell_resumed;
		c->req.copy.warn_ctx = cli;
	}
	c->req.view = c->snapshot;
	c->req.kept = &c->kept;
	progress = progress_start(cli, c->quiet ? PROGRESS_NONE : c->progress, "convert", &c->job);
	r = convert(&c->req, &c->job, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && !sig)
		cli_error(cli, "%s", err.msg);
	tell_kept(cli, c);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	if (r == -ESTALE)
		fprintf(stderr,
			"Try --skip-broken-bitmaps, or use '%s bitmap --remove' to delete it\n",
			cli->prog);
	return r < 0;
}

/* What the peer says of the backing file before it looks for that. */
static bool check_backing(const struct cli *cli, const struct convert_cmd *c)
{
	if (c->in_place || !c->req.backing || c->req.backing_format ||
	    !(format_find(c->req.format)->caps & FMT_BACKING))
		return true;
	return conflict(cli, "Use of backing file requires explicit backing format");
}

static void close_all(struct convert_cmd *c)
{
	for (unsigned i = 0; i < c->n_src; i++)
		io_close(&c->src[i]->io);
	if (c->dst)
		io_close(&c->dst->io);
	io_close(c->in);
	io_close(c->out);
	free(c->src);
	free(c->args);
	opts_free(&c->opts);
}

static int run(struct cli *cli)
{
	struct convert_cmd c = {
		.req = {.copy = {.sparse = 4096}},
		.target_flags = IMG_UNSAFE,
		.progress = PROGRESS_NONE,
	};
	int code;

	if (parse(cli, &c, &code)) {
		code = 1;
		c.req.format = c.target_format ? c.target_format : "raw";
		if (c.help)
			code = give_options_help(cli, &c);
		else if (validate(cli, &c) && open_sources(cli, &c) && check_backing(cli, &c) &&
			 open_target(cli, &c))
			code = convert_opened(cli, &c);
	}
	close_all(&c);
	return cli_finish_output(cli, code);
}

const struct cmd cmd_convert = {
	.name = "convert",
	.summary = "Copy a disk to another format or file",
	.args = "SOURCE… TARGET",
	.opts = options,
	.run = run,
};
