// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * BLOCK_STATUS. A reply has one chunk for each context that is asked for, made one at a time; the
 * number of a context on the wire is its place in export.context.
 */
#include "nbd-server/status.h"

#include "base/bytes.h"
#include "nbd-server/engine.h"
#include "nbd-server/execute.h"
#include "nbd-server/request.h"

struct extent32 {
	be32 length, flags;
};
struct extent64 {
	be64 length, flags;
};

/* be32 context, { be32 length, be32 flags }… */
static uint32_t encode32(unsigned char *p, const struct export_extent *ext, unsigned n)
{
	for (unsigned i = 0; i < n; i++, p += sizeof(struct extent32)) {
		struct extent32 e = {be32_make((uint32_t)ext[i].len),
				     be32_make((uint32_t)ext[i].flags)};

		memcpy(p, &e, sizeof(e));
	}
	return n * (uint32_t)sizeof(struct extent32);
}

/* be32 context, be32 count, { be64 length, be64 flags }… */
static uint32_t encode64(unsigned char *p, const struct export_extent *ext, unsigned n)
{
	be32 count = be32_make(n);

	memcpy(p, &count, sizeof(count));
	p += sizeof(count);
	for (unsigned i = 0; i < n; i++, p += sizeof(struct extent64)) {
		struct extent64 e = {be64_make(ext[i].len), be64_make(ext[i].flags)};

		memcpy(p, &e, sizeof(e));
	}
	return (uint32_t)(sizeof(count) + n * sizeof(struct extent64));
}

/* The number of the n-th context that is asked for; more than there are: the last one's. */
static unsigned nth_context(uint64_t contexts, uint64_t n)
{
	while (n-- && !is_pow2(contexts))
		contexts &= contexts - 1;
	return (unsigned)__builtin_ctzll(contexts);
}

void status_plan(struct worker *w, struct request *r)
{
	struct nbd_export *e = r->conn->export;
	unsigned n = 0, context = nth_context(r->contexts, r->reply.done);
	unsigned max = r->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS;
	struct export_extent ext[STATUS_EXTENTS];
	be32 id = be32_make(context);
	int code =
		export_status(e, &e->context[context], r->offset, r->length, ext, max, &n, &w->err);

	if (code < 0) {
		execute_failed(w, r, code);
		r->reply.kind = REPLY_STATUS;
		r->reply.last = true;
		return;
	}
	memcpy(w->extents, &id, sizeof(id));
	r->reply.kind = REPLY_EXTENTS;
	r->reply.chunk = sizeof(id);
	r->reply.chunk += r->conn->mode == MODE_EXTENDED
				  ? encode64(w->extents + sizeof(id), ext, n)
				  : encode32(w->extents + sizeof(id), ext, n);
	r->reply.last = r->contexts >> context == 1;
}

void status_filter(struct request *r, const unsigned char *payload, uint64_t size)
{
	be64 length;
	be32 id;
	uint64_t wanted = 0, end;

	memcpy(&length, payload, sizeof(length));
	for (uint32_t at = sizeof(length); at < r->payload; at += (uint32_t)sizeof(id)) {
		uint32_t i;

		memcpy(&id, payload + at, sizeof(id));
		i = be32_get(id);
		if (i >= NBD_MAX_CONTEXTS || !(r->contexts >> i & 1)) {
			request_fail(r, NBD_EINVAL, "a meta context that was not selected");
			return;
		}
		if (wanted >> i & 1) {
			request_fail(r, NBD_EINVAL, "a meta context twice");
			return;
		}
		wanted |= UINT64_C(1) << i;
	}
	r->length = be64_get(length);
	r->contexts = wanted;
	if (!add_ok(r->offset, r->length, &end) || end > size)
		request_fail(r, NBD_EINVAL, "beyond the end of the export");
	else if (!r->length || !wanted)
		request_fail(r, NBD_EINVAL, "a block status of nothing");
}
