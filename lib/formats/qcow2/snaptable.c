// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The snapshot table: decode and encode. QEMU docs/interop/qcow2, "Snapshots". Entries are 8-byte
 * aligned; extra data that we do not know is kept byte for byte.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "formats/qcow2/qcow2.h"

void qcow2_snapshot_free_one(struct snapshot *s, struct qcow2_snapshot *d)
{
	free(s->id);
	free(s->name);
	free(d->unknown_extra);
}

void qcow2_snapshots_free(struct qcow2 *q)
{
	for (unsigned i = 0; q->snap && i < q->h.nb_snapshots; i++)
		qcow2_snapshot_free_one(&q->snap[i], &q->snap_disk[i]);
	free(take(q->snap));
	free(take(q->snap_disk));
}

static char *copy_text(const unsigned char *p, size_t len)
{
	return strndup((const char *)p, len);
}

/* The variable part: extra data, id, name. buf holds all three. */
static int decode_rest(struct qcow2 *q, const struct disk_snapshot *f, const unsigned char *buf,
		       struct snapshot *s, struct qcow2_snapshot *d, struct err *err)
{
	uint32_t extra = be32_get(f->extra_len), known = sizeof(struct disk_snapshot_extra);
	struct disk_snapshot_extra e;

	memcpy(&e, buf, min_u64(extra, known));
	d->short_extra = extra < 16; /* version 3 wants the sizes of state and disk */
	if (extra >= 8)
		s->vm_state_size = be64_get(e.vm_state_size);
	if (extra >= 16)
		s->disk_size = be64_get(e.disk_size);
	if (extra >= 24)
		s->icount = be64_get(e.icount);
	if (extra > known) {
		d->unknown_len = extra - known;
		d->unknown_extra = malloc(d->unknown_len);
		if (d->unknown_extra)
			memcpy(d->unknown_extra, buf + known, d->unknown_len);
	}
	s->id = copy_text(buf + extra, be16_get(f->id_len));
	s->name = copy_text(buf + extra + be16_get(f->id_len), be16_get(f->name_len));
	if (!s->id || !s->name || (d->unknown_len && !d->unknown_extra))
		return err_nomem(err, extra, "the snapshot table");
	(void)q;
	return 0;
}

static void decode_fixed(const struct qcow2 *q, const struct disk_snapshot *f, struct snapshot *s,
			 struct qcow2_snapshot *d)
{
	d->l1_offset = be64_get(f->l1_table_offset);
	d->l1_size = be32_get(f->l1_size);
	s->date_sec = be32_get(f->date_sec);
	s->date_nsec = be32_get(f->date_nsec);
	s->vm_clock_ns = be64_get(f->vm_clock_ns);
	s->vm_state_size = be32_get(f->vm_state_size);
	s->disk_size = q->h.size;
	s->icount = UINT64_MAX;
}

/* One entry at *at; moves *at behind it. */
static int read_one(struct qcow2 *q, uint64_t *at, struct snapshot *s, struct qcow2_snapshot *d,
		    struct err *err)
{
	struct io *file = q->img.file;
	CLEANUP_FREE unsigned char *rest = NULL;
	struct disk_snapshot f;
	uint64_t len;
	int r;

	if (*at - q->h.snapshots_offset > QCOW2_MAX_SNAPTABLE)
		return io_corrupt(file, err, *at, "snapshot table exceeds %llu bytes",
				  (unsigned long long)QCOW2_MAX_SNAPTABLE);
	r = io_pread(file, &f, sizeof(f), *at, err);
	if (r < 0)
		return err_ctx(err, r, "snapshot table");
	if (be32_get(f.extra_len) > QCOW2_MAX_SNAP_EXTRA)
		return io_corrupt(file, err, *at + 36,
				  "snapshot has too much extra metadata: %" PRIu32 " bytes",
				  be32_get(f.extra_len));
	decode_fixed(q, &f, s, d);
	len = be32_get(f.extra_len) + be16_get(f.id_len) + be16_get(f.name_len);
	rest = malloc(len ? len : 1);
	if (!rest)
		return err_nomem(err, len, "the snapshot table");
	r = io_pread(file, rest, len, *at + sizeof(f), err);
	if (r < 0)
		return err_ctx(err, r, "snapshot table");
	*at = round_up(*at + sizeof(f) + len, 8);
	return decode_rest(q, &f, rest, s, d, err);
}

