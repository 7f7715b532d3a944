// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The options of the handshake (doc/proto.md, "Option types"): one function for each, in a table
 * that says what is common: whether data may come with it, and whether it is answered before TLS.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/handshake.h"

static struct nbd_export *find_export(struct connection *c, const char *name, uint32_t len)
{
	const struct server_config *config = &c->server->config;

	for (unsigned i = 0; i < config->n_exports; i++) {
		struct nbd_export *e = config->exports[i];

		if (strlen(e->name) == len && memcmp(e->name, name, len) == 0)
			return e;
	}
	return NULL;
}

uint32_t option_export(struct connection *c, struct option_data *d, struct nbd_export **e)
{
	const char *name;
	uint32_t len;

	if (!option_u32(d, &len) || !option_bytes(d, len, &name))
		return NBD_REP_ERR_INVALID;
	if (len > NBD_MAX_STRING)
		return NBD_REP_ERR_TOO_BIG;
	*e = find_export(c, name, len);
	return *e ? 0 : NBD_REP_ERR_UNKNOWN;
}

int option_refuse(struct handshake *h, uint32_t type)
{
	if (type == NBD_REP_ERR_UNKNOWN)
		return option_error(h, type, "there is no export of that name");
	if (type == NBD_REP_ERR_TOO_BIG)
		return option_error(h, type, "a name is too long, or there are too many queries");
	return option_error(h, type, "lengths do not fit the data");
}

/* The flags of an export as this client sees them. */
static uint16_t export_flags(const struct handshake *h, const struct nbd_export *e)
{
	uint16_t flags = e->flags | NBD_FLAG_HAS_FLAGS;

	flags &= (uint16_t) ~(NBD_FLAG_SEND_DF | NBD_FLAG_BLOCK_STAT_PAYLOAD);
	if (h->mode >= MODE_STRUCTURED)
		flags |= NBD_FLAG_SEND_DF;
	if (h->mode == MODE_EXTENDED && h->context_export == e && h->contexts)
		flags |= NBD_FLAG_BLOCK_STAT_PAYLOAD;
	return flags;
}

static struct flusher *option_flusher(struct server *s, const struct nbd_export *e)
{
	unsigned i = 0;

	while (s->config.exports[i] != e)
		i++;
	return &s->flusher[i];
}

/* Makes the connection a client of e. False: it has as many as it may have. */
static bool join_export(struct connection *c, struct nbd_export *e)
{
	struct handshake *h = c->handshake;
	unsigned before = atomic_fetch_add(&e->clients, 1);

	if (e->max_clients && before >= e->max_clients) {
		atomic_fetch_sub(&e->clients, 1);
		return false;
	}
	if (c->server->config.stats)
		atomic_fetch_add(&c->server->config.stats->clients, 1);
	c->export = e;
	c->flusher = option_flusher(c->server, e);
	c->mode = h->mode;
	/* Contexts count for the export that they were selected for. */
	c->contexts = h->context_export == e ? h->contexts : 0;
	h->next = NEXT_REQUESTS;
	return true;
}

static int drop(struct connection *c, const char *why)
{
	server_say(c->server, c, SERVER_WARNING, "dropped in the handshake: %s", why);
	return -ECONNRESET;
}

/* ---- EXPORT_NAME: cannot be answered with an error ---- */

struct export_reply {
	be64 size;                 /* 0 */
	be16 flags;                /* 8 */
	unsigned char zeroes[124]; /* 10: unless NO_ZEROES */
};

static int do_export_name(struct connection *c, struct option_data d)
{
	struct handshake *h = c->handshake;
	struct nbd_export *e = find_export(c, (const char *)d.p, d.left);
	struct export_reply reply = {0};

	if (h->mode == MODE_EXTENDED)
		return drop(c, "EXPORT_NAME does not go with extended headers");
	if (!e)
		return drop(c, "it asked for an export that is not here");
	if (!join_export(c, e))
		return drop(c, "the export has as many clients as it may have");
	reply.size = be64_make(io_size(e->io));
	reply.flags = be16_make(export_flags(h, e));
	return handshake_raw(h, &reply,
			     h->no_zeroes ? offsetof(struct export_reply, zeroes) : sizeof(reply));
}

