// SPDX-License-Identifier: GPL-2.0-or-later
/* img-dedup: what `img dedup` runs; see tools/dedup.c. The hash function is libcrypto's. */
#include "ops/dedup.h"

#include <stdio.h>

#include "base/json.h"
#include "base/size.h"
#include "dedup.h"
#include "evp.h"
#include "helpers/frame/frame.h"
#include "inplace.h"

struct dedup_cmd {
	struct evp_hash hash;
	struct dedup_result res;
	bool within;
};

static bool take_option(struct cli *cli, void *ctx, int id)
{
	struct dedup_cmd *c = ctx;

	(void)cli;
	c->within = id == DEDUP_WITHIN;
	return true;
}

static int work(struct img *img, void *ctx, struct job *job, struct err *err)
{
	struct dedup_cmd *c = ctx;

	const struct dedup_args args = {.hash = &c->hash.hash, .within = c->within};

	return dedup_run(img, &args, &c->res, job, err);
}

static int set_json(json_t *obj, const void *ctx)
{
	const struct dedup_result *res = &((const struct dedup_cmd *)ctx)->res;
	int r = json_set_u64(obj, "scanned", res->scanned);

	r |= json_set_u64(obj, "freed", res->freed);
	r |= json_set_u64(obj, "size-before", res->size_before);
	return r | json_set_u64(obj, "size-after", res->size_after);
}

static void print_human(const void *ctx)
{
	const struct dedup_result *res = &((const struct dedup_cmd *)ctx)->res;
	char a[32], b[32];

	printf("%s of %s were stored more than once, and are free now\n",
	       size_format(res->freed, a, sizeof(a)), size_format(res->scanned, b, sizeof(b)));
}

int helper_run(struct cli *cli)
{
	struct dedup_cmd c = {0};
	const struct inplace op = {
		.ctx = &c,
		.option = take_option,
		.work = work,
		.json = set_json,
		.human = print_human,
	};
	int code;

	if (!evp_find(cli, "sha256", &c.hash))
		return 1;
	code = inplace_run(cli, &op);
	EVP_MD_free(c.hash.md);
	return code;
}

const struct cmd *const helper_cmd = &cmd_dedup;
