/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of a volume (cache.h).
 *
 * Invariants:
 *   - a chunk is in the hash table and in the list of use from the time it has a number;
 *   - dirty ⊆ valid; a clean valid part equals what the disk (with the patches) has;
 *   - nothing is dirty while there are patches: those belong to a disk that is not written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/agent/ext/cache.h"
#include "base/bytes.h"

#define PART       UINT32_C(1024)
#define PARTS      (CACHE_CHUNK / PART)
#define ALL_PARTS  UINT32_MAX
#define BUCKETS    1024u
#define STREAMS    4u
#define JBD2_MAGIC UINT32_C(0xc03b3998)
_Static_assert(PARTS == 32, "the masks are of 32 bits");

struct chunk {
	uint64_t no;
	uint32_t valid, dirty; /* bit i: part i */
	unsigned char *data;
	struct chunk *chain;         /* of the bucket */
	struct chunk *newer, *older; /* list of use */
	bool used;
};

/* A place up to which something is being read in order. */
struct stream {
	uint64_t next; /* chunk */
	uint32_t ahead;
	uint64_t used;
};

struct cache {
	struct volume vol;
	uint64_t size; /* in whole parts */
	bool unsafe;   /* something was written and not yet flushed by the disk */
	uint64_t generation, clock;
	unsigned char *pool, *bounce; /* bounce: CACHE_AHEAD bytes */
	struct chunk *newest, *oldest;
	struct chunk *buckets[BUCKETS];
	struct chunk chunks[CACHE_CHUNKS];
	struct stream streams[STREAMS];
	uint32_t n_chunks; /* that there is memory for, <= CACHE_CHUNKS */
	uint32_t n_used, n_dirty;
	struct chunk *sorted[CACHE_CHUNKS]; /* while flushing */
	struct cache_patch *patches;
	size_t n_patches;
	uint32_t patch_block;
};

/*
 * Memory for as many chunks as can be without taking the last of it: several filesystems may be
 * mounted, and all that works on them needs some, too.
 */
static unsigned char *pool_new(uint32_t *n_chunks)
{
	for (*n_chunks = CACHE_CHUNKS; *n_chunks >= CACHE_CHUNKS_MIN; *n_chunks /= 2) {
		size_t size = (size_t)*n_chunks * CACHE_CHUNK;
		void *volatile test = malloc(size + CACHE_SPARE); /* not to be left out */

		if (!test && *n_chunks > CACHE_CHUNKS_MIN)
			continue;
		free(test);
		return malloc(size);
	}
	return NULL;
}

int cache_open(const struct volume *vol, bool rdonly, struct cache **out, struct err *err)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return err_nomem(err, sizeof(*c), "the cache");
	c->pool = pool_new(&c->n_chunks);
	c->bounce = malloc(CACHE_AHEAD);
	if (!c->pool || !c->bounce) {
		cache_close(c);
		return err_nomem(err, (uint64_t)CACHE_CHUNKS_MIN * CACHE_CHUNK, "the cache");
	}
	for (size_t i = 0; i < c->n_chunks; i++)
		c->chunks[i].data = c->pool + i * CACHE_CHUNK;
	for (size_t i = 0; i < STREAMS; i++)
		c->streams[i].next = UINT64_MAX;
	c->vol = *vol;
	c->vol.rdonly |= rdonly;
	c->size = round_down(vol->size, PART);
	*out = c;
	return 0;
}

void cache_close(struct cache *c)
{
	if (!c)
		return;
	free(c->patches);
	free(c->bounce);
	free(c->pool);
	free(c);
}

uint64_t cache_generation(const struct cache *c)
{
	return c->generation;
}

/* ---- chunks ---- */

static struct chunk **bucket_of(struct cache *c, uint64_t no)
{
	return &c->buckets[(no * UINT64_C(0x9e3779b97f4a7c15)) >> 54];
}

static void list_remove(struct cache *c, struct chunk *k)
{
	*(k->newer ? &k->newer->older : &c->newest) = k->older;
	*(k->older ? &k->older->newer : &c->oldest) = k->newer;
}

