// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Copying without the CPU. To new images that are built, when asked for: copy_file_range, which shares
 * blocks on file systems that can, and lets a server copy on its side. Whatever goes wrong, the
 * ordinary way is taken for the chunk, and says what is wrong if it is; a refusal is remembered.
 *
 * To an image below in the chain, always: sharing of blocks, by itself where nothing can be shared.
 */
#include <inttypes.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/file.h"
#include "ops/copy_impl.h"

static bool copy_range(int from, uint64_t src, int to, uint64_t dst, uint64_t len)
{
	off_t in = (off_t)src, out = (off_t)dst;

	while (len) {
		ssize_t n = copy_file_range(from, &in, to, &out, len, 0);

		if (n <= 0)
			return false;
		len -= (uint64_t)n;
	}
	return true;
}

/* The run of w is placed, and its place reads as zeros. */
bool copy_offload(struct worker *w, const struct chunk *c)
{
	struct copy *copy = w->copy;
	uint64_t at = 0, host = w->run[0].host;
	int to = file_fd(copy->out);

	while (to >= 0 && at < c->len) {
		struct extent e;

		if (io_map(copy->args->src, c->off + at, c->len - at, &e, NULL) < 0)
			return false;
		if (e.kind == EXT_CODED)
			return false;
		if (e.kind == EXT_DATA) {
			int from = e.io ? file_fd(e.io) : -1;

			if (from < 0 || !copy_range(from, e.host, to, host + at, e.len))
				break;
			io_note_end(copy->out, host + at + e.len);
		} else {
			copy_note_hole(copy, c->off + at, e.len);
		}
		at += e.len;
	}
	if (at < c->len)
		atomic_store(&copy->offload, false);
	return at == c->len;
}

/* What the extent says of a part of the disk goes to the same part of the image. */
static int clone_part(struct worker *w, const struct chunk *c, const struct extent *e,
		      struct err *err)
{
	struct copy *copy = w->copy;
	struct img_source src = {.io = e->io, .at = e->host, .mem = w->buf + (e->off - c->off)};

	/* The last cluster of a file may be cut short: who reads through the image knows. */
	if (e->kind != EXT_DATA || !e->io || e->host > io_size(e->io) ||
	    e->len > io_size(e->io) - e->host) {
		int r = io_pread(copy->args->src, src.mem, e->len, e->off, err);

		if (r < 0)
			return r;
		src.io = NULL;
		src.loaded = true;
	}
	return img_write_from(copy->clone, &src, e->len, e->off, err);
}

int copy_clone(struct worker *w, const struct chunk *c, struct err *err)
{
	uint64_t at = c->off, end = c->off + c->len;
	struct extent e;
	int r = 0;

	for (; r == 0 && at < end; at += e.len) {
		r = io_map(w->copy->args->src, at, end - at, &e, err);
		if (r == 0)
			r = clone_part(w, c, &e, err);
		if (r < 0)
			return err_ctx(err, r, "error while copying at byte %" PRIu64, at);
	}
	return r;
}
