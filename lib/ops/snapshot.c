// SPDX-License-Identifier: LGPL-2.1-or-later
/* Internal snapshots; see snapshot.h. */
#include "ops/snapshot.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/opt.h"

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

int snapshot_find_exactly(struct img *img, const char *text, unsigned *index, struct err *err)
{
	static const struct opt table[] = {
		{.name = "snapshot.id", .type = OPT_STRING},
		{.name = "snapshot.name", .type = OPT_STRING},
		{.name = NULL},
	};
	struct opts opts = {0};
	const char *id, *name;
	unsigned n;
	const struct snapshot *list = img_snapshots(img, &n);
	int r = opts_parse(&opts, text, err);

	if (r == 0)
		r = opts_check(&opts, table, err);
	id = opts_get(&opts, table[0].name);
	name = opts_get(&opts, table[1].name);
	for (*index = 0; r == 0 && *index < n; ++*index) {
		if ((!id || strcmp(list[*index].id, id) == 0) &&
		    (!name || strcmp(list[*index].name, name) == 0))
			break;
	}
	opts_free(&opts);
	if (r == 0 && *index == n)
		r = err_set(err, ENOENT, "%s: there is no snapshot with %s", img->io.name, text);
	return r;
}

int snapshot_find_name(struct img *img, const char *name, unsigned *index, struct err *err)
{
	unsigned n;
	const struct snapshot *list = img_snapshots(img, &n);

	for (unsigned i = 0; i < n; i++) {
		if (strcmp(list[i].name, name) == 0) {
			*index = i;
			return 0;
		}
	}
	return err_set(err, ENOENT, "%s: there is no snapshot '%s'", img->io.name, name);
}

int snapshot_find(struct img *img, const char *text, unsigned *index, struct err *err)
{
	unsigned n, found = 0;
	const struct snapshot *list = img_snapshots(img, &n);

	if (strncmp(text, "snapshot.", strlen("snapshot.")) == 0)
		return snapshot_find_exactly(img, text, index, err);
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(list[i].id, text) == 0 || strcmp(list[i].name, text) == 0) {
			*index = i;
			found++;
		}
	}
	if (found > 1)
		return err_set(err, ENOTUNIQ,
			       "%s: '%s' is the name or id of %u snapshots; "
			       "say snapshot.id=ID or snapshot.name=NAME",
			       img->io.name, text, found);
	if (found == 0)
		return err_set(err, ENOENT, "%s: there is no snapshot '%s'", img->io.name, text);
	return 0;
}