static void list_add(struct cache *c, struct chunk *k)
{
	k->newer = NULL;
	k->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = k;
	c->newest = k;
}

static struct chunk *chunk_find(struct cache *c, uint64_t no)
{
	struct chunk *k = *bucket_of(c, no);

	while (k && k->no != no)
		k = k->chain;
	return k;
}

static void chunk_drop(struct cache *c, struct chunk *k)
{
	struct chunk **p = bucket_of(c, k->no);

	while (*p != k)
		p = &(*p)->chain;
	*p = k->chain;
	list_remove(c, k);
	k->used = false;
}

static int write_back(struct cache *c, struct err *err);

/* The chunk of that number, made with nothing valid when it is not there. */
static int chunk_get(struct cache *c, uint64_t no, struct chunk **out, struct err *err)
{
	struct chunk *k = chunk_find(c, no);
	int r;

	if (k) {
		list_remove(c, k);
		list_add(c, k);
		*out = k;
		return 0;
	}
	if (c->n_used < c->n_chunks) {
		k = &c->chunks[c->n_used++];
	} else {
		/* One at a time would be small and scattered requests: all of it, sorted. */
		if (c->oldest->dirty) {
			r = write_back(c, err);
			if (r < 0)
				return r;
		}
		k = c->oldest;
		chunk_drop(c, k);
	}
	k->no = no;
	k->valid = k->dirty = 0;
	k->used = true;
	k->chain = *bucket_of(c, no);
	*bucket_of(c, no) = k;
	list_add(c, k);
	*out = k;
	return 0;
}

/* The parts that [from, to) of a chunk touches. */
static uint32_t parts_mask(uint32_t from, uint32_t to)
{
	uint32_t first = from / PART, last = (to - 1) / PART;

	return (ALL_PARTS >> (31 - last)) & (ALL_PARTS << first);
}

/* The parts that lie wholly in [from, to). */
static uint32_t parts_inside(uint32_t from, uint32_t to)
{
	uint32_t first = (from + PART - 1) / PART, end = to / PART;

	if (first >= end)
		return 0;
	return (ALL_PARTS >> (32 - end)) & (ALL_PARTS << first);
}

/* ---- reading ---- */

/* Replaces, in what was read at off, the blocks that the journal has newer. */
static int apply_patches(struct cache *c, unsigned char *buf, size_t len, uint64_t off,
			 struct err *err)
{
	size_t lo = 0, hi = c->n_patches;
	const uint32_t block = c->patch_block;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if ((c->patches[mid].target + 1) * block <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < c->n_patches && c->patches[lo].target * block < off + len; lo++) {
		const struct cache_patch *p = &c->patches[lo];
		uint64_t begin = max_u64(p->target * block, off);
		uint64_t end = min_u64((p->target + 1) * block, off + len);
		uint64_t skip = begin - p->target * block;
		unsigned char *to = buf + (begin - off);
		int r = volume_read(&c->vol, to, (size_t)(end - begin), p->at * block + skip, err);

		if (r < 0)
			return r;
		if (p->escaped && skip == 0) {
			be32 magic = be32_make(JBD2_MAGIC);

			memcpy(to, &magic, (size_t)min_u64(sizeof(magic), end - begin));
		}
	}
	return 0;
}

static int disk_read(struct cache *c, void *buf, size_t len, uint64_t off, struct err *err)
{
	int r = volume_read(&c->vol, buf, len, off, err);

	return r < 0 || c->n_patches == 0 ? r : apply_patches(c, buf, len, off, err);
}

/* The stream that a missing chunk continues, its window grown, or a new one. */
static struct stream *stream_of(struct cache *c, uint64_t no)
{
	struct stream *s = &c->streams[0];

