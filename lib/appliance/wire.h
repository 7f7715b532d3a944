/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Putting values into a payload and taking them out again, bounds checked on both ways: used by
 * the library and by the agent. Overrun is remembered, not returned by each call: a reader yields
 * zeros and empty texts after it, and the caller asks once, at the end (`wire_done`).
 */
#ifndef IMGKIT_APPLIANCE_WIRE_H
#define IMGKIT_APPLIANCE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes into memory of the caller. */
struct wire_out {
	unsigned char *buf;
	size_t len, cap;
	bool full; /* something did not fit; nothing of it was written */
};

static inline struct wire_out wire_out(void *buf, size_t cap)
{
	return (struct wire_out){.buf = buf, .cap = cap};
}

void put_u8(struct wire_out *w, uint8_t v);
void put_u32(struct wire_out *w, uint32_t v);
void put_u64(struct wire_out *w, uint64_t v);
/* u32 length and the bytes. */
void put_bytes(struct wire_out *w, const void *p, size_t n);
void put_text(struct wire_out *w, const char *s);

/* Reads from memory that stays the caller's. */
struct wire_in {
	const unsigned char *p;
	size_t left;
	bool bad; /* a field was cut off, too long, or held a NUL */
};

static inline struct wire_in wire_in(const void *p, size_t n)
{
	return (struct wire_in){.p = p, .left = n};
}

uint8_t get_u8(struct wire_in *r);
uint32_t get_u32(struct wire_in *r);
uint64_t get_u64(struct wire_in *r);
/* Points into the payload; n <= max. */
const void *get_bytes(struct wire_in *r, size_t max, size_t *n);
/* Copies into buf (size bytes, NUL-terminated); too long for it, or a NUL inside, is bad. */
void get_text(struct wire_in *r, char *buf, size_t size);

/* Whether everything was there and nothing is left. */
static inline bool wire_done(const struct wire_in *r)
{
	return !r->bad && r->left == 0;
}

/* What STAT of protocol.h is. Times: seconds since 1970. */
struct agent_time {
	int64_t sec;
	uint32_t nsec;
};

struct agent_stat {
	uint64_t dev, ino;
	uint32_t mode, nlink, uid, gid, rdev_major, rdev_minor;
	uint64_t size, allocated; /* bytes */
	struct agent_time atime, mtime, ctime, btime;
	uint32_t flags;
};

void put_stat(struct wire_out *w, const struct agent_stat *st);
void get_stat(struct wire_in *r, struct agent_stat *st);

/* An answer of OP_VOLUMES: a disk, or a partition, and what is on it. "" where there is nothing. */
struct agent_volume {
	uint32_t disk, part;   /* part 0: the whole disk */
	uint64_t offset, size; /* bytes, on the disk */
	uint32_t sector;       /* bytes: of a disk that has a partition table, else 0 */
	char table[16];        /* of a disk: "dos", "gpt", … or "" */
	char part_type[40];    /* of a partition: "0x83" or a GUID */
	char part_uuid[40], part_name[120];
	uint32_t part_flags; /* bit 0: active (MBR) or legacy bootable (GPT) */
	char usage[16];      /* "filesystem", "raid", "crypto", "other" or "" */
	char type[32];       /* "ext4", "swap", … or "" */
	char label[260], uuid[40], version[32];
	uint64_t fs_size;  /* bytes, 0: not known */
	uint32_t fs_block; /* bytes, 0: not known */
};

void put_volume(struct wire_out *w, const struct agent_volume *v);
void get_volume(struct wire_in *r, struct agent_volume *v);

#endif
