/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal snapshots by the names that people give them. Each change is durable on return. */
#ifndef IMGKIT_OPS_SNAPSHOT_H
#define IMGKIT_OPS_SNAPSHOT_H

#include "image/img.h"

/* Readers of this format cut longer names. */
#define SNAPSHOT_NAME_MAX 255 /* bytes */

/* Takes a snapshot of the disk as it is now, with the present time as its date. */
int snapshot_take(struct img *img, const char *name, struct err *err);

/* Returns to the snapshot; text: an id, or else a name. -ENOENT. */
int snapshot_apply(struct img *img, const char *text, struct err *err);

/* Deletes the first snapshot of that name or, with by_id, when there is none, of that id. -ENOENT. */
int snapshot_delete(struct img *img, const char *text, bool by_id, struct err *err);

#endif
