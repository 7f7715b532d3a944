// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --object: things that images refer to by name: `secret`, and the TLS credentials of base/creds.h. They
 * are given as `TYPE,key=value,…` or as a JSON object with a "qom-type". What no image asks for does no harm.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/opt.h"
#include "cli.h"

static int add_json(struct opts *opts, json_t *obj, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach(obj, key, v)
	{
		int r;

		if (!json_is_string(v))
			return err_set(err, EINVAL,
				       "Invalid parameter type for '%s', expected: string", key);
		r = opts_set(opts, key, json_string_value(v), err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_json(struct opts *opts, const char *text, struct err *err)
{
	json_error_t why;
	json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	int r;

	if (!obj)
		return err_set(err, EINVAL, "JSON parse error, %s", why.text);
	r = json_is_object(obj) ? add_json(opts, obj, err)
				: err_set(err, EINVAL, "Invalid JSON object given");
	json_decref(obj);
	return r;
}

/* `secret,id=…`: the first element is the type. */
static int parse_list(struct opts *opts, const char *text, struct err *err)
{
	CLEANUP_FREE char *type = NULL;
	size_t n = strcspn(text, ",=");
	int r = 0;

	if (text[n] != '=' && n > 0) {
		type = strndup(text, n);
		r = type ? opts_set(opts, "qom-type", type, err) : err_nomem(err, n, "an object");
		text += n + (text[n] == ',');
	}
	return r == 0 && *text ? opts_parse(opts, text, err) : r;
}

int cli_object_parse(const char *text, char **type, struct opts *rest, struct err *err)
{
	struct opts all = {0};
	int r = text[0] == '{' ? parse_json(&all, text, err) : parse_list(&all, text, err);
	const char *t = opts_get(&all, "qom-type");

	*type = NULL;
	if (r == 0 && t) {
		*type = strdup(t);
		r = *type ? 0 : err_nomem(err, strlen(t), "an object");
	}
	for (unsigned i = 0; r == 0 && i < all.n; i++) {
		if (strcmp(all.v[i].name, "qom-type") != 0)
			r = opts_set(rest, all.v[i].name, all.v[i].value, err);
	}
	opts_free(&all);
	return r;
}

static enum object_result add(struct cli *cli, const char *type, const struct opts *opts,
			      struct err *err)
{
	if (!type) {
		err_set(err, EINVAL, "Parameter 'qom-type' is missing");
		return OBJECT_BAD;
	}
	if (strcmp(type, "help") == 0 || strcmp(type, "?") == 0) {
		puts("List of user creatable objects:\n  secret\n  tls-creds-psk\n  "
		     "tls-creds-x509");
		return OBJECT_HELP;
	}
	if (creds_is_type(type))
		return creds_add(&cli->creds, type, opts, err) < 0 ? OBJECT_BAD : OBJECT_OK;
	if (strcmp(type, "secret") != 0) {
		err_set(err, EINVAL, "Parameter 'qom-type' does not accept value '%s'", type);
		return OBJECT_BAD;
	}
	if (opts_get(opts, "help") || opts_get(opts, "?")) {
		puts("secret options:\n  data=<string>\n  file=<string>\n"
		     "  format=<QCryptoSecretFormat>");
		return OBJECT_HELP;
	}
	return secrets_add(&cli->secrets, opts, err) < 0 ? OBJECT_BAD : OBJECT_OK;
}

enum object_result cli_object(struct cli *cli, const char *text)
{
	enum object_result result = OBJECT_BAD;
	CLEANUP_FREE char *type = NULL;
	struct opts rest = {0};
	struct err err = {0};

	if (cli_object_parse(text, &type, &rest, &err) == 0)
		result = add(cli, type, &rest, &err);
	if (result == OBJECT_BAD)
		cli_error(cli, "%s", err.msg);
	opts_free(&rest);
	return result;
}