	for (size_t i = 0; i < STREAMS; i++) {
		if (c->streams[i].next == no) {
			s = &c->streams[i];
			s->ahead = (uint32_t)min_u64(s->ahead * UINT64_C(8), CACHE_AHEAD);
			s->used = ++c->clock;
			return s;
		}
		if (c->streams[i].used < s->used)
			s = &c->streams[i];
	}
	s->ahead = CACHE_CHUNK;
	s->used = ++c->clock;
	return s;
}

/* Copies what was read into a chunk, but not over what is newer there. */
static void chunk_fill(struct chunk *k, const unsigned char *from, uint32_t len)
{
	uint32_t have = parts_inside(0, len) & ~k->valid;

	if (have == ALL_PARTS) {
		memcpy(k->data, from, CACHE_CHUNK);
	} else {
		for (uint32_t i = 0; i < PARTS; i++)
			if (have & (UINT32_C(1) << i))
				memcpy(k->data + (size_t)i * PART, from + (size_t)i * PART, PART);
	}
	k->valid |= have;
}

/* Makes a chunk valid as far as the volume goes, and some of those after it: at least as many as
 * are wanted. */
static int chunk_load(struct cache *c, struct chunk *k, size_t want, struct err *err)
{
	struct stream *s = stream_of(c, k->no);
	uint64_t no = k->no, n = s->ahead / CACHE_CHUNK, len;
	int r;

	n = max_u64(n, min_u64(div_up(want, CACHE_CHUNK), CACHE_AHEAD / CACHE_CHUNK));

	/* Up to what is there already. The chunks after the first are made below: they may take
	 * the place of others, but never of those that are in use at the newest end. */
	for (uint64_t i = 1; i < n; i++) {
		if (chunk_find(c, no + i)) {
			n = i;
			break;
		}
	}
	len = min_u64(n * CACHE_CHUNK, c->size - no * CACHE_CHUNK);
	r = disk_read(c, c->bounce, (size_t)len, no * CACHE_CHUNK, err);
	if (r < 0)
		return r;
	chunk_fill(k, c->bounce, (uint32_t)min_u64(len, CACHE_CHUNK));
	s->next = no + n;
	for (uint64_t i = 1; i * CACHE_CHUNK < len; i++) {
		struct chunk *next;

		/* Writing back uses the bounce buffer: then the rest is not kept. */
		if (c->n_used == c->n_chunks && c->oldest->dirty)
			return 0;
		r = chunk_get(c, no + i, &next, err);
		if (r < 0)
			return r;
		chunk_fill(next, c->bounce + i * CACHE_CHUNK,
			   (uint32_t)min_u64(len - i * CACHE_CHUNK, CACHE_CHUNK));
	}
	list_remove(c, k);
	list_add(c, k);
	return 0;
}

/* Reads straight into the caller's memory, and then puts over it what was not written back. */
static int read_direct(struct cache *c, unsigned char *buf, size_t len, uint64_t off,
		       struct err *err)
{
	int r = disk_read(c, buf, len, off, err);

	if (r < 0 || c->n_dirty == 0)
		return r;
	for (uint64_t no = off / CACHE_CHUNK; no * CACHE_CHUNK < off + len; no++) {
		struct chunk *k = chunk_find(c, no);

		for (uint32_t i = 0; k && k->dirty && i < PARTS; i++) {
			uint64_t at = no * CACHE_CHUNK + (uint64_t)i * PART;
			uint64_t begin = max_u64(at, off), end = min_u64(at + PART, off + len);

			if ((k->dirty & (UINT32_C(1) << i)) && begin < end)
				memcpy(buf + (begin - off),
				       k->data + (size_t)i * PART + (begin - at),
				       (size_t)(end - begin));
		}
	}
	return 0;
}

static int check_range(struct cache *c, uint64_t len, uint64_t off, struct err *err)
{
	if (off <= c->size && len <= c->size - off)
		return 0;
	return err_set(err, EIO, "%llu bytes at %llu are beyond the end of the volume (%llu bytes)",
		       (unsigned long long)len, (unsigned long long)off,
		       (unsigned long long)c->size);
}

