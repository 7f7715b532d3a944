// SPDX-License-Identifier: LGPL-2.1-or-later
/* Metadata cache; see mcache.h. A chained hash over a recency list. */
#include "image/mcache.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* Longest run of neighbouring slices that one write-back request carries, in bytes. */
#define WRITE_RUN (256 * KiB)

int mcache_init(struct mcache *c, struct io *file, size_t slice, size_t max_bytes, struct err *err)
{
	*c = (struct mcache){.file = file, .slice = slice, .max = max_bytes / slice};
	c->n_buckets = 64;
	while (c->n_buckets < c->max && c->n_buckets < 4096)
		c->n_buckets *= 2;
	c->bucket = calloc(c->n_buckets, sizeof(*c->bucket));
	return c->bucket ? 0 : err_nomem(err, c->n_buckets * sizeof(*c->bucket), "the table cache");
}

void mcache_free(struct mcache *c)
{
	struct mslice *s, *newer;

	for (s = c->oldest; s; s = newer) {
		newer = s->newer;
		free(s);
	}
	free(c->bucket);
	*c = (struct mcache){0};
}

static struct mslice **find(struct mcache *c, uint64_t host)
{
	/* Slices of one table are neighbours: low bits above the slice size spread them well. */
	uint64_t key = host / c->slice;
	struct mslice **p = &c->bucket[(key ^ key >> 12) & (c->n_buckets - 1)];

	while (*p && (*p)->host != host)
		p = &(*p)->next;
	return p;
}

static void unlink_recency(struct mcache *c, struct mslice *s)
{
	*(s->older ? &s->older->newer : &c->oldest) = s->newer;
	*(s->newer ? &s->newer->older : &c->newest) = s->older;
}

static void link_newest(struct mcache *c, struct mslice *s)
{
	s->newer = NULL;
	s->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = s;
	c->newest = s;
}

static void remove_slice(struct mcache *c, struct mslice **p)
{
	struct mslice *s = *p;

	*p = s->next;
	unlink_recency(c, s);
	if (s->dirty)
		c->n_dirty[s->dirty - 1]--;
	c->n--;
	free(s);
}

/* Makes room for one more: the oldest clean slice goes. Dirty ones move to the young end. */
static void evict(struct mcache *c)
{
	for (size_t tries = c->n; c->n >= c->max && tries; tries--) {
		struct mslice *s = c->oldest;

		if (!s->dirty) {
			remove_slice(c, find(c, s->host));
			return;
		}
		unlink_recency(c, s);
		link_newest(c, s);
	}
}

int mcache_get(struct mcache *c, uint64_t host, const char *what, struct mslice **out,
	       struct err *err)
{
	struct mslice **p, *s;
	int r;

	host = round_down(host, c->slice);
	s = *find(c, host);
	if (s) {
		if (s != c->newest) {
			unlink_recency(c, s);
			link_newest(c, s);
		}
		*out = s;
		return 0;
	}
	if (host >= io_size(c->file))
		return io_corrupt(c->file, err, host,
				  "%s lies beyond the end of the file (%llu bytes)", what,
				  (unsigned long long)io_size(c->file));
	evict(c);
	s = malloc(sizeof(*s) + c->slice);
	if (!s)
		return err_nomem(err, c->slice, what);
	*s = (struct mslice){.host = host, .data = (unsigned char *)(s + 1)};
	r = io_pread_tail(c->file, s->data, c->slice, host, err);
	if (r < 0) {
		free(s);
		return r;
	}
	p = find(c, host);
	s->next = *p;
	*p = s;
	link_newest(c, s);
	c->n++;
	*out = s;
	return 0;
}

void mcache_mark(struct mcache *c, struct mslice *s, int class)
{
	if (s->dirty)
		return;
	s->dirty = class + 1;
	c->n_dirty[class]++;
}

void mcache_drop(struct mcache *c, uint64_t host, uint64_t len)
{
	for (uint64_t at = round_down(host, c->slice); at < host + len; at += c->slice) {
		struct mslice **p = find(c, at);

		if (*p)
			remove_slice(c, p);
	}
}

static int by_host(const void *a, const void *b)
{
	const struct mslice *x = *(struct mslice *const *)a, *y = *(struct mslice *const *)b;

	return x->host < y->host ? -1 : x->host > y->host;
}

/* Writes v[0 … n), sorted, neighbours together in buf (WRITE_RUN bytes). */
static int write_sorted(struct mcache *c, struct mslice **v, size_t n, unsigned char *buf,
			struct err *err)
{
	for (size_t i = 0, run; i < n; i += run) {
		int r;

		for (run = 0; i + run < n && run * c->slice < WRITE_RUN &&
			      v[i + run]->host == v[i]->host + run * c->slice;
		     run++)
			memcpy(buf + run * c->slice, v[i + run]->data, c->slice);
		r = io_pwrite(c->file, buf, run * c->slice, v[i]->host, err);
		if (r < 0)
			return r;
		for (size_t k = i; k < i + run; k++) {
			c->n_dirty[v[k]->dirty - 1]--;
			v[k]->dirty = 0;
		}
	}
	return 0;
}

int mcache_write(struct mcache *c, int class, struct err *err)
{
	CLEANUP_FREE struct mslice **v = NULL;
	CLEANUP_FREE unsigned char *buf = NULL;
	size_t n = c->n_dirty[class], k = 0;

	if (!n)
		return 0;
	v = malloc(n * sizeof(struct mslice *));
	buf = malloc(WRITE_RUN);
	if (!v || !buf)
		return err_nomem(err, n * sizeof(struct mslice *) + WRITE_RUN, "write-back");
	for (struct mslice *s = c->oldest; s; s = s->newer)
		if (s->dirty == class + 1)
			v[k++] = s;
	qsort(v, n, sizeof(struct mslice *), by_host);
	return write_sorted(c, v, n, buf, err);
}
