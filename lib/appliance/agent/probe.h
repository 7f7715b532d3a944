/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is on the disks: partition tables, and what libblkid recognises on disks and partitions.
 * Found out when it is asked for, and remembered until disks_forget.
 */
#ifndef IMGKIT_AGENT_PROBE_H
#define IMGKIT_AGENT_PROBE_H

#include "fs.h"
#include "appliance/protocol.h"
#include "base/bytes.h"

#define VOLUMES_MAX 768u /* of all disks; together they fit into one frame */

struct known {
	struct agent_volume v;
	bool glanced;  /* the fields from usage on are filled, */
	bool looked;   /* and are certain */
	bool extended; /* holds partitions and nothing else */
};

struct disks {
	unsigned n;
	struct {
		uint64_t size;
		bool rdonly, scanned;
	} disk[AGENT_DISKS_MAX];
	struct known
		*known; /* owned: VOLUMES_MAX of them; memory that is not touched costs nothing */
	unsigned n_known;
};

/* Finds the disks that the agent was given: from fd AGENT_FD_DISK on. */
int disks_init(struct disks *d, struct err *err);
void disks_free(struct disks *d);

/* Reads the partition table of a disk, unless it is known. */
int disks_scan(struct disks *d, uint32_t disk, struct err *err);
/* What is on a volume; k is of d->known. */
int disks_look(struct disks *d, struct known *k, struct err *err);
/* The same without members of RAIDs, whose signatures lie at the end and which may look as what the
 * RAID holds: cheaper, and enough to choose what is worth a look. */
int disks_glance(struct disks *d, struct known *k, struct err *err);
/* Both, for all. */
int disks_look_all(struct disks *d, struct err *err);
/* -ENXIO: there is no such disk or partition. Scans the disk. */
int disks_find(struct disks *d, uint32_t disk, uint32_t part, struct known **k, struct err *err);
/* Something was written to a disk from its side: what was known is not true any more. */
void disks_forget(struct disks *d);

/* The part of a volume that is on the disk. -EINVAL: none is. */
int disks_volume(const struct disks *d, const struct known *k, struct volume *vol, struct err *err);
/* "sda", "sda1"; buf of 16. */
const char *disks_name(uint32_t disk, uint32_t part, char *buf);

/* The reads that libblkid makes go through these (see the Makefile): probe_io.c. */
int probe_io_window(int fd, uint64_t start, uint64_t size, struct err *err);
void probe_io_free(void);

#endif
