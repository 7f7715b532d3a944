/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaying the journal of a filesystem that was not unmounted (journal.h has the layout).
 *
 * Three passes over the log, as every recovery of JBD2 does it: find the last transaction that is
 * whole; collect the blocks that were revoked; collect, for each block of the filesystem, the last
 * copy in the log that is not revoked. The result is a table. A filesystem that is to be written
 * gets the copies written in place and an empty log; for one that is only read the cache looks the
 * blocks up in the log.
 *
 * The log is hostile. A pass visits each of its blocks once at most; tables are bounded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/journal.h"

#define ENTRIES_MAX 262144u /* blocks to replay, and revoked ones */

struct revoked {
	uint64_t block;
	uint32_t sequence;
};

struct journal {
	struct ext *x;
	struct ext_inode inode;
	struct jbd2_super super;
	uint32_t incompat;
	uint32_t first, end; /* blocks of the log: [first, end) */
	uint32_t seed;       /* of checksums */
	uint32_t done;       /* number after the last whole transaction */
	unsigned char *buf, *data;
	struct revoked *revoked;
	size_t n_revoked, cap_revoked;
	struct cache_patch *patches;
	size_t n_patches, cap_patches;
};

enum pass { PASS_SCAN, PASS_REVOKE, PASS_COLLECT };

/* Where a walk over the log is. */
struct position {
	uint32_t block, sequence;
	uint32_t left; /* blocks of the log that were not visited */
	bool broken;   /* a checksum of this transaction is wrong */
	uint32_t crc;  /* of its blocks, as version 1 of checksums has it */
};

static bool checksums(const struct journal *j)
{
	return j->incompat & (JBD2_CSUM_V2 | JBD2_CSUM_V3);
}

static int bad(struct err *err, const char *fact, uint64_t value)
{
	return err_set(err, EUCLEAN, "the journal is broken: %s (%llu); run `img fsck`", fact,
		       (unsigned long long)value);
}

/* ---- blocks of the log ---- */

static int log_locate(struct journal *j, uint32_t block, uint64_t *at, struct err *err)
{
	struct ext_run run;
	int r = ext_map(j->x, &j->inode, block, 1, &run, err);

	if (r < 0)
		return r;
	if (run.kind != EXT_DATA)
		return bad(err, "a hole at block", block);
	*at = run.pblk;
	return 0;
}

static int log_read(struct journal *j, uint32_t block, void *buf, struct err *err)
{
	uint64_t at = 0;
	int r = log_locate(j, block, &at, err);

	return r < 0 ? r : cache_read(j->x->cache, buf, j->x->bs, at * j->x->bs, err);
}

/* The block after the one at p; false when all of the log was visited. */
static bool advance(const struct journal *j, struct position *p)
{
	if (p->left == 0)
		return false;
	p->left--;
	if (++p->block >= j->end)
		p->block = j->first;
	return true;
}

/* A descriptor or revoke block ends with the checksum of itself. */
static bool tail_matches(struct journal *j)
{
	const uint32_t bs = j->x->bs;
	be32 stored, zero = {{0}};
	uint32_t crc;

	if (!checksums(j))
		return true;
	memcpy(&stored, j->buf + bs - 4, sizeof(stored));
	memcpy(j->buf + bs - 4, &zero, sizeof(zero));
	crc = ext2fs_crc32c_le(j->seed, j->buf, bs);
	memcpy(j->buf + bs - 4, &stored, sizeof(stored));
	return crc == be32_get(stored);
}

/* ---- tables ---- */

static int grow(void **v, size_t *cap, size_t n, size_t size, struct err *err)
{
	size_t more = *cap ? *cap * 2 : 1024;
	void *p;

	if (n < *cap)
		return 0;
	if (n >= ENTRIES_MAX)
		return err_set(err, EFBIG, "the journal has more than %u blocks to replay",
			       ENTRIES_MAX);
	p = reallocarray(*v, more, size);
	if (!p)
		return err_nomem(err, more * size, "the journal");
	*v = p;
	*cap = more;
	return 0;
}

