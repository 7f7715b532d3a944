// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * JSON text as qemu-img lays it out; see json.h.
 *
 * jansson keeps the values and their order; its own writer cannot produce this layout (four
 * spaces, "[\n<indent>]" for an empty list, every byte above 0x7e as \uXXXX), so the writer is here.
 */
#include "base/json.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define REPLACEMENT 0xfffd

/*
 * Decodes one code point at *p (not at the end of the string) and moves on. A sequence that is not
 * valid UTF-8, or a surrogate or noncharacter, is one U+FFFD however many bytes it has: the lead
 * byte and the continuation bytes that it asks for.
 */
static uint32_t next_codepoint(const char **p)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000, 0x200000, 0x4000000};
	unsigned char c = (unsigned char)*(*p)++;
	unsigned len = c < 0x80   ? 1
		       : c < 0xc0 ? 0
		       : c < 0xe0 ? 2
		       : c < 0xf0 ? 3
		       : c < 0xf8 ? 4
		       : c < 0xfc ? 5
		       : c < 0xfe ? 6
				  : 0;
	uint32_t cp;

	if (len <= 1)
		return len ? c : REPLACEMENT;
	cp = c & (0x7fu >> len);
	for (unsigned i = 1; i < len; i++) {
		if (((unsigned char)**p & 0xc0) != 0x80)
			return REPLACEMENT;
		cp = cp << 6 | ((unsigned char)*(*p)++ & 0x3f);
	}
	if (cp < smallest[len] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff) ||
	    (cp >= 0xfdd0 && cp <= 0xfdef) || (cp & 0xfffe) == 0xfffe)
		return REPLACEMENT;
	return cp;
}

static char *put_utf8(char *out, uint32_t cp)
{
	if (cp < 0x80) {
		*out++ = (char)cp;
		return out;
	}
	if (cp < 0x800) {
		*out++ = (char)(0xc0 | cp >> 6);
	} else {
		if (cp < 0x10000) {
			*out++ = (char)(0xe0 | cp >> 12);
		} else {
			*out++ = (char)(0xf0 | cp >> 18);
			*out++ = (char)(0x80 | (cp >> 12 & 0x3f));
		}
		*out++ = (char)(0x80 | (cp >> 6 & 0x3f));
	}
	*out++ = (char)(0x80 | (cp & 0x3f));
	return out;
}

json_t *json_text(const char *s)
{
	size_t len = strlen(s);
	/* At worst each byte becomes the three bytes of U+FFFD. */
	CLEANUP_FREE char *clean = len < SIZE_MAX / 3 ? malloc(len * 3 + 1) : NULL;
	char *out = clean;

	if (!clean)
		return NULL;
	while (*s)
		out = put_utf8(out, next_codepoint(&s));
	return json_stringn(clean, (size_t)(out - clean));
}

int json_set_text(json_t *obj, const char *key, const char *s)
{
	return s ? json_object_set_new(obj, key, json_text(s)) : 0;
}

int json_set_u64(json_t *obj, const char *key, uint64_t v)
{
	return json_object_set_new(obj, key,
				   json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v));
}

int json_set_bool(json_t *obj, const char *key, int v)
{
	return json_object_set_new(obj, key, json_boolean(v));
}

/* Text that grows; `failed` sticks, so the writers need no checks. */
struct text {
	char *s;
	size_t n, cap;
	bool failed;
};

static void put(struct text *t, const char *s, size_t n)
{
	if (t->failed)
		return;
	if (n >= t->cap - t->n) {
		size_t cap = (t->cap + n) * 2 + 256;
		char *grown = realloc(t->s, cap);

		if (!grown) {
			t->failed = true;
			return;
		}
		t->s = grown;
		t->cap = cap;
	}
	memcpy(t->s + t->n, s, n);
	t->n += n;
	t->s[t->n] = '\0';
}

static void put_text(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

static void put_newline(struct text *t, unsigned depth)
{
	put_text(t, "\n");
	while (depth--)
		put_text(t, "    ");
}

static void put_codepoint(struct text *t, uint32_t cp)
{
	static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	const char *escape = cp && cp < 0x80 ? strchr(plain, (int)cp) : NULL;
	char buf[16];
	int n;

	if (escape)
		n = snprintf(buf, sizeof(buf), "\\%c", letter[escape - plain]);
	else if (cp >= 0x10000)
		n = snprintf(buf, sizeof(buf), "\\u%04X\\u%04X", 0xd800 + ((cp - 0x10000) >> 10),
			     0xdc00 + (cp & 0x3ff));
	else if (cp < 0x20 || cp > 0x7e)
		n = snprintf(buf, sizeof(buf), "\\u%04X", cp);
	else
		n = snprintf(buf, sizeof(buf), "%c", (int)cp);
	put(t, buf, (size_t)n);
}

static void put_string(struct text *t, const char *s, size_t len)
{
	const char *end = s + len;

	put_text(t, "\"");
	while (s < end) {
		/* A NUL inside would end next_codepoint's string early; it is a code point too. */
		if (!*s) {
			put_codepoint(t, 0);
			s++;
		} else {
			put_codepoint(t, next_codepoint(&s));
		}
	}
	put_text(t, "\"");
}

static void put_value(struct text *t, const json_t *v, unsigned depth);

static void put_object(struct text *t, const json_t *v, unsigned depth)
{
	json_t *obj = (json_t *)v; /* the iterators of jansson 2.14 lack const */
	bool first = true;

	put_text(t, "{");
	for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
		const char *key = json_object_iter_key(it);

		if (!first)
			put_text(t, ",");
		first = false;
		put_newline(t, depth + 1);
		put_string(t, key, strlen(key));
		put_text(t, ": ");
		put_value(t, json_object_iter_value(it), depth + 1);
	}
	put_newline(t, depth);
	put_text(t, "}");
}

static void put_array(struct text *t, const json_t *v, unsigned depth)
{
	size_t n = json_array_size(v);

	put_text(t, "[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			put_text(t, ",");
		put_newline(t, depth + 1);
		put_value(t, json_array_get(v, i), depth + 1);
	}
	put_newline(t, depth);
	put_text(t, "]");
}

/* Recursion is as deep as the value that our own code built. */
static void put_value(struct text *t, const json_t *v, unsigned depth)
{
	char num[64];

	switch (json_typeof(v)) {
	case JSON_OBJECT:
		put_object(t, v, depth);
		return;
	case JSON_ARRAY:
		put_array(t, v, depth);
		return;
	case JSON_STRING:
		put_string(t, json_string_value(v), json_string_length(v));
		return;
	case JSON_INTEGER:
		snprintf(num, sizeof(num), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		put_text(t, num);
		return;
	case JSON_REAL:
		snprintf(num, sizeof(num), "%.17g", json_real_value(v));
		put_text(t, num);
		return;
	case JSON_TRUE:
		put_text(t, "true");
		return;
	case JSON_FALSE:
		put_text(t, "false");
		return;
	case JSON_NULL:
		put_text(t, "null");
		return;
	}
}

char *json_render(const json_t *v)
{
	struct text t = {0};

	put_value(&t, v, 0);
	if (t.failed) {
		free(t.s);
		return NULL;
	}
	return t.s;
}
