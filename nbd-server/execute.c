// SPDX-License-Identifier: GPL-2.0-or-later
/* What commands do: one function for each, in a table; and who does it: see work.c. */
#include "nbd-server/execute.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/request.h"

/* Bytes that are zeroed or discarded in one step: where that is cheap, and where zeros are written. */
#define STEP_CHEAP (UINT64_C(1) << 30)
#define STEP_DEAR  (UINT64_C(8) << 20)

/* Failures of one connection that are told of: a client that goes on must not fill a log. */
#define FAILURES_TOLD 20u

void execute_failed(struct worker *w, struct request *r, int code)
{
	unsigned told = atomic_fetch_add_explicit(&r->conn->n_failed, 1, memory_order_relaxed);

	if (told < FAILURES_TOLD)
		server_say(w->server, r->conn, SERVER_WARNING,
			   "%s of %" PRIu64 " bytes at %" PRIu64 " failed: %s%s",
			   request_name(r->type), r->length, r->offset, w->err.msg,
			   told + 1 < FAILURES_TOLD ? "" : " (the last one that is told of)");
	request_fail(r, request_error(-code), "the operation failed");
}

/* ---- commands: a bounded part of each ---- */

/* Up to the next multiple of step, counted from the beginning of the export. */
static uint64_t step_size(const struct request *r, uint64_t step)
{
	uint64_t at = r->offset + r->done;

	return min_u64(r->length - r->done, round_down(at, step) + step - at);
}

static int do_write(struct request *r, struct err *err)
{
	struct nbd_export *e = r->conn->export;
	struct stopwatch begun = cost_begin_always();
	int code = io_pwrite(e->io, r->data, r->length, r->offset, err);

	cost_end(&e->cost, &begun, r->length);
	r->done = r->length;
	return code;
}

static int do_trim(struct request *r, struct err *err)
{
	uint64_t n = step_size(r, STEP_CHEAP);
	int code = io_discard(r->conn->export->io, r->offset + r->done, n, err);

	r->done += n;
	return code;
}

static int do_zeroes(struct request *r, struct err *err)
{
	struct io *io = r->conn->export->io;
	uint64_t n = step_size(r, io->caps & IO_FASTZERO ? STEP_CHEAP : STEP_DEAR);
	unsigned flags = 0;
	int code;

	if (!(r->flags & NBD_CMD_FLAG_NO_HOLE))
		flags |= IO_ZERO_UNMAP;
	if (r->flags & NBD_CMD_FLAG_FAST_ZERO)
		flags |= IO_ZERO_FAST;
	code = io_zero(io, r->offset + r->done, n, flags, err);
	r->done += n;
	return code;
}

/* READ and BLOCK_STATUS are done by replying, FLUSH by execute_wants_flush. CACHE is a hint. */
static int do_nothing(struct request *r, struct err *err)
{
	(void)err;
	r->done = r->length;
	return 0;
}

static int (*const command[])(struct request *r, struct err *err) = {
	[NBD_CMD_READ] = do_nothing,         [NBD_CMD_WRITE] = do_write,
	[NBD_CMD_FLUSH] = do_nothing,        [NBD_CMD_TRIM] = do_trim,
	[NBD_CMD_CACHE] = do_nothing,        [NBD_CMD_WRITE_ZEROES] = do_zeroes,
	[NBD_CMD_BLOCK_STATUS] = do_nothing,
};

bool execute_step(struct worker *w, struct request *r)
{
	int code;

	if (r->error || r->done == r->length || r->type >= ARRAY_LEN(command) || !command[r->type])
		return true;
	if (atomic_load_explicit(&r->conn->dead, memory_order_relaxed) && r->done) {
		request_fail(r, NBD_ESHUTDOWN, "the client has gone");
		return true;
	}
	code = command[r->type](r, &w->err);
	if (code == -EOPNOTSUPP)
		request_fail(r, NBD_ENOTSUP, "this is not faster than writing zeroes");
	else if (code < 0)
		execute_failed(w, r, code);
	return r->error || r->done == r->length;
}

bool execute_wants_flush(const struct request *r)
{
	if (r->error)
		return false;
	return r->type == NBD_CMD_FLUSH ||
	       ((r->flags & NBD_CMD_FLAG_FUA) && request_changes(r->type));
}

/* ---- by the owner ---- */

bool execute_slow(const struct connection *c)
{
	return cost_slow(atomic_load_explicit(&c->export->cost, memory_order_relaxed));
}

void execute(struct worker *w, struct request *r)
{
	struct connection *c = r->conn;
	struct flusher *f = c->flusher;
	int code;

	if (!r->error && execute_slow(c)) {
		work_add(w, r);
		return;
	}
	if (!execute_step(w, r)) {
		work_add(w, r);
		return;
	}
	if (execute_wants_flush(r)) {
		struct stopwatch begun = cost_begin_always();

		if (cost_slow(atomic_load_explicit(&f->cost, memory_order_relaxed))) {
			work_add(w, r);
			return;
		}
		code = io_flush(c->export->io, &w->err);
		cost_end(&f->cost, &begun, 0);
		if (code < 0)
			execute_failed(w, r, code);
	}
	reply_put(w, r);
}