static int compare_revoked(const void *a, const void *b)
{
	const struct revoked *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

/* Whether a copy of that transaction was revoked by it or a later one. Numbers wrap. */
static bool is_revoked(const struct journal *j, uint64_t block, uint32_t sequence)
{
	size_t lo = 0, hi = j->n_revoked;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (j->revoked[mid].block < block)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < j->n_revoked && j->revoked[lo].block == block; lo++)
		if ((int32_t)(sequence - j->revoked[lo].sequence) <= 0)
			return true;
	return false;
}

/* Sorts by target; of several copies the last in the log (highest `at`) stays. */
static int compare_patches(const void *a, const void *b)
{
	const struct cache_patch *x = a, *y = b;

	if (x->target != y->target)
		return x->target < y->target ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

static int patches_finish(struct journal *j, struct err *err)
{
	size_t n = 0;

	if (j->n_patches)
		qsort(j->patches, j->n_patches, sizeof(j->patches[0]), compare_patches);
	for (size_t i = 0; i < j->n_patches; i++) {
		if (i + 1 < j->n_patches && j->patches[i + 1].target == j->patches[i].target)
			continue;
		j->patches[n++] = j->patches[i];
	}
	j->n_patches = n;
	for (size_t i = 0; i < n; i++) {
		int r = log_locate(j, j->patches[i].source, &j->patches[i].at, err);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the kinds of blocks ---- */

static uint32_t tag_size(const struct journal *j)
{
	uint32_t size = j->incompat & JBD2_CSUM_V3 ? 16 : 12;

	if (j->incompat & JBD2_CSUM_V3)
		return size;
	if (j->incompat & JBD2_CSUM_V2)
		size += 2;
	return j->incompat & JBD2_64BIT ? size : size - 4;
}

struct tag {
	uint64_t block;
	uint32_t flags, checksum;
};

static struct tag tag_read(const struct journal *j, const unsigned char *p)
{
	struct tag t;
	be32 word[4];
	be16 half[2];

	memcpy(word, p, 8);
	t.block = be32_get(word[0]);
	if (j->incompat & JBD2_CSUM_V3) {
		memcpy(word, p, 16);
		t.flags = be32_get(word[1]);
		t.checksum = be32_get(word[3]);
	} else {
		memcpy(half, p + 4, 4);
		t.checksum = be16_get(half[0]);
		t.flags = be16_get(half[1]);
		if (j->incompat & JBD2_64BIT)
			memcpy(&word[2], p + 8, 4);
	}
	if (j->incompat & JBD2_64BIT)
		t.block |= (uint64_t)be32_get(word[2]) << 32;
	return t;
}

static int collect(struct journal *j, const struct position *p, const struct tag *t,
		   struct err *err)
{
	int r;

	if (t->block >= j->x->blocks)
		return bad(err, "a copy of a block that does not exist", t->block);
	if (is_revoked(j, t->block, p->sequence))
		return 0;
	if (checksums(j)) {
		be32 sequence = be32_make(p->sequence);
		uint32_t crc, mask = j->incompat & JBD2_CSUM_V3 ? UINT32_MAX : 0xffff;

		r = log_read(j, p->block, j->data, err);
		if (r < 0)
			return r;
		crc = ext2fs_crc32c_le(j->seed, (void *)&sequence, sizeof(sequence));
		crc = ext2fs_crc32c_le(crc, j->data, j->x->bs);
		if ((crc & mask) != t->checksum)
			return bad(err, "a wrong checksum of the copy of block", t->block);
	}
	r = grow((void **)&j->patches, &j->cap_patches, j->n_patches, sizeof(j->patches[0]), err);
	if (r < 0)
		return r;
	j->patches[j->n_patches] = (struct cache_patch){
		.target = t->block,
		.source = p->block,
		.escaped = t->flags & JBD2_TAG_ESCAPED,
		.at = j->n_patches,
	};
	j->n_patches++;
	return 0;
}

/* Goes over the tags of the descriptor in buf and the copies behind it; p is at the first. */
static int descriptor(struct journal *j, struct position *p, enum pass pass, struct err *err)
{
	const uint32_t size = tag_size(j), end = j->x->bs - (checksums(j) ? 4 : 0);
	const bool sum = be32_get(j->super.compat) & JBD2_COMPAT_CHECKSUM && pass == PASS_SCAN;
	uint32_t off = sizeof(struct jbd2_header);
	struct tag t;
	int r = 0;

	if (pass == PASS_SCAN && !tail_matches(j))
		p->broken = true;
	if (sum)
		p->crc = ext2fs_crc32_be(p->crc, j->buf, j->x->bs);
	do {
		if (off + size > end)
			break;
		t = tag_read(j, j->buf + off);
		off += size + (t.flags & JBD2_TAG_SAME_UUID ? 0 : 16);
		if (pass == PASS_COLLECT)
			r = collect(j, p, &t, err);
		if (sum) {
			r = log_read(j, p->block, j->data, err);
			p->crc = ext2fs_crc32_be(p->crc, j->data, j->x->bs);
		}
		if (r < 0)
			return r;
		if (!advance(j, p))
			return 1;
	} while (!(t.flags & JBD2_TAG_LAST));
	return 0;
}

static int revoke(struct journal *j, const struct position *p, struct err *err)
{
	const uint32_t size = j->incompat & JBD2_64BIT ? 8 : 4;
	uint32_t end;
	be32 count;

	memcpy(&count, j->buf + sizeof(struct jbd2_header), sizeof(count));
	end = be32_get(count);
	if (end > j->x->bs - (checksums(j) ? 4 : 0))
		return bad(err, "a revoke block with bytes", end);
	for (uint32_t off = sizeof(struct jbd2_header) + 4; off + size <= end; off += size) {
		be64 wide;
		be32 word;
		int r = grow((void **)&j->revoked, &j->cap_revoked, j->n_revoked,
			     sizeof(j->revoked[0]), err);

		if (r < 0)
			return r;
		memcpy(&wide, j->buf + off, size);
		memcpy(&word, j->buf + off, sizeof(word));
		j->revoked[j->n_revoked].block = size == 8 ? be64_get(wide) : be32_get(word);
		j->revoked[j->n_revoked++].sequence = p->sequence;
	}
	return 0;
}

/* Whether the commit block in buf ends a transaction that is whole. */
static bool commit_matches(struct journal *j, const struct position *p)
{
	struct jbd2_commit *c = (void *)j->buf;
	uint32_t stored = be32_get(c->checksum);

	if (checksums(j)) {
		c->checksum = be32_make(0);
		return ext2fs_crc32c_le(j->seed, j->buf, j->x->bs) == stored;
	}
	if (!(be32_get(j->super.compat) & JBD2_COMPAT_CHECKSUM))
		return true;
	return (c->checksum_type == 1 && c->checksum_size == 4 && stored == p->crc) ||
	       (c->checksum_type == 0 && c->checksum_size == 0 && stored == 0);
}

/* ---- passes ---- */

/* One block of the log and what belongs to it. 1: the log ends here. */
static int step(struct journal *j, struct position *p, enum pass pass, struct err *err)
{
	const struct jbd2_header *h = (const void *)j->buf;
	const uint32_t sequence = p->sequence;
	uint32_t type;
	int r = log_read(j, p->block, j->buf, err);

	if (r < 0)
		return r;
	if (be32_get(h->magic) != JBD2_MAGIC || be32_get(h->sequence) != sequence)
		return 1;
	type = be32_get(h->type);
	if (!advance(j, p))
		return 1;
	switch (type) {
	case JBD2_DESCRIPTOR:
		return descriptor(j, p, pass, err);
	case JBD2_REVOKE:
		if (pass == PASS_SCAN && !tail_matches(j))
			p->broken = true;
		return pass == PASS_REVOKE ? revoke(j, p, err) : 0;
	case JBD2_COMMIT:
		if (pass == PASS_SCAN && !commit_matches(j, p))
			return 1;
		if (p->broken)
			return bad(err, "wrong checksums in a transaction that is complete",
				   sequence);
		p->sequence++;
		p->crc = UINT32_MAX;
		return 0;
	default:
		return 1;
	}
}

static int walk(struct journal *j, enum pass pass, struct err *err)
{
	struct position p = {
		.block = be32_get(j->super.start),
		.sequence = be32_get(j->super.sequence),
		.left = j->end - j->first,
		.crc = UINT32_MAX,
	};
	int r = 0;

	while (r == 0 && (pass == PASS_SCAN || p.sequence != j->done))
		r = step(j, &p, pass, err);
	if (pass == PASS_SCAN)
		j->done = p.sequence;
	return r < 0 ? r : 0;
}

/*
 * Fast commits continue where the log ends, with a format of their own that we do not replay: their
 * first block then begins with the tag "head" and the number of the transaction.
 */
static int check_fast(struct journal *j, struct err *err)
{
	const struct {
		le16 tag, len;
		le32 features, sequence;
	} *head = (const void *)j->buf;
	int r;

	if (!(j->incompat & JBD2_FAST_COMMIT))
		return 0;
	r = log_read(j, j->end, j->buf, err);
	if (r == 0 && le16_get(head->tag) == 9 && le32_get(head->sequence) == j->done)
		r = err_set(err, EOPNOTSUPP,
			    "its journal has fast commits, which cannot be replayed here: mount "
			    "it once, or run `img fsck`");
	return r;
}

/* ---- the journal's superblock ---- */

static int super_check(struct journal *j, struct err *err)
{
	struct jbd2_super *s = &j->super;
	const uint32_t known = JBD2_HAS_REVOKE | JBD2_64BIT | JBD2_ASYNC_COMMIT | JBD2_CSUM_V2 |
			       JBD2_CSUM_V3 | JBD2_FAST_COMMIT;
	const uint32_t type = be32_get(s->header.type), blocks = be32_get(s->blocks);
	uint32_t fast = 0;

	if (be32_get(s->header.magic) != JBD2_MAGIC ||
	    (type != JBD2_SUPER_V1 && type != JBD2_SUPER_V2))
		return bad(err, "no superblock, magic", be32_get(s->header.magic));
	if (be32_get(s->block_size) != j->x->bs)
		return bad(err, "blocks of bytes", be32_get(s->block_size));
	if (type == JBD2_SUPER_V2)
		j->incompat = be32_get(s->incompat);
	if (j->incompat & ~known)
		return err_set(err, EOPNOTSUPP, "its journal has unknown features (0x%x)",
			       j->incompat & ~known);
	if (checksums(j)) {
		be32 stored = s->checksum;
		uint32_t crc;

		s->checksum = be32_make(0);
		crc = ext2fs_crc32c_le(UINT32_MAX, (void *)s, sizeof(*s));
		s->checksum = stored;
		if (s->checksum_type != 4 || crc != be32_get(stored))
			return bad(err, "a wrong checksum of its superblock", be32_get(stored));
	}
	if (j->incompat & JBD2_FAST_COMMIT) {
		fast = be32_get(s->fast_blocks);
		fast = fast ? fast : JBD2_FAST_BLOCKS_DEFAULT;
	}
	if (blocks > div_up(ext_inode_size(&j->inode), j->x->bs) || fast >= blocks)
		return bad(err, "a length in blocks", blocks);
	j->first = be32_get(s->first);
	j->end = blocks - fast;
	j->seed = ext2fs_crc32c_le(UINT32_MAX, s->uuid, sizeof(s->uuid));
	if (j->first == 0 || j->first >= j->end)
		return bad(err, "its first block", j->first);
	if (be32_get(s->start) && (be32_get(s->start) < j->first || be32_get(s->start) >= j->end))
		return bad(err, "its log starts at block", be32_get(s->start));
	return 0;
}

static int journal_open(struct ext *x, struct journal *j, struct err *err)
{
	const uint32_t ino = x->e2->super->s_journal_inum;
	uint64_t at = 0;
	int r;

	j->x = x;
	if (ino == 0)
		return err_set(err, EOPNOTSUPP, "its journal is on another device");
	j->buf = malloc(x->bs);
	j->data = malloc(x->bs);
	if (!j->buf || !j->data)
		return err_nomem(err, x->bs, "the journal");
	r = ext_inode_read(x, ino, &j->inode, err);
	if (r == 0 && !LINUX_S_ISREG(j->inode.u.small.i_mode))
		r = bad(err, "its inode is not a regular file", ino);
	if (r == 0)
		r = log_locate(j, 0, &at, err);
	if (r == 0)
		r = cache_read(x->cache, &j->super, sizeof(j->super), at * x->bs, err);
	return r < 0 ? r : super_check(j, err);
}

static void journal_close(struct journal *j)
{
	free(j->buf);
	free(j->data);
	free(j->revoked);
	free(j->patches);
}

/* ---- the result ---- */

/* Writes the copies where they belong, and then that the log is empty. */
static int write_back(struct journal *j, struct err *err)
{
	struct ext *x = j->x;
	struct jbd2_super *s = &j->super;
	const be32 magic = be32_make(JBD2_MAGIC);
	uint64_t at = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->n_patches; i++) {
		const struct cache_patch *p = &j->patches[i];

		r = cache_read(x->cache, j->buf, x->bs, p->at * x->bs, err);
		if (p->escaped)
			memcpy(j->buf, &magic, sizeof(magic));
		if (r == 0)
			r = cache_write(x->cache, j->buf, x->bs, p->target * x->bs, err);
	}
	if (r == 0)
		r = cache_flush(x->cache, err);
	if (r == 0)
		r = log_locate(j, 0, &at, err);
	if (r < 0)
		return r;
	s->start = be32_make(0);
	s->sequence = be32_make(j->done + 1);
	if (checksums(j)) {
		s->checksum = be32_make(0);
		s->checksum = be32_make(ext2fs_crc32c_le(UINT32_MAX, (void *)s, sizeof(*s)));
	}
	r = cache_write(x->cache, s, sizeof(*s), at * x->bs, err);
	return r < 0 ? r : cache_flush(x->cache, err);
}

static int replay(struct journal *j, struct err *err)
{
	int r = 0;

	j->done = be32_get(j->super.sequence);
	if (be32_get(j->super.start)) {
		r = walk(j, PASS_SCAN, err);
		if (r == 0)
			r = check_fast(j, err);
		if (r == 0)
			r = walk(j, PASS_REVOKE, err);
		if (r == 0 && j->n_revoked)
			qsort(j->revoked, j->n_revoked, sizeof(j->revoked[0]), compare_revoked);
		if (r == 0)
			r = walk(j, PASS_COLLECT, err);
		if (r == 0)
			r = patches_finish(j, err);
	}
	if (r < 0)
		return r;
	if (!j->x->fs.rdonly)
		return write_back(j, err);
	if (j->n_patches == 0)
		return 0;
	r = cache_patches(j->x->cache, j->patches, j->n_patches, j->x->bs, err);
	if (r == 0)
		j->patches = NULL;
	return r;
}

int ext_journal_replay(struct ext *x, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_nomem(err, sizeof(*j), "the journal");
	r = journal_open(x, j, err);
	if (r == 0)
		r = replay(j, err);
	if (r == 0 && be32_get(j->super.error))
		r = 1;
	journal_close(j);
	free(j);
	return r;
}

int ext_journal_check(struct ext *x, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_nomem(err, sizeof(*j), "the journal");
	r = journal_open(x, j, err);
	if (r == 0 && be32_get(j->super.start))
		r = err_set(err, EUCLEAN,
			    "its journal has transactions, but the superblock says "
			    "that there are none: run `img fsck`");
	journal_close(j);
	free(j);
	return r;
}
