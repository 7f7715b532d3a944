// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Block-driver descriptions into trees; see describe.h.
 *
 * Both forms become one flat list of dotted keys first ("file.cache.direct" → "on"), as in QEMU, so
 * that JSON may mix nested and dotted keys; the list is then split along the children. Values keep
 * their text; nodes.c knows what they mean.
 */
#include "image/describe.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "io/nbd.h"

/* Deeper than any stack of nodes that can be opened; bounds the recursion. */
#define MAX_DEPTH 32

void node_free(struct node *node)
{
	if (!node)
		return;
	node_free(node->file);
	node_free(node->backing);
	opts_free(&node->own);
	free(node);
}

/* ---- splitting ---- */

/* The rest of a key behind "child."; NULL: it is no such key. */
static const char *below(const char *key, const char *child)
{
	size_t n = strlen(child);

	return strncmp(key, child, n) == 0 && key[n] == '.' ? key + n + 1 : NULL;
}

static int split(const struct opts *flat, bool typed, unsigned depth, struct node **out,
		 struct err *err);

static int split_child(const struct opts *flat, const char *child, bool typed, unsigned depth,
		       struct node **out, struct err *err)
{
	struct opts part = {0};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < flat->n; i++) {
		const char *key = below(flat->v[i].name, child);

		if (key)
			r = opts_set(&part, key, flat->v[i].value, err);
	}
	if (r == 0 && part.n)
		r = split(&part, typed, depth + 1, out, err);
	opts_free(&part);
	return r;
}

static int split_own(const struct opts *flat, struct node *node, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < flat->n; i++) {
		const char *key = flat->v[i].name;

		if (below(key, "file") || below(key, "backing"))
			continue;
		if (strcmp(key, "backing") == 0 && flat->v[i].value[0] == '\0')
			node->no_backing = true;
		else
			r = opts_set(&node->own, key, flat->v[i].value, err);
	}
	return r;
}

static int split(const struct opts *flat, bool typed, unsigned depth, struct node **out,
		 struct err *err)
{
	struct node *node;
	int r;

	if (depth > MAX_DEPTH)
		return err_set(err, EINVAL, "Nested more than %d levels deep", MAX_DEPTH);
	node = calloc(1, sizeof(*node));
	if (!node)
		return err_nomem(err, sizeof(*node), "a description");
	node->typed = typed;
	r = split_own(flat, node, err);
	if (r == 0)
		r = split_child(flat, "file", typed, depth, &node->file, err);
	if (r == 0)
		r = split_child(flat, "backing", typed, depth, &node->backing, err);
	if (r == 0 && node->no_backing && node->backing)
		r = err_set(err, EINVAL, "Options of a backing file beside \"backing\": null");
	if (r < 0) {
		node_free(node);
		return r;
	}
	*out = node;
	return 0;
}

/* ---- key=value ---- */

/* Whether the first element has no "=": then it is the name of a node, which only QEMU has. */
static bool begins_with_a_name(const char *text)
{
	const char *end = strpbrk(text, "=,");

	return *text && (!end || *end == ',');
}

int describe_list(const char *text, struct node **out, struct err *err)
{
	struct opts flat = {0};
	int r;

	if (begins_with_a_name(text))
		return err_set(err, EINVAL, "Cannot find device='%s' nor node-name='%s'", text,
			       text);
	r = *text ? opts_parse(&flat, text, err) : 0;
	if (r == 0)
		r = split(&flat, false, 0, out, err);
	opts_free(&flat);
	return r;
}

/* ---- JSON ---- */

static int flatten(json_t *obj, const char *prefix, unsigned depth, struct opts *flat,
		   struct err *err);

static int add_text(struct opts *flat, const char *key, const char *value, struct err *err)
{
	if (opts_get(flat, key))
		return err_set(err, EINVAL, "'%s' is given twice", key);
	return opts_set(flat, key, value, err);
}

static int add_value(json_t *v, const char *key, unsigned depth, struct opts *flat, struct err *err)
{
	const char *dot = strrchr(key, '.');
	char number[32];

	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return flatten(v, key, depth + 1, flat, err);
	case JSON_STRING:
		return add_text(flat, key, json_string_value(v), err);
	case JSON_TRUE:
		return add_text(flat, key, "on", err);
	case JSON_FALSE:
		return add_text(flat, key, "off", err);
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		return add_text(flat, key, number, err);
	case JSON_NULL:
		if (strcmp(dot ? dot + 1 : key, "backing") == 0)
			return add_text(flat, key, "", err);
		break;
	default:
		break;
	}
	return err_set(err, EINVAL, "Invalid parameter type for '%s'", key);
}

