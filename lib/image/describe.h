/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block-driver descriptions: what the user, and nobody else, may say of an image instead of a file
 * name, as key=value list (`driver=qcow2,file.driver=file,file.filename=x`) or as JSON
 * (`json:{"driver": "qcow2", "file": {…}}`). Both become a tree of nodes.
 */
#ifndef IMGKIT_IMAGE_DESCRIBE_H
#define IMGKIT_IMAGE_DESCRIBE_H

#include <stdbool.h>

#include "base/opt.h"

/* A node: what stands there of itself, and the nodes under it. */
struct node {
	struct opts own;      /* without `file.…` and `backing.…` */
	struct node *file;    /* owned; NULL: not described */
	struct node *backing; /* owned; NULL: not described */
	bool no_backing;      /* `"backing": null`: none is to be opened */
	bool typed;           /* from JSON: numbers stay numbers in its name */
};

/* -EINVAL: not a list, not JSON, not an object of strings, numbers, booleans and such objects. */
int describe_list(const char *text, struct node **out, struct err *err);
int describe_json(const char *text, struct node **out, struct err *err);

/* A name as a user writes it: "json:{…}", "file:PATH", PATH, "nbd://…" and the like (io/nbd.h). */
enum user_name { NAME_PATH, NAME_JSON, NAME_NBD, NAME_UNKNOWN };

/*
 * What kind of name it is; *rest: the text behind the prefix, of NBD the whole name. "PROTO:…" that we
 * do not have: UNKNOWN.
 */
enum user_name describe_name(const char *name, const char **rest);

/* "Unknown protocol 'PROTO'", -EINVAL. */
int describe_unknown(const char *name, struct err *err);

/*
 * What an image that was opened by this description is called: its file's path where that says it
 * all, else "json:{…}" with the peer's spelling. The caller frees; NULL: out of memory.
 */
char *describe_as_name(const struct node *node);

/* Whether the disk is all of its file, not a part of it. */
bool describe_is_whole(const struct node *node);

void node_free(struct node *node);

#endif
