// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The dirty bitmap of an export, as the source of a mirror: the meta context `qemu:dirty-bitmap:NAME`
 * (QEMU, docs/interop/nbd.txt), read from front to back. It is the server's, so it only says what to
 * copy: nothing here can clear it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "io/nbd.h"
#include "ops/mirror_impl.h"

#define ROOM 4096 /* extents that are asked for at once */

int remote_bitmap_open(struct remote_bitmap *b, struct io *io, const char *name, struct err *err)
{
	*b = (struct remote_bitmap){.io = io, .context = mirror_context(name)};
	b->v = malloc(ROOM * sizeof(*b->v));
	if (!b->context || !b->v)
		return err_nomem(err, ROOM * sizeof(*b->v), "a bitmap");
	if (!nbd_has_context(io, b->context))
		return err_set(err, ENOENT, "%s: the server exports no bitmap '%s'", io->name,
			       name);
	return 0;
}

void remote_bitmap_close(struct remote_bitmap *b)
{
	free(b->context);
	free(b->v);
	*b = (struct remote_bitmap){0};
}

/* Whether v[at] is the extent that off is in, after going on to it. */
static bool is_loaded(struct remote_bitmap *b, uint64_t off)
{
	if (b->at < b->n && off < b->v[b->at].off)
		b->at = 0;
	while (b->at < b->n && b->v[b->at].off + b->v[b->at].len <= off)
		b->at++;
	return b->at < b->n && b->v[b->at].off <= off;
}

int remote_bitmap_run(struct remote_bitmap *b, uint64_t off, uint64_t len, bool *dirty,
		      uint64_t *run, struct err *err)
{
	const struct nbd_extent *e;

	/* A raw disk is made whole sectors by zeros that its export does not have. */
	if (off >= io_size(b->io)) {
		*dirty = false;
		*run = len;
		return 0;
	}
	if (!is_loaded(b, off)) {
		uint64_t rest = io_size(b->io) - off;
		int r = nbd_extents(b->io, b->context, off, rest, b->v, ROOM, &b->n, err);

		b->at = 0;
		if (r < 0) {
			b->n = 0;
			return r;
		}
	}
	e = &b->v[b->at];
	*dirty = e->flags & NBD_EXTENT_DIRTY;
	*run = min_u64(len, e->off + e->len - off);
	return 0;
}

int remote_bitmap_count(struct remote_bitmap *b, uint64_t *bytes, struct err *err)
{
	uint64_t size = io_size(b->io), run;
	int r = 0;

	*bytes = 0;
	for (uint64_t off = 0; r == 0 && off < size; off += run) {
		bool dirty;

		r = remote_bitmap_run(b, off, size - off, &dirty, &run, err);
		if (r == 0 && dirty)
			*bytes += run;
	}
	return r;
}
