// SPDX-License-Identifier: GPL-2.0-or-later
/* img check: finds, and repairs, what is wrong inside an image. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cli.h"

enum { OUTPUT = CLI_LONG, PROGRESS, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{'r', "repair", "leaks|all", "repair leaked clusters only, or all that can be repaired"},
	{OUTPUT, "output", "human|json", "how to print the result"},
	{'p', "progress-bar", NULL, "show progress"},
	{PROGRESS, "progress", "MODE", "the same, in this way: auto, plain, json or none"},
	{'T', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
	{'U', "force-share", NULL, "check an image that another process has open for writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{'q', "quiet", NULL, "print errors only"},
	{0},
};

enum { EXIT_CORRUPT = 2, EXIT_LEAKS = 3, EXIT_NO_CHECK = 63 };

/* Lines of one kind: enough to see the pattern, and what the peer's readers may count on. */
#define MAX_LINES      100
#define MAX_LINES_PEER 100000

struct check_cmd {
	struct img_open_args open;
	unsigned fix;
	bool json, quiet;
	enum progress_mode progress;
};

/* ---- the result ---- */

static void print_problems(const struct check_result *res)
{
	if (!res->corruptions && !res->leaks && !res->check_errors)
		puts("No errors were found on the image.");
	if (res->corruptions)
		printf("\n%" PRIu64 " errors were found on the image.\n"
		       "Data may be corrupted, or further writes to the image may corrupt it.\n",
		       res->corruptions);
	if (res->leaks)
		printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
		       "This means waste of disk space, but no harm to data.\n",
		       res->leaks);
	if (res->check_errors)
		printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
		       res->check_errors);
}

static void print_human(const struct check_result *res)
{
	double allocated = (double)res->allocated_clusters;

	print_problems(res);
	if (res->total_clusters && res->allocated_clusters)
		printf("%" PRIu64 "/%" PRIu64
		       " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
		       res->allocated_clusters, res->total_clusters,
		       allocated * 100.0 / (double)res->total_clusters,
		       (double)res->fragmented_clusters * 100.0 / allocated,
		       (double)res->compressed_clusters * 100.0 / allocated);
	if (res->image_end_offset)
		printf("Image end offset: %" PRIu64 "\n", res->image_end_offset);
}

/* Counters of 0 are left out, but for check-errors. */
static int set_counter(json_t *obj, const char *key, uint64_t n)
{
	return n ? json_set_u64(obj, key, n) : 0;
}

static int print_json(const struct cli *cli, const struct img *img, const struct check_result *res)
{
	json_t *obj = json_object();
	int r = obj ? 0 : -1;

	r |= set_counter(obj, "image-end-offset", res->image_end_offset);
	r |= set_counter(obj, "compressed-clusters", res->compressed_clusters);
	r |= set_counter(obj, "total-clusters", res->total_clusters);
	r |= set_counter(obj, "corruptions", res->corruptions);
	r |= set_counter(obj, "corruptions-fixed", res->corruptions_fixed);
	r |= json_set_u64(obj, "check-errors", res->check_errors);
	r |= set_counter(obj, "leaks", res->leaks);
	r |= set_counter(obj, "leaks-fixed", res->leaks_fixed);
	r |= set_counter(obj, "allocated-clusters", res->allocated_clusters);
	r |= json_set_text(obj, "filename", img->io.name);
	r |= json_set_text(obj, "format", img->fmt->name);
	r |= set_counter(obj, "fragmented-clusters", res->fragmented_clusters);
	if (r != 0) {
		json_decref(obj);
		obj = NULL;
	}
	return cli_print_json(cli, obj);
}

/* ---- the check ---- */

static void print_line(void *ctx, const char *text)
{
	CLEANUP_FREE char *clean = cli_clean(ctx, text);

	fprintf(stderr, "%s\n", clean ? clean : text);
}

struct run {
	const struct cli *cli;
	const struct check_cmd *c;
	struct img *img;
	struct check_sink sink;
	struct job job;
	int signal; /* that interrupted it, or 0 */
};

static int check_once(struct run *run, unsigned fix, struct check_result *res, struct err *err)
{
	struct progress *p;
	int r;

	run->job.done = run->job.total = 0;
	p = progress_start(run->cli, run->c->progress, "check", &run->job);
	r = img_check(run->img, fix, res, &run->sink, &run->job, err);
	run->signal = progress_stop(p, r == 0);
	return r;
}

static void print_repaired(const struct check_cmd *c, const struct check_result *res)
{
	if (c->json || c->quiet)
		return;
	printf("The following inconsistencies were found and repaired:\n\n"
	       "    %" PRIu64 " leaked clusters\n"
	       "    %" PRIu64 " corruptions\n\n"
	       "Double checking the fixed image now...\n",
	       res->leaks_fixed, res->corruptions_fixed);
	fflush(stdout); /* before the findings of the second check */
}

