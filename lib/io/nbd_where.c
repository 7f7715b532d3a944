// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Names of NBD exports: the URIs of the NBD project (doc/uri.md), with libnbd's parameters for TLS,
 * and QEMU's older form.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/nbd.h"

#define DEFAULT_PORT "10809"

static const struct scheme {
	const char *text;
	bool tls, local;
} schemes[] = {
	{"nbd://", false, false},
	{"nbds://", true, false},
	{"nbd+unix://", false, true},
	{"nbds+unix://", true, true},
};

static const struct scheme *find_scheme(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		if (strncmp(name, schemes[i].text, strlen(schemes[i].text)) == 0)
			return &schemes[i];
	}
	return NULL;
}

bool nbd_is_name(const char *name)
{
	return find_scheme(name) || strncmp(name, "nbd:", 4) == 0;
}

void nbd_where_free(struct nbd_where *w)
{
	free(w->host);
	free(w->port);
	free(w->path);
	free(w->export);
	free(w->tls_dir);
	free(w->tls_psk);
	free(w->tls_user);
	*w = (struct nbd_where){0};
}

/* ---- parts of a URI ---- */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n bytes of text with %XX; replaces what is in *out. */
static int set_decoded(char **out, const char *text, size_t n, struct err *err)
{
	char *s = malloc(n + 1), *p = s;

	if (!s)
		return err_nomem(err, n + 1, "a part of a URI");
	for (size_t i = 0; i < n; i++, p++) {
		int high = i + 2 < n ? hex(text[i + 1]) : -1;
		int low = i + 2 < n ? hex(text[i + 2]) : -1;

		*p = text[i];
		if (text[i] != '%')
			continue;
		*p = (char)(high * 16 + low);
		if (high < 0 || low < 0 || !*p) {
			free(s);
			return err_set(err, EINVAL, "a %% that two hexadecimal digits must follow");
		}
		i += 2;
	}
	*p = '\0';
	free(*out);
	*out = s;
	return 0;
}

static int set_text(char **out, const char *text, size_t n, struct err *err)
{
	free(*out);
	*out = strndup(text, n);
	return *out ? 0 : err_nomem(err, n + 1, "a part of a name");
}

/* A number, or the name of a service; of a number that is too large, 16 bits would be used. */
static int set_port(struct nbd_where *w, const char *text, size_t n, struct err *err)
{
	int r = set_text(&w->port, text, n, err);

	if (r == 0 && strspn(w->port, "0123456789") == n && strtoul(w->port, NULL, 10) > UINT16_MAX)
		r = err_set(err, EINVAL, "TCP port %s: the greatest is %d", w->port, UINT16_MAX);
	return r;
}

/* [USER@][HOST[:PORT]] */
static int parse_authority(struct nbd_where *w, const char *text, size_t n, bool local,
			   struct err *err)
{
	const char *at = memchr(text, '@', n), *host = at ? at + 1 : text, *end = text + n;
	const char *close =
		host < end && *host == '[' ? memchr(host, ']', (size_t)(end - host)) : NULL;
	const char *colon = close ? close + 1 : memchr(host, ':', (size_t)(end - host));
	const char *stop = close ? close : colon && colon < end ? colon : end;
	int r = at ? set_decoded(&w->tls_user, text, (size_t)(at - text), err) : 0;

	if (r < 0 || (local && host == end))
		return r;
	if (local)
		return err_set(err, EINVAL, "a server's name beside a Unix socket");
	if (host < end && *host == '[' && !close)
		return err_set(err, EINVAL, "a ']' is missing");
	host += close ? 1 : 0;
	if (stop <= host)
		return err_set(err, EINVAL, "the server's name is missing");
	if (colon && colon < end && *colon != ':')
		return err_set(err, EINVAL, "something behind the server's address");
	r = set_decoded(&w->host, host, (size_t)(stop - host), err);
	if (r < 0)
		return r;
	if (colon && colon + 1 < end)
		return set_port(w, colon + 1, (size_t)(end - colon - 1), err);
	return set_text(&w->port, DEFAULT_PORT, strlen(DEFAULT_PORT), err);
}

static int parse_parameter(struct nbd_where *w, const char *text, size_t n, bool local,
			   struct err *err)
{
	const struct {
		const char *key;
		char **value;
		bool fits;
	} known[] = {
		{"socket=", &w->path, local},
		{"tls-certificates=", &w->tls_dir, w->tls},
		{"tls-psk-file=", &w->tls_psk, w->tls},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		size_t k = strlen(known[i].key);

		if (n < k || memcmp(text, known[i].key, k) != 0)
			continue;
		if (!known[i].fits)
			break;
		return set_decoded(known[i].value, text + k, n - k, err);
	}
	return err_set(err, EINVAL, "the parameter '%.*s' does not belong there", (int)n, text);
}

