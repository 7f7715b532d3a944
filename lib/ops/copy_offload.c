// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Copying without the CPU: copy_file_range, which shares blocks on file systems that can, and lets
 * a server copy on its side. Whatever goes wrong, the ordinary way is taken for the chunk, and says
 * what is wrong if it is; a refusal is remembered.
 */
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
		}
		at += e.len;
	}
	if (at < c->len)
		atomic_store(&copy->offload, false);
	return at == c->len;
}
