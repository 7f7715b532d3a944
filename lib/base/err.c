// SPDX-License-Identifier: LGPL-2.1-or-later
/* Error text without heap; see err.h. */
#include "base/err.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;

		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	return -code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		char buf[64];
		const char *why = strerror_r(code, buf, sizeof(buf));
		/* A long file name must not push out what is wrong with it. */
		size_t n, room = sizeof(err->msg) - strlen(why) - 2;

		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->msg, room, fmt, ap);
		va_end(ap);
		n = strlen(err->msg);
		snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", why);
	}
	return -code;
}

int err_ctx(struct err *err, int r, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		char old[sizeof(err->msg)];
		size_t n;

		memcpy(old, err->msg, sizeof(old));
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
		n = strlen(err->msg);
		snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", old);
	}
	return r;
}

int err_corrupt(struct err *err, const char *name, uint64_t at, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		int n;

		err->code = EUCLEAN;
		n = snprintf(err->msg, sizeof(err->msg), "%s: at offset %" PRIu64 ": ", name, at);
		if (n < 0 || (size_t)n >= sizeof(err->msg))
			return -EUCLEAN;
		va_start(ap, fmt);
		vsnprintf(err->msg + n, sizeof(err->msg) - (size_t)n, fmt, ap);
		va_end(ap);
	}
	return -EUCLEAN;
}

int err_nomem(struct err *err, uint64_t bytes, const char *what)
{
	return err_set(err, ENOMEM, "out of memory (%" PRIu64 " bytes for %s)", bytes, what);
}
