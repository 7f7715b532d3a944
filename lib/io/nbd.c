// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * NBD exports as a struct io; see nbd.h.
 *
 * Where the server takes whole blocks only, partial blocks are read, changed and written back under
 * `edge`: two requests for different bytes of one block must not undo each other.
 */
#include "io/nbd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/work.h"
#include "io/nbd_impl.h"

/* Data in one message: small enough that several are in flight, large enough to pay. */
#define DATA_PIECE (256 * KiB)
/* What has no data is cut now and then all the same: see GRACE_MS in nbd_run.c. */
#define HOLE_PIECE (1 * GiB)

/* ---- whole blocks ---- */

static int transfer(struct nbd_io *n, enum nbd_kind kind, void *buf, uint64_t len, uint64_t off,
		    struct err *err)
{
	const struct nbd_request req = {
		.kind = kind,
		.buf = buf,
		.off = off,
		.len = len,
		.piece = min_u64(n->facts.max, max_u64(DATA_PIECE, n->facts.min)),
	};

	return nbd_run(n, &req, err);
}

/* A request for a range without data, of whole blocks. */
static int mark(struct nbd_io *n, enum nbd_kind kind, uint64_t off, uint64_t len, uint32_t flags,
		struct err *err)
{
	const struct nbd_request req = {
		.kind = kind,
		.off = off,
		.len = len,
		.piece = HOLE_PIECE,
		.flags = flags,
	};

	return nbd_run(n, &req, err);
}

/* ---- parts of blocks ---- */

/* Bytes from off on that are in one partial block; 0: off begins whole blocks. */
static size_t part_of_block(const struct nbd_io *n, uint64_t off, uint64_t len)
{
	uint64_t skip = off & (n->facts.min - 1);

	if (skip || len < n->facts.min)
		return (size_t)min_u64(n->facts.min - skip, len);
	return 0;
}

static int read_part(struct nbd_io *n, void *buf, size_t len, uint64_t off, struct err *err)
{
	CLEANUP_FREE char *block = malloc(n->facts.min);
	uint64_t start = round_down(off, n->facts.min);
	int r;

	if (!block)
		return err_nomem(err, n->facts.min, "a block");
	r = transfer(n, NBD_READ, block, n->facts.min, start, err);
	if (r == 0)
		memcpy(buf, block + (off - start), len);
	return r;
}

static int write_part(struct nbd_io *n, const void *buf, size_t len, uint64_t off, struct err *err)
{
	CLEANUP_FREE char *block = malloc(n->facts.min);
	uint64_t start = round_down(off, n->facts.min);
	LOCK_SCOPE(&n->edge);
	int r;

	if (!block)
		return err_nomem(err, n->facts.min, "a block");
	r = transfer(n, NBD_READ, block, n->facts.min, start, err);
	if (r < 0)
		return r;
	memcpy(block + (off - start), buf, len);
	return transfer(n, NBD_PUT, block, n->facts.min, start, err);
}

/* ---- struct io ---- */

static int nbd_io_pread(struct io *io, void *buf, size_t len, uint64_t off, struct err *err)
{
	struct nbd_io *n = nbd_of(io);
	char *p = buf;
	int r = 0;

	while (r == 0 && len) {
		size_t part = part_of_block(n, off, len);
		size_t now = part ? part : (size_t)round_down(len, n->facts.min);

		r = part ? read_part(n, p, now, off, err) : transfer(n, NBD_READ, p, now, off, err);
		p += now;
		off += now;
		len -= now;
	}
	return r;
}

static int write_all(struct nbd_io *n, const void *buf, size_t len, uint64_t off, struct err *err)
{
	const char *p = buf;
	int r = 0;

	while (r == 0 && len) {
		size_t part = part_of_block(n, off, len);
		size_t now = part ? part : (size_t)round_down(len, n->facts.min);

		r = part ? write_part(n, p, now, off, err)
			 : transfer(n, NBD_PUT, (void *)p, now, off, err);
		p += now;
		off += now;
		len -= now;
	}
	return r;
}

