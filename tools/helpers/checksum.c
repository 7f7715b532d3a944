// SPDX-License-Identifier: GPL-2.0-or-later
/* img-checksum: what `img checksum` runs; see tools/checksum.c. Hash functions from libcrypto. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "checksum.h"
#include "evp.h"
#include "helpers/frame/frame.h"
#include "ops/checksum.h"

/* ---- the command ---- */

struct checksum_cmd {
	struct img_open_args open;
	const char *algorithm, *snapshot;
	unsigned workers;
	bool json;
	enum progress_mode progress;
};

static bool parse_option(struct cli *cli, struct checksum_cmd *c, int id)
{
	uint64_t n;

	switch (id) {
	case CLI_ARG:
		if (c->open.path) {
			cli_usage(cli, "Unexpected argument: %s", cli->arg);
			return false;
		}
		c->open.path = cli->arg;
		return true;
	case 'f':
		c->open.format = cli->arg;
		return true;
	case 'a':
		c->algorithm = cli->arg;
		return true;
	case 'l':
		c->snapshot = cli->arg;
		return true;
	case CHECKSUM_OUTPUT:
		return cli_output(cli, cli->arg, &c->json);
	case 'm':
		if (!cli_uint(cli, "number of threads", cli->arg, 1, 256, &n))
			return false;
		c->workers = (unsigned)n;
		return true;
	case 'T':
		return cli_cache(cli, cli->arg, &c->open.flags);
	case 'U':
		c->open.flags |= IMG_SHARE;
		return true;
	case CHECKSUM_UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		return true;
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	default: /* CHECKSUM_PROGRESS */
		return progress_parse(cli, cli->arg, &c->progress);
	}
}

static int print_sum(const struct cli *cli, const struct checksum_cmd *c, const struct img *img,
		     const unsigned char *sum, size_t len)
{
	char hex[2 * CHECKSUM_MAX + 1];
	json_t *obj;
	int r;

	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	if (!c->json) {
		printf("%s  ", hex);
		cli_put_text(cli, c->open.path);
		putchar('\n');
		return 0;
	}
	obj = json_object();
	r = obj ? 0 : -1;
	r |= json_set_text(obj, "filename", c->open.path);
	r |= json_set_text(obj, "format", img->fmt->name);
	r |= json_set_u64(obj, "virtual-size", io_size(&img->io));
	r |= json_set_text(obj, "algorithm", c->algorithm);
	r |= json_set_u64(obj, "block-size", CHECKSUM_BLOCK);
	r |= json_set_text(obj, "checksum", hex);
	if (r != 0) {
		json_decref(obj);
		obj = NULL;
	}
	return cli_print_json(cli, obj);
}

static int sum_image(const struct cli *cli, const struct checksum_cmd *c, struct img *img,
		     const struct evp_hash *h)
{
	unsigned char sum[CHECKSUM_MAX];
	struct progress *progress;
	struct job job = {0};
	struct err err = {0};
	int r, sig;

	if (c->snapshot && !cli_view_snapshot(cli, img, c->snapshot))
		return 1;
	progress = progress_start(cli, c->progress, "checksum", &job);
	r = checksum_run(&img->io, &h->hash, c->workers, sum, &job, &err);
	sig = progress_stop(progress, r == 0);
	if (r < 0 && sig)
		return cli_interrupted(cli, sig);
	if (r < 0)
		return cli_error(cli, "%s", err.msg);
	return print_sum(cli, c, img, sum, h->hash.len);
}

int helper_run(struct cli *cli)
{
	struct checksum_cmd c = {.algorithm = "sha256", .progress = PROGRESS_NONE};
	struct evp_hash h = {0};
	struct img *img;
	int id, code = 1;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!parse_option(cli, &c, id))
			return 1;
	}
	if (!c.open.path)
		return cli_usage(cli, "Expecting image file name");
	if (!evp_find(cli, c.algorithm, &h))
		return 1;
	cli->stdout_taken = true; /* the sum alone goes there */
	img = cli_open(cli, &c.open);
	if (img) {
		code = sum_image(cli, &c, img, &h);
		io_close(&img->io);
	}
	EVP_MD_free(h.md);
	return cli_finish_output(cli, code);
}

const struct cmd *const helper_cmd = &cmd_checksum;
