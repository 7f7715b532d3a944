// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Connecting to NBD servers: the handshake, what the server says of its export, and further
 * connections while the others are busy.
 *
 * A further connection is a help and nothing else: if the server does not answer soon, refuses, or
 * says something else of the export than at first, we go on with those there are.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "io/nbd_impl.h"

#define LOOK_UP_MS      100
#define FIRST_WAIT_MS   60000
#define FURTHER_WAIT_MS 5000
#define MAX_REQUEST     (32 * MiB) /* where the server says nothing else */

/* What the server said when it refused; the library has it among its debug messages only. */
static int note_words(void *user, const char *context, const char *msg)
{
	static const char prefix[] = "handshake: server error message: ";
	struct nbd_conn *c = user;

	(void)context;
	if (strncmp(msg, prefix, sizeof(prefix) - 1) == 0)
		snprintf(c->words, sizeof(c->words), "%s", msg + sizeof(prefix) - 1);
	return 0;
}

/* ---- the handshake ---- */

static int set_tls(struct nbd_io *n, struct nbd_handle *h)
{
	const struct nbd_where *w = &n->where;

	if (n->lib.set_tls(h, LIBNBD_TLS_REQUIRE) < 0 ||
	    (w->tls_dir && n->lib.set_tls_certificates(h, w->tls_dir) < 0) ||
	    (w->tls_psk && n->lib.set_tls_psk_file(h, w->tls_psk) < 0) ||
	    (w->tls_user && n->lib.set_tls_username(h, w->tls_user) < 0))
		return -1;
	return n->lib.set_tls_verify_peer(h, !w->tls_unverified);
}

static int configure(struct nbd_io *n, struct nbd_handle *h)
{
	if (n->lib.set_export_name(h, n->where.export ? n->where.export : "") < 0 ||
	    n->lib.set_opt_mode(h, n->options) < 0)
		return -1;
	for (unsigned i = 0; i < n->n_contexts; i++) {
		if (n->lib.add_meta_context(h, n->contexts[i]) < 0)
			return -1;
	}
	return n->where.tls ? set_tls(n, h) : 0;
}

static int start(struct nbd_io *n, struct nbd_handle *h)
{
	if (n->where.path)
		return n->lib.aio_connect_unix(h, n->where.path);
	return n->lib.aio_connect_tcp(h, n->where.host, n->where.port);
}

int nbd_conn_refused(struct nbd_io *n, const struct nbd_conn *c, struct err *err)
{
	int code;
	const char *why = nbd_conn_error(n, &code);

	if (c->why[0]) {
		why = c->why;
		code = c->code;
	}
	if (c->words[0])
		return err_set(err, code, "%s: %s (the server says: %s)", n->io.name, why,
			       c->words);
	return err_set(err, code, "%s: %s", n->io.name, why);
}

int nbd_conn_await(struct nbd_io *n, struct nbd_conn *c, int wait_ms, struct err *err)
{
	int64_t until = nbd_now_ms() + wait_ms;

	while (n->lib.aio_is_ready(c->h) <= 0 && n->lib.aio_is_negotiating(c->h) <= 0) {
		if (nbd_conn_is_over(n, c))
			return nbd_conn_refused(n, c, err);
		if (job_cancelled(n->job))
			return err_set(err, ECANCELED, "cancelled");
		if (nbd_now_ms() >= until)
			return err_set(err, ETIMEDOUT, "%s: the server does not answer",
				       n->io.name);
		nbd_conn_step(n, c, LOOK_UP_MS);
	}
	return 0;
}

/* Under the lock. Who stays in the options' phase wants to hear why they are refused, too. */
static int shake_hands(struct nbd_io *n, struct nbd_conn *c, int wait_ms, struct err *err)
{
	const nbd_debug_callback listen = {.callback = note_words, .user_data = c};
	int r;

	if (n->lib.set_debug_callback(c->h, listen) < 0 || n->lib.set_debug(c->h, true) < 0 ||
	    configure(n, c->h) < 0 || start(n, c->h) < 0)
		r = nbd_conn_refused(n, c, err);
	else
		r = nbd_conn_await(n, c, wait_ms, err);
	if (!n->options) {
		n->lib.set_debug(c->h, false);
		n->lib.clear_debug_callback(c->h);
	}
	return r;
}

/* ---- what the server says ---- */

static bool can(int answer)
{
	return answer > 0; /* -1: it does not say */
}

static int ask_facts(struct nbd_io *n, struct nbd_handle *h, struct nbd_facts *f, struct err *err)
{
	int64_t size = n->lib.get_size(h);
	int64_t min = n->lib.get_block_size(h, LIBNBD_SIZE_MINIMUM);
	int64_t max = n->lib.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return err_set(err, EFBIG, "%s: the server says a size of 2^63 bytes or more",
			       n->io.name);
	min = min > 0 ? min : 1;
	if (!is_pow2((uint64_t)min) || min > (int64_t)(64 * KiB))
		return err_set(err, EPROTO, "%s: the server asks for blocks of %" PRId64 " bytes",
			       n->io.name, min);
	if (!is_aligned((uint64_t)size, (uint64_t)min))
		return err_set(err, EPROTO,
			       "%s: the size %" PRId64
			       " is not a multiple of the block size %" PRId64,
			       n->io.name, size, min);
	max = max > 0 ? (int64_t)min_u64((uint64_t)max, MAX_REQUEST) : (int64_t)MAX_REQUEST;
	if (max < min)
		return err_set(err, EPROTO,
			       "%s: the server takes at most %" PRId64
			       " bytes, and blocks of %" PRId64,
			       n->io.name, max, min);
	*f = (struct nbd_facts){
		.size = (uint64_t)size,
		.min = (uint32_t)min,
		.max = (uint32_t)round_down((uint64_t)max, (uint64_t)min),
		.read_only = can(n->lib.is_read_only(h)),
		.flush = can(n->lib.can_flush(h)),
		.trim = can(n->lib.can_trim(h)),
		.zero = can(n->lib.can_zero(h)),
		.fast_zero = can(n->lib.can_fast_zero(h)),
		.multi = can(n->lib.can_multi_conn(h)),
	};
	return 0;
}

