// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD URIs (NetworkBlockDevice/nbd, doc/uri.md) of sockets that listen.
 *
 * Everything that is not unreserved in RFC 3986 is percent-encoded, so names and paths of any
 * bytes arrive as they are.
 */
#include "nbd-server/listen.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* ASCII letters and digits, whatever the locale is. */
static bool unreserved(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("-._~", c));
}

/* With keep, too, as they are. NULL: no memory. */
static char *encode(const char *text, const char *keep)
{
	char *out = malloc(3 * strlen(text) + 1), *p = out;

	if (!out)
		return NULL;
	for (; *text; text++) {
		if (unreserved(*text) || strchr(keep, *text))
			*p++ = *text;
		else
			p += sprintf(p, "%%%02X", (unsigned char)*text);
	}
	*p = '\0';
	return out;
}

/* Whether any address of both families can be used: then "localhost" is right, whatever it is. */
static bool both_families(const struct listen_set *set, unsigned port)
{
	bool v4 = false, v6 = false;

	for (unsigned i = 0; i < set->n; i++) {
		const struct listener *l = &set->v[i];

		v4 = v4 || (l->family == AF_INET && !l->host && l->port == port);
		v6 = v6 || (l->family == AF_INET6 && !l->host && l->port == port);
	}
	return v4 && v6;
}

static const char *host_of(const struct listen_set *set, const struct listener *l)
{
	if (l->host)
		return l->host;
	if (both_families(set, l->port))
		return "localhost";
	return l->family == AF_INET6 ? "::1" : "127.0.0.1";
}

/* name: encoded. NULL: no memory. */
static char *tcp_uri(const char *scheme, const char *host, unsigned port, const char *name)
{
	const bool numeric6 = strchr(host, ':');
	CLEANUP_FREE char *encoded = encode(host, ":");
	char *uri;

	if (!encoded || asprintf(&uri, "%s://%s%s%s:%u/%s", scheme, numeric6 ? "[" : "", encoded,
				 numeric6 ? "]" : "", port, name) < 0)
		return NULL;
	return uri;
}

static char *unix_uri(const char *scheme, const char *path, const char *name)
{
	CLEANUP_FREE char *encoded = encode(path, "/");
	char *uri;

	if (!encoded || asprintf(&uri, "%s+unix:///%s?socket=%s", scheme, name, encoded) < 0)
		return NULL;
	return uri;
}

static bool has_uri(const struct listener *l)
{
	return l->path || l->family == AF_INET || l->family == AF_INET6 || l->family == AF_VSOCK;
}

static char *uri_of(const struct listen_set *set, const struct listener *l, const char *name,
		    bool tls)
{
	const char *scheme = tls ? "nbds" : "nbd";
	char *uri;

	if (l->path)
		return unix_uri(scheme, l->path, name);
	if (l->family != AF_VSOCK)
		return tcp_uri(scheme, host_of(set, l), l->port, name);
	/* 1: this host, VMADDR_CID_LOCAL. Guests say 2. */
	return asprintf(&uri, "%s+vsock://1:%u/%s", scheme, l->port, name) < 0 ? NULL : uri;
}

static bool known(const struct listen_uris *uris, const char *uri)
{
	for (unsigned i = 0; i < uris->n; i++) {
		if (strcmp(uris->v[i], uri) == 0)
			return true;
	}
	return false;
}

int listen_uris(const struct listen_set *set, const char *name, bool tls, struct listen_uris *uris,
		struct err *err)
{
	/* Not a slash at its beginning, where it would look like one of the URI. */
	CLEANUP_FREE char *encoded = encode(name, *name == '/' ? "" : "/");

	*uris = (struct listen_uris){0};
	for (unsigned i = 0; i < set->n; i++) {
		const struct listener *l = &set->v[i];
		CLEANUP_FREE char *uri = NULL;

		if (!has_uri(l))
			continue;
		uri = encoded ? uri_of(set, l, encoded, tls) : NULL;
		if (!uri) {
			listen_uris_free(uris);
			return err_nomem(err, strlen(name), "a URI");
		}
		if (!known(uris, uri))
			uris->v[uris->n++] = take(uri);
	}
	return 0;
}

void listen_uris_free(struct listen_uris *uris)
{
	for (unsigned i = 0; i < uris->n; i++)
		free(uris->v[i]);
	*uris = (struct listen_uris){0};
}