static int nbd_io_pwrite(struct io *io, const void *buf, size_t len, uint64_t off, struct err *err)
{
	struct nbd_io *n = nbd_of(io);
	int r;

	nbd_forget(n);
	r = write_all(n, buf, len, off, err);
	nbd_forget(n);
	return r;
}

/* The whole blocks of a range: its middle. False: there are none. */
static bool whole_blocks(const struct nbd_io *n, uint64_t off, uint64_t len, uint64_t *start,
			 uint64_t *end)
{
	*start = round_up(off, n->facts.min);
	*end = round_down(off + len, n->facts.min);
	return *start < *end;
}

static int zero_range(struct nbd_io *n, uint64_t off, uint64_t len, uint32_t flags, struct err *err)
{
	uint64_t start, end;
	int r;

	if (!whole_blocks(n, off, len, &start, &end))
		return flags & LIBNBD_CMD_FLAG_FAST_ZERO ? -ENOTSUP
							 : write_all(n, zero_buf, len, off, err);
	r = mark(n, NBD_ZERO, start, end - start, flags, err);
	/* Less than a block each. */
	if (r == 0 && off < start)
		r = write_all(n, zero_buf, start - off, off, err);
	if (r == 0 && end < off + len)
		r = write_all(n, zero_buf, off + len - end, end, err);
	return r;
}

static int nbd_io_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct nbd_io *n = nbd_of(io);
	bool unmap = (flags & IO_ZERO_UNMAP) && !(n->flags & NBD_KEEP_SPACE);
	uint32_t how = unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
	int r;

	if (!n->facts.zero || ((flags & IO_ZERO_FAST) && !n->facts.fast_zero))
		return -ENOTSUP;
	if (flags & IO_ZERO_FAST)
		how |= LIBNBD_CMD_FLAG_FAST_ZERO;
	nbd_forget(n);
	r = zero_range(n, off, len, how, err);
	nbd_forget(n);
	return r;
}

static int nbd_io_discard(struct io *io, uint64_t off, uint64_t len, struct err *err)
{
	struct nbd_io *n = nbd_of(io);
	uint64_t start, end;
	int r;

	if (!n->facts.trim || (n->flags & NBD_KEEP_SPACE) ||
	    !whole_blocks(n, off, len, &start, &end))
		return -ENOTSUP;
	nbd_forget(n);
	r = mark(n, NBD_TRIM, start, end - start, 0, err);
	nbd_forget(n);
	return r;
}

static int nbd_io_flush(struct io *io, struct err *err)
{
	const struct nbd_request req = {.kind = NBD_FLUSH, .len = 1, .piece = 1};
	struct nbd_io *n = nbd_of(io);

	if (n->flags & NBD_UNSAFE)
		return 0;
	if (atomic_load(&n->lost))
		return err_set(err, EIO,
			       "%s: cannot flush: a connection was lost, and with it maybe what "
			       "was written",
			       io->name);
	/* One connection speaks for all where there is more than one. */
	return n->facts.flush ? nbd_run(n, &req, err) : 0;
}

static int nbd_io_resize(struct io *io, uint64_t size, struct err *err)
{
	(void)size;
	return err_set(err, ENOTSUP,
		       "%s: an NBD export cannot be resized: its size is the server's", io->name);
}

static void nbd_io_close(struct io *io)
{
	struct nbd_io *n = nbd_of(io);

	nbd_disconnect(n);
	nbd_unload(&n->lib);
	nbd_where_free(&n->where);
	for (unsigned i = 0; i < n->n_contexts; i++)
		free(n->contexts[i]);
	pthread_mutex_destroy(&n->grow);
	pthread_mutex_destroy(&n->edge);
	pthread_mutex_destroy(&n->seen.lock);
	free(n->seen.v);
	free(n);
}

static const struct io_ops nbd_ops = {
	.name = "NBD export",
	.pread = nbd_io_pread,
	.pwrite = nbd_io_pwrite,
	.zero = nbd_io_zero,
	.discard = nbd_io_discard,
	.flush = nbd_io_flush,
	.resize = nbd_io_resize,
	.map = nbd_io_map,
	.close = nbd_io_close,
};

