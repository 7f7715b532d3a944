// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Certificates, keys and revocation lists: files in PEM, in a directory with the names that QEMU and
 * libvirt gave them. What would fail with every client fails here, with the file's name.
 */
#include "nbd-server/tls_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"

/* ---- reading ---- */

void tls_file_free(struct tls_file *file)
{
	if (file->text) {
		explicit_bzero(file->text, file->len);
		munlock(file->text, file->len + 1); /* fails where mlock did */
	}
	free(file->text);
	free(file->path);
	*file = (struct tls_file){0};
}

/* Pipes are fine ("<(…)"), so the size is not known before. */
static int read_all(int fd, struct tls_file *file, struct err *err)
{
	ssize_t n;

	file->text = calloc(1, TLS_MAX_FILE + 1);
	if (!file->text)
		return err_nomem(err, TLS_MAX_FILE, file->path);
	mlock(file->text, TLS_MAX_FILE + 1); /* as much as the limit allows */
	do {
		n = read(fd, file->text + file->len, TLS_MAX_FILE - file->len);
		if (n > 0)
			file->len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0)
		return err_sys(err, errno, "%s", file->path);
	if (file->len == TLS_MAX_FILE)
		return err_set(err, EFBIG, "%s: longer than %u bytes", file->path, TLS_MAX_FILE);
	return 0;
}

static void warn_of_readers(const struct tls_args *args, const char *path, int fd)
{
	char text[PATH_MAX + 64];
	struct stat st;

	if (!args->warn || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & 0006))
		return;
	snprintf(text, sizeof(text), "%s: any user can %s this secret (chmod o= it)", path,
		 st.st_mode & 0002 ? "change" : "read");
	args->warn(args->warn_ctx, text);
}

int tls_file_read(const struct tls_args *args, const char *directory, const char *name, bool secret,
		  struct tls_file *file, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int r;

	*file = (struct tls_file){0};
	if (asprintf(&file->path, "%s%s%s", directory ? directory : "", directory ? "/" : "",
		     name) < 0) {
		file->path = NULL;
		return err_nomem(err, strlen(name), "a path");
	}
	fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	r = fd < 0 ? err_sys(err, errno, "%s", file->path) : read_all(fd, file, err);
	if (r == 0 && secret)
		warn_of_readers(args, file->path, fd);
	if (r < 0)
		tls_file_free(file);
	return r;
}

/* ---- what is in them ---- */

/* Reads an object from a BIO: PEM_read_bio_X509 and its like. */
#define READ(type, bio) PEM_read_bio_##type(bio, NULL, no_password, NULL)

/* Nobody is asked for one: a server starts unattended. */
static int no_password(char *buf, int size, int writing, void *asked)
{
	(void)buf;
	(void)size;
	(void)writing;
	if (asked)
		*(bool *)asked = true;
	return -1;
}

/* Whether reading ended because there is no more, rather than because of something broken. */
static bool at_end(void)
{
	const unsigned long e = ERR_peek_last_error();

	if (ERR_GET_LIB(e) != ERR_LIB_PEM || ERR_GET_REASON(e) != PEM_R_NO_START_LINE)
		return false;
	ERR_clear_error();
	return true;
}

static void time_text(const ASN1_TIME *t, char *text, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n = bio && ASN1_TIME_print(bio, t) ? BIO_read(bio, text, (int)size - 1) : 0;

	text[n > 0 ? n : 0] = '\0';
	BIO_free(bio);
}

/* from and to of what the file has; to may be missing (of lists). */
static int check_time(const char *path, const ASN1_TIME *from, const ASN1_TIME *to, struct err *err)
{
	char text[64];

	/* 0: an error, which counts as a time that is wrong. */
	if (X509_cmp_current_time(from) >= 0) {
		time_text(from, text, sizeof(text));
		return err_set(err, EINVAL, "%s: not valid before %s", path, text);
	}
	if (to && X509_cmp_current_time(to) <= 0) {
		time_text(to, text, sizeof(text));
		return err_set(err, EINVAL, "%s: expired at %s", path, text);
	}
	return 0;
}

static int check_certificate_time(const char *path, const X509 *x, struct err *err)
{
	return check_time(path, X509_get0_notBefore(x), X509_get0_notAfter(x), err);
}

