// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * qcow2 guest offsets to host offsets: L1 and L2 lookups. QEMU docs/interop/qcow2, "Cluster
 * mapping". Under the shared gate and the meta lock, except decode, which needs the gate only.
 */
#include "formats/qcow2/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"

enum l2_type qcow2_l2_type(const struct qcow2 *q, uint64_t entry)
{
	if (entry & ENTRY_COMPRESSED)
		return L2_CODED;
	if (entry & ENTRY_ZERO)
		return entry & ENTRY_OFFSET ? L2_ZERO_ALLOC : L2_ZERO_PLAIN;
	if (qcow2_has_data_file(q) && (entry & ENTRY_COPIED))
		return L2_NORMAL; /* offset 0 is a place as any other */
	return entry & ENTRY_OFFSET ? L2_NORMAL : L2_UNALLOCATED;
}

int qcow2_check_entry(struct qcow2 *q, uint64_t entry, uint64_t at, struct err *err)
{
	if ((entry & ENTRY_COMPRESSED) && qcow2_has_data_file(q))
		return io_corrupt(q->img.file, err, at,
				  "L2 entry 0x%016" PRIx64 ": compressed cluster in an image with "
				  "an external data file",
				  entry);
	if (entry & ENTRY_COMPRESSED)
		return 0;
	if (!is_aligned(entry & ENTRY_OFFSET, q->cluster))
		return io_corrupt(q->img.file, err, at,
				  "L2 entry 0x%016" PRIx64 " is not cluster-aligned", entry);
	if ((entry & ENTRY_ZERO) && q->h.version < 3)
		return io_corrupt(q->img.file, err, at,
				  "L2 entry 0x%016" PRIx64 ": zero cluster in a version 2 image",
				  entry);
	return 0;
}

int qcow2_l2_offset(struct qcow2 *q, uint64_t l1_index, uint64_t *host, struct err *err)
{
	uint64_t entry = be64_get(q->l1[l1_index]);

	*host = entry & ENTRY_OFFSET;
	if (is_aligned(*host, q->cluster))
		return 0;
	return io_corrupt(q->img.file, err, q->h.l1_offset + l1_index * 8,
			  "L1 entry 0x%016" PRIx64 " is not cluster-aligned", entry);
}

unsigned qcow2_slice_entries(const struct qcow2 *q)
{
	return (unsigned)(q->cache.slice / 8);
}

unsigned qcow2_slice_index(const struct qcow2 *q, uint64_t off)
{
	return (unsigned)(off >> q->cluster_bits) & (qcow2_slice_entries(q) - 1);
}

int qcow2_l2_slice(struct qcow2 *q, uint64_t l2, uint64_t off, struct mslice **s, struct err *err)
{
	uint64_t index = (off >> q->cluster_bits) & ((UINT64_C(1) << q->l2_bits) - 1);

	return mcache_get(&q->cache, l2 + index * 8, "L2 table", s, err);
}

/* The kind of extent that an entry makes, and its host offset. */
static enum ext_kind entry_extent(const struct qcow2 *q, uint64_t entry, uint64_t *host)
{
	*host = EXT_NO_HOST;
	switch (qcow2_l2_type(q, entry)) {
	case L2_CODED:
		*host = entry;
		return EXT_CODED;
	case L2_ZERO_ALLOC:
		*host = entry & ENTRY_OFFSET;
		return EXT_ZERO;
	case L2_ZERO_PLAIN:
		return EXT_ZERO;
	case L2_NORMAL:
		*host = entry & ENTRY_OFFSET;
		return EXT_DATA;
	default:
		return EXT_ABSENT;
	}
}

/* How many entries from i on continue the extent that entry i begins. */
static unsigned count_run(const struct qcow2 *q, const be64 *table, unsigned i, unsigned end)
{
	uint64_t first = be64_get(table[i]), host, next_host;
	enum ext_kind kind = entry_extent(q, first, &host);
	unsigned n = 1;

	if (kind == EXT_CODED)
		return 1;
	for (; i + n < end; n++) {
		uint64_t entry = be64_get(table[i + n]);

		if (entry_extent(q, entry, &next_host) != kind)
			break;
		if (host == EXT_NO_HOST ? next_host != EXT_NO_HOST
					: next_host != host + ((uint64_t)n << q->cluster_bits))
			break;
	}
	return n;
}

