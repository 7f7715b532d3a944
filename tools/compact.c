// SPDX-License-Identifier: GPL-2.0-or-later
/* img compact: gives the free space inside an image back, in place. */
#include "ops/compact.h"

#include <stdio.h>

#include "base/json.h"
#include "base/size.h"
#include "inplace.h"

static const struct cmd_opt options[] = {
	INPLACE_OPTIONS,
	{0},
};

static int work(struct img *img, void *ctx, struct job *job, struct err *err)
{
	return compact_run(img, ctx, job, err);
}

static int set_json(json_t *obj, const void *ctx)
{
	const struct compact_result *res = ctx;
	int r = json_set_u64(obj, "size-before", res->size_before);

	r |= json_set_u64(obj, "size-after", res->size_after);
	r |= json_set_u64(obj, "moved", res->moved);
	return r | json_set_u64(obj, "left", res->left);
}

static void print_human(const void *ctx)
{
	const struct compact_result *res = ctx;
	char before[32], after[32], moved[32];

	printf("%s -> %s, %s moved\n", size_format(res->size_before, before, sizeof(before)),
	       size_format(res->size_after, after, sizeof(after)),
	       size_format(res->moved, moved, sizeof(moved)));
	if (res->left)
		printf("%s of free space could not be closed\n",
		       size_format(res->left, moved, sizeof(moved)));
}

static int run(struct cli *cli)
{
	struct compact_result res = {0};
	const struct inplace op = {
		.ctx = &res, .work = work, .json = set_json, .human = print_human};

	return inplace_run(cli, &op);
}

const struct cmd cmd_compact = {
	.name = "compact",
	.summary = "Close the holes inside an image, and make its file smaller",
	.args = "FILE",
	.opts = options,
	.run = run,
};
