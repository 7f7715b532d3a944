// SPDX-License-Identifier: GPL-2.0-or-later
/* Block-driver descriptions: both forms become the same tree; what is neither is refused. */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "image/describe.h"
#include "unit.h"

static struct node *list(const char *text)
{
	struct node *node = NULL;
	struct err e = {0};

	ok(describe_list(text, &node, &e), &e);
	return node;
}

static struct node *json(const char *text)
{
	struct node *node = NULL;
	struct err e = {0};

	ok(describe_json(text, &node, &e), &e);
	return node;
}

static void is_overlay(const struct node *node)
{
	assert_string_equal(opts_get(&node->own, "driver"), "qcow2");
	assert_string_equal(opts_get(&node->own, "cache.direct"), "on");
	assert_null(opts_get(&node->own, "file.filename"));
	assert_non_null(node->file);
	assert_string_equal(opts_get(&node->file->own, "filename"), "a,b");
	assert_non_null(node->backing);
	assert_null(node->backing->file->file);
	assert_string_equal(opts_get(&node->backing->file->own, "filename"), "c");
	assert_true(node->backing->no_backing);
	assert_false(node->no_backing);
}

static void test_forms(void **state)
{
	static const char *const texts[] = {
		"{\"driver\": \"qcow2\", \"cache\": {\"direct\": true}, \"file\": {\"filename\": "
		"\"a,b\"}, \"backing\": {\"file\": {\"filename\": \"c\"}, \"backing\": null}}",
		"{\"driver\": \"qcow2\", \"cache.direct\": true, \"file.filename\": \"a,b\", "
		"\"backing.file\": {\"filename\": \"c\"}, \"backing.backing\": null}",
	};
	struct node *node = list("driver=qcow2,cache.direct=on,file.filename=a,,b,"
				 "backing.file.filename=c,backing.backing=");

	(void)state;
	is_overlay(node);
	node_free(node);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		node = json(texts[i]);
		is_overlay(node);
		node_free(node);
	}
}

static void test_values(void **state)
{
	struct node *node = json("{\"a\": 5, \"b\": false, \"c\": \"x\", \"d\": -1}");

	(void)state;
	assert_string_equal(opts_get(&node->own, "a"), "5");
	assert_string_equal(opts_get(&node->own, "b"), "off");
	assert_string_equal(opts_get(&node->own, "c"), "x");
	assert_string_equal(opts_get(&node->own, "d"), "-1");
	node_free(node);
}

static void test_refused_json(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"", "Could not parse"},
		{"{", "Could not parse"},
		{"{} x", "Could not parse"},
		{"{\"a\": \"\\u0000\"}", "Could not parse"},
		{"{\"a\": 1, \"a\": 2}", "Could not parse"},
		{"[]", "Invalid JSON object"},
		{"null", "Invalid JSON object"},
		{"{\"file\": {\"filename\": \"a\"}, \"file.filename\": \"b\"}", "given twice"},
		{"{\"a\": null}", "Invalid parameter type for 'a'"},
		{"{\"a\": 1.5}", "Invalid parameter type for 'a'"},
		{"{\"file\": [{\"filename\": \"a\"}]}", "Invalid parameter type for 'file'"},
		{"{\"backing\": null, \"backing.driver\": \"raw\"}", "beside"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct node *node = NULL;
		struct err e = {0};

		fails(describe_json(cases[i].text, &node, &e), -EINVAL, &e, cases[i].says);
		assert_null(node);
	}
}

static void test_refused_lists(void **state)
{
	struct node *node = NULL;
	struct err e = {0};

	(void)state;
	fails(describe_list("a.qcow2", &node, &e), -EINVAL, &e, "Cannot find device='a.qcow2'");
	fails(describe_list("a,driver=raw", &node, &e), -EINVAL, &e, "Cannot find device");
}

/* No nesting exhausts the stack. */
static void test_depth(void **state)
{
	char text[4096];
	struct node *node = NULL;
	struct err e = {0};
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 400; i++)
		n += (size_t)sprintf(text + n, "%s", "file.");
	strcpy(text + n, "filename=x");
	fails(describe_list(text, &node, &e), -EINVAL, &e, "levels deep");
	n = 0;
	for (int i = 0; i < 400; i++)
		n += (size_t)sprintf(text + n, "%s", "{\"file\":");
	text[n++] = '1';
	memset(text + n, '}', 400);
	text[n + 400] = '\0';
	fails(describe_json(text, &node, &e), -EINVAL, &e, "levels deep");
}

static void has_name(struct node *node, const char *name)
{
	char *text = describe_as_name(node);

	assert_string_equal(text, name);
	free(text);
	node_free(node);
}

static void test_names(void **state)
{
	(void)state;
	has_name(list("driver=qcow2,file.driver=file,file.filename=x"), "x");
	has_name(list("file.filename=x,cache.direct=on"), "x");
	has_name(list("driver=file,filename=x"), "x");
	has_name(list("driver=raw,offset=1k,file.filename=x"),
		 "json:{\"offset\": \"1k\", \"driver\": \"raw\", \"file\": {\"driver\": \"file\", "
		 "\"filename\": \"x\"}}");
	has_name(json("{\"driver\": \"raw\", \"size\": 512, \"file.filename\": \"x\"}"),
		 "json:{\"driver\": \"raw\", \"size\": 512, \"file\": {\"driver\": \"file\", "
		 "\"filename\": \"x\"}}");
	has_name(list("driver=raw,file.driver=qcow2,file.file.filename=x"),
		 "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"qcow2\", \"file\": "
		 "{\"driver\": \"file\", \"filename\": \"x\"}}}");
}

static void test_user_names(void **state)
{
	static const struct {
		const char *name;
		enum user_name kind;
		const char *rest;
	} cases[] = {
		{"a", NAME_PATH, "a"},
		{"./a:b", NAME_PATH, "./a:b"},
		{"/a:b", NAME_PATH, "/a:b"},
		{"file:a", NAME_PATH, "a"},
		{"file:file:a", NAME_PATH, "file:a"},
		{"file:///a", NAME_PATH, "///a"},
		{"json:{}", NAME_JSON, "{}"},
		{"nbd:x", NAME_NBD, "nbd:x"},
		{"nbd+unix:///?socket=s", NAME_NBD, "nbd+unix:///?socket=s"},
		{"nbd+tls:x", NAME_UNKNOWN, "x"},
		{"JSON:{}", NAME_UNKNOWN, "{}"},
		{"", NAME_PATH, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *rest;

		assert_int_equal(describe_name(cases[i].name, &rest), cases[i].kind);
		assert_string_equal(rest, cases[i].rest);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),        cmocka_unit_test(test_values),
		cmocka_unit_test(test_refused_json), cmocka_unit_test(test_refused_lists),
		cmocka_unit_test(test_depth),        cmocka_unit_test(test_names),
		cmocka_unit_test(test_user_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
