/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal snapshots by the names that people give them. Each change is durable on return. */
#ifndef IMGKIT_OPS_SNAPSHOT_H
#define IMGKIT_OPS_SNAPSHOT_H

#include "image/img.h"

/* Readers of this format cut longer names. */
#define SNAPSHOT_NAME_MAX 255 /* bytes */

/* Takes a snapshot of the disk as it is now, with the present time as its date. */
int snapshot_take(struct img *img, const char *name, struct err *err);

/*
 * Index of the snapshot that `text` means: its id or its name, whichever, as long as only one snapshot
 * is meant, or what snapshot_find_exactly takes. -ENOENT, -ENOTUNIQ, -EINVAL (malformed).
 */
int snapshot_find(struct img *img, const char *text, unsigned *index, struct err *err);

/*
 * The first snapshot with all that `snapshot.id=ID,snapshot.name=NAME` (one or both) asks for.
 * -ENOENT; -EINVAL: it is no such list.
 */
int snapshot_find_exactly(struct img *img, const char *text, unsigned *index, struct err *err);

/* The first snapshot of that name. -ENOENT. */
int snapshot_find_name(struct img *img, const char *name, unsigned *index, struct err *err);

#endif
