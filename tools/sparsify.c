// SPDX-License-Identifier: GPL-2.0-or-later
/* img sparsify: frees the space of what reads as zeros, in place. */
#include "ops/sparsify.h"

#include <stdio.h>

#include "base/json.h"
#include "base/size.h"
#include "inplace.h"

enum { ZERO_SCAN = INPLACE_NEXT };

static const struct cmd_opt options[] = {
	{ZERO_SCAN, "zero-scan", NULL, "free what is stored and reads as zeros"},
	{'m', "parallel", "N", "number of threads (default: one per CPU)"},
	INPLACE_OPTIONS,
	{0},
};

struct sparsify_cmd {
	bool zero_scan;
	unsigned workers;
	struct sparsify_result res;
};

static bool take_option(struct cli *cli, void *ctx, int id)
{
	struct sparsify_cmd *c = ctx;
	uint64_t n;

	if (id == ZERO_SCAN) {
		c->zero_scan = true;
		return true;
	}
	if (!cli_uint(cli, "number of threads", cli->arg, 1, 256, &n))
		return false;
	c->workers = (unsigned)n;
	return true;
}

static bool ready(struct cli *cli, void *ctx)
{
	const struct sparsify_cmd *c = ctx;

	if (!c->zero_scan)
		cli_usage(cli, "Expecting --zero-scan: it is the only way there is so far");
	return c->zero_scan;
}

static int work(struct img *img, void *ctx, struct job *job, struct err *err)
{
	struct sparsify_cmd *c = ctx;

	return sparsify_run(img, c->workers, &c->res, job, err);
}

static int set_json(json_t *obj, const void *ctx)
{
	const struct sparsify_result *res = &((const struct sparsify_cmd *)ctx)->res;
	int r = json_set_u64(obj, "scanned", res->scanned);

	r |= json_set_u64(obj, "freed", res->freed);
	r |= json_set_u64(obj, "kept", res->kept);
	r |= json_set_u64(obj, "storage-before", res->storage_before);
	return r | json_set_u64(obj, "storage-after", res->storage_after);
}

static void print_human(const void *ctx)
{
	const struct sparsify_result *res = &((const struct sparsify_cmd *)ctx)->res;
	char a[32], b[32];

	printf("%s of %s freed\n", size_format(res->freed, a, sizeof(a)),
	       size_format(res->scanned, b, sizeof(b)));
	if (res->kept)
		printf("%s of zeros kept: there is no other way to store them here\n",
		       size_format(res->kept, a, sizeof(a)));
}

static int run(struct cli *cli)
{
	struct sparsify_cmd c = {0};
	const struct inplace op = {
		.ctx = &c,
		.option = take_option,
		.ready = ready,
		.work = work,
		.json = set_json,
		.human = print_human,
	};

	return inplace_run(cli, &op);
}

const struct cmd cmd_sparsify = {
	.name = "sparsify",
	.summary = "Free the space of what reads as zeros in an image",
	.args = "FILE",
	.opts = options,
	.run = run,
};