/* The server's own certificate, which is the first, and those that lead from it to a root. */
static int use_certificates(SSL_CTX *ctx, const char *path, BIO *bio, struct err *err)
{
	X509 *x = READ(X509, bio);
	int r;

	if (!x)
		return tls_error(err, EINVAL, path);
	r = check_certificate_time(path, x, err);
	if (r == 0 && SSL_CTX_use_certificate(ctx, x) != 1)
		r = tls_error(err, EINVAL, path);
	X509_free(x);
	while (r == 0 && (x = READ(X509, bio))) {
		r = check_certificate_time(path, x, err);
		if (r == 0 && SSL_CTX_add1_chain_cert(ctx, x) != 1)
			r = tls_error(err, EINVAL, path);
		X509_free(x);
	}
	return r == 0 && !at_end() ? tls_error(err, EINVAL, path) : r;
}

static int use_key(SSL_CTX *ctx, const char *path, BIO *bio, struct err *err)
{
	bool encrypted = false;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, &encrypted);
	int r = 0;

	if (encrypted) {
		ERR_clear_error();
		r = err_set(err, EINVAL, "%s: the key is encrypted, and nobody is there to ask",
			    path);
	} else if (!key || SSL_CTX_use_PrivateKey(ctx, key) != 1 ||
		   SSL_CTX_check_private_key(ctx) != 1) {
		r = tls_error(err, EINVAL, path);
	}
	EVP_PKEY_free(key);
	return r;
}

/* Whom clients' certificates have to come from. */
static int use_authorities(SSL_CTX *ctx, const char *path, BIO *bio, struct err *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	unsigned n = 0;
	X509 *x;
	int r = 0;

	while (r == 0 && (x = READ(X509, bio))) {
		if (X509_check_ca(x) == 0)
			r = err_set(err, EINVAL,
				    "%s: has a certificate that is not of an authority", path);
		/* One of several may be out of date. */
		if (r == 0 && check_certificate_time(path, x, err) == 0)
			n++;
		if (r == 0 &&
		    (X509_STORE_add_cert(store, x) != 1 || SSL_CTX_add_client_CA(ctx, x) != 1))
			r = tls_error(err, EINVAL, path);
		X509_free(x);
	}
	if (r == 0 && (!at_end() || ERR_peek_error()))
		r = tls_error(err, EINVAL, path);
	if (r < 0 || n)
		return r;
	return err && err->code ? -EINVAL : err_set(err, EINVAL, "%s: no certificate in it", path);
}

static int use_revocations(SSL_CTX *ctx, const char *path, BIO *bio, struct err *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	X509_CRL *list;
	unsigned n = 0;
	int r = 0;

	for (; r == 0 && (list = READ(X509_CRL, bio)); n++) {
		r = check_time(path, X509_CRL_get0_lastUpdate(list), X509_CRL_get0_nextUpdate(list),
			       err);
		if (r == 0 && X509_STORE_add_crl(store, list) != 1)
			r = tls_error(err, EINVAL, path);
		X509_CRL_free(list);
	}
	if (r == 0 && !at_end())
		r = tls_error(err, EINVAL, path);
	if (r == 0 && n == 0)
		r = err_set(err, EINVAL, "%s: no revocation list in it", path);
	if (r == 0)
		X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return r;
}

/* One file of the directory. optional: 0, too, when it is not there. */
struct part {
	const char *name;
	bool secret, optional;
	int (*use)(SSL_CTX *ctx, const char *path, BIO *bio, struct err *err);
};

static int load_part(SSL_CTX *ctx, const struct tls_args *args, const struct part *part,
		     struct err *err)
{
	struct err missing = {0};
	struct tls_file file;
	int r = tls_file_read(args, args->directory, part->name, part->secret, &file,
			      part->optional ? &missing : err);
	BIO *bio;

	if (r == -ENOENT && part->optional)
		return 0;
	if (r < 0) {
		if (part->optional && err)
			*err = missing;
		return r;
	}
	bio = BIO_new_mem_buf(file.text, (int)file.len);
	r = bio ? part->use(ctx, file.path, bio, err) : err_nomem(err, file.len, file.path);
	BIO_free(bio);
	tls_file_free(&file);
	return r;
}

int tls_load(SSL_CTX *ctx, const struct tls_args *args, struct err *err)
{
	static const struct part own[] = {
		{"server-cert.pem", false, false, use_certificates},
		{"server-key.pem", true, false, use_key},
	};
	static const struct part clients[] = {
		{"ca-cert.pem", false, false, use_authorities},
		{"ca-crl.pem", false, true, use_revocations},
	};
	int r = 0;

	for (int i = 0; r == 0 && i < 2; i++)
		r = load_part(ctx, args, &own[i], err);
	for (int i = 0; r == 0 && args->verify && i < 2; i++)
		r = load_part(ctx, args, &clients[i], err);
	return r;
}
