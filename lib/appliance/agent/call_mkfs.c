/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OP_MKFS: a new filesystem on a volume. */
#include <errno.h>

#include "agent.h"

int call_mkfs(struct agent *a, struct wire_in *args, struct wire_out *result, struct err *err)
{
	char type[32], label[260], uuid[40], options[1024], name[16];
	uint32_t disk = get_u32(args), part = get_u32(args);
	const struct fs_driver *driver;
	struct volume vol;
	struct known *k;
	int r;

	get_text(args, type, sizeof(type));
	get_text(args, label, sizeof(label));
	get_text(args, uuid, sizeof(uuid));
	get_text(args, options, sizeof(options));
	r = call_args(args, err);
	if (r == 0)
		r = disks_find(&a->disks, disk, part, &k, err);
	if (r == 0)
		r = disks_volume(&a->disks, k, &vol, err);
	if (r < 0)
		return r;
	disks_name(disk, part, name);
	if (k->extended)
		return err_set(err, EINVAL, "%s is an extended partition", name);
	if (!part && k->v.table[0])
		return err_set(err, EBUSY, "%s has a partition table (%s)", name, k->v.table);
	if (agent_mounted(&a->tree, &vol))
		return err_set(err, EBUSY, "%s is mounted", name);
	driver = agent_driver(a, type);
	if (!driver || !driver->mkfs)
		return err_set(err, ENOTSUP, "%s filesystems cannot be made", type);
	r = driver->mkfs(&vol, type, label, uuid, options, err);
	disks_forget(&a->disks);
	if (r < 0)
		return tree_error(err, r, name);
	put_text(result, type);
	return 0;
}
