// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --untrusted: limits of memory, CPU time and output for the whole process, which hold whatever an
 * image makes us do. They are the kernel's (setrlimit), so nothing in the program has to remember
 * them; a lower limit that is there already stays.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/opt.h"
#include "base/size.h"
#include "cli.h"

#define DEFAULT_MEMORY (1 * GiB)
#define DEFAULT_TIME   600 /* seconds of CPU time, of all threads together */
#define DEFAULT_OUTPUT (1024 * GiB)
#define GRACE          10 /* seconds more, for tidying up, before the kernel kills */

/* A sanitizer's own memory is no business of ours. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS_MEMORY false
#else
#define LIMITS_MEMORY true
#endif

static void lower(int resource, uint64_t soft, uint64_t hard)
{
	struct rlimit now;

	if (getrlimit(resource, &now) < 0)
		return;
	if (now.rlim_cur > soft)
		now.rlim_cur = soft;
	if (now.rlim_max > hard)
		now.rlim_max = hard;
	setrlimit(resource, &now);
}

/* For commands that watch no signals; progress.c takes it over from those that do. */
static void out_of_time(int sig)
{
	static const char text[] =
		"img: Stopped: the CPU time that --untrusted allows is used up\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(128 + sig);
	signal(sig, SIG_DFL);
	raise(sig);
}

static int parse(const char *text, uint64_t *memory, uint64_t *seconds, uint64_t *output,
		 struct err *err)
{
	static const struct opt table[] = {
		{.name = "memory", .type = OPT_SIZE},
		{.name = "time", .type = OPT_UINT},
		{.name = "output", .type = OPT_SIZE},
		{.name = NULL},
	};
	struct opts opts = {0};
	int r = opts_parse(&opts, text, err);

	if (r == 0)
		r = opts_check(&opts, table, err);
	if (r == 0)
		r = opts_size(&opts, "memory", memory, err);
	if (r == 0)
		r = opts_uint(&opts, "time", seconds, err);
	if (r == 0)
		r = opts_size(&opts, "output", output, err);
	opts_free(&opts);
	return r;
}

bool cli_confine(struct cli *cli, const char *text)
{
	uint64_t memory = DEFAULT_MEMORY, seconds = DEFAULT_TIME, output = DEFAULT_OUTPUT;
	struct sigaction sa = {.sa_handler = out_of_time};
	struct err err = {0};

	if (text && parse(text, &memory, &seconds, &output, &err) < 0) {
		cli_usage(cli, "--untrusted: %s", err.msg);
		return false;
	}
	if (LIMITS_MEMORY)
		lower(RLIMIT_DATA, memory, memory);
	lower(RLIMIT_CPU, seconds, seconds + GRACE < seconds ? seconds : seconds + GRACE);
	lower(RLIMIT_FSIZE, output, output);
	lower(RLIMIT_CORE, 0, 0); /* it would hold what the image holds */
	sigaction(SIGXCPU, &sa, NULL);
	cli->output_limit = output;
	return true;
}
