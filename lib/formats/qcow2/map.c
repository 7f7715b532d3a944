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

int qcow2_check_entry(struct qcow2 *q, struct l2_entry e, uint64_t at, struct err *err)
{
	const char *fact = NULL;

	if ((e.raw & ENTRY_COMPRESSED) && !qcow2_has_data_file(q))
		return 0;
	if (e.raw & ENTRY_COMPRESSED)
		fact = ": compressed cluster in an image with an external data file";
	else if (!is_aligned(e.raw & ENTRY_OFFSET, q->cluster))
		fact = " is not cluster-aligned";
	else if (e.zero && q->h.version < 3)
		fact = ": zero cluster in a version 2 image";
	else if (e.alloc & e.zero)
		fact = " has subclusters that are both allocated and zeros";
	else if (e.alloc && !qcow2_entry_placed(q, e))
		fact = " has allocated subclusters but no cluster";
	if (!fact)
		return 0;
	if (!qcow2_extended(q))
		e.raw |= e.zero;
	return io_corrupt(q->img.file, err, at, "L2 entry 0x%016" PRIx64 "%s", e.raw, fact);
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
	return (unsigned)(q->cache.slice / qcow2_entry_bytes(q));
}

unsigned qcow2_slice_index(const struct qcow2 *q, uint64_t off)
{
	return (unsigned)(off >> q->cluster_bits) & (qcow2_slice_entries(q) - 1);
}

int qcow2_l2_slice(struct qcow2 *q, uint64_t l2, uint64_t off, struct mslice **s, struct err *err)
{
	uint64_t index = (off >> q->cluster_bits) & ((UINT64_C(1) << q->l2_bits) - 1);

	return mcache_get(&q->cache, l2 + index * qcow2_entry_bytes(q), "L2 table", s, err);
}

/*
 * The extent that begins with subcluster k of an entry: its kind, its host offset, and how many
 * subclusters of this cluster belong to it.
 */
static unsigned sub_extent(const struct qcow2 *q, struct l2_entry e, unsigned k,
			   enum ext_kind *kind, uint64_t *host)
{
	uint32_t same;

	if (e.raw & ENTRY_COMPRESSED) {
		*kind = EXT_CODED;
		*host = e.raw;
		return (1U << (q->cluster_bits - q->sub_bits)) - k;
	}
	if (e.alloc >> k & 1) {
		*kind = EXT_DATA;
		same = e.alloc;
	} else if (e.zero >> k & 1) {
		*kind = EXT_ZERO;
		same = e.zero;
	} else {
		*kind = EXT_ABSENT;
		same = ~(e.alloc | e.zero) & qcow2_all_subs(q);
	}
	*host = EXT_NO_HOST;
	if (qcow2_entry_placed(q, e))
		*host = (e.raw & ENTRY_OFFSET) + ((uint64_t)k << q->sub_bits);
	return (unsigned)__builtin_ctzll(~((uint64_t)same >> k));
}

/*
 * The extent that begins with subcluster k of entry i of a slice: its kind, host offset, and in
 * subclusters how long it is, counted up to about `want`.
 */
static uint64_t count_run(const struct qcow2 *q, const void *table, unsigned i, unsigned k,
			  uint64_t want, struct extent *ext)
{
	unsigned subs = 1U << (q->cluster_bits - q->sub_bits), end = qcow2_slice_entries(q);
	uint64_t n = sub_extent(q, qcow2_entry_load(q, table, i), k, &ext->kind, &ext->host), host;
	enum ext_kind kind;

	if (ext->kind == EXT_CODED)
		return n;
	/* As long as whole clusters end with it, it may go on in the next one. */
	while (!((k + n) & (subs - 1)) && n < want && ++i < end) {
		struct l2_entry e = qcow2_entry_load(q, table, i);
		unsigned more = sub_extent(q, e, 0, &kind, &host);

		if ((e.alloc & e.zero) || kind != ext->kind ||
		    host != (ext->host == EXT_NO_HOST ? EXT_NO_HOST
						      : ext->host + (n << q->sub_bits)))
			break;
		n += more;
	}
	return n;
}

static int map_slice(struct qcow2 *q, uint64_t l2, struct extent *ext, struct err *err)
{
	uint64_t sub = UINT64_C(1) << q->sub_bits, in_sub = ext->off & (sub - 1), run;
	unsigned i = qcow2_slice_index(q, ext->off);
	unsigned k = (unsigned)((ext->off & (q->cluster - 1)) >> q->sub_bits);
	uint64_t at;
	struct mslice *s;
	int r = qcow2_l2_slice(q, l2, ext->off, &s, err);

	if (r < 0)
		return r;
	at = s->host + (uint64_t)i * qcow2_entry_bytes(q);
	r = qcow2_check_entry(q, qcow2_entry_load(q, s->data, i), at, err);
	if (r < 0)
		return r;
	run = count_run(q, s->data, i, k, (in_sub + ext->len + sub - 1) >> q->sub_bits, ext);
	ext->len = min_u64(ext->len, (run << q->sub_bits) - in_sub);
	ext->io = NULL;
	if (ext->host != EXT_NO_HOST && ext->kind != EXT_CODED)
		ext->host += in_sub;
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
