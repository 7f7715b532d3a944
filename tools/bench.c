// SPDX-License-Identifier: GPL-2.0-or-later
/* img bench: how many requests an image answers in a second. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli.h"
#include "ops/bench.h"

enum { FLUSH_INTERVAL = CLI_LONG, NO_DRAIN, PATTERN, OUTPUT, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'c', "count", "N", "number of requests (75000)"},
	{'d', "depth", "N", "requests in flight at the same time (64)"},
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{FLUSH_INTERVAL, "flush-interval", "N", "with -w: flush after every N requests"},
	{'i', "aio", "AIO", "how requests are made: threads; native and io_uring are refused"},
	{'n', "native", NULL, "the same as -i native"},
	{NO_DRAIN, "no-drain", NULL, "do not wait for other requests before a flush"},
	{'o', "offset", "SIZE", "where the first request begins (0)"},
	{PATTERN, "pattern", "BYTE", "what is written (0)"},
	{'s', "buffer-size", "SIZE", "bytes of a request (4k)"},
	{'S', "step-size", "SIZE", "from one request to the next (as -s)"},
	{'t', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'w', "write", NULL, "write, which destroys what the image holds"},
	{OUTPUT, "output", "human|json", "how to print the result"},
	{'U', "force-share", NULL, "read an image that another process may be writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	CLI_OPT_EXTERNAL,
	{'q', "quiet", NULL, "print the result only"},
	{0},
};

struct bench_cmd {
	struct img_open_args open;
	struct bench_args bench;
	uint64_t depth, step;
	unsigned args;
	bool step_given, native, json, quiet;
};

/* ---- the result ---- */

static void announce(const struct bench_cmd *c)
{
	const struct bench_args *b = &c->bench;

	printf("Sending %" PRIu64 " %s requests, %zu bytes each, %" PRIu64
	       " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
	       b->count, b->write ? "write" : "read", b->size, c->depth, b->offset, b->step);
	if (b->flush_interval)
		printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
	fflush(stdout);
}

static json_t *result_json(const struct bench_cmd *c, const struct bench_result *res)
{
	double s = res->seconds > 0 ? res->seconds : 1e-9;
	json_t *v = json_object();

	json_set_text(v, "operation", c->bench.write ? "write" : "read");
	json_set_u64(v, "requests", res->requests);
	json_set_u64(v, "bytes", res->bytes);
	json_set_u64(v, "flushes", res->flushes);
	json_set_u64(v, "depth", c->depth);
	json_set_u64(v, "most-in-flight", res->most);
	json_set_u64(v, "microseconds", (uint64_t)(res->seconds * 1e6));
	json_set_u64(v, "requests-per-second", (uint64_t)((double)res->requests / s));
	if (json_set_u64(v, "bytes-per-second", (uint64_t)((double)res->bytes / s)) == 0)
		return v;
	json_decref(v);
	return NULL;
}

static int print_result(const struct cli *cli, const struct bench_cmd *c,
			const struct bench_result *res)
{
	if (c->json)
		return cli_finish_output(cli, cli_print_json(cli, result_json(c, res)));
	printf("Run completed in %3.3f seconds.\n", res->seconds);
	return cli_finish_output(cli, 0);
}

static int failed(const struct cli *cli, int r, const struct err *err)
{
	if (!cli->peer)
		return cli_error(cli, "Failed request: %s", err->msg);
	return cli_error(cli, "Failed request: %s", strerror(r == -EINVAL ? EIO : -r));
}

static int bench(const struct cli *cli, const struct bench_cmd *c, struct img *img)
{
	struct bench_result res;
	struct progress *progress;
	struct job job = {0};
	struct err err = {0};
	int r, sig;

	if (!c->json && (!c->quiet || cli->peer))
		announce(c);
	progress = progress_start(cli, PROGRESS_NONE, "bench", &job);
	r = bench_run(&img->io, &c->bench, &res, &job, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && sig) {
		img_settle(img, NULL); /* before we die: clusters would leak, bitmaps be void */
		return cli_interrupted(cli, sig);
	}
	if (r == 0 && c->bench.write)
		r = img_settle(img, &err);
	return r < 0 ? failed(cli, r, &err) : print_result(cli, c, &res);
}

/* ---- the command line ---- */

static bool parse_number(const struct cli *cli, const char *what, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(cli->arg, &end, 0);
	if (!errno && end != cli->arg && !*end && cli->arg[0] != '-' && *out <= max)
		return true;
	cli_error(cli, "Invalid %s specified", what);
	return false;
}