static int map_slice(struct qcow2 *q, uint64_t l2, struct extent *ext, struct err *err)
{
	uint64_t in_cluster = ext->off & (q->cluster - 1), entry, run, at;
	unsigned i, end;
	struct mslice *s;
	int r = qcow2_l2_slice(q, l2, ext->off, &s, err);

	if (r < 0)
		return r;
	i = qcow2_slice_index(q, ext->off);
	end = (unsigned)min_u64(qcow2_slice_entries(q),
				i + div_up(in_cluster + ext->len, q->cluster));
	entry = be64_get(((be64 *)(void *)s->data)[i]);
	at = s->host + (uint64_t)i * 8;
	r = qcow2_check_entry(q, entry, at, err);
	if (r < 0)
		return r;
	run = count_run(q, (be64 *)(void *)s->data, i, end);
	ext->kind = entry_extent(q, entry, &ext->host);
	ext->len = min_u64(ext->len, (run << q->cluster_bits) - in_cluster);
	ext->io = NULL;
	if (ext->host != EXT_NO_HOST && ext->kind != EXT_CODED)
		ext->host += in_cluster;
	if (ext->host != EXT_NO_HOST)
		ext->io = q->img.data;
	if (ext->io && qcow2_has_data_file(q))
		return qcow2_data_check(q, ext->host, ext->off, at, err);
	return 0;
}

int qcow2_map(struct img *img, uint64_t off, uint64_t len, struct extent *ext, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned l1_shift = q->l2_bits + q->cluster_bits;
	uint64_t index = off >> l1_shift, l2, covered;
	int r;

	if (q->unreadable)
		return err_set(err, ENOTSUP, "%s: %s", img->io.name, q->unreadable_why);
	*ext = (struct extent){.kind = EXT_ABSENT, .off = off, .len = len, .host = EXT_NO_HOST};
	r = qcow2_l2_offset(q, index, &l2, err);
	if (r < 0)
		return r;
	if (l2)
		return map_slice(q, l2, ext, err);
	/* Tables that are missing in a row make one extent. */
	for (covered = (index + 1) << l1_shift; covered - off < len;
	     covered += UINT64_C(1) << l1_shift)
		if (be64_get(q->l1[covered >> l1_shift]) & ENTRY_OFFSET)
			break;
	ext->len = min_u64(len, covered - off);
	return 0;
}

int qcow2_decode(struct img *img, const struct extent *ext, void *buf, size_t len, uint64_t off,
		 struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t host = coded_offset(ext->host, q->cluster_bits);
	uint64_t coded_len = coded_length(ext->host, q->cluster_bits);
	size_t in_cluster = off & (q->cluster - 1);
	CLEANUP_FREE unsigned char *coded = NULL, *plain = NULL;
	unsigned char *out = buf;
	int r;

	/* The descriptor cannot say more than two clusters, so this bounds the memory. */
	if (host >= io_size(img->file))
		return io_corrupt(img->file, err, host,
				  "compressed cluster of guest offset %" PRIu64
				  " lies beyond the end of the file",
				  round_down(off, q->cluster));
	coded = malloc(coded_len);
	if (len != q->cluster)
		out = plain = malloc(q->cluster);
	if (!coded || !out)
		return err_nomem(err, coded_len + q->cluster, "a compressed cluster");
	r = io_pread_tail(img->file, coded, coded_len, host, err);
	if (r < 0)
		return r;
	r = codec_decode(q->codecs,
			 q->h.compression == COMPRESSION_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE, coded,
			 coded_len, out, q->cluster, err);
	if (r < 0)
		return err_ctx(err, r, "%s: compressed cluster at offset %" PRIu64, img->io.name,
			       host);
	if (out != buf)
		memcpy(buf, out + in_cluster, len);
	return 0;
}
