// SPDX-License-Identifier: LGPL-2.1-or-later
/* Named TLS credentials; see creds.h. Options and layouts of directories are those of QEMU. */
#include "base/creds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const endpoints[] = {"client", "server", NULL};

static const struct opt x509_opts[] = {
	{.name = "id", .type = OPT_STRING},
	{.name = "dir", .type = OPT_STRING},
	{.name = "endpoint", .type = OPT_ENUM, .choices = endpoints},
	{.name = "verify-peer", .type = OPT_BOOL},
	{.name = NULL},
};
static const struct opt psk_opts[] = {
	{.name = "id", .type = OPT_STRING},
	{.name = "dir", .type = OPT_STRING},
	{.name = "endpoint", .type = OPT_ENUM, .choices = endpoints},
	{.name = "username", .type = OPT_STRING},
	{.name = NULL},
};

bool creds_is_type(const char *type)
{
	return strcmp(type, "tls-creds-x509") == 0 || strcmp(type, "tls-creds-psk") == 0;
}

const struct cred *creds_find(const struct creds *creds, const char *id)
{
	for (unsigned i = 0; i < creds->n; i++) {
		if (strcmp(creds->v[i].id, id) == 0)
			return &creds->v[i];
	}
	return NULL;
}

static void clear(struct cred *c)
{
	free(c->id);
	free(c->dir);
	free(c->psk_file);
	free(c->user);
}

void creds_free(struct creds *creds)
{
	for (unsigned i = 0; i < creds->n; i++)
		clear(&creds->v[i]);
	free(creds->v);
	*creds = (struct creds){0};
}

static int check(const struct creds *creds, const struct opts *opts, bool psk, struct err *err)
{
	const char *id = opts_get(opts, "id");
	int endpoint = 0, r = opts_check(opts, psk ? psk_opts : x509_opts, err);

	if (r == 0)
		r = opts_enum(opts, "endpoint", endpoints, &endpoint, err);
	if (r < 0)
		return r;
	if (!id)
		return err_set(err, EINVAL, "Parameter 'id' is missing");
	if (creds_find(creds, id))
		return err_set(
			err, EEXIST,
			"attempt to add duplicate property '%s' to object (type 'container')", id);
	if (!opts_get(opts, "dir"))
		return err_set(err, EINVAL, "Parameter 'dir' of object '%s' is missing", id);
	if (endpoint != 0)
		return err_set(err, ENOTSUP,
			       "Object '%s' is for servers: endpoint=client is needed", id);
	return 0;
}

static int fill(struct cred *c, const struct opts *opts, bool psk, struct err *err)
{
	const char *dir = opts_get(opts, "dir"), *user = opts_get(opts, "username");
	int r = 0;

	c->verify = true;
	c->id = strdup(opts_get(opts, "id"));
	if (psk) {
		/* The peer's default. */
		c->user = strdup(user ? user : "qemu");
		r = asprintf(&c->psk_file, "%s/keys.psk", dir);
	} else {
		c->dir = strdup(dir);
	}
	if (!c->id || r < 0 || (psk ? !c->user : !c->dir)) {
		c->psk_file = r < 0 ? NULL : c->psk_file;
		return err_nomem(err, strlen(dir), "TLS credentials");
	}
	return opts_bool(opts, "verify-peer", &c->verify, err);
}

int creds_add(struct creds *creds, const char *type, const struct opts *opts, struct err *err)
{
	bool psk = strcmp(type, "tls-creds-psk") == 0;
	struct cred c = {0}, *v;
	int r = check(creds, opts, psk, err);

	if (r < 0)
		return r;
	v = realloc(creds->v, (creds->n + 1) * sizeof(*v));
	if (!v)
		return err_nomem(err, sizeof(*v), "TLS credentials");
	creds->v = v;
	r = fill(&c, opts, psk, err);
	if (r < 0) {
		clear(&c);
		return r;
	}
	creds->v[creds->n++] = c;
	return 0;
}
