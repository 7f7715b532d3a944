// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pre-shared keys: a file of lines NAME:HEX, as psktool of GnuTLS makes it and all peers read it; a
 * NAME that begins with # is in hexadecimal, too.
 *
 * The file stays in memory as it was read; names and keys are decoded in their places.
 */
#include "nbd-server/tls_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

enum {
	MIN_KEY = 16,   /* bytes: less can be guessed */
	MAX_KEY = 64,   /* as GnuTLS */
	MAX_NAME = 128, /* PSK_MAX_IDENTITY_LEN of OpenSSL 1.1 */
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; the number of bytes, or -1. */
static ssize_t decode_hex(char *text, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2) {
		int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

		if (high < 0 || low < 0)
			return -1;
		text[i / 2] = (char)(high << 4 | low);
	}
	return len % 2 ? -1 : (ssize_t)(len / 2);
}

/* NULL: fine; else what is wrong with the line. */
static const char *parse_line(char *line, size_t len, struct psk_user *user)
{
	char *colon = memchr(line, ':', len);
	ssize_t n;

	if (!colon)
		return "not NAME:KEY";
	*user = (struct psk_user){.name = line, .name_len = (size_t)(colon - line)};
	if (*line == '#') {
		n = decode_hex(line + 1, user->name_len - 1);
		if (n < 0)
			return "the name is not in hexadecimal";
		user->name = line + 1;
		user->name_len = (size_t)n;
	}
	if (user->name_len == 0 || user->name_len > MAX_NAME ||
	    memchr(user->name, '\0', user->name_len))
		return "a name has 1 to 128 bytes, none of them 0";
	n = decode_hex(colon + 1, len - (size_t)(colon + 1 - line));
	if (n < 0)
		return "the key is not in hexadecimal";
	if (n < MIN_KEY || n > MAX_KEY)
		return "a key has 16 to 64 bytes";
	user->key = (unsigned char *)colon + 1;
	user->key_len = (size_t)n;
	return NULL;
}

static bool same_name(const struct psk_user *user, const char *name, size_t len)
{
	return user->name_len == len && CRYPTO_memcmp(user->name, name, len) == 0;
}

static bool is_known(const struct psk *psk, const struct psk_user *user)
{
	for (unsigned i = 0; i < psk->n; i++) {
		if (same_name(&psk->users[i], user->name, user->name_len))
			return true;
	}
	return false;
}

static int add_line(struct psk *psk, char *line, size_t len, unsigned number, struct err *err)
{
	struct psk_user user, *users;
	const char *wrong;

	if (len && line[len - 1] == '\r')
		len--;
	if (len == 0)
		return 0;
	wrong = parse_line(line, len, &user);
	if (!wrong && is_known(psk, &user))
		wrong = "the name stood above already";
	if (wrong)
		return err_set(err, EINVAL, "%s: line %u: %s", psk->file.path, number, wrong);
	users = reallocarray(psk->users, psk->n + 1, sizeof(*users));
	if (!users)
		return err_nomem(err, sizeof(*users), psk->file.path);
	psk->users = users;
	users[psk->n++] = user;
	return 0;
}

int psk_open(const struct tls_args *args, struct psk *psk, struct err *err)
{
	unsigned number = 0;
	int r;

	*psk = (struct psk){0};
	r = tls_file_read(args, NULL, args->psk_file, true, &psk->file, err);
	for (char *p = psk->file.text; r == 0 && p < psk->file.text + psk->file.len;) {
		size_t len = strcspn(p, "\n");

		r = add_line(psk, p, len, ++number, err);
		p += len + 1;
	}
	if (r == 0 && psk->n == 0)
		r = err_set(err, EINVAL, "%s: no keys in it", psk->file.path);
	if (r == 0 && RAND_bytes(psk->nobody, sizeof(psk->nobody)) != 1)
		r = tls_error(err, EIO, "random numbers");
	if (r < 0)
		psk_close(psk);
	return r;
}

void psk_close(struct psk *psk)
{
	tls_file_free(&psk->file);
	free(psk->users);
	*psk = (struct psk){0};
}

const struct psk_user *psk_find(const struct psk *psk, const char *name)
{
	const struct psk_user *found = NULL;
	const size_t len = strlen(name);

	/* All of them, whether it is found or not. */
	for (unsigned i = 0; i < psk->n; i++) {
		if (same_name(&psk->users[i], name, len))
			found = &psk->users[i];
	}
	return found;
}