/* ---- ABORT, LIST, STARTTLS ---- */

static int do_abort(struct connection *c, struct option_data d)
{
	(void)d;
	c->handshake->next = NEXT_CLOSE;
	return option_reply(c->handshake, NBD_REP_ACK, NULL, 0);
}

/* be32 length of the name, name, description */
static int list_export(struct handshake *h, const struct nbd_export *e)
{
	size_t n_name = strlen(e->name), n_text = e->description ? strlen(e->description) : 0;
	unsigned char data[sizeof(be32) + (size_t)2 * NBD_MAX_STRING];
	be32 len = be32_make((uint32_t)n_name);

	memcpy(data, &len, sizeof(len));
	memcpy(data + sizeof(len), e->name, n_name);
	if (n_text)
		memcpy(data + sizeof(len) + n_name, e->description, n_text);
	return option_reply(h, NBD_REP_SERVER, data, sizeof(len) + n_name + n_text);
}

static int do_list(struct connection *c, struct option_data d)
{
	const struct server_config *config = &c->server->config;
	int r = 0;

	(void)d;
	if (!config->list_exports)
		return option_error(c->handshake, NBD_REP_ERR_POLICY,
				    "this server does not tell what it has");
	for (unsigned i = 0; r == 0 && i < config->n_exports; i++)
		r = list_export(c->handshake, config->exports[i]);
	return r < 0 ? r : option_reply(c->handshake, NBD_REP_ACK, NULL, 0);
}

static int do_starttls(struct connection *c, struct option_data d)
{
	struct handshake *h = c->handshake;

	(void)d;
	if (c->channel->secure)
		return option_error(h, NBD_REP_ERR_INVALID, "TLS has begun already");
	if (c->server->config.tls_mode == SERVER_TLS_OFF)
		return option_error(h, NBD_REP_ERR_POLICY, "this server does without TLS");
	h->next = NEXT_TLS;
	return option_reply(h, NBD_REP_ACK, NULL, 0);
}

/* ---- INFO, GO ---- */

struct info_export {
	be16 type;  /* 0: NBD_INFO_EXPORT */
	be64 size;  /* 2 */
	be16 flags; /* 10 */
};
struct info_block_size {
	be16 type;                    /* 0: NBD_INFO_BLOCK_SIZE */
	be32 min, preferred, maximum; /* 2, 6, 10 */
};
_Static_assert(sizeof(struct info_export) == 12, "layout");
_Static_assert(sizeof(struct info_block_size) == 14, "layout");

static int info_text(struct handshake *h, uint16_t type, const char *text)
{
	unsigned char data[sizeof(be16) + NBD_MAX_STRING];
	be16 t = be16_make(type);
	size_t n = strnlen(text, NBD_MAX_STRING);

	memcpy(data, &t, sizeof(t));
	memcpy(data + sizeof(t), text, n);
	return option_reply(h, NBD_REP_INFO, data, sizeof(t) + n);
}

static int info_item(struct handshake *h, const struct nbd_export *e, uint16_t type)
{
	struct info_block_size block = {
		.type = be16_make(type),
		.min = be32_make(e->min_block),
		.preferred = be32_make(e->preferred_block),
		.maximum = be32_make(e->max_block),
	};

	if (type == NBD_INFO_NAME)
		return info_text(h, type, e->name);
	if (type == NBD_INFO_DESCRIPTION && e->description)
		return info_text(h, type, e->description);
	if (type == NBD_INFO_BLOCK_SIZE)
		return option_reply(h, NBD_REP_INFO, &block, sizeof(block));
	return 0; /* what is not known is ignored */
}

static int info_replies(struct handshake *h, const struct nbd_export *e, struct option_data asked)
{
	struct info_export about = {
		.type = be16_make(NBD_INFO_EXPORT),
		.size = be64_make(io_size(e->io)),
		.flags = be16_make(export_flags(h, e)),
	};
	unsigned told = 0;
	uint16_t type;
	int r = option_reply(h, NBD_REP_INFO, &about, sizeof(about));

	while (r == 0 && option_u16(&asked, &type)) {
		if (type > NBD_INFO_BLOCK_SIZE || told >> type & 1)
			continue;
		told |= 1u << type;
		r = info_item(h, e, type);
	}
	return r < 0 ? r : option_reply(h, NBD_REP_ACK, NULL, 0);
}