static int parse_uri(struct nbd_where *w, const char *rest, const struct scheme *scheme,
		     struct err *err)
{
	size_t authority = strcspn(rest, "/?#"), path;
	int r;

	w->tls = scheme->tls;
	r = parse_authority(w, rest, authority, scheme->local, err);
	rest += authority;
	path = strcspn(rest, "?#");
	if (r == 0 && path > 1)
		r = set_decoded(&w->export, rest + 1, path - 1, err);
	rest += path;
	if (r == 0 && *rest == '#')
		return err_set(err, EINVAL, "a fragment ('#…')");
	while (r == 0 && *rest) {
		size_t n = strcspn(rest + 1, "&");

		r = n ? parse_parameter(w, rest + 1, n, scheme->local, err) : 0;
		rest += 1 + n;
	}
	if (r == 0 && scheme->local && (!w->path || !*w->path))
		return err_set(err, EINVAL, "the parameter 'socket' is missing");
	return r;
}

/* ---- the older form ---- */

static int parse_old(struct nbd_where *w, const char *rest, struct err *err)
{
	static const char exportname[] = ":exportname=";
	const char *export = strstr(rest, exportname);
	size_t n = export ? (size_t)(export - rest) : strlen(rest);
	const char *colon;
	int r = 0;

	if (export)
		r = set_text(&w->export, export + strlen(exportname),
			     strlen(export) - strlen(exportname), err);
	if (r < 0)
		return r;
	if (n >= 5 && memcmp(rest, "unix:", 5) == 0)
		return n > 5 ? set_text(&w->path, rest + 5, n - 5, err)
			     : err_set(err, EINVAL, "the socket's path is missing");
	colon = memrchr(rest, ':', n);
	if (!colon || colon == rest || colon + 1 == rest + n)
		return err_set(err, EINVAL, "HOST:PORT is needed");
	r = set_port(w, colon + 1, (size_t)(rest + n - colon - 1), err);
	n = (size_t)(colon - rest);
	if (n > 2 && rest[0] == '[' && rest[n - 1] == ']') {
		rest++;
		n -= 2;
	}
	return r < 0 ? r : set_text(&w->host, rest, n, err);
}

int nbd_where_parse(const char *name, struct nbd_where *where, struct err *err)
{
	const struct scheme *scheme = find_scheme(name);
	int r;

	*where = (struct nbd_where){0};
	if (scheme)
		r = parse_uri(where, name + strlen(scheme->text), scheme, err);
	else
		r = parse_old(where, name + strlen("nbd:"), err);
	if (r < 0)
		nbd_where_free(where);
	return r < 0 ? err_ctx(err, r, "%s: not the name of an NBD export", name) : 0;
}

int nbd_where_set_cred(struct nbd_where *w, const struct cred *cred, struct err *err)
{
	const struct {
		const char *from;
		char **to;
	} texts[] = {
		{cred->dir, &w->tls_dir},
		{cred->psk_file, &w->tls_psk},
		{cred->user, &w->tls_user},
	};
	int r = 0;

	w->tls = true;
	w->tls_unverified = !cred->verify;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(texts); i++) {
		if (texts[i].from)
			r = set_text(texts[i].to, texts[i].from, strlen(texts[i].from), err);
	}
	return r;
}

int nbd_where_check_hostname(const struct nbd_where *w, const char *hostname, struct err *err)
{
	if (hostname && (!w->host || strcmp(hostname, w->host) != 0))
		return err_set(err, ENOTSUP,
			       "The certificate is expected to be that of the host that we connect "
			       "to: '%s' cannot be another one",
			       hostname);
	return 0;
}

char *nbd_where_name(const struct nbd_where *w)
{
	const char *export = w->export ? w->export : "", *slash = *export ? "/" : "";
	const char *tls = w->tls ? "s" : "";
	bool v6 = w->host && strchr(w->host, ':');
	char *name = NULL;
	int n;

	if (w->path)
		n = asprintf(&name, "nbd%s+unix://%s%s?socket=%s", tls, slash, export, w->path);
	else
		n = asprintf(&name, "nbd%s://%s%s%s:%s%s%s", tls, v6 ? "[" : "", w->host,
			     v6 ? "]" : "", w->port, slash, export);
	return n < 0 ? NULL : name;
}