/* Checks; after a repair once more, and that result counts. */
static int check_twice(struct run *run, struct check_result *res, struct err *err)
{
	uint64_t leaks, corruptions;
	int r = check_once(run, run->c->fix, res, err);

	if (r < 0 || !(res->leaks_fixed || res->corruptions_fixed))
		return r;
	leaks = res->leaks_fixed;
	corruptions = res->corruptions_fixed;
	print_repaired(run->c, res);
	r = check_once(run, 0, res, err);
	res->leaks_fixed = leaks;
	res->corruptions_fixed = corruptions;
	return r;
}

static int failed(const struct cli *cli, int r, const struct err *err)
{
	if (r == -ENOTSUP) {
		cli_error(cli, "This image format does not support checks");
		return EXIT_NO_CHECK;
	}
	if (cli->peer || !err->msg[0])
		return cli_error(cli, "Check failed: %s", strerror(-r));
	return cli_error(cli, "Check failed: %s", err->msg);
}

static int check(const struct cli *cli, const struct check_cmd *c, struct img *img)
{
	struct run run = {.cli = cli, .c = c, .img = img};
	struct check_result res;
	struct err err = {0};
	int r, code = 0;

	run.sink.line = print_line;
	run.sink.ctx = (void *)cli;
	run.sink.max_lines = cli->peer ? MAX_LINES_PEER : MAX_LINES;
	r = check_twice(&run, &res, &err);
	if (r == 0 && c->fix)
		r = img_settle(img, &err);
	if (run.signal)
		return cli_interrupted(cli, run.signal);
	if (r < 0)
		return failed(cli, r, &err);
	if (!c->quiet && c->json)
		code = print_json(cli, img, &res);
	else if (!c->quiet)
		print_human(&res);
	code = cli_finish_output(cli, code);
	if (code)
		return code;
	if (res.check_errors)
		return cli_error(cli, "Check failed");
	return res.corruptions ? EXIT_CORRUPT : res.leaks ? EXIT_LEAKS : 0;
}

static int open_and_check(const struct cli *cli, const struct check_cmd *c)
{
	struct img *img;
	int code;

	if (c->fix && (c->open.flags & IMG_SHARE))
		return cli_error(cli,
				 "Could not open '%s': force-share=on can only be used with "
				 "read-only images",
				 c->open.path);
	img = cli_open(cli, &c->open);
	if (!img)
		return 1;
	code = check(cli, c, img);
	io_close(&img->io);
	return code;
}

static bool parse_repair(struct cli *cli, struct check_cmd *c)
{
	c->open.flags |= IMG_RDWR;
	if (strcmp(cli->arg, "leaks") == 0)
		c->fix = CHECK_FIX_LEAKS;
	else if (strcmp(cli->arg, "all") == 0)
		c->fix = CHECK_FIX_LEAKS | CHECK_FIX_ERRORS;
	else
		cli_usage(cli, "Unknown option value for -r (expecting 'leaks' or 'all'): %s",
			  cli->arg);
	return c->fix != 0;
}

static int run(struct cli *cli)
{
	struct check_cmd c = {.open = {.flags = IMG_NO_BACKING | IMG_NO_DATA | IMG_FOR_CHECK}};
	unsigned args = 0;
	bool ok = true;
	int id;

	while ((id = cli_next(cli)) != CLI_END) {
		switch (id) {
		case CLI_EXIT:
			return cli_exit_code(cli);
		case CLI_ARG:
			c.open.path = cli->arg;
			args++;
			break;
		case 'f':
			c.open.format = cli->arg;
			break;
		case 'r':
			ok = parse_repair(cli, &c);
			break;
		case OUTPUT:
			ok = cli_output(cli, cli->arg, &c.json);
			break;
		case 'p':
			c.progress = PROGRESS_AUTO;
			break;
		case PROGRESS:
			ok = progress_parse(cli, cli->arg, &c.progress);
			break;
		case 'T':
			ok = cli_source_cache(cli, cli->arg, &c.open.flags);
			break;
		case 'U':
			c.open.flags |= IMG_SHARE;
			break;
		case UNTRUSTED:
			c.open.flags |= IMG_UNTRUSTED;
			break;
		case 'q':
			c.quiet = true;
			break;
		}
		if (!ok)
			return 1;
	}
	if (args != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (c.quiet)
		c.progress = PROGRESS_NONE;
	cli->stdout_taken = c.json; /* by one JSON object and nothing else */
	return open_and_check(cli, &c);
}

const struct cmd cmd_check = {
	.name = "check",
	.summary = "Check an image's consistency, and repair it",
	.args = "FILE",
	.opts = options,
	.exit_codes = "0 no errors (left), 1 the check failed, 2 the image is corrupt, 3 leaked "
		      "clusters only, 63 the format has no checks",
	.run = run,
};