/* ---- connections ---- */

void nbd_conn_close(struct nbd_io *n, struct nbd_conn *c)
{
	if (!c)
		return;
	if (c->h && n->lib.aio_is_ready(c->h) > 0)
		n->lib.aio_disconnect(c->h, 0);
	else if (c->h && n->lib.aio_is_negotiating(c->h) > 0)
		n->lib.aio_opt_abort(c->h);
	n->lib.close(c->h);
	if (c->wake >= 0)
		close(c->wake);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

int nbd_conn_open(struct nbd_io *n, int wait_ms, struct nbd_conn **out, struct err *err)
{
	struct nbd_conn *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return err_nomem(err, sizeof(*c), "a connection");
	pthread_mutex_init(&c->lock, NULL);
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake < 0)
		r = err_sys(err, errno, "%s: cannot make an event descriptor", n->io.name);
	else if (!(c->h = n->lib.create()))
		r = err_nomem(err, 0, "a connection");
	if (r == 0) {
		LOCK_SCOPE(&c->lock);

		r = shake_hands(n, c, wait_ms, err);
	}
	if (r < 0) {
		nbd_conn_close(n, c);
		return r;
	}
	*out = c;
	return 0;
}

/* A connection to the export, and what the server says of it. */
static int open_export(struct nbd_io *n, int wait_ms, struct nbd_conn **out,
		       struct nbd_facts *facts, struct err *err)
{
	struct nbd_conn *c = NULL;
	int r = nbd_conn_open(n, wait_ms, &c, err);

	if (r == 0)
		r = ask_facts(n, c->h, facts, err);
	if (r < 0) {
		nbd_conn_close(n, c);
		return r;
	}
	*out = c;
	return 0;
}

int nbd_connect(struct nbd_io *n, struct err *err)
{
	int r = open_export(n, FIRST_WAIT_MS, &n->conn[0], &n->facts, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < n->n_contexts; i++)
		n->has[i] = can(n->lib.can_meta_context(n->conn[0]->h, n->contexts[i]));
	atomic_store(&n->n_conns, 1);
	return 0;
}

void nbd_disconnect(struct nbd_io *n)
{
	for (unsigned i = 0; i < n->n_conns; i++)
		nbd_conn_close(n, n->conn[i]);
	n->n_conns = 0;
}

static bool same_facts(const struct nbd_io *n, struct nbd_handle *h, const struct nbd_facts *f)
{
	const struct nbd_facts *g = &n->facts;

	for (unsigned i = 0; i < n->n_contexts; i++) {
		if (can(n->lib.can_meta_context(h, n->contexts[i])) != n->has[i])
			return false;
	}
	return f->size == g->size && f->min == g->min && f->max == g->max &&
	       f->read_only == g->read_only && f->flush == g->flush && f->trim == g->trim &&
	       f->zero == g->zero && f->fast_zero == g->fast_zero && f->multi == g->multi;
}

/* One more connection; NULL: there will be none now. */
static struct nbd_conn *open_further(struct nbd_io *n)
{
	struct nbd_conn *c = NULL;
	struct nbd_facts facts;
	unsigned have;

	if (pthread_mutex_trylock(&n->grow) != 0)
		return NULL;
	have = atomic_load(&n->n_conns);
	if (have < n->max_conns && !atomic_load(&n->no_more) &&
	    open_export(n, FURTHER_WAIT_MS, &c, &facts, NULL) < 0)
		c = NULL;
	if (c && !same_facts(n, c->h, &facts)) {
		nbd_conn_close(n, c);
		c = NULL;
	}
	if (c) {
		n->conn[have] = c;
		atomic_store(&n->n_conns, have + 1);
	} else {
		atomic_store(&n->no_more, true);
	}
	pthread_mutex_unlock(&n->grow);
	return c;
}

struct nbd_conn *nbd_conn_choose(struct nbd_io *n)
{
	unsigned have = atomic_load(&n->n_conns);
	struct nbd_conn *best = n->conn[0], *more;

	for (unsigned i = 1; i < have; i++) {
		if (atomic_load(&n->conn[i]->load) < atomic_load(&best->load))
			best = n->conn[i];
	}
	if (atomic_load(&best->load) && have < n->max_conns && !atomic_load(&n->no_more)) {
		more = open_further(n);
		best = more ? more : best;
	}
	atomic_fetch_add(&best->load, 1);
	return best;
}

void nbd_conn_release(struct nbd_conn *c)
{
	atomic_fetch_sub(&c->load, 1);
}
