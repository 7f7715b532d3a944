// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Distinguished names as text (RFC 4514), and patterns of them.
 *
 * A pattern is matched attribute by attribute, so no value, whatever a CA let somebody put into it,
 * can pass for two of them.
 */
#include "nbd-server/tls_impl.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include <openssl/err.h>

int tls_name(const X509_NAME *name, char text[TLS_MAX_NAME])
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n = -1;

	/* Bytes above 127 stay: it is UTF-8. */
	if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0)
		n = (int)BIO_pending(bio) < TLS_MAX_NAME ? BIO_read(bio, text, TLS_MAX_NAME - 1)
							 : -1;
	BIO_free(bio);
	ERR_clear_error();
	if (n <= 0 || memchr(text, '\0', (size_t)n))
		return -EINVAL;
	text[n] = '\0';
	return 0;
}

/* The end of an attribute: the comma that no backslash is before, or the end of all. */
static const char *attribute_end(const char *p)
{
	while (*p && *p != ',')
		p += *p == '\\' && p[1] ? 2 : 1;
	return p;
}

/* One attribute against one of the pattern. */
static bool one_matches(const char *pattern, size_t pattern_len, const char *name, size_t name_len)
{
	char p[TLS_MAX_NAME], n[TLS_MAX_NAME];

	if (pattern_len >= sizeof(p) || name_len >= sizeof(n))
		return false;
	memcpy(p, pattern, pattern_len);
	memcpy(n, name, name_len);
	p[pattern_len] = n[name_len] = '\0';
	/* Backslashes are part of the name. */
	return fnmatch(p, n, FNM_NOESCAPE) == 0;
}

bool tls_name_matches(const char *pattern, const char *name)
{
	const char *retry_pattern = NULL, *retry_name = NULL;

	/* As with globs: the last "*" takes one more whenever what follows does not fit. */
	while (*name) {
		const char *p_end = attribute_end(pattern), *n_end = attribute_end(name);

		if (p_end - pattern == 1 && *pattern == '*') {
			retry_pattern = pattern = *p_end ? p_end + 1 : p_end;
			retry_name = name;
			if (!*pattern)
				return true;
			continue;
		}
		if (*pattern &&
		    one_matches(pattern, (size_t)(p_end - pattern), name, (size_t)(n_end - name))) {
			pattern = *p_end ? p_end + 1 : p_end;
			name = *n_end ? n_end + 1 : n_end;
			continue;
		}
		if (!retry_name)
			return false;
		n_end = attribute_end(retry_name);
		retry_name = name = *n_end ? n_end + 1 : n_end;
		pattern = retry_pattern;
	}
	return !*pattern || strcmp(pattern, "*") == 0;
}
