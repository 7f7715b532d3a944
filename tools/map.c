// SPDX-License-Identifier: GPL-2.0-or-later
/* img map: what of a disk is stored where. */
#include "ops/map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "cli.h"
#include "picture.h"

enum { OUTPUT = CLI_LONG, CHAIN, UNTRUSTED };

static const struct cmd_opt options[] = {
	{'f', "format", "FMT", "format of the image (default: found out from its content)"},
	CLI_OPT_IMAGE_OPTS,
	CLI_OPT_OBJECT,
	{CHAIN, "backing-chain", NULL, "also look into the backing file, its backing file, …"},
	{'s', "start-offset", "OFFSET", "where to begin"},
	{'l', "max-length", "LENGTH", "how much of the disk to look at"},
	{OUTPUT, "output", "human|json|bar|svg|html",
	 "how to print it: bar is for terminals, svg and html are pictures"},
	{'U', "force-share", NULL, "look at an image that another process has open for writing"},
	{UNTRUSTED, "untrusted", NULL, "open no file but those named here; never guess raw"},
	{0},
};

struct map_cmd {
	struct img_open_args open;
	uint64_t start, length;
	bool json;
	const struct drawing *drawing; /* NULL: none, a list */
};

/* Outputs that are pictures. The peer has none. */
static const struct drawing {
	const char *name;
	unsigned cells;
	void (*draw)(const struct cli *, const struct img *, const struct picture *);
} drawings[] = {
	{"bar", PICTURE_BAR, picture_bar},
	{"svg", PICTURE_CELLS, picture_svg},
	{"html", PICTURE_CELLS, picture_html},
};

struct printer {
	const struct cli *cli;
	bool any;
	bool refused; /* the peer's human form ends at a compressed cluster */
	uint64_t lines;
	bool too_many; /* under --untrusted a small image does not make a huge list */
};

/* After a line. */
static int check_output(struct printer *p)
{
	p->too_many = p->cli->output_limit && ++p->lines > CLI_MAX_LINES;
	if (p->too_many)
		return -E2BIG;
	return ferror(stdout) ? -EIO : 0; /* cli_finish_output says why */
}

static const char *truth(bool b)
{
	return b ? "true" : "false";
}

static int print_json(void *ctx, const struct map_entry *e)
{
	struct printer *p = ctx;

	printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s"
	       ", \"zero\": %s, \"data\": %s",
	       p->any ? ",\n" : "", e->start, e->length, e->depth, truth(e->present),
	       truth(e->zero), truth(e->data));
	if (e->has_offset)
		printf(", \"offset\": %" PRIu64, e->offset);
	if (e->unknown)
		printf(", \"backing\": true");
	putchar('}');
	p->any = true;
	return check_output(p);
}

static int print_human(void *ctx, const struct map_entry *e)
{
	struct printer *p = ctx;

	if (e->compressed && p->cli->peer) {
		p->refused = true;
		return -ENOTSUP;
	}
	if (!e->data || e->zero)
		return 0;
	printf("%#-16" PRIx64 "%#-16" PRIx64, e->start, e->length);
	if (e->has_offset)
		printf("%#-16" PRIx64, e->offset);
	else
		printf("%-16s", "compressed");
	if (e->io)
		cli_put_text(p->cli, e->io->name);
	putchar('\n');
	return check_output(p);
}

static uint64_t end_of(const struct map_cmd *c)
{
	return c->length > UINT64_MAX - c->start ? UINT64_MAX : c->start + c->length;
}

static int draw(const struct cli *cli, const struct map_cmd *c, struct img *img)
{
	struct picture p = {0};
	struct err err = {0};
	int r = picture_take(img, c->start, end_of(c), c->drawing->cells, &p, &err);

	if (r == 0)
		c->drawing->draw(cli, img, &p);
	picture_free(&p);
	return r < 0 ? cli_error(cli, "%s", err.msg) : cli_finish_output(cli, 0);
}

static bool parse_output(const struct cli *cli, const char *text, struct map_cmd *c)
{
	if (cli->peer)
		return cli_output(cli, text, &c->json);
	for (size_t i = 0; i < ARRAY_LEN(drawings); i++)
		if (strcmp(text, drawings[i].name) == 0)
			c->drawing = &drawings[i];
	c->json = strcmp(text, "json") == 0;
	if (!c->drawing && !c->json && strcmp(text, "human") != 0) {
		cli_error(cli, "--output must be human, json, bar, svg or html");
		return false;
	}
	return true;
}

static int print(const struct cli *cli, const struct map_cmd *c, struct img *img)
{
	uint64_t end = end_of(c);
	struct printer p = {.cli = cli};
	struct err err = {0};
	int r;

	if (c->json)
		putchar('[');
	else
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	r = map_walk(img, c->start, end, c->json ? print_json : print_human, &p, &err);
	if (p.refused)
		return cli_error(cli, "File contains external, encrypted or compressed clusters.");
	if (p.too_many)
		return cli_error(cli,
				 "Stopped: more than %u ranges, which --untrusted does not print",
				 CLI_MAX_LINES);
	if (r < 0 && !ferror(stdout))
		return cli_error(cli, "%s", err.msg);
	if (c->json)
		puts("]");
	else if (img->backing_left)
		cli_warn(cli,
			 "'%s' names the backing file '%s', which was not opened "
			 "(--backing-chain shows what it has)",
			 c->open.path, img->backing_name);
	return cli_finish_output(cli, 0);
}

static int run(struct cli *cli)
{
	/* The peer looks into files that the image names without being asked. */
	struct map_cmd c = {
		.open = {.flags = cli->peer ? 0 : IMG_NO_NAMED | IMG_NO_DATA},
		.length = UINT64_MAX,
	};
	const char *output = NULL;
	unsigned args = 0;
	struct img *img;
	bool ok = true;
	int id, code;

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
		case 's':
			ok = cli_size(cli, "start offset", cli->arg, &c.start);
			break;
		case 'l':
			ok = cli_size(cli, "max length", cli->arg, &c.length);
			break;
		case OUTPUT:
			output = cli->arg;
			break;
		case CHAIN:
			c.open.flags &= ~(unsigned)IMG_NO_NAMED;
			break;
		case 'U':
			c.open.flags |= IMG_SHARE;
			break;
		case UNTRUSTED:
			c.open.flags |= IMG_UNTRUSTED;
			break;
		}
		if (!ok)
			return 1;
	}
	if (args != 1)
		return cli_usage(cli, "Expecting one image file name");
	if (output && !parse_output(cli, output, &c))
		return 1;
	img = cli_open(cli, &c.open);
	if (!img)
		return 1;
	code = c.drawing ? draw(cli, &c, img) : print(cli, &c, img);
	io_close(&img->io);
	return code;
}

const struct cmd cmd_map = {
	.name = "map",
	.summary = "Show which parts of an image are stored where",
	.args = "FILE",
	.opts = options,
	.run = run,
};
