/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A write-back cache of a volume, made for requests that are expensive each: what is read in order
 * is read ahead, what is written waits and goes out sorted and joined.
 *
 * Positions and lengths are bytes from the start of the volume. Memory is bounded: CACHE_CHUNKS
 * chunks, of which each part of a KiB is valid or not, dirty or not.
 */
#ifndef IMGKIT_AGENT_EXT_CACHE_H
#define IMGKIT_AGENT_EXT_CACHE_H

#include "appliance/agent/fs.h"

#define CACHE_CHUNK      (UINT32_C(32) << 10) /* what a lone small read brings in */
#define CACHE_CHUNKS     512u                 /* 16 MiB, where memory allows it */
#define CACHE_CHUNKS_MIN 64u                  /* more than one request */
#define CACHE_SPARE      (UINT32_C(12) << 20) /* that is left to others, if it can be */
#define CACHE_AHEAD      (UINT32_C(1) << 20)  /* the largest request */
/* Reads and writes from this length on go past the cache, straight from and to the caller. */
#define CACHE_DIRECT (UINT32_C(256) << 10)

struct cache;

/*
 * A block that a journal replays: `target` reads as `source` does, blocks of the patch size.
 * escaped: its first four bytes are JBD2's magic, which the journal does not store.
 */
struct cache_patch {
	uint64_t target;
	uint32_t source; /* block of the journal, until journal.c has located it */
	uint32_t escaped;
	uint64_t at; /* block of the volume where the source is */
};

int cache_open(const struct volume *vol, bool rdonly, struct cache **out, struct err *err);
/* Drops what was not flushed. */
void cache_close(struct cache *c);

int cache_read(struct cache *c, void *buf, size_t len, uint64_t off, struct err *err);
int cache_write(struct cache *c, const void *buf, size_t len, uint64_t off, struct err *err);
int cache_zero(struct cache *c, uint64_t off, uint64_t len, struct err *err);
/* Everything written so far is on the disk afterwards, and safe there. */
int cache_flush(struct cache *c, struct err *err);

/* Makes reads see the replayed blocks (sorted by target, disjoint). Takes v, on success only. */
int cache_patches(struct cache *c, struct cache_patch *v, size_t n, uint32_t block,
		  struct err *err);

/* Counts writes: whoever keeps a copy of something can tell whether it may have changed. */
uint64_t cache_generation(const struct cache *c);

#endif
