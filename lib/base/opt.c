// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Option lists; see opt.h. Grammar and messages follow qemu-img 7.2, so that `-o` strings written
 * for the peer mean the same here.
 */
#include "base/opt.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"

static struct optval *find(const struct opts *opts, const char *name)
{
	for (unsigned i = 0; opts && i < opts->n; i++)
		if (!strcmp(opts->v[i].name, name))
			return &opts->v[i];
	return NULL;
}

/* Takes name and value on success. */
static int put(struct opts *opts, char **name, char **value, struct err *err)
{
	struct optval *v = find(opts, *name);

	if (v) {
		free(v->value);
		v->value = take(*value);
		return 0;
	}
	v = reallocarray(opts->v, opts->n + 1, sizeof(*v));
	if (!v)
		return err_nomem(err, (opts->n + 1) * sizeof(*v), "options");
	opts->v = v;
	v[opts->n++] = (struct optval){.name = take(*name), .value = take(*value)};
	return 0;
}

int opts_set(struct opts *opts, const char *name, const char *value, struct err *err)
{
	CLEANUP_FREE char *n = strdup(name);
	CLEANUP_FREE char *v = strdup(value);

	if (!n || !v)
		return err_nomem(err, strlen(name) + strlen(value) + 2, "an option");
	return put(opts, &n, &v, err);
}

/* Length of the element at s, up to a single comma or the end. */
static size_t element_length(const char *s)
{
	size_t n = 0;

	while (s[n] && (s[n] != ',' || s[n + 1] == ','))
		n += s[n] == ',' ? 2 : 1;
	return n;
}

/* Adds one element "key=value", "key" or "nokey" of len bytes. */
static int parse_element(struct opts *opts, const char *s, size_t len, struct err *err)
{
	const char *eq = memchr(s, '=', len);
	size_t name_len = eq ? (size_t)(eq - s) : len, n = 0;
	bool negated = !eq && len > 2 && !strncmp(s, "no", 2);
	CLEANUP_FREE char *name = NULL;
	CLEANUP_FREE char *value = NULL;

	if (negated)
		name = strndup(s + 2, name_len - 2);
	else
		name = strndup(s, name_len);
	value = eq ? malloc(len - name_len) : strdup(negated ? "off" : "on");
	if (!name || !value)
		return err_nomem(err, len, "an option");
	if (eq) {
		for (const char *p = eq + 1; p < s + len; p++) {
			value[n++] = *p;
			p += *p == ','; /* the second of ",," */
		}
		value[n] = '\0';
	}
	return put(opts, &name, &value, err);
}

int opts_parse(struct opts *opts, const char *text, struct err *err)
{
	const char *p = text;

	for (;;) {
		size_t len = element_length(p);
		int r;

		if (!len || *p == ',')
			return err_set(err, EINVAL, "Invalid option list: %s", text);
		r = parse_element(opts, p, len, err);
		if (r < 0)
			return r;
		p += len;
		if (!*p)
			return 0;
		p++;
	}
}

void opts_free(struct opts *opts)
{
	for (unsigned i = 0; i < opts->n; i++) {
		free(opts->v[i].name);
		free(opts->v[i].value);
	}
	free(opts->v);
	*opts = (struct opts){0};
}

const char *opts_get(const struct opts *opts, const char *name)
{
	const struct optval *v = find(opts, name);

	return v ? v->value : NULL;
}

static int check_value(const struct opts *opts, const struct opt *o, struct err *err)
{
	uint64_t num;
	bool flag;
	int index;

	switch (o->type) {
	case OPT_BOOL:
		return opts_bool(opts, o->name, &flag, err);
	case OPT_UINT:
		return opts_uint(opts, o->name, &num, err);
	case OPT_SIZE:
		return opts_size(opts, o->name, &num, err);
	case OPT_ENUM:
		return opts_enum(opts, o->name, o->choices, &index, err);
	case OPT_STRING:
		break;
	}
	return 0;
}

int opts_check(const struct opts *opts, const struct opt *table, struct err *err)
{
	for (unsigned i = 0; opts && i < opts->n; i++) {
		const struct opt *o = table;
		int r;

		while (o && o->name && strcmp(o->name, opts->v[i].name) != 0)
			o++;
		if (!o || !o->name)
			return err_set(err, EINVAL, "Invalid parameter '%s'", opts->v[i].name);
		r = check_value(opts, o, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int opts_bool(const struct opts *opts, const char *name, bool *out, struct err *err)
{
	static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "n", "y"};
	const char *v = opts_get(opts, name);

	if (!v)
		return 0;
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(v, words[i])) {
			*out = i & 1;
			return 0;
		}
	}
	return err_set(err, EINVAL, "Parameter '%s' expects 'on' or 'off'", name);
}

int opts_uint(const struct opts *opts, const char *name, uint64_t *out, struct err *err)
{
	const char *v = opts_get(opts, name);
	unsigned long long n;
	char *end;

	if (!v)
		return 0;
	if (!isdigit((unsigned char)*v))
		return err_set(err, EINVAL, "Parameter '%s' expects a number", name);
	errno = 0;
	n = strtoull(v, &end, 0);
	if (*end)
		return err_set(err, EINVAL, "Parameter '%s' expects a number", name);
	if (errno == ERANGE)
		return err_set(err, EINVAL, "Value '%s' is too large for parameter '%s'", v, name);
	*out = n;
	return 0;
}

int opts_size(const struct opts *opts, const char *name, uint64_t *out, struct err *err)
{
	const char *v = opts_get(opts, name);
	int r;

	if (!v)
		return 0;
	r = size_parse(v, out, NULL);
	if (r == -ERANGE)
		return err_set(err, EINVAL, "Value '%s' is out of range for parameter '%s'", v,
			       name);
	if (r < 0)
		return err_set(err, EINVAL,
			       "Parameter '%s' expects a non-negative number below 2^64\n"
			       "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, "
			       "tera-, peta-\nand exabytes, respectively.",
			       name);
	return 0;
}

int opts_enum(const struct opts *opts, const char *name, const char *const *choices, int *out,
	      struct err *err)
{
	const char *v = opts_get(opts, name);

	if (!v)
		return 0;
	for (int i = 0; choices[i]; i++) {
		if (!strcmp(v, choices[i])) {
			*out = i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "Parameter '%s' does not accept value '%s'", name, v);
}
