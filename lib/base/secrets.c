// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Named secrets; see secrets.h. Options and messages are those of QEMU's object type "secret".
 *
 * Every buffer that held a secret is wiped before it goes back to the heap.
 */
#include "base/secrets.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

static const char *const formats[] = {"raw", "base64", NULL};

static const struct opt table[] = {
	{.name = "id", .type = OPT_STRING},
	{.name = "data", .type = OPT_STRING},
	{.name = "file", .type = OPT_STRING},
	{.name = "format", .type = OPT_ENUM, .choices = formats},
	{.name = "keyid", .type = OPT_STRING},
	{.name = "iv", .type = OPT_STRING},
	{.name = NULL},
};

static void wipe(unsigned char *data, size_t len)
{
	if (!data)
		return;
	explicit_bzero(data, len);
	munlock(data, len); /* fails where mlock did */
	free(data);
}

/* Room for a secret of len bytes and the 0 behind it. */
static unsigned char *room(size_t len)
{
	unsigned char *p = calloc(1, len + 1);

	if (p)
		mlock(p, len + 1); /* as much as the limit allows */
	return p;
}

const struct secret *secrets_find(const struct secrets *secrets, const char *id)
{
	for (unsigned i = 0; i < secrets->n; i++) {
		if (strcmp(secrets->v[i].id, id) == 0)
			return &secrets->v[i];
	}
	return NULL;
}

void secrets_free(struct secrets *secrets)
{
	for (unsigned i = 0; i < secrets->n; i++) {
		free(secrets->v[i].id);
		wipe(secrets->v[i].data, secrets->v[i].len + 1);
	}
	free(secrets->v);
	*secrets = (struct secrets){0};
}

/* ---- what the options say ---- */

static int check_id(const char *id, struct err *err)
{
	if (!id)
		return err_set(err, EINVAL, "Parameter 'id' is missing");
	for (const char *p = id; *p; p++) {
		if (!isascii(*p) || !(isalnum(*p) || (p > id && strchr("-._", *p))) ||
		    (p == id && !isalpha(*p)))
			id = "";
	}
	if (*id)
		return 0;
	return err_set(err, EINVAL,
		       "Parameter 'id' expects an identifier\n"
		       "Identifiers consist of letters, digits, '-', '.', '_', starting with a "
		       "letter.");
}

static int check_options(const struct secrets *secrets, const struct opts *opts, struct err *err)
{
	const char *key = opts_get(opts, "keyid");
	int format = 0, r = check_id(opts_get(opts, "id"), err);

	for (unsigned i = 0; r == 0 && i < opts->n; i++) {
		const struct opt *o = table;

		while (o->name && strcmp(o->name, opts->v[i].name) != 0)
			o++;
		if (!o->name)
			r = err_set(err, EINVAL, "Parameter '%s' is unexpected", opts->v[i].name);
	}
	if (r == 0)
		r = opts_enum(opts, "format", formats, &format, err);
	if (r < 0)
		return r;
	if (opts_get(opts, "file") && opts_get(opts, "data"))
		return err_set(err, EINVAL, "'file' and 'data' are mutually exclusive");
	if (!opts_get(opts, "file") && !opts_get(opts, "data"))
		return err_set(err, EINVAL, "Either 'file' or 'data' must be provided");
	if (key && !secrets_find(secrets, key))
		return err_set(err, EINVAL, "No secret with id '%s'", key);
	if (key || opts_get(opts, "iv"))
		return err_set(err, ENOTSUP,
			       "Secrets that another secret encrypts ('keyid', 'iv') are not "
			       "supported");
	if (secrets_find(secrets, opts_get(opts, "id")))
		return err_set(err, EINVAL,
			       "attempt to add duplicate property '%s' to object (type "
			       "'container')",
			       opts_get(opts, "id"));
	return 0;
}

/* ---- bytes ---- */

static int read_all(int fd, const char *path, unsigned char *buf, size_t *len, struct err *err)
{
	*len = 0;
	for (;;) {
		ssize_t n = read(fd, buf + *len, SECRET_MAX + 1 - *len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "Unable to read %s", path);
		if (n == 0)
			return 0;
		*len += (size_t)n;
		if (*len > SECRET_MAX)
			return err_set(err, EFBIG, "Unable to read %s: more than %u bytes", path,
				       SECRET_MAX);
	}
}

static int load_file(const char *path, unsigned char **data, size_t *len, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	unsigned char *buf;
	int r;

	if (fd < 0)
		return err_sys(err, errno, "Unable to read %s: Failed to open file “%s”", path,
			       path);
	buf = room(SECRET_MAX + 1);
	if (!buf)
		return err_nomem(err, SECRET_MAX, "a secret");
	r = read_all(fd, path, buf, len, err);
	*data = r == 0 ? room(*len) : NULL;
	if (*data)
		memcpy(*data, buf, *len);
	else if (r == 0)
		r = err_nomem(err, *len, "a secret");
	wipe(buf, SECRET_MAX + 2);
	return r;
}

static int load_text(const char *text, unsigned char **data, size_t *len, struct err *err)
{
	*len = strlen(text);
	if (*len > SECRET_MAX)
		return err_set(err, EFBIG, "A secret may have %u bytes at most", SECRET_MAX);
	*data = room(*len);
	if (!*data)
		return err_nomem(err, *len, "a secret");
	memcpy(*data, text, *len);
	return 0;
}

static int digit(unsigned char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)(p - digits) : -1;
}

/* RFC 4648 section 4, in place; line ends are skipped. False: it is something else. */
static bool decode(unsigned char *data, size_t *len)
{
	unsigned bits = 0, have = 0, pad = 0, digits = 0;
	size_t out = 0;

	for (size_t i = 0; i < *len; i++) {
		int d = digit(data[i]);

		if (data[i] == '\n' || data[i] == '\r')
			continue;
		if (data[i] == '=') {
			pad++;
			continue;
		}
		if (d < 0 || pad)
			return false;
		digits++;
		bits = bits << 6 | (unsigned)d;
		have += 6;
		if (have >= 8) {
			have -= 8;
			data[out++] = (unsigned char)(bits >> have);
			bits &= (1u << have) - 1;
		}
	}
	explicit_bzero(data + out, *len - out);
	*len = out;
	return (digits + pad) % 4 == 0 && pad < 3 && bits == 0;
}

static int load(const struct opts *opts, struct secret *s, struct err *err)
{
	const char *path = opts_get(opts, "file"), *format = opts_get(opts, "format");
	size_t size;
	int r;

	if (path)
		r = load_file(path, &s->data, &s->len, err);
	else
		r = load_text(opts_get(opts, "data"), &s->data, &s->len, err);
	if (r < 0 || !format || strcmp(format, "base64") != 0)
		return r;
	assert(s->data);
	size = s->len;
	if (decode(s->data, &s->len))
		return 0;
	wipe(s->data, size + 1);
	return err_set(err, EINVAL, "Base64 data contains invalid characters");
}

int secrets_add(struct secrets *secrets, const struct opts *opts, struct err *err)
{
	CLEANUP_FREE char *id = NULL;
	struct secret s = {0}, *v;
	int r = check_options(secrets, opts, err);

	if (r < 0)
		return r;
	id = strdup(opts_get(opts, "id"));
	v = reallocarray(secrets->v, secrets->n + 1, sizeof(*v));
	if (!v || !id) {
		secrets->v = v ? v : secrets->v;
		return err_nomem(err, sizeof(*v), "a secret");
	}
	secrets->v = v;
	r = load(opts, &s, err);
	if (r < 0)
		return r;
	s.id = take(id);
	v[secrets->n++] = s;
	return 0;
}