static bool parse_bytes(const struct cli *cli, const char *what, uint64_t min, uint64_t *out)
{
	if (!cli_size(cli, what, cli->arg, out))
		return false;
	if (*out >= min && *out <= INT32_MAX)
		return true;
	cli_error(cli, "Invalid %s specified. Must be between %" PRIu64 " and %" PRId32 ".", what,
		  min, INT32_MAX);
	return false;
}

static bool parse_aio(const struct cli *cli, struct bench_cmd *c)
{
	bool native = strcmp(cli->arg, "native") == 0;

	if (strcmp(cli->arg, "threads") == 0)
		return true;
	if (!native && strcmp(cli->arg, "io_uring") != 0)
		cli_error(cli, "Invalid aio option: %s", cli->arg);
	else if (!cli->peer)
		cli_error(cli, "-i %s is not supported: requests are made by threads", cli->arg);
	else
		c->native = native;
	return cli->peer && (native || strcmp(cli->arg, "io_uring") == 0);
}

static bool take(struct cli *cli, struct bench_cmd *c, int id)
{
	uint64_t n = 0;
	bool ok = true;

	switch (id) {
	case CLI_ARG:
		c->open.path = cli->arg;
		c->args++;
		break;
	case 'c':
		return parse_number(cli, "request count", INT32_MAX, &c->bench.count);
	case 'd':
		return parse_number(cli, "queue depth", BENCH_MAX_DEPTH, &c->depth);
	case 'f':
		c->open.format = cli->arg;
		break;
	case FLUSH_INTERVAL:
		return parse_number(cli, "flush interval", INT32_MAX, &c->bench.flush_interval);
	case 'i':
		return parse_aio(cli, c);
	case 'n':
		cli->arg = (char[]){"native"};
		return parse_aio(cli, c);
	case NO_DRAIN:
		c->bench.drain = false;
		break;
	case 'o':
		return cli_size(cli, "offset", cli->arg, &c->bench.offset);
	case PATTERN:
		ok = parse_number(cli, "pattern byte", 0xff, &n);
		c->bench.pattern = (unsigned char)n;
		break;
	case 's':
		ok = parse_bytes(cli, "buffer size", cli->peer ? 0 : 1, &n);
		c->bench.size = n;
		break;
	case 'S':
		c->step_given = true;
		return parse_bytes(cli, "step_size", 0, &c->step);
	case 't':
		ok = cli_cache(cli, cli->arg, &c->open.flags);
		break;
	case 'w':
		c->bench.write = true;
		break;
	case OUTPUT:
		return cli_output(cli, cli->arg, &c->json);
	case 'U':
		c->open.flags |= IMG_SHARE;
		break;
	case UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		break;
	case 'q':
		c->quiet = true;
		break;
	}
	return ok;
}

static bool validate(const struct cli *cli, struct bench_cmd *c)
{
	struct bench_args *b = &c->bench;

	if (c->args != 1)
		cli_usage(cli, "Expecting one image file name");
	else if (!b->write && b->flush_interval)
		cli_error(cli, "--flush-interval is only available in write tests");
	else if (b->flush_interval && b->flush_interval < c->depth)
		cli_error(cli, "Flush interval can't be smaller than depth");
	else if (!c->depth)
		cli_error(cli, "Invalid queue depth specified");
	else if (c->native && !(c->open.flags & IMG_DIRECT))
		cli_error(cli,
			  "Could not open '%s': aio=native was specified, but it requires "
			  "cache.direct=on, which was not specified.",
			  c->open.path);
	else if (b->write && (c->open.flags & IMG_SHARE))
		cli_error(cli,
			  "Could not open '%s': force-share=on can only be used with read-only "
			  "images",
			  c->open.path);
	else
		return true;
	return false;
}

static int run(struct cli *cli)
{
	struct bench_cmd c = {
		.bench = {.count = 75000, .size = 4096, .drain = true},
		.depth = 64,
	};
	struct img *img;
	int id, code;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take(cli, &c, id))
			return 1;
	}
	if (!validate(cli, &c))
		return 1;
	c.bench.depth = (unsigned)c.depth;
	c.bench.step = c.step_given && c.step ? c.step : c.bench.size;
	c.open.flags |= c.bench.write ? IMG_RDWR : 0;
	img = cli_open(cli, &c.open);
	if (!img)
		return 1;
	code = bench(cli, &c, img);
	io_close(&img->io);
	return code;
}

const struct cmd cmd_bench = {
	.name = "bench",
	.summary = "Measure how fast an image answers requests",
	.args = "FILE",
	.opts = options,
	.run = run,
};
