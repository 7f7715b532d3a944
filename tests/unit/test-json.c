// SPDX-License-Identifier: GPL-2.0-or-later
/* base/json: layout and escapes as qemu-img 7.2 prints them. */
#include "unit.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/json.h"

static void expect(json_t *v, const char *text)
{
	char *s = json_render(v);

	assert_non_null(s);
	assert_string_equal(s, text);
	free(s);
	json_decref(v);
}

static void layout(void **state)
{
	json_t *o = json_object(), *list = json_array(), *inner = json_object();

	(void)state;
	json_set_u64(o, "virtual-size", 1048576);
	json_set_text(o, "filename", "q.qcow2");
	json_set_text(o, "absent", NULL);
	json_set_bool(inner, "corrupt", 0);
	json_set_bool(inner, "lazy", 1);
	json_object_set_new(inner, "flags", json_array());
	json_object_set_new(inner, "none", json_object());
	json_object_set_new(inner, "null", json_null());
	json_object_set_new(inner, "real", json_real(0.5));
	json_array_append_new(list, inner);
	json_array_append_new(list, json_integer(-3));
	json_object_set_new(o, "list", list);
	expect(o, "{\n"
		  "    \"virtual-size\": 1048576,\n"
		  "    \"filename\": \"q.qcow2\",\n"
		  "    \"list\": [\n"
		  "        {\n"
		  "            \"corrupt\": false,\n"
		  "            \"lazy\": true,\n"
		  "            \"flags\": [\n"
		  "            ],\n"
		  "            \"none\": {\n"
		  "            },\n"
		  "            \"null\": null,\n"
		  "            \"real\": 0.5\n"
		  "        },\n"
		  "        -3\n"
		  "    ]\n"
		  "}");
}

/* What `qemu-img info --output=json` shows for a file of this name. */
static void strings(void **state)
{
	static const struct {
		const char *bytes, *text;
	} cases[] = {
		{"", "\"\""},
		{"plain /name.img", "\"plain /name.img\""},
		{"\"\\\b\f\n\r\t", "\"\\\"\\\\\\b\\f\\n\\r\\t\""},
		{"\x01\x1f\x7f", "\"\\u0001\\u001F\\u007F\""},
		{"\xc3\xa9", "\"\\u00E9\""},
		{"\xe2\x82\xac", "\"\\u20AC\""},
		{"\xf0\x9f\x98\x80", "\"\\uD83D\\uDE00\""},
		{"\xf4\x8f\xbf\xbd", "\"\\uDBFF\\uDFFD\""},
		/* Not UTF-8: one U+FFFD for each sequence. */
		{"\xff\xfe", "\"\\uFFFD\\uFFFD\""},
		{"\xa1z", "\"\\uFFFDz\""},
		{"\xe2\x82z", "\"\\uFFFDz\""},
		{"\xe2(\xa1", "\"\\uFFFD(\\uFFFD\""},
		{"\xe2\x82", "\"\\uFFFD\""},
		{"\xf0\x9f\x98", "\"\\uFFFD\""},
		{"\xed\xa0\x80", "\"\\uFFFD\""},               /* surrogate */
		{"\xc0\xaf", "\"\\uFFFD\""},                   /* overlong */
		{"\xe0\x80\xaf", "\"\\uFFFD\""},               /* overlong */
		{"\xf8\x88\x80\x80\x80q", "\"\\uFFFDq\""},     /* five bytes */
		{"\xfd\xbf\xbf\xbf\xbf\xbfq", "\"\\uFFFDq\""}, /* six bytes */
		{"\xf4\x90\x80\x80", "\"\\uFFFD\""},           /* above U+10FFFF */
		{"\xef\xbf\xbe", "\"\\uFFFD\""},               /* noncharacter */
		{"\xef\xb7\x90", "\"\\uFFFD\""},               /* noncharacter */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		expect(json_text(cases[i].bytes), cases[i].text);
}

static void keys_are_escaped_and_nul_kept(void **state)
{
	json_t *o = json_object();

	(void)state;
	json_object_set_new(o, "a\"b", json_stringn("x\0y", 3));
	expect(o, "{\n    \"a\\\"b\": \"x\\u0000y\"\n}");
}

static void large_numbers_and_texts(void **state)
{
	json_t *o = json_object();
	char *long_name = malloc(100001);
	char *s;

	(void)state;
	assert_non_null(long_name);
	json_set_u64(o, "max", INT64_MAX);
	json_set_u64(o, "more", UINT64_MAX);
	expect(o, "{\n    \"max\": 9223372036854775807,\n    \"more\": 9223372036854775807\n}");
	memset(long_name, 'n', 100000);
	long_name[100000] = '\0';
	o = json_text(long_name);
	s = json_render(o);
	assert_int_equal(strlen(s), 100002);
	free(s);
	json_decref(o);
	free(long_name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout),
		cmocka_unit_test(strings),
		cmocka_unit_test(keys_are_escaped_and_nul_kept),
		cmocka_unit_test(large_numbers_and_texts),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
