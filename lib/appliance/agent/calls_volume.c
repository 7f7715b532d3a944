/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls about disks, partitions and mounts. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"

int call_volumes(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	int r = call_args(args, err);

	if (r == 0)
		r = disks_look_all(&a->disks, err);
	if (r < 0)
		return r;
	put_u32(result, a->disks.n_known);
	for (unsigned i = 0; i < a->disks.n_known; i++)
		put_volume(result, &a->disks.known[i].v);
	return 0;
}

const struct fs_driver *agent_driver(const struct agent *a, const char *type)
{
	for (const struct fs_driver *const *d = a->drivers; *d; d++)
		for (const char *const *t = (*d)->types; *t; t++)
			if (!strcmp(*t, type))
				return *d;
	return NULL;
}

bool agent_mounted(const struct tree *t, const struct volume *vol)
{
	for (unsigned i = 0; i < t->n; i++) {
		const struct volume *m = &t->mounts[i].fs->vol;

		if (m->disk == vol->disk && overlaps(m->offset, m->size, vol->offset, vol->size))
			return true;
	}
	return false;
}

int agent_mount(struct agent *a, struct tree *t, struct known *k, const char *path, bool rdonly,
		char *type, struct err *err)
{
	const struct fs_driver *driver;
	struct volume vol;
	char name[16];
	struct fs *fs;
	int r = disks_volume(&a->disks, k, &vol, err);

	if (r == 0)
		r = disks_look(&a->disks, k, err);
	if (r < 0)
		return r;
	disks_name(vol.disk, vol.part, name);
	snprintf(type, 32, "%s", k->v.type);
	if (!strcmp(k->v.usage, "ambivalent"))
		return err_set(err, EMEDIUMTYPE, "%s has the signatures of several filesystems",
			       name);
	if (!type[0])
		return err_set(err, EMEDIUMTYPE, "%s has no filesystem that is known", name);
	driver = agent_driver(a, type);
	if (!driver)
		return err_set(err, EMEDIUMTYPE, "%s holds %s, which cannot be mounted", name,
			       type);
	if (vol.rdonly && !rdonly)
		return err_set(err, EROFS, "%s: the disk is opened read-only", name);
	/* Two drivers on the same bytes would not know of each other. */
	if (agent_mounted(t, &vol))
		return err_set(err, EBUSY, "%s is mounted already", name);
	r = driver->mount(&vol, type, rdonly, &fs, err);
	if (r < 0)
		return tree_error(err, r, name);
	r = tree_mount(t, fs, path, err);
	if (r < 0)
		driver->unmount(fs, NULL);
	return r;
}

int call_mount(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	uint32_t disk = get_u32(args), part = get_u32(args), flags;
	struct call_path path;
	struct known *k;
	char type[32];
	int r;

	get_path(args, &path);
	flags = get_u32(args);
	r = call_args(args, err);
	if (r == 0)
		r = call_flags(flags, MOUNT_RDONLY, err);
	if (r == 0)
		r = disks_find(&a->disks, disk, part, &k, err);
	if (r == 0)
		r = agent_mount(a, &a->tree, k, path.s, flags & MOUNT_RDONLY, type, err);
	if (r == 0)
		put_text(result, type);
	return r;
}

int call_unmount(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	int r = call_args(args, err);

	(void)result;
	return r == 0 ? tree_unmount(&a->tree, err) : r;
}

int call_sync(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	int r = call_args(args, err);

	(void)result;
	return r == 0 ? tree_sync(&a->tree, err) : r;
}
