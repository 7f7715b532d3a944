// SPDX-License-Identifier: GPL-2.0-or-later
/* What commands do: one function for each, in a table. */
#include "nbd-server/execute.h"

#include <errno.h>

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/request.h"

void execute_failed(struct worker *w, struct request *r, int code, const struct err *err)
{
	server_say(w->server, r->conn, SERVER_WARNING, "%s of %llu bytes at %llu failed: %s",
		   request_name(r->type), (unsigned long long)r->length,
		   (unsigned long long)r->offset, err->msg);
	request_fail(r, request_error(-code), "the operation failed");
}

static int do_flush(struct request *r, struct err *err)
{
	return io_flush(r->conn->export->io, err);
}

static int do_trim(struct request *r, struct err *err)
{
	return io_discard(r->conn->export->io, r->offset, r->length, err);
}

static int do_zeroes(struct request *r, struct err *err)
{
	unsigned flags = 0;

	if (!(r->flags & NBD_CMD_FLAG_NO_HOLE))
		flags |= IO_ZERO_UNMAP;
	if (r->flags & NBD_CMD_FLAG_FAST_ZERO)
		flags |= IO_ZERO_FAST;
	return io_zero(r->conn->export->io, r->offset, r->length, flags, err);
}

/* A hint, and our images are cached by the kernel where they are: it has read ahead already. */
static int do_nothing(struct request *r, struct err *err)
{
	(void)r;
	(void)err;
	return 0;
}

static int (*const command[])(struct request *r, struct err *err) = {
	[NBD_CMD_WRITE] = do_nothing, [NBD_CMD_FLUSH] = do_flush,         [NBD_CMD_TRIM] = do_trim,
	[NBD_CMD_CACHE] = do_nothing, [NBD_CMD_WRITE_ZEROES] = do_zeroes,
};

void execute(struct worker *w, struct request *r)
{
	int code = 0;

	if (!r->error && r->type < ARRAY_LEN(command) && command[r->type]) {
		code = command[r->type](r, &w->err);
		if (code == 0 && request_changes(r->type) && (r->flags & NBD_CMD_FLAG_FUA))
			code = do_flush(r, &w->err);
		if (code == -EOPNOTSUPP)
			request_fail(r, NBD_ENOTSUP, "zeroing is not faster than writing");
		else if (code < 0)
			execute_failed(w, r, code, &w->err);
	}
	reply_put(w, r);
}