/* be32 length of the name, name, be16 number of items, be16 item… */
static int info_or_go(struct connection *c, struct option_data d, bool go)
{
	struct handshake *h = c->handshake;
	struct nbd_export *e;
	uint32_t refused = option_export(c, &d, &e);
	uint16_t n;

	if (refused != NBD_REP_ERR_INVALID && (!option_u16(&d, &n) || d.left != n * sizeof(be16)))
		refused = NBD_REP_ERR_INVALID;
	if (refused)
		return option_refuse(h, refused);
	if (go && !join_export(c, e))
		return option_error(h, NBD_REP_ERR_POLICY,
				    "the export has as many clients as it may have");
	return info_replies(h, e, d);
}

static int do_info(struct connection *c, struct option_data d)
{
	return info_or_go(c, d, false);
}

static int do_go(struct connection *c, struct option_data d)
{
	return info_or_go(c, d, true);
}

/* ---- how replies look ---- */

static int do_structured(struct connection *c, struct option_data d)
{
	struct handshake *h = c->handshake;

	(void)d;
	if (h->mode == MODE_EXTENDED)
		return option_error(h, NBD_REP_ERR_EXT_HEADER_REQD,
				    "extended headers were negotiated already");
	if (h->mode == MODE_STRUCTURED)
		return option_error(h, NBD_REP_ERR_INVALID,
				    "structured replies were negotiated already");
	h->mode = MODE_STRUCTURED;
	return option_reply(h, NBD_REP_ACK, NULL, 0);
}

static int do_extended(struct connection *c, struct option_data d)
{
	struct handshake *h = c->handshake;

	(void)d;
	if (h->mode == MODE_EXTENDED)
		return option_error(h, NBD_REP_ERR_INVALID,
				    "extended headers were negotiated already");
	h->mode = MODE_EXTENDED;
	return option_reply(h, NBD_REP_ACK, NULL, 0);
}

/* ---- the table ---- */

struct option {
	int (*handle)(struct connection *c, struct option_data d);
	bool data;  /* some may come with it; else that is an error */
	bool clear; /* answered without TLS also where TLS is required */
};

static const struct option options[] = {
	[NBD_OPT_EXPORT_NAME] = {do_export_name, true, false},
	[NBD_OPT_ABORT] = {do_abort, true, true},
	[NBD_OPT_LIST] = {do_list, false, false},
	[NBD_OPT_STARTTLS] = {do_starttls, false, true},
	[NBD_OPT_INFO] = {do_info, true, false},
	[NBD_OPT_GO] = {do_go, true, false},
	[NBD_OPT_STRUCTURED_REPLY] = {do_structured, false, false},
	[NBD_OPT_LIST_META_CONTEXT] = {option_list_contexts, true, false},
	[NBD_OPT_SET_META_CONTEXT] = {option_set_contexts, true, false},
	[NBD_OPT_EXTENDED_HEADERS] = {do_extended, false, false},
};

int option_handle(struct connection *c, struct option_data d)
{
	struct handshake *h = c->handshake;
	const struct option *o = h->option < ARRAY_LEN(options) ? &options[h->option] : NULL;
	bool required = c->server->config.tls_mode == SERVER_TLS_REQUIRED && !c->channel->secure;

	if (atomic_load(&c->server->stopping) && h->option != NBD_OPT_ABORT) {
		if (h->option == NBD_OPT_EXPORT_NAME)
			return drop(c, "the server is shutting down");
		return option_error(h, NBD_REP_ERR_SHUTDOWN, "the server is shutting down");
	}
	if (!h->fixed && h->option != NBD_OPT_EXPORT_NAME)
		return drop(c, "an option other than EXPORT_NAME, without fixed newstyle");
	if (required && h->option == NBD_OPT_EXPORT_NAME)
		return drop(c, "it did not begin TLS");
	if (required && !(o && o->clear))
		return option_error(h, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
	if (!o || !o->handle)
		return option_error(h, NBD_REP_ERR_UNSUP, "this option is not known");
	if (d.left && !o->data)
		return option_error(h, NBD_REP_ERR_INVALID, "no data goes with this option");
	return o->handle(c, d);
}
