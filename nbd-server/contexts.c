// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Meta contexts in the handshake (doc/proto.md, "NBD_OPT_LIST_META_CONTEXT",
 * "NBD_OPT_SET_META_CONTEXT"). A query is the name of a context; when contexts are listed, it may
 * also be the beginning of names up to a colon. The contexts of an export have the same numbers for
 * all clients: their places in export.context.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/handshake.h"

/* Queries of one option. */
#define QUERIES_MAX 1024u

/* The contexts that a query means, as bits. */
static uint64_t find(const struct nbd_export *e, const char *query, uint32_t len, bool list)
{
	bool wild = list && len && query[len - 1] == ':';
	uint64_t found = 0;

	for (unsigned i = 0; i < e->n_contexts && i < NBD_MAX_CONTEXTS; i++) {
		size_t n = strlen(e->context[i].name);

		if ((n == len || (wild && n > len)) && memcmp(e->context[i].name, query, len) == 0)
			found |= UINT64_C(1) << i;
	}
	return found;
}

static uint64_t all(const struct nbd_export *e)
{
	unsigned n = e->n_contexts < NBD_MAX_CONTEXTS ? e->n_contexts : NBD_MAX_CONTEXTS;

	return n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

/* be32 context, name */
static int tell(struct handshake *h, const struct nbd_export *e, unsigned i, bool list)
{
	unsigned char data[sizeof(be32) + NBD_MAX_STRING];
	be32 id = be32_make(list ? 0 : i);
	size_t n = strlen(e->context[i].name);

	memcpy(data, &id, sizeof(id));
	memcpy(data + sizeof(id), e->context[i].name, n);
	return option_reply(h, NBD_REP_META_CONTEXT, data, sizeof(id) + n);
}

/* The queries: be32 number, { be32 length, text }… 0, or the error that option_refuse replies. */
static uint32_t read_queries(const struct nbd_export *e, struct option_data d, bool list,
			     uint64_t *found)
{
	uint32_t n, len;
	const char *query;

	if (!option_u32(&d, &n) || n > d.left / sizeof(be32))
		return NBD_REP_ERR_INVALID;
	if (n > QUERIES_MAX)
		return NBD_REP_ERR_TOO_BIG;
	*found = list && !n ? all(e) : 0;
	for (; n; n--) {
		if (!option_u32(&d, &len) || !option_bytes(&d, len, &query))
			return NBD_REP_ERR_INVALID;
		*found |= find(e, query, len, list);
	}
	return d.left ? NBD_REP_ERR_INVALID : 0;
}

static int contexts(struct connection *c, struct option_data d, bool list)
{
	struct handshake *h = c->handshake;
	struct nbd_export *e;
	uint64_t found;
	uint32_t refused;
	int r = 0;

	if (h->mode == MODE_SIMPLE)
		return option_error(h, NBD_REP_ERR_INVALID,
				    "structured replies have to be negotiated first");
	refused = option_export(c, &d, &e);
	if (!refused)
		refused = read_queries(e, d, list, &found);
	if (refused)
		return option_refuse(h, refused);
	for (uint64_t rest = found; r == 0 && rest; rest &= rest - 1)
		r = tell(h, e, (unsigned)__builtin_ctzll(rest), list);
	if (r == 0)
		r = option_reply(h, NBD_REP_ACK, NULL, 0);
	if (!list) {
		h->context_export = e;
		h->contexts = found;
	}
	return r;
}

int option_list_contexts(struct connection *c, struct option_data d)
{
	return contexts(c, d, true);
}

int option_set_contexts(struct connection *c, struct option_data d)
{
	/* What was selected before is void, also when this fails. */
	c->handshake->context_export = NULL;
	c->handshake->contexts = 0;
	return contexts(c, d, false);
}
