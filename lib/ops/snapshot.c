// SPDX-License-Identifier: LGPL-2.1-or-later
/* Internal snapshots; see snapshot.h. */
#include "ops/snapshot.h"

#include <errno.h>
#include <string.h>
#include <time.h>

int snapshot_take(struct img *img, const char *name, struct err *err)
{
	struct timespec now;
	struct snapshot meta = {0}; /* no machine: no state, its clock and icount at 0 */

	clock_gettime(CLOCK_REALTIME, &now);
	meta.date_sec = (uint32_t)now.tv_sec;
	meta.date_nsec = (uint32_t)now.tv_nsec;
	if (strlen(name) > SNAPSHOT_NAME_MAX)
		return err_set(err, ENAMETOOLONG, "%s: the name of a snapshot has at most %d bytes",
			       img->io.name, SNAPSHOT_NAME_MAX);
	return img_snapshot_create(img, name, &meta, err);
}

int snapshot_apply(struct img *img, const char *text, struct err *err)
{
	unsigned index;
	int r = 0;

	if (img->fmt->snapshots) /* else it is not the name's fault */
		r = img_snapshot_find(img, text, &index, err);
	else
		index = 0;
	return r < 0 ? r : img_snapshot_apply(img, index, err);
}

int snapshot_delete(struct img *img, const char *text, bool by_id, struct err *err)
{
	unsigned n, index;
	const struct snapshot *list = img_snapshots(img, &n);
	int r;

	for (unsigned i = 0; i < n; i++) {
		if (strcmp(list[i].name, text) == 0)
			return img_snapshot_remove(img, i, err);
	}
	if (!by_id)
		return err_set(err, ENOENT, "snapshot not found");
	r = img_snapshot_find(img, text, &index, err);
	return r < 0 ? r : img_snapshot_remove(img, index, err);
}