bool io_is_nbd(const struct io *io)
{
	return io->ops == &nbd_ops;
}

/* ---- opening ---- */

static int set_contexts(struct nbd_io *n, const struct nbd_args *args, struct err *err)
{
	if (args->n_contexts > NBD_CONTEXTS_MAX)
		return err_set(err, EINVAL, "More than %d meta contexts", NBD_CONTEXTS_MAX);
	for (unsigned i = 0; i <= args->n_contexts; i++) {
		const char *name = i ? args->contexts[i - 1] : "base:allocation";

		n->contexts[i] = strdup(name);
		if (!n->contexts[i])
			return err_nomem(err, strlen(name) + 1, "a meta context");
		n->n_contexts = i + 1;
	}
	return 0;
}

static int adopt_facts(struct nbd_io *n, struct err *err)
{
	const struct nbd_facts *f = &n->facts;
	bool write = n->flags & NBD_WRITE;

	if (write && f->read_only)
		return err_set(err, EROFS, "%s: the server exports it read-only", n->io.name);
	atomic_init(&n->io.size, f->size);
	n->io.align = f->min;
	n->io.caps = write ? 0 : IO_RDONLY;
	n->io.caps |= f->fast_zero ? IO_FASTZERO : 0;
	n->io.caps |= n->has[0] ? IO_SPARSE : 0;
	n->max_conns = f->multi && !(n->flags & NBD_SEALED)
			       ? (unsigned)min_u64(NBD_MAX_CONNS, work_cpus())
			       : 1;
	return 0;
}

/* Without an authority that it finds, libnbd takes every certificate, and does not say so. */
static int check_trust(const struct nbd_io *n, struct err *err)
{
	const struct nbd_where *w = &n->where;
	CLEANUP_FREE char *file = NULL;

	if (!w->tls || w->tls_psk || w->tls_unverified)
		return 0;
	if (!w->tls_dir)
		return err_set(err, EINVAL,
			       "%s: whose certificates are trusted is to be said: "
			       "tls-certificates=DIR, with ca-cert.pem",
			       n->io.name);
	if (asprintf(&file, "%s/ca-cert.pem", w->tls_dir) < 0) {
		file = NULL;
		return err_nomem(err, strlen(w->tls_dir), "a file name");
	}
	return access(file, R_OK) == 0 ? 0 : err_sys(err, errno, "%s", file);
}

static int open_export(struct nbd_io *n, const struct nbd_args *args, struct err *err)
{
	int r;

	if (n->where.tls && (n->flags & NBD_SEALED))
		return err_set(err, ENOTSUP,
			       "%s: guests are not looked into over connections with TLS",
			       n->io.name);
	r = check_trust(n, err);
	if (r == 0)
		r = nbd_load(&n->lib, err);
	if (r == 0)
		r = set_contexts(n, args, err);
	if (r == 0)
		r = nbd_connect(n, err);
	return r < 0 ? r : adopt_facts(n, err);
}

int nbd_open(struct nbd_where *where, const struct nbd_args *args, struct io **out, struct err *err)
{
	CLEANUP_FREE char *name = nbd_where_name(where);
	struct nbd_io *n = calloc(1, sizeof(*n));
	int r;

	if (!n || !name) {
		free(n);
		return err_nomem(err, sizeof(*n), "an NBD client");
	}
	r = io_init(&n->io, &nbd_ops, name, err);
	if (r < 0) {
		free(n);
		return r;
	}
	pthread_mutex_init(&n->grow, NULL);
	pthread_mutex_init(&n->edge, NULL);
	pthread_mutex_init(&n->seen.lock, NULL);
	n->flags = args->flags;
	n->job = args->job;
	n->where = *where;
	r = open_export(n, args, err);
	if (r < 0) {
		n->where = (struct nbd_where){0}; /* stays the caller's */
		io_close(&n->io);
		return r;
	}
	*where = (struct nbd_where){0};
	*out = &n->io;
	return 0;
}