int cache_read(struct cache *c, void *buf, size_t len, uint64_t off, struct err *err)
{
	int r = check_range(c, len, off, err);

	if (r < 0)
		return r;
	if (len >= CACHE_DIRECT)
		return read_direct(c, buf, len, off, err);
	while (len) {
		uint32_t in = (uint32_t)(off % CACHE_CHUNK);
		uint32_t n = (uint32_t)min_u64(len, CACHE_CHUNK - in);
		uint32_t need = parts_mask(in, in + n);
		struct chunk *k;

		r = chunk_get(c, off / CACHE_CHUNK, &k, err);
		if (r == 0 && (k->valid & need) != need)
			r = chunk_load(c, k, in + len, err);
		if (r < 0)
			return r;
		memcpy(buf, k->data + in, n);
		buf = (char *)buf + n;
		len -= n;
		off += n;
	}
	return 0;
}

/* ---- writing ---- */

static int compare_chunks(const void *a, const void *b)
{
	const struct chunk *x = *(struct chunk *const *)a, *y = *(struct chunk *const *)b;

	return x->no < y->no ? -1 : x->no > y->no;
}

/*
 * The next run of dirty parts from (chunk *i, part *p) on, gathered in the bounce buffer. Short
 * gaps of clean valid parts are written, too: one request is cheaper than two.
 */
static uint32_t gather(struct cache *c, uint32_t n, uint32_t *i, uint32_t *p, uint64_t *at)
{
	uint32_t len = 0, keep = 0;

	for (; *i < n; ++*i, *p = 0) {
		struct chunk *k = c->sorted[*i];

		if (len && k->no * CACHE_CHUNK != *at + len)
			break;
		for (; *p < PARTS; ++*p) {
			uint32_t bit = UINT32_C(1) << *p;

			if (len == 0 && !(k->dirty & bit))
				continue;
			if (len == 0)
				*at = k->no * CACHE_CHUNK + (uint64_t)*p * PART;
			if (!(k->valid & bit) || len == CACHE_AHEAD)
				return keep;
			memcpy(c->bounce + len, k->data + (size_t)*p * PART, PART);
			len += PART;
			if (k->dirty & bit)
				keep = len;
			else if (len - keep > 8 * PART)
				return keep;
		}
	}
	return keep;
}

static int write_back(struct cache *c, struct err *err)
{
	uint32_t n = 0, i = 0, p = 0;

	if (c->n_dirty == 0)
		return 0;
	for (uint32_t k = 0; k < c->n_used; k++)
		if (c->chunks[k].used && c->chunks[k].dirty)
			c->sorted[n++] = &c->chunks[k];
	qsort(c->sorted, n, sizeof(c->sorted[0]), compare_chunks);
	for (;;) {
		uint64_t at = 0;
		uint32_t len = gather(c, n, &i, &p, &at);
		int r;

		if (len == 0 && i >= n)
			break;
		c->unsafe = true;
		r = volume_write(&c->vol, c->bounce, len, at, err);
		if (r < 0)
			return r;
	}
	for (uint32_t k = 0; k < n; k++)
		c->sorted[k]->dirty = 0;
	c->n_dirty = 0;
	return 0;
}

static void mark_dirty(struct cache *c, struct chunk *k, uint32_t parts)
{
	if (!k->dirty && parts)
		c->n_dirty++;
	k->valid |= parts;
	k->dirty |= parts;
}

/* buf NULL: zeros. */
static void copy_or_zero(unsigned char *to, const void *buf, size_t n)
{
	if (buf)
		memcpy(to, buf, n);
	else
		memset(to, 0, n);
}

