// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the server says. Names that clients chose may contain anything: control characters are made
 * visible, so that no client can steer a terminal or forge a line.
 *
 * Nor can clients fill a log: so many warnings are told at once, then one in a second, and how many
 * were left out. told.until is when all that were told will have had their second. Who gets through no
 * handshake does not use up what is meant for others.
 */
#include <stdarg.h>
#include <stdio.h>

#include "nbd-server/engine.h"

#define AT_ONCE 50u
#define EACH_NS UINT64_C(1000000000)

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

/* Locked. */
static void tell(struct server *s, enum server_event event, const char *text)
{
	s->config.log.line(s->config.log.ctx, event, text);
}

/* Locked. */
static void tell_left_out(struct server *s, struct told *t)
{
	char text[64];

	if (!t->left_out)
		return;
	snprintf(text, sizeof(text), "%u warnings about clients were left out", t->left_out);
	t->left_out = 0;
	tell(s, SERVER_WARNING, text);
}

/* Whether one more warning is told. Locked. */
static bool may_warn(struct server *s, struct told *t)
{
	uint64_t now = now_ns();

	if (t->until > now + AT_ONCE * EACH_NS) {
		t->left_out++;
		return false;
	}
	t->until = max_u64(t->until, now) + EACH_NS;
	tell_left_out(s, t);
	return true;
}

void server_say(struct server *s, const struct connection *c, enum server_event event,
		const char *fmt, ...)
{
	struct told *t = &s->told[c && !c->handshake];
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
	if (event != SERVER_WARNING || may_warn(s, t))
		tell(s, event, line);
	pthread_mutex_unlock(&s->log_lock);
}

void server_say_rest(struct server *s)
{
	if (!s->config.log.line)
		return;
	pthread_mutex_lock(&s->log_lock);
	for (size_t i = 0; i < ARRAY_LEN(s->told); i++)
		tell_left_out(s, &s->told[i]);
	pthread_mutex_unlock(&s->log_lock);
}
