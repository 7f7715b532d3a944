// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: which keys encrypt, out of our own options or of the peer's objects. With keys,
 * clients without encryption are turned away unless --tls=on says otherwise.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "helpers/serve/parts.h"

bool serve_has_object(const char *type)
{
	return strncmp(type, "tls-creds-", strlen("tls-creds-")) == 0 ||
	       strncmp(type, "authz-", strlen("authz-")) == 0;
}

static const struct serve_object *find(const struct serve *s, const char *id)
{
	for (unsigned i = 0; i < s->n_objects; i++) {
		if (strcmp(s->object[i].id, id) == 0)
			return &s->object[i];
	}
	return NULL;
}

static const struct opt x509_opts[] = {
	{.name = "id", .type = OPT_STRING},
	{.name = "endpoint", .type = OPT_STRING},
	{.name = "dir", .type = OPT_STRING},
	{.name = "verify-peer", .type = OPT_BOOL},
	{.name = NULL},
};
static const struct opt psk_opts[] = {
	{.name = "id", .type = OPT_STRING},
	{.name = "endpoint", .type = OPT_STRING},
	{.name = "dir", .type = OPT_STRING},
	{.name = NULL},
};
static const struct opt authz_opts[] = {
	{.name = "id", .type = OPT_STRING},
	{.name = "identity", .type = OPT_STRING},
	{.name = NULL},
};

static bool wrong(struct serve *s, const struct serve_object *o, const char *what)
{
	cli_usage(s->cli, "--object %s,id=%s: %s", o->type, o->id, what);
	return false;
}

static bool use_creds(struct serve *s, const struct serve_object *o)
{
	bool psk = strcmp(o->type, "tls-creds-psk") == 0;
	const char *endpoint = opts_get(&o->opts, "endpoint"), *dir = opts_get(&o->opts, "dir");
	struct err err = {0};

	if (!psk && strcmp(o->type, "tls-creds-x509") != 0)
		return wrong(s, o, "only tls-creds-x509 and tls-creds-psk have keys");
	s->tls.verify = !psk; /* the peer's default */
	if (opts_check(&o->opts, psk ? psk_opts : x509_opts, &err) < 0 ||
	    opts_bool(&o->opts, "verify-peer", &s->tls.verify, &err) < 0)
		return wrong(s, o, err.msg);
	if (!endpoint || strcmp(endpoint, "server") != 0)
		return wrong(s, o, "a server needs endpoint=server");
	if (!dir)
		return wrong(s, o, "dir= is needed");
	if (!psk) {
		s->tls.directory = dir;
		return true;
	}
	if (asprintf(&s->tls_psk_path, "%s/keys.psk", dir) < 0) {
		s->tls_psk_path = NULL;
		return wrong(s, o, "out of memory");
	}
	s->tls.psk_file = s->tls_psk_path;
	return true;
}

/* A pattern that one name only fits; backslashes mean nothing in patterns of names. */
static char *literal(const char *text)
{
	char *out = malloc(3 * strlen(text) + 1), *p = out;

	for (; out && *text; text++)
		p += sprintf(p, strchr("*?[", *text) ? "[%c]" : "%c", *text);
	if (out)
		*p = '\0';
	return out;
}

static bool add_allowed(struct serve *s, const char *text)
{
	const struct serve_object *o = find(s, text);
	struct err err = {0};
	char *pattern;

	if (!o && s->cli->peer) {
		cli_usage(s->cli, "No object with id '%s'", text);
		return false;
	}
	if (o && strcmp(o->type, "authz-simple") != 0)
		return wrong(s, o, "only authz-simple says who may come in");
	if (o && opts_check(&o->opts, authz_opts, &err) < 0)
		return wrong(s, o, err.msg);
	if (o && !opts_get(&o->opts, "identity"))
		return wrong(s, o, "identity= is needed");
	pattern = o ? literal(opts_get(&o->opts, "identity")) : strdup(text);
	if (!pattern) {
		cli_error(s->cli, "out of memory");
		return false;
	}
	s->tls_allowed[s->tls.n_allowed++] = pattern;
	return true;
}

static bool choose_keys(struct serve *s)
{
	const struct serve_object *o;

	if (!s->tls_creds)
		return true;
	if (s->tls.directory || s->tls.psk_file || s->tls.verify) {
		cli_usage(s->cli, "--tls-creds is instead of --tls-dir, --tls-psk, --tls-verify");
		return false;
	}
	o = find(s, s->tls_creds);
	if (!o) {
		cli_usage(s->cli, "No TLS credentials with id '%s'", s->tls_creds);
		return false;
	}
	return use_creds(s, o);
}

bool serve_client_tls(struct serve *s, struct nbd_where *where)
{
	const struct serve_object *o = s->tls_creds ? find(s, s->tls_creds) : NULL;
	struct cred own = {.dir = (char *)(uintptr_t)s->tls.directory,
			   .psk_file = (char *)(uintptr_t)s->tls.psk_file,
			   .verify = true};
	const struct passwd *me = getpwuid(geteuid());
	const struct cred *keys = &own;
	struct err err = {0};
	int r = 0;

	if (s->tls_creds && !o) {
		cli_usage(s->cli, "No TLS credentials with id '%s'", s->tls_creds);
		return false;
	}
	if (o && !creds_is_type(o->type))
		return wrong(s, o, "only tls-creds-x509 and tls-creds-psk have keys");
	if (own.psk_file && me)
		own.user = me->pw_name;
	if (o) {
		r = creds_add(&s->cli->creds, o->type, &o->opts, &err);
		keys = creds_find(&s->cli->creds, o->id);
	}
	if (r == 0 && keys && (o || keys->dir || keys->psk_file))
		r = nbd_where_set_cred(where, keys, &err);
	if (r == 0)
		r = nbd_where_check_hostname(where, s->tls_hostname, &err);
	if (r < 0)
		cli_usage(s->cli, "%s", err.msg);
	return r == 0;
}

static const char *contradiction(const struct serve *s)
{
	bool keys = s->tls.directory || s->tls.psk_file;

	if (s->tls.directory && s->tls.psk_file)
		return "--tls-dir and --tls-psk are two ways of the same, of which one is needed";
	if (!keys && s->tls_given && s->config.tls_mode != SERVER_TLS_OFF)
		return "Encryption needs keys: --tls-dir, --tls-psk or --tls-creds";
	if (keys && s->tls_given && s->config.tls_mode == SERVER_TLS_OFF)
		return "--tls=off, but there are keys";
	if ((s->tls.verify || s->n_authz) && !s->tls.directory)
		return "Certificates of clients need X.509: --tls-dir";
	if (s->n_authz && !s->tls.verify)
		return "--tls-authz needs --tls-verify: a name without a signature says nothing";
	return NULL;
}

bool serve_choose_tls(struct serve *s)
{
	const char *why;

	if (!choose_keys(s))
		return false;
	why = contradiction(s);
	if (why) {
		cli_usage(s->cli, "%s", why);
		return false;
	}
	for (unsigned i = 0; i < s->n_authz; i++) {
		if (!add_allowed(s, s->authz[i]))
			return false;
	}
	s->tls.allowed = (const char *const *)s->tls_allowed;
	if (s->tls.n_allowed == 0)
		s->tls.allowed = NULL;
	if ((s->tls.directory || s->tls.psk_file) && !s->tls_given)
		s->config.tls_mode = SERVER_TLS_REQUIRED;
	return true;
}