/* What the cache has of a range that was just written past it. */
static void update_clean(struct cache *c, const unsigned char *buf, uint64_t len, uint64_t off)
{
	uint64_t first = off / CACHE_CHUNK, last = (off + len - 1) / CACHE_CHUNK;

	for (uint64_t no = first; no <= last; no++) {
		struct chunk *k = chunk_find(c, no);
		uint64_t at = no * CACHE_CHUNK;
		uint64_t begin = max_u64(at, off), end = min_u64(at + CACHE_CHUNK, off + len);
		uint32_t inside;

		if (!k)
			continue;
		inside = parts_inside((uint32_t)(begin - at), (uint32_t)(end - at));
		copy_or_zero(k->data + (begin - at), buf ? buf + (begin - off) : NULL,
			     (size_t)(end - begin));
		if (k->dirty && !(k->dirty & ~inside))
			c->n_dirty--;
		k->dirty &= ~inside;
		k->valid |= inside;
	}
}

static int write_cached(struct cache *c, const void *buf, uint64_t len, uint64_t off,
			struct err *err)
{
	while (len) {
		uint32_t in = (uint32_t)(off % CACHE_CHUNK);
		uint32_t n = (uint32_t)min_u64(len, CACHE_CHUNK - in);
		uint32_t parts = parts_mask(in, in + n);
		/* What is only touched must be known first. */
		uint32_t need = parts & ~parts_inside(in, in + n);
		struct chunk *k;
		int r = chunk_get(c, off / CACHE_CHUNK, &k, err);

		if (r == 0 && (k->valid & need) != need)
			r = chunk_load(c, k, 1, err);
		if (r < 0)
			return r;
		/* Tables are written whole where one bit of them changed. */
		if (!buf || (k->valid & parts) != parts || memcmp(k->data + in, buf, n) != 0) {
			copy_or_zero(k->data + in, buf, n);
			mark_dirty(c, k, parts);
		}
		if (buf)
			buf = (const char *)buf + n;
		len -= n;
		off += n;
	}
	return 0;
}

static int check_write(struct cache *c, uint64_t len, uint64_t off, struct err *err)
{
	if (c->vol.rdonly || c->n_patches)
		return err_set(err, EROFS, "the volume is not open for writing");
	c->generation++;
	return check_range(c, len, off, err);
}

int cache_write(struct cache *c, const void *buf, size_t len, uint64_t off, struct err *err)
{
	int r = check_write(c, len, off, err);
	uint64_t head, body;

	if (r < 0 || len == 0)
		return r;
	/* Parts at the ends that are touched only go through the cache, so that the rest of them
	 * that waits there is not lost. */
	head = round_up(off, PART) - off;
	if (len < CACHE_DIRECT + head)
		return write_cached(c, buf, len, off, err);
	body = round_down(len - head, PART);
	r = write_cached(c, buf, head, off, err);
	if (r == 0) {
		c->unsafe = true;
		r = volume_write(&c->vol, (const char *)buf + head, (size_t)body, off + head, err);
	}
	if (r < 0)
		return r;
	update_clean(c, (const unsigned char *)buf + head, body, off + head);
	return write_cached(c, (const char *)buf + head + body, len - head - body,
			    off + head + body, err);
}

int cache_zero(struct cache *c, uint64_t off, uint64_t len, struct err *err)
{
	int r = check_write(c, len, off, err);

	if (r < 0 || len == 0)
		return r;
	if (len < CACHE_DIRECT || !is_aligned(off, PART) || !is_aligned(len, PART))
		return write_cached(c, NULL, len, off, err);
	c->unsafe = true;
	r = volume_zero(&c->vol, off, len, err);
	if (r == 0)
		update_clean(c, NULL, len, off);
	return r;
}

int cache_flush(struct cache *c, struct err *err)
{
	int r = write_back(c, err);

	if (r == 0 && c->unsafe) {
		r = volume_flush(&c->vol, err);
		if (r == 0)
			c->unsafe = false;
	}
	return r;
}

int cache_patches(struct cache *c, struct cache_patch *v, size_t n, uint32_t block, struct err *err)
{
	int r = cache_flush(c, err);

	if (r < 0)
		return r;
	/* What was read before may be older than what the journal has. */
	for (uint32_t i = 0; i < c->n_used; i++)
		c->chunks[i].valid = 0;
	c->patches = v;
	c->n_patches = n;
	c->patch_block = block;
	c->generation++;
	return 0;
}
