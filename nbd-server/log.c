// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the server says. Names that clients chose may contain anything: control characters are made
 * visible, so that no client can steer a terminal or forge a line.
 */
#include <stdarg.h>
#include <stdio.h>

#include "nbd-server/engine.h"

static void clean(const char *from, char *to, size_t room)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (; *from && n + 5 <= room; from++) {
		unsigned char ch = (unsigned char)*from;

		if (ch < 0x20 || ch == 0x7f) {
			to[n++] = '\\';
			to[n++] = 'x';
			to[n++] = hex[ch >> 4];
			to[n++] = hex[ch & 15];
		} else {
			to[n++] = (char)ch;
		}
	}
	to[n] = '\0';
}

void server_say(struct server *s, const struct connection *c, enum server_event event,
		const char *fmt, ...)
{
	char raw[768], line[1024];
	va_list ap;
	int n = 0;

	if (!s->config.log.line)
		return;
	if (c && c->channel)
		n = snprintf(raw, sizeof(raw), "%s: ", c->channel->peer);
	va_start(ap, fmt);
	vsnprintf(raw + n, sizeof(raw) - (size_t)n, fmt, ap);
	va_end(ap);
	clean(raw, line, sizeof(line));
	pthread_mutex_lock(&s->log_lock);
	s->config.log.line(s->config.log.ctx, event, line);
	pthread_mutex_unlock(&s->log_lock);
}
