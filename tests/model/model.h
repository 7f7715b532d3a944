/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk image beside a copy of it in plain memory. Operations are done to both; then both must say
 * the same. Shared by the random-operations programs.
 */
#ifndef IMGKIT_TESTS_MODEL_H
#define IMGKIT_TESTS_MODEL_H

#include "bitmaps.h"
#include "disk.h"
#include "oracle.h"
#include "rng.h"

#define MODEL_SNAPSHOTS 6

/* What the image's file is: one that grows, a part of a device with old bytes in it, an image. */
enum container { IN_FILE, IN_DEVICE, IN_IMAGE };

struct model_config {
	uint64_t seed;
	unsigned version, cluster_bits, refcount_bits;
	bool lazy, zstd, coded, prealloc, extended, bitmaps;
	enum container container;
	bool by_peer;        /* qemu-img makes the image, when it is here */
	const char *backing; /* NULL, "raw", "qcow2" */
	uint64_t size, backing_size;
	char text[256]; /* all of it, for people */
	char opts[160]; /* as for create -o */
};

struct model_disk {
	unsigned char *bytes;
	uint64_t size;
};

struct model {
	struct model_config c;
	struct rng rng;
	struct io *outer;               /* owned: what file is a part of, or NULL */
	struct io *file, *backing_file; /* owned */
	struct img *img;                /* owned */
	struct model_disk disk, backing;
	struct model_disk snap[MODEL_SNAPSHOTS];
	char snap_name[MODEL_SNAPSHOTS][16];
	unsigned n_snap, next_snap;
	struct model_bitmap bitmap[MODEL_BITMAPS];
	unsigned n_bitmap, next_bitmap;
	uint64_t ops;
	unsigned char *buf; /* MODEL_MAX_LEN bytes */
};

#define MODEL_MAX_LEN (UINT64_C(4) << 20)

/* What the seed decides about the image; SEED_… of the environment may pin some of it. */
void model_config_random(struct model_config *c, uint64_t seed);
/* Makes and opens the image, random content and all. */
void model_open(struct model *m, const struct model_config *c);
/* Settles, closes, and frees. */
void model_close(struct model *m);

/* Closes the image and opens it again. clean: settled before; else as after a crash. */
void model_reopen(struct model *m, bool clean);

/* Everything reads as it should, by read and by map. */
void model_compare(struct model *m);
/* The file, which is settled: our judge, our check, the bitmaps. */
void model_judge(struct model *m, bool leaks_allowed);
/* qemu-img check and compare on a copy in files; snapshots as well. After a settle. */
void model_ask_peer(struct model *m);

#endif
