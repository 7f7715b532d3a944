// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every allocation fails, once and from then on, where block-driver descriptions are read, turned into
 * names, and opened: a clean error or the right result, never half of it. The allocations of the JSON
 * library count, too.
 *
 * variants: release asan
 * link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray,--wrap=strdup,--wrap=strndup
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "base/bytes.h"
#include "disk.h"
#include "image/describe.h"
#include "tell.h"

static const char *const texts[] = {
	"driver=qcow2,cache.direct=on,file.driver=file,file.filename=a,,b",
	"driver=qcow2,file.filename=x,backing.driver=raw,backing.file.filename=c,backing.size=512",
	"driver=raw,offset=512,size=1024,file.driver=qcow2,file.file.filename=x",
	"driver=qcow2,driver=raw",
	"file=node,file.filename=x",
	"json:{\"driver\": \"qcow2\", \"cache\": {\"direct\": true}, \"file\": {\"filename\": "
	"\"a\"}}",
	"json:{\"driver\": \"raw\", \"file.driver\": \"file\", \"file.filename\": \"\\u0041\", "
	"\"size\": 1024, \"backing\": null}",
	"json:{\"driver\": [1, 2], \"file\": {}}",
	"json:{\"driver\": \"raw\"",
};

static const char *const images[] = {
	"driver=qcow2,file.driver=file,file.filename=top.qcow2,discard=unmap,detect-zeroes=unmap",
	"driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw",
	"driver=raw,offset=512,size=1024,file.driver=qcow2,file.file.filename=top.qcow2",
	"json:{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": "
	"\"top.qcow2\"}, "
	"\"backing\": null}",
	"json:{\"driver\": \"qcow2\", \"file\": {\"filename\": \"gone.qcow2\"}}",
	"json:{\"driver\": \"qcow2\", \"file\": {\"filename\": \"top.qcow2\", \"nonsense\": 1}}",
	"file:top.qcow2",
	"nbd://host/export",
};

/* What happens with enough memory. */
struct outcome {
	int code;
	char name[512]; /* of the node, or of the image */
};

static int describe(const char *text, struct outcome *o, struct err *err)
{
	struct node *node = NULL;
	char *name;
	int r = strncmp(text, "json:", 5) != 0 ? describe_list(text, &node, err)
					       : describe_json(text + 5, &node, err);

	if (r < 0)
		return r;
	name = describe_as_name(node);
	node_free(node);
	if (!name)
		return err_nomem(err, 0, "a name");
	snprintf(o->name, sizeof(o->name), "%s", name);
	free(name);
	return 0;
}

static int open_one(const char *text, struct outcome *o, struct err *err)
{
	bool list = strncmp(text, "driver=", 7) == 0;
	const struct img_open_args args = {
		.path = text,
		.flags = IMG_RDWR | (list ? IMG_IMAGE_OPTS : IMG_USER_NAME),
	};
	unsigned char byte;
	struct img *img;
	int r = img_open(&args, &img, err);

	if (r < 0)
		return r;
	snprintf(o->name, sizeof(o->name), "%s", img->io.name);
	r = io_pread(&img->io, &byte, 1, 0, err);
	io_close(&img->io);
	return r;
}

typedef int trial(const char *text, struct outcome *o, struct err *err);

static uint64_t sweep(trial *try, const char *text, bool sticky)
{
	struct outcome want = {0};
	struct err e = {0};
	uint64_t at;

	context("%s", text);
	want.code = try(text, &want, &e);
	expect(want.code == 0 || e.msg[0]);
	for (at = 1;; at++) {
		struct outcome got = {0};

		context("%s, allocation %" PRIu64 "%s fails", text, at, sticky ? " and on" : "");
		e = (struct err){0};
		alloc_arm(at, sticky);
		got.code = try(text, &got, &e);
		alloc_disarm();
		if (got.code < 0 && !e.msg[0])
			die("error %d without a text", got.code);
		/* To the JSON library, text that it has no memory for is text that is not there. */
		if (got.code == -EINVAL && strstr(e.msg, "Could not parse the JSON options"))
			got.code = -ENOMEM;
		if (got.code != want.code && got.code != -ENOMEM)
			die("%d (%s), not %d or %d", got.code, e.msg, want.code, -ENOMEM);
		if (got.code == 0 && strcmp(got.name, want.name) != 0)
			die("'%s', not '%s'", got.name, want.name);
		if (alloc_calls() < at)
			return at;
	}
}

static void *json_alloc(size_t n)
{
	return malloc(n);
}

static void make_images(void)
{
	struct io *top = disk_new("top"), *base = disk_new("base");
	struct err e = {0};

	disk_create(top, "qcow2", 64 * KiB, "cluster_size=4096", "base.raw", "raw");
	disk_save(top, "top.qcow2");
	must(io_resize(base, 64 * KiB, &e), &e);
	disk_save(base, "base.raw");
	io_close(top);
	io_close(base);
}

int main(void)
{
	uint64_t runs = 0;

	make_images();
	json_set_alloc_funcs(json_alloc, free);
	for (int sticky = 0; sticky < 2; sticky++) {
		for (size_t i = 0; i < ARRAY_LEN(texts); i++)
			runs += sweep(describe, texts[i], sticky);
		for (size_t i = 0; i < ARRAY_LEN(images); i++)
			runs += sweep(open_one, images[i], sticky);
	}
	printf("%" PRIu64 " runs\n", runs);
	return runs < 100;
}
