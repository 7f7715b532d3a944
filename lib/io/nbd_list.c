// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The exports of an NBD server: NBD_OPT_LIST, and NBD_OPT_INFO and NBD_OPT_LIST_META_CONTEXT for each,
 * on one connection that stays in the options' phase of the handshake.
 *
 * All of it comes from the server, who may want to fill our memory: there is a limit for the number of
 * exports and one for all texts together. What it does not tell of an export is left out.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/nbd_impl.h"

#define WAIT_MS      60000 /* for one answer */
#define MAX_EXPORTS  10000
#define MAX_CONTEXTS 256 /* of one export */
#define MAX_TEXT     (16 * MiB)

const char *const nbd_flag_names[NBD_FLAG_NAMES] = {
	NULL,     "readonly", "flush", "fua",    "rotational", "trim",
	"zeroes", "df",       "multi", "resize", "cache",      "fast-zero",
};

/* While a server is asked. */
struct listing {
	struct nbd_io *n;
	struct nbd_conn *c;
	struct nbd_list *list;
	struct nbd_listed *now; /* whose contexts are being told */
	int fd;                 /* the socket: the library cannot be asked by what it calls */
	size_t text;            /* bytes of all texts */
	int error;              /* of the answer, a positive errno */
	int stopped;            /* a positive errno: we do not want the rest */
};

/* ---- what the library calls ---- */

static int finished(void *user, int *error)
{
	struct listing *l = user;

	l->error = *error;
	return 1;
}

/* What is not read yet is not wanted either; the library sees that it is cut off. */
static int stop(struct listing *l, int code)
{
	l->stopped = code;
	shutdown(l->fd, SHUT_RDWR);
	return -1;
}

/* A copy that counts. NULL: there is no memory for it, or it is too much. */
static char *keep(struct listing *l, const char *text)
{
	size_t len = strlen(text) + 1;
	char *copy = NULL;

	if (len <= MAX_TEXT - l->text)
		copy = strdup(text);
	if (copy)
		l->text += len;
	else
		stop(l, len <= MAX_TEXT - l->text ? ENOMEM : E2BIG);
	return copy;
}

static int take_export(void *user, const char *name, const char *description)
{
	struct listing *l = user;
	struct nbd_list *list = l->list;
	struct nbd_listed *e;

	if (l->stopped)
		return -1;
	if (list->n == MAX_EXPORTS)
		return stop(l, E2BIG);
	if (is_pow2(list->n + 1)) { /* room for as many again */
		e = reallocarray(list->v, (size_t)2 * (list->n + 1), sizeof(*e));
		if (!e)
			return stop(l, ENOMEM);
		list->v = e;
	}
	e = &list->v[list->n++];
	*e = (struct nbd_listed){0};
	e->name = keep(l, name);
	if (e->name && *description)
		e->description = keep(l, description);
	return l->stopped ? -1 : 0;
}

static int take_context(void *user, const char *name)
{
	struct listing *l = user;
	struct nbd_listed *e = l->now;
	char **v;

	if (l->stopped)
		return -1;
	if (e->n_contexts == MAX_CONTEXTS)
		return stop(l, E2BIG);
	if (is_pow2(e->n_contexts + 1)) {
		v = reallocarray(e->contexts, (size_t)2 * (e->n_contexts + 1), sizeof(*v));
		if (!v)
			return stop(l, ENOMEM);
		e->contexts = v;
	}
	e->contexts[e->n_contexts] = keep(l, name);
	if (!e->contexts[e->n_contexts])
		return -1;
	e->n_contexts++;
	return 0;
}

/* ---- questions ---- */

/* After a call of the library that begins one. *answered: false: the server refuses it. */
static int await(struct listing *l, int sent, bool *answered, struct err *err)
{
	int r;

	*answered = sent >= 0;
	r = sent < 0 && !nbd_conn_is_over(l->n, l->c) ? 0
						      : nbd_conn_await(l->n, l->c, WAIT_MS, err);
	if (l->stopped == E2BIG)
		return err_set(err, E2BIG,
			       "%s: the server lists more than %d exports, %d contexts of one, or "
			       "%d MiB of text",
			       l->n->io.name, MAX_EXPORTS, MAX_CONTEXTS, (int)(MAX_TEXT / MiB));
	if (l->stopped)
		return err_nomem(err, MAX_TEXT, "the exports of a server");
	if (r == 0 && l->error)
		*answered = false;
	return r;
}

static nbd_completion_callback completion(struct listing *l)
{
	l->error = 0;
	l->c->words[0] = '\0';
	return (nbd_completion_callback){.callback = finished, .user_data = l};
}