int qcow2_snapshots_read(struct qcow2 *q, struct err *err)
{
	uint64_t at = q->h.snapshots_offset;
	unsigned n = q->h.nb_snapshots;

	q->snaptable_bytes = 0;
	if (!n)
		return 0;
	q->snap = calloc(n, sizeof(*q->snap));
	q->snap_disk = calloc(n, sizeof(*q->snap_disk));
	if (!q->snap || !q->snap_disk) {
		free(take(q->snap));
		free(take(q->snap_disk));
		return err_nomem(err, n * sizeof(*q->snap), "the snapshot table");
	}
	for (unsigned i = 0; i < n; i++) {
		int r = read_one(q, &at, &q->snap[i], &q->snap_disk[i], err);

		if (r < 0)
			return r;
	}
	q->snaptable_bytes = at - q->h.snapshots_offset;
	return 0;
}

/* ---- encode ---- */

static uint64_t entry_len(const struct snapshot *s, const struct qcow2_snapshot *d)
{
	return round_up(sizeof(struct disk_snapshot) + sizeof(struct disk_snapshot_extra) +
				d->unknown_len + strlen(s->id) + strlen(s->name),
			8);
}

static unsigned char *append(unsigned char *p, const void *data, size_t len)
{
	memcpy(p, data, len);
	return p + len;
}

static void encode_one(const struct snapshot *s, const struct qcow2_snapshot *d, unsigned char *p)
{
	struct disk_snapshot f = {
		.l1_table_offset = be64_make(d->l1_offset),
		.l1_size = be32_make(d->l1_size),
		.id_len = be16_make((uint16_t)strlen(s->id)),
		.name_len = be16_make((uint16_t)strlen(s->name)),
		.date_sec = be32_make(s->date_sec),
		.date_nsec = be32_make(s->date_nsec),
		.vm_clock_ns = be64_make(s->vm_clock_ns),
		.extra_len =
			be32_make((uint32_t)sizeof(struct disk_snapshot_extra) + d->unknown_len),
	};
	struct disk_snapshot_extra e = {
		.vm_state_size = be64_make(s->vm_state_size),
		.disk_size = be64_make(s->disk_size),
		.icount = be64_make(s->icount),
	};

	/* A size that 32 bits cannot hold stands in the extra data alone. */
	if (s->vm_state_size <= UINT32_MAX)
		f.vm_state_size = be32_make((uint32_t)s->vm_state_size);
	p = append(p, &f, sizeof(f));
	p = append(p, &e, sizeof(e));
	if (d->unknown_len)
		p = append(p, d->unknown_extra, d->unknown_len);
	p = append(p, s->id, strlen(s->id));
	append(p, s->name, strlen(s->name));
}

int qcow2_snapshots_encode(const struct snapshot *s, const struct qcow2_snapshot *d, unsigned n,
			   unsigned char **out, uint64_t *len, struct err *err)
{
	uint64_t at = 0;

	*len = 0;
	for (unsigned i = 0; i < n; i++)
		*len += entry_len(&s[i], &d[i]);
	if (*len > QCOW2_MAX_SNAPTABLE || n > QCOW2_MAX_SNAPSHOTS)
		return err_set(err, EFBIG, "the snapshot table would be too large (%u snapshots)",
			       n);
	*out = calloc(1, *len ? *len : 1);
	if (!*out)
		return err_nomem(err, *len, "the snapshot table");
	for (unsigned i = 0; i < n; i++) {
		encode_one(&s[i], &d[i], *out + at);
		at += entry_len(&s[i], &d[i]);
	}
	return 0;
}