static int flatten(json_t *obj, const char *prefix, unsigned depth, struct opts *flat,
		   struct err *err)
{
	const char *name;
	json_t *v;

	if (depth > MAX_DEPTH)
		return err_set(err, EINVAL, "Nested more than %d levels deep", MAX_DEPTH);
	json_object_foreach(obj, name, v)
	{
		CLEANUP_FREE char *key = NULL;
		int r;

		if (asprintf(&key, "%s%s%s", prefix, *prefix ? "." : "", name) < 0)
			return err_nomem(err, strlen(prefix) + strlen(name), "a key");
		r = add_value(v, key, depth, flat, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int describe_json(const char *text, struct node **out, struct err *err)
{
	json_error_t why;
	json_t *v = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
	struct opts flat = {0};
	int r = 0;

	if (!v && (!why.text[0] || json_error_code(&why) == json_error_out_of_memory))
		return err_nomem(err, strlen(text), "the JSON options");
	if (!v)
		return err_set(err, EINVAL, "Could not parse the JSON options: %s (at byte %d)",
			       why.text, why.position);
	if (!json_is_object(v))
		r = err_set(err, EINVAL, "Invalid JSON object given");
	if (r == 0)
		r = flatten(v, "", 0, &flat, err);
	if (r == 0)
		r = split(&flat, true, 0, out, err);
	opts_free(&flat);
	json_decref(v);
	return r;
}

/* ---- names ---- */

enum user_name describe_name(const char *name, const char **rest)
{
	*rest = name;
	if (name[strcspn(name, ":/")] != ':')
		return NAME_PATH;
	if (nbd_is_name(name))
		return NAME_NBD;
	*rest = strchr(name, ':') + 1;
	if (strncmp(name, "json:", 5) == 0)
		return NAME_JSON;
	return strncmp(name, "file:", 5) == 0 ? NAME_PATH : NAME_UNKNOWN;
}

int describe_unknown(const char *name, struct err *err)
{
	return err_set(err, EINVAL, "Unknown protocol '%.*s'", (int)strcspn(name, ":"), name);
}

static bool is_file(const struct node *node)
{
	const char *driver = node ? opts_get(&node->own, "driver") : NULL;

	return node && !node->file && opts_get(&node->own, "filename") &&
	       (!driver || strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0);
}

bool describe_is_whole(const struct node *node)
{
	return !opts_get(&node->own, "offset") && !opts_get(&node->own, "size");
}

static json_t *scalar(const struct node *node, const char *key)
{
	const char *text = opts_get(&node->own, key);

	if (!text)
		return NULL;
	if (node->typed && *text && strspn(text, "0123456789") == strlen(text))
		return json_integer((json_int_t)strtoll(text, NULL, 10));
	return json_text(text);
}

/* The keys that decide what is read, in the peer's order. */
static json_t *render(const struct node *node)
{
	static const char *const keys[] = {"offset", "driver", "size", "filename"};
	json_t *obj = json_object();
	int r = obj ? 0 : -1;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(keys[i], "driver") == 0 && is_file(node) &&
		    !opts_get(&node->own, "driver"))
			r |= json_set_text(obj, "driver", "file");
		else if (opts_get(&node->own, keys[i]))
			r |= json_object_set_new(obj, keys[i], scalar(node, keys[i]));
	}
	if (node->file)
		r |= json_object_set_new(obj, "file", render(node->file));
	if (r != 0) {
		json_decref(obj);
		return NULL;
	}
	return obj;
}

/* "json:…"; NULL: out of memory. Not json_dumps, which leaves out the keys that found no memory. */
static char *as_text(const json_t *obj)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	bool fine;

	if (!f)
		return NULL;
	fine = fwrite("json:", 5, 1, f) == 1 && json_dumpf(obj, f, 0) == 0 && !ferror(f);
	if (fclose(f) == 0 && fine)
		return text;
	free(text);
	return NULL;
}

char *describe_as_name(const struct node *node)
{
	char *name;
	json_t *obj;

	if (is_file(node))
		return strdup(opts_get(&node->own, "filename"));
	if (is_file(node->file) && describe_is_whole(node))
		return strdup(opts_get(&node->file->own, "filename"));
	obj = render(node);
	name = obj ? as_text(obj) : NULL;
	json_decref(obj);
	return name;
}