static int ask_names(struct listing *l, struct err *err)
{
	const nbd_list_callback each = {.callback = take_export, .user_data = l};
	bool answered;
	int r = await(l, l->n->lib.aio_opt_list(l->c->h, each, completion(l)), &answered, err);

	if (r == 0 && !answered)
		r = nbd_conn_refused(l->n, l->c, err);
	return r;
}

static void note_facts(const struct listing *l, struct nbd_listed *e)
{
	const struct nbd_lib *lib = &l->n->lib;
	struct nbd_handle *h = l->c->h;
	int64_t size = lib->get_size(h);
	const struct {
		int kind;
		uint32_t *to;
	} sizes[] = {
		{LIBNBD_SIZE_MINIMUM, &e->min},
		{LIBNBD_SIZE_PREFERRED, &e->preferred},
		{LIBNBD_SIZE_MAXIMUM, &e->max},
	};
	const int bits[NBD_FLAG_NAMES] = {
		1,
		lib->is_read_only(h),
		lib->can_flush(h),
		lib->can_fua(h),
		lib->is_rotational(h),
		lib->can_trim(h),
		lib->can_zero(h),
		lib->can_df(h),
		lib->can_multi_conn(h),
		0,
		lib->can_cache(h),
		lib->can_fast_zero(h),
	};

	e->known = size >= 0; /* 2^63 and more cannot be */
	e->size = e->known ? (uint64_t)size : 0;
	for (unsigned i = 0; i < NBD_FLAG_NAMES; i++)
		e->flags |= bits[i] > 0 ? 1U << i : 0;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		int64_t n = lib->get_block_size(h, sizes[i].kind);

		*sizes[i].to = n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
	}
}

static int ask_contexts(struct listing *l, struct nbd_listed *e, struct err *err)
{
	const nbd_context_callback each = {.callback = take_context, .user_data = l};
	bool answered;

	l->now = e;
	return await(l, l->n->lib.aio_opt_list_meta_context(l->c->h, each, completion(l)),
		     &answered, err);
}

static int ask_export(struct listing *l, struct nbd_listed *e, struct err *err)
{
	const struct nbd_lib *lib = &l->n->lib;
	bool answered;
	int r;

	if (lib->set_export_name(l->c->h, e->name) < 0)
		return nbd_conn_refused(l->n, l->c, err);
	r = await(l, lib->aio_opt_info(l->c->h, completion(l)), &answered, err);
	if (r < 0 || !answered)
		return r;
	note_facts(l, e);
	return ask_contexts(l, e, err);
}

/* Servers of before 2012 have one export, and no options. */
static int take_only(struct listing *l)
{
	if (take_export(l, "", "") < 0)
		return -ENOMEM;
	note_facts(l, &l->list->v[0]);
	return 0;
}

static int ask_all(struct listing *l, struct err *err)
{
	struct nbd_conn *c = l->c;
	LOCK_SCOPE(&c->lock);
	int r;

	l->fd = l->n->lib.aio_get_fd(c->h);
	if (l->n->lib.aio_is_ready(c->h) > 0)
		return take_only(l) < 0 ? err_nomem(err, sizeof(*l->list->v), "an export") : 0;
	r = ask_names(l, err);
	for (unsigned i = 0; r == 0 && i < l->list->n; i++)
		r = ask_export(l, &l->list->v[i], err);
	return r;
}

int nbd_list(const struct nbd_where *where, struct job *job, struct nbd_list *list, struct err *err)
{
	/* A client of no export: enough of one for a connection. */
	struct nbd_io n = {.where = *where, .options = true, .job = job};
	struct listing l = {.n = &n, .list = list};
	int r;

	*list = (struct nbd_list){0};
	n.where.export = NULL;
	n.io.name = nbd_where_name(&n.where);
	if (!n.io.name)
		return err_nomem(err, 256, "a name");
	r = nbd_load(&n.lib, err);
	if (r == 0) {
		r = nbd_conn_open(&n, WAIT_MS, &l.c, err);
		if (r == 0)
			r = ask_all(&l, err);
		nbd_conn_close(&n, l.c);
		nbd_unload(&n.lib);
	}
	free(n.io.name);
	return r;
}

void nbd_list_free(struct nbd_list *list)
{
	for (unsigned i = 0; i < list->n; i++) {
		struct nbd_listed *e = &list->v[i];

		for (unsigned k = 0; k < e->n_contexts; k++)
			free(e->contexts[k]);
		free(e->contexts);
		free(e->name);
		free(e->description);
	}
	free(list->v);
	*list = (struct nbd_list){0};
}
