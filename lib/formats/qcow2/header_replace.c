// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Another header for an image that is in use: other extensions, another version.
 *
 * What may be on disk after a power cut is the old header or the new one (I10), so the change is one
 * write of the first sector. What does not fit into that sector, the name of the backing file mostly,
 * is written first, to bytes of the header's cluster that nothing refers to yet.
 *
 *	what lies behind the first sector - flush - the first sector - flush -
 *	the feature name table behind the list of extensions - flush - its entry in that list
 *
 * The feature name table is long, and only informs: it is added last.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/qcow2.h"

#define SECTOR 512

/* A part of the header's cluster. */
struct area {
	size_t off, len;
};

struct change {
	struct qcow2 *q;
	size_t cluster, core, end; /* core: header and extensions; end: with the feature names */
	struct area old_ext, old_name, name;
	unsigned char *old, *new; /* owned, one cluster each */
};

static bool touches(struct area a, size_t off, size_t len)
{
	return a.len && len && overlaps(a.off, a.len, off, len);
}

/* Where the extensions of the header on disk end: they are sane, or it had not been opened. */
static size_t ext_end(const struct change *c, size_t at, size_t limit)
{
	while (at <= limit && limit - at >= sizeof(struct disk_ext)) {
		struct disk_ext d;

		memcpy(&d, c->old + at, sizeof(d));
		at += sizeof(d);
		if (be32_get(d.type) == EXT_TYPE_END || be32_get(d.len) > limit - at)
			break;
		at += round_up(be32_get(d.len), 8);
	}
	return at < limit ? at : limit;
}

static void look_at_old(struct change *c)
{
	struct disk_header d;
	size_t length, name;

	memcpy(&d, c->old, sizeof(d));
	length = be32_get(d.version) < 3 ? QCOW2_V2_HEADER : be32_get(d.header_length);
	name = (size_t)be64_get(d.backing_file_offset);
	if (name)
		c->old_name = (struct area){name, be32_get(d.backing_file_size)};
	c->old_ext.len = ext_end(c, length, name ? name : c->cluster);
}

static bool is_name(const struct change *c, const unsigned char *at)
{
	return memcmp(at, c->q->h.backing_name, c->name.len) == 0;
}

/*
 * A place for the backing file's name that the old header does not use, or where it stands already;
 * in the first sector it may be anywhere, for that is replaced as one.
 */
static bool place_name(struct change *c)
{
	size_t at = c->end;

	if (!c->name.len)
		return true;
	if (c->old_name.off >= c->end && c->old_name.len == c->name.len &&
	    is_name(c, c->old + c->old_name.off)) {
		c->name.off = c->old_name.off;
		return true;
	}
	if (at + c->name.len > SECTOR) {
		at = max_u64(at, SECTOR);
		if (touches(c->old_ext, at, c->name.len))
			at = c->old_ext.len;
		if (touches(c->old_name, at, c->name.len))
			at = c->old_name.off + c->old_name.len;
	}
	c->name.off = at;
	return at + c->name.len <= c->cluster;
}

/* Whether what the new header has behind the first sector is free, or the same already. */
static bool may_spill(const struct change *c)
{
	size_t len = c->core > SECTOR ? c->core - SECTOR : 0;

	if (len && !memcmp(c->old + SECTOR, c->new + SECTOR, len))
		return true;
	return !touches(c->old_ext, SECTOR, len) && !touches(c->old_name, SECTOR, len);
}

static int too_long(const struct change *c, struct err *err)
{
	return err_set(err, ENOSPC,
		       "%s: the header cannot be changed: its extensions and the name of the "
		       "backing file do not fit into a cluster of %zu bytes beside the old ones",
		       c->q->img.io.name, c->cluster);
}

static int prepare(struct change *c, struct err *err)
{
	struct header core = c->q->h;
	struct disk_header d;
	int r = io_pread_tail(c->q->img.file, c->old, c->cluster, 0, err);

	if (r < 0)
		return r;
	look_at_old(c);
	core.backing_name = NULL;
	core.has_features = false;
	r = header_encode(&core, c->new, err);
	if (r < 0)
		return r;
	c->core = header_bytes(&core);
	c->end = header_bytes(&c->q->h);
	c->name.len = c->q->h.backing_name ? strlen(c->q->h.backing_name) : 0;
	if (c->end > c->cluster || !place_name(c) || !may_spill(c))
		return too_long(c, err);
	if (c->name.len) {
		memcpy(&d, c->new, sizeof(d));
		d.backing_file_offset = be64_make(c->name.off);
		d.backing_file_size = be32_make((uint32_t)c->name.len);
		memcpy(c->new, &d, QCOW2_V2_HEADER);
		memcpy(c->new + c->name.off, c->q->h.backing_name, c->name.len);
	}
	return 0;
}

/* Writes a part of the new header's cluster, behind the first sector, unless it is there. */
static int write_part(const struct change *c, size_t from, size_t to, bool *wrote, struct err *err)
{
	from = max_u64(from, SECTOR);
	if (from >= to || !memcmp(c->old + from, c->new + from, to - from))
		return 0;
	*wrote = true;
	return io_pwrite(c->q->img.file, c->new + from, to - from, from, err);
}

static int write_names(struct change *c, struct err *err)
{
	struct header only = {.version = 3, .cluster_bits = c->q->h.cluster_bits};
	size_t at = c->core - sizeof(struct disk_ext), len = c->end - c->core;
	struct io *file = c->q->img.file;
	int r;

	if (!c->q->h.has_features)
		return 0;
	only.has_features = true;
	only.names = c->q->h.names;            /* borrowed */
	r = header_encode(&only, c->old, err); /* entry, names, end of the list */
	if (r == 0)
		r = io_pwrite(file, c->old + sizeof(struct disk_header) + sizeof(struct disk_ext),
			      len, c->core, err);
	if (r == 0)
		r = qcow2_flush(c->q, BARRIER_HEADER, err);
	if (r == 0)
		r = io_pwrite(file, c->old + sizeof(struct disk_header), sizeof(struct disk_ext),
			      at, err);
	return r;
}

static int replace(struct change *c, struct err *err)
{
	struct qcow2 *q = c->q;
	bool wrote = false;
	int r = write_part(c, SECTOR, c->core, &wrote, err);

	if (r == 0)
		r = write_part(c, c->name.off, c->name.off + c->name.len, &wrote, err);
	if (r == 0 && wrote)
		r = qcow2_flush(q, BARRIER_HEADER, err);
	if (r < 0)
		return r;
	r = io_pwrite(q->img.file, c->new, min_u64(c->cluster, SECTOR), 0, err);
	if (r == 0)
		r = qcow2_flush(q, BARRIER_HEADER_SWITCH, err);
	if (r < 0) {
		atomic_store(&q->img.broken, -r); /* which header is on disk is unknown */
		return r;
	}
	q->h.header_length = (uint32_t)header_fixed_bytes(&q->h);
	return write_names(c, err);
}

int qcow2_replace_header(struct qcow2 *q, struct err *err)
{
	struct change c = {.q = q, .cluster = q->cluster};
	CLEANUP_FREE unsigned char *old = calloc(1, q->cluster), *new = calloc(1, q->cluster);
	int r;

	if (!old || !new)
		return err_nomem(err, 2 * q->cluster, "the header");
	c.old = old;
	c.new = new;
	r = prepare(&c, err);
	return r < 0 ? r : replace(&c, err);
}
