// SPDX-License-Identifier: GPL-2.0-or-later
/* The frame of commands that make one image smaller in place; see inplace.h. */
#include "inplace.h"

#include "base/json.h"

struct inplace_cmd {
	struct img_open_args open;
	unsigned args;
	bool json, quiet;
	enum progress_mode progress;
};

static int print_json(const struct cli *cli, const struct inplace *op, const struct img *img,
		      bool complete)
{
	json_t *obj = json_object();
	int r = obj ? 0 : -1;

	r |= json_set_text(obj, "filename", img->io.name);
	r |= json_set_text(obj, "format", img->fmt->name);
	r |= op->json(obj, op->ctx);
	r |= json_set_bool(obj, "complete", complete);
	if (r != 0) {
		json_decref(obj);
		obj = NULL;
	}
	return cli_print_json(cli, obj);
}

static int work(const struct cli *cli, const struct inplace *op, const struct inplace_cmd *c,
		struct img *img)
{
	struct job job = {0};
	struct err err = {0};
	struct progress *p = progress_start(cli, c->progress, cli->cmd->name, &job);
	int r = op->work(img, op->ctx, &job, &err), code = 0;
	int signal = progress_stop(p, r == 0);

	/* What was done before an interruption stays done, and is told. */
	if (!c->quiet && c->json && (r == 0 || signal))
		code = print_json(cli, op, img, r == 0);
	else if (!c->quiet && r == 0)
		op->human(op->ctx);
	code = cli_finish_output(cli, code);
	if (signal) {
		img_settle(img, NULL); /* before we die: clusters would leak, bitmaps be void */
		return cli_interrupted(cli, signal);
	}
	return r < 0 ? cli_error(cli, "%s", err.msg) : code;
}

static bool take_option(struct cli *cli, const struct inplace *op, struct inplace_cmd *c, int id)
{
	switch (id) {
	case CLI_ARG:
		c->open.path = cli->arg;
		c->args++;
		return true;
	case 'f':
		c->open.format = cli->arg;
		return true;
	case INPLACE_OUTPUT:
		return cli_output(cli, cli->arg, &c->json);
	case 'p':
		c->progress = PROGRESS_AUTO;
		return true;
	case INPLACE_PROGRESS:
		return progress_parse(cli, cli->arg, &c->progress);
	case 'T':
		return cli_cache(cli, cli->arg, &c->open.flags);
	case INPLACE_UNTRUSTED:
		c->open.flags |= IMG_UNTRUSTED;
		return true;
	case 'q':
		c->quiet = true;
		return true;
	default:
		return op->option(cli, op->ctx, id);
	}
}

int inplace_run(struct cli *cli, const struct inplace *op)
{
	struct inplace_cmd c = {.open = {.flags = IMG_RDWR | IMG_NO_BACKING}};
	struct img *img;
	int id, code;

	while ((id = cli_next(cli)) != CLI_END) {
		if (id == CLI_EXIT)
			return cli_exit_code(cli);
		if (!take_option(cli, op, &c, id))
			return 1;
	}
	if (c.args != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (op->ready && !op->ready(cli, op->ctx))
		return 1;
	if (c.quiet)
		c.progress = PROGRESS_NONE;
	cli->stdout_taken = c.json;
	img = cli_open(cli, &c.open);
	if (!img)
		return 1;
	code = work(cli, op, &c, img);
	io_close(&img->io);
	return code;
}
