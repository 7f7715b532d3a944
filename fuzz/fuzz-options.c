// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Text that people type or that stands in images: sizes, option lists, names of backing files,
 * block-driver descriptions in both forms.
 * Input: what it is, then the text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/opt.h"
#include "base/size.h"
#include "formats/qcow2/build.h"
#include "image/describe.h"
#include "image/img.h"
#include "input.h"

static void sizes(const char *text)
{
	struct err err = {0};
	uint64_t bytes = 0;
	char buf[32];

	if (size_parse(text, &bytes, &err) < 0) {
		require(err.msg[0]);
		return;
	}
	require(bytes <= INT64_MAX);
	require(strlen(size_format(bytes, buf, sizeof(buf))) < sizeof(buf));
}

/* An option list of a new image, up to the header that it makes. */
static void options(const char *text)
{
	struct qcow2_build_options o = {0};
	struct create_args args = {.size = 1 * GiB};
	struct opts opts = {0};
	struct err err = {0};

	if (opts_parse(&opts, text, &err) == 0 && opts_check(&opts, qcow2_create_opts, &err) == 0) {
		args.opts = &opts;
		if (qcow2_build_options(&args, &o, &err) == 0) {
			require(o.h.cluster_bits >= 9 && o.h.cluster_bits <= 21);
			require(o.h.version == 2 || o.h.version == 3);
			require(o.h.refcount_order <= 6);
		} else {
			require(err.msg[0]);
		}
		header_free(&o.h);
	} else {
		require(err.msg[0]);
	}
	opts_free(&opts);
}

/* A name in an image never becomes anything but a path. */
static void names(const char *text)
{
	char *path = NULL;
	struct err err = {0};

	if (img_resolve_name("/some/dir/top.qcow2", text, &path, &err) < 0) {
		require(err.msg[0] && !path);
		return;
	}
	require(text[strcspn(text, ":/")] != ':');
	if (text[0] == '/')
		require(!strcmp(path, text));
	else
		require(!strncmp(path, "/some/dir/", 10) && !strcmp(path + 10, text));
	free(path);
}

static void description(int r, struct node *node, const struct err *err)
{
	char *name;

	if (r < 0) {
		require(err->msg[0] && !node);
		return;
	}
	name = describe_as_name(node);
	require(name);
	free(name);
	node_free(node);
}

static void lists(const char *text)
{
	struct node *node = NULL;
	struct err err = {0};
	int r = describe_list(text, &node, &err);

	description(r, node, &err);
}

static void jsons(const char *text)
{
	struct node *node = NULL;
	struct err err = {0};
	int r = describe_json(text, &node, &err);

	description(r, node, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const what[])(const char *) = {sizes, options, names, lists, jsons};
	struct input in = {data, size};
	uint8_t kind = input_u8(&in) % ARRAY_LEN(what);
	char text[600];

	what[kind](input_text(&in, text, sizeof(text)));
	return 0;
}
