/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Helpers over jansson: strings of any bytes, and the peer's layout of the text. */
#ifndef IMGKIT_BASE_JSON_H
#define IMGKIT_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>

/* A JSON string of any C string: bytes that are not UTF-8 become U+FFFD. NULL when out of memory. */
json_t *json_text(const char *s);

/* As json_object_set_new(obj, key, json_text(s)); 0 or -1. s NULL: sets nothing. */
int json_set_text(json_t *obj, const char *key, const char *s);
int json_set_u64(json_t *obj, const char *key, uint64_t v);
int json_set_bool(json_t *obj, const char *key, int v);

/* The text with 4-space indent, `"key": value`, ASCII only; the caller frees. NULL: no memory. */
char *json_render(const json_t *v);

#endif
