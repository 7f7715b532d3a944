// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * NBD exports as the files of images: by their names, and by descriptions with the keys of QEMU's
 * driver `nbd`. Only users come here: no name out of an image does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "image/internal.h"
#include "io/nbd.h"

static const char *const server_words[] = {"inet", "unix", NULL};

const struct opt img_remote_opts[] = {
	{.name = "filename", .type = OPT_STRING},
	{.name = "server.type", .type = OPT_ENUM, .choices = server_words},
	{.name = "server.host", .type = OPT_STRING},
	{.name = "server.port", .type = OPT_STRING},
	{.name = "server.path", .type = OPT_STRING},
	{.name = "host", .type = OPT_STRING},
	{.name = "port", .type = OPT_STRING},
	{.name = "path", .type = OPT_STRING},
	{.name = "export", .type = OPT_STRING},
	{.name = "tls-creds", .type = OPT_STRING},
	{.name = "tls-hostname", .type = OPT_STRING},
	{.name = "reconnect-delay", .type = OPT_UINT},
	{.name = "open-timeout", .type = OPT_UINT},
	{.name = "x-dirty-bitmap", .type = OPT_STRING, .refused = true},
	{.name = NULL},
};

static int connect_to(struct nbd_where *where, unsigned flags, const struct img_open_args *args,
		      struct io **out, struct err *err)
{
	const struct nbd_args how = {
		.flags = (flags & IMG_RDWR ? NBD_WRITE : 0U) |
			 (flags & IMG_UNSAFE ? NBD_UNSAFE : 0U) |
			 (flags & IMG_NO_DISCARD ? NBD_KEEP_SPACE : 0U) |
			 (args && (args->flags & IMG_SEALED) ? NBD_SEALED : 0U),
		.job = args ? args->job : NULL,
		.contexts = args ? args->contexts : NULL,
		.n_contexts = args ? args->n_contexts : 0,
	};

	return nbd_open(where, &how, out, err);
}

int img_open_remote(const char *name, unsigned flags, const struct img_open_args *args,
		    struct io **out, struct err *err)
{
	struct nbd_where where;
	int r = nbd_where_parse(name, &where, err);

	if (r == 0)
		r = connect_to(&where, flags, args, out, err);
	nbd_where_free(&where);
	return r;
}

/* ---- descriptions ---- */

/* The value of "server.KEY", or of the older KEY. */
static const char *server_key(const struct opts *own, const char *key)
{
	const char *value = opts_get(own, key);

	return value ? value : opts_get(own, strchr(key, '.') + 1);
}

static int set(char **out, const char *value, struct err *err)
{
	if (!value)
		return 0;
	free(*out);
	*out = strdup(value);
	return *out ? 0 : err_nomem(err, strlen(value) + 1, "an address");
}

static int read_address(const struct opts *own, struct nbd_where *where, struct err *err)
{
	const char *path = server_key(own, "server.path"), *host = server_key(own, "server.host");
	const char *port = server_key(own, "server.port");
	int type = -1, r = opts_enum(own, "server.type", server_words, &type, err);

	if (r < 0)
		return r;
	if (path && (host || port))
		return err_set(err, EINVAL, "path and host may not be used at the same time");
	if (!path && !host)
		return err_set(err, EINVAL, "one of path and host must be specified");
	if ((type == 0 && path) || (type == 1 && host))
		return err_set(err, EINVAL, "Parameter 'server.%s' is missing",
			       path ? "host" : "path");
	r = set(&where->path, path, err);
	if (r == 0)
		r = set(&where->host, host, err);
	if (r == 0 && host)
		r = set(&where->port, port ? port : "10809", err);
	return r;
}

static int use_creds(const struct opts *own, const struct creds *creds, struct nbd_where *where,
		     struct err *err)
{
	const char *id = opts_get(own, "tls-creds");
	const struct cred *c;

	if (!id)
		return 0;
	c = creds ? creds_find(creds, id) : NULL;
	if (!c)
		return err_set(err, EINVAL, "No TLS credentials with id '%s'", id);
	return nbd_where_set_cred(where, c, err);
}

/* What can be given if it says what is so anyway. */
static int check_rest(const struct opts *own, const struct nbd_where *where, struct err *err)
{
	const char *hostname = opts_get(own, "tls-hostname");
	uint64_t delay = 0, timeout = 0;
	int r = opts_uint(own, "reconnect-delay", &delay, err);

	if (r == 0)
		r = opts_uint(own, "open-timeout", &timeout, err);
	if (r < 0)
		return r;
	if (delay || timeout)
		return err_set(err, ENOTSUP, "Option '%s' of driver 'nbd' is not supported",
			       delay ? "reconnect-delay" : "open-timeout");
	if (hostname && !where->tls)
		return err_set(err, EINVAL,
			       "tls-hostname is for connections with TLS: tls-creds is "
			       "missing");
	return err_ctx(err, nbd_where_check_hostname(where, hostname, err),
		       "Option 'tls-hostname' of driver 'nbd'");
}

static int read_description(const struct opts *own, const struct creds *creds,
			    struct nbd_where *where, struct err *err)
{
	const char *name = opts_get(own, "filename");
	int r;

	if (name) {
		if (!nbd_is_name(name))
			return err_set(err, EINVAL, "'%s' is not the name of an NBD export", name);
		r = nbd_where_parse(name, where, err);
	} else {
		r = read_address(own, where, err);
		if (r == 0)
			r = set(&where->export, opts_get(own, "export"), err);
	}
	if (r == 0)
		r = use_creds(own, creds, where, err);
	return r < 0 ? r : check_rest(own, where, err);
}

int img_open_remote_node(const struct opts *own, unsigned flags, const struct img_open_args *args,
			 struct io **out, struct err *err)
{
	struct nbd_where where = {0};
	int r = read_description(own, args ? args->creds : NULL, &where, err);

	if (r == 0)
		r = connect_to(&where, flags, args, out, err);
	nbd_where_free(&where);
	return r;
}
